"""A record in any of the accepted shapes -> the request it asks for."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from batch.errors import SpecError
from batch.reading.invalid import InvalidRow, type_name
from batch.reading.notes import Fact
from batch.reading.prompts import conversation_text, input_text
from batch.reading.requests import responses
from batch.reading.requests.batch_lines import batch_request, is_batch_line
from batch.reading.requests.parameters import (
    CHAT_PARAMETERS,
    EMBEDDING_PARAMETERS,
    PARAMETERS,
    own_parameters,
    params_column,
    unpacked,
)
from batch.reading.requests.system import OWN_SYSTEM, SYSTEM_COLUMN, SystemMessage, SystemMessages
from batch.reading.template import PromptTemplate
from schemas.job import InputSpec
from schemas.openai_batch import CHAT_URL, EMBEDDINGS_URL, RESPONSES_URL

ANSWER_LIMITS = ("max_completion_tokens", "max_tokens")
RESPONSES_LIMITS = (responses.ANSWER_LIMIT,)
INT32_MAX = 2**31 - 1

BATCH_COLUMNS = frozenset({"method", "url", "body"})
MESSAGES_COLUMNS = frozenset({"messages", "params", "model"})
PROMPT_COLUMNS = frozenset({"prompt", "params", "model"})
INPUT_COLUMNS = frozenset({"input", "params", "model"})
TEMPLATE_COLUMNS: frozenset[str] = frozenset()
SHAPE_COLUMNS = BATCH_COLUMNS | MESSAGES_COLUMNS | PROMPT_COLUMNS | INPUT_COLUMNS
"""Columns that make a row one of the shapes."""
REQUEST_COLUMNS = SHAPE_COLUMNS | PARAMETERS | {SYSTEM_COLUMN}
"""Columns that may go into a request. What is null within them is left out of it."""
# Text in other columns than these makes an `input` doubtful: Alpaca's rows have instruction, input and output.
_BESIDE_INPUT = INPUT_COLUMNS | PARAMETERS | {"id", "custom_id"}
# Only embedding requests have these.
_ASKS_FOR_EMBEDDINGS = ("dimensions", "encoding_format")
_NAMES_SHOWN = 4

_ASSISTANT_LAST = (
    Fact(
        "ends_with_assistant",
        "the conversation ends with an assistant's turn, which some servers continue and others refuse",
    ),
)
_FOUND_EMBEDDINGS = (
    Fact("embeddings", "taken for an embedding request, because the row has `input` and neither messages nor prompt"),
)
_NO_SYSTEM_THERE = Fact(
    "system_not_sent", "`input.system` is not sent, because embedding requests and completions have no system message"
)
_BESIDE_BODY = Fact(
    "not_a_parameter",
    "parameters beside `body` are carried as data and not sent: those of a batch line stand in its body",
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
        self.system = SystemMessages(spec.system, from_rows=self.template is None)
        """Where system messages come from."""
        self._params = unpacked(_checked_params(spec.params))
        self._embedding_params, self._embedding_notes = _for_embeddings(self._params)
        if self.system.template is not None:
            self._embedding_notes = (*self._embedding_notes, _NO_SYSTEM_THERE)
        self._responses_params = responses.as_responses_params(self._params)
        self._row_params = spec.row_params
        self._embeds = spec.shape == "embeddings"
        self._id_column = spec.id_column
        # Columns of templates are data, whatever they are called.
        self._named: Set[str] | None = None
        if self.template is not None:
            of_system = self.system.template.named if self.system.template is not None else frozenset[str]()
            self._named = self.template.named | of_system
        # With `ignore`, a row's `model` is a column like any other.
        self._ignored = frozenset({"model"}) if spec.row_models == "ignore" else frozenset[str]()

    def shape(self, record: dict[str, Any]) -> Shaped:
        """The request of one record. Raises InvalidRow, and nothing else whatever the record holds."""
        if self.template is not None:
            prompt = self.template.render(record)
            own = self._own(record, TEMPLATE_COLUMNS, embeds=self._embeds)
            if self._embeds:
                return self._embeddings({"input": prompt, **_merged(self._embedding_params, own.values)}, own)
            return self._prompt(record, prompt, own)
        if is_batch_line(record):
            return self._batch_line(record)
        if self._embeds:
            if record.get("input") is None:
                raise InvalidRow("missing_column", "input.shape is `embeddings`, and the row has no input")
            return self._input(record, ())
        if record.get("messages") is not None:
            own = self._own(record, MESSAGES_COLUMNS, is_body=True)
            return self._chat(record, {"messages": record["messages"], **_merged(self._params, own.values)}, own)
        if record.get("prompt") is not None:
            prompt = record["prompt"]
            if not isinstance(prompt, str):
                raise InvalidRow("wrong_type", f"prompt must be a string, not {type_name(prompt)}")
            if not prompt.strip():
                raise InvalidRow("empty_prompt", "prompt is blank")
            return self._prompt(record, prompt, self._own(record, PROMPT_COLUMNS))
        if record.get("input") is not None:
            self._check_asked(record)
            return self._input(record, _FOUND_EMBEDDINGS)
        raise InvalidRow("missing_column", "none of messages, prompt, input or body holds anything")

    def _own(self, record: dict[str, Any], columns: Set[str], *, embeds: bool = False, is_body: bool = False) -> "_Own":
        """A row's own parameters, its `model` among them, where its prompt is in `columns`."""
        found = own_parameters(
            record, embeds=embeds, is_body=is_body, row_params=self._row_params, template=self._named
        )
        params = record.get("params")
        if self._named is not None and self._row_params != "honour":
            # With a template, `params` and `model` are columns like any other.
            notes = tuple(fact for name, fact in _DATA.items() if record.get(name) and name not in self._named)
            if found is None:
                return _Own({}, columns, notes) if notes else _NOTHING_OWN
            return _Own(found.values, found.columns, (*found.notes, *notes))
        if self._named is not None:
            columns = {name for name in ("params", "model") if record.get(name) is not None}
        if found is None and params is None and record.get("model") is None:
            return _Own({}, columns)
        values = {key: value for key, value in params_column(params).items() if key not in PROMPT_KEYS}
        if record.get("model") is not None:
            values["model"] = record["model"]
        if found is None:
            return _Own(values, columns)
        return _Own(values | found.values, columns | found.columns, tuple(found.notes))

    def _check_asked(self, record: dict[str, Any]) -> None:
        """Raise InvalidRow for an `input` that may well be half of a prompt."""
        texts = [name for name, value in record.items() if type(value) is str and name not in _BESIDE_INPUT]
        texts = [name for name in texts if name != self._id_column]
        if texts and all(record.get(name) is None for name in _ASKS_FOR_EMBEDDINGS):
            shown = ", ".join(texts[:_NAMES_SHOWN]) + (", ..." if len(texts) > _NAMES_SHOWN else "")
            raise InvalidRow(
                "ambiguous_shape",
                f"`input` stands beside other text ({shown}), so the row is not taken for an embedding request; give "
                'input.prompt a template over the columns, as "{instruction} {input}", or set input.shape: embeddings',
            )

    def _prompt(self, record: dict[str, Any], prompt: str, own: "_Own") -> Shaped:
        system = self.system.of(record)
        message = {"role": "user", "content": prompt}
        if system.text is None:
            body, counted = {"messages": [message], **_merged(self._params, own.values)}, prompt
        else:
            first = {"role": "system", "content": system.text}
            body = {"messages": [first, message], **_merged(self._params, own.values)}
            counted = f"{system.text}\n{prompt}"
        return self._finished(CHAT_URL, body, prompt, counted, own.after(system))

    def _input(self, record: dict[str, Any], notes: tuple[Fact, ...]) -> Shaped:
        own = self._own(record, INPUT_COLUMNS, embeds=True)
        values, dropped = _for_embeddings(own.values)
        body = {"input": record["input"], **self._embedding_params, **values}
        return self._embeddings(body, own._replace(notes=(*notes, *own.notes, *dropped)))

    def _batch_line(self, record: dict[str, Any]) -> Shaped:
        url, given = batch_request(record)
        notes = () if CHAT_PARAMETERS.isdisjoint(record) else (_BESIDE_BODY,)
        own = _Own(unpacked(given), BATCH_COLUMNS, notes)
        if url == RESPONSES_URL:
            return self._responses(record, own)
        if url == EMBEDDINGS_URL:
            if not record.get("url"):
                own = own._replace(notes=(*own.notes, *_FOUND_EMBEDDINGS))
            under = {k: v for k, v in self._embedding_params.items() if k not in own.values}
            return self._embeddings({**own.values, **under}, own)
        # The row's keys come first and in its own order: structured answers follow the order of their schema.
        params = _merged(self._params, own.values)
        body = {**own.values, **{k: v for k, v in params.items() if k not in own.values}}
        if url == CHAT_URL:
            return self._chat(record, body, own)
        text, prompts = input_text(body, "prompt")
        if self.system.template is not None:
            own = own._replace(notes=(*own.notes, _NO_SYSTEM_THERE))
        return self._finished(url, body, text, text, own, prompts)

    def _responses(self, record: dict[str, Any], own: "_Own") -> Shaped:
        body = {**own.values, **{k: v for k, v in self._responses_params.items() if k not in own.values}}
        talk = responses.responses_text(body)
        counted = talk.counted
        if not talk.has_system:
            system = self.system.of(record)
            if system.text is not None:
                body["instructions"] = system.text
                counted = f"{system.text}\n{counted}"
            own = own.after(system)
        return self._finished(RESPONSES_URL, body, talk.text, counted, own)

    def _chat(self, record: dict[str, Any], body: dict[str, Any], own: "_Own") -> Shaped:
        talk = conversation_text(body)
        counted = talk.counted
        if talk.has_system:
            if record.get(SYSTEM_COLUMN):
                own = own._replace(notes=(*own.notes, OWN_SYSTEM))
        else:
            system = self.system.of(record)
            if system.text is not None:
                body["messages"] = [{"role": "system", "content": system.text}, *body["messages"]]
                counted = f"{system.text}\n{counted}"
            own = own.after(system)
        # Read after `conversation_text`, which has checked that each message is an object with a role.
        if body["messages"][-1]["role"] == "assistant":
            own = own._replace(notes=(*own.notes, *_ASSISTANT_LAST))
        return self._finished(CHAT_URL, body, talk.text, counted, own)

    def _embeddings(self, body: dict[str, Any], own: "_Own") -> Shaped:
        text, _ = input_text(body, "input")
        if self._embedding_notes:
            own = own._replace(notes=(*own.notes, *self._embedding_notes))
        return self._finished(EMBEDDINGS_URL, body, text, text, own)

    def _finished(
        self,
        url: str,
        body: dict[str, Any],
        text: str,
        counted: str,
        own: "_Own",
        prompts: int = 1,
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
            asked=None if self._ignored else _asked(own.values),
            used=own.columns - self._ignored if self._ignored else own.columns,
            notes=own.notes,
        )


