"""Secrets that a server repeats are taken out of its answer, however it spells them, before anything is kept."""

import re
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property

MASKED = b"[key]"

# `EMPTY`, `not-needed` and the like are ordinary words, which an answer may hold. From this length on a text of letters
# is masked, and from the other on one that is no word.
_LEAST_WORD_CHARACTERS = 16
_LEAST_OTHER_CHARACTERS = 8

# A piece of the secret is looked for first. `in` skips ahead by the piece's length wherever the last six bits of the
# next byte are those of none of the piece's bytes. These are how often bytes come in text, and in vectors.
_PIECE_LENGTHS = (6, 8, 12, 16, 24)
_CHOSEN_FROM = 64


def _by_low_bits(counts: Mapping[int, int]) -> list[float]:
    shares = [0.0] * 64
    for byte, count in counts.items():
        shares[byte & 63] += count / sum(counts.values())
    return shares


_TEXT = _by_low_bits(
    dict(zip(b" etaoinsrhldcumfpgwyb,.vk", (17, 10, 7, 6, 6, 6, 6, 5, 5, 5, 3, 3, *(2,) * 7, *(1,) * 6), strict=True))
)
_VECTORS = _by_low_bits(dict.fromkeys(b"0123456789", 9) | dict.fromkeys(b".,-", 3))

# Could letters and digits of the secret be escaped too? JSON, Python, percent, HTML.
_BACKSLASHED = re.compile(rb"\\(?:u00|x)[3-7]")
_PERCENT = re.compile(rb"%(?:25)*[3-7][0-9A-Fa-f]")

# Backslashes and percent signs grow in number each time that a text is put into another one. Each alternative begins
# with one byte, which lets the regular expression skip all others.
_CHARACTER = (
    r"{plain}|\\\\{{0,7}}(?:u00{hex}|x{hex}|{plain})|%(?:25){{0,4}}{hex}"
    r"|&(?:\#0{{0,4}}{number}|\#[xX]0{{0,4}}{hex}{named});"
)
_NAMED = {"&": "amp", "<": "lt", ">": "gt", '"': "quot", "'": "apos", "+": "plus", "/": "sol", "=": "equals"}

# Compiling takes half a millisecond a character, and tokens have 2,000. Of a long secret the head is compared, and as
# many characters of its kinds as the secret has go with it.
_HEAD_CHARACTERS = 96
_ANY_CHARACTER = (
    r"\\\\{{0,7}}(?:u00[0-9A-Fa-f]{{2}}|x[0-9A-Fa-f]{{2}}|[{own}])"
    r"|%(?:25){{0,4}}[0-9A-Fa-f]{{2}}|&\#?[0-9A-Za-z]{{1,7}};"
)

# Far above any header that was encoded as a whole; what is longer is no repetition of it.
_MOST_BASE64 = 16_384
_RUN = re.compile(rb"[A-Za-z0-9+/_=-]*")

Mask = Callable[[bytes], bytes]
"""An answer without the secrets that it was asked with."""


def mask(secrets: Iterable[str | None]) -> Mask:
    """What takes these secrets out of an answer: as they are, escaped (JSON, percent, HTML) and as base64.

    Short words are left alone; `None` is none. Where nothing is hidden, the answer comes back as it is.
    """
    different = {secret for secret in secrets if secret is not None and _is_secret(secret)}
    # The longest first: one may be a part of another.
    hidden = [_Hidden(secret) for secret in sorted(different, key=lambda secret: (-len(secret), secret))]
    if not hidden:
        return _unmasked
    if len(hidden) == 1:
        return hidden[0].masked

    def masked(raw: bytes) -> bytes:
        for secret in hidden:
            raw = secret.masked(raw)
        return raw

    return masked


def _is_secret(text: str) -> bool:
    if len(text) >= _LEAST_WORD_CHARACTERS:
        return True
    return len(text) >= _LEAST_OTHER_CHARACTERS and not text.replace("-", "").replace("_", "").isalpha()


def _unmasked(raw: bytes) -> bytes:
    return raw


