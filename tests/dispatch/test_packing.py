"""Embedding rows packed into requests, and their answers taken apart."""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from random import Random
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.dispatch.dispatcher import Dispatcher
from batch.dispatch.endpoint import Endpoint
from batch.dispatch.packing import Packer, PackSize, halves, pack, piece_of, split
from batch.dispatch.pool import Pricing
from batch.dispatch.request import Completion, Request
from batch.errors import (
    BadAnswer,
    BadRequest,
    DispatchError,
    NotConnected,
    RateLimited,
    Refused,
    ServerError,
    TimedOut,
)
from schemas.endpoints import EndpointSpec, LimitsSpec, ModelSpec
from schemas.job import DispatchSpec
from schemas.openai_batch import CHAT_URL, EMBEDDINGS_URL
from tests.dispatch.memory_work import MemoryJournal, MemoryWork
from tests.fakes import Behaviour, FunctionTransport
from tests.virtual_time import run


def embedding(
    row: int, value: object = "text", *, tokens: int = 1, url: str = EMBEDDINGS_URL, **params: Any
) -> Request:
    return Request(row, 0, url, orjson.dumps({"input": value, **params}), tokens, None, "m")


def packed(*rows: Request) -> Request:
    return pack([piece for row in rows if (piece := piece_of(row)) is not None])


def answer(*items: object, usage: object = None, **more: Any) -> Completion:
    tokens = usage["prompt_tokens"] if isinstance(usage, dict) else None
    told = {"object": "list", "data": items, "model": "m", **more} | ({"usage": usage} if usage is not None else {})
    return Completion(orjson.dumps(told), tokens, None if tokens is None else 0)


class Rows:
    """Rows at hand."""

    def __init__(self, *rows: Request) -> None:
        self.left = deque(rows)

    def get_nowait(self) -> Request | None:
        return self.left.popleft() if self.left else None

    def put_back(self, request: Request) -> None:
        self.left.appendleft(request)


def packer(*limits: dict[str, Any]) -> Packer:
    specs = [EndpointSpec(url=f"http://e{i}/v1", limits=LimitsSpec(**each)) for i, each in enumerate(limits)]
    return Packer([Endpoint(spec, "m", i, lambda: 0.0, Random(0)) for i, spec in enumerate(specs)])


def numbers(request: Request) -> list[int]:
    return [row.row for row in request.rows] or [request.row]


def test_one_request_has_all_inputs_and_the_sum_of_tokens() -> None:
    """The packed body is the rows' own with a list for `input`, whatever the order of their keys."""
    other = Request(2, 0, EMBEDDINGS_URL, b'{"encoding_format":"base64","dimensions":4,"input":"b"}', 5, None, "m")
    one = packed(embedding(1, "a", tokens=3, dimensions=4, encoding_format="base64"), other)
    assert orjson.loads(one.body) == {"input": ["a", "b"], "dimensions": 4, "encoding_format": "base64"}
    assert numbers(one) == [1, 2]
    assert one.cost == (1, 8, 0, 0)


def test_a_single_row_goes_as_it_is() -> None:
    """A pack of one is the row itself."""
    row = embedding(1)
    assert packed(row) is row


@pytest.mark.parametrize(
    "row",
    [
        embedding(0, ["two", "texts"]),
        embedding(0, []),
        embedding(0, [[1, 2]]),
        embedding(0, [True]),
        embedding(0, None),
        embedding(0, url=CHAT_URL),
    ],
)
def test_what_is_not_one_input_goes_alone(row: Request) -> None:
    """Lists of inputs, odd inputs and other requests are left as they are."""
    assert piece_of(row) is None
    assert packer({}).fill(row, Rows(embedding(1))) is row


