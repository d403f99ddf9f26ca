"""Shaping one record in a test."""

from typing import Any

import pytest

from batch.reading.invalid import InvalidRow
from batch.reading.requests.shaped import Shaped
from batch.reading.shapes import Shaper
from schemas.job import InputSpec

Record = dict[str, Any]


def shape(record: Record, **settings: Any) -> Shaped:
    """The request of a record."""
    return Shaper(InputSpec(path="in.jsonl", **settings)).shape(record)


def refused(record: Record, kind: str, said: str, **settings: Any) -> None:
    """Check that the record is refused with a fault of this kind, in one line that matches `said`."""
    with pytest.raises(InvalidRow, match=said) as caught:
        shape(record, **settings)
    assert caught.value.kind == kind
    assert "\n" not in caught.value.message
