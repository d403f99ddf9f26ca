from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.reading.invalid import InvalidRow
from batch.reading.requests.shaped import Shaped
from batch.reading.shapes import Shaper
from schemas.job import InputSpec

HI = [{"role": "user", "content": "hi"}]
CHAT = "/v1/chat/completions"


def shape(record: dict[str, Any], **settings: Any) -> Shaped:
    return Shaper(InputSpec(path="in.jsonl", **settings)).shape(record)


def batch_line(body: Any, **changes: Any) -> dict[str, Any]:
    return {"custom_id": "a", "method": "POST", "url": CHAT, "body": body, **changes}


def test_a_prompt_becomes_one_user_message_after_the_system_message() -> None:
    """The `prompt` shape is a chat of the job's system message and the prompt; the job's params follow."""
    shaped = shape({"prompt": "Why?"}, system="Be brief.", params={"max_tokens": 5, "temperature": 0})
    assert shaped.url == CHAT
    assert shaped.body == {
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}],
        "max_tokens": 5,
        "temperature": 0,
    }
    assert (shaped.text, shaped.counted) == ("Why?", "Be brief.\nWhy?")
    assert (shaped.max_tokens, shaped.deterministic, shaped.asked) == (5, True, None)


def test_a_template_is_a_prompt_over_all_columns_and_uses_none_up() -> None:
    """With a template every other shape is off, and all columns are carried."""
    shaped = shape({"messages": "x", "q": "Why?", "model": "human"}, prompt="Q: {q}")
    assert shaped.body == {"messages": [{"role": "user", "content": "Q: Why?"}]}
    assert (shaped.used, shaped.asked) == (frozenset(), None)


def test_a_rows_own_parameters_replace_the_jobs() -> None:
    """`params` of a row, and request keys beside `messages`, replace the job's."""
    job = {"temperature": 0, "top_p": 0.5, "seed": 1}
    assert shape({"prompt": "a", "params": {"temperature": 1}}, params=job).body["temperature"] == 1
    row = {"messages": HI, "params": {"temperature": 1, "seed": 2}, "seed": 3, "topic": "x", "stop": None}
    shaped = shape(row, params=job)
    assert shaped.body == {"messages": HI, "temperature": 1, "top_p": 0.5, "seed": 3}
    assert "topic" not in shaped.used
    assert not shaped.deterministic


def test_params_of_a_row_cannot_replace_its_prompt() -> None:
    """A row's `params` set parameters and nothing else."""
    assert shape({"prompt": "a", "params": {"messages": [], "input": "x"}}).body == {
        "messages": [{"role": "user", "content": "a"}]
    }


