"""Decides which columns of a row are parameters of its request.

The rule is the same for every shape: a column with the name of a request parameter is one, under the conditions in the
tables below; `params` and `extra_body` may hold any other parameters. A null or blank value leaves a parameter unset.
"""

from collections.abc import Callable, Mapping, Set
from math import isfinite
from typing import Any, Final, Literal, NamedTuple

import orjson

from batch.reading.invalid import InvalidRow, type_name
from batch.reading.notes import Fact

RowParams = Literal["auto", "honour", "ignore"]


class _Type(NamedTuple):
    """The type of a parameter's value."""

    name: str
    """Name for messages, for example "a number"."""
    fits: Callable[[Any], bool]
    """Returns whether a JSON value has this type."""
    from_text: Callable[[str], Any] | None = None
    """Parses a value from the text of a CSV cell. Raises ValueError."""


def _is_whole(value: Any) -> bool:
    # Compare the type itself: True is an int too. Tables with missing values store whole numbers as 256.0.
    return type(value) is int or (type(value) is float and value.is_integer())


def _is_number(value: Any) -> bool:
    # Every int is finite, and `isfinite` raises for ints that are too large for a float.
    return isinstance(value, int) and not isinstance(value, bool) if not isinstance(value, float) else isfinite(value)


def _truth(text: str) -> bool:
    try:
        return {"true": True, "false": False}[text.strip().lower()]
    except KeyError as error:
        raise ValueError("neither true nor false") from error


def _json_or_text(text: str) -> Any:
    """Parse a CSV cell that is a JSON object or list; other text, such as the stop sequence `["`, stays text."""
    if not text.lstrip().startswith(("{", "[")):
        return text
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def _whole(text: str) -> Any:
    number = float(text)
    return int(text) if text.strip().lstrip("+-").isdecimal() else number


_NUMBER = _Type("a number", _is_number, float)
_WHOLE = _Type("a whole number", _is_whole, _whole)
_FLAG = _Type("true or false", lambda v: type(v) is bool, _truth)
_TEXT = _Type("a string", lambda v: isinstance(v, str))
_OBJECT = _Type("an object", lambda v: isinstance(v, dict), orjson.loads)
_LIST = _Type("a list", lambda v: isinstance(v, list), orjson.loads)
_TEXTS = _Type("a string or a list", lambda v: isinstance(v, str | list), _json_or_text)
_TEXT_OR_OBJECT = _Type("a string or an object", lambda v: isinstance(v, str | dict), _json_or_text)

# Names of parameters that are hardly ever names of data columns.
_PLAIN: Final[Mapping[str, _Type]] = {
    # OpenAI
    "temperature": _NUMBER,
    "top_p": _NUMBER,
    "max_tokens": _WHOLE,
    "max_completion_tokens": _WHOLE,
    "frequency_penalty": _NUMBER,
    "presence_penalty": _NUMBER,
    "logit_bias": _OBJECT,
    "logprobs": _FLAG,
    "top_logprobs": _WHOLE,
    "response_format": _OBJECT,
    "reasoning_effort": _TEXT,
    "verbosity": _TEXT,
    "tool_choice": _TEXT_OR_OBJECT,
    "function_call": _TEXT_OR_OBJECT,
    "parallel_tool_calls": _FLAG,
    "modalities": _LIST,
    "service_tier": _TEXT,
    "stream": _FLAG,
    "stream_options": _OBJECT,
    "web_search_options": _OBJECT,
    "prompt_cache_key": _TEXT,
    "safety_identifier": _TEXT,
    # OpenAI's Python client merges it into the body.
    "extra_body": _OBJECT,
    # vLLM, SGLang, llama.cpp, TGI and others
    "top_k": _WHOLE,
    "min_p": _NUMBER,
    "top_a": _NUMBER,
    "typical_p": _NUMBER,
    "repetition_penalty": _NUMBER,
    "length_penalty": _NUMBER,
    "min_tokens": _WHOLE,
    "best_of": _WHOLE,
    "use_beam_search": _FLAG,
    "stop_token_ids": _LIST,
    "bad_words": _LIST,
    "allowed_token_ids": _LIST,
    "include_stop_str_in_output": _FLAG,
    "ignore_eos": _FLAG,
    "skip_special_tokens": _FLAG,
    "spaces_between_special_tokens": _FLAG,
    "truncate_prompt_tokens": _WHOLE,
    "prompt_logprobs": _WHOLE,
    "return_token_ids": _FLAG,
    "add_generation_prompt": _FLAG,
    "continue_final_message": _FLAG,
    "add_special_tokens": _FLAG,
    "chat_template": _TEXT,
    "chat_template_kwargs": _OBJECT,
    "mm_processor_kwargs": _OBJECT,
    "structured_outputs": _OBJECT,
    "structural_tag": _TEXT_OR_OBJECT,
    "guided_json": _TEXT_OR_OBJECT,
    "guided_regex": _TEXT,
    "guided_choice": _LIST,
    "guided_grammar": _TEXT,
    "guided_decoding_backend": _TEXT,
    "guided_whitespace_pattern": _TEXT,
    "separate_reasoning": _FLAG,
    "include_reasoning": _FLAG,
    "reasoning_format": _TEXT,
    "enable_thinking": _FLAG,
    "thinking_budget": _WHOLE,
    "safe_prompt": _FLAG,
    "random_seed": _WHOLE,
}

