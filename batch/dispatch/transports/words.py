"""Extracts the server's own message about an error: short, printable, without the request's text and without keys."""

import re
from collections.abc import Callable, Iterator
from html import unescape
from typing import Any

import orjson

Hide = Callable[[str], str]
"""A function that masks our secrets in a text."""

# A text that looks like a key is masked even if the key is not ours: gateways quote the key that they use themselves
# for the server behind them.
_KEY_LIKE = re.compile(
    r"\b(?:sk|pk|rk|gsk|hf|xai|ghp|nvapi|r8)[-_][\w*.-]{8,}|\bAIza[\w-]{20,}|\bBearer +[\w.~+/=*-]{8,}"
)

# A line of the terminal or a report can show this much of an error.
MOST_CHARACTERS = 300
# How much of a body that is not JSON is read: what comes later is markup or a stack trace.
_MOST_READ = 20_000

# An echo of the prompt is found by comparing consecutive words, so that quoting, escapes and cuts do not hide it. Fewer
# than _LEAST_ECHOED_WORDS words match by chance ("is not supported"). A single word of at least
# _LEAST_ECHOED_CHARACTERS is an echo even if it is only a part of a word of the request: it may be data, or cut in the
# middle.
_LEAST_ECHOED_WORDS = 4
_LEAST_ECHOED_CHARACTERS = 16
# A text of the request that is shorter than this is not searched for: it may be any word of the server's own.
_LEAST_CHARACTERS = 4
LEFT_OUT = "[...]"

# Thai, Burmese, Chinese, Japanese and Korean put no blanks between words: each of their characters counts as a word.
_UNSPACED = r"\u0e00-\u0eff\u1000-\u109f\u3040-\u9fff\uac00-\ud7af\U00020000-\U0003ffff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")
_ESCAPED = re.compile(r"\\(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|[nrtbf])")
_MARKUP = re.compile(r"<(script|style)\b.*?</\1\s*>|<!--.*?-->|<[^>]*>", re.IGNORECASE | re.DOTALL)
_TITLE = re.compile(r"<title[^>]*>(.*?)</title", re.IGNORECASE | re.DOTALL)


def server_words(raw: bytes, parsed: Any, asked: bytes, hide: Hide = str) -> str:
    """Return the message of an error answer, on one line of at most `MOST_CHARACTERS`; empty if there is no message.

    Args:
        raw: the body as the server sent it, with our key masked.
        parsed: the body's JSON; `None` if the body is not JSON.
        asked: the request's body. Text of it that the message repeats is left out: servers quote prompts in errors.
        hide: masks our secrets in a text; servers quote keys, too, and JSON may spell them with escapes.
    """
    said = next(messages(parsed), "") if parsed is not None else _text(raw)
    said = _ESCAPED.sub(_unescaped, said)
    return cut(without_echo(_KEY_LIKE.sub("[key]", _printable(hide(said))), asked))


def hiding(*secrets: str | None) -> Hide:
    """Build the function that masks these secrets in a text, however short they are; `None` is ignored."""
    # The longest first, since one secret may be a part of another.
    longest_first = sorted((secret for secret in secrets if secret), key=len, reverse=True)

    def hide(text: str) -> str:
        for secret in longest_first:
            text = text.replace(secret, "[key]")
        return text

    return hide if longest_first else str


def cut(text: str) -> str:
    """Cut the text to at most `MOST_CHARACTERS`; " ..." at the end shows that something was cut off."""
    return text if len(text) <= MOST_CHARACTERS else text[: MOST_CHARACTERS - 4].rstrip() + " ..."


def without_echo(said: str, asked: bytes) -> str:
    """Return `said` with `LEFT_OUT` in place of each part that repeats text of the request body `asked`."""
    if not said:
        return said
    asked_texts = list(_texts(asked))
    asked_words = f" {' '.join(word.lower() for text in asked_texts for word in _WORD.findall(text))} "
    short = {text.strip().lower() for text in asked_texts if len(text.strip()) <= MOST_CHARACTERS}
    found = list(_WORD.finditer(said))
    echoed = _echoed([match.group().lower() for match in found], asked_words, short)
    kept: list[str] = []
    end = 0
    for start, stop in echoed:
        kept += (said[end : found[start].start()], LEFT_OUT)
        end = found[stop - 1].end()
    return "".join(kept) + said[end:]


