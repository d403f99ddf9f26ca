"""The server's words in an error are shown short, printable, and without the prompt."""

import pickle

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.dispatch.transports.refusals import refusal
from batch.dispatch.transports.words import LEFT_OUT, MOST_CHARACTERS, hiding, server_words
from batch.errors import BadRequest, DispatchError, ServerError

PROMPT = "My sister Ada Lovelace has had a rash on her left arm since the 3rd of May.\nWhat is it?"
CHAT = orjson.dumps({"messages": [{"role": "user", "content": PROMPT}], "max_tokens": 50})


def said(body: object, asked: bytes = CHAT) -> str:
    """The words found in an error body with this JSON."""
    return server_words(orjson.dumps(body), body, asked)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"error": {"message": "model 'm' not found, try pulling it first", "code": None}}, "model 'm' not found, try"),
        ({"error": "Model m is currently loading", "estimated_time": 60.0}, "Model m is currently loading"),
        ({"object": "error", "message": "This model's maximum context length is 4096 tokens"}, "This model's maximum"),
        ([{"error": {"code": 429, "message": "Resource has been exhausted", "status": "X"}}], "Resource has been exh"),
        ({"detail": "Not Found"}, "Not Found"),
        ({"detail": [{"loc": ["body", "top_k"], "msg": "Input should be an integer"}]}, "body.top_k: Input should be"),
        ({"errors": [{"code": 7000, "message": "No route for that URI"}]}, "No route for that URI"),
        ({"error": {"message": "Provider returned error", "metadata": {"raw": "m is busy"}}}, "returned error: m is b"),
        ({"error": {"message": "Provider returned error", "metadata": {"raw": '{"error":{"message":"no"}}'}}}, ": no"),
        ({"msg": "quota", "ret": 3}, "quota"),
        ({"error": {}}, ""),
        ({"choices": []}, ""),
        ("overloaded", "overloaded"),
    ],
)
def test_the_servers_words_are_found_wherever_it_puts_them(body: object, words: str) -> None:
    """The words are found in the bodies of OpenAI, Hugging Face, vLLM, Google, FastAPI, Cloudflare and OpenRouter."""
    assert words in said(body)
    assert bool(words) == bool(said(body))


def test_of_a_page_its_title_is_shown_and_of_a_text_the_text() -> None:
    """Of an HTML page the title is shown, or its text without tags and scripts; plain text is shown as it is."""
    page = b"<!DOCTYPE html><html><head><title>Attention Required! | Cloudflare</title></head><body>x</body></html>"
    assert server_words(page, None, CHAT) == "Attention Required! | Cloudflare"
    untitled = b"<html><script>if (a < b) alert(1)</script><h1>502 Bad&nbsp;Gateway</h1>\n<hr>nginx</html>"
    assert server_words(untitled, None, CHAT) == "502 Bad Gateway nginx"
    assert server_words(b"upstream connect error\r\nreset", None, CHAT) == "upstream connect error reset"
    assert server_words(b"", None, CHAT) == ""


@pytest.mark.parametrize(
    "echo",
    [
        PROMPT,
        repr(PROMPT),
        orjson.dumps(PROMPT).decode(),
        PROMPT[3:50],
        PROMPT.upper(),
        "".join(f"\\u{ord(c):04x}" if c in "SA" else c for c in PROMPT),
    ],
    ids=["whole", "repr", "json", "cut", "upper case", "escaped"],
)
def test_an_echo_of_the_prompt_is_left_out(echo: str) -> None:
    """However the server quotes the prompt, only its own words remain."""
    words = said({"error": {"message": f"Invalid value {echo} for content: too sad"}})
    assert words.startswith("Invalid value")
    assert words.endswith("for content: too sad")
    assert LEFT_OUT in words
    for word in ("sister", "ada", "rash", "arm"):
        assert word not in words.lower()


@pytest.mark.parametrize("prompt", ["hunter22", "My name", "我的姐姐左臂上起了皮疹这是什么病", "ü" * 40])
def test_short_prompts_and_those_without_blanks_are_left_out_too(prompt: str) -> None:
    """A message of one or two words is left out, and so is a prompt in a script without spaces between words."""
    asked = orjson.dumps({"messages": [{"role": "user", "content": prompt}]})
    words = said({"error": {"message": f"Refused: {prompt!r} is not allowed"}}, asked)
    assert words == f"Refused: '{LEFT_OUT}' is not allowed"


