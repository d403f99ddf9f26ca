"""Masks the secrets that a server repeats in its answer, however it spells them, before the answer is stored."""

import re
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property

MASKED = b"[key]"

# `EMPTY`, `not-needed` and the like are ordinary words, which an answer may contain. A secret of letters only is masked
# from the first length on, any other secret from the second length on.
_LEAST_WORD_CHARACTERS = 16
_LEAST_OTHER_CHARACTERS = 8

# A piece of the secret is searched for first, of one of these lengths and from the last _CHOSEN_FROM bytes of the text.
# `in` skips ahead by the piece's length wherever the last six bits of the next byte are not the last six bits of any of
# the piece's bytes. _TEXT and _VECTORS below are how often bytes occur in text and in vectors, by their last six bits.
_PIECE_LENGTHS = (6, 8, 12, 16, 24)
_CHOSEN_FROM = 64


def _by_low_bits(counts: Mapping[int, int]) -> list[float]:
    """Sum up how often bytes occur, as shares of 1, for each value of a byte's last six bits."""
    shares = [0.0] * 64
    for byte, count in counts.items():
        shares[byte & 63] += count / sum(counts.values())
    return shares


_TEXT = _by_low_bits(
    dict(zip(b" etaoinsrhldcumfpgwyb,.vk", (17, 10, 7, 6, 6, 6, 6, 5, 5, 5, 3, 3, *(2,) * 7, *(1,) * 6), strict=True))
)
_VECTORS = _by_low_bits(dict.fromkeys(b"0123456789", 9) | dict.fromkeys(b".,-", 3))

# Escapes that letters and digits of the secret may be spelled with: of JSON and Python, and percent signs. Those of
# HTML begin with `&#`.
_BACKSLASHED = re.compile(rb"\\(?:u00|x)[3-7]")
_PERCENT = re.compile(rb"%(?:25)*[3-7][0-9A-Fa-f]")

# The pattern for one character of a secret. Backslashes and percent signs grow in number each time that a text is
# embedded in another one. Each alternative begins with one fixed byte, so that the regular expression can skip all
# other bytes.
_CHARACTER = (
    r"{plain}|\\\\{{0,7}}(?:u00{hex}|x{hex}|{plain})|%(?:25){{0,4}}{hex}"
    r"|&(?:\#0{{0,4}}{number}|\#[xX]0{{0,4}}{hex}{named});"
)
_NAMED = {"&": "amp", "<": "lt", ">": "gt", '"': "quot", "'": "apos", "+": "plus", "/": "sol", "=": "equals"}

# Compiling takes half a millisecond per character, and tokens have 2,000. Of a long secret only the head is compared;
# after it, up to as many further characters as the secret has, in any spelling, are masked too.
_HEAD_CHARACTERS = 96
_ANY_CHARACTER = (
    r"\\\\{{0,7}}(?:u00[0-9A-Fa-f]{{2}}|x[0-9A-Fa-f]{{2}}|[{own}])"
    r"|%(?:25){{0,4}}[0-9A-Fa-f]{{2}}|&\#?[0-9A-Za-z]{{1,7}};"
)

# Far longer than any header that was encoded as a whole; a longer run of base64 does not repeat a header.
_MOST_BASE64 = 16_384
_RUN = re.compile(rb"[A-Za-z0-9+/_=-]*")

Mask = Callable[[bytes], bytes]
"""A function that masks in an answer the secrets that were sent with the request."""


def mask(secrets: Iterable[str | None]) -> Mask:
    """Build the function that masks these secrets in an answer: as they are, escaped (JSON, percent, HTML), as base64.

    Short words are not masked, and `None` is ignored. If there is no secret to mask, the function returns the answer
    unchanged.
    """
    different = {secret for secret in secrets if secret is not None and _is_secret(secret)}
    # The longest first, since one secret may be a part of another.
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
    """Whether the text is long enough, for its kind, to be masked wherever it occurs."""
    if len(text) >= _LEAST_WORD_CHARACTERS:
        return True
    return len(text) >= _LEAST_OTHER_CHARACTERS and not text.replace("-", "").replace("_", "").isalpha()


def _unmasked(raw: bytes) -> bytes:
    """Return the answer unchanged: the mask if there are no secrets."""
    return raw


