"""Columns of a row that are parameters of its request."""

from typing import Any

import pytest

from batch.reading.exact import ExactInt
from batch.reading.invalid import InvalidRow
from batch.reading.requests.shaped import Shaped
from batch.reading.shapes import Shaper
from schemas.job import InputSpec

HI = [{"role": "user", "content": "hi"}]
SHAPES: list[dict[str, Any]] = [{"prompt": "hi"}, {"messages": HI}]


def shape(record: dict[str, Any], **settings: Any) -> Shaped:
    return Shaper(InputSpec(path="in.jsonl", **settings)).shape(record)


def sent(record: dict[str, Any], **settings: Any) -> dict[str, Any]:
    """The parameters of the request."""
    body = shape(record, **settings).body
    return {key: value for key, value in body.items() if key not in ("messages", "input")}


def said(record: dict[str, Any], **settings: Any) -> list[str]:
    return [fact.text for fact in shape(record, **settings).notes]


@pytest.mark.parametrize("prompt", SHAPES)
def test_a_request_body_as_a_row_is_sent_as_it_is(prompt: dict[str, Any]) -> None:
    """Beside `prompt` and `messages`, a row's own parameters take precedence over the job's and are not carried."""
    row = {**prompt, "max_tokens": 5, "temperature": 0, "stop": ["\n"], "n": 2, "topic": "x"}
    shaped = shape(row, params={"max_tokens": 256, "temperature": 1, "top_p": 0.5})
    assert {k: v for k, v in shaped.body.items() if k != "messages"} == {
        "max_tokens": 5,
        "temperature": 0,
        "top_p": 0.5,
        "stop": ["\n"],
        "n": 2,
    }
    assert shaped.max_tokens == 10
    assert shaped.deterministic
    assert shaped.used >= set(row) - {"topic"}
    assert "topic" not in shaped.used
    assert shaped.notes == ()


@pytest.mark.parametrize("prompt", SHAPES)
def test_extensions_of_servers_count_too(prompt: dict[str, Any]) -> None:
    """vLLM's parameters are sent; members of `extra_body` are sent beside them, as OpenAI's client does."""
    own = {"top_k": 20, "min_p": 0.05, "chat_template_kwargs": {"enable_thinking": False}, "guided_choice": ["a", "b"]}
    row = {**prompt, **own, "extra_body": {"repetition_penalty": 1.1, "my_own": 1}}
    assert sent(row) == {**own, "repetition_penalty": 1.1, "my_own": 1}


def test_extra_body_is_merged_from_job_params_and_batch_lines() -> None:
    """Its members become members of the request, and `extra_body` itself is never sent."""
    extra = {"extra_body": {"top_k": 3}, "seed": 1}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {"messages": HI, **extra}}
    for body in (sent(line), sent({"prompt": "a"}, params=extra), sent({"prompt": "a", "params": extra})):
        assert body == {"top_k": 3, "seed": 1}


def test_ambiguous_columns_beside_a_bare_prompt_are_data_and_noted() -> None:
    """A column `n` may just count rows, so it is a parameter only if the row is surely a request's body."""
    row = {"prompt": "a", "n": 60, "seed": 7}
    assert sent(row) == {}
    assert [text.split("`")[1] for text in said(row)] == ["n", "seed"]
    assert "n" not in shape(row).used
    assert sent({**row, "model": "small"}) == {"n": 60, "seed": 7}
    assert sent(row, row_params="honour") == {"n": 60, "seed": 7}
    assert sent({"messages": HI, "n": 2}) == {"n": 2}


def test_a_column_that_cannot_be_the_parameter_is_data_and_noted() -> None:
    """Text in the columns `prediction`, `reasoning` and `tools` is carried, in any shape of row."""
    row = {"messages": HI, "prediction": "positive", "reasoning": "because", "tools": "hammer", "max_tokens": 5}
    shaped = shape(row)
    assert sent(row) == {"max_tokens": 5}
    assert shaped.used.isdisjoint(("prediction", "reasoning", "tools"))
    assert len(shaped.notes) == 3