@pytest.mark.parametrize(
    ("one", "other", "together"),
    [
        (embedding(0, "a"), embedding(1, "b"), True),
        (embedding(0, [1, 2]), embedding(1, [3]), True),
        (embedding(0, "a"), embedding(1, [1, 2]), False),
        (embedding(0, "a", dimensions=4), embedding(1, "a", dimensions=8), False),
        (embedding(0, "a", user="x"), embedding(1, "a"), False),
    ],
)
def test_only_rows_alike_travel_together(one: Request, other: Request, together: bool) -> None:
    """Bodies must be equal but for the input, and texts do not go with tokens; what does not fit stays in the queue."""
    rows = Rows(other)
    assert numbers(packer({}).fill(one, rows)) == ([0, 1] if together else [0])
    assert list(rows.left) == ([] if together else [other])


@pytest.mark.parametrize(
    ("limits", "count"),
    [
        ([{}], 32),
        ([{"max_inputs": 5}], 5),
        ([{"max_inputs": 1}], 1),
        ([{"max_inputs": 50}, {"max_inputs": 7}], 7),
        ([{"max_inputs": 2048}], 100),
        # 100 tokens a row: six seconds of 60,000 a minute, one second, and the fewer of two endpoints.
        ([{"max_inputs": 2048, "tpm": 10_000}], 10),
        ([{"max_inputs": 2048, "tpm": 10_000, "window_seconds": 1}], 1),
        ([{"max_inputs": 2048, "input_tpm": 10_000}, {"input_tpm": 5_000}], 5),
    ],
)
def test_a_pack_is_what_every_endpoint_takes(limits: list[dict[str, Any]], count: int) -> None:
    """At most `max_inputs` of each endpoint of the pool, and at most what its token limit lets through at once."""
    rows = Rows(*(embedding(i, tokens=100) for i in range(1, 100)))
    assert numbers(packer(*limits).fill(embedding(0, tokens=100), rows)) == list(range(count))
    assert len(rows.left) == 100 - count


def test_bodies_stay_below_what_servers_take() -> None:
    """Texts of 100 kB go by the dozen, not by the hundred."""
    rows = Rows(*(embedding(i, "x" * 100_000) for i in range(1, 50)))
    assert len(packer({"max_inputs": 50}).fill(embedding(0, "x" * 100_000), rows).body) < 1_600_000


def test_halves_are_the_whole() -> None:
    """In order, and down to the rows themselves."""
    rows = [embedding(i, f"t{i}") for i in range(3)]
    first, second = halves(packed(*rows))
    assert first is rows[0]
    assert numbers(second) == [1, 2]
    assert orjson.loads(second.body) == {"input": ["t1", "t2"]}


def test_each_row_gets_its_own_answer() -> None:
    """By `index`, not by place; with index 0, and everything else as the server said it."""
    one, two = split(
        packed(embedding(0), embedding(1)),
        answer({"index": 1, "embedding": "AAAA"}, {"index": 0, "embedding": [0.1, 1e-8]}, id="x"),
    )
    common = {"object": "list", "model": "m", "id": "x"}
    assert orjson.loads(one.raw) == {**common, "data": [{"index": 0, "embedding": [0.1, 1e-8]}]}
    assert orjson.loads(two.raw) == {**common, "data": [{"index": 0, "embedding": "AAAA"}]}
    assert (one.prompt_tokens, one.completion_tokens) == (None, None)


@given(
    st.lists(st.integers(0, 10_000), min_size=2, max_size=40), st.integers(0, 10**6), st.none() | st.integers(0, 1000)
)
def test_usage_adds_up(weights: list[int], total: int, cached: int | None) -> None:
    """Every count is shared out exactly, within one of each row's proportion, and rows' tokens are what usage says."""
    usage = {"prompt_tokens": total, "total_tokens": total, "details": {"cached": cached}}
    rows = packed(*(embedding(i, tokens=tokens) for i, tokens in enumerate(weights)))
    parts = split(rows, answer(*({"index": i, "embedding": []} for i in range(len(weights))), usage=usage))
    told = [orjson.loads(part.raw)["usage"] for part in parts]
    assert [each["prompt_tokens"] for each in told] == [part.prompt_tokens for part in parts]
    assert sum(each["prompt_tokens"] for each in told) == sum(each["total_tokens"] for each in told) == total
    if cached is not None:
        assert sum(each["details"]["cached"] for each in told) == cached
    assert {part.completion_tokens for part in parts} == {0}
    whole = sum(weights)
    for weight, part in zip(weights, parts, strict=True):
        assert part.prompt_tokens is not None
        assert abs(part.prompt_tokens - (total * weight / whole if whole else total / len(weights))) < 1


