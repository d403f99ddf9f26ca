"""Builds the request of a record, which may have any of the accepted shapes."""

from collections.abc import Set
from typing import Any

import orjson

from batch.errors import SpecError
from batch.reading.exact import ExactRecord
from batch.reading.invalid import InvalidRow, type_name
from batch.reading.notes import Fact
from batch.reading.prompts import Texts, conversation_text, input_texts, is_token_ids
from batch.reading.requests.anthropic import FOUND_ANTHROPIC, anthropic_params, to_chat_request
from batch.reading.requests.batch_lines import batch_request, is_batch_line
from batch.reading.requests.conversations import conversation_in, found_messages
from batch.reading.requests.embeddings import (
    FOUND_EMBEDDINGS,
    INPUT_COLUMNS,
    check_ambiguous_input,
    keep_embedding_parameters,
)
from batch.reading.requests.foreign import foreign_shape
from batch.reading.requests.members import foreign_members
from batch.reading.requests.parameters import (
    CHAT_PARAMETERS,
    PARAMETERS,
    merge_extra_body,
    own_parameters,
    params_column,
)
from batch.reading.requests.responses import as_responses_params, responses_text
from batch.reading.requests.shaped import Own, Shaped, answer_tokens, complete_request, merge_params
from batch.reading.requests.system import OWN_SYSTEM, SYSTEM_COLUMN, SystemMessages
from batch.reading.template import PromptTemplate
from schemas.job import InputSpec
from schemas.openai_batch import CHAT_URL, COMPLETIONS_URL, EMBEDDINGS_URL, RESPONSES_URL

BATCH_COLUMNS = frozenset({"method", "url", "body"})
ANTHROPIC_COLUMNS = frozenset({"params"})
MESSAGES_COLUMNS = frozenset({"messages", "params", "model"})
PROMPT_COLUMNS = frozenset({"prompt", "params", "model"})
TEMPLATE_COLUMNS: frozenset[str] = frozenset()
SHAPE_COLUMNS = BATCH_COLUMNS | MESSAGES_COLUMNS | PROMPT_COLUMNS | INPUT_COLUMNS
"""Columns by which a row's shape is recognized."""
REQUEST_COLUMNS = SHAPE_COLUMNS | PARAMETERS | {SYSTEM_COLUMN}
"""Columns that may become part of a request; null values are left out."""
# Other names of `messages`: ShareGPT's and a common variant. They are ordinary data if the row has another prompt.
_CONVERSATIONS = {name: frozenset({name, "params", "model"}) for name in ("conversations", "conversation")}

_ASSISTANT_LAST = Fact(
    "ends_with_assistant",
    "the conversation ends with an assistant's turn, which some servers continue and others refuse",
)
_TOKEN_IDS = Fact("token_ids", "the prompt has token ids: they are sent as they are, and routers see an empty text")
_NO_SYSTEM_THERE = Fact(
    "system_not_sent", "`input.system` is not sent, because embedding requests and completions have no system message"
)
_BESIDE_BODY = Fact(
    "not_a_parameter",
    "parameters beside `body` are carried as data and not sent: those of a batch line stand in its body",
)

# Keys of a request that `params` must not set.
PROMPT_KEYS = ("messages", "prompt", "input")


def has_shape(columns: Set[str]) -> bool:
    """Can a record with these columns have one of the shapes that need no template?"""
    return (
        not columns.isdisjoint(("messages", "prompt", "input", "body", *_CONVERSATIONS))
        or {"method", "url"} <= columns
        or {"custom_id", "params"} <= columns
    )


