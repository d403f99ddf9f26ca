from typing import Any

import pytest

from schemas.openai_batch import RESPONSES_URL
from tests.reading.requests.shaping import refused, shape


def line(**body: Any) -> dict[str, Any]:
    return {"custom_id": "a", "method": "POST", "url": "/v1/responses", "body": body}


def test_instructions_and_input_are_the_prompt() -> None:
    """Routers see the user's text, tokens are counted over all text, and `max_output_tokens` limits the answer."""
    body = {"instructions": "Tag it.", "input": "Where is it?", "max_output_tokens": 20, "temperature": 0}
    shaped = shape(line(model="gpt", **body))
    assert (shaped.url, shaped.body, shaped.asked) == (RESPONSES_URL, body, "gpt")
    assert (shaped.text, shaped.counted) == ("Where is it?", "Tag it.\nWhere is it?")
    assert (shaped.max_tokens, shaped.deterministic) == (20, True)


def test_input_may_be_a_list_of_items() -> None:
    """Items are messages, with strings or parts, and tool calls with their outputs."""
    items = [
        {"role": "developer", "content": "Be brief."},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "one"}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "two"}]},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "42"},
        {
            "role": "user",
            "content": [{"type": "input_image", "image_url": "data:,"}, {"type": "input_text", "text": "three"}],
        },
    ]
    shaped = shape(line(input=items))
    assert shaped.text == "one\nthree"
    assert shaped.counted == "Be brief.\none\ntwo\n{}\n42\nthree"
    assert shaped.body == {"input": items}


@pytest.mark.parametrize(
    "body",
    [
        {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "data:,"}]}]},
        {"prompt": {"id": "pmpt_1", "variables": {"city": "Rome"}}},
    ],
)
def test_a_prompt_without_text_for_routers_is_sent(body: dict[str, Any]) -> None:
    """A server can answer an image alone, or a prompt that is stored with the provider."""
    assert shape(line(**body)).text == ""


def test_the_jobs_parameters_and_system_message_get_the_apis_names() -> None:
    """Limits, effort and formats are renamed, unsupported parameters left out; the row's own keys take precedence."""
    schema = {"name": "s", "schema": {"type": "object"}, "strict": True}
    job = {
        "max_tokens": 256,
        "temperature": 0,
        "n": 2,
        "stop": ["x"],
        "reasoning_effort": "low",
        "verbosity": "high",
        "response_format": {"type": "json_schema", "json_schema": schema},
        "top_k": 5,
    }
    shaped = shape(line(input="a"), params=job, system="S")
    assert [fact.text for fact in shaped.notes] == [
        f"the parameter `{name}` is not sent: /v1/responses does not have it" for name in ("n", "stop")
    ]
    assert shaped.body == {
        "input": "a",
        "max_output_tokens": 256,
        "temperature": 0,
        "reasoning": {"effort": "low"},
        "text": {"verbosity": "high", "format": {"type": "json_schema", **schema}},
        "top_k": 5,
        "instructions": "S",
    }
    own = shape(line(input="a", max_output_tokens=7, instructions="Own."), params={"max_tokens": 256}, system="S")
    assert own.body == {"input": "a", "max_output_tokens": 7, "instructions": "Own."}
    assert (own.max_tokens, own.counted) == (7, "Own.\na")
    talk = [{"role": "system", "content": "T"}, {"role": "user", "content": "a"}]
    assert shape(line(input=talk), system="S").body == {"input": talk}
    assert shape(line(input="a"), params={"response_format": {"type": "json_object"}}).body["text"] == {
        "format": {"type": "json_object"}
    }


@pytest.mark.parametrize(
    ("body", "kind", "said"),
    [
        ({"instructions": "Tag it."}, "missing_column", "body has no input"),
        ({"input": 5}, "wrong_type", "input must be a string or a list of items, not a number"),
        ({"input": ["a"]}, "wrong_type", r"input\[0\] must be a message or another item"),
        ({"input": [{"content": "a"}]}, "wrong_type", r"input\[0\] must be a message"),
        ({"input": [{"role": "user", "content": 5}]}, "wrong_type", r"input\[0\]\.content must be a string or a list"),
        ({"input": [{"role": "user", "content": ["a"]}]}, "wrong_type", r"input\[0\]\.content\[0\] must be an object"),
        ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "wrong_type", r"\.text must be a string"),
        ({"input": "a", "instructions": ["b"]}, "wrong_type", "instructions must be a string, not a list"),
        ({"input": " "}, "empty_prompt", "input is blank"),
        ({"input": []}, "empty_prompt", "input is blank or has no items"),
        ({"input": "a", "stream": True}, "streaming", "stream must be left out"),
        ({"input": "a", "background": True}, "unsupported", "background must be left out"),
        ({"input": "a", "max_output_tokens": "5"}, "wrong_type", "max_output_tokens must be a whole number"),
    ],
)
def test_a_request_that_cannot_be_sent_says_why(body: dict[str, Any], kind: str, said: str) -> None:
    """Each fault has its kind and names the place in the body."""
    refused(line(**body), kind, said)