@pytest.mark.parametrize(
    "items",
    [
        [{"index": 0}],
        [{"index": 0}, {"index": 0}],
        [{"index": 0}, {"index": 2}],
        [{"index": 0}, {"index": 1}, {"index": 1}],
        [{"index": 0}, {"index": [1]}],
        [{"index": 0}, {}],
        [{"index": 0}, "x"],
    ],
)
def test_an_answer_must_have_one_item_for_each_input(items: list[object]) -> None:
    """Too few, too many, the same twice or none that can be told apart are no answer to anybody."""
    with pytest.raises(BadAnswer, match=r"not one for each of 2 inputs"):
        split(packed(embedding(0), embedding(1)), answer(*items))


@pytest.mark.parametrize("where", [b'"usage":', b'"more":'])
@pytest.mark.parametrize("levels", [300, 900])
def test_an_answer_nested_too_deeply_is_a_bad_one(where: bytes, levels: int) -> None:
    """What can be read but not taken apart is the endpoint's trouble, and not the end of the run."""
    deep = where + b'{"a":' * levels + b"1" + b"}" * levels
    raw = b'{"data":[{"index":0},{"index":1}],' + deep + b"}"
    with pytest.raises(BadAnswer, match="nested too deeply"):
        split(packed(embedding(0), embedding(1)), Completion(raw, None, None))


def test_a_refusal_halves_until_it_is_settled() -> None:
    """While halves are under way requests are smaller; one bad input changes nothing, too many inputs change it."""
    size = PackSize(64)
    size.refused(64)
    size.refused(32)
    assert size.allowed == 16
    size.settled(32, too_large=False)
    assert size.allowed == 32
    size.settled(64, too_large=False)
    assert size.allowed == 64
    size.refused(64)
    size.settled(64, too_large=True)
    assert size.allowed == 32
    size.answered(32)
    assert size.allowed == 32


def test_trouble_halves_and_answers_double() -> None:
    """Down to one input, and up to what is allowed again."""
    size = PackSize(8)
    seen = []
    for _ in range(4):
        size.failed(size.allowed)
        seen.append(size.allowed)
    for _ in range(4):
        size.answered(size.allowed)
        seen.append(size.allowed)
    assert seen == [4, 2, 1, 1, 2, 4, 8, 8]


def test_throttling_says_nothing_for_a_minute() -> None:
    """Only what is throttled for longer than the minute that limits are made of is too large to pass."""
    size = PackSize(8)
    for now in (0.0, 30.0, 60.0):
        size.throttled(8, now)
    assert size.allowed == 8
    size.answered(8)
    size.throttled(8, 70.0)
    assert size.allowed == 8
    size.throttled(8, 131.0)
    assert size.allowed == 4


@given(
    limit=st.integers(1, 64),
    bad=st.sets(st.integers(0, 199), max_size=5),
)
def test_the_server_decides_how_many(limit: int, bad: set[int]) -> None:
    """Against a server of any batch limit, with bad rows among the good ones, exactly the bad ones are refused, and
    the limit is found out once: only bad rows make it be looked for again.
    """
    filler = packer({"max_inputs": 64})
    size = filler.sizes[0]
    rows = Rows(*(embedding(i) for i in range(200)))
    refused: set[int] = set()
    oversized = 0

    def send(request: Request) -> bool:
        nonlocal oversized
        sent = numbers(request)
        if len(sent) <= limit and bad.isdisjoint(sent):
            size.answered(len(sent))
            return True
        if len(sent) == 1:
            refused.update(sent)
            return False
        oversized += len(sent) > limit
        size.refused(len(sent))
        answered = [send(half) for half in halves(request)]
        too_large = all(answered)
        size.settled(len(sent), too_large=too_large)
        return too_large

    while (row := rows.get_nowait()) is not None:
        send(filler.fill(row, rows))
    assert refused == bad
    # To find it takes at most 63 refusals, if 64 inputs go down to one.
    assert oversized <= 63 * (1 + len(bad))


