"""A record in any of the accepted shapes -> the request it asks for."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import orjson

from batch.errors import SpecError
from batch.reading.invalid import InvalidRow, type_name
from batch.reading.notes import Fact
from batch.reading.prompts import conversation_text, input_text
from batch.reading.requests import responses
from batch.reading.requests.batch_lines import batch_request, is_batch_line
from batch.reading.template import PromptTemplate
from schemas.job import InputSpec
from schemas.openai_batch import CHAT_URL, EMBEDDINGS_URL, RESPONSES_URL

# Keys that a row in the `messages` shape may carry beside them. `user` and `metadata` are left out: as columns
# they are far more often data, which a provider has no business with; `params` takes them.
CHAT_KEYS = frozenset(
    (
        "model",
        "temperature",
        "max_tokens",
        "max_completion_tokens",
        "top_p",
        "n",
        "stop",
        "seed",
        "stream",
        "stream_options",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "response_format",
        "frequency_penalty",
        "presence_penalty",
        "logit_bias",
        "logprobs",
        "top_logprobs",
        "reasoning_effort",
        "verbosity",
        "modalities",
        "audio",
        "prediction",
        "service_tier",
        "functions",
        "function_call",
    )
)
EMBEDDING_PARAMS = frozenset({"dimensions", "encoding_format", "user"})
ANSWER_LIMITS = ("max_completion_tokens", "max_tokens")
RESPONSES_LIMITS = (responses.ANSWER_LIMIT,)
INT32_MAX = 2**31 - 1

BATCH_COLUMNS = frozenset({"method", "url", "body"})
MESSAGES_COLUMNS = frozenset({"messages", "params"}) | CHAT_KEYS
PROMPT_COLUMNS = frozenset({"prompt", "params", "model"})
INPUT_COLUMNS = frozenset({"input", "params", "model"})
REQUEST_COLUMNS = BATCH_COLUMNS | MESSAGES_COLUMNS | PROMPT_COLUMNS | INPUT_COLUMNS

_ASSISTANT_LAST = (
    Fact(
        "ends_with_assistant",
        "the conversation ends with an assistant's turn, which some servers continue and others refuse",
    ),
)
_FOUND_EMBEDDINGS = (
    Fact("embeddings", "taken for an embedding request, because the row has `input` and neither messages nor prompt"),
)

# Keys of a request that no params may set.
PROMPT_KEYS = ("messages", "prompt", "input")


@dataclass(slots=True, eq=False)
class Shaped:
    """A row's request."""

    url: str
    """Path of the API, one of BATCH_URLS."""

    body: dict[str, Any]
    """The request without `model`; never empty."""

    text: str
    """What routers score."""

    counted: str
    """All text of the prompt, for counting its tokens."""

    max_tokens: int | None
    """Most tokens of the answer over all choices; `None` where the request sets no limit."""

    deterministic: bool
    """Does the request set temperature 0?"""

    asked: str | None
    """The row's own `model`."""

    used: Set[str]
    """Columns of the record that went into the request."""

    notes: Sequence[Fact] = ()
    """What a reader should know of this row."""


def has_shape(columns: Set[str]) -> bool:
    """Can a record with these columns be in any of the shapes that need no template?"""
    return not columns.isdisjoint(("messages", "prompt", "input", "body")) or {"method", "url"} <= columns


