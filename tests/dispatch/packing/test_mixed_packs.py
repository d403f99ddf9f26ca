"""The answer to a pack of embeddings may not say clearly which item belongs to which row."""

from typing import Any

import orjson
import pytest

from batch.dispatch.packing.pack_size import PackSize
from batch.dispatch.packing.packs import split_answers
from batch.dispatch.request import Completion, Request
from batch.errors import PackMixedUp
from schemas.openai_batch import EMBEDDINGS_URL
from tests.fakes import request


def packed(count: int) -> Request:
    """A request of `count` packed rows."""
    rows = tuple(request(row, max_tokens=None) for row in range(count))
    whole = request(0, max_tokens=None)
    whole.url, whole.rows = EMBEDDINGS_URL, rows
    return whole


def taken_apart(items: list[Any]) -> list[float]:
    """The first number of each row's vector, if the server sends these items for three rows."""
    raw = orjson.dumps({"data": items, "usage": {"prompt_tokens": 12}})
    answers = split_answers(packed(3), Completion(raw, 12, 0))
    return [orjson.loads(answer.raw)["data"][0]["embedding"][0] for answer in answers]


def item(number: float, **index: Any) -> dict[str, Any]:
    return {"embedding": [number], **index}


@pytest.mark.parametrize(
    "items",
    [
        [item(0, index=0), item(1, index=1), item(2, index=2)],
        [item(2, index=2), item(0, index=0), item(1, index=1)],
        [item(0), item(1, index=1), item(2, index=2)],
        [item(2, index=2), item(1, index=1), item(0)],
        [item(0, index=0), item(2, index=2), item(1)],
        [item(0), item(1), item(2)],
        [item(0, index=None), item(1, index=None), item(2, index=None)],
        [item(0), item(1, index=1), item(2)],
    ],
)
def test_items_are_told_apart_where_it_is_clear_which_they_are(items: list[Any]) -> None:
    """Items are matched by `index`. A single missing index is the one that no other item has; if several are missing,
    the items are in the order of the inputs.
    """
    assert taken_apart(items) == [0, 1, 2]


@pytest.mark.parametrize(
    "items",
    [
        [item(0), item(1)],
        [item(0), item(1), item(2), item(3)],
        [item(0), item(1, index=0), item(2)],
        [item(0, index=1), item(1), item(2)],
        [item(0, index=0), item(1, index=0), item(2)],
        [item(0, index=1), item(1, index=2), item(2, index=3)],
        [item(0, index=0), item(1, index=1), 7],
        [item(0, index="a"), item(1), item(2)],
    ],
)
def test_where_it_is_not_clear_nothing_is_guessed(items: list[Any]) -> None:
    """Too few or too many items, an index used twice, out of range or against the order: the answer raises
    `PackMixedUp`, which keeps the usage that is billed.
    """
    with pytest.raises(PackMixedUp) as caught:
        taken_apart(items)
    assert (caught.value.usage, caught.value.billed, caught.value.blame) == ((12, 0), True, "row")


def test_where_the_first_pack_is_mixed_up_inputs_go_alone_from_then_on() -> None:
    """An endpoint whose first pack was mixed up gets inputs one by one. If an earlier pack of it was split, the size
    stays.
    """
    never = PackSize(16)
    assert never.mixed_up()
    assert never.allowed == 1
    never.answered(1)
    assert never.allowed == 1
    once = PackSize(16)
    once.answered(16)
    assert not once.mixed_up()
    assert once.allowed == 16
