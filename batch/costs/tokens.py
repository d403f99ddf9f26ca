"""Counts the tokens of texts: exactly for OpenAI's models, or estimated from the number of bytes."""

from base64 import b64decode
from collections.abc import Callable, Sequence
from functools import cache, partial
from hashlib import sha1
from typing import TYPE_CHECKING, Literal

from batch.costs.prices import litellm_folder
from batch.errors import SpecError

if TYPE_CHECKING:
    from tiktoken import Encoding

EncodingName = Literal["cl100k_base", "o200k_base"]

# Longer texts are counted in pieces. A million spaces overflow the stack of tiktoken's regular expression engine, and
# `except Exception` does not catch that panic. Also, a run of one letter takes 20 times as long if it is 10 times as
# long.
LONGEST_PIECE = 100_000

# OpenAI's patterns, as published with tiktoken. tiktoken's own constructors have them too, but they download the
# vocabulary unless an environment variable points to it, and delete it there if its checksum differs.
_PATTERNS: dict[EncodingName, str] = {
    "cl100k_base": (
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"
        r"|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
    ),
    "o200k_base": "|".join(
        (
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
            r"\p{N}{1,3}",
            r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
            r"\s*[\r\n]+",
            r"\s+(?!\S)",
            r"\s+",
        )
    ),
}


def counter(kind: Literal["exact", "estimate"], model: str) -> Callable[[Sequence[str]], list[int]]:
    """Make a function that counts the tokens of each of several texts.

    The function can be pickled; it loads the vocabulary when it is first called.

    Args:
        kind: `exact` is what the provider counts for OpenAI's models, without the few tokens that chat formats add to a
            message; for models of other makers it is a close guess. Text that spells a special token is counted as
            text. Texts beyond 100,000 characters are counted in pieces, which is a token or two off at each seam.
            `estimate` is a quarter of the UTF-8 bytes, rounded up: about a hundred times faster, and right within
            about a third for English.
        model: the name of the model whose tokens are counted.

    Raises:
        SpecError: raised by the function, if the vocabulary that LiteLLM brings along cannot be read (`exact` only).
    """
    return partial(_exact, encoding_name(model)) if kind == "exact" else _estimated


def encoding_name(model: str) -> EncodingName:
    """The vocabulary of a model, whose name may have a provider's prefix; the newest one if the model is unknown."""
    from tiktoken.model import encoding_name_for_model

    try:
        name = encoding_name_for_model(model.rpartition("/")[2])
    except KeyError:
        return "o200k_base"
    return "cl100k_base" if name == "cl100k_base" else "o200k_base"


@cache
def load_encoding(name: EncodingName) -> "Encoding":
    """Load a vocabulary from the file that LiteLLM brings along. Uses neither network nor environment.

    Raises:
        SpecError: the file is not there.
    """
    from tiktoken import Encoding

    # The file is named as in tiktoken's cache: by the hash of the address that it is from.
    address = f"https://openaipublic.blob.core.windows.net/encodings/{name}.tiktoken"
    file = sha1(address.encode(), usedforsecurity=False).hexdigest()
    path = litellm_folder() / "litellm_core_utils" / "tokenizers" / file
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise SpecError(f"the vocabulary {name} that LiteLLM brings along cannot be read ({error})") from error
    ranks = {b64decode(token): int(rank) for token, rank in (line.split() for line in lines)}
    return Encoding(name, pat_str=_PATTERNS[name], mergeable_ranks=ranks, special_tokens={})


def _exact(name: EncodingName, texts: Sequence[str]) -> list[int]:
    encode = load_encoding(name).encode_ordinary
    return [sum(len(encode(piece)) for piece in _pieces(text)) for text in texts]


def _pieces(text: str) -> Sequence[str]:
    if len(text) <= LONGEST_PIECE:
        return (text,)
    return [text[start : start + LONGEST_PIECE] for start in range(0, len(text), LONGEST_PIECE)]


def _estimated(texts: Sequence[str]) -> list[int]:
    return [-(-_utf8_size(text) // 4) for text in texts]


def _utf8_size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
