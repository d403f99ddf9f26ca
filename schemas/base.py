"""The base of every model, and explanations of refused files, one line per fault."""

import math
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

Location = tuple[str | int, ...]

# People put secrets into these keys by mistake, so messages do not show their values.
_NOT_REPEATED = frozenset({"headers", "query", "url", "api_key_env", "api_key_file", "api_key_command"})
_UNSHOWN = object()


def _none_for_infinity(value: Any) -> Any:
    return None if isinstance(value, float) and value == math.inf else value


InfinityMeansNone = BeforeValidator(_none_for_infinity)
"""For optional bounds: `.inf` means that there is no bound, as does leaving the key out."""


class Spec(BaseModel):
    """A frozen model that refuses unknown keys; the text below a field is its description."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


def problems(error: ValidationError, model: type[BaseModel], data: object) -> Iterator[tuple[Location, str]]:
    """Yield (location, sentence) for each fault in `error`, in terms of the file that `data` was read from.

    A location consists of the file's keys and indexes; the tags that pydantic adds for a union are removed. For an
    unknown key the sentence suggests the nearest known one.
    """
    faults = error.errors(include_url=False)
    for fault in faults:
        at = fault["loc"]
        if fault["type"] == "too_short" and any(o["loc"][: len(at)] == at and o is not fault for o in faults):
            continue  # pydantic counts a list's faulty items as absent; their own faults are listed already
        location, owner = _walk(fault["loc"], model, data)
        yield location, _sentence(fault, location, owner)


def _sentence(fault: Mapping[str, Any], location: Location, owner: type[BaseModel] | None) -> str:
    context = fault.get("ctx", {})
    match fault["type"]:
        case "extra_forbidden":
            known = list(owner.model_fields) if owner else []
            near = get_close_matches(str(location[-1]), known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
            return f"unknown key {location[-1]!r}; {hint}"
        case "missing":
            return f"{location[-1]!r} is missing"
        case "union_tag_invalid":
            near = get_close_matches(str(context["tag"]), context["expected_tags"].replace("'", "").split(", "), n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            kind = context["discriminator"].strip("'")
            return f"unknown {kind} {context['tag']!r}{hint}; known: {context['expected_tags'].replace(chr(39), '')}"
        case "union_tag_not_found":
            return f"{context['discriminator']} is missing; it says which one this is"
        case "too_short":
            bound = context["min_length"]
            return f"must have at least {bound} {'item' if bound == 1 else 'items'}, not {context['actual_length']}"
        case "value_error":
            return str(context["error"])
    got = fault.get("input") if _NOT_REPEATED.isdisjoint(location) else _UNSHOWN
    shown = f", not {got!r}" if isinstance(got, str | int | float | bool | None) else ""
    return f"{fault['msg'][0].lower()}{fault['msg'][1:]}{shown}"


def _walk(raw: Sequence[str | int], model: type[BaseModel], data: object) -> tuple[Location, type[BaseModel] | None]:
    """Follow a pydantic location through `data`; returns it without union tags, and the model that owns its end."""
    path: list[str | int] = []
    candidates: list[type[BaseModel]] = [model]
    owner: type[BaseModel] | None = model
    at = data
    for position, part in enumerate(raw):
        last = position == len(raw) - 1
        owner = next((c for c in candidates if isinstance(part, str) and part in c.model_fields), None)
        if isinstance(at, Mapping) and (part in at or last):
            path.append(part)
            owner = owner or (candidates[0] if candidates else None)
            annotation = owner.model_fields[str(part)].annotation if owner and part in owner.model_fields else None
            candidates = list(_models(annotation)) if annotation is not None else candidates
            at = at.get(part)
        elif isinstance(at, list | tuple) and isinstance(part, int) and part < len(at):
            path.append(part)
            at = at[part]
        else:
            tagged = [c for c in candidates if part in _tags(c)]
            candidates = tagged or candidates
    return tuple(path), owner


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Every model class in a type annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (Union, UnionType) or get_args(annotation):
        for inner in get_args(annotation):
            yield from _models(inner)


def _tags(model: type[BaseModel]) -> tuple[Any, ...]:
    """The literal values that select `model` in a discriminated union, and its own name."""
    literals = [get_args(f.annotation) for name, f in model.model_fields.items() if name in ("kind", "strategy")]
    return (model.__name__, *(value for group in literals for value in group))
