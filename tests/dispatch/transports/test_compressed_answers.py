"""Transports read compressed answers, and name the fault of those that cannot be decompressed."""

import gzip

import orjson
import pytest

from batch.errors import ConnectionLost
from tests.dispatch.transports.exchanges import GOOD
from tests.dispatch.transports.raw_server import http, says
from tests.dispatch.transports.test_transports import ask, fault

PACKED = gzip.compress(GOOD, mtime=0)


@pytest.mark.parametrize(
    ("body", "encoding"),
    [(GOOD, "gzip"), (PACKED[:-12], "gzip"), (b"no frame", "zstd"), (b"no brotli", "br")],
    ids=["plain", "cut", "no zstd", "no brotli"],
)
def test_a_body_that_cannot_be_decompressed_is_called_that(body: bytes, encoding: str) -> None:
    """A complete body that is plain text, or only half of the compressed data, raises `ConnectionLost` and says why."""
    found = fault(says(http(200, body, f"content-encoding: {encoding}")))
    assert type(found) is ConnectionLost
    assert "the answer cannot be decompressed" in str(found)


def test_a_compressed_body_that_is_cut_off_is_a_broken_connection() -> None:
    """If fewer bytes come than the server announced, the error is a broken connection, not a decompression failure."""
    whole = http(200, PACKED, "content-encoding: gzip")
    found = fault(says(whole[:-12]))
    assert type(found) is ConnectionLost
    assert "the connection broke" in str(found)


def test_a_compressed_answer_is_read() -> None:
    """A gzip answer is read; gateways compress whether or not the client asked for it."""
    answer, _ = ask(says(http(200, PACKED, "content-encoding: gzip")))
    assert orjson.loads(answer.raw) == orjson.loads(GOOD)
