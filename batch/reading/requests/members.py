"""Notes on members of messages that no known API accepts."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from batch.reading.notes import Fact

# OpenAI's members, and those that providers add: reasoning (DeepSeek, OpenRouter, vLLM), caching (Anthropic through
# gateways), continued answers (DeepSeek, Mistral: `prefix`; Moonshot, DashScope: `partial`), Ollama's images, Cohere's
# plans, harmony's channels, and members of answers that users send back unchanged.
KNOWN_MEMBERS: Final = frozenset(
    (
        *("role", "content", "name", "tool_calls", "tool_call_id", "function_call", "refusal", "audio", "annotations"),
        *("reasoning", "reasoning_content", "reasoning_details", "reasoning_text", "thinking", "thinking_blocks"),
        *("cache_control", "prefix", "partial", "images", "tool_name", "tool_plan", "citations", "documents"),
        *("channel", "recipient", "content_type", "phase", "id", "type", "status", "citation", "context"),
        *("provider_specific_fields", "extra_content", "extra_body", "tools", "files", "videos", "metadata"),
    )
)


def foreign_members(messages: Sequence[Mapping[str, Any]]) -> tuple[Fact, ...]:
    """Return a note for each unknown member of the messages, in order.

    Unknown members are sent all the same: a server may accept members that this program does not know.
    """
    found: dict[str, None] = {}
    for message in messages:
        # Nearly every message has only `role` and `content`.
        if len(message) > 2 and not message.keys() <= KNOWN_MEMBERS:
            found.update(dict.fromkeys(key for key in message if key not in KNOWN_MEMBERS))
    return tuple(
        Fact("message_member", f"the member `{name}` of messages is sent, and no API is known to take it")
        for name in found
    )