@dataclass(eq=False)
class KeptJournal(MemoryJournal):
    """Keeps answers too."""

    answers: dict[int, Any] = field(default_factory=dict)

    def outcome(self, row: int, **told: Any) -> None:
        super().outcome(row, **told)
        self.answers[row] = orjson.loads(told["response"]) if told["status"] == "ok" else told["error"].kind


@dataclass
class EmbeddingWork(MemoryWork):
    """Rows to embed; row 7 says "7"."""

    answers: dict[int, Any] = field(default_factory=dict)

    def routed(self, shard: int, model: str) -> Iterator[Sequence[Request]]:
        for row in self.rows[shard, model]:
            body = orjson.dumps({"input": str(row), "dimensions": 2})
            yield [Request(row, shard, EMBEDDINGS_URL, body, 10, None, model)]

    def journal(self, shard: int, model: str) -> KeptJournal:
        return KeptJournal(model, self.events, self.outcomes, self.fail_on, answers=self.answers)


@dataclass
class Server:
    """Embeds "7" as [7.0]; counts requests and inputs."""

    most: int = 2048
    bad: frozenset[str] = frozenset()
    trouble: Callable[[int], DispatchError | None] = lambda number: None
    deaf: bool = False
    """It looks at the first input only."""
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
    """Rows 0 to `rows`, planned for the model `m` and sent by the real dispatcher; the model `n` may take over."""
    work = EmbeddingWork({(0, "m"): list(range(rows))})

    async def main() -> None:
        dispatcher = Dispatcher(
            [model("m", **limits), model("n", **limits)],
            spec or DispatchSpec(),
            work,
            seed=0,
            keys=lambda name: None,
            wall=lambda: 0.0,
            transports=lambda endpoint: FunctionTransport(server),
            pricing={} if pricing is None else {"m": pricing},
        )
        dispatcher.feed(0)
        dispatcher.close_feed()
        if drained_after is not None:
            asyncio.get_running_loop().call_later(drained_after, dispatcher.drain)
        await dispatcher.run()
        lanes = dispatcher.lanes.values()
        assert all(lane.pool.in_flight == lane.pool.waiting == 0 for lane in lanes)
        assert sum(lane.prompt_tokens for lane in lanes) == 10 * sum(lane.ok for lane in lanes)
        assert sum(lane.open for lane in lanes) == rows - len(work.outcomes)

    run(main())
    return work


def own_answers(work: EmbeddingWork) -> set[int]:
    """Rows that have their own embedding, and their own share of the usage."""
    return {
        row
        for row, told in work.answers.items()
        if not isinstance(told, str)
        and told["data"] == [{"index": 0, "embedding": [float(row)]}]
        and told["usage"] == {"prompt_tokens": 10, "total_tokens": 10}
    }


def test_rows_share_requests_and_nothing_else() -> None:
    """A hundred rows go in four requests; each has its intent before its outcome, and its own answer."""
    server = Server()
    work = sent_to(server, 100)
    assert sorted(server.sizes) == [4, 32, 32, 32]
    assert own_answers(work) == set(range(100))
    assert Counter(work.events) == Counter((kind, row) for kind in ("intent", "ok") for row in range(100))


def test_a_packed_request_costs_one_request_and_all_its_tokens() -> None:
    """One request a second carries 32 rows a second; 6,000 tokens a minute carry ten."""
    by_requests, by_tokens = Server(), Server()
    sent_to(by_requests, 320, rpm=60)
    assert len(by_requests.sizes) == 10
    assert by_requests.times[-1] - by_requests.times[0] == pytest.approx(9, rel=0.1)
    sent_to(by_tokens, 320, tpm=6000)
    assert by_tokens.times[-1] - by_tokens.times[0] == pytest.approx(32, rel=0.15)


