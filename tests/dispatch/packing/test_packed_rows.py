"""The dispatcher packs embedding rows into shared requests; rows have nothing else in common."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import orjson
import pytest

from batch.dispatch.budget import Pricing
from batch.dispatch.request import Completion, Request
from batch.errors import (
    BadRequest,
    DispatchError,
    NotConnected,
    RateLimited,
    Refused,
    ServerError,
    TimedOut,
)
from batch.outcomes import RowOutcome
from schemas.endpoints import EndpointSpec, LimitsSpec, ModelSpec
from schemas.job import DispatchSpec
from schemas.openai_batch import EMBEDDINGS_URL
from tests.dispatch.built import built
from tests.dispatch.memory_work import MemoryJournal, MemoryWork
from tests.dispatch.packing.embeddings import answer
from tests.fakes import Behaviour
from tests.virtual_time import run


@dataclass(eq=False)
class KeptJournal(MemoryJournal):
    """A journal that also keeps answers, or the kind of error of a failed row."""

    answers: dict[int, Any] = field(default_factory=dict)

    def outcome(self, outcome: RowOutcome) -> None:
        super().outcome(outcome)
        if outcome.status == "ok":
            assert outcome.response is not None
            self.answers[outcome.row] = orjson.loads(outcome.response)
        else:
            assert outcome.error is not None
            self.answers[outcome.row] = outcome.error.kind


@dataclass
class EmbeddingWork(MemoryWork):
    """Embedding rows; the input of row 7 is "7"."""

    answers: dict[int, Any] = field(default_factory=dict)

    def routed(self, shard: int, model: str) -> Iterator[Sequence[Request]]:
        for row in self.rows[shard, model]:
            body = orjson.dumps({"input": str(row), "dimensions": 2})
            yield [Request(row, shard, EMBEDDINGS_URL, body, 10, None, model)]

    def journal(self, shard: int, model: str) -> KeptJournal:
        return KeptJournal(model, self.events, self.outcomes, self.fail_on, billed=self.billed, answers=self.answers)


@dataclass
class Server:
    """A server that embeds "7" as [7.0] and records the size and the time of each request."""

    most: int = 2048
    bad: frozenset[str] = frozenset()
    trouble: Callable[[int], DispatchError | None] = lambda number: None
    deaf: bool = False
    """It embeds only the first input of a request."""
    sizes: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    async def __call__(self, request: Request, endpoint: EndpointSpec) -> Completion:
        asked = orjson.loads(request.body)["input"]
        inputs = [asked] if isinstance(asked, str) else asked
        self.sizes.append(len(inputs))
        self.times.append(asyncio.get_running_loop().time())
        trouble = self.trouble(len(self.sizes))
        await asyncio.sleep(0.1)
        if trouble is not None:
            raise trouble
        if len(inputs) > self.most or not self.bad.isdisjoint(inputs):
            raise BadRequest("HTTP 400", status=400)
        items = [{"index": i, "embedding": [float(text)]} for i, text in enumerate(inputs[:1] if self.deaf else inputs)]
        return answer(*items, usage={"prompt_tokens": 10 * len(inputs), "total_tokens": 10 * len(inputs)})


def model(name: str, **limits: Any) -> ModelSpec:
    endpoint = EndpointSpec(url=f"http://{name}/v1", model=name, limits=LimitsSpec(**limits))
    return ModelSpec(name=name, endpoints=(endpoint,))


def sent_to(
    server: Behaviour,
    rows: int,
    *,
    spec: DispatchSpec | None = None,
    pricing: Pricing | None = None,
    drained_after: float | None = None,
    **limits: Any,
) -> EmbeddingWork:
    """Dispatch `rows` rows that are planned for the model `m`, with a second model `n`, and check the final counts.

    Args:
        drained_after: the seconds after which the dispatcher is drained.
    """
    work = EmbeddingWork({(0, "m"): list(range(rows))})

    async def main() -> None:
        dispatcher = built(
            work,
            server,
            [model("m", **limits), model("n", **limits)],
            spec,
            pricing={} if pricing is None else {"m": pricing},
        )
        dispatcher.feed(0)
        dispatcher.close_feed()
        if drained_after is not None:
            asyncio.get_running_loop().call_later(drained_after, dispatcher.drain)
        await dispatcher.run()
        lanes = dispatcher.lanes.values()
        assert all(lane.pool.in_flight == lane.pool.waiting == 0 for lane in lanes)
        assert sum(lane.counts.prompt_tokens for lane in lanes) == 10 * sum(lane.counts.ok for lane in lanes)
        assert sum(lane.open for lane in lanes) == rows - len(work.outcomes)

    run(main())
    return work


def own_answers(work: EmbeddingWork) -> set[int]:
    """The rows that got their own embedding and their own share of the usage."""
    return {
        row
        for row, told in work.answers.items()
        if not isinstance(told, str)
        and told["data"] == [{"index": 0, "embedding": [float(row)]}]
        and told["usage"] == {"prompt_tokens": 10, "total_tokens": 10}
    }


def test_rows_share_requests_and_nothing_else() -> None:
    """100 rows are sent in four requests; each row gets its own intent, outcome and answer."""
    server = Server()
    work = sent_to(server, 100)
    assert sorted(server.sizes) == [4, 32, 32, 32]
    assert own_answers(work) == set(range(100))
    assert Counter(work.events) == Counter((kind, row) for kind in ("intent", "ok") for row in range(100))


def test_a_packed_request_costs_one_request_and_all_its_tokens() -> None:
    """60 requests per minute carry 32 rows per second, and 6,000 tokens per minute carry ten rows per second."""
    by_requests, by_tokens = Server(), Server()
    sent_to(by_requests, 320, rpm=60)
    assert len(by_requests.sizes) == 10
    assert by_requests.times[-1] - by_requests.times[0] == pytest.approx(9, rel=0.1)
    sent_to(by_tokens, 320, tpm=6000)
    assert by_tokens.times[-1] - by_tokens.times[0] == pytest.approx(32, rel=0.15)


@pytest.mark.parametrize("most", [2048, 5, 1])
def test_bad_rows_fail_alone(most: int) -> None:
    """Whatever the server's batch limit, only the bad rows fail, and no other row loses its single attempt."""
    server = Server(most=most, bad=frozenset({"13", "57", "58"}))
    work = sent_to(server, 100, spec=DispatchSpec(max_attempts=1), max_in_flight=4)
    assert own_answers(work) == set(range(100)) - {13, 57, 58}
    assert {work.answers[row] for row in (13, 57, 58)} == {"bad_request"}