@pytest.mark.parametrize(
    ("column", "cell", "value"),
    [
        ("temperature", "0.7", 0.7),
        ("temperature", "", None),
        ("temperature", float("nan"), None),
        ("max_tokens", "256", 256),
        ("max_tokens", "256.0", 256),
        ("max_tokens", 256.0, 256),
        ("max_tokens", " ", None),
        ("logprobs", "TRUE", True),
        ("response_format", '{"type": "json_object"}', {"type": "json_object"}),
        ("stop_token_ids", "[1, 2]", [1, 2]),
        ("tool_choice", "auto", "auto"),
        ("reasoning_effort", "low", "low"),
    ],
)
@pytest.mark.parametrize("prompt", SHAPES)
def test_cells_are_read_as_what_the_parameter_is(prompt: dict[str, Any], column: str, cell: Any, value: Any) -> None:
    """Text in a CSV becomes the number, truth value, list or object that the parameter takes; blank means unset."""
    assert sent({**prompt, column: cell}, params={"seed": 1}) == {"seed": 1} | (
        {} if value is None else {column: value}
    )


@pytest.mark.parametrize(
    ("column", "cell"),
    [
        ("temperature", "hot"),
        ("temperature", True),
        ("temperature", float("inf")),
        ("max_tokens", "5.5"),
        ("max_tokens", "many"),
        ("max_tokens", -1),
        ("logprobs", "maybe"),
        ("response_format", "json"),
        ("logit_bias", "[1]"),
        ("top_p", [1]),
    ],
)
def test_a_plain_parameter_of_another_type_makes_the_row_invalid(column: str, cell: Any) -> None:
    """The column cannot be data, and leaving it out would send another request than the row has."""
    with pytest.raises(InvalidRow) as caught:
        shape({"prompt": "a", column: cell})
    assert caught.value.kind == "wrong_type"
    assert caught.value.message.startswith(column)


def test_params_may_be_json_text() -> None:
    """A CSV's `params` is the JSON of an object."""
    assert sent({"prompt": "a", "params": '{"max_tokens": 5}'}) == {"max_tokens": 5}
    assert sent({"prompt": "a", "params": ""}) == {}
    with pytest.raises(InvalidRow, match="params must be a JSON object"):
        shape({"prompt": "a", "params": "{"})


def test_beside_a_template_plain_parameters_are_sent_and_noted() -> None:
    """A plain parameter is sent unless the template uses its column; `row_params: ignore` carries all of them."""
    row = {"q": "Why?", "max_tokens": "5", "temperature": 0}
    assert sent(row, prompt="{q}") == {"max_tokens": 5, "temperature": 0}
    assert all("is sent as a parameter" in text for text in said(row, prompt="{q}"))
    assert sent(row, prompt="{q} in {max_tokens} words") == {"temperature": 0}
    assert sent(row, prompt="{q}", row_params="ignore") == {}
    assert shape(row, prompt="{q}", row_params="ignore").used == frozenset()


def test_beside_a_template_columns_that_cannot_be_parameters_are_data() -> None:
    """No row of a table about weather, bus stops or models becomes invalid; each such column is noted once."""
    row = {"q": "Why?", "temperature": 23.5, "stop": "Main St", "n": 3, "model": "gpt-9", "top_p": "high"}
    shaped = shape(row, prompt="{q}")
    assert list(shaped.body) == ["messages"]
    assert (shaped.asked, shaped.used) == (None, frozenset())
    assert {text.split("`")[1] for text in said(row, prompt="{q}")} == {"temperature", "stop", "n", "model", "top_p"}


def test_honour_takes_everything_beside_a_template() -> None:
    """With `row_params: honour`, a templated row's parameters, `params` and model are used as in the other shapes."""
    row = {"q": "Why?", "n": 2, "params": {"my_own": 1}, "model": "m"}
    shaped = shape(row, prompt="{q}", row_params="honour")
    assert {k: v for k, v in shaped.body.items() if k != "messages"} == {"n": 2, "my_own": 1}
    assert shaped.asked == "m"
    assert shaped.used == {"n", "params", "model"}


def test_user_and_metadata_are_data_beside_prompts_and_noted() -> None:
    """`user` and `metadata` are not sent to a provider unless `params` has them."""
    row = {"messages": HI, "user": "ann", "metadata": {"row": 1}}
    assert sent(row) == {}
    assert len(said(row)) == 2
    assert sent({"messages": HI, "params": {"user": "ann"}}) == {"user": "ann"}


