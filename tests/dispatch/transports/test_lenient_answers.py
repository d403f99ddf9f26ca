"""Good answers are read even with NaN, half an emoji or as event streams; answers without choices are errors."""

from typing import Any

import orjson
import pytest

from batch.dispatch.transports.responses import completion
from batch.errors import BadAnswer, BadVector, DispatchError, NoChoices, RateLimited, ServerError
from schemas.openai_batch import CHAT_URL, COMPLETIONS_URL, EMBEDDINGS_URL, RESPONSES_URL

USAGE = b'"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15}'


def read(raw: bytes, url: str = CHAT_URL) -> dict[str, Any]:
    """The answer as it is stored, parsed; checks that it is one line."""
    answer = completion(raw, url)
    assert b"\n" not in answer.raw
    parsed: dict[str, Any] = orjson.loads(answer.raw)
    return parsed


def content(raw: bytes) -> object:
    """The content of the first choice."""
    return read(raw)["choices"][0]["message"]["content"]


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"1e999"])
def test_numbers_that_json_has_not_become_null(number: bytes) -> None:
    """NaN and infinities, which Python's `json.dumps` writes, become null; the rest of the answer is kept."""
    raw = b'{"choices":[{"message":{"content":"ok"},"logprobs":{"x":[' + number + b"]}}]," + USAGE + b"}"
    answer = completion(raw, CHAT_URL)
    assert (answer.prompt_tokens, answer.completion_tokens) == (10, 5)
    choice = orjson.loads(answer.raw)["choices"][0]
    assert (choice["message"]["content"], choice["logprobs"]["x"]) == ("ok", [None])


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        (b"half \\ud83d an emoji", "half \ufffd an emoji"),
        (b"whole \\ud83d\\ude00, half \\ude00", "whole \U0001f600, half \ufffd"),
        (b"raw \xed\xa0\xbd half", "raw \ufffd\ufffd\ufffd half"),
        (b"cut \xf0\x9f", "cut \ufffd"),
        (b"a line\nbreak and NaN", "a line\nbreak and NaN"),
    ],
)
def test_broken_characters_cost_no_answer(said: bytes, kept: str) -> None:
    """A model that stops within an emoji leaves half a surrogate pair; it becomes U+FFFD, as in browsers."""
    assert content(b'{"choices":[{"message":{"content":"' + said + b'"}}]}') == kept


def test_marks_and_comments_around_an_answer_are_passed_over() -> None:
    """A byte order mark, blanks and comments (OpenRouter sends them while it waits) before an answer are skipped."""
    good = b'{"choices":[{"message":{"content":"ok"}}]}'
    assert content(b"\xef\xbb\xbf" + good) == "ok"
    assert content(b"  \n\n" + good) == "ok"
    assert content(b": OPENROUTER PROCESSING\n\n: OPENROUTER PROCESSING\n\n" + good) == "ok"
    assert content(b": a comment\n" + orjson.dumps(orjson.loads(good), option=orjson.OPT_INDENT_2)) == "ok"


def test_an_answer_in_a_wrapping_is_taken_out() -> None:
    """An answer in a list of one, or encoded twice, is unwrapped, as some gateways send it."""
    good = b'{"choices":[{"message":{"content":"ok"}}]}'
    assert content(b"[" + good + b"]") == "ok"
    assert content(orjson.dumps(good.decode())) == "ok"
    with pytest.raises(RateLimited):
        completion(b'[{"error":{"code":429,"status":"RESOURCE_EXHAUSTED"}}]', CHAT_URL)
    for raw in (b"[]", b"[" + good + b"," + good + b"]", b'"ok"', b'"{"', b"[[" + good + b"]]"):
        with pytest.raises(BadAnswer):
            completion(raw, CHAT_URL)


def test_a_vector_with_nan_is_its_rows_fault() -> None:
    """A vector with NaN is useless and would come again for the same text, so it is the row's fault. NaN outside the
    vector does no harm.
    """
    with pytest.raises(BadVector) as caught:
        completion(b'{"data":[{"embedding":[0.5,NaN]}],"usage":{"prompt_tokens":4}}', EMBEDDINGS_URL)
    assert (caught.value.blame, caught.value.retryable, caught.value.usage) == ("row", False, (4, 0))
    assert completion(b'{"data":[{"embedding":[0.5],"score":NaN}]}', EMBEDDINGS_URL).raw


@pytest.mark.parametrize("raw", [b"[" * 100_000, b'{"a":' * 100_000 + b"NaN", b"NaN", b'{"choices":[NaN]}', b"\x00"])
def test_what_is_nothing_stays_a_bad_answer(raw: bytes) -> None:
    """A body that is too deep or too odd to be an answer raises `BadAnswer` and nothing else."""
    with pytest.raises(BadAnswer):
        completion(raw, CHAT_URL)