class Shaper:
    """Builds requests after one job's input spec. Raises SpecError for a template or params it cannot use."""

    def __init__(self, spec: InputSpec) -> None:
        self.template = PromptTemplate(spec.prompt) if spec.prompt is not None else None
        """The prompt template, where the job has one."""
        self._params = _checked_params(spec.params)
        self._responses_params = responses.as_responses_params(self._params)
        self._system = [{"role": "system", "content": spec.system}] if spec.system else []
        self._system_text = f"{spec.system}\n" if spec.system else ""
        # With `ignore`, a row's `model` is a column like any other.
        self._ignored = frozenset({"model"}) if spec.row_models == "ignore" else frozenset[str]()

    def shape(self, record: dict[str, Any]) -> Shaped:
        """The request of one record. Raises InvalidRow, and nothing else whatever the record holds."""
        if self.template is not None:
            return self._prompt(self.template.render(record), self._params, {}, frozenset())
        if is_batch_line(record):
            return self._batch_line(record)
        if record.get("messages") is not None:
            return self._messages(record)
        if record.get("prompt") is not None:
            own = _own_params(record)
            prompt = record["prompt"]
            if not isinstance(prompt, str):
                raise InvalidRow("wrong_type", f"prompt must be a string, not {type_name(prompt)}")
            if not prompt.strip():
                raise InvalidRow("empty_prompt", "prompt is blank")
            return self._prompt(prompt, _merged(self._params, own), own, PROMPT_COLUMNS)
        if record.get("input") is not None:
            own = _own_params(record)
            body = {"input": record["input"], **self._embedding_params(own)}
            return self._embeddings(body, own, INPUT_COLUMNS, _FOUND_EMBEDDINGS)
        raise InvalidRow("missing_column", "none of messages, prompt, input or body holds anything")

    def _prompt(self, prompt: str, params: Mapping[str, Any], own: Mapping[str, Any], used: Set[str]) -> Shaped:
        body = {"messages": [*self._system, {"role": "user", "content": prompt}], **params}
        return self._finished(CHAT_URL, body, prompt, self._system_text + prompt, own, used)

    def _messages(self, record: dict[str, Any]) -> Shaped:
        own = _own_params(record)
        own |= {key: value for key, value in record.items() if key in CHAT_KEYS and value is not None}
        body = {"messages": record["messages"], **_merged(self._params, own)}
        return self._chat(body, own, MESSAGES_COLUMNS)

    def _batch_line(self, record: dict[str, Any]) -> Shaped:
        url, own = batch_request(record)
        if url == RESPONSES_URL:
            return self._responses(own)
        if url == EMBEDDINGS_URL:
            body = {**own, **{k: v for k, v in self._embedding_params({}).items() if k not in own}}
            return self._embeddings(body, own, BATCH_COLUMNS, () if record.get("url") else _FOUND_EMBEDDINGS)
        # The row's keys come first and in its own order: structured answers follow the order of their schema.
        body = {**own, **{k: v for k, v in _merged(self._params, own).items() if k not in own}}
        if url == CHAT_URL:
            return self._chat(body, own, BATCH_COLUMNS)
        text, prompts = input_text(body, "prompt")
        return self._finished(url, body, text, text, own, BATCH_COLUMNS, prompts)

    def _responses(self, own: dict[str, Any]) -> Shaped:
        body = {**own, **{k: v for k, v in self._responses_params.items() if k not in own}}
        talk = responses.responses_text(body)
        counted = talk.counted
        if self._system and not talk.has_system:
            body["instructions"] = self._system[0]["content"]
            counted = self._system_text + counted
        return self._finished(RESPONSES_URL, body, talk.text, counted, own, BATCH_COLUMNS)

    def _chat(self, body: dict[str, Any], own: Mapping[str, Any], used: Set[str]) -> Shaped:
        talk = conversation_text(body)
        counted = talk.counted
        if self._system and not talk.has_system:
            body["messages"] = [*self._system, *body["messages"]]
            counted = self._system_text + counted
        # Read after `conversation_text`, which has checked that each message is an object with a role.
        notes = _ASSISTANT_LAST if body["messages"][-1]["role"] == "assistant" else ()
        return self._finished(CHAT_URL, body, talk.text, counted, own, used, notes=notes)

    def _embeddings(
        self, body: dict[str, Any], own: Mapping[str, Any], used: Set[str], notes: Sequence[Fact] = ()
    ) -> Shaped:
        text, _ = input_text(body, "input")
        return self._finished(EMBEDDINGS_URL, body, text, text, own, used, notes=notes)

    def _finished(
        self,
        url: str,
        body: dict[str, Any],
        text: str,
        counted: str,
        own: Mapping[str, Any],
        used: Set[str],
        prompts: int = 1,
        notes: Sequence[Fact] = (),
    ) -> Shaped:
        body.pop("model", None)
        if body.get("stream"):
            raise InvalidRow("streaming", "stream must be left out: answers of a batch come whole")
        most = _answer_tokens(body, RESPONSES_LIMITS if url == RESPONSES_URL else ANSWER_LIMITS)
        temperature = body.get("temperature")
        if temperature is not None and (isinstance(temperature, bool) or not isinstance(temperature, int | float)):
            raise InvalidRow("wrong_type", f"temperature must be a number, not {type_name(temperature)}")
        return Shaped(
            url=url,
            body=body,
            text=text,
            counted=counted,
            max_tokens=None if most is None or url == EMBEDDINGS_URL else min(most * prompts, INT32_MAX),
            deterministic=temperature == 0 and temperature is not None,
            asked=None if self._ignored else _asked(own),
            used=used - self._ignored if self._ignored else used,
            notes=notes,
        )

    def _embedding_params(self, own: Mapping[str, Any]) -> dict[str, Any]:
        """Chat parameters mean nothing to embeddings, and servers refuse them."""
        return {k: v for k, v in {**self._params, **own}.items() if k in EMBEDDING_PARAMS}


