"""Finds conversations in rows, and turns them into lists of messages in OpenAI's shape."""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from batch.reading.invalid import InvalidRow, type_name

# Roles by the names of speakers in ShareGPT's files and in files that follow their format.
_ROLES = {
    "human": "user",
    "user": "user",
    "prompter": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "ai": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "claude": "assistant",
    "system": "system",
}
_PLAIN_ROLES = ("user", "assistant", "system", "developer")
_FOREIGN_ROLES = frozenset(name for name, role in _ROLES.items() if name != role)


def conversation_in(record: Mapping[str, Any], column: str) -> list[Any]:
    """Return the messages in a column that holds a conversation; the messages themselves are not checked.

    The column may hold a list of messages with `role` and `content`, or with ShareGPT's `from` and `value`; such a list
    as JSON text; or an object of lists, as Hugging Face's Sequence stores it. Raises InvalidRow for anything else.
    """
    value = record[column]
    if type(value) is list:
        return as_messages(value, column)
    if isinstance(value, str):
        value = _from_text(value, column)
    if isinstance(value, dict):
        value = _from_columns(value, column)
    if not isinstance(value, list):
        raise InvalidRow("wrong_type", f"{column} must be a list of messages, or its JSON, not {type_name(value)}")
    return as_messages(value, column)


def found_messages(value: Any, column: str) -> list[Any] | None:
    """Return the messages of a `prompt` or `input` that is a conversation (or its JSON text), else `None`."""
    if isinstance(value, str):
        if value[:1] != "[":
            return None
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError:
            return None
    if not isinstance(value, list) or not value or not all(map(_is_message, value)):
        return None
    return as_messages(value, column)


def as_messages(messages: list[Any], column: str) -> list[Any]:
    """Return the messages with OpenAI's keys and roles. Raises InvalidRow for a speaker without a role in OpenAI's API.

    Null members are left out: tables and their exports fill missing members with null, and servers refuse many of
    these. A null `content` stays, because an assistant message that calls a tool has no content.
    """
    for message in messages:
        # Nearly every message is plain. These comparisons cost a tenth of checking every member.
        is_plain = (
            type(message) is dict
            and len(message) == 2
            and type(message.get("content")) is str
            and message.get("role") in _PLAIN_ROLES
        )
        if not is_plain and _is_odd(message):
            break
    else:
        return messages
    return [_message(message, f"{column}[{index}]") for index, message in enumerate(messages)]


def _is_odd(message: Any) -> bool:
    """Must the message be changed?"""
    if type(message) is not dict:
        return False
    role = message.get("role")
    if role is None or (type(role) is str and role in _FOREIGN_ROLES):
        return True
    for key, value in message.items():
        if value is None:
            if key != "content":
                return True
        # Content parts, and tool calls.
        elif type(value) is list and any(type(item) is dict and None in item.values() for item in value):
            return True
    return False


def _message(message: Any, where: str) -> Any:
    if not isinstance(message, dict):
        return message  # invalid; `conversation_text` reports it
    role = message.get("role")
    if role is None and "from" in message and "value" in message:
        return _of_sharegpt(message, where)
    kept = {key: _without_nulls(value) for key, value in message.items() if value is not None or key == "content"}
    return {**kept, "role": _ROLES.get(role, role)} if isinstance(role, str) else kept


def _of_sharegpt(message: Mapping[str, Any], where: str) -> dict[str, str]:
    speaker, value = message["from"], message["value"]
    role = _ROLES.get(speaker.lower()) if isinstance(speaker, str) else None
    if role is None:
        raise InvalidRow("unsupported", f"{where}.from is nobody whose words can be sent: not human, gpt or system")
    if not isinstance(value, str):
        raise InvalidRow("wrong_type", f"{where}.value must be a string, not {type_name(value)}")
    return {"role": role, "content": value}


def _without_nulls(value: Any) -> Any:
    match value:
        case dict():
            return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
        case list():
            return [_without_nulls(item) for item in value]
    return value


def _is_message(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    return isinstance(value.get("role"), str) or (isinstance(value.get("from"), str) and "value" in value)


def _from_text(text: str, column: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        if text.lstrip()[:2] in ("[{", "{'", '{"', "[["):
            python = "; it looks like Python's notation, where json.dumps writes JSON" if "{'" in text[:40] else ""
            raise InvalidRow("wrong_type", f"{column} is text that is not JSON{python}") from error
    raise InvalidRow(
        "wrong_type",
        f"{column} must be a list of messages, or its JSON, not other text; rename the column to prompt, or "
        f'set input.prompt: "{{{column}}}"',
    )


def _from_columns(value: Mapping[str, Any], column: str) -> Any:
    """Turn an object of lists of equal length into a list of objects; return any other object unchanged."""
    lists: Sequence[Any] = list(value.values())
    if not lists or not all(isinstance(items, list) for items in lists) or len({len(items) for items in lists}) != 1:
        return value
    return [
        {key: item for key, item in zip(value, items, strict=True) if item is not None}
        for items in zip(*lists, strict=True)
    ]
