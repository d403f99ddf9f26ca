"""Answers of rehearsed endpoints. Each depends on seed, model and prompt, and never on the order of requests."""

import hashlib
import math
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from statistics import NormalDist
from typing import Protocol, assert_never

import orjson

from batch.errors import SpecError
from jobs.rehearsal.requests import BYTES_PER_TOKEN, Choice, count_tokens
from schemas.rehearse import AnswerTokensSpec, RehearsalEndpointSpec, RepliesSpec

_SENTENCES = (
    "It helps to begin with what is known and to say plainly what is not.",
    "The first step is usually the one that everything else depends on.",
    "A small example, worked through by hand, shows most of the difficulty.",
    "There are two cases to consider, and the second one is easy to overlook.",
    "The figures agree once they are put into the same unit.",
    "On closer inspection the simple explanation turns out to be the right one.",
    "Nothing in the question forces this choice, so it is worth giving the reason for it.",
    "Checking the result against the original statement takes a minute and catches most slips.",
    "If the conditions change, the conclusion has to be looked at again.",
    "In short, the answer follows from the definition and a little patience.",
)
_NORMAL = NormalDist()


class NoReplyError(Exception):
    """The file of recorded replies has none for this prompt."""


class AnswerSource(Protocol):
    """Gives the answer with this index to a prompt: the same one every time. May raise NoReplyError."""

    def choice(self, prompt: str, index: int, max_tokens: int | None) -> Choice: ...


def answer_source(endpoint: RehearsalEndpointSpec, seed: int, folder: Path) -> AnswerSource:
    """Build the source of answers that `endpoint` names, with files relative to `folder`. Raises SpecError."""
    match endpoint.answers:
        case "canned":
            return CannedAnswers(f"{seed}:{endpoint.model}", endpoint.answer_tokens)
        case "echo":
            return EchoAnswers()
        case RepliesSpec(file=file):
            return RecordedAnswers(read_replies(folder / file))
        case _:
            assert_never(endpoint.answers)


def prompt_hash(prompt: str) -> str:
    """The key under which a reply is recorded: blake2b of the prompt, 16 bytes in hex.

    The prompt of a chat is the text of its user messages, joined by newlines.
    """
    return hashlib.blake2b(prompt.encode(), digest_size=16).hexdigest()


class CannedAnswers:
    """Plausible prose whose length is drawn from a lognormal distribution; a word counts as a token."""

    def __init__(self, salt: str, tokens: AnswerTokensSpec) -> None:
        self._salt = salt
        # The mean of a lognormal lies sigma²/2 above its median.
        self._log_median = math.log(tokens.mean) - tokens.sigma**2 / 2
        self._sigma = tokens.sigma
        self._openings = [
            [w for s in (*_SENTENCES[i:], *_SENTENCES[:i]) for w in s.split()] for i in range(len(_SENTENCES))
        ]

    def choice(self, prompt: str, index: int, max_tokens: int | None) -> Choice:
        drawn = hashlib.blake2b(f"{self._salt}:{index}:{prompt}".encode(), digest_size=16).digest()
        uniform = (int.from_bytes(drawn[:7]) + 0.5) / 2**56
        wanted = max(1, round(math.exp(self._log_median + self._sigma * _NORMAL.inv_cdf(uniform))))
        tokens = wanted if max_tokens is None else min(wanted, max_tokens)
        words = self._openings[drawn[15] % len(self._openings)]
        repeats = -(-tokens // len(words))
        content = " ".join(islice((w for _ in range(repeats) for w in words), tokens))
        return Choice(content, tokens, "stop" if tokens == wanted else "length")


class EchoAnswers:
    """Answers with the prompt itself, cut after `max_tokens` tokens if it is longer."""

    def choice(self, prompt: str, index: int, max_tokens: int | None) -> Choice:
        return _cut(prompt, max_tokens)


class RecordedAnswers:
    """Answers with replies that were recorded earlier, found by the prompt's hash; raises NoReplyError if none was."""

    def __init__(self, replies: Mapping[str, str]) -> None:
        self._replies = replies

    def choice(self, prompt: str, index: int, max_tokens: int | None) -> Choice:
        key = prompt_hash(prompt)
        if key not in self._replies:
            raise NoReplyError(f"no reply is recorded for the prompt with hash {key}")
        return _cut(self._replies[key], max_tokens)


def read_replies(path: Path) -> dict[str, str]:
    """Read a file of recorded replies into a mapping from prompt hash to reply. Raises SpecError with file and line."""
    replies: dict[str, str] = {}
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise SpecError(f"{path}: cannot read the replies: {error.strerror}") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            entry = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise SpecError(
                f"{path}:{number}: this line is not JSON; each is an object with a prompt and a reply"
            ) from error
        match entry:
            case {"prompt": str(prompt), "reply": str(reply)}:
                replies[prompt_hash(prompt)] = reply
            case {"prompt_hash": str(key), "reply": str(reply)}:
                replies[key] = reply
            case _:
                raise SpecError(f"{path}:{number}: a line needs the texts 'reply' and 'prompt' (or 'prompt_hash')")
    return replies


def embed(prompt: str, dimensions: int) -> list[float]:
    """A vector of length 1 that depends on the prompt alone."""
    raw = hashlib.shake_128(prompt.encode()).digest(2 * dimensions)
    values = [int.from_bytes(raw[i : i + 2]) - 32767.5 for i in range(0, 2 * dimensions, 2)]
    norm = math.hypot(*values)
    return [v / norm for v in values]


def _cut(text: str, max_tokens: int | None) -> Choice:
    tokens = count_tokens(text)
    if max_tokens is None or tokens <= max_tokens:
        return Choice(text, tokens, "stop")
    kept = text.encode()[: max_tokens * BYTES_PER_TOKEN].decode(errors="ignore")
    return Choice(kept, max_tokens, "length")