class _Hidden:
    """Finds and masks one secret in every spelling."""

    def __init__(self, secret: str) -> None:
        self._secret = secret
        self._letters = _longest_run(secret.encode())
        encodings = [_inside_base64(secret.encode(), offset) for offset in range(3)]
        # The two alphabets of base64 differ in two characters only.
        spellings = [spelt for text in encodings for spelt in {text, text.translate(_URL_SAFE)}]
        self._base64 = [(_piece(text), text) for text in spellings if len(text) >= _PIECE_LENGTHS[0]]

    def masked(self, raw: bytes) -> bytes:
        """Return the answer with the secret masked.

        Quick searches for pieces that nearly every answer lacks come before the thorough search.
        """
        if self._letters in raw or _has_escapes(raw):
            raw = self._pattern.sub(MASKED, raw)
        for piece, text in self._base64:
            if piece in raw:
                raw = _without_base64(raw, text)
        return raw

    @cached_property
    def _pattern(self) -> re.Pattern[bytes]:
        """The regular expression for the secret with each character plain or escaped; compiled at the first use."""
        spelt = "".join(map(_any_spelling, self._secret[:_HEAD_CHARACTERS]))
        more = len(self._secret) - _HEAD_CHARACTERS
        if more > 0:
            own = "".join(map(re.escape, sorted(set(self._secret))))
            spelt += rf"(?:[{own}]|{_ANY_CHARACTER.format(own=own)}){{0,{more}}}"
        return re.compile(spelt.encode())

    def __repr__(self) -> str:
        return "_Hidden([key])"


def _has_escapes(raw: bytes) -> bool:
    """Whether the answer has escapes that may spell letters or digits of a secret."""
    # `in` with one byte is memchr: 0.1 us for 2 kB.
    return (
        (b"\\" in raw and _BACKSLASHED.search(raw) is not None)
        or (b"%" in raw and _PERCENT.search(raw) is not None)
        or (b"&" in raw and b"&#" in raw)
    )


def _any_spelling(char: str) -> str:
    """Return the regular expression for this character, plain or escaped in any way."""
    code = f"{ord(char):02x}"
    either = "".join(f"[{d}{d.upper()}]" if d.isalpha() else d for d in code)
    named = f"|{_NAMED[char]}" if char in _NAMED else ""
    spelt = _CHARACTER.format(plain=re.escape(char), hex=either, number=ord(char), named=named)
    return f"(?:{spelt})"


def _longest_run(secret: bytes) -> bytes:
    """Return a piece of the longest run of letters and digits, which only a hostile encoder escapes.

    If the secret has no letters or digits, the piece is of the whole secret.
    """
    runs = re.findall(rb"[A-Za-z0-9]+", secret) or [secret]
    return _piece(max(runs, key=len))


def _piece(text: bytes) -> bytes:
    """Return the part of the end of `text` that `in` finds the fastest.

    It is taken from the end, because tokens that begin alike still differ at the end.
    """
    text = text[-_CHOSEN_FROM:]
    lengths = {min(length, len(text)) for length in _PIECE_LENGTHS}
    return min((text[i : i + n] for n in sorted(lengths) for i in range(len(text) - n + 1)), key=_seconds_per_byte)


def _seconds_per_byte(piece: bytes) -> float:
    """Estimate, without a unit, the time that `in` takes per byte, in text and in vectors together."""
    bits = {byte & 63 for byte in piece}
    total = 0.0
    for frequencies in (_TEXT, _VECTORS):
        stops = sum(frequencies[bit] for bit in bits)
        total += 1 / ((1 - stops) * (len(piece) + 1) + stops)
    return total


_URL_SAFE = bytes.maketrans(b"+/", b"-_")


def _inside_base64(secret: bytes, offset: int) -> bytes:
    """Return the base64 characters that encode only `secret`, if it begins `offset` bytes after a multiple of 3."""
    encoded = b64encode(bytes(offset) + secret)
    first = -(-offset * 8 // 6)
    last = (offset + len(secret)) * 8 // 6
    return encoded[first:last]


def _without_base64(raw: bytes, text: bytes) -> bytes:
    """Return `raw` with each run of base64 characters that contains `text` masked."""
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