# Names that tables use just as often for data: a column `n` that counts rows would ask for that many answers. Such a
# column is a parameter if its value has the right JSON type and the row is clearly a request (it has `messages`, a
# parameter with a name of the table above, or a `model`). Otherwise, and beside a template, it is one only with
# `row_params: honour`.
_WORDS: Final[Mapping[str, _Type]] = {
    "n": _WHOLE,
    "seed": _WHOLE,
    "stop": _TEXTS,
    "tools": _LIST,
    "functions": _LIST,
    "audio": _OBJECT,
    "prediction": _OBJECT,
    "reasoning": _OBJECT,
    "thinking": _OBJECT,
    "provider": _OBJECT,
    "plugins": _LIST,
}

_EMBEDDING: Final[Mapping[str, _Type]] = {
    "dimensions": _WHOLE,
    "encoding_format": _TEXT,
    "user": _TEXT,
    "input_type": _TEXT,
    "truncate": _TEXT,
    "truncate_prompt_tokens": _WHOLE,
    "output_dimension": _WHOLE,
    "output_dtype": _TEXT,
    "embedding_types": _LIST,
    "add_special_tokens": _FLAG,
    "priority": _WHOLE,
    "extra_body": _OBJECT,
}

# Names that are far more often data, which must not reach a provider. `params` may hold such parameters.
_LEFT_ALONE = frozenset({"user", "metadata", "store", "priority", "documents"})

CHAT_PARAMETERS: Final = frozenset((*_PLAIN, *_WORDS))
EMBEDDING_PARAMETERS: Final = frozenset(_EMBEDDING)
PARAMETERS: Final = CHAT_PARAMETERS | EMBEDDING_PARAMETERS
_LOOKED_AT = PARAMETERS | _LEFT_ALONE


class OwnParameters(NamedTuple):
    """The parameters among a row's columns."""

    values: dict[str, Any]
    """Values by name, with `extra_body` merged in."""
    columns: set[str]
    """Columns that gave them; these are not carried into the results."""
    notes: list[Fact]
    """Notes on columns that look like parameters but are data, and, beside a template, on those that are parameters."""