def test_what_the_server_says_itself_is_kept_although_prompts_have_the_same_words() -> None:
    """The server's own words stay even if the prompt has three of them in a row; so do the names of parameters."""
    asked = orjson.dumps(
        {"messages": [{"role": "user", "content": "It is not supported by tea. Please try again later, thanks."}]}
    )
    words = "Unsupported parameter: 'max_tokens' is not supported with this model. Please try again."
    assert said({"error": {"message": words}}, asked) == words


def test_keys_are_masked_in_words_however_they_are_written() -> None:
    """The endpoint's own key is masked even if it is short or escaped, and so is any text that looks like a key."""
    parsed = {"error": {"message": "bad key swordfish, upstream: Bearer abcdefgh12 or sk-proj-12345678901"}}
    words = server_words(b"", parsed, CHAT, hiding("swordfish"))
    assert words == "bad key [key], upstream: [key] or [key]"
    escaped = orjson.loads(b'{"error":"bad key \\u0073wordfish, a task-based name"}')
    assert server_words(b"", escaped, CHAT, hiding("swordfish")) == "bad key [key], a task-based name"


def test_words_are_short_printable_and_on_one_line() -> None:
    """Escape sequences (for the terminal), line breaks (for the log) and half an emoji (for any file) are removed."""
    words = said({"error": {"message": "\x1b[31mred\x07\u202e " + "long " * 200}})
    assert words.startswith("[31mred long")
    assert len(words) <= MOST_CHARACTERS
    assert words.endswith(" ...")
    assert (
        server_words(b"", {"error": {"message": "half \ud83d an emoji\r\nand more"}}, b"") == "half an emoji and more"
    )


@given(st.binary(max_size=80), st.binary(max_size=80))
def test_any_bytes_are_shown_on_one_line(raw: bytes, asked: bytes) -> None:
    """Whatever bytes the response and the request hold, the words are one printable line."""
    words = str(refusal(500, raw, lambda name: None, "generic", lambda: 0.0, asked=asked))
    assert words.isprintable()
    words.encode()


def test_an_error_shows_code_parameter_path_and_words() -> None:
    """An error shows code, parameter and words on one line, and for an unknown address the path that was requested."""
    body = orjson.dumps({"error": {"message": "Use 'max_completion_tokens'.", "param": "max_tokens", "code": "unsup"}})
    error = refusal(400, body, lambda name: None, "openai", lambda: 0.0, asked=CHAT, path="/v1/chat/completions")
    assert isinstance(error, BadRequest)
    assert str(error) == "HTTP 400: unsup (max_tokens): Use 'max_completion_tokens'."
    assert (error.param, error.words) == ("max_tokens", "Use 'max_completion_tokens'.")
    assert error.signature == ("bad_request", 400, "unsup")
    lost = refusal(404, b"", lambda name: None, "openai", lambda: 0.0, path="/v1/v1/chat/completions")
    assert str(lost) == "HTTP 404 for /v1/v1/chat/completions"


def test_an_error_with_words_to_be_found_later_can_be_pickled() -> None:
    """An error can be pickled before its words were read, since errors travel between processes."""
    error = refusal(500, b'{"error":"CUDA out of memory"}', lambda name: None, "openai", lambda: 0.0, asked=CHAT)
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.words) == (ServerError, "HTTP 500: CUDA out of memory", "CUDA out of memory")


@pytest.mark.parametrize(
    ("status", "billed"),
    [(400, False), (429, False), (500, False), (503, False), (502, True), (504, True), (524, True)],
)
def test_an_attempt_is_billed_where_a_server_may_have_finished(status: int, billed: bool) -> None:
    """A gateway may bill after a timeout, since its server may have finished; a server that refuses bills nothing."""
    error: DispatchError = refusal(status, b"", lambda name: None, "openai", lambda: 0.0)
    assert error.billed is billed
