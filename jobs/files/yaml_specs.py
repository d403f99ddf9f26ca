"""Loads YAML files into frozen specs. Each fault is one line: file, line, key, what is wrong and what to do."""

import os
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from batch.errors import SpecError
from batch.runs.layout import run_path
from jobs.files.yaml_loader import load, reason
from schemas.base import Location, problems
from schemas.job import JobSpec

M = TypeVar("M", bound=BaseModel)

# What a YAML file may hold instead of a mapping, in words for its author.
_KINDS = {type(None): "empty", list: "a list", str: "text"}

ANCHOR_PREFIX = "x-"
"""Keys at the top of a file that begin so only hold anchors, as in Docker Compose; they are ignored."""

KeyPattern = tuple[str, ...]
"""Where a key is in a file, from the top down; `*` stands for every item of a list or mapping."""


@dataclass(frozen=True)
class PathKeys:
    """Keys of a spec whose values are paths.

    A relative path in a file is relative to the file, so the file means the same from any working directory.
    """

    paths: tuple[KeyPattern, ...] = ()
    """Keys of paths."""
    paths_or_ids: tuple[KeyPattern, ...] = ()
    """Keys of paths or hub ids: a value that begins with a dot or `~`, or that exists as a file, is a path."""
    endpoints: tuple[KeyPattern, ...] = ()
    """Keys of endpoints, whose key files, certificates, sockets and commands have paths."""


_ENDPOINT_PATHS = ("api_key_file", "ca_file", "client_cert", "client_key", "uds")

_NO_PATHS = PathKeys()
_JOB_KEYS = PathKeys(
    paths=(("input", "path"), ("output", "path"), ("output", "run_dir"), ("router", "embedder", "cache")),
    paths_or_ids=(
        ("router", "checkpoint"),
        ("router", "embedder", "model"),
        ("router", "battles"),
        ("router", "embeddings"),
    ),
    endpoints=(("models", "*", "endpoints", "*"), ("router", "embedder"), ("router", "embedder", "endpoints", "*")),
)


def load_job(path: Path, settings: Sequence[str] = ()) -> JobSpec:
    """Load a job file, and apply `--set a.b.c=value` settings to it.

    Raises:
        SpecError: one line per fault.
    """
    data, root = _read(path, "a job file is a mapping of keys (name, input, models, ...)")
    job = _specified(JobSpec, data, root, path, settings, _JOB_KEYS)
    run_dir = run_path(job.output)
    if run_dir.is_absolute():
        return job
    # The output is on an object store. Beside the job file, the run directory is the same from any working directory.
    output = job.output.model_copy(update={"run_dir": str(path.absolute().parent / run_dir)})
    return job.model_copy(update={"output": output})


def load_spec(path: Path, model: type[M], settings: Sequence[str] = (), keys: PathKeys = _NO_PATHS) -> M:
    """Load any other spec file, and apply settings to it; `keys` are its keys of paths. Raises SpecError."""
    known = ", ".join(model.model_fields)
    data, root = _read(path, f"this file is a mapping of keys ({known})")
    return _specified(model, data, root, path, settings, keys)


def _specified(
    model: type[M], data: Any, root: yaml.Node | None, path: Path, settings: Sequence[str], keys: PathKeys
) -> M:
    data = {key: value for key, value in data.items() if not str(key).startswith(ANCHOR_PREFIX)}
    _make_paths_absolute(data, path.absolute().parent, keys)
    for setting in settings:
        _apply(data, setting, keys)
    return validated(model, data, root, path)


def validated(model: type[M], data: Any, root: yaml.Node | None, path: Path) -> M:
    """Build a model from `data`, which was read from `path` and has the node tree `root`.

    Raises:
        SpecError: one line per fault.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        lines = []
        for location, sentence in problems(error, model, data):
            where = f"{path}:{_line(root, location)}"
            key = ".".join(str(part) for part in location)
            lines.append(f"{where}: {key}: {sentence}" if key else f"{where}: {sentence}")
        raise SpecError("\n".join(dict.fromkeys(lines))) from error


def _read(path: Path, expected: str) -> tuple[Any, yaml.Node | None]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        near = get_close_matches(path.name, [p.name for p in path.parent.glob("*.y*ml")], n=1)
        hint = f"; did you mean {path.parent / near[0]}?" if near else ""
        raise SpecError(f"{path}: no such file{hint}") from error
    except UnicodeDecodeError as error:
        raise SpecError(f"{path}: not UTF-8 text at byte {error.start}; save it as UTF-8") from error
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        data, root = load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = mark.line + 1 if mark is not None else 1
        raise SpecError(f"{path}:{line}: not valid YAML: {reason(error)}") from error
    except yaml.YAMLError as error:
        raise SpecError(f"{path}: not valid YAML: {reason(error)}") from error
    if not isinstance(data, dict):
        raise SpecError(f"{path}: {expected}, not {_KINDS.get(type(data), 'a value')}")
    return data, root


def _line(node: yaml.Node | None, location: Location) -> int:
    """The line of the deepest part of `location` that the file contains."""
    line = 1
    for part in location:
        if isinstance(node, yaml.MappingNode):
            found = next(((k, v) for k, v in node.value if k.value == str(part)), None)
            if found is None:
                break
            line = found[0].start_mark.line + 1
            node = found[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            break
    return line


def _make_paths_absolute(data: dict[str, Any], folder: Path, keys: PathKeys) -> None:
    """Make relative paths absolute, from the file's folder. URIs and absolute paths stay as they are."""
    for wanted, absolute in ((keys.paths, _absolute), (keys.paths_or_ids, _absolute_if_path)):
        for *sections, key in wanted:
            for block in _blocks(data, sections):
                value = block.get(key)
                if isinstance(value, str):
                    block[key] = absolute(value, folder)
                elif isinstance(value, list):
                    block[key] = [absolute(v, folder) if isinstance(v, str) else v for v in value]
    for way in keys.endpoints:
        for endpoint in _blocks(data, way):
            _make_endpoint_paths_absolute(endpoint, folder)


