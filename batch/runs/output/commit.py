"""Commits a shard: its journals become its part of the output, one result for each input row, in order."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from batch.costs.ledger import AttemptOutcome, Ledger
from batch.costs.prices import Price
from batch.errors import NotConnected, RateLimited, StorageError
from batch.runs.committed import Committed, write_commit
from batch.runs.integrity.answered import write_answered
from batch.runs.journal.outcomes import ModelOutcome, ShardOutcomes
from batch.runs.journal.replay import OK, LostRequest
from batch.runs.layout import Layout
from batch.runs.output.parts import part_writer
from batch.runs.output.row_results import UNKNOWN_ENDPOINT, RowResults
from batch.runs.output.scored_rows import scored_rows
from batch.runs.parts import check_scored
from batch.runs.routing_record import RoutingRecord, read_routing_record
from batch.storage.atomic import storage_error, sync
from schemas.job import OutputSpec
from schemas.reports import Ambiguous

_log = logging.getLogger("batchrouter.runs")

_ATTEMPT_OUTCOMES: Final[Mapping[str, AttemptOutcome]] = {OK: "ok", RateLimited.kind: "throttled"}


def discard_commits(layout: Layout, shards: Iterable[int]) -> None:
    """Remove the commit records of these shards, so that each is committed again from its journals.

    Needed before failed rows of committed shards are sent again: a run that is killed meanwhile would otherwise leave a
    record behind whose counts are older than the journals, and the next run would go by it.

    Raises:
        StorageError: a record cannot be removed.
    """
    records = [path for shard in shards if (path := layout.commit(shard)).exists()]
    for path in records:
        try:
            path.unlink()
        except OSError as error:
            raise storage_error(path, error, "remove") from error
    if records:
        folder = records[0].parent
        try:
            sync(folder)
        except OSError as error:
            raise storage_error(folder, error, "sync") from error


def commit_shard(
    layout: Layout,
    shard: int,
    *,
    prices: Mapping[str, Price | None],
    fallbacks: Mapping[str, Sequence[str]],
    output: OutputSpec,
    find_in_other_shards: Callable[[int], ModelOutcome | None] = lambda _: None,
    make_up_ids: str | None = None,
) -> Committed:
    """Write the part of `shard` and then its commit record. Called again, it writes the same bytes.

    The scored part gives the rows and their order, the routed parts each row's model, the journals its outcome. A row
    without an outcome is `unsent`. The routing record says which rows are `invalid` because their id repeats, and which
    share another row's answer and therefore cost nothing.

    Args:
        prices: of all the job's models, in the job's order; `None`: unknown.
        fallbacks: by model, the models that its rows may have gone to instead.
        output: the format, and whether input columns are carried.
        find_in_other_shards: gives the outcome of a row of another shard, for rows that share its answer.
        make_up_ids: as `scored_rows` takes it.

    Raises:
        StorageError: something cannot be read or written; the shard is then not committed.
    """
    ledger = Ledger(prices)
    ambiguous: list[Ambiguous] = []
    rows = 0
    with ShardOutcomes(layout, shard, list(prices), fallbacks) as outcomes:
        results = RowResults(outcomes, _routing_record(layout, shard), prices, ledger, find_in_other_shards)
        lost = _lost_requests(outcomes)
        check_scored(layout, shard)
        with part_writer(layout, shard, output) as part:
            for given in scored_rows(layout.scored(shard), make_up_ids=make_up_ids):
                result = results.add(given)
                part.write(result if output.carry else result._replace(carry=None))
                ambiguous += [results.ambiguous(given, model, sent) for model, sent in lost.get(given.row, ())]
                rows += 1
        _count_attempts(ledger, outcomes)
        for model, outcome in outcomes.superseded():
            ledger.add_superseded(model, outcome.prompt_tokens, outcome.completion_tokens)
        notes = (*(n for journal in outcomes.replays.values() for n in journal.notes), *outcomes.answered.notes)
        write_answered(layout, shard, outcomes.answered)
    committed = Committed(
        rows, ledger.to_json(), tuple(ambiguous), notes, part.checksums(), ids_made_up=make_up_ids is not None
    )
    write_commit(layout, shard, committed)
    _log.info("shard %d: committed %d rows (%s)", shard, rows, _counted(ledger))
    return committed


def _routing_record(layout: Layout, shard: int) -> RoutingRecord:
    record = read_routing_record(layout, shard)
    if record is None:
        path = layout.routing_record(shard)
        raise StorageError(f"{path} is missing: the shard was not routed; --fresh starts a new run")
    return record


def _count_attempts(ledger: Ledger, outcomes: ShardOutcomes) -> None:
    for model, journal in outcomes.replays.items():
        for (endpoint, kind), count in journal.ended.items():
            # An attempt that reached no server was not sent.
            if kind != NotConnected.kind:
                outcome = _ATTEMPT_OUTCOMES.get(kind, "error")
                ledger.add_attempts(model, endpoint or UNKNOWN_ENDPOINT, outcome, count)


def _lost_requests(outcomes: ShardOutcomes) -> dict[int, list[tuple[str, LostRequest]]]:
    """By row, the requests whose end is in no journal, each with its model."""
    lost: dict[int, list[tuple[str, LostRequest]]] = {}
    for model, journal in outcomes.replays.items():
        for sent in journal.lost:
            lost.setdefault(sent.row, []).append((model, sent))
    return lost


def _counted(ledger: Ledger) -> str:
    return ", ".join(f"{count} {status}" for status, count in ledger.statuses.items() if count)
