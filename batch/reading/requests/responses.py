"""Requests of OpenAI's Responses API: `{instructions, input, max_output_tokens}`."""

from collections.abc import Mapping
from typing import Any

from batch.reading.invalid import InvalidRow, type_name
from batch.reading.notes import Fact
from batch.reading.prompts import SYSTEM_ROLES, Conversation, no_prompt

ANSWER_LIMIT = "max_output_tokens"
"""The Responses API's name for the limit of the answer's tokens."""

# Chat parameters that the Responses API does not have, and that its servers refuse.
_OF_CHATS = frozenset(
    {
        "n",
        "stop",
        "seed",
        "logprobs",
        "logit_bias",
        "frequency_penalty",
        "presence_penalty",
        "functions",
        "function_call",
        "modalities",
        "audio",
        "prediction",
        "stream_options",
        "web_search_options",
    }
)


def as_responses_params(params: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[Fact, ...]]:
    """Translate a job's chat parameters for the Responses API; also return a note on each that the API lacks."""
    own: dict[str, Any] = {}
    notes: list[Fact] = []
    for key, value in params.items():
        match key, value:
            case (("max_tokens" | "max_completion_tokens"), _):
                own[ANSWER_LIMIT] = value
            case "reasoning_effort", _:
                own["reasoning"] = {"effort": value}
            case "verbosity", _:
                own["text"] = {**own.get("text", {}), "verbosity": value}
            case "response_format", {"type": "json_schema", "json_schema": dict(schema)}:
                own["text"] = {**own.get("text", {}), "format": {"type": "json_schema", **schema}}
            case "response_format", _:
                own["text"] = {**own.get("text", {}), "format": value}
            case _ if key in _OF_CHATS:
                notes.append(
                    Fact("not_a_parameter", f"the parameter `{key}` is not sent: /v1/responses does not have it")
                )
            case _:
                own[key] = value
    return own, tuple(notes)


def responses_text(body: Mapping[str, Any]) -> Conversation:
    """Check `instructions` and `input`, a string or a list of items, and collect their text. Raises InvalidRow."""
    instructions = body.get("instructions")
    if instructions is not None and not isinstance(instructions, str):
        raise InvalidRow("wrong_type", f"instructions must be a string, not {type_name(instructions)}")
    if body.get("background"):
        raise InvalidRow("unsupported", "background must be left out: the answer comes with the request")
    head = [instructions] if instructions else []
    given = body.get("input")
    match given:
        case str():
            every, user, other, has_system = [given], [given], False, False
        case list():
            every, user, other, has_system = _items(given)
        case None:
            # A prompt template stored with the provider needs no input.
            if not isinstance(body.get("prompt"), dict):
                raise no_prompt(body, "input")
            every, user, other, has_system = [], [], True, False
        case _:
            raise InvalidRow("wrong_type", f"input must be a string or a list of items, not {type_name(given)}")
    scored = user or every
    if not other and not any(text and not text.isspace() for text in scored):
        raise InvalidRow("empty_prompt", "input is blank or has no items")
    return Conversation("\n".join(scored), "\n".join([*head, *every]), has_system or bool(head))


def _items(items: list[Any]) -> tuple[list[str], list[str], bool, bool]:
    """Return all texts, the texts of users, whether there is content other than text, and whether a system message."""
    every: list[str] = []
    user: list[str] = []
    other = has_system = False
    for index, item in enumerate(items):
        if not isinstance(item, dict) or not (isinstance(item.get("role"), str) or isinstance(item.get("type"), str)):
            raise InvalidRow("wrong_type", f"input[{index}] must be a message or another item, an object")
        role = item.get("role")
        if role is None:
            # Arguments and outputs of tool calls.
            every += [item[key] for key in ("arguments", "output") if isinstance(item.get(key), str)]
            other = True
            continue
        texts, more = _content(item.get("content"), index)
        every += texts
        has_system = has_system or role in SYSTEM_ROLES
        if role == "user":
            user += texts
            other = other or more
    return every, user, other, has_system


def _content(content: Any, index: int) -> tuple[list[str], bool]:
    """Return the texts of a message, and whether it has other content, such as an image."""
    if isinstance(content, str):
        return [content], False
    if not isinstance(content, list):
        raise InvalidRow(
            "wrong_type", f"input[{index}].content must be a string or a list of parts, not {type_name(content)}"
        )
    texts: list[str] = []
    for at, part in enumerate(content):
        if not isinstance(part, dict) or not isinstance(part.get("type"), str):
            raise InvalidRow("wrong_type", f"input[{index}].content[{at}] must be an object with a type")
        if part["type"] in ("input_text", "output_text", "text"):
            if not isinstance(part.get("text"), str):
                raise InvalidRow("wrong_type", f"input[{index}].content[{at}].text must be a string")
            texts.append(part["text"])
    return texts, len(texts) < len(content)