def _blocks(data: Any, sections: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The mappings at the place that `sections` name; `*` stands for every item."""
    if not sections:
        if isinstance(data, dict):
            yield data
        return
    section, *rest = sections
    inner: Iterable[Any] = ()
    if section == "*":
        inner = data.values() if isinstance(data, dict) else data if isinstance(data, list) else ()
    elif isinstance(data, dict):
        inner = (data.get(section),)
    for one in inner:
        yield from _blocks(one, rest)


def _make_endpoint_paths_absolute(endpoint: dict[str, Any], folder: Path) -> None:
    for key in _ENDPOINT_PATHS:
        if isinstance(endpoint.get(key), str):
            endpoint[key] = _absolute(endpoint[key], folder)
    command = endpoint.get("api_key_command")
    # A program without a slash is searched for on the PATH.
    if isinstance(command, str) and "/" in command.partition(" ")[0]:
        program, space, rest = command.partition(" ")
        endpoint["api_key_command"] = f"{shlex.quote(_absolute(program, folder))}{space}{rest}"
    elif isinstance(command, list) and command and isinstance(command[0], str) and "/" in command[0]:
        endpoint["api_key_command"] = [_absolute(command[0], folder), *command[1:]]


def _absolute(value: str, folder: Path) -> str:
    if value.startswith("~"):
        value = os.path.expanduser(value)  # noqa: PTH111  Path.expanduser raises where there is no home
    if not value or "://" in value or value.startswith("/"):
        return value
    slash = "/" if value.endswith("/") else ""
    return f"{folder / value}{slash}"


def _absolute_if_path(value: str, folder: Path) -> str:
    return _absolute(value, folder) if value.startswith((".", "~")) or (folder / value).exists() else value


def _apply(data: dict[str, Any], setting: str, keys: PathKeys) -> None:
    """Apply one setting, `key.key=value`, to `data`; numbers in the key step into lists. Raises SpecError."""
    key, equals, text = setting.partition("=")
    if not equals or not key:
        raise SpecError(f"--set {setting!r}: write it as key.key=value")
    try:
        value = load(text)[0] if text else None
    except yaml.YAMLError as error:
        raise SpecError(f"--set {key}: the value {text!r} is not valid YAML: {reason(error)}") from error
    parts = key.split(".")
    if isinstance(value, str):
        of_endpoint = parts[-1] in _ENDPOINT_PATHS and _matches_any(parts[:-1], keys.endpoints)
        if of_endpoint or _matches_any(parts, keys.paths):
            value = _absolute(value, Path.cwd())
        elif _matches_any(parts, keys.paths_or_ids):
            value = _absolute_if_path(value, Path.cwd())
    at: Any = data
    for position, part in enumerate(parts):
        last = position == len(parts) - 1
        if isinstance(at, list):
            if not part.isdigit() or int(part) >= len(at):
                raise SpecError(f"--set {key}: {'.'.join(parts[:position])} has items 0 to {len(at) - 1}, not {part!r}")
            index: Any = int(part)
        elif isinstance(at, dict):
            index = part
        else:
            raise SpecError(f"--set {key}: {'.'.join(parts[:position])} holds a value, not keys")
        if last:
            at[index] = value
        elif isinstance(at, dict):
            at = at.setdefault(index, {})
        else:
            at = at[index]


def _matches_any(parts: Sequence[str], patterns: Sequence[KeyPattern]) -> bool:
    return any(
        len(pattern) == len(parts) and all(key in ("*", part) for key, part in zip(pattern, parts, strict=True))
        for pattern in patterns
    )
