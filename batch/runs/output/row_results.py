"""The result of each row of a shard: what its routing record and journals say about it, and what that cost."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import orjson

from batch.costs.ledger import Ledger
from batch.costs.prices import Price
from batch.errors import BadAnswer
from batch.runs.journal.outcomes import ModelOutcome, ShardOutcomes
from batch.runs.journal.replay import LostRequest
from batch.runs.output.rows import Result, content_of
from batch.runs.output.scored_rows import ScoredRow
from batch.runs.routing_record import RoutingRecord
from schemas.reports import Ambiguous
from schemas.results import ErrorInfo, Status

UNSENT = ErrorInfo(kind="unsent", message="the run ended before this row was sent")

# Stands for an endpoint that a damaged journal line does not name.
UNKNOWN_ENDPOINT = "unknown"

_NOTHING = Decimal(0)


@dataclass(frozen=True)
class RowResults:
    """Makes the results of one shard, row by row, and counts each in a ledger."""

    outcomes: ShardOutcomes
    routing: RoutingRecord
    prices: Mapping[str, Price | None]
    """Of every model; `None`: unknown."""
    ledger: Ledger
    find_in_other_shards: Callable[[int], ModelOutcome | None]
    """The outcome of a row of another shard."""

    def add(self, given: ScoredRow) -> Result:
        """The result of the row, which is counted in the ledger: its end, its cost and its error."""
        result = self._result(given)
        shared = self._source(given.row) != given.row
        if self.outcomes.any_billed and not shared:
            result = self._with_cost_of_failed_attempts(result)
        error = result.error
        self.ledger.add_row(
            result.status,
            result.model,
            result.endpoint,
            result.prompt_tokens,
            result.completion_tokens,
            result.latency_seconds,
            None if error is None else error.kind,
            shared and result.status in ("ok", "failed"),
            pinned=given.pinned is not None,
        )
        if error is not None:
            self.ledger.add_example(error.kind, result.row, result.id, error.status, error.message)
        return result

    def ambiguous(self, given: ScoredRow, model: str, sent: LostRequest) -> Ambiguous:
        """A request for the row whose end is in no journal, with the most that it can have cost."""
        most = None if given.max_tokens is None else self._cost(model, given.prompt_tokens, given.max_tokens)
        endpoint = sent.endpoint or UNKNOWN_ENDPOINT
        return Ambiguous(id=given.id, row=given.row, model=model, endpoint=endpoint, cost_usd=most)

    def _result(self, given: ScoredRow) -> Result:
        if given.error_kind is not None:
            error = ErrorInfo(kind=given.error_kind, message=given.error_message or given.error_kind)
            return _without_answer(given, "invalid", None, error)
        duplicate = self.routing.duplicate_ids.get(given.row)
        if duplicate is not None:
            return _without_answer(given, "invalid", None, ErrorInfo(kind="duplicate_id", message=duplicate))
        source = self._source(given.row)
        shared = source != given.row
        found = self.outcomes.find(source)
        if found is None and shared and source not in self.outcomes.planned:
            found = self.find_in_other_shards(source)
        if found is not None:
            return self._from_outcome(given, found, shared=shared)
        sent = 0 if shared else self.outcomes.sent(source)
        return _without_answer(given, "unsent", self.outcomes.planned.get(source), UNSENT, sent)

    def _source(self, row: int) -> int:
        """The row whose answer this row gets: itself, or the earlier row that makes the same request."""
        return self.routing.shares_answer_of.get(row, row)

    def _from_outcome(self, given: ScoredRow, found: ModelOutcome, *, shared: bool) -> Result:
        model, outcome = found
        status, response, error = outcome.status, outcome.response, outcome.error
        answer = _parsed(response)
        if response is not None and answer is None:
            # A transport let it through; one row must not make the whole part unreadable.
            status, response = "failed", None
            error = ErrorInfo(kind=BadAnswer.kind, message="the stored answer is not a JSON object")
        cost = None
        if status == "ok":
            cost = _NOTHING if shared else self._cost(model, outcome.prompt_tokens, outcome.completion_tokens)
        return Result(
            id=given.id,
            row=given.row,
            status=status,
            model=model,
            endpoint=outcome.endpoint,
            score=given.score,
            content=content_of(answer) if status == "ok" else None,
            response=response,
            prompt_tokens=outcome.prompt_tokens,
            completion_tokens=outcome.completion_tokens,
            cost_usd=cost,
            latency_seconds=None if shared else outcome.latency,
            attempts=0 if shared else outcome.attempts,
            error=error,
            carry=given.carry,
        )

    def _with_cost_of_failed_attempts(self, result: Result) -> Result:
        """The result with the cost of its row's attempts that were billed without an answer; the ledger counts them."""
        billed = list(self.outcomes.billed(result.row))
        if not billed:
            return result
        costs = []
        for model, endpoint, (prompt_tokens, completion_tokens, exact) in billed:
            self.ledger.add_billed(model, endpoint or UNKNOWN_ENDPOINT, prompt_tokens, completion_tokens, exact=exact)
            # An attempt that nothing bounds is left out of the row's cost; the report says how many there are.
            if prompt_tokens is not None or completion_tokens is not None:
                costs.append(self._cost(model, prompt_tokens, completion_tokens))
        if result.status == "ok":
            costs.append(result.cost_usd)
        known = [dollars for dollars in costs if dollars is not None]
        return result._replace(cost_usd=sum(known, _NOTHING) if known and len(known) == len(costs) else None)

    def _cost(self, model: str, prompt_tokens: int | None, completion_tokens: int | None) -> Decimal | None:
        price = self.prices[model]
        return None if price is None else price.cost(prompt_tokens, completion_tokens)


def _without_answer(given: ScoredRow, status: Status, model: str | None, error: ErrorInfo, attempts: int = 0) -> Result:
    return Result(
        id=given.id,
        row=given.row,
        status=status,
        model=model,
        endpoint=None,
        score=given.score,
        content=None,
        response=None,
        prompt_tokens=None,
        completion_tokens=None,
        cost_usd=None,
        latency_seconds=None,
        attempts=attempts,
        error=error,
        carry=given.carry,
    )


def _parsed(response: bytes | None) -> dict[str, Any] | None:
    try:
        parsed = None if response is None else orjson.loads(response)
    except orjson.JSONDecodeError:
        return None
    return parsed if isinstance(parsed, dict) else None
