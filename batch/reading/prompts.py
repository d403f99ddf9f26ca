"""Extracts the text of prompts, and refuses prompts that cannot be sent."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from batch.reading.invalid import InvalidRow, type_name

SYSTEM_ROLES = frozenset({"system", "developer"})
PROMPT_URLS = {
    "messages": "/v1/chat/completions",
    "prompt": "/v1/completions",
    "input": "/v1/embeddings or /v1/responses",
}
"""The member of a request body that holds its prompt, and the URLs whose requests have that member."""


class Conversation(NamedTuple):
    """The text of a chat's messages."""

    text: str
    """All user messages, joined by line ends; all messages if none has the role `user`."""

    counted: str
    """All messages, joined by line ends; their tokens are counted."""

    has_system: bool
    """True if there is a system (or developer) message."""


def conversation_text(body: Mapping[str, Any]) -> Conversation:
    """Check `body["messages"]` and collect their text. Raises InvalidRow."""
    if "messages" not in body:
        raise no_prompt(body, "messages")
    messages = body["messages"]
    if not isinstance(messages, list):
        raise InvalidRow("wrong_type", f"messages must be a list, not {type_name(messages)}")
    every: list[str] = []
    user: list[str] = []
    asked = has_system = False
    for index, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise InvalidRow("wrong_type", f"messages[{index}] must be an object with a role")
        role = message["role"]
        content = message.get("content")
        text, other = (content, False) if type(content) is str else _content_text(message, index)
        every.append(text)
        has_system = has_system or role in SYSTEM_ROLES
        if role == "user":
            user.append(text)
            asked = asked or other
    scored = user or every
    if not asked and not any(text and not text.isspace() for text in scored):
        raise InvalidRow("empty_prompt", "messages hold no text to answer" if messages else "messages are empty")
    return Conversation("\n".join(scored), "\n".join(every), has_system)


class Texts(NamedTuple):
    """The prompts of a completion request, or the texts of an embedding request."""

    text: str
    """The prompts given as text, joined by line ends; prompts given as token ids are not included."""

    prompts: int
    """Number of prompts."""

    tokens: int
    """Number of token ids in all prompts that are given as token ids."""


def input_texts(body: Mapping[str, Any], key: str) -> Texts:
    """Check `body[key]`, which must be a string, a list of token ids, or a list of these. Raises InvalidRow."""
    if key not in body:
        raise no_prompt(body, key)
    value = body[key]
    if isinstance(value, str):
        if not value.strip():
            raise InvalidRow("empty_prompt", f"{key} is blank")
        return Texts(value, 1, 0)
    if is_token_ids(value):
        return Texts("", 1, len(value))
    if not isinstance(value, list) or not all(
        isinstance(item, str) or item == [] or is_token_ids(item) for item in value
    ):
        raise InvalidRow("wrong_type", f"{key} must be a string, a list of token ids, or a list of these")
    texts = [item for item in value if isinstance(item, str)]
    if not value or not all(value) or not all(text.strip() for text in texts):
        raise InvalidRow("empty_prompt", f"{key} is blank or has a blank item")
    return Texts("\n".join(texts), len(value), sum(len(item) for item in value if isinstance(item, list)))


def is_token_ids(value: Any) -> bool:
    """Is it a non-empty list of whole numbers, 0 or greater?"""
    # Compare the type itself: True is an int too.
    return type(value) is list and bool(value) and all(type(item) is int and item >= 0 for item in value)


def no_prompt(body: Mapping[str, Any], wanted: str) -> InvalidRow:
    """The error for a body without the member its URL needs; it names the URLs that accept the member it has."""
    has = next((key for key in PROMPT_URLS if body.get(key) is not None), None)
    instead = f"; it has {has}, as {PROMPT_URLS[has]} takes it" if has is not None else ""
    return InvalidRow("missing_column", f"body has no {wanted}{instead}")


def _content_text(message: Mapping[str, Any], index: int) -> tuple[str, bool]:
    """The text of a message whose content is not a string, and whether it has parts other than text, such as images."""
    content = message.get("content")
    if content is None and message["role"] == "assistant":
        # The assistant called a tool and said nothing.
        return "", False
    if not isinstance(content, list):
        raise InvalidRow(
            "wrong_type",
            f"messages[{index}].content must be a string or a list of parts, not {type_name(content)}",
        )
    texts: list[str] = []
    other = False
    for at, part in enumerate(content):
        if not isinstance(part, dict) or not isinstance(part.get("type"), str):
            raise InvalidRow("wrong_type", f"messages[{index}].content[{at}] must be an object with a type")
        if part["type"] != "text":
            other = True
        elif isinstance(part.get("text"), str):
            texts.append(part["text"])
        else:
            raise InvalidRow("wrong_type", f"messages[{index}].content[{at}].text must be a string")
    return "\n".join(texts), other
