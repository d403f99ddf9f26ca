"""Reads the bodies of requests, as far as a rehearsal needs them, and writes the bodies of responses."""

import base64
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from schemas.openai_batch import CHAT_URL, COMPLETIONS_URL, EMBEDDINGS_URL, RESPONSES_URL

DEFAULT_DIMENSIONS = 64
# Bytes of UTF-8 per token: close to the average of tokenizers over many languages, without a vocabulary to load.
BYTES_PER_TOKEN = 4


class BadBodyError(Exception):
    """The body is not one that its path accepts; the message says why."""


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """One request to a model: its prompts, the number of answers to each (`choices`), and how long they may be."""

    url: str
    model: str
    prompts: tuple[str, ...]
    prompt_tokens: int
    max_tokens: int | None
    choices: int
    dimensions: int = DEFAULT_DIMENSIONS
    base64: bool = False

    @property
    def tokens_reserved(self) -> int | None:
        """Tokens of the prompts and of the longest answers allowed; `None` if the request sets no bound."""
        if self.url == EMBEDDINGS_URL:
            return self.prompt_tokens
        if self.max_tokens is None:
            return None
        return self.prompt_tokens + self.max_tokens * self.choices * len(self.prompts)


@dataclass(frozen=True, slots=True)
class Choice:
    """One answer to a prompt: an item of `choices` in a completion."""

    content: str
    tokens: int
    finish_reason: str


def count_tokens(text: str) -> int:
    """About how many tokens `text` has: one for every four bytes, and at least one."""
    return max(1, -(-len(text.encode()) // BYTES_PER_TOKEN))


def read_body(url: str, raw: bytes) -> ModelRequest:
    """Parse the body of a request to `url`. Raises BadBodyError."""
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise BadBodyError(f"the body is not JSON: {error}") from error
    if not isinstance(body, dict) or not isinstance(body.get("model"), str):
        raise BadBodyError("the body must be a JSON object with a 'model'")
    if body.get("stream"):
        raise BadBodyError("'stream' is not rehearsed; leave it out")
    model = body["model"]
    if url == EMBEDDINGS_URL:
        texts, tokens = _texts(body, "input")
        dimensions = _positive(body, "dimensions") or DEFAULT_DIMENSIONS
        encoded = body.get("encoding_format") == "base64"
        return ModelRequest(url, model, texts, tokens, None, 1, dimensions, encoded)
    if url == RESPONSES_URL:
        return _responses_request(body, model)
    max_tokens = _positive(body, "max_completion_tokens") or _positive(body, "max_tokens")
    choices = _positive(body, "n") or 1
    if url == COMPLETIONS_URL:
        texts, tokens = _texts(body, "prompt")
        return ModelRequest(url, model, texts, tokens, max_tokens, choices)
    prompt, tokens = _conversation(body.get("messages"), "messages")
    return ModelRequest(url, model, (prompt,), tokens, max_tokens, choices)


def _responses_request(body: Mapping[str, Any], model: str) -> ModelRequest:
    """Parse a request of the Responses API: its `input` is a text or a list of messages."""
    given = body.get("input")
    prompt, tokens = (given, count_tokens(given)) if isinstance(given, str) else _conversation(given, "input")
    instructions = body.get("instructions")
    if isinstance(instructions, str):
        tokens += count_tokens(instructions)
    return ModelRequest(RESPONSES_URL, model, (prompt,), tokens, _positive(body, "max_output_tokens"), 1)


def _conversation(messages: object, key: str) -> tuple[str, int]:
    """The text of the user messages, and the tokens of all messages. Raises BadBodyError."""
    if not isinstance(messages, list) or not messages or not all(isinstance(m, dict) for m in messages):
        raise BadBodyError(f"{key!r} must be a list of one or more messages")
    contents = [(message.get("role"), _content(message.get("content"))) for message in messages]
    prompt = "\n".join(text for role, text in contents if role == "user")
    return prompt, sum(count_tokens(text) for _, text in contents)


def completion_body(request: ModelRequest, name: str, choices: Sequence[Choice]) -> bytes:
    """A chat or text completion. Nothing in it depends on the time, so equal requests get equal bytes."""
    chat = request.url == CHAT_URL
    items: list[dict[str, Any]] = [
        {
            "index": index,
            **({"message": {"role": "assistant", "content": choice.content}} if chat else {"text": choice.content}),
            "logprobs": None,
            "finish_reason": choice.finish_reason,
        }
        for index, choice in enumerate(choices)
    ]
    spent = sum(choice.tokens for choice in choices)
    return orjson.dumps(
        {
            "id": f"{'chatcmpl' if chat else 'cmpl'}-{name}",
            "object": "chat.completion" if chat else "text_completion",
            "created": 0,
            "model": request.model,
            "choices": items,
            "usage": {
                "prompt_tokens": request.prompt_tokens,
                "completion_tokens": spent,
                "total_tokens": request.prompt_tokens + spent,
            },
        }
    )


def response_body(request: ModelRequest, name: str, choice: Choice) -> bytes:
    """A response of the Responses API; equal requests get equal bytes, as with `completion_body`."""
    cut = choice.finish_reason == "length"
    message = {
        "id": f"msg-{name}",
        "type": "message",
        "role": "assistant",
        "status": "incomplete" if cut else "completed",
        "content": [{"type": "output_text", "text": choice.content, "annotations": []}],
    }
    return orjson.dumps(
        {
            "id": f"resp-{name}",
            "object": "response",
            "created_at": 0,
            "model": request.model,
            "status": message["status"],
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "error": None,
            "output": [message],
            "usage": {
                "input_tokens": request.prompt_tokens,
                "output_tokens": choice.tokens,
                "total_tokens": request.prompt_tokens + choice.tokens,
            },
        }
    )


def embeddings_body(request: ModelRequest, vectors: Sequence[Sequence[float]]) -> bytes:
    """One vector per input, as a list of floats or, if the request says so, as base64 of little-endian float32."""
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": base64.b64encode(struct.pack(f"<{len(v)}f", *v)).decode() if request.base64 else v,
        }
        for index, v in enumerate(vectors)
    ]
    usage = {"prompt_tokens": request.prompt_tokens, "total_tokens": request.prompt_tokens}
    return orjson.dumps({"object": "list", "model": request.model, "data": data, "usage": usage})


def _texts(body: Mapping[str, Any], key: str) -> tuple[tuple[str, ...], int]:
    """The texts under `key`, and how many tokens they have. A list of token ids becomes the text of its numbers."""
    value = body.get(key)
    values = [value] if isinstance(value, str) or _is_ids(value) else value
    if not isinstance(values, list) or not values or not all(v and (isinstance(v, str) or _is_ids(v)) for v in values):
        raise BadBodyError(f"{key!r} must be a text, a list of token ids, or a list of these")
    texts = tuple(v if isinstance(v, str) else " ".join(map(str, v)) for v in values)
    return texts, sum(count_tokens(v) if isinstance(v, str) else len(v) for v in values)


def _is_ids(value: object) -> bool:
    return isinstance(value, list) and all(type(item) is int for item in value)


def _positive(body: Mapping[str, Any], key: str) -> int | None:
    value = body.get(key)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise BadBodyError(f"{key!r} must be a whole number from 1")
    return value


def _content(content: object) -> str:
    match content:
        case None:
            return ""
        case str():
            return content
        case list():
            return "".join(p["text"] for p in content if isinstance(p, dict) and isinstance(p.get("text"), str))
    raise BadBodyError("a message's 'content' must be a text or a list of parts")
