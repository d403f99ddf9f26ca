"""Counts of rows, attempts, tokens and dollars, per endpoint and per model."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from batch.costs.bill import Bill
from batch.costs.latency import LatencyHistogram
from batch.costs.prices import Price
from schemas.reports import EndpointReport, ModelReport


class EndpointTally:
    """The rows, attempts and dollars of one endpoint."""

    __slots__ = ("attempts", "bill", "errors", "rows", "throttled")

    def __init__(self, price: Price | None) -> None:
        self.rows = self.attempts = self.throttled = self.errors = 0
        self.bill = Bill(price)

    def merge(self, other: "EndpointTally") -> None:
        """Add all counts of another tally."""
        self.rows += other.rows
        self.attempts += other.attempts
        self.throttled += other.throttled
        self.errors += other.errors
        self.bill.merge(other.bill)

    def state(self) -> dict[str, Any]:
        """The tally as JSON values, without prices."""
        counts = {"rows": self.rows, "attempts": self.attempts, "throttled": self.throttled, "errors": self.errors}
        return counts | {"bill": self.bill.state()}

    @classmethod
    def restored(cls, state: dict[str, Any]) -> "EndpointTally":
        """Inverse of `state`. The tally has no price: merge it into one that has."""
        tally = cls(None)
        tally.rows = state["rows"]
        tally.attempts = state["attempts"]
        tally.throttled = state["throttled"]
        tally.errors = state["errors"]
        tally.bill = Bill.restored(state["bill"])
        return tally

    def report(self) -> EndpointReport:
        """The tally as the report has it."""
        return EndpointReport(
            rows=self.rows,
            attempts=self.attempts,
            throttled=self.throttled,
            errors=self.errors,
            cost_usd=None if self.bill.unknown else self.bill.usd,
        )


class LostTally:
    """Attempts without an answer that were, or may have been, billed."""

    __slots__ = ("attempts_in_doubt", "attempts_told", "in_doubt", "told", "unbounded")

    def __init__(self, price: Price | None) -> None:
        self.attempts_told = self.attempts_in_doubt = self.unbounded = 0
        self.told = Bill(price)
        """The cost of attempts whose usage the server stated."""
        self.in_doubt = Bill(price)
        """The most that the other attempts can have cost."""

    @property
    def unknown(self) -> int:
        """How many attempts have known tokens and an unknown cost."""
        return self.told.unknown + self.in_doubt.unknown

    def add(self, prompt_tokens: int | None, completion_tokens: int | None, *, exact: bool) -> None:
        """Count one attempt: billed for these tokens, or, if not `exact`, for at most these."""
        if exact:
            self.attempts_told += 1
            self.told.add(prompt_tokens, completion_tokens)
        elif prompt_tokens is None and completion_tokens is None:
            self.unbounded += 1
        else:
            self.attempts_in_doubt += 1
            self.in_doubt.add(prompt_tokens, completion_tokens)

    def merge(self, other: "LostTally") -> None:
        """Add all counts of another tally."""
        self.attempts_told += other.attempts_told
        self.attempts_in_doubt += other.attempts_in_doubt
        self.unbounded += other.unbounded
        self.told.merge(other.told)
        self.in_doubt.merge(other.in_doubt)

    @classmethod
    def sum(cls, tallies: Iterable["LostTally"]) -> "LostTally":
        """All tallies merged into one."""
        together = cls(None)
        for tally in tallies:
            together.merge(tally)
        return together

    def state(self) -> dict[str, Any]:
        """The tally as JSON values, without prices."""
        return {
            "attempts": [self.attempts_told, self.attempts_in_doubt, self.unbounded],
            "told": self.told.state(),
            "in_doubt": self.in_doubt.state(),
        }

    @classmethod
    def restored(cls, state: dict[str, Any] | None) -> "LostTally":
        """As the other `restored`. `None` is the state in records of older versions, which have no such tally."""
        tally = cls(None)
        if state is not None:
            tally.attempts_told, tally.attempts_in_doubt, tally.unbounded = state["attempts"]
            tally.told = Bill.restored(state["told"])
            tally.in_doubt = Bill.restored(state["in_doubt"])
        return tally

    def notes(self) -> list[str]:
        """Lines about these attempts for the reader of the report."""
        notes = []
        if self.attempts_told:
            attempts = _attempts(self.attempts_told)
            notes.append(f"{attempts} paid for without a usable answer cost {_dollars(self.told)} of the total")
        bounded = self.attempts_in_doubt - self.in_doubt.unknown
        if bounded:
            notes.append(
                f"{_attempts(bounded)} may have been billed without an answer (a timeout, a broken connection, an "
                f"unreadable answer); the most they can cost is {_dollars(self.in_doubt)} of the total"
            )
        if self.unbounded:
            notes.append(
                f"{_attempts(self.unbounded)} may have been billed without an answer, and without max_tokens nothing "
                "bounds their cost; the total leaves them out"
            )
        return notes


def _attempts(count: int) -> str:
    return "1 attempt" if count == 1 else f"{count:,} attempts"


def _dollars(bill: Bill) -> str:
    return f"${bill.usd.normalize():f}"


class ModelTally:
    """The rows, tokens and latencies of one model, and the tallies of its endpoints."""

    __slots__ = ("completion_tokens", "endpoints", "latencies", "lost", "price", "prompt_tokens", "statuses")

    def __init__(self, price: Price | None) -> None:
        self.price = price
        self.statuses: Counter[str] = Counter()
        self.prompt_tokens = self.completion_tokens = 0
        self.latencies = LatencyHistogram()
        self.lost = LostTally(price)
        self.endpoints: dict[str, EndpointTally] = {}

    def endpoint(self, url: str) -> EndpointTally:
        """The tally of an endpoint; a new one if the endpoint has none yet."""
        tally = self.endpoints.get(url)
        if tally is None:
            tally = self.endpoints[url] = EndpointTally(self.price)
        return tally

    @property
    def bill(self) -> Bill:
        """The bills of all endpoints merged into one."""
        return Bill.sum(tally.bill for tally in self.endpoints.values())

    def merge(self, other: "ModelTally") -> None:
        """Add all counts of another tally."""
        self.statuses.update(other.statuses)
        self.prompt_tokens += other.prompt_tokens
        self.completion_tokens += other.completion_tokens
        self.latencies.merge(other.latencies)
        self.lost.merge(other.lost)
        for url, tally in other.endpoints.items():
            self.endpoint(url).merge(tally)

    def state(self) -> dict[str, Any]:
        """The tally as JSON values, without prices."""
        return {
            "statuses": self.statuses,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "latencies": self.latencies.counts,
            "lost": self.lost.state(),
            "endpoints": {url: tally.state() for url, tally in self.endpoints.items()},
        }

    @classmethod
    def restored(cls, state: dict[str, Any]) -> "ModelTally":
        """Inverse of `state`. The tally has no price: merge it into one that has."""
        tally = cls(None)
        tally.statuses = Counter(state["statuses"])
        tally.prompt_tokens = state["prompt_tokens"]
        tally.completion_tokens = state["completion_tokens"]
        tally.latencies = LatencyHistogram({int(bucket): count for bucket, count in state["latencies"].items()})
        tally.lost = LostTally.restored(state.get("lost"))
        tally.endpoints = {url: EndpointTally.restored(counts) for url, counts in state["endpoints"].items()}
        return tally

    def report(self, routed: int) -> ModelReport:
        """The tally as the report has it; `routed` is how many rows all models got together."""
        rows = self.statuses.total()
        bill = self.bill
        return ModelReport(
            rows=rows,
            share=rows / routed if routed else 0.0,
            failed=self.statuses["failed"],
            unsent=self.statuses["unsent"],
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.completion_tokens,
            cost_usd=None if bill.unknown else bill.usd,
            attempts=sum(tally.attempts for tally in self.endpoints.values()),
            p50_seconds=self.latencies.quantile(0.5),
            p95_seconds=self.latencies.quantile(0.95),
            endpoints={url: tally.report() for url, tally in sorted(self.endpoints.items())},
        )
