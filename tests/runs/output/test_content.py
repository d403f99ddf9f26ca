"""The text of an answer, in the results' `content`."""

from typing import Any

import pytest

from batch.runs.output.rows import content_of


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("yes", "yes"),
        (None, None),
        ([{"type": "text", "text": "The "}, {"type": "text", "text": "answer"}], "The answer"),
        ([{"type": "thinking", "thinking": [{"type": "text", "text": "2+2"}]}, {"type": "text", "text": "4"}], "4"),
        ([{"type": "reasoning", "text": "hm"}, {"type": "output_text", "text": "4"}], "4"),
        ([{"text": "4"}], "4"),
        (["4", "2"], "42"),
        ({"type": "text", "text": "4"}, "4"),
        ([{"type": "image_url", "image_url": {}}], None),
        ([], None),
        ([None, 7, {"type": "text", "text": 7}], None),
    ],
)
def test_content_is_the_text_of_the_parts(content: Any, text: str | None) -> None:
    """The content joins the text parts of an answer and leaves out the reasoning parts of Mistral's models."""
    assert content_of({"choices": [{"message": {"role": "assistant", "content": content}}]}) == text