class _Hidden:
    """One secret in every spelling."""

    def __init__(self, secret: str) -> None:
        self._secret = secret
        self._letters = _longest_run(secret.encode())
        encodings = [_inside_base64(secret.encode(), offset) for offset in range(3)]
        # Either alphabet of base64 spells the same bytes, but for two characters.
        spellings = [spelt for text in encodings for spelt in {text, text.translate(_URL_SAFE)}]
        self._base64 = [(_piece(text), text) for text in spellings if len(text) >= _PIECE_LENGTHS[0]]

    def masked(self, raw: bytes) -> bytes:
        """Quick looks, for what nearly every answer lacks, come before the thorough one."""
        if self._letters in raw or _has_escapes(raw):
            raw = self._pattern.sub(MASKED, raw)
        for piece, text in self._base64:
            if piece in raw:
                raw = _without_base64(raw, text)
        return raw

    @cached_property
    def _pattern(self) -> re.Pattern[bytes]:
        spelt = "".join(map(_any_spelling, self._secret[:_HEAD_CHARACTERS]))
        more = len(self._secret) - _HEAD_CHARACTERS
        if more > 0:
            own = "".join(map(re.escape, sorted(set(self._secret))))
            spelt += rf"(?:[{own}]|{_ANY_CHARACTER.format(own=own)}){{0,{more}}}"
        return re.compile(spelt.encode())

    def __repr__(self) -> str:
        return "_Hidden([key])"


def _has_escapes(raw: bytes) -> bool:
    # `in` with one byte is memchr: 0.1 us for 2 kB.
    return (
        (b"\\" in raw and _BACKSLASHED.search(raw) is not None)
        or (b"%" in raw and _PERCENT.search(raw) is not None)
        or (b"&" in raw and b"&#" in raw)
    )


def _any_spelling(char: str) -> str:
    code = f"{ord(char):02x}"
    either = "".join(f"[{d}{d.upper()}]" if d.isalpha() else d for d in code)
    named = f"|{_NAMED[char]}" if char in _NAMED else ""
    spelt = _CHARACTER.format(plain=re.escape(char), hex=either, number=ord(char), named=named)
    return f"(?:{spelt})"


def _longest_run(secret: bytes) -> bytes:
    """A piece of letters and digits, which no encoder but a hostile one escapes; the whole where there is none."""
    runs = re.findall(rb"[A-Za-z0-9]+", secret) or [secret]
    return _piece(max(runs, key=len))


def _piece(text: bytes) -> bytes:
    """The part of `text` that `in` looks for the fastest. The end of a token differs where its beginning does not."""
    text = text[-_CHOSEN_FROM:]
    lengths = {min(length, len(text)) for length in _PIECE_LENGTHS}
    return min((text[i : i + n] for n in sorted(lengths) for i in range(len(text) - n + 1)), key=_seconds_per_byte)


def _seconds_per_byte(piece: bytes) -> float:
    """The time that `in` takes, in no unit, in text and in vectors together."""
    bits = {byte & 63 for byte in piece}
    total = 0.0
    for frequencies in (_TEXT, _VECTORS):
        stops = sum(frequencies[bit] for bit in bits)
        total += 1 / ((1 - stops) * (len(piece) + 1) + stops)
    return total


_URL_SAFE = bytes.maketrans(b"+/", b"-_")


def _inside_base64(secret: bytes, offset: int) -> bytes:
    """The characters that stand for `secret` and nothing else, where it begins `offset` bytes after a multiple of 3."""
    encoded = b64encode(bytes(offset) + secret)
    first = -(-offset * 8 // 6)
    last = (offset + len(secret)) * 8 // 6
    return encoded[first:last]


def _without_base64(raw: bytes, text: bytes) -> bytes:
    """`raw` without the runs of base64 that `text` is in."""
    parts = []
    done = 0
    while (at := raw.find(text, done)) >= 0:
        before = _RUN.match(raw[max(done, at - _MOST_BASE64) : at][::-1])
        after = _RUN.match(raw, at + len(text), at + len(text) + _MOST_BASE64)
        assert before is not None, "it may be empty"
        assert after is not None, "it may be empty"
        parts += [raw[done : at - before.end()], MASKED]
        done = after.end()
    return b"".join((*parts, raw[done:]))