def own_parameters(
    record: Mapping[str, Any],
    *,
    embeds: bool = False,
    is_body: bool = False,
    row_params: RowParams = "auto",
    template: Set[str] | None = None,
) -> OwnParameters | None:
    """Return the parameters of a row that is not a batch line; `None` if no column even looks like one.

    Args:
        embeds: the row is an embedding request, which has no chat parameters.
        is_body: the row is certainly a request, because it has messages.
        row_params: the job's `input.row_params`.
        template: columns that the job's templates name, which are data; `None` if the job has no template.

    Raises:
        InvalidRow: a column's value cannot be the parameter of that name. With a template, the column is data instead.
    """
    if _LOOKED_AT.isdisjoint(record):
        return None
    found = OwnParameters({}, set(), [])
    words: list[tuple[str, _Type, Any]] = []
    for name, value in record.items():
        if name not in _LOOKED_AT or (template is not None and name in template):
            continue
        kind = (_EMBEDDING if embeds else _PLAIN).get(name)
        if _is_unset(value, name):
            if template is None and name in PARAMETERS:
                found.columns.add(name)
        elif row_params == "ignore":
            found.notes.append(_data(name, "`input.row_params: ignore`"))
        elif kind is not None:
            _take_plain(found, name, kind, value, has_template=template is not None)
        elif not embeds and name in _WORDS:
            words.append((name, _WORDS[name], value))
        elif embeds and name in CHAT_PARAMETERS:
            found.notes.append(_data(name, "embedding requests have no such parameter"))
        elif template is None and not embeds and name in _LEFT_ALONE:
            found.notes.append(_data(name, "`params` takes it"))
    is_body = template is None and (is_body or bool(found.values) or record.get("model") is not None)
    for name, word, given in words:
        value = given
        if row_params == "honour" or word is _TEXTS:
            # CSV cells are always text. In other formats, text that only looks like a number or an object is data.
            read = _read(word, given)
            value = given if read is None else read
        why = _why_data(word, value, counts=is_body or row_params == "honour")
        if why is not None:
            found.notes.append(_data(name, why))
        else:
            found.values[name] = int(value) if word is _WHOLE else value
            found.columns.add(name)
    return found._replace(values=merge_extra_body(found.values)) if "extra_body" in found.values else found


def _take_plain(found: OwnParameters, name: str, kind: _Type, value: Any, *, has_template: bool) -> None:
    """Take a column as a parameter or as data. Raises InvalidRow if it can be neither."""
    read = _read(kind, value)
    if read is not None and (not has_template or _is_likely(name, read)):
        found.values[name] = read
        found.columns.add(name)
        if has_template:
            found.notes.append(_TAKEN[name])
    elif has_template:
        found.notes.append(_data(name, f"as a parameter it would be {kind.name}"))
    else:
        raise InvalidRow("wrong_type", f"{name} must be {kind.name}, not {_said(value)}")


def _why_data(word: _Type, value: Any, *, counts: bool) -> str | None:
    """Return why an ambiguous column is data, or `None` if it is a parameter."""
    if not word.fits(value):
        return f"as a parameter it would be {word.name}"
    return None if counts else "`input.row_params: honour` sends it"


def merge_extra_body(params: dict[str, Any]) -> dict[str, Any]:
    """Merge `extra_body` into the other parameters, as OpenAI's Python client does."""
    extra = params.get("extra_body")
    if not isinstance(extra, dict):
        return params
    return {**{key: value for key, value in params.items() if key != "extra_body"}, **extra}


def params_column(value: Any) -> dict[str, Any]:
    """Return a row's `params`: an object, or its JSON text in a CSV file. Raises InvalidRow for anything else."""
    if value is None or value == "":
        return {}
    if isinstance(value, str):
        value = _read(_OBJECT, value)
        if value is None:
            raise InvalidRow("wrong_type", "params must be a JSON object")
    if not isinstance(value, dict):
        raise InvalidRow("wrong_type", f"params must be an object, not {type_name(value)}")
    return merge_extra_body(value)


def _is_likely(name: str, value: Any) -> bool:
    """Is a column beside a template likely to be a parameter? A `temperature` outside 0 to 2 is weather data."""
    return name != "temperature" or 0 <= value <= 2


def _is_unset(value: Any, name: str) -> bool:
    """Is the value null, NaN or blank? For `stop` only empty text is blank: a line end is a valid stop sequence."""
    if isinstance(value, str):
        return not value if name == "stop" else not value.strip()
    return value is None or value != value  # only NaN differs from itself


def _read(kind: _Type, value: Any) -> Any:
    """Convert a value to the parameter's type; return `None` if that is impossible."""
    if isinstance(value, str) and kind.from_text is not None:
        try:
            value = kind.from_text(value)
        except ValueError:
            return None
    if not kind.fits(value):
        return None
    # Servers that expect 256 refuse 256.0.
    return int(value) if kind is _WHOLE else value


def _said(value: Any) -> str:
    return "an infinite number" if isinstance(value, float) and not isfinite(value) else type_name(value)


def _data(name: str, why: str) -> Fact:
    return Fact("not_a_parameter", f"the column `{name}` is carried as data and not sent: {why}")


_TAKEN: Final = {
    name: Fact("parameter_column", f"the column `{name}` is sent as a parameter; `input.row_params: ignore` carries it")
    for name in PARAMETERS
}