def _checked_params(params: dict[str, Any]) -> dict[str, Any]:
    if "model" in params:
        raise SpecError("input.params.model: the plan chooses the model; use plan: {strategy: pin}")
    prompt = next((key for key in PROMPT_KEYS if key in params), None)
    if prompt is not None:
        raise SpecError(f"input.params.{prompt}: comes from each row; leave it out")
    if params.get("stream"):
        raise SpecError("input.params.stream: leave it out; answers of a batch come whole")
    try:
        orjson.dumps(params)
        _answer_tokens(params)
    except orjson.JSONEncodeError as error:
        raise SpecError(f"input.params: cannot be written as JSON: {error}") from error
    except InvalidRow as error:
        raise SpecError(f"input.params.{error.message}") from error
    return params


def _own_params(record: Mapping[str, Any]) -> dict[str, Any]:
    """The row's `params`, and its `model` beside the prompt."""
    params = record.get("params")
    if params is not None and not isinstance(params, dict):
        raise InvalidRow("wrong_type", f"params must be an object, not {type_name(params)}")
    own = {key: value for key, value in params.items() if key not in PROMPT_KEYS} if params else {}
    if record.get("model") is not None:
        own["model"] = record["model"]
    return own


def _merged(under: Mapping[str, Any], own: Mapping[str, Any]) -> Mapping[str, Any]:
    """The row's parameters over the job's. A row's answer limit, in either spelling, replaces the job's."""
    if not own:
        return under
    if any(key in own for key in ANSWER_LIMITS):
        under = {key: value for key, value in under.items() if key not in ANSWER_LIMITS}
    return {**under, **own}


def _answer_tokens(body: Mapping[str, Any], limits: Sequence[str] = ANSWER_LIMITS) -> int | None:
    """Most tokens the answers may have together."""
    most = next((body[key] for key in limits if body.get(key) is not None), None)
    choices = body.get("n")
    for key, value in ((limits[-1], most), ("n", choices)):
        # The type itself, because True is an int too.
        if value is not None and (type(value) is not int or not 0 < value <= INT32_MAX):
            raise InvalidRow("wrong_type", f"{key} must be a whole number above 0")
    return None if most is None else min(most * (choices or 1), INT32_MAX)


def _asked(own: Mapping[str, Any]) -> str | None:
    model = own.get("model")
    if model is None or model == "":
        return None
    if not isinstance(model, str):
        raise InvalidRow("wrong_type", f"model must be a string, not {type_name(model)}")
    return model