def _echoed(words: list[str], asked_words: str, short: set[str]) -> Iterator[tuple[int, int]]:
    """Yield the ranges (start, stop) of `words` that repeat the request.

    Args:
        words: the words of the server's message, in lower case.
        asked_words: all words of the request, in lower case, joined and surrounded by blanks.
        short: the short texts of the request, in lower case, each of which is also searched for as a whole.
    """
    whole = {tuple(_WORD.findall(text)) for text in short if len(text) >= _LEAST_CHARACTERS}
    lengths = sorted({len(text) for text in whole if 0 < len(text) < _LEAST_ECHOED_WORDS}, reverse=True)
    at = 0
    while at < len(words):
        stop = _run(words, at, asked_words) or next((at + n for n in lengths if tuple(words[at : at + n]) in whole), 0)
        if stop:
            yield at, stop
        at = max(stop, at + 1)


def _run(words: list[str], at: int, asked_words: str) -> int:
    """Return the end of the run of words from `at` on that `asked_words` contains; 0 if it is too short for an echo."""
    if len(words[at]) >= _LEAST_ECHOED_CHARACTERS and words[at] in asked_words:
        return at + 1
    stop = at + _LEAST_ECHOED_WORDS
    # The last word may have been cut off, so it may match the beginning of a word of the request.
    if stop > len(words) or f" {' '.join(words[at:stop])}" not in asked_words:
        return 0
    while stop < len(words) and f" {' '.join(words[at : stop + 1])}" in asked_words:
        stop += 1
    echoed = "".join(words[at:stop])
    # A character that is not ASCII says as much as two or three letters.
    return stop if len(echoed) + 2 * sum(not c.isascii() for c in echoed) >= _LEAST_ECHOED_CHARACTERS else 0


def messages(parsed: Any) -> Iterator[str]:
    """Yield the messages in the JSON of an error answer, the most precise first."""
    if isinstance(parsed, list):
        for item in parsed:
            yield from messages(item)
    elif isinstance(parsed, str):
        if parsed.strip():
            yield parsed
    elif isinstance(parsed, dict):
        error = parsed.get("error")
        if isinstance(error, dict | list):
            yield from messages(error)
        said = [_own(parsed), _upstream(parsed)]
        if any(said):
            yield ": ".join(text for text in said if text)
        # FastAPI: {"detail": "..."} or {"detail": [{"loc": [...], "msg": "..."}]}; others: {"errors": [...]};
        # MiniMax: {"base_resp": {"status_code": 1004, "status_msg": "login fail"}}.
        for key in ("detail", "errors", "details", "base_resp"):
            yield from messages(parsed.get(key))


_OWN = ("message", "msg", "error", "error_description", "error_message", "title", "reason", "Message", "status_msg")


def _own(error: dict[str, Any]) -> str:
    """Return the message of this object itself, preceded by its place in the request (`loc`) if it names one."""
    for key in _OWN:
        value = error.get(key)
        if isinstance(value, str) and value.strip():
            where = error.get("loc")
            if isinstance(where, list) and all(isinstance(step, str | int) for step in where):
                return f"{'.'.join(map(str, where))}: {value}"
            return value
        if isinstance(value, dict | list):
            inner = next(messages(value), "")
            if inner:
                return inner
    return ""


def _upstream(error: dict[str, Any]) -> str:
    """Return the message of the provider behind OpenRouter; OpenRouter's own is only "Provider returned error"."""
    metadata = error.get("metadata")
    raw = metadata.get("raw") if isinstance(metadata, dict) else None
    if isinstance(raw, str) and raw.lstrip().startswith("{"):
        try:
            return next(messages(orjson.loads(raw)), "")
        except orjson.JSONDecodeError:
            return raw
    return raw if isinstance(raw, str) else ""


def _text(raw: bytes) -> str:
    """Return the text of a body that is not JSON: of HTML the title, or else the text without markup."""
    text = raw[:_MOST_READ].decode(errors="replace")
    if "<" not in text:
        return text
    title = _TITLE.search(text)
    return unescape(title[1] if title is not None and title[1].strip() else _MARKUP.sub(" ", text))


def _printable(text: str) -> str:
    """Put the text on one line, without control characters, and without surrogates, which cannot be encoded."""
    kept = "".join(character if character.isprintable() else " " for character in text[:_MOST_READ])
    return " ".join(kept.split())


def _unescaped(match: re.Match[str]) -> str:
    """Return the character that an escape stands for; a blank if it cannot be printed."""
    digits = match[1] or match[2]
    character = chr(int(digits, 16)) if digits else " "
    return character if character.isprintable() else " "


def _texts(body: bytes) -> Iterator[str]:
    """Yield the request's texts: all strings of its JSON, except keys and the values of `_NAMES`."""
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        return
    waiting = [parsed]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, dict):
            waiting += [inner for key, inner in value.items() if key not in _NAMES]


# Keys whose values a server may repeat in an error without repeating a prompt.
_NAMES = frozenset({"role", "type", "model", "service_tier", "reasoning_effort", "tool_choice", "encoding_format"})
