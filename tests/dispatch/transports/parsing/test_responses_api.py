"""Answers of the Responses API are read with their usage, and requests to it are sent, through LiteLLM too."""

import asyncio
from typing import Any

import orjson
import pytest

from batch.dispatch.request import Completion
from batch.dispatch.transports.access import resolve
from batch.dispatch.transports.registry import build_transport
from batch.dispatch.transports.responses import completion
from batch.errors import BadAnswer
from batch.runs.output.rows import content_of
from schemas.endpoints import EndpointSpec
from schemas.openai_batch import RESPONSES_URL
from tests.fakes import request
from tests.rehearsed import serve

KEY = "sk-abcdefghijklmnopqrstuvwxyz"
MESSAGE = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "yes"}]}
REASONING = {"type": "reasoning", "summary": []}
CALL = {"type": "function_call", "name": "f", "arguments": "{}", "call_id": "c"}
USAGE = {"input_tokens": 5, "output_tokens": 7, "output_tokens_details": {"reasoning_tokens": 4}}


def read(**answer: Any) -> Completion:
    return completion(orjson.dumps(answer), RESPONSES_URL)


@pytest.mark.parametrize(
    ("answer", "content"),
    [
        ({"status": "completed", "error": None, "output": [REASONING, MESSAGE], "usage": USAGE}, "yes"),
        ({"status": "completed", "output": [MESSAGE, MESSAGE], "usage": USAGE}, "yesyes"),
        ({"status": "completed", "output": [CALL], "usage": USAGE}, None),
        ({"status": "incomplete", "output": [MESSAGE], "usage": USAGE}, "yes"),
        ({"status": "incomplete", "output": [], "usage": USAGE}, None),
        ({"output": [MESSAGE], "usage": USAGE}, "yes"),
    ],
)
def test_a_finished_response_is_an_answer(answer: dict[str, Any], content: str | None) -> None:
    """The content is the text of all messages, the usage includes reasoning, and an answer cut at its limit is good."""
    good = read(**answer)
    assert (good.prompt_tokens, good.completion_tokens) == (5, 7)
    assert content_of(orjson.loads(good.raw)) == content


@pytest.mark.parametrize(
    "answer",
    [
        {"status": "in_progress", "output": []},
        {"status": "queued", "output": [MESSAGE]},
        {"status": "cancelled", "output": []},
        {"status": "completed", "output": []},
        {"status": "completed", "output": None},
        {"status": 5, "output": [MESSAGE]},
        {"output": []},
        {"choices": [{"message": {"content": "yes"}}]},
    ],
)
def test_a_response_that_is_not_finished_is_no_answer(answer: dict[str, Any]) -> None:
    """A response that is unfinished or has no output, or a chat answer, raises `BadAnswer`."""
    with pytest.raises(BadAnswer):
        read(**answer)


@pytest.mark.parametrize("usage", [None, [], {"prompt_tokens": 5, "completion_tokens": 7}, {"input_tokens": "5"}])
def test_usage_that_a_response_does_not_say_is_unknown(usage: object) -> None:
    """Missing or unreadable usage is unknown, and not 0."""
    good = read(output=[MESSAGE], usage=usage)
    assert (good.prompt_tokens, good.completion_tokens) == (None, None)


@pytest.mark.real
@pytest.mark.filterwarnings("default")  # LiteLLM's own models make pydantic warn
def test_litellm_sends_responses_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """LiteLLM sends the request to the server's path for responses, and its token counts come back."""
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    with serve({"model": "m", "answers": "echo"}) as served:

        async def through() -> Completion:
            spec = EndpointSpec(url=served.urls[0], model="openai/m", transport="litellm", api_key_env="K")
            sender = build_transport(spec, timeout_seconds=60, keys=lambda name: KEY, wall=lambda: 0.0)
            asked = request()
            asked.url = RESPONSES_URL
            asked.body = b'{"instructions":"Tag it.","input":"Where is it?","max_output_tokens":20}'
            try:
                return await sender.send(asked)
            finally:
                await sender.aclose()

        answer = asyncio.run(through())
    (post,) = served.posts
    assert (post["instructions"], post["input"], post["max_output_tokens"]) == ("Tag it.", "Where is it?", 20)
    assert content_of(orjson.loads(answer.raw)) == "Where is it?"
    assert (answer.prompt_tokens, answer.completion_tokens) == (5, 3)


@pytest.mark.parametrize(
    ("url", "options", "address"),
    [
        ("http://a/v1", {}, "http://a/v1/responses"),
        ("http://a/v1/responses", {}, "http://a/v1/responses"),
        (
            "http://a",
            {"provider": "azure", "api_version": "2025-04-01-preview"},
            "http://a/openai/responses?api-version=2025-04-01-preview",
        ),
        (
            "http://a/openai/deployments/d?api-version=1",
            {"provider": "azure"},
            "http://a/openai/responses?api-version=1",
        ),
        ("http://a/openai/v1", {"provider": "azure"}, "http://a/openai/v1/responses"),
    ],
)
def test_responses_have_an_address_at_every_provider(url: str, options: dict[str, Any], address: str) -> None:
    """Azure serves responses beside its deployments, not below them."""
    assert resolve(EndpointSpec(url=url, model="m", **options), lambda name: None).url(RESPONSES_URL) == address
