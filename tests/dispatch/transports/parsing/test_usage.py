"""How many tokens an answer was billed for, however its provider counts."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.dispatch.transports.parsing.usage import Tokens, tokens
from schemas.openai_batch import CHAT_URL, EMBEDDINGS_URL, RESPONSES_URL


def chat(**usage: Any) -> Tokens:
    """The tokens that a chat's answer with this usage tells."""
    return tokens(usage, CHAT_URL)


@pytest.mark.parametrize(
    ("usage", "told"),
    [
        ({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}, (10, 5)),
        ({"prompt_tokens": 10, "completion_tokens": 5}, (10, 5)),
        # xAI and Gemini: reasoning is in the total only.
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
        # It is in no sum at all.
        (
            {"prompt_tokens": 10, "completion_tokens": 5, "completion_tokens_details": {"reasoning_tokens": 500}},
            (10, 505),
        ),
        ({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15, "reasoning_tokens": 50}, (10, 55)),
        # OpenAI: it is a part of the completion.
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 505,
                "total_tokens": 515,
                "completion_tokens_details": {"reasoning_tokens": 500},
            },
            (10, 505),
        ),
        # What the cache held is a part of the prompt, also where the prompt's count leaves it out.
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
        # A total that is less than the sum says nothing.
        ({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 0}, (10, 5)),
        # One of the two follows from the others.
        ({"prompt_tokens": 10, "total_tokens": 15}, (10, 5)),
        ({"completion_tokens": 5, "total_tokens": 15}, (10, 5)),
        ({"total_tokens": 15}, (None, None)),
        ({"prompt_tokens": 10.0, "completion_tokens": 5.0}, (10, 5)),
        ({"prompt_tokens": True, "completion_tokens": "5"}, (None, None)),
        ({"prompt_tokens": -1, "completion_tokens": 10**10}, (None, None)),
    ],
)
def test_a_chat_is_billed_for_all_that_its_usage_tells(usage: dict[str, Any], told: Tokens) -> None:
    """Reasoning belongs to the answer, the cache to the prompt, whichever count has them."""
    assert tokens(usage, CHAT_URL) == told


def test_embeddings_have_prompts_only() -> None:
    """Some tell the total alone; what is above the prompt's count was read too."""
    assert tokens({"prompt_tokens": 8, "total_tokens": 8}, EMBEDDINGS_URL) == (8, 0)
    assert tokens({"total_tokens": 8}, EMBEDDINGS_URL) == (8, 0)
    assert tokens({}, EMBEDDINGS_URL) == (None, None)


def test_responses_count_inputs_and_outputs() -> None:
    """There the cache and reasoning are parts of the two counts."""
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
    """Whatever stands there, a count is a whole number that fits, or unknown."""
    for count in chat(**usage):
        assert count is None or 0 <= count <= 2 * 10**9
