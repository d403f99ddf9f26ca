"""What a run did, row by row and attempt by attempt: small, mergeable, exact in dollars."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

import orjson

from batch.costs.bill import Bill
from batch.costs.prices import EXACT, Price
from batch.costs.tally import LostTally, ModelTally
from schemas.plans import Plan
from schemas.reports import (
    Ambiguous,
    Counterfactual,
    ErrorExample,
    PlanReport,
    Report,
    RowCounts,
    Timing,
)
from schemas.results import Status

AttemptOutcome = Literal["ok", "throttled", "error"]
Prices = Mapping[str, Price | None]


class Ledger:
    """Counts of one shard or of a whole run; whole = the shards' ledgers merged, in any order.

    Dollars are at list prices, exactly the sum of `Price.cost` over answers and over the attempts that may have been
    billed without one: those at the usage that the server told, or else at the most that they can have cost.
    """

    def __init__(self, prices: Prices) -> None:
        """`prices` name every model, cheapest first and strongest last."""
        self._prices = prices
        priced = list(prices.values())
        self.statuses: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.examples: dict[str, ErrorExample] = {}
        self.models: dict[str, ModelTally] = {}
        self.cheapest, self.strongest = Bill(priced[0]), Bill(priced[-1])
        self.deduplicated = self.pinned = self.unmetered = 0
        self.superseded, self.superseded_rows = Bill(None), 0

    def add_attempts(self, model: str, endpoint: str, outcome: AttemptOutcome, count: int = 1) -> None:
        """Count requests that were sent to one endpoint and ended alike."""
        tally = self._model(model).endpoint(endpoint)
        tally.attempts += count
        if outcome == "throttled":
            tally.throttled += count
        elif outcome == "error":
            tally.errors += count

    def add_row(
        self,
        status: Status,
        model: str | None,
        endpoint: str | None,
        prompt_tokens: int | None,
        completion_tokens: int | None,
        latency: float | None,
        error_kind: str | None,
        deduplicated: bool,
        *,
        pinned: bool = False,
    ) -> None:
        """One row ended. `latency` is in seconds; `model` is the one that answered, or was to answer.

        A deduplicated row shares another's answer and costs nothing; the counterfactual, which is every row sent to
        one model and nothing saved, charges it. What attempts without an answer cost is counted by `add_billed`.
        """
        self.statuses[status] += 1
        if error_kind is not None:
            self.errors[error_kind] += 1
        if model is None or status == "invalid":
            return
        self.deduplicated += deduplicated
        self.pinned += pinned
        tally = self._model(model)
        tally.statuses[status] += 1
        metered = prompt_tokens is not None or completion_tokens is not None
        if metered:
            tally.prompt_tokens += prompt_tokens or 0
            tally.completion_tokens += completion_tokens or 0
        if endpoint is not None:
            at = tally.endpoint(endpoint)
            at.rows += 1
            if not deduplicated and status == "ok":
                at.bill.add(prompt_tokens, completion_tokens)
        if status != "ok":
            return
        if latency is not None and not deduplicated:
            tally.latencies.add(latency)
        if metered:
            self.cheapest.add(prompt_tokens, completion_tokens)
            self.strongest.add(prompt_tokens, completion_tokens)
        elif not deduplicated:
            self.unmetered += 1

    def add_example(self, kind: str, row: int, row_id: str, status: int | None, message: str) -> None:
        """A row that ended in this kind of error; the first row of each kind is kept."""
        known = self.examples.get(kind)
        if known is None or row < known.row:
            self.examples[kind] = ErrorExample(id=row_id, row=row, status=status, message=message)

    def add_billed(
        self,
        model: str,
        endpoint: str,
        prompt_tokens: int | None,
        completion_tokens: int | None,
        *,
        exact: bool,
    ) -> None:
        """One attempt brought no answer and was billed for so many tokens, or, if not `exact`, for so many at most."""
        tally = self._model(model)
        tally.lost.add(prompt_tokens, completion_tokens, exact=exact)
        if prompt_tokens is not None or completion_tokens is not None:
            tally.endpoint(endpoint).bill.add(prompt_tokens, completion_tokens)

    def add_superseded(self, model: str, prompt_tokens: int | None, completion_tokens: int | None) -> None:
        """One answer was paid for that is not in the results: an earlier plan had another model for its row."""
        bill = Bill(self._prices.get(model))
        bill.add(prompt_tokens, completion_tokens)
        self.superseded.merge(bill)
        self.superseded_rows += 1

    def _model(self, name: str) -> ModelTally:
        tally = self.models.get(name)
        if tally is None:
            tally = self.models[name] = ModelTally(self._prices.get(name))
        return tally

    def merge(self, other: "Ledger") -> None:
        """Add all of another's rows and attempts."""
        self.statuses.update(other.statuses)
        self.errors.update(other.errors)
        for kind, example in other.examples.items():
            self.add_example(kind, example.row, example.id, example.status, example.message)
        self.deduplicated += other.deduplicated
        self.pinned += other.pinned
        self.unmetered += other.unmetered
        self.cheapest.merge(other.cheapest)
        self.strongest.merge(other.strongest)
        self.superseded.merge(other.superseded)
        self.superseded_rows += other.superseded_rows
        for name, tally in other.models.items():
            self._model(name).merge(tally)

    def to_json(self) -> bytes:
        """Everything but the prices: dollars are written out, so that a later change of price cannot touch them."""
        state = {
            "statuses": self.statuses,
            "errors": self.errors,
            "examples": {kind: example.model_dump() for kind, example in self.examples.items()},
            "deduplicated": self.deduplicated,
            "pinned": self.pinned,
            "unmetered": self.unmetered,
            "cheapest": self.cheapest.state(),
            "strongest": self.strongest.state(),
            "superseded": {"rows": self.superseded_rows, **self.superseded.state()},
            "models": {name: tally.state() for name, tally in self.models.items()},
        }
        return orjson.dumps(state, option=orjson.OPT_NON_STR_KEYS)

    @classmethod
    def from_json(cls, data: bytes, prices: Prices) -> "Ledger":
        """What `to_json` wrote; `prices` are for rows added from now on."""
        state = orjson.loads(data)
        ledger = cls(prices)
        ledger.statuses.update(state["statuses"])
        ledger.errors.update(state["errors"])
        # Commit records of older versions have none.
        ledger.examples = {kind: ErrorExample(**example) for kind, example in state.get("examples", {}).items()}
        ledger.deduplicated = state["deduplicated"]
        ledger.pinned = state["pinned"]
        ledger.unmetered = state["unmetered"]
        ledger.cheapest.merge(Bill.restored(state["cheapest"]))
        ledger.strongest.merge(Bill.restored(state["strongest"]))
        superseded = state.get("superseded")
        if superseded is not None:
            ledger.superseded.merge(Bill.restored(superseded))
            ledger.superseded_rows = superseded["rows"]
        for name, tally in state["models"].items():
            ledger._model(name).merge(ModelTally.restored(tally))
        return ledger

    def report(
        self,
        *,
        name: str,
        plan: Plan,
        timing: Timing,
        versions: dict[str, str],
        fingerprint: str,
        output: str,
        ambiguous: Sequence[Ambiguous] = (),
        notes: Sequence[str] = (),
    ) -> Report:
        """The run's report; notes on unknown costs follow the given ones."""
        # In the job's order, whatever order they were met in.
        tallies = {n: ModelTally(price) for n, price in self._prices.items()} | self.models
        routed = sum(tally.statuses.total() for tally in self.models.values())
        spent = Bill.sum(tally.bill for tally in self.models.values())
        lost = LostTally.sum(tally.lost for tally in self.models.values())
        return Report(
            name=name,
            rows=RowCounts(
                total=self.statuses.total(),
                ok=self.statuses["ok"],
                failed=self.statuses["failed"],
                invalid=self.statuses["invalid"],
                unsent=self.statuses["unsent"],
                deduplicated=self.deduplicated,
            ),
            models={n: tally.report(routed) for n, tally in tallies.items()},
            cost_usd=spent.usd,
            cost_is_complete=not spent.unknown and not lost.unbounded,
            cost_in_doubt_usd=lost.in_doubt.usd,
            counterfactual=self._counterfactual(spent),
            plan=PlanReport.of(plan, self.pinned),
            ambiguous=tuple(ambiguous),
            notes=(*notes, *_notes(tallies), *lost.notes(), *self._superseded_note()),
            errors=dict(sorted(self.errors.items(), key=lambda kind: (-kind[1], kind[0]))),
            error_examples=dict(sorted(self.examples.items())),
            timing=timing,
            versions=versions,
            fingerprint=fingerprint,
            output=output,
        )

    def _superseded_note(self) -> list[str]:
        if not self.superseded_rows:
            return []
        count, bill = self.superseded_rows, self.superseded
        answers = "1 answer" if count == 1 else f"{count:,} answers"
        least = "at least " if bill.unknown else ""
        return [
            f"{answers} of an earlier plan, paid for and not in the results, cost {least}${bill.usd.normalize():f} more"
        ]

    def _counterfactual(self, spent: Bill) -> Counterfactual:
        strongest = self.strongest.usd
        # Answers without usage are on neither side of the comparison; an answer that has usage and no price
        # would be on one side only.
        comparable = not self.strongest.unknown and spent.unknown <= self.unmetered
        return Counterfactual(
            all_strongest_usd=None if self.strongest.unknown else strongest,
            all_cheapest_usd=None if self.cheapest.unknown else self.cheapest.usd,
            saved_usd=EXACT.subtract(strongest, spent.usd) if comparable else None,
        )


def _notes(tallies: Mapping[str, ModelTally]) -> list[str]:
    notes = []
    for name, tally in tallies.items():
        unknown = tally.bill.unknown - tally.lost.unknown
        if unknown and tally.price is None:
            notes.append(f"the price of {name} is not known; the cost leaves out {unknown:,} of its answers")
        elif unknown:
            notes.append(f"the cost leaves out {unknown:,} answers of {name}: no usage, or a prompt beyond its price")
    return notes