@pytest.mark.parametrize("own", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("job", ["max_tokens", "max_completion_tokens"])
def test_a_rows_answer_limit_replaces_the_jobs_in_either_spelling(own: str, job: str) -> None:
    """A request never has both spellings of the answer limit, which servers refuse."""
    for record in ({"prompt": "a", "params": {own: 7}}, {"messages": HI, own: 7}, batch_line({"messages": HI, own: 7})):
        shaped = shape(record, params={job: 256, "n": 3})
        assert {k: v for k, v in shaped.body.items() if k.startswith("max")} == {own: 7}
        assert shaped.max_tokens == 21


def test_a_batch_lines_own_keys_replace_the_jobs() -> None:
    """A batch line keeps its own keys in order; the job's system message is added only if the line has none."""
    own = {"response_format": {"z": 1, "a": 2}, "messages": HI, "model": "gpt-4", "temperature": 1}
    shaped = shape(batch_line(own), system="S", params={"temperature": 0, "seed": 4})
    assert list(shaped.body) == ["response_format", "messages", "temperature", "seed"]
    assert orjson.dumps(shaped.body["response_format"]) == b'{"z":1,"a":2}'
    assert shaped.body["messages"] == [{"role": "system", "content": "S"}, *HI]
    assert shaped.asked == "gpt-4"
    assert own["messages"] == HI
    for role in ("system", "developer"):
        talk = [{"role": role, "content": "T"}, *HI]
        assert shape(batch_line({"messages": talk}), system="S").body["messages"] == talk


def test_routers_see_user_messages_and_the_token_counter_all_of_them() -> None:
    """Routers get the users' text; the token counter gets the text of all messages."""
    talk = [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
        {"role": "tool", "content": "42", "tool_call_id": "1"},
        {"role": "user", "content": [{"type": "text", "text": "two"}, {"type": "image_url", "image_url": {}}]},
    ]
    shaped = shape({"messages": talk})
    assert shaped.text == "one\ntwo"
    assert shaped.counted == "S\none\n\n42\ntwo"


def test_a_picture_alone_is_a_prompt() -> None:
    """A user message with a picture and no text can be answered, so it is sent."""
    content = [{"type": "image_url", "image_url": {"url": "data:,"}}]
    assert shape({"messages": [{"role": "user", "content": content}]}).text == ""


def test_a_chat_without_a_user_is_routed_by_all_messages() -> None:
    """If no message is a user's, the text of all messages goes to the router."""
    assert shape({"messages": [{"role": "system", "content": "Tell a joke."}]}).text == "Tell a joke."


def test_embeddings_take_only_parameters_of_embeddings() -> None:
    """Of the job's params, embeddings take dimensions, encoding_format and user."""
    job = {"max_tokens": 9, "temperature": 0, "dimensions": 8, "user": "u"}
    shaped = shape({"input": ["a", "b"], "params": {"encoding_format": "float"}}, params=job, system="S")
    assert shaped.url == "/v1/embeddings"
    assert shaped.body == {"input": ["a", "b"], "dimensions": 8, "user": "u", "encoding_format": "float"}
    assert (shaped.text, shaped.max_tokens, shaped.deterministic) == ("a\nb", None, False)
    line = batch_line({"model": "e", "input": "a", "dimensions": 4}, url="/v1/embeddings")
    assert shape(line, params=job).body == {"input": "a", "dimensions": 4, "user": "u"}


def test_completions_keep_their_prompt() -> None:
    """A completions line stays one; each of several prompts may be answered up to the limit."""
    shaped = shape(batch_line({"prompt": ["a", "b"], "max_tokens": 5, "n": 2}, url="/v1/completions"), system="S")
    assert shaped.body == {"prompt": ["a", "b"], "max_tokens": 5, "n": 2}
    assert (shaped.url, shaped.max_tokens) == ("/v1/completions", 20)


def test_a_rows_model_is_taken_out_of_the_body_or_is_a_column_like_any_other() -> None:
    """`model` goes into `asked`, unless the job ignores the rows' models."""
    records: list[dict[str, Any]] = [
        {"prompt": "a", "model": "m"},
        {"prompt": "a", "params": {"model": "m"}},
        {"messages": HI, "model": "m"},
        {"input": "a", "model": "m"},
        batch_line({"messages": HI, "model": "m"}),
    ]
    for record in records:
        shaped = shape(record)
        assert shaped.asked == "m"
        assert "model" not in shaped.body
        ignoring = shape({**record, "model": "m"}, row_models="ignore")
        assert ignoring.asked is None
        assert "model" not in ignoring.body
        assert "model" not in ignoring.used


@pytest.mark.parametrize(
    ("record", "kind"),
    [
        ({}, "missing_column"),
        ({"question": "x"}, "missing_column"),
        ({"prompt": None}, "missing_column"),
        ({"prompt": " \n"}, "empty_prompt"),
        ({"prompt": 5}, "wrong_type"),
        ({"prompt": "a", "params": [1]}, "wrong_type"),
        ({"prompt": "a", "params": {"stream": True}}, "streaming"),
        ({"prompt": "a", "params": {"max_tokens": "5"}}, "wrong_type"),
        ({"prompt": "a", "params": {"max_tokens": 10**12}}, "wrong_type"),
        ({"prompt": "a", "params": {"max_tokens": True}}, "wrong_type"),
        ({"prompt": "a", "params": {"temperature": "0"}}, "wrong_type"),
        ({"prompt": "a", "model": 5}, "wrong_type"),
        ({"messages": []}, "empty_prompt"),
        ({"messages": "hi"}, "wrong_type"),
        ({"messages": ["hi"]}, "wrong_type"),
        ({"messages": [{"content": "hi"}]}, "wrong_type"),
        ({"messages": [{"role": "user"}]}, "wrong_type"),
        ({"messages": [{"role": "user", "content": 5}]}, "wrong_type"),
        ({"messages": [{"role": "user", "content": ["hi"]}]}, "wrong_type"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": 5}]}]}, "wrong_type"),
        ({"messages": [{"role": "user", "content": []}]}, "empty_prompt"),
        ({"messages": [{"role": "system", "content": "S"}, {"role": "user", "content": " "}]}, "empty_prompt"),
        ({"messages": HI, "stream": True}, "streaming"),
        ({"input": []}, "empty_prompt"),
        ({"input": ["a", ""]}, "empty_prompt"),
        ({"input": [1, "a"]}, "wrong_type"),
        (batch_line({"messages": HI}, method="GET"), "bad_method"),
        (batch_line({"messages": HI}, url="/v1/nonsense"), "bad_url"),
        (batch_line({"messages": HI}, url=["/v1"]), "bad_url"),
        (batch_line({"messages": HI, "stream": True}), "streaming"),
        (batch_line({"model": "m"}), "missing_column"),
        (batch_line({"messages": None}), "wrong_type"),
        (batch_line("text"), "wrong_type"),
        ({"custom_id": "a", "method": "POST", "url": CHAT}, "missing_column"),
        (batch_line({"messages": HI}, url="/v1/embeddings"), "missing_column"),
    ],
)
def test_a_record_that_is_no_request_says_which_kind_of_fault_it_has(record: dict[str, Any], kind: str) -> None:
    """Each fault has its kind, and one line that quotes none of the row's values."""
    with pytest.raises(InvalidRow) as caught:
        shape(record)
    assert caught.value.kind == kind
    assert "\n" not in caught.value.message


def test_a_url_column_beside_a_prompt_is_data() -> None:
    """Scraped rows with `url`, `method` or a text `body` are not taken for batch lines."""
    assert shape({"prompt": "a", "url": "http://x", "method": "GET", "body": "text"}).text == "a"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
keys = st.sampled_from(
    [
        *("prompt", "messages", "input", "body", "method", "url", "custom_id", "params"),
        *("model", "stream", "n", "max_tokens", "temperature", "role", "content"),
    ]
)


@given(st.dictionaries(keys, json_values | st.dictionaries(keys, json_values, max_size=4)))
def test_every_record_becomes_a_request_or_an_invalid_row(record: dict[str, Any]) -> None:
    """Whatever a record holds, it is a request with a body, or an invalid row."""
    try:
        shaped = shape(record)
    except InvalidRow:
        return
    assert shaped.body
    assert "model" not in shaped.body


def test_records_are_left_as_they_were() -> None:
    """Building a request changes neither the record nor the job's params."""
    params = {"temperature": 0}
    record = batch_line({"messages": list(HI), "model": "m"})
    before = orjson.dumps(record)
    shape(record, params=params, system="S")
    assert orjson.dumps(record) == before
    assert params == {"temperature": 0}
