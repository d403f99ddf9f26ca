from typing import Any

import orjson
import pytest

from schemas.openai_batch import CHAT_URL, COMPLETIONS_URL, EMBEDDINGS_URL, RESPONSES_URL
from tests.reading.requests.shaping import refused, shape

HI = [{"role": "user", "content": "hi"}]
BODIES: dict[str, dict[str, Any]] = {
    CHAT_URL: {"messages": HI},
    COMPLETIONS_URL: {"prompt": "hi"},
    EMBEDDINGS_URL: {"input": "hi"},
    RESPONSES_URL: {"input": "hi"},
}


@pytest.mark.parametrize("api", BODIES)
@pytest.mark.parametrize(
    "written",
    [
        "{path}",
        "{short}",
        "{short}/",
        "v1{short}",
        " {path} ",
        "https://api.example.com{path}",
        "https://x.openai.azure.com/openai/deployments/gpt-4o{short}?api-version=2024-10-21",
        "/openai/deployments/my-deployment{short}?api-version=2024-10-21",
        "/api/v3{short}",
    ],
)
def test_a_url_is_known_by_its_end(api: str, written: str) -> None:
    """The end of the url decides the API, for paths with or without /v1, Azure's deployments and whole addresses."""
    url = written.format(path=api, short=api.removeprefix("/v1"))
    shaped = shape({"custom_id": "a", "method": "POST", "url": url, "body": BODIES[api]})
    assert (shaped.url, shaped.body) == (api, BODIES[api])


@pytest.mark.parametrize(
    ("body", "api"),
    [
        ({"messages": HI, "max_tokens": 5}, CHAT_URL),
        ({"messages": HI, "prompt": None, "input": None}, CHAT_URL),
        ({"prompt": "hi", "max_tokens": 5}, COMPLETIONS_URL),
        ({"input": "hi"}, EMBEDDINGS_URL),
        ({"input": ["hi", "ho"], "dimensions": 8}, EMBEDDINGS_URL),
        ({"input": "hi", "instructions": "Tag it."}, RESPONSES_URL),
        ({"input": "hi", "max_output_tokens": 5}, RESPONSES_URL),
        ({"input": [{"role": "user", "content": "hi"}]}, RESPONSES_URL),
    ],
)
@pytest.mark.parametrize("left_out", [{}, {"method": None, "url": None}, {"method": "post"}, {"url": ""}])
def test_without_a_url_the_keys_of_the_body_decide_the_api(
    body: dict[str, Any], api: str, left_out: dict[str, Any]
) -> None:
    """Mistral's and Together's lines have only `custom_id` and `body`."""
    shaped = shape({"custom_id": "a", "body": body, **left_out})
    assert (shaped.url, shaped.body) == (api, body)


def test_a_body_may_be_its_json_text() -> None:
    """CSV files and tables of text columns keep the request as a string."""
    body = {"messages": HI, "temperature": 0}
    text = orjson.dumps(body).decode()
    for record in (
        {"custom_id": "a", "body": text},
        {"custom_id": "a", "method": "post", "url": "/chat/completions", "body": text},
    ):
        shaped = shape(record)
        assert (shaped.url, shaped.body, shaped.text) == (CHAT_URL, body, "hi")
    assert shape({"prompt": "a", "id": 1, "body": text}).text == "a"


@pytest.mark.parametrize(
    ("line", "kind", "said"),
    [
        ({"method": "GET", "body": {"messages": HI}}, "bad_method", "method must be POST"),
        ({"method": 5, "body": {"messages": HI}}, "bad_method", "method must be POST"),
        ({"url": "/v1/moderations", "body": {"input": "a"}}, "bad_url", "must end in /chat/completions, /completions"),
        ({"url": "/v1/files", "body": {}}, "bad_url", "url must end in"),
        ({"url": ["/v1"], "body": {"messages": HI}}, "bad_url", "url must end in"),
        ({"body": {}}, "missing_column", "url is missing, and body has none of messages, prompt and input"),
        ({"body": {"model": "m"}}, "missing_column", "body has none of messages, prompt and input"),
        ({"method": "POST", "url": "/v1/completions"}, "missing_column", "body is missing"),
        ({"method": "POST", "url": "/v1/completions", "body": None}, "missing_column", "body is null"),
        (
            {"method": "POST", "url": "/v1/chat/completions", "params": {"messages": HI}},
            "missing_column",
            "body is missing; rename params to body",
        ),
        ({"method": "POST", "url": "/v1/completions", "body": "[1"}, "wrong_type", "is no JSON object"),
        ({"method": "POST", "url": "/v1/completions", "body": [1]}, "wrong_type", "not a list"),
        ({"url": "/v1/chat/completions", "body": {"prompt": "a"}}, "missing_column", "has prompt, as /v1/completions"),
        (
            {"url": "/v1/chat/completions", "body": {"input": "a"}},
            "missing_column",
            "body has no messages; it has input",
        ),
        (
            {"url": "/v1/completions", "body": {"messages": HI}},
            "missing_column",
            "has messages, as /v1/chat/completions",
        ),
        ({"url": "/v1/embeddings", "body": {"text": "a"}}, "missing_column", "body has no input"),
        ({"url": "/v1/responses", "body": {"messages": HI}}, "missing_column", "body has no input; .* has messages"),
    ],
)
def test_a_line_that_is_no_request_says_what_is_missing_or_which_url_it_is_for(
    line: dict[str, Any], kind: str, said: str
) -> None:
    """The message is one line that names what to add or to rename."""
    refused({"custom_id": "a", **line}, kind, said)