class Shaper:
    """Builds requests by one job's input spec. The constructor raises SpecError for an unusable template or params."""

    def __init__(self, spec: InputSpec) -> None:
        self.template = PromptTemplate(spec.prompt) if spec.prompt is not None else None
        """The job's prompt template, if it has one."""
        self.system = SystemMessages(spec.system, from_rows=self.template is None)
        """Gives each row its system message."""
        self._params = merge_extra_body(_checked_params(spec.params))
        self._embedding_params, self._embedding_notes = keep_embedding_parameters(self._params)
        if self.system.template is not None:
            self._embedding_notes = (*self._embedding_notes, _NO_SYSTEM_THERE)
        self._responses_params, self._responses_notes = as_responses_params(self._params)
        self._row_params = spec.row_params
        self._embeds = spec.shape == "embeddings"
        self._id_column = spec.id_column
        # Columns that a template names are data, whatever their names are.
        self._named: Set[str] | None = None
        if self.template is not None:
            of_system = self.system.template.named if self.system.template is not None else frozenset[str]()
            self._named = self.template.named | of_system
        # With `row_models: ignore`, a row's `model` is ordinary data.
        self._ignored = frozenset({"model"}) if spec.row_models == "ignore" else frozenset[str]()

    def shape(self, record: dict[str, Any]) -> Shaped:
        """Return the request of one record. Raises InvalidRow for any record that is no request, and nothing else."""
        if type(record) is ExactRecord:
            # Tables write NaN for null. Only NaN is not equal to itself.
            record = {column: value for column, value in record.items() if value == value}
        if self.template is not None:
            prompt = self.template.render(record)
            own = self._own(record, TEMPLATE_COLUMNS, embeds=self._embeds).with_notes(*self.template.blanks(record))
            if self._embeds:
                return self._embeddings({"input": prompt, **merge_params(self._embedding_params, own.values)}, own)
            return self._prompt(record, prompt, own)
        if is_batch_line(record):
            return self._batch_line(record)
        if self._embeds:
            if record.get("input") is None:
                raise InvalidRow("missing_column", "input.shape is `embeddings`, and the row has no input")
            return self._input(record)
        # A blank CSV cell is not a conversation.
        if record.get("messages") not in (None, ""):
            return self._messages(record, record["messages"], MESSAGES_COLUMNS)
        if record.get("prompt") is not None:
            return self._any_prompt(record, record["prompt"])
        if record.get("input") is not None:
            messages = found_messages(record["input"], "input")
            if messages is not None:
                return self._messages(record, messages, INPUT_COLUMNS)
            check_ambiguous_input(record, self._id_column)
            return self._input(record, FOUND_EMBEDDINGS)
        for column, columns in _CONVERSATIONS.items():
            if record.get(column) not in (None, ""):
                return self._messages(record, conversation_in(record, column), columns)
        params = anthropic_params(record)
        if params is not None:
            chat = to_chat_request(params, "params")
            return self._body(record, CHAT_URL, Own(chat, ANTHROPIC_COLUMNS, (FOUND_ANTHROPIC,)))
        raise InvalidRow(
            "missing_column", foreign_shape(record.keys()) or "none of messages, prompt, input or body holds anything"
        )

    def _own(self, record: dict[str, Any], columns: Set[str], *, embeds: bool = False, is_body: bool = False) -> Own:
        """Return the row's own parameters, including its `model`; `columns` are those that hold its prompt."""
        found = own_parameters(
            record, embeds=embeds, is_body=is_body, row_params=self._row_params, template=self._named
        )
        params = record.get("params")
        if self._named is not None and self._row_params != "honour":
            # With a template, `params` and `model` are ordinary data.
            notes = tuple(fact for name, fact in _DATA.items() if record.get(name) and name not in self._named)
            if found is None:
                return Own({}, columns, notes) if notes else _NOTHING_OWN
            return Own(found.values, found.columns, (*found.notes, *notes))
        if self._named is not None:
            columns = {name for name in ("params", "model") if record.get(name) is not None}
        if found is None and params is None and record.get("model") is None:
            return Own({}, columns)
        values = {key: value for key, value in params_column(params).items() if key not in PROMPT_KEYS}
        if record.get("model") is not None:
            values["model"] = record["model"]
        if found is None:
            return Own(values, columns)
        return Own(values | found.values, columns | found.columns, tuple(found.notes))

    def _any_prompt(self, record: dict[str, Any], prompt: Any) -> Shaped:
        """Return the request of a row whose `prompt` is text, a conversation or token ids."""
        # Nearly every prompt is text that is not a JSON list.
        messages = None if type(prompt) is str and prompt[:1] != "[" else found_messages(prompt, "prompt")
        if messages is not None:
            return self._messages(record, messages, PROMPT_COLUMNS)
        if isinstance(prompt, str):
            if not prompt.strip():
                raise InvalidRow("empty_prompt", "prompt is blank")
            return self._prompt(record, prompt, self._own(record, PROMPT_COLUMNS))
        if is_token_ids(prompt) or (isinstance(prompt, list) and prompt and all(map(is_token_ids, prompt))):
            # Only completions take token ids.
            own = self._own(record, PROMPT_COLUMNS)
            return self._completions({"prompt": prompt, **merge_params(self._params, own.values)}, own)
        if isinstance(prompt, list | dict):
            part = "[0]" if isinstance(prompt, list) else ".name"
            hint = f'input.prompt: "{{prompt{part}}}" takes a part of it'
        else:
            hint = 'input.prompt: "{prompt}" takes it as text'
        raise InvalidRow(
            "wrong_type",
            f"prompt must be a string, a list of messages or token ids, not {_described(prompt)}; {hint}",
        )

    def _prompt(self, record: dict[str, Any], prompt: str, own: Own) -> Shaped:
        system = self.system.of(record)
        message = {"role": "user", "content": prompt}
        if system.text is None:
            body, counted = {"messages": [message], **merge_params(self._params, own.values)}, prompt
        else:
            first = {"role": "system", "content": system.text}
            body = {"messages": [first, message], **merge_params(self._params, own.values)}
            counted = f"{system.text}\n{prompt}"
        return self._finished(CHAT_URL, body, prompt, counted, own.with_system(system))

    def _messages(self, record: dict[str, Any], messages: Any, columns: Set[str]) -> Shaped:
        own = self._own(record, columns, is_body=True)
        return self._chat(record, {"messages": messages, **merge_params(self._params, own.values)}, own)

    def _input(self, record: dict[str, Any], *notes: Fact) -> Shaped:
        own = self._own(record, INPUT_COLUMNS, embeds=True)
        values, dropped = keep_embedding_parameters(own.values)
        body = {"input": record["input"], **self._embedding_params, **values}
        return self._embeddings(body, own._replace(notes=(*notes, *own.notes, *dropped)))

    def _batch_line(self, record: dict[str, Any]) -> Shaped:
        url, given, notes = batch_request(record)
        if not CHAT_PARAMETERS.isdisjoint(record):
            notes = (*notes, _BESIDE_BODY)
        return self._body(record, url, Own(merge_extra_body(given), BATCH_COLUMNS, notes))

    def _body(self, record: dict[str, Any], url: str, own: Own) -> Shaped:
        """Return the request of a row that holds a whole request body (`own.values`) for the API at `url`."""
        if url == RESPONSES_URL:
            return self._responses(record, own)
        if url == EMBEDDINGS_URL:
            under = {k: v for k, v in self._embedding_params.items() if k not in own.values}
            return self._embeddings({**own.values, **under}, own)
        # The row's keys come first and in its own order: structured answers follow the order of their schema.
        params = merge_params(self._params, own.values)
        body = {**own.values, **{k: v for k, v in params.items() if k not in own.values}}
        return self._chat(record, body, own) if url == CHAT_URL else self._completions(body, own)

    def _responses(self, record: dict[str, Any], own: Own) -> Shaped:
        body = {**own.values, **{k: v for k, v in self._responses_params.items() if k not in own.values}}
        talk = responses_text(body)
        counted = talk.counted
        if not talk.has_system:
            system = self.system.of(record)
            if system.text is not None:
                body["instructions"] = system.text
                counted = f"{system.text}\n{counted}"
            own = own.with_system(system)
        return self._finished(RESPONSES_URL, body, talk.text, counted, own.with_notes(*self._responses_notes))

    def _chat(self, record: dict[str, Any], body: dict[str, Any], own: Own) -> Shaped:
        if "messages" in body:
            body["messages"] = conversation_in(body, "messages")
        talk = conversation_text(body)
        counted = talk.counted
        if talk.has_system:
            if record.get(SYSTEM_COLUMN):
                own = own.with_notes(OWN_SYSTEM)
        else:
            system = self.system.of(record)
            if system.text is not None:
                body["messages"] = [{"role": "system", "content": system.text}, *body["messages"]]
                counted = f"{system.text}\n{counted}"
            own = own.with_system(system)
        # `conversation_text` above has checked that each message is an object with a role.
        if body["messages"][-1]["role"] == "assistant":
            own = own.with_notes(_ASSISTANT_LAST)
        foreign = foreign_members(body["messages"])
        if foreign:
            own = own.with_notes(*foreign)
        return self._finished(CHAT_URL, body, talk.text, counted, own)

    def _completions(self, body: dict[str, Any], own: Own) -> Shaped:
        if self.system.template is not None:
            own = own.with_notes(_NO_SYSTEM_THERE)
        return self._texts(COMPLETIONS_URL, body, input_texts(body, "prompt"), own)

    def _embeddings(self, body: dict[str, Any], own: Own) -> Shaped:
        return self._texts(EMBEDDINGS_URL, body, input_texts(body, "input"), own.with_notes(*self._embedding_notes))

    def _texts(self, url: str, body: dict[str, Any], texts: Texts, own: Own) -> Shaped:
        if texts.tokens:
            own = own.with_notes(_TOKEN_IDS)
        return complete_request(
            url, body, texts.text, texts.text, own, ignored=self._ignored, prompts=texts.prompts, tokens=texts.tokens
        )

    def _finished(self, url: str, body: dict[str, Any], text: str, counted: str, own: Own) -> Shaped:
        return complete_request(url, body, text, counted, own, ignored=self._ignored)


_NOTHING_OWN = Own({}, TEMPLATE_COLUMNS)
_DATA = {
    name: Fact(
        "not_a_parameter",
        f"the column `{name}` is carried as data and not sent: `input.row_params: honour` takes it beside a template",
    )
    for name in ("params", "model")
}


def _described(prompt: Any) -> str:
    """Name the type of an unusable prompt; a list of strings is named as such."""
    if isinstance(prompt, list) and prompt and all(isinstance(item, str) for item in prompt):
        return "a list of strings"
    return type_name(prompt)


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
        answer_tokens(dict(params))
    except orjson.JSONEncodeError as error:
        raise SpecError(f"input.params: cannot be written as JSON: {error}") from error
    except InvalidRow as error:
        raise SpecError(f"input.params.{error.message}") from error
    return params
