"""Checks, before anything is sent, that the input has the columns that the job names."""

from collections.abc import Iterator, Sequence, Set

from batch.errors import InputError
from batch.reading.formats.arrow_files import arrow_columns
from batch.reading.formats.parquet import parquet_columns
from batch.reading.records import shard_records
from batch.reading.requests.foreign import foreign_shape
from batch.reading.requests.wrapped import rows_inside
from batch.reading.shapes import Shaper, has_shape
from batch.reading.shard import Shard
from batch.reading.template import BRACES_HINT
from schemas.job import InputSpec

COLUMNS_SHOWN = 8


def check_columns(spec: InputSpec, shards: Sequence[Shard]) -> None:
    """Check that some row has each column that the spec names, and that some row has a known shape.

    For a good input the first rows suffice; only a wrong one is read to its end. An input whose lines are all broken
    passes, since each of its rows is reported as invalid with its own reason.

    Raises:
        InputError: no row has one of the columns, or no row has a known shape.
    """
    shaper = Shaper(spec)
    template = shaper.template
    templates = {"input.prompt": template, "input.system": shaper.system.template}
    absent = {key: one.absent(frozenset()) for key, one in templates.items() if one is not None}
    missing = frozenset() if spec.id_column in (None, "none") else frozenset({spec.id_column})
    shaped = template is not None
    seen: list[str] = []
    for columns in _column_sets(shards):
        seen = seen or list(columns)
        missing -= columns
        absent = {key: names & one.absent(columns) for key, names in absent.items() if (one := templates[key])}
        shaped = shaped or has_shape(columns)
        if shaped and not missing and not any(absent.values()):
            return
    if not seen:
        return
    header = _header_hint(spec, shards, seen)
    for key, names in absent.items():
        if names:
            raise _absent(key, min(names), seen, f"{header}; {BRACES_HINT}")
    if missing:
        raise _absent("input.id_column", min(missing), seen, header)
    foreign = foreign_shape(frozenset(seen)) or _only_object(shards)
    raise InputError(
        f"input.prompt: no row has prompt, messages, input or body; give a template over its columns: {_shown(seen)}"
        + (f" ({foreign})" if foreign is not None else "")
        + header
    )


def _only_object(shards: Sequence[Shard]) -> str | None:
    """The hint for an input that is a single JSON object with all rows inside it; `None` for other inputs."""
    if len(shards) != 1 or shards[0].rows != 1:
        return None
    _, record = next(iter(shard_records(shards[0])))
    return rows_inside(record) if isinstance(record, dict) else None


def check_column(key: str, name: str, shards: Sequence[Shard]) -> None:
    """Raise InputError if no row has the column `name`, which the job file's `key` names.

    An input whose lines are all broken passes, as in `check_columns`.
    """
    seen: list[str] = []
    for columns in _column_sets(shards):
        if name in columns:
            return
        seen = seen or list(columns)
    if seen:
        raise _absent(key, name, seen)


def _header_hint(spec: InputSpec, shards: Sequence[Shard], seen: Sequence[str]) -> str:
    """The hint for a CSV file whose first line was read as its header but looks like data."""
    if spec.csv.columns is not None or not any(shard.format == "csv" for shard in shards):
        return ""
    if not any(name.replace(".", "").isdecimal() or name.endswith(("?", ".", "!")) for name in seen):
        return ""
    return "; line 1 of a CSV file is taken for its header: name the columns of one without with input.csv.columns"


def _absent(key: str, name: str, seen: Sequence[str], hint: str = "") -> InputError:
    alike = next((column for column in seen if _plain(column) == _plain(name)), None)
    if alike is not None:
        hint = f"; {alike!r} is another name, since case and spaces count{hint}"
    return InputError(f"{key}: no row has the column {name!r}; the first row has: {_shown(seen)}{hint}")


def _plain(column: str) -> str:
    """The name without case, spaces, underscores, hyphens and byte order marks, which people overlook."""
    return "".join(column.casefold().split()).replace("_", "").replace("-", "").removeprefix("\ufeff")


def _shown(columns: Sequence[str]) -> str:
    return ", ".join(columns[:COLUMNS_SHOWN]) + (", ..." if len(columns) > COLUMNS_SHOWN else "")


def _column_sets(shards: Sequence[Shard]) -> Iterator[Set[str]]:
    """Yield the column names of each row that is a JSON object, or once per shard if the file's schema fixes them."""
    for shard in shards:
        if shard.format in ("parquet", "arrow"):
            stored = parquet_columns(shard) if shard.format == "parquet" else arrow_columns(shard)
            yield dict.fromkeys((*stored, *(key for key, _ in shard.partition))).keys()
        else:
            yield from (record.keys() for _, record in shard_records(shard) if isinstance(record, dict))
