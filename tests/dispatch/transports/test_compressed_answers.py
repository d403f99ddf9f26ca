"""Answers whose bodies are compressed, or say that they are."""

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
    """The body came whole: plain text, or half of what was compressed."""
    found = fault(says(http(200, body, f"content-encoding: {encoding}")))
    assert type(found) is ConnectionLost
    assert "the answer cannot be decompressed" in str(found)


def test_a_compressed_body_that_is_cut_off_is_a_broken_connection() -> None:
    """The server announced more bytes than came."""
    whole = http(200, PACKED, "content-encoding: gzip")
    found = fault(says(whole[:-12]))
    assert type(found) is ConnectionLost
    assert "the connection broke" in str(found)


def test_a_compressed_answer_is_read() -> None:
    """As gateways send it whether or not it was asked for."""
    answer, _ = ask(says(http(200, PACKED, "content-encoding: gzip")))
    assert orjson.loads(answer.raw) == orjson.loads(GOOD)
