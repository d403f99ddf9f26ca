"""Assembles an answer that came as a stream of events into the single JSON object that was requested.

Some gateways stream unless a request says `stream: false`, and some stream although it does.
"""

from collections.abc import Iterator
from typing import Any

import orjson

from batch.dispatch.transports.parsing import lenient_json

_SIGNS = (b"data:", b"event:", b"id:", b"retry:", b":")
_END = b"[DONE]"
# The events of the Responses API that carry the whole response.
_RESPONSE_ENDS = ("response.completed", "response.incomplete", "response.failed")


class Unfinished(ValueError):
    """The stream broke off before the answer was complete; `answer` is the part that arrived."""

    def __init__(self, answer: dict[str, Any]) -> None:
        super().__init__("the stream ended before the answer did")
        self.answer = answer


def is_event_stream(raw: bytes) -> bool:
    """Whether the body begins as a stream of events does."""
    return raw.lstrip().startswith(_SIGNS)


def assemble(raw: bytes) -> dict[str, Any] | None:
    """Assemble the stream's chunks into one completion; return `None` if the stream contains no JSON object.

    Raises:
        Unfinished: the stream does not show that the answer has ended.
    """
    whole: dict[str, Any] = {}
    choices: dict[int, dict[str, Any]] = {}
    ended = found = False
    for data in _data(raw):
        if data.strip() == _END:
            ended = True
            continue
        event = _loads(data)
        if not isinstance(event, dict):
            continue
        found = True
        if event.get("type") in _RESPONSE_ENDS and isinstance(event.get("response"), dict):
            return dict(event["response"])
        for key, value in event.items():
            if key == "choices":
                _add_choices(choices, value)
            elif value is not None:
                whole[key] = value
        if (event.get("type") == "error" or event.get("object") == "error") and not event.get("error"):
            # In the Responses API and in vLLM, the event itself describes the error.
            whole["error"] = event
        if whole.get("error"):
            ended = True
    if not found:
        return None
    if str(whole.get("object", "")).endswith(".chunk"):
        whole["object"] = whole["object"].removesuffix(".chunk")
    whole["choices"] = [choices[index] for index in sorted(choices)]
    if not ended and not (choices and all(choice.get("finish_reason") for choice in choices.values())):
        raise Unfinished(whole)
    return whole


def _data(raw: bytes) -> Iterator[bytes]:
    """Yield the data of each event. A line without `data:` that begins like a JSON object counts as data too."""
    lines: list[bytes] = []
    for line in (*raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n"), b""):
        if line.startswith(b"data:"):
            lines.append(line[5:].removeprefix(b" "))
        elif line.lstrip().startswith(b"{"):
            lines.append(line)
        elif not line and lines:
            joined = b"\n".join(lines)
            # Some servers omit the blank line between events: then each line is an event.
            yield from [joined] if len(lines) == 1 or _loads(joined) is not None else lines
            lines = []


def _loads(data: bytes) -> Any:
    """Parse JSON, strictly and then leniently; `None` if it is not JSON even so."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        try:
            return lenient_json.loads(data)
        except ValueError:
            return None


def _add_choices(choices: dict[int, dict[str, Any]], chunk: Any) -> None:
    """Add the `choices` of one chunk to the choices assembled so far, which are keyed by their `index`."""
    for position, part in enumerate(chunk if isinstance(chunk, list) else ()):
        if not isinstance(part, dict):
            continue
        index = part.get("index")
        index = index if isinstance(index, int) else position
        choice = choices.setdefault(index, {"index": index})
        for key, value in part.items():
            # The first chunk often has null where later ones have text or log probabilities.
            if key == "delta" and isinstance(value, dict):
                choice["message"] = _object(choice, "message") or {"role": "assistant", "content": None}
                _add(choice["message"], value)
            elif key == "text" and isinstance(value, str):
                before = choice.get("text")
                choice["text"] = before + value if isinstance(before, str) else value
            elif key == "logprobs" and isinstance(value, dict):
                choice["logprobs"] = _object(choice, "logprobs")
                _add(choice["logprobs"], value)
            elif value is not None or key not in choice:
                choice[key] = value


def _object(choice: dict[str, Any], key: str) -> dict[str, Any]:
    """Return the object that earlier chunks put under `key`; an empty one if they put none there."""
    value = choice.get(key)
    return value if isinstance(value, dict) else {}


def _add(whole: dict[str, Any], delta: dict[str, Any]) -> None:
    """Add a chunk's `delta` to `whole`: strings are appended, objects merged, lists continued as by `_continued`."""
    for key, value in delta.items():
        before = whole.get(key)
        if value is None:
            whole.setdefault(key, None)
        elif isinstance(before, str) and isinstance(value, str) and key not in _WHOLE:
            whole[key] = before + value
        elif isinstance(before, dict) and isinstance(value, dict):
            _add(before, value)
        elif isinstance(value, list):
            whole[key] = _continued(before if isinstance(before, list) else [], value)
        else:
            whole[key] = value


# Keys whose strings each chunk repeats whole, so that they are not appended.
_WHOLE = frozenset({"role", "type", "id", "name"})


def _continued(before: list[Any], more: list[Any]) -> list[Any]:
    """Return the list `before` continued by the items of `more`.

    An item with the same `index` as an earlier item is merged into that item; any other item is appended.
    """
    parts = list(before)
    for part in more:
        index = part.get("index") if isinstance(part, dict) else None
        same = next(
            (p for p in parts if isinstance(index, int) and isinstance(p, dict) and p.get("index") == index), None
        )
        if same is None:
            parts.append(part)
        else:
            _add(same, part)
    return parts