def test_a_smaller_batch_limit_is_found_once() -> None:
    """A server that takes at most 5 inputs refuses requests only among the first 50; most requests then have 4."""
    server = Server(most=5)
    work = sent_to(server, 2000, max_in_flight=2)
    assert own_answers(work) == set(range(2000))
    assert all(size <= 5 for size in server.sizes[50:])
    assert server.sizes.count(4) > 400


@pytest.mark.parametrize(
    "error", [RateLimited("HTTP 429", status=429, retry_after=1.0), ServerError("HTTP 500"), TimedOut("late")]
)
def test_trouble_puts_all_rows_back(error: DispatchError) -> None:
    """A quarter of the requests fail; every row is answered in the end, and each attempt of a row has an intent."""
    server = Server(trouble=lambda number: error if number % 4 == 0 else None)
    work = sent_to(server, 300)
    assert own_answers(work) == set(range(300))
    assert max(outcome.attempts for outcome in work.outcomes.values()) > 1
    intents = Counter(row for kind, row in work.events if kind == "intent")
    assert intents == {row: outcome.attempts for row, outcome in work.outcomes.items()}


def test_a_server_that_looks_at_one_input_only_is_found_out() -> None:
    """The answer to a pack has too few embeddings, so each row is sent alone afterwards.

    The tokens of the first pack are billed to its rows.
    """
    server = Server(deaf=True)
    work = sent_to(server, 64, max_in_flight=1)
    assert own_answers(work) == set(range(64))
    assert max(outcome.attempts for outcome in work.outcomes.values()) == 2
    intents = Counter(row for kind, row in work.events if kind == "intent")
    packed = [row for row, times in intents.items() if times == 2]
    assert len(packed) > 1
    assert sorted(row for row, billed in work.billed) == sorted(packed)
    assert all(billed.exact for _, billed in work.billed)


def test_a_budget_is_held_row_by_row() -> None:
    """If the remaining budget is too small for a whole pack, as many of its rows are sent as it covers."""
    pricing = Pricing(
        lambda request: Decimal(max(1, len(request.rows))), lambda prompt, answer: Decimal(prompt or 0) / 10
    )
    work = sent_to(Server(), 100, spec=DispatchSpec(budget_usd=Decimal(75)), pricing=pricing)
    assert len(own_answers(work)) == 75
    assert Counter(outcome.status for outcome in work.outcomes.values()) == {"ok": 75, "unsent": 25}


def test_rows_of_a_pack_fall_back_like_others() -> None:
    """Each row of a pack goes to the next model if all endpoints of the first refuse it, and is packed there again."""
    server = Server()

    async def refuses(request: Request, endpoint: EndpointSpec) -> Completion:
        if endpoint.model == "m":
            raise Refused("HTTP 401", status=401)
        return await server(request, endpoint)

    work = sent_to(refuses, 100, spec=DispatchSpec(fallbacks={"m": ("n",)}))
    assert own_answers(work) == set(range(100))
    assert {outcome.journal for outcome in work.outcomes.values()} == {"n"}
    assert max(server.sizes) == 32


def test_an_attempt_that_reaches_no_server_is_not_counted() -> None:
    """A server that cannot be reached at first costs no row an attempt."""
    server = Server(trouble=lambda number: NotConnected("no connection") if number <= 3 else None)
    work = sent_to(server, 100, spec=DispatchSpec(max_attempts=1))
    assert own_answers(work) == set(range(100))
    assert {outcome.attempts for outcome in work.outcomes.values()} == {1}


def test_a_stop_leaves_no_row_in_doubt() -> None:
    """The dispatcher is drained while a pack is halved: the sent attempts end, and no row gets an outcome, so all rows
    are left for the next sitting.
    """
    server = Server(bad=frozenset({"3"}))
    work = sent_to(server, 32, drained_after=0.25)
    assert server.sizes == [32, 16, 8]
    assert work.outcomes == {}
    sent = Counter(row for kind, row in work.events if kind == "intent")
    ended = Counter(row for kind, row in work.events if kind == "bad_request")
    assert sent == ended