class _Own(NamedTuple):
    """What a row says of its request besides the prompt."""

    values: dict[str, Any]
    """Its parameters, and its `model`."""
    columns: Set[str]
    """Its columns that go into the request."""
    notes: tuple[Fact, ...] = ()

    def after(self, system: SystemMessage) -> "_Own":
        """The same, with what the row says of its system message."""
        if not system.columns and not system.notes:
            return self
        return _Own(self.values, self.columns | system.columns, (*self.notes, *system.notes))


_NOTHING_OWN = _Own({}, TEMPLATE_COLUMNS)
_DATA = {
    name: Fact(
        "not_a_parameter",
        f"the column `{name}` is carried as data and not sent: `input.row_params: honour` takes it beside a template",
    )
    for name in ("params", "model")
}


def _for_embeddings(params: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[Fact, ...]]:
    """Parameters without those of chats, which mean nothing to embeddings and which servers refuse; a note on each."""
    left = [name for name in params if name in CHAT_PARAMETERS and name not in EMBEDDING_PARAMETERS]
    if not left:
        return dict(params), ()
    notes = tuple(
        Fact("not_a_parameter", f"the parameter `{name}` is not sent: embedding requests have no such parameter")
        for name in left
    )
    return {name: value for name, value in params.items() if name not in left}, notes


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
