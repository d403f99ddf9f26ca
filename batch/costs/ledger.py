"""The ledger: counts the rows, attempts, tokens and dollars of a run, and makes its report."""

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
    """Counts of one shard or of a whole run. The ledger of a run is those of its shards merged, in any order.

    Its size does not depend on the number of rows. Dollars are at list prices: exactly the sum of `Price.cost` over the
    answers, and over the attempts that may have been billed without an answer. Such an attempt counts at the usage that
    the server stated, or else at the most that it can have cost.
    """

    def __init__(self, prices: Prices) -> None:
        """`prices` has every model of the job, cheapest first and strongest last; `None`: the price is unknown."""
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
        """Count one row.

        What its attempts without an answer cost is counted by `add_billed`.

        Args:
            status: how the row ended.
            model: the one that answered, or was to answer; `None`: none was chosen.
            endpoint: the URL that the last attempt went to.
            prompt_tokens: of its request, as the server counts them.
            completion_tokens: of its answer.
            latency: seconds of the last attempt.
            error_kind: of its error; `None`: it has none.
            deduplicated: does the row share another row's answer? Then it costs nothing. The counterfactuals charge
                for it, since they are the cost of sending every row to one model.
            pinned: was the row pinned to its model?
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
        """Note a row that ended in this kind of error. Only the first row of each kind is kept."""
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
        """Count an attempt without an answer, billed for these tokens or, if not `exact`, for at most these."""
        tally = self._model(model)
        tally.lost.add(prompt_tokens, completion_tokens, exact=exact)
        if prompt_tokens is not None or completion_tokens is not None:
            tally.endpoint(endpoint).bill.add(prompt_tokens, completion_tokens)

    def add_superseded(self, model: str, prompt_tokens: int | None, completion_tokens: int | None) -> None:
        """Count an answer that was paid for and is not in the results: the plan has another model for its row now."""
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
        """Add all rows and attempts of another ledger."""
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
        """The ledger as JSON. Sums of dollars are stored, not prices, so a later change of prices cannot alter them."""
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
        """Inverse of `to_json`. `prices` are for rows that are added from now on."""
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
        """Make the run's report. Notes on unknown costs are added behind `notes`."""
        # In the job's order, not in the order in which rows named them.
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
        # Answers without usage are missing on both sides of the comparison. An answer that has usage and no price
        # would be missing on one side only, so there is no comparison then.
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
