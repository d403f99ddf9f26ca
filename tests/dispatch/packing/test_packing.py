"""Embedding rows are packed into one request, and its answer is split among them."""

from collections import deque
from random import Random
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.dispatch.endpoint import Endpoint
from batch.dispatch.packing.pack_size import PackSize
from batch.dispatch.packing.packs import fill_pack, halves, packable_row, split_answers
from batch.dispatch.request import Completion, Request
from batch.errors import BadAnswer, PackMixedUp, RateLimited, ServerError
from schemas.endpoints import EndpointSpec, LimitsSpec
from schemas.openai_batch import CHAT_URL, EMBEDDINGS_URL
from tests.dispatch.packing.embeddings import answer, embedding, packed
from tests.fakes import fake_endpoint


class Rows:
    """A queue of rows for `fill_pack`."""

    def __init__(self, *rows: Request) -> None:
        self.left = deque(rows)

    def get_nowait(self) -> Request | None:
        return self.left.popleft() if self.left else None

    def put_back(self, request: Request) -> None:
        self.left.appendleft(request)


def endpoints(*limits: dict[str, Any]) -> list[Endpoint]:
    specs = [EndpointSpec(url=f"http://e{i}/v1", limits=LimitsSpec(**each)) for i, each in enumerate(limits)]
    return [fake_endpoint(spec, i, lambda: 0.0, Random(0)) for i, spec in enumerate(specs)]


def numbers(request: Request) -> list[int]:
    return [row.row for row in request.rows] or [request.row]


def test_one_request_has_all_inputs_and_the_sum_of_tokens() -> None:
    """A packed body has the rows' own parameters and the list of their inputs, whatever the order of its keys."""
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
    """A row with a list of inputs, an odd input or another URL is sent alone, unchanged."""
    assert packable_row(row) is None
    assert fill_pack(row, Rows(embedding(1)), endpoints({})) is row


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
    """Rows are packed together if their bodies are equal except for the input, and all inputs are texts or all are
    tokens. A row that does not fit goes back to the queue.
    """
    rows = Rows(other)
    assert numbers(fill_pack(one, rows, endpoints({}))) == ([0, 1] if together else [0])
    assert list(rows.left) == ([] if together else [other])


@pytest.mark.parametrize(
    ("limits", "count"),
    [
        ([{}], 32),
        ([{"max_inputs": 5}], 5),
        ([{"max_inputs": 1}], 1),
        ([{"max_inputs": 50}, {"max_inputs": 7}], 7),
        ([{"max_inputs": 2048}], 100),
        # A row has 100 tokens. 10,000 per minute are 1,000 in six seconds and 167 in one; the lower limit decides.
        ([{"max_inputs": 2048, "tpm": 10_000}], 10),
        ([{"max_inputs": 2048, "tpm": 10_000, "window_seconds": 1}], 1),
        ([{"max_inputs": 2048, "input_tpm": 10_000}, {"input_tpm": 5_000}], 5),
    ],
)
def test_a_pack_is_what_every_endpoint_takes(limits: list[dict[str, Any]], count: int) -> None:
    """A pack has at most each endpoint's `max_inputs`, and at most the tokens that each endpoint accepts at once."""
    rows = Rows(*(embedding(i, tokens=100) for i in range(1, 100)))
    assert numbers(fill_pack(embedding(0, tokens=100), rows, endpoints(*limits))) == list(range(count))
    assert len(rows.left) == 100 - count


def test_bodies_stay_below_what_servers_take() -> None:
    """A packed body stays below 1.6 MB, even if 50 texts of 100 kB are at hand and allowed."""
    rows = Rows(*(embedding(i, "x" * 100_000) for i in range(1, 50)))
    assert len(fill_pack(embedding(0, "x" * 100_000), rows, endpoints({"max_inputs": 50})).body) < 1_600_000