def test_an_answer_that_was_cut_is_settled_at_its_usage() -> None:
    """A broken-off answer is billed by its last usage; without one the usage is unknown, but it counts as billed."""
    with pytest.raises(BadAnswer) as caught:
        completion(b'{"id":"c",' + USAGE + b',"choices":[{"message":{"content":"secret', CHAT_URL)
    assert (caught.value.usage, caught.value.billed, caught.value.words) == ((10, 5), True, "")
    with pytest.raises(BadAnswer) as caught:
        completion(b'{"id":"c","choices":[{"mess', CHAT_URL)
    assert (caught.value.usage, caught.value.billed) == (None, True)
    with pytest.raises(BadAnswer, match="the answer is not JSON: Log in to continue"):
        completion(b"<html><title>Log in to continue</title>", CHAT_URL)
    with pytest.raises(BadAnswer, match="the answer is empty"):
        completion(b" \n", CHAT_URL)


def stream(*events: object, end: bytes = b"data: [DONE]\n\n", before: bytes = b"data: ") -> bytes:
    return b"".join(before + orjson.dumps(event) + b"\n\n" for event in events) + end


def chunk(delta: dict[str, Any], index: int = 0, **more: Any) -> dict[str, Any]:
    choice = {"index": index, "delta": delta, "finish_reason": None, **more}
    return {"id": "c", "object": "chat.completion.chunk", "model": "m", "choices": [choice], "usage": None}


def test_a_stream_becomes_the_answer_that_was_asked_for() -> None:
    """A stream is assembled into one answer, with its texts, tool calls, log-probabilities and choices, and its last
    usage.
    """
    call = {"index": 0, "id": "t", "type": "function", "function": {"name": "f", "arguments": '{"a"'}}
    raw = stream(
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": "The "}, logprobs={"content": [{"token": "The "}]}),
        chunk({"content": "second"}, 1),
        chunk({"content": "answer"}, logprobs={"content": [{"token": "answer"}]}),
        chunk({"tool_calls": [call]}),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": ":1}"}}]}),
        chunk({}, finish_reason="stop"),
        chunk({}, 1, finish_reason="length"),
        {"id": "c", "choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 5}},
    )
    answer = completion(raw, CHAT_URL)
    assert (answer.prompt_tokens, answer.completion_tokens) == (10, 5)
    whole = orjson.loads(answer.raw)
    assert (whole["object"], whole["model"]) == ("chat.completion", "m")
    first, second = whole["choices"]
    assert (first["message"]["content"], second["message"]["content"]) == ("The answer", "second")
    assert (first["finish_reason"], second["finish_reason"]) == ("stop", "length")
    assert first["message"]["tool_calls"][0]["function"] == {"name": "f", "arguments": '{"a":1}'}
    assert [token["token"] for token in first["logprobs"]["content"]] == ["The ", "answer"]


@pytest.mark.parametrize(
    "raw",
    [
        (
            b'data: {"choices":[{"delta":{"content":"o"}}]}\r\n\r\n'
            b'data: {"choices":[{"delta":{"content":"k"}}]}\r\n\r\ndata: [DONE]\r\n\r\n'
        ),
        (
            b'event: x\nid: 1\ndata:{"choices":[{"delta":{"content":"o"}}]}\n\n: ping\n\n'
            b'data:{"choices":[{"delta":{"content":"k"},"finish_reason":"stop"}]}'
        ),
        b'data: {"choices":[{"delta":{"content":"o"}}]}\ndata: {"choices":[{"delta":{"content":"k"}}]}\ndata: [DONE]\n',
        b'data: {"choices":[{"delta":{"content":"ok"},"logprobs":{"x":NaN}}]}\n\ndata: [DONE]\n\n',
        b'data: {"choices":[{"message":{"content":"ok"},"finish_reason":"stop"}]}\n\n',
    ],
    ids=["carriage returns", "no blank after the colon", "no blank lines", "NaN", "one whole answer"],
)
def test_streams_are_written_in_many_ways(raw: bytes) -> None:
    """Streams may differ in line ends, blanks and framing; all of these give the content `ok`."""
    assert content(raw) == "ok"


def test_plain_completions_and_responses_stream_too() -> None:
    """Streams of the completions API and of the Responses API are assembled too."""
    texts = stream({"choices": [{"index": 0, "text": "o"}]}, {"choices": [{"index": 0, "text": "k"}]})
    assert read(texts, COMPLETIONS_URL)["choices"] == [{"index": 0, "text": "ok"}]
    response = {"id": "r", "status": "completed", "output": [{"type": "message", "content": []}]}
    ended = stream({"type": "response.created"}, {"type": "response.completed", "response": response}, end=b"")
    assert read(ended, RESPONSES_URL) == response


