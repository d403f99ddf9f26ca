"""The tokens that an answer is billed for are read from its usage, whatever the provider's way of counting."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.dispatch.transports.parsing.usage import Tokens, tokens
from schemas.openai_batch import CHAT_URL, EMBEDDINGS_URL, RESPONSES_URL


def chat(**usage: Any) -> Tokens:
    """The tokens in the usage of a chat answer."""
    return tokens(usage, CHAT_URL)


@pytest.mark.parametrize(
    ("usage", "told"),
    [
        ({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}, (10, 5)),
        ({"prompt_tokens": 10, "completion_tokens": 5}, (10, 5)),
        # xAI and Gemini count reasoning in the total only.
        ({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 515}, (10, 505)),
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "total_tokens": 515,
                "completion_tokens_details": {"reasoning_tokens": 500},
            },
            (10, 505),
        ),
        # Reasoning may be in neither the completion nor the total.
        (
            {"prompt_tokens": 10, "completion_tokens": 5, "completion_tokens_details": {"reasoning_tokens": 500}},
            (10, 505),
        ),
        ({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15, "reasoning_tokens": 50}, (10, 55)),
        # OpenAI counts reasoning as a part of the completion.
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 505,
                "total_tokens": 515,
                "completion_tokens_details": {"reasoning_tokens": 500},
            },
            (10, 505),
        ),
        # Cached tokens belong to the prompt, even if the prompt's count leaves them out.
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "total_tokens": 115,
                "prompt_tokens_details": {"cached_tokens": 100},
            },
            (110, 5),
        ),
        ({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 215, "cache_read_input_tokens": 200}, (210, 5)),
        (
            {
                "input_tokens": 10,
                "output_tokens": 5,
                "cache_read_input_tokens": 200,
                "cache_creation_input_tokens": 30,
            },
            (240, 5),
        ),
        # A total below the sum is ignored.
        ({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 0}, (10, 5)),
        # A missing count follows from the other one and the total.
        ({"prompt_tokens": 10, "total_tokens": 15}, (10, 5)),
        ({"completion_tokens": 5, "total_tokens": 15}, (10, 5)),
        ({"total_tokens": 15}, (None, None)),
        ({"prompt_tokens": 10.0, "completion_tokens": 5.0}, (10, 5)),
        ({"prompt_tokens": True, "completion_tokens": "5"}, (None, None)),
        ({"prompt_tokens": -1, "completion_tokens": 10**10}, (None, None)),
    ],
)
def test_a_chat_is_billed_for_all_that_its_usage_tells(usage: dict[str, Any], told: Tokens) -> None:
    """Reasoning counts as completion tokens and cached tokens as prompt tokens, wherever the usage lists them."""
    assert tokens(usage, CHAT_URL) == told


def test_embeddings_have_prompts_only() -> None:
    """Embeddings have prompt tokens only; if a server states only the total, that is the prompt's count."""
    assert tokens({"prompt_tokens": 8, "total_tokens": 8}, EMBEDDINGS_URL) == (8, 0)
    assert tokens({"total_tokens": 8}, EMBEDDINGS_URL) == (8, 0)
    assert tokens({}, EMBEDDINGS_URL) == (None, None)


def test_responses_count_inputs_and_outputs() -> None:
    """In the Responses API, input tokens include cached tokens, and output tokens include reasoning."""
    usage = {"input_tokens": 100, "output_tokens": 50, "total_tokens": 150}
    details = {"input_tokens_details": {"cached_tokens": 90}, "output_tokens_details": {"reasoning_tokens": 40}}
    assert tokens(usage | details, RESPONSES_URL) == (100, 50)


@given(
    st.dictionaries(
        st.sampled_from(["prompt_tokens", "completion_tokens", "total_tokens", "completion_tokens_details"]),
        st.none() | st.integers() | st.floats() | st.text(max_size=3) | st.dictionaries(st.text(max_size=3), st.none()),
    )
)
def test_no_usage_makes_reading_fail(usage: dict[str, Any]) -> None:
    """Whatever the usage holds, each count is unknown or a whole number within range."""
    for count in chat(**usage):
        assert count is None or 0 <= count <= 2 * 10**9
