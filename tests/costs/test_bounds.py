"""Which requests have a bound on their cost, and which have none."""

from typing import Any

import orjson
import pytest

from batch.costs.bounds import most_tokens, unbounded_by
from schemas.openai_batch import CHAT_URL, COMPLETIONS_URL, EMBEDDINGS_URL

TEXT = [{"role": "user", "content": "Why?"}]


def of(url: str = CHAT_URL, most: int | None = 10, **request: Any) -> str | None:
    """Returns why a request with these keys has no bound, or None if it has one."""
    return unbounded_by(url, orjson.dumps(request), most)


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"max_tokens": 10, "n": 2, "temperature": 0.5, "stop": ["x"], "seed": 1, "stream": False},
        {"max_tokens": 10, "max_completion_tokens": None},
        {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "object"}}}},
        {"guided_choice": ["a", "b"], "chat_template_kwargs": {"enable_thinking": False}, "top_k": 5},
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}], "tool_choice": "auto"},
        {"modalities": ["text"], "service_tier": "flex", "reasoning_effort": "low"},
        {"best_of": 2, "n": 2},
    ],
)
def test_texts_with_usual_parameters_are_bounded(extra: dict[str, Any]) -> None:
    """Text requests are bounded by the bytes of the body and by `max_tokens`."""
    body = orjson.dumps({"messages": TEXT, **extra})
    assert unbounded_by(CHAT_URL, body, 10) is None
    assert most_tokens(CHAT_URL, body, 10) == (len(body), 10)


@pytest.mark.parametrize(
    "part",
    [
        {"type": "audio_url", "audio_url": {"url": "https://x.org/a.mp3"}},
        {"type": "video", "video": "https://x.org/a.mp4"},
        {"type": "video_url", "video_url": {"url": "https://x.org/a.mp4"}},
        {"type": "input_video", "input_video": {}},
        {"type": "image_url", "image_url": {"url": "https://x.org/a.png"}},
        {"type": "image_embeds", "image_embeds": "x"},
        {"type": "file", "file": {"file_id": "f"}},
        {"type": "search_result", "source": "https://x.org"},
        {"type": "not known yet"},
        {"url": "https://x.org"},
        {"type": 7},
        7,
    ],
)
@pytest.mark.parametrize("role", ["user", "tool"])
def test_parts_that_are_no_text_have_no_bound(part: object, role: str) -> None:
    """A message part that is not text has no bound, because its cost does not follow from the body's length."""
    messages = [*TEXT, {"role": role, "content": [{"type": "text", "text": "See:"}, part]}]
    assert of(messages=messages) is not None
    assert most_tokens(CHAT_URL, orjson.dumps({"messages": messages}), 10) is None


@pytest.mark.parametrize(
    ("extra", "named"),
    [
        ({"web_search_options": {}}, "web_search_options"),
        ({"plugins": [{"id": "web"}]}, "plugins"),
        ({"modalities": ["text", "audio"], "audio": {"voice": "alloy"}}, "audio"),
        ({"modalities": ["text", "image"]}, "modalities"),
        ({"prediction": {"type": "content", "content": "x"}}, "prediction"),
        ({"best_of": 20, "n": 1}, "best_of"),
        ({"models": ["dear/model"]}, "models"),
        ({"service_tier": "priority"}, "service_tier priority"),
        ({"tools": [{"type": "web_search_preview"}]}, "tools that are no functions"),
        ({"tools": [{"google_search": {}}]}, "tools that are no functions"),
        ({"previous_response_id": "r"}, "previous_response_id"),
        ({"search_parameters": {"mode": "auto"}}, "search_parameters"),
        ({"max_tokens": 1000, "max_completion_tokens": 10}, "max_tokens and max_completion_tokens that differ"),
        ({"a_key_of_next_year": 1}, "a_key_of_next_year"),
    ],
)
def test_whatever_is_not_known_to_be_bounded_is_named(extra: dict[str, Any], named: str) -> None:
    """`unbounded_by` names the parameter that leaves a request without a bound, because a budget refuses such a row."""
    assert of(messages=TEXT, **extra) == named


def test_messages_may_refer_to_what_is_not_in_the_body() -> None:
    """A message with earlier audio, Ollama's images or an item of an earlier response has no bound."""
    assert of(messages=[{"role": "assistant", "audio": {"id": "a"}}]) == "audio in a message"
    assert of(messages=[{"role": "user", "content": "x", "images": ["aGk="]}]) == "images in a message"
    assert of(input=[{"type": "item_reference", "id": "x"}]) == "item_reference in the input"
    assert of(messages=["hi"]) == "messages"


def test_an_answer_needs_a_limit_and_a_vector_does_not() -> None:
    """A completion has a bound only with `max_tokens`; an embedding request has no completion and needs none."""
    assert of(messages=TEXT, most=None) == "no max_tokens"
    assert of(EMBEDDINGS_URL, None, input="a", dimensions=8) is None
    assert most_tokens(EMBEDDINGS_URL, b'{"input":"abc"}', None) == (15, 0)
    assert of(EMBEDDINGS_URL, None, input=[{"image": "https://x.org"}]) is not None
    assert of(EMBEDDINGS_URL, None, input={"image": "https://x.org"}) == "input that is no text"


@pytest.mark.parametrize("prompt", ["a", ["a", "b"], [1, 2, 3], [[1, 2], [3]]])
def test_prompts_are_texts_or_tokens(prompt: object) -> None:
    """A prompt of texts or token ids has a bound: a token id takes at least two bytes, a digit and a comma."""
    assert of(COMPLETIONS_URL, 5, prompt=prompt) is None


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"7"])
def test_what_cannot_be_read_has_no_bound(body: bytes) -> None:
    """A body that is not a JSON object has no bound, so a job with a budget does not send it."""
    assert most_tokens(CHAT_URL, body, 5) is None


@pytest.mark.parametrize("kind", [[], {}, ["text"], 7, True])
def test_a_type_that_is_no_word_has_no_bound(kind: object) -> None:
    """A `type` that is not a string has no bound; a `type` that is null counts as left out."""
    assert of(messages=[{"role": "user", "content": [{"type": kind, "text": "x"}]}]) == "content that is no text"
    if kind:
        assert of(messages=[{"type": kind, "role": "user", "content": "x"}]) is not None
    assert of(messages=[{"type": None, "role": "user", "content": "x"}]) is None