def test_a_stream_that_broke_off_is_no_answer() -> None:
    """Half an answer would look like a whole one, so it is a `BadAnswer`; an error in the stream is raised by its
    code.
    """
    with pytest.raises(BadAnswer, match="the stream ended before the answer did") as caught:
        completion(stream(chunk({"content": "The"}), end=b""), CHAT_URL)
    assert caught.value.billed
    with pytest.raises(RateLimited):
        completion(stream(chunk({"content": "The"}), {"error": {"code": 429, "message": "x"}}, end=b""), CHAT_URL)
    with pytest.raises(ServerError):
        completion(stream(chunk({"content": "The"}, finish_reason="error")), CHAT_URL)
    with pytest.raises(BadAnswer):
        completion(b"data: [DONE]\n\n", CHAT_URL)


@pytest.mark.parametrize(
    ("event", "url", "kind"),
    [
        ({"object": "error", "message": "CUDA", "type": "InternalServerError", "code": 500}, CHAT_URL, ServerError),
        ({"type": "error", "error": {"type": "overloaded_error", "message": "x"}}, CHAT_URL, RateLimited),
        ({"type": "error", "code": "server_error", "message": "boom"}, RESPONSES_URL, ServerError),
    ],
)
def test_an_error_event_ends_a_stream_however_it_is_written(
    event: dict[str, Any], url: str, kind: type[DispatchError]
) -> None:
    """vLLM and the Responses API put the error at the top of an event; the pieces before it are not used."""
    with pytest.raises(kind) as caught:
        completion(stream(chunk({"content": "The"}), event), url)
    assert event.get("message", "x") in str(caught.value)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({}, "no choices (blocked?)"),
        ({"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}, "no choices (blocked: PROHIBITED_CONTENT)"),
        (
            {"prompt_filter_results": [{"content_filter_results": {"hate": {"filtered": True, "severity": "high"}}}]},
            "no choices (blocked: hate)",
        ),
        ({"finish_reason": "SAFETY"}, "no choices (blocked: SAFETY)"),
        ({"finish_reason": "because of: what you asked"}, "no choices (blocked?)"),
    ],
)
@pytest.mark.parametrize("choices", [[], None])
def test_no_choices_are_a_blocked_row(more: dict[str, Any], said: str, choices: object) -> None:
    """An answer without choices is the row's fault: the row has two attempts, and the usage is billed."""
    raw = orjson.dumps({"choices": choices, "usage": {"prompt_tokens": 10, "completion_tokens": 0}, **more})
    with pytest.raises(NoChoices) as caught:
        completion(raw, CHAT_URL)
    error = caught.value
    assert str(error) == said
    assert (error.blame, error.most_attempts, error.usage, error.billed) == ("row", 2, (10, 0), True)


def test_what_orjson_reads_is_stored_as_it_came() -> None:
    """A good answer is stored byte for byte."""
    raw = b'{ "choices": [ {"message": {"content": "\\u00e9"}} ], "x": 1.0 }'
    assert completion(raw, CHAT_URL).raw == raw


@pytest.mark.parametrize("beside", [b"NaN", b"-Infinity"])
def test_a_whole_number_that_no_float_holds_becomes_null(beside: bytes) -> None:
    """A number that fits into no float becomes null and does not end the run."""
    raw = b'{"choices":[{"message":{"content":"ok"},"logprobs":[' + beside + b"," + b"9" * 400 + b"]}]}"
    assert read(raw)["choices"][0]["logprobs"] == [None, None]


def streamed(*choices: dict[str, Any]) -> bytes:
    """A stream with these pieces of a single choice."""
    events = [b"data: " + orjson.dumps({"choices": [{"index": 0, **choice}]}) for choice in choices]
    return b"\n\n".join((*events, b"data: [DONE]", b""))


def test_a_stream_may_begin_with_null_where_later_pieces_have_something() -> None:
    """OpenAI's first chunk has `logprobs: null`, others have `text: null` or `message: null`; later values count."""
    chat = streamed(
        {"delta": {"role": "assistant"}, "logprobs": None, "message": None},
        {"delta": {"content": "a"}, "logprobs": {"content": [{"token": "a"}]}},
        {"delta": {"content": "b"}, "logprobs": {"content": [{"token": "b"}]}, "finish_reason": "stop"},
    )
    (choice,) = read(chat)["choices"]
    assert choice["message"]["content"] == "ab"
    assert [token["token"] for token in choice["logprobs"]["content"]] == ["a", "b"]
    text = streamed({"text": None}, {"text": "a"}, {"text": "b", "finish_reason": "stop"})
    assert read(text, COMPLETIONS_URL)["choices"][0]["text"] == "ab"
