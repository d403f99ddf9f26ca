"""Translates requests in the shape of Anthropic's Messages API into OpenAI's chat requests."""

from collections.abc import Mapping
from typing import Any, Final

import orjson

from batch.reading.invalid import InvalidRow, type_name
from batch.reading.notes import Fact

FOUND_ANTHROPIC: Final = Fact(
    "anthropic", "taken for a request in the shape of Anthropic's API, and sent as the chat request that it asks for"
)
# Members that chat requests do not have, or have in another shape. Leaving one out would change the answer.
_UNSUPPORTED = (
    "tools",
    "tool_choice",
    "mcp_servers",
    "container",
    "context_management",
    "output_config",
    "output_format",
)
# Members without influence on the answer (the version that Bedrock and Vertex AI require, a hint to the scheduler), and
# members that are translated separately.
_LEFT_OUT = frozenset({"system", "messages", "anthropic_version", "anthropic_beta", "thinking", "service_tier"})
_RENAMED = {"stop_sequences": "stop"}


def anthropic_params(record: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the `params` of a line of Anthropic's message batches, `{custom_id, params: {model, messages, ...}}`.

    `params` may be JSON text, as in a CSV file. Returns `None` if the row is not such a line.
    """
    params = record.get("params")
    if isinstance(params, str) and params[:1] == "{":
        try:
            params = orjson.loads(params)
        except orjson.JSONDecodeError:
            return None
    return params if isinstance(params, dict) and params.get("messages") is not None else None


def to_chat_request(params: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Translate an Anthropic request, with texts and images, into a chat request; keys keep their order.

    `system` becomes the first message, `stop_sequences` becomes `stop`, and `metadata.user_id` becomes `user`. Other
    parameters stay as they are. Raises InvalidRow for members without a translation, such as Anthropic's tools.

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
    """Return text unchanged; join blocks of text into one text, and turn blocks with an image into content parts."""
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
