"""What a run has cost so far, according to its journals."""

from collections.abc import Mapping
from decimal import Decimal

from batch.costs.prices import Price
from batch.runs.integrity.answered import replay_all
from batch.runs.layout import Layout
from batch.runs.parts import read_scored
from batch.runs.schemas import COST_BOUND_COLUMNS


def spent(layout: Layout, prices: Mapping[str, Price | None]) -> Decimal:
    """Dollars over all journals. What an attempt of unknown cost adds is an upper bound.

    No process may be writing to the journals meanwhile.

    Args:
        layout: of the run.
        prices: of every model; a model whose price is unknown (`None`) counts as free.

    Raises:
        DamagedError: a scored part, which says how much an unknown request can have cost, is damaged.
        StorageError: a file cannot be read.
    """
    journals = layout.journals.iterdir() if layout.journals.is_dir() else ()
    counted = layout.answered(0).parent.glob("*.json")
    # A shard whose journals are gone has cost something too; the record of its answered rows says that it was sent.
    shards = {entry.stem for entry in (*journals, *counted) if entry.stem.isdigit()}
    return sum((_spent_in(layout, int(shard), prices) for shard in sorted(shards)), Decimal(0))


def _spent_in(layout: Layout, shard: int, prices: Mapping[str, Price | None]) -> Decimal:
    total = Decimal(0)
    replays, _ = replay_all(layout, shard, prices)
    for model, price in prices.items():
        journal = replays[model]
        if price is None or not journal.attempts:
            continue
        costs = [
            price.cost(outcome.prompt_tokens, outcome.completion_tokens)
            for outcome in journal.outcomes()
            if outcome.status == "ok"
        ]
        for attempts in journal.billed.values():
            costs += [price.cost(billed.prompt_tokens, billed.completion_tokens) for _, billed in attempts]
        # An attempt of which nothing is known cost at most as much as the dearest request of the shard.
        unknown = costs.count(None) + journal.unpriced + len(journal.lost)
        total += sum((cost for cost in costs if cost is not None), Decimal(0))
        if unknown:
            total += unknown * _dearest(layout, shard, price)
    return total


def _dearest(layout: Layout, shard: int, price: Price) -> Decimal:
    """The most that one request of this shard can cost.

    A row whose cost has no bound was sent while the run had no budget. It counts at the tokens that are known of it: at
    most one for each byte of its body, and `max_tokens`.
    """
    part = read_scored(layout, shard, COST_BOUND_COLUMNS, whole=False)
    bounds = (
        price.bound(url, body, most) or price.cost(len(body), most or 0) or Decimal(0)
        for url, body, most in zip(*(part[name].to_pylist() for name in COST_BOUND_COLUMNS), strict=True)
        if body is not None
    )
    return max(bounds, default=Decimal(0))
