"""Requests in the shape of Anthropic's Messages API -> chat requests in OpenAI's."""

from collections.abc import Mapping
from typing import Any, Final

import orjson

from batch.reading.invalid import InvalidRow, type_name
from batch.reading.notes import Fact

FOUND_ANTHROPIC: Final = Fact(
    "anthropic", "taken for a request in the shape of Anthropic's API, and sent as the chat request that it asks for"
)
# What has no like in a chat request, or another shape there. To leave it out would change the answer.
_UNSUPPORTED = (
    "tools",
    "tool_choice",
    "mcp_servers",
    "container",
    "context_management",
    "output_config",
    "output_format",
)
# Says nothing about the answer: the version that Bedrock and Vertex AI ask for, and a hint to the scheduler.
_LEFT_OUT = frozenset({"system", "messages", "anthropic_version", "anthropic_beta", "thinking", "service_tier"})
_RENAMED = {"stop_sequences": "stop"}


def anthropic_params(record: Mapping[str, Any]) -> dict[str, Any] | None:
    """The request of `{custom_id, params: {model, max_tokens, messages, ...}}`, a line of Anthropic's message batches.

    `params` may be JSON text, as in a CSV. `None`: the row is no such line.
    """
    params = record.get("params")
    if isinstance(params, str) and params[:1] == "{":
        try:
            params = orjson.loads(params)
        except orjson.JSONDecodeError:
            return None
    return params if isinstance(params, dict) and params.get("messages") is not None else None


def as_chat(params: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The chat request that an Anthropic request asks for: texts and images, in the order of its keys.

    `system` becomes the first message, `stop_sequences` becomes `stop`, and `metadata.user_id` becomes `user`. Other
    parameters stay as they are. Raises InvalidRow for what no chat request can say, as tools in Anthropic's shape.

    Args:
        where: what the row calls the request, for messages.
    """
    for key in _UNSUPPORTED:
        if params.get(key):
            raise InvalidRow("unsupported", f"{where}.{key} is in Anthropic's shape, which is not translated")
    thinking = params.get("thinking")
    if thinking is not None and not (isinstance(thinking, dict) and thinking.get("type") == "disabled"):
        raise InvalidRow(
            "unsupported", f"{where}.thinking is Anthropic's own and is not translated; use reasoning_effort"
        )
    messages = params.get("messages")
    if not isinstance(messages, list):
        raise InvalidRow("wrong_type", f"{where}.messages must be a list, not {type_name(messages)}")
    chat: dict[str, Any] = {}
    for key, value in params.items():
        if value is None or key in _LEFT_OUT or key in _UNSUPPORTED:
            continue
        if key == "metadata":
            user = value.get("user_id") if isinstance(value, dict) else None
            if isinstance(user, str):
                chat["user"] = user
        else:
            chat[_RENAMED.get(key, key)] = value
    system = _content(params["system"], f"{where}.system") if params.get("system") else None
    head = [{"role": "system", "content": system}] if system else []
    turns = [_message(message, f"{where}.messages[{index}]") for index, message in enumerate(messages)]
    return {"messages": [*head, *turns], **chat}


def _message(message: Any, where: str) -> Any:
    if not isinstance(message, dict) or "content" not in message:
        raise InvalidRow("wrong_type", f"{where} must be an object with role and content")
    return {"role": message.get("role"), "content": _content(message["content"], f"{where}.content")}


def _content(content: Any, where: str) -> Any:
    """A text as it is; blocks as one text, or as parts where there is an image among them."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise InvalidRow("wrong_type", f"{where} must be a string or a list of blocks, not {type_name(content)}")
    parts = [_part(block, f"{where}[{index}]") for index, block in enumerate(content)]
    if len(parts) == 1 and parts[0]["type"] == "text":
        return parts[0]["text"]
    return parts


def _part(block: Any, where: str) -> dict[str, Any]:
    match block:
        case {"type": "text", "text": str(text)}:
            return {"type": "text", "text": text}
        case {"type": "image", "source": {"type": "base64", "media_type": str(kind), "data": str(data)}}:
            return {"type": "image_url", "image_url": {"url": f"data:{kind};base64,{data}"}}
        case {"type": "image", "source": {"type": "url", "url": str(url)}}:
            return {"type": "image_url", "image_url": {"url": url}}
        case {"type": str()}:
            raise InvalidRow(
                "unsupported", f"{where} is a block that a chat request cannot hold: only text and images are"
            )
    raise InvalidRow("wrong_type", f"{where} must be an object with a type")