def test_parameters_beside_a_batch_lines_body_are_not_sent_and_noted() -> None:
    """The request of a batch line is its body alone."""
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {"messages": HI}, "top_p": 1}
    assert sent(line) == {}
    assert len(said(line)) == 1


def test_embedding_requests_take_their_own_parameters() -> None:
    """Beside `input`, parameters of embeddings are sent; those of chats are not sent but noted."""
    row = {"model": "m", "input": "lake", "dimensions": 256, "encoding_format": "float", "user": "u", "temperature": 0}
    shaped = shape({**row, "metadata": {"row": 1}}, params={"max_tokens": 5, "input_type": "query"})
    assert shaped.body == {
        "input": "lake",
        "input_type": "query",
        "dimensions": 256,
        "encoding_format": "float",
        "user": "u",
    }
    texts = [fact.text for fact in shaped.notes]
    assert sum("`temperature`" in text for text in texts) == 1
    assert sum("`max_tokens`" in text for text in texts) == 1


@pytest.mark.parametrize(
    "row",
    [
        {"instruction": "Name three rivers.", "input": "", "output": "A, B, C"},
        {"input": "Is the sky blue?", "target": "yes"},
        {"input": ["a", "b"], "task": "x"},
    ],
)
def test_an_input_beside_other_text_is_not_taken_for_embeddings(row: dict[str, Any]) -> None:
    """The message names the other columns and a key that helps; with `shape: embeddings` the row is embedded."""
    with pytest.raises(InvalidRow) as caught:
        shape(row)
    assert caught.value.kind == "ambiguous_shape"
    assert "input.shape: embeddings" in caught.value.message
    assert next(name for name in row if name != "input") in caught.value.message
    assert "Name three" not in caught.value.message
    if row["input"]:
        assert shape(row, shape="embeddings").url == "/v1/embeddings"


def test_an_input_beside_ids_numbers_or_embedding_parameters_is_embedded() -> None:
    """A column without text cannot be the other half of a prompt; `dimensions` exists only for embeddings."""
    for more in ({"id": "a"}, {"row": 5, "metadata": {"x": "y"}}, {"title": "x", "dimensions": 8}, {"key": "k"}):
        assert shape({"input": "lake", **more}, id_column="key").url == "/v1/embeddings"


def test_a_template_may_be_embedded() -> None:
    """With `shape: embeddings` the template's text is the input."""
    shaped = shape({"title": "Lake", "text": "Deep."}, prompt="{title}: {text}", shape="embeddings")
    assert (shaped.url, shaped.body) == ("/v1/embeddings", {"input": "Lake: Deep."})


def test_cells_of_a_csv_are_read_as_parameters_under_honour() -> None:
    """Under `row_params: honour`, text becomes the parameter's type; text that cannot stays data and is noted."""
    row = {"q": "x", "n": "2", "seed": "7.0", "stop": '["a", "b"]', "reasoning": '{"effort": "low"}', "tools": "none"}
    expected = {"n": 2, "seed": 7, "stop": ["a", "b"], "reasoning": {"effort": "low"}}
    assert sent(row, prompt="{q}", row_params="honour") == expected
    assert said(row, prompt="{q}", row_params="honour") == [
        "the column `tools` is carried as data and not sent: as a parameter it would be a list"
    ]
    assert sent({"prompt": "x", "max_tokens": "5", **row}) == {"max_tokens": 5, "stop": ["a", "b"]}


@pytest.mark.parametrize(
    ("prompt", "hint"),
    [(5, '"{prompt}" takes it as text'), (True, '"{prompt}" takes it as text'), ({"a": 1}, '"{prompt.name}" takes a')],
)
def test_a_prompt_of_another_type_is_refused_with_a_template_for_it(prompt: object, hint: str) -> None:
    """For a number the message has a template that writes it as text, for an object one that names a part."""
    with pytest.raises(InvalidRow) as caught:
        shape({"prompt": prompt})
    assert caught.value.message.find(hint) > 0
    assert shape({"prompt": 5}, prompt="{prompt}").text == "5"


@pytest.mark.parametrize("prompt", SHAPES)
def test_a_whole_number_that_no_float_holds_does_not_end_the_run(prompt: dict[str, Any]) -> None:
    """Such a number is sent as it is, and the server may refuse it."""
    huge = ExactInt(10**400)
    assert sent({**prompt, "temperature": huge})["temperature"] == huge
