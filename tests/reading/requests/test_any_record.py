"""Records of any content in any of the shapes."""

from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from batch.reading.invalid import InvalidRow
from schemas.openai_batch import BATCH_URLS
from tests.reading.requests.shaping import shape

_KEYS = st.sampled_from(
    [
        *(
            "messages",
            "prompt",
            "input",
            "body",
            "method",
            "url",
            "custom_id",
            "params",
            "conversations",
            "conversation",
        ),
        *(
            "model",
            "stream",
            "n",
            "max_tokens",
            "max_output_tokens",
            "temperature",
            "system",
            "stop_sequences",
            "tools",
        ),
        *(
            "role",
            "content",
            "from",
            "value",
            "type",
            "text",
            "source",
            "instructions",
            "request",
            "thinking",
            "output",
        ),
    ]
)
_WORDS = st.sampled_from(
    [
        *("user", "assistant", "system", "human", "gpt", "tool", "text", "input_text", "image", "message", "base64"),
        *("POST", "post", "/v1/responses", "/chat/completions", "/v1/messages", "/embeddings?a=1", "/v1/completions"),
        *("", " ", "[", "[{", '[{"role": "user", "content": "a"}]', '{"messages": []}', "[{'role'"),
    ]
)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 2**70) | st.floats() | _WORDS | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=4),
    max_leaves=10,
)


@given(st.dictionaries(_KEYS, _VALUES, max_size=5))
def test_any_record_becomes_a_request_or_an_invalid_row(record: dict[str, Any]) -> None:
    """Whatever a record holds, it becomes a request of a known API with counts that fit, or an invalid row."""
    try:
        before = orjson.dumps(record)
    except TypeError:
        before = None
    try:
        shaped = shape(record)
    except InvalidRow:
        shaped = None
    if shaped is not None:
        assert shaped.url in BATCH_URLS
        assert shaped.body
        assert "model" not in shaped.body
        assert shaped.tokens >= 0
        assert shaped.max_tokens is None or 0 < shaped.max_tokens < 2**31
        assert isinstance(shaped.text, str)
        assert isinstance(shaped.counted, str)
    if before is not None:
        assert orjson.dumps(record) == before
