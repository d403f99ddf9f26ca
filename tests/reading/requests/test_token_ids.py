from pathlib import Path
from typing import Any

import pytest

from schemas.openai_batch import COMPLETIONS_URL, EMBEDDINGS_URL
from tests.reading.requests.shaping import refused, shape
from tests.reading.rows import body, read_lines


def line(url: str, **body: Any) -> dict[str, Any]:
    return {"custom_id": "a", "method": "POST", "url": url, "body": body}


@pytest.mark.parametrize(
    ("value", "prompts", "tokens", "text"),
    [
        ([1, 15043, 3186], 1, 3, ""),
        ([0], 1, 1, ""),
        ([[1, 2], [3]], 2, 3, ""),
        (["one two", [1, 2]], 2, 2, "one two"),
    ],
)
def test_token_ids_are_sent_as_they_are(value: list[Any], prompts: int, tokens: int, text: str) -> None:
    """Routers see no text for token ids; each id counts as one token, and each list as a prompt with its own answer."""
    completion = shape(line("/v1/completions", prompt=value, max_tokens=5))
    assert (completion.url, completion.body) == (COMPLETIONS_URL, {"prompt": value, "max_tokens": 5})
    assert (completion.text, completion.tokens, completion.max_tokens) == (text, tokens, 5 * prompts)
    embedding = shape(line("/v1/embeddings", input=value))
    assert (embedding.url, embedding.body, embedding.tokens) == (EMBEDDINGS_URL, {"input": value}, tokens)
    assert [fact.code for fact in completion.notes] == ["token_ids"]


def test_token_ids_without_a_url_make_a_completion_or_embeddings() -> None:
    """A `prompt` of token ids becomes a completion, and an `input` of them an embedding request."""
    completion = shape({"prompt": [1, 2, 3], "max_tokens": 4}, params={"temperature": 0})
    assert (completion.url, completion.body) == (
        COMPLETIONS_URL,
        {"prompt": [1, 2, 3], "max_tokens": 4, "temperature": 0},
    )
    assert shape({"prompt": [[1, 2], [3]]}).tokens == 3
    embedding = shape({"input": [1, 2, 3], "dimensions": 4})
    assert (embedding.url, embedding.body) == (EMBEDDINGS_URL, {"input": [1, 2, 3], "dimensions": 4})


def test_token_ids_count_towards_the_prompts_tokens(tmp_path: Path) -> None:
    """The table's token count is that of the text and the ids together."""
    rows = read_lines(
        tmp_path,
        [
            line("/v1/completions", prompt=[7] * 5),
            line("/v1/embeddings", input=["one two three", [1, 2]]),
            {"prompt": "one two", "id": "b"},
            {"prompt": " "},
            line("/completions", prompt=[[1], [2, 3]]) | {"custom_id": "c"},
        ],
    )
    assert [row["prompt_tokens"] for row in rows] == [5, 5, 2, None, 3]
    assert (rows[0]["text"], body(rows[0])) == ("", {"prompt": [7] * 5})


@pytest.mark.parametrize("value", [[1, "a"], [1, -1], [1.5], [True], [[1], 2], [[[1]]], [None]])
def test_what_is_no_list_of_token_ids_is_refused(value: list[Any]) -> None:
    """Only whole numbers from 0 are token ids, in one list or in a list of lists."""
    refused(
        line("/v1/completions", prompt=value), "wrong_type", "prompt must be a string, a list of token ids, or a list"
    )
    refused({"input": value}, "wrong_type", "input must be a string, a list of token ids, or a list of these")


@pytest.mark.parametrize("value", [[], [[]], [[1], []], ["a", ""]])
def test_an_empty_list_is_no_prompt(value: list[Any]) -> None:
    """A list with an empty item is refused too."""
    refused(line("/v1/embeddings", input=value), "empty_prompt", "input is blank or has a blank item")
