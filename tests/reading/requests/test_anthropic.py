from typing import Any

import orjson
import pytest

from schemas.openai_batch import CHAT_URL
from tests.reading.requests.shaping import refused, shape

HI = {"role": "user", "content": "Best cheese?"}


def line(**params: Any) -> dict[str, Any]:
    return {"custom_id": "r1", "params": {"model": "claude", "max_tokens": 50, "messages": [HI], **params}}


def test_a_line_of_anthropics_batches_is_the_chat_request_it_asks_for() -> None:
    """`system` becomes the first message and `stop_sequences` becomes `stop`; limits and sampling stay."""
    shaped = shape(line(system="Be terse.", stop_sequences=["x"], temperature=0, top_k=5, metadata={"user_id": "u"}))
    assert shaped.url == CHAT_URL
    assert shaped.body == {
        "messages": [{"role": "system", "content": "Be terse."}, HI],
        "max_tokens": 50,
        "stop": ["x"],
        "temperature": 0,
        "top_k": 5,
        "user": "u",
    }
    assert (shaped.text, shaped.counted) == ("Best cheese?", "Be terse.\nBest cheese?")
    assert (shaped.asked, shaped.max_tokens, shaped.deterministic) == ("claude", 50, True)
    assert (shaped.used, [fact.code for fact in shaped.notes]) == ({"params"}, ["anthropic"])


def test_blocks_of_text_and_images_become_parts() -> None:
    """One block of text becomes a string; several, and images, become parts; cache hints are left out."""
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
    linked = {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}
    text = {"type": "text", "text": "What is it?", "cache_control": {"type": "ephemeral"}}
    system = [{"type": "text", "text": "Be", "cache_control": None}, {"type": "text", "text": "terse."}]
    talk = [
        {"role": "user", "content": [image, linked, text]},
        {"role": "assistant", "content": [{"type": "text", "text": "A cheese."}]},
        HI,
    ]
    assert shape(line(system=system, messages=talk)).body["messages"] == [
        {"role": "system", "content": [{"type": "text", "text": "Be"}, {"type": "text", "text": "terse."}]},
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
                {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
                {"type": "text", "text": "What is it?"},
            ],
        },
        {"role": "assistant", "content": "A cheese."},
        HI,
    ]


@pytest.mark.parametrize(
    "record",
    [
        {"custom_id": "a", "method": "POST", "url": "/v1/messages", "body": line(system="S")["params"]},
        {"custom_id": "a", "url": "https://api.anthropic.com/v1/messages", "body": line(system="S")["params"]},
        {"custom_id": "a", "body": line(system="S")["params"]},
        {"custom_id": "a", "params": {**line(system="S")["params"], "anthropic_version": "x", "thinking": None}},
        {"params": {**line(system="S")["params"], "thinking": {"type": "disabled"}, "tools": []}},
        {"custom_id": "a", "params": orjson.dumps(line(system="S")["params"]).decode()},
    ],
)
def test_the_same_request_under_other_names_is_the_same(record: dict[str, Any]) -> None:
    """Anthropic's requests may be a batch line's body, known by url or keys; keys without effect are dropped."""
    assert shape(record).body == {"messages": [{"role": "system", "content": "S"}, HI], "max_tokens": 50}


def test_the_jobs_parameters_stand_under_the_rows() -> None:
    """As for other rows with a whole request, the row's own parameters take precedence over the job's."""
    shaped = shape(line(), params={"max_tokens": 256, "seed": 1}, system="S")
    assert shaped.body == {"messages": [{"role": "system", "content": "S"}, HI], "max_tokens": 50, "seed": 1}


@pytest.mark.parametrize(
    ("params", "kind", "said"),
    [
        ({"tools": [{"name": "f", "input_schema": {}}]}, "unsupported", r"params\.tools is in Anthropic's shape"),
        ({"thinking": {"type": "enabled", "budget_tokens": 9}}, "unsupported", r"thinking .* use reasoning_effort"),
        ({"messages": "hi"}, "wrong_type", r"params\.messages must be a list, not a string"),
        (
            {"messages": [{"role": "user"}]},
            "wrong_type",
            r"params\.messages\[0\] must be an object with role and content",
        ),
        (
            {"messages": [{"role": "user", "content": 5}]},
            "wrong_type",
            r"messages\[0\]\.content must be a string or a list",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "tool_result", "content": "a"}]}]},
            "unsupported",
            r"params\.messages\[0\]\.content\[0\] is a block that a chat request cannot hold",
        ),
        (
            {"messages": [{"role": "user", "content": ["a"]}]},
            "wrong_type",
            r"content\[0\] must be an object with a type",
        ),
        ({"system": 5}, "wrong_type", r"params\.system must be a string or a list"),
        ({"messages": []}, "empty_prompt", "messages are empty"),
        ({"stream": True}, "streaming", "stream must be left out"),
    ],
)
def test_requests_that_no_chat_request_can_express_are_refused(params: dict[str, Any], kind: str, said: str) -> None:
    """The message names tools, thinking and other blocks with their place in the row."""
    refused(line(**params), kind, said)


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"request": {"contents": [{"parts": [{"text": "a"}]}]}}, "Gemini's and Vertex AI's batch lines"),
        ({"key": "1", "request": {"messages": [HI]}}, "rename `request` to `params`"),
        ({"recordId": "1", "modelInput": {"messages": [HI]}}, "Bedrock's batch lines .* rename it to `params`"),
        ({"contents": []}, "`contents` is Gemini's"),
        ({"batch_request_id": "1", "batch_request": {"chat_get_completion": {}}}, "`batch_request` is how xAI's"),
        ({"params": {"max_tokens": 5}}, "none of messages, prompt, input or body"),
    ],
)
def test_other_providers_lines_are_recognised(record: dict[str, Any], said: str) -> None:
    """For a known shape that is not supported, the message names the provider and says what to do."""
    refused(record, "missing_column", said)