@pytest.mark.parametrize("most", [2048, 5, 1])
def test_bad_rows_fail_alone(most: int) -> None:
    """Whatever the server's batch limit, the bad rows fail as bad requests and no other row loses an attempt."""
    server = Server(most=most, bad=frozenset({"13", "57", "58"}))
    work = sent_to(server, 100, spec=DispatchSpec(max_attempts=1), max_in_flight=4)
    assert own_answers(work) == set(range(100)) - {13, 57, 58}
    assert {work.answers[row] for row in (13, 57, 58)} == {"bad_request"}


def test_a_smaller_batch_limit_is_found_once() -> None:
    """A server that takes 5 inputs at once refuses some requests at first, and then none of hundreds."""
    server = Server(most=5)
    work = sent_to(server, 2000, max_in_flight=2)
    assert own_answers(work) == set(range(2000))
    assert all(size <= 5 for size in server.sizes[50:])
    assert server.sizes.count(4) > 400


@pytest.mark.parametrize(
    "error", [RateLimited("HTTP 429", status=429, retry_after=1.0), ServerError("HTTP 500"), TimedOut("late")]
)
def test_trouble_puts_all_rows_back(error: DispatchError) -> None:
    """A quarter of the requests fail in one way or another; every row is answered, and each sending has its intent."""
    server = Server(trouble=lambda number: error if number % 4 == 0 else None)
    work = sent_to(server, 300)
    assert own_answers(work) == set(range(300))
    assert max(outcome.attempts for outcome in work.outcomes.values()) > 1
    intents = Counter(row for kind, row in work.events if kind == "intent")
    assert intents == {row: outcome.attempts for row, outcome in work.outcomes.items()}


def test_a_server_that_looks_at_one_input_only_is_found_out() -> None:
    """Its answers are nobody's; rows go in smaller and smaller requests until each goes alone."""
    server = Server(deaf=True)
    work = sent_to(server, 64, max_in_flight=1)
    assert own_answers(work) == set(range(64))


def test_a_budget_is_held_row_by_row() -> None:
    """Where a whole pack does not fit into what is left, those of its rows are sent that do."""
    pricing = Pricing(
        lambda request: Decimal(max(1, len(request.rows))), lambda prompt, answer: Decimal(prompt or 0) / 10
    )
    work = sent_to(Server(), 100, spec=DispatchSpec(budget_usd=Decimal(75)), pricing=pricing)
    assert len(own_answers(work)) == 75
    assert Counter(outcome.status for outcome in work.outcomes.values()) == {"ok": 75, "unsent": 25}


def test_rows_of_a_pack_fall_back_like_others() -> None:
    """Where a whole pool refuses for good, each of them goes to the next model, and is packed there again."""
    server = Server()

    async def refuses(request: Request, endpoint: EndpointSpec) -> Completion:
        if endpoint.model == "m":
            raise Refused("HTTP 401", status=401)
        return await server(request, endpoint)

    work = sent_to(refuses, 100, spec=DispatchSpec(fallbacks={"m": ("n",)}))
    assert own_answers(work) == set(range(100))
    assert {outcome.journal for outcome in work.outcomes.values()} == {"n"}
    assert max(server.sizes) == 32


def test_what_reached_nobody_counts_for_nobody() -> None:
    """A server that was not there at first costs no row an attempt."""
    server = Server(trouble=lambda number: NotConnected("no connection") if number <= 3 else None)
    work = sent_to(server, 100, spec=DispatchSpec(max_attempts=1))
    assert own_answers(work) == set(range(100))
    assert {outcome.attempts for outcome in work.outcomes.values()} == {1}


def test_a_stop_leaves_no_row_in_doubt() -> None:
    """Stopped while a pack is being halved: what was sent has ended, and the rest waits for the next sitting."""
    server = Server(bad=frozenset({"3"}))
    work = sent_to(server, 32, drained_after=0.25)
    assert server.sizes == [32, 16, 8]
    assert work.outcomes == {}
    sent = Counter(row for kind, row in work.events if kind == "intent")
    ended = Counter(row for kind, row in work.events if kind == "bad_request")
    assert sent == ended
