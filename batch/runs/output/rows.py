"""One row of the results, and its form as a line of JSON."""

from collections.abc import Iterable
from decimal import Decimal
from typing import Any, NamedTuple

import orjson

from batch.reading.exact import carried_columns, json_of
from schemas.results import ErrorInfo, ResultRow, Status

FIELDS = tuple(ResultRow.model_fields)

# Put in front of the name of an input column that is called like a field of the results.
INPUT_PREFIX = "input_"

_TEXT_PARTS = ("text", "output_text")


class Result(NamedTuple):
    """A `schemas.results.ResultRow` as plain values: a hundred thousand of them are cheap to make."""

    id: str
    row: int
    status: Status
    model: str | None
    endpoint: str | None
    score: float | None
    content: str | None
    response: bytes | None
    """A JSON object, as the provider sent it."""
    prompt_tokens: int | None
    completion_tokens: int | None
    cost_usd: Decimal | None
    latency_seconds: float | None
    attempts: int
    error: ErrorInfo | None
    carry: bytes | None
    """The input's other columns, as `batch.reading.exact.carried_json` writes them."""


def plain(amount: Decimal) -> str:
    """The amount as a JSON number: exact, without an exponent or trailing zeros."""
    text = format(amount, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def carried_names(columns: Iterable[str]) -> dict[str, str]:
    """The name of each carried column in the results: its own, with `input_` in front if a field has that name."""
    names: dict[str, str] = {}
    own = list(columns)
    taken = {*FIELDS, *own}
    for column in own:
        name = column
        if column in FIELDS:
            while name in taken:
                name = INPUT_PREFIX + name
            taken.add(name)
        names[column] = name
    return names


def content_of(answer: Any) -> str | None:
    """The text of the first choice of a chat or plain completion, or of a response; `None` for any other shape."""
    match answer:
        case {"choices": [{"message": {"content": str(content)}}, *_]}:
            return content
        case {"choices": [{"message": {"content": list() | dict() as parts}}, *_]}:
            return _text_of(parts)
        case {"choices": [{"text": str(text)}, *_]}:
            return text
        case {"output": list(items)}:
            return _output_text(items)
        case _:
            return None


def _text_of(parts: Any) -> str | None:
    """The texts of a message whose content is a list of parts, as Mistral's is. Thoughts of the model are left out."""
    texts = []
    for part in parts if isinstance(parts, list) else [parts]:
        match part:
            case str(text):
                texts.append(text)
            case {"text": str(text)} if part.get("type", "text") in _TEXT_PARTS:
                texts.append(text)
    return "".join(texts) if texts else None


def _output_text(items: list[Any]) -> str | None:
    """The texts of a response's messages, one after the other, like OpenAI's `output_text`; `None` if it has none."""
    texts = []
    for item in items:
        match item:
            case {"type": "message", "content": list(parts)}:
                texts += [part["text"] for part in parts if _is_output_text(part)]
    return "".join(texts) if texts else None


def _is_output_text(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "output_text" and isinstance(part.get("text"), str)


def to_json(result: Result) -> bytes:
    """The result as a line of `jsonl`, without its newline: the fields in order, then the carried columns verbatim."""
    line = orjson.dumps(
        {
            "id": result.id,
            "row": result.row,
            "status": result.status,
            "model": result.model,
            "endpoint": result.endpoint,
            "score": result.score,
            "content": result.content,
            "response": None if result.response is None else orjson.Fragment(result.response),
            "prompt_tokens": result.prompt_tokens,
            "completion_tokens": result.completion_tokens,
            "cost_usd": None if result.cost_usd is None else orjson.Fragment(plain(result.cost_usd)),
            "latency_seconds": result.latency_seconds,
            "attempts": result.attempts,
            "error": None if result.error is None else result.error.model_dump(),
        }
    )
    if result.carry is None or result.carry == b"{}":
        return line
    carried = carried_columns(result.carry)
    if carried.keys().isdisjoint(FIELDS):
        return line[:-1] + b"," + result.carry[1:].lstrip()
    names = carried_names(carried)
    return line[:-1] + b"," + json_of({names[key]: value for key, value in carried.items()})[1:]


def to_batch_line(result: Result) -> bytes:
    """The result as a line of an OpenAI batch output or error file, without its newline."""
    ours = f"batch_req_{result.row:012}"
    response: dict[str, Any] | None = None
    error: dict[str, str] | None = None
    if result.error is None:
        assert result.response is not None
        response = _batch_response(200, ours, result.response)
    elif result.error.status is not None and result.error.status >= 400:
        body = result.response or orjson.dumps({"error": _openai_error(result.error)})
        response = _batch_response(result.error.status, ours, body)
    else:
        error = {"code": result.error.kind, "message": result.error.message}
    return orjson.dumps({"id": ours, "custom_id": result.id, "response": response, "error": error})


def _batch_response(status: int, ours: str, body: bytes) -> dict[str, Any]:
    given = orjson.loads(body).get("id")
    request_id = given if isinstance(given, str) else ours
    return {"status_code": status, "request_id": request_id, "body": orjson.Fragment(body)}


def _openai_error(error: ErrorInfo) -> dict[str, str | None]:
    return {"message": error.message, "type": error.kind, "param": None, "code": error.kind}