def test_halves_are_the_whole() -> None:
    """The halves hold all rows in order; a half of one row is the row itself."""
    rows = [embedding(i, f"t{i}") for i in range(3)]
    first, second = halves(packed(*rows))
    assert first is rows[0]
    assert numbers(second) == [1, 2]
    assert orjson.loads(second.body) == {"input": ["t1", "t2"]}


def test_each_row_gets_its_own_answer() -> None:
    """Answers are matched by `index` and not by place. Each gets index 0 and keeps everything else that the server
    sent.
    """
    one, two = split_answers(
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
    """Each count in the usage is divided exactly, each row's part is within one token of its proportion, and the
    tokens of a row's answer equal those in its usage.
    """
    usage = {"prompt_tokens": total, "total_tokens": total, "details": {"cached": cached}}
    rows = packed(*(embedding(i, tokens=tokens) for i, tokens in enumerate(weights)))
    parts = split_answers(rows, answer(*({"index": i, "embedding": []} for i in range(len(weights))), usage=usage))
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
        [{"index": 1}, {"index": "x"}],
        [{"index": 0}, "x"],
    ],
)
def test_an_answer_must_have_one_item_for_each_input(items: list[object]) -> None:
    """An answer with too few or too many items, the same index twice, or items without a usable index is refused."""
    with pytest.raises(PackMixedUp, match=r"not one for each of 2 inputs"):
        split_answers(packed(embedding(0), embedding(1)), answer(*items))


@pytest.mark.parametrize("where", [b'"usage":', b'"more":'])
@pytest.mark.parametrize("levels", [300, 900])
def test_an_answer_nested_too_deeply_is_a_bad_one(where: bytes, levels: int) -> None:
    """An answer that can be parsed but is nested too deeply to be split is a `BadAnswer`, not a crash."""
    deep = where + b'{"a":' * levels + b"1" + b"}" * levels
    raw = b'{"data":[{"index":0},{"index":1}],' + deep + b"}"
    with pytest.raises(BadAnswer, match="nested too deeply"):
        split_answers(packed(embedding(0), embedding(1)), Completion(raw, None, None))


def test_a_refusal_halves_until_it_is_settled() -> None:
    """While the halves of a refused request are in flight, new requests are smaller.

    If one input was bad, the size returns to what it was; if there were too many inputs, it stays halved.
    """
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
    """Each failure halves the pack size, down to one input, and each answer doubles it, up to the configured size."""
    size = PackSize(8)
    seen = []
    for _ in range(4):
        size.failed(size.allowed, ServerError("HTTP 500", status=500), 0.0)
        seen.append(size.allowed)
    for _ in range(4):
        size.answered(size.allowed)
        seen.append(size.allowed)
    assert seen == [4, 2, 1, 1, 2, 4, 8, 8]


def test_throttling_says_nothing_for_a_minute() -> None:
    """Throttling for up to a minute keeps the pack size, since limits are per minute; longer throttling halves it."""
    size, refused = PackSize(8), RateLimited("HTTP 429", status=429)
    for now in (0.0, 30.0, 60.0):
        size.failed(8, refused, now)
    assert size.allowed == 8
    size.answered(8)
    size.failed(8, refused, 70.0)
    assert size.allowed == 8
    size.failed(8, refused, 131.0)
    assert size.allowed == 4


@given(
    limit=st.integers(1, 64),
    bad=st.sets(st.integers(0, 199), max_size=5),
)
def test_the_server_decides_how_many(limit: int, bad: set[int]) -> None:
    """Against a server with any batch limit, exactly the bad rows are refused, and the limit is found once: only bad
    rows make the size be searched again.
    """
    pool = endpoints({"max_inputs": 64})
    size = pool[0].pack_size
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
        send(fill_pack(row, rows, pool))
    assert refused == bad
    # Finding the limit takes at most 63 refusals, if 64 inputs go down to one.
    assert oversized <= 63 * (1 + len(bad))
