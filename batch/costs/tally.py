"""Counts per endpoint and per model."""

from collections import Counter
from typing import Any

from batch.costs.bill import Bill
from batch.costs.latency import LatencyHistogram
from batch.costs.prices import Price
from schemas.reports import EndpointReport, ModelReport


class EndpointTally:
    """One endpoint's rows, attempts and dollars."""

    __slots__ = ("attempts", "bill", "errors", "rows", "throttled")

    def __init__(self, price: Price | None) -> None:
        self.rows = self.attempts = self.throttled = self.errors = 0
        self.bill = Bill(price)

    def merge(self, other: "EndpointTally") -> None:
        """Add all of another's."""
        self.rows += other.rows
        self.attempts += other.attempts
        self.throttled += other.throttled
        self.errors += other.errors
        self.bill.merge(other.bill)

    def state(self) -> dict[str, Any]:
        """As JSON."""
        counts = {"rows": self.rows, "attempts": self.attempts, "throttled": self.throttled, "errors": self.errors}
        return counts | {"bill": self.bill.state()}

    @classmethod
    def restored(cls, state: dict[str, Any]) -> "EndpointTally":
        """From `state()`, to be merged into one that has a price."""
        tally = cls(None)
        tally.rows = state["rows"]
        tally.attempts = state["attempts"]
        tally.throttled = state["throttled"]
        tally.errors = state["errors"]
        tally.bill = Bill.restored(state["bill"])
        return tally

    def report(self) -> EndpointReport:
        """As reported."""
        return EndpointReport(
            rows=self.rows,
            attempts=self.attempts,
            throttled=self.throttled,
            errors=self.errors,
            cost_usd=None if self.bill.unknown else self.bill.usd,
        )


class ModelTally:
    """One model's rows, tokens and latencies, and its endpoints."""

    __slots__ = ("completion_tokens", "endpoints", "latencies", "price", "prompt_tokens", "statuses")

    def __init__(self, price: Price | None) -> None:
        self.price = price
        self.statuses: Counter[str] = Counter()
        self.prompt_tokens = self.completion_tokens = 0
        self.latencies = LatencyHistogram()
        self.endpoints: dict[str, EndpointTally] = {}

    def endpoint(self, url: str) -> EndpointTally:
        """The endpoint's tally, empty when it is new."""
        tally = self.endpoints.get(url)
        if tally is None:
            tally = self.endpoints[url] = EndpointTally(self.price)
        return tally

    @property
    def bill(self) -> Bill:
        """Of all endpoints together."""
        return Bill.sum(tally.bill for tally in self.endpoints.values())

    def merge(self, other: "ModelTally") -> None:
        """Add all of another's."""
        self.statuses.update(other.statuses)
        self.prompt_tokens += other.prompt_tokens
        self.completion_tokens += other.completion_tokens
        self.latencies.merge(other.latencies)
        for url, tally in other.endpoints.items():
            self.endpoint(url).merge(tally)

    def state(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "statuses": self.statuses,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "latencies": self.latencies.counts,
            "endpoints": {url: tally.state() for url, tally in self.endpoints.items()},
        }

    @classmethod
    def restored(cls, state: dict[str, Any]) -> "ModelTally":
        """From `state()`, to be merged into one that has a price."""
        tally = cls(None)
        tally.statuses = Counter(state["statuses"])
        tally.prompt_tokens = state["prompt_tokens"]
        tally.completion_tokens = state["completion_tokens"]
        tally.latencies = LatencyHistogram({int(bucket): count for bucket, count in state["latencies"].items()})
        tally.endpoints = {url: EndpointTally.restored(counts) for url, counts in state["endpoints"].items()}
        return tally

    def report(self, routed: int) -> ModelReport:
        """As reported; `routed` rows went to all models together."""
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
