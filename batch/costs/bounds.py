"""The most tokens that a request can be charged for. A request with any part that is not known here has no bound.

A token is at least one byte, so the body's length bounds the prompt's tokens, and `max_tokens` those of the answer.
That holds if every part of the request is text and no parameter makes the provider do, or charge for, anything else:
no images or sounds (of which the request may contain only an address), no searches, no files or earlier conversations
that the provider adds, no tier with a surcharge.
"""

from collections.abc import Iterator
from typing import Any

import orjson

from schemas.openai_batch import EMBEDDINGS_URL

# Parameters that add nothing to the prompt that is not in the body, and make no answer longer or dearer than
# `max_tokens` at the model's price. The value of `max_tokens` is an argument.
_BOUNDED = frozenset(
    """
    model messages prompt input instructions suffix echo user metadata seed store stream stream_options
    max_tokens max_completion_tokens max_output_tokens min_tokens n best_of
    temperature top_p top_k min_p top_a typical_p tfs epsilon_cutoff eta_cutoff do_sample random_seed
    frequency_penalty presence_penalty repetition_penalty length_penalty no_repeat_ngram_size logit_bias
    logprobs top_logprobs prompt_logprobs return_tokens_as_token_ids
    stop stop_token_ids include_stop_str_in_output bad_words ignore_eos skip_special_tokens
    spaces_between_special_tokens add_special_tokens add_generation_prompt continue_final_message
    chat_template_kwargs truncate_prompt_tokens truncate truncation priority
    response_format text guided_json guided_regex guided_choice guided_grammar guided_decoding_backend
    guided_whitespace_pattern structured_outputs json_schema grammar regex
    tools tool_choice parallel_tool_calls max_tool_calls functions function_call
    reasoning reasoning_effort reasoning_format include_reasoning thinking enable_thinking verbosity
    service_tier modalities prompt_cache_key prompt_cache_retention safety_identifier safe_prompt prompt_mode
    safety_settings transforms include cache_control
    dimensions encoding_format input_type task normalized normalize prompt_name late_chunking
    output_dtype output_dimension embedding_type instruction
    """.split()  # noqa: SIM905  one name on each line would fill two pages
)
_ANSWER_LIMITS = ("max_tokens", "max_completion_tokens")
_TEXT_PARTS = frozenset({"text", "input_text", "output_text", "refusal"})
_MESSAGE = frozenset(
    {
        "role",
        "content",
        "name",
        "tool_calls",
        "tool_call_id",
        "function_call",
        "refusal",
        "reasoning",
        "reasoning_content",
        "prefix",
        "cache_control",
        # Items of the Responses API.
        "type",
        "id",
        "call_id",
        "arguments",
        "output",
        "status",
    }
)
_ITEMS = frozenset({"message", "function_call", "function_call_output"})
# Tiers at the list price or below; others charge a premium.
_TIERS = (None, "auto", "default", "flex", "standard_only", "on_demand")


def most_tokens(url: str, body: bytes, max_tokens: int | None) -> tuple[int, int] | None:
    """The most prompt tokens and the most answer tokens of one request; `None` if it has no bound.

    Args:
        url: path of the API.
        body: the request, as compact JSON.
        max_tokens: the most tokens of all its answers together; `None`: the request sets no limit.
    """
    return None if unbounded_by(url, body, max_tokens) is not None else (len(body), _most_answer(url, max_tokens) or 0)


def unbounded_by(url: str, body: bytes, max_tokens: int | None) -> str | None:
    """Why the request has no bound: the first unknown parameter or kind of content; `None` if it has a bound."""
    if _most_answer(url, max_tokens) is None:
        return "no max_tokens"
    try:
        request = orjson.loads(body)
    except orjson.JSONDecodeError:
        return "no JSON"
    return next(_unbounded(request), None) if isinstance(request, dict) else "no JSON object"


def _most_answer(url: str, max_tokens: int | None) -> int | None:
    return 0 if url == EMBEDDINGS_URL else max_tokens


def _unbounded(request: dict[str, Any]) -> Iterator[str]:
    for key, value in request.items():
        if key not in _BOUNDED and value is not None:
            yield key
    limits = {request[key] for key in _ANSWER_LIMITS if isinstance(request.get(key), int)}
    if len(limits) > 1:
        # Some servers obey the one, some the other.
        yield "max_tokens and max_completion_tokens that differ"
    if request.get("service_tier") not in _TIERS:
        yield f"service_tier {request['service_tier']}"
    if request.get("modalities") not in (None, ["text"]):
        yield "modalities"
    # The provider makes, and charges for, more completions than the `n` that it returns.
    if request.get("best_of") not in (None, 1, request.get("n") or 1):
        yield "best_of"
    yield from _unbounded_messages(request.get("messages"))
    yield from _unbounded_input(request.get("input"))
    yield from _unbounded_input(request.get("prompt"))
    for tool in _listed(request.get("tools")):
        # Functions are run by the user; any other tool is run by the provider, for a fee.
        if not isinstance(tool, dict) or tool.get("type") != "function":
            yield "tools that are no functions"


def _unbounded_messages(messages: Any) -> Iterator[str]:
    for message in _listed(messages):
        if not isinstance(message, dict):
            yield "messages"
            continue
        for key, value in message.items():
            if key not in _MESSAGE and value is not None:
                yield f"{key} in a message"
        kind = message.get("type") or "message"
        if not isinstance(kind, str) or kind not in _ITEMS:
            yield f"{kind} in the input" if isinstance(kind, str) else "an item of no known type in the input"
        yield from _unbounded_content(message.get("content"))
        yield from _unbounded_content(message.get("output"))


def _unbounded_content(content: Any) -> Iterator[str]:
    if content is None or isinstance(content, str):
        return
    for part in content if isinstance(content, list) else [content]:
        if isinstance(part, str):
            continue
        kind = (
            part.get("type", "text" if isinstance(part.get("text"), str) else None) if isinstance(part, dict) else None
        )
        if not isinstance(kind, str) or kind not in _TEXT_PARTS:
            yield f"{kind} in a message" if isinstance(kind, str) else "content that is no text"


def _unbounded_input(value: Any) -> Iterator[str]:
    """Check the value of `input` or `prompt`: a text, token ids, a list of either, or items of the Responses API."""
    for item in _listed(value):
        if isinstance(item, dict):
            yield from _unbounded_messages([item])
        elif not isinstance(item, str | int) and not (
            isinstance(item, list) and all(isinstance(token, int) for token in item)
        ):
            yield "input that is no text"
    if value is not None and not isinstance(value, str | list):
        yield "input that is no text"


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
