"""The transport masks secrets that a server repeats, in whatever spelling."""

import asyncio
import html
import json
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable
from urllib.parse import quote

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.dispatch.transports.masking import mask
from batch.dispatch.transports.registry import build_transport
from schemas.endpoints import EndpointSpec
from tests.dispatch.transports.raw_server import http, raw_server, says
from tests.fakes import request

KEY = "sk-Ab/cd+0123=xyz&98"

SPELLINGS: dict[str, Callable[[str], str]] = {
    "plain": lambda key: key,
    "escaped slash": lambda key: key.replace("/", "\\/"),
    "escaped signs": lambda key: key.replace("+", "\\u002b").replace("=", "\\u003D").replace("&", "\\u0026"),
    "all escaped": lambda key: "".join(f"\\u{ord(char):04x}" for char in key),
    "JSON in JSON": lambda key: json.dumps(key.replace("/", "\\/"))[1:-1],
    "JSON in JSON in JSON": lambda key: json.dumps(json.dumps(key.replace("/", "\\/"))[1:-1])[1:-1],
    "percent": lambda key: quote(key, safe=""),
    "percent in lower case": lambda key: quote(key, safe="").replace("%2F", "%2f").replace("%2B", "%2b"),
    "all percent": lambda key: "".join(f"%{ord(char):02x}" for char in key),
    "percent twice": lambda key: quote(quote(key, safe=""), safe=""),
    "HTML": html.escape,
    "HTML by number": lambda key: "".join(f"&#{ord(char)};" for char in key),
    "Python": lambda key: "".join(f"\\x{ord(char):02x}" for char in key),
    "base64": lambda key: b64encode(key.encode()).decode(),
    "base64 of basic": lambda key: b64encode(f"user:{key}".encode()).decode(),
    "base64 of bearer": lambda key: b64encode(f"Bearer {key} and more".encode()).decode(),
    "base64 for urls": lambda key: urlsafe_b64encode(f"a{key}?>".encode()).decode(),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_key_is_masked_in_every_spelling(spelling: str) -> None:
    """The key is replaced, the text around it stays, and JSON stays valid JSON."""
    spelt = SPELLINGS[spelling](KEY)
    answer = f'{{"message": "wrong key: {spelt} <- that one", "code": 7}}'.encode()
    assert mask([KEY])(answer) == b'{"message": "wrong key: [key] <- that one", "code": 7}'


@given(
    key=st.text("abcXYZ019-_/+=.~", min_size=16, max_size=40),
    escaped=st.lists(st.sampled_from(["plain", "json", "JSON", "percent"]), min_size=40, max_size=40),
)
def test_any_mixture_of_escapes_is_masked(key: str, escaped: list[str]) -> None:
    """A key whose characters are escaped in different ways is masked, since a decoder would restore it."""
    spell: dict[str, Callable[[str], str]] = {
        "plain": lambda char: char,
        "json": lambda char: f"\\u{ord(char):04x}",
        "JSON": lambda char: f"\\u{ord(char):04X}",
        "percent": lambda char: f"%{ord(char):02X}",
    }
    spelt = "".join(spell[how](char) for char, how in zip(key, escaped, strict=False))
    assert mask([key])(f'{{"a":"<{spelt}>"}}'.encode()) == b'{"a":"<[key]>"}'


TOKEN = "eyJhbGciOiJSUzI1NiIsImtpZCI6IjEifQ." + "Zm9v_bar-BAZ09." * 120


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_token_of_two_thousand_characters_is_masked_too(spelling: str) -> None:
    """A long token is masked exactly, and what a server left of a token that it cut off is masked too."""
    spelt = SPELLINGS[spelling](TOKEN)
    hide = mask([TOKEN])
    assert hide(f'{{"a":"<{spelt}> and more"}}'.encode()) == b'{"a":"<[key]> and more"}'
    if "base64" not in spelling:
        cut = SPELLINGS[spelling](TOKEN[:500])
        assert hide(f'{{"a":"{cut}..."}}'.encode()).startswith(b'{"a":"[key]')
    assert hide(f"{TOKEN}.Z".encode()) == b"[key].Z"


def test_what_only_begins_like_a_token_stays() -> None:
    """Another token of the same issuer, which shares fewer than a hundred characters with ours, is not masked."""
    other = f"{TOKEN[:60]}another-one-entirely"
    assert mask([TOKEN])(other.encode()) == other.encode()


def test_an_answer_without_a_key_is_the_very_same_object() -> None:
    """An answer without the key is returned as it is and not copied, even if it contains escapes."""
    for answer in (
        b'{"content": "50% off, \\u00e9t\\u00e9, a\\\\b, R&amp;D, c2stQWI="}',
        orjson.dumps({"data": [{"embedding": [0.25] * 2000}]}),
    ):
        assert mask([KEY])(answer) is answer


@pytest.mark.parametrize("word", ["EMPTY", "none", "not-needed", "lm-studio", "sk-1234", ""])
def test_stand_ins_for_keys_are_ordinary_words(word: str) -> None:
    """A stand-in key for a server without keys is not masked, since answers may use that word."""
    answer = f'{{"content": "{word} is what I was given"}}'.encode()
    assert mask([word, None])(answer) == answer


def test_each_of_several_secrets_is_masked() -> None:
    """The key and the values of header variables are all masked, even if one is a part of another."""
    hide = mask(["0123-tenant-a", "0123-tenant-a-token-longer", KEY])
    raw = f'{{"a":"{KEY}","b":"0123-tenant-a","c":"0123-tenant-a-token-longer"}}'.encode()
    assert hide(raw) == b'{"a":"[key]","b":"[key]","c":"[key]"}'


def test_a_wall_of_backslashes_is_read_in_time() -> None:
    """A megabyte of escapes that spell no key is read in reasonable time and stays unchanged."""
    answer = b'{"a":"' + b"\\\\u0073\\\\u006b" * 65_536 + b"%73" * 65_536 + b"s" * 65_536 + b'"}'
    assert mask([KEY])(answer) == answer


def test_a_key_that_comes_in_pieces_of_a_stream_is_masked() -> None:
    """A key that is split over two events of a stream is masked in the assembled answer."""

    async def main() -> bytes:
        pieces = [{"choices": [{"index": 0, "delta": {"content": part}}]} for part in ("it is ", KEY[:7], KEY[7:])]
        pieces.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        events = b"".join(b"data: " + orjson.dumps(piece) + b"\n\n" for piece in pieces) + b"data: [DONE]\n\n"
        async with raw_server(says(http(200, events, "content-type: text/event-stream"))) as server:
            spec = EndpointSpec(url=server.url, model="m", api_key_env="K")
            sender = build_transport(spec, timeout_seconds=5, keys={"K": KEY}.get, wall=lambda: 0.0)
            answer = await sender.send(request())
            await sender.aclose()
            return answer.raw

    assert orjson.loads(asyncio.run(main()))["choices"][0]["message"]["content"] == "it is [key]"


def test_no_secret_is_in_a_repr() -> None:
    """The masking function holds the secret but does not show it in its repr."""
    assert KEY not in repr(mask([KEY]))
