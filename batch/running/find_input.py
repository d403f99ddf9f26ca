"""Finds the input of a job and cuts it into shards, in the same way for `check`, `estimate` and `run`."""

from builtins import map as map_here
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from batch.errors import InputError
from batch.reading.column_checks import check_column
from batch.reading.columns import ERROR_KIND, ERROR_MESSAGE
from batch.reading.formats.looks import looks_like, looks_like_table
from batch.reading.formats.without_pandas import leave_pandas_out
from batch.reading.read import read_shard
from batch.reading.records import shard_records
from batch.reading.requests.wrapped import rows_inside
from batch.reading.shard import Shard
from batch.reading.shards import Mapper, find_shards
from batch.reading.sources import Source, input_errors, open_file
from batch.running.scorer import Scorer
from batch.runs.affinity_keys import hash_key_column
from schemas.job import JobSpec

# A good file usually has a row that can be sent among its first rows, so only these are read at first.
_HEAD_BYTES = 64 << 10
_HEAD_ROWS = 64
# Faults that the lines of a file have if it is not JSON Lines at all. For these the message says what the file's first
# bytes look like.
_OF_BYTES = frozenset({"invalid_json", "invalid_encoding", "wrong_type"})


def find_input(
    job: JobSpec,
    spool: Path,
    *,
    map: Mapper = map_here,  # noqa: A002 - it stands in for the builtin
    sources: Sequence[Source] | None = None,
) -> list[Shard]:
    """Cut the input into shards, and check that each of its files has a row that can be sent.

    Raises as `find_shards` does. Raises InputError if `dispatch.hash_key` names a column that no row has, or if no row
    of a file can be sent.
    """
    leave_pandas_out()
    shards = find_shards(job.input, spool, map=map, sources=sources)
    check_hash_key(job, shards)
    check_usable(job, shards)
    return shards


def check_hash_key(job: JobSpec, shards: Sequence[Shard]) -> None:
    """Raise InputError if `dispatch.hash_key` names a column that no row has."""
    column = hash_key_column(job.dispatch)
    if column is not None:
        check_column("dispatch.hash_key", column, shards)


def check_usable(job: JobSpec, shards: Sequence[Shard]) -> None:
    """Raise InputError for the first file of which no row can be sent.

    The message says what the file looks like, or else the most frequent fault of its rows. Only the first rows of a
    file are read if one of them can be sent. Otherwise the file is read until a row can be sent.
    """
    # The job's router scores nothing here: scores cost the most time and do not decide whether a row can be sent.
    scorer = Scorer(job.router, job.models, row_models=job.input.row_models, plan_scores=False)
    files = [list(shards_of_file) for _, shards_of_file in groupby(shards, key=lambda shard: shard.name)]
    for file in files:
        if any(kind is None for kind, _ in _verdicts(job, scorer, [_head(file[0])])):
            continue
        kinds: Counter[str] = Counter()
        first: dict[str, str] = {}
        for kind, message in _verdicts(job, scorer, file):
            if kind is None or message is None:
                break
            kinds[kind] += 1
            first.setdefault(kind, message)
        else:
            has_template = job.input.prompt is not None
            raise InputError(_refusal(file[0], kinds, first, one_of_many=len(files) > 1, has_template=has_template))


def _verdicts(job: JobSpec, scorer: Scorer, shards: Sequence[Shard]) -> Iterator[tuple[str | None, str | None]]:
    """Yield the kind and the message of each row's fault; two `None` for a row that can be sent."""
    for shard in shards:
        table = scorer.score(read_shard(shard, job.input, lambda texts: [0] * len(texts)), shard.name)
        yield from zip(table[ERROR_KIND].to_pylist(), table[ERROR_MESSAGE].to_pylist(), strict=True)


def _head(shard: Shard) -> Shard:
    """Return the first rows of a shard as a shard; the whole shard if it is small or begins with a very long row."""
    if shard.format in ("parquet", "arrow"):
        rows = min(shard.rows, _HEAD_ROWS)
        return replace(shard, stop=shard.start + rows, rows=rows)
    if shard.stop - shard.start <= _HEAD_BYTES:
        return shard
    lines = _bytes(shard).split(b"\n")[:-1]
    rows = sum(1 for line in lines if line.strip())
    if not 0 < rows < shard.rows:
        return shard
    return replace(shard, stop=shard.start + sum(len(line) + 1 for line in lines), rows=rows, crc=None)


def _bytes(shard: Shard) -> bytes:
    with input_errors(shard.name), open_file(shard.location) as file:
        head: bytes = file.read_at(min(_HEAD_BYTES, shard.stop - shard.start), shard.start)
    return head


def _refusal(shard: Shard, kinds: Counter[str], first: dict[str, str], *, one_of_many: bool, has_template: bool) -> str:
    """Write the one-line message that refuses a file; `shard` is the file's first."""
    rows, (kind, most) = kinds.total(), kinds.most_common(1)[0]
    start = (
        f"{shard.name}: none of its {rows:,} rows can be sent"
        if rows > 1
        else f"{shard.name}: its only row cannot be sent"
    )
    otherwise = "; leave the file out of input.path, or correct it" if one_of_many else ""
    look = looks_like(_bytes(shard)) if shard.format == "jsonl" and kind in _OF_BYTES else None
    if look is not None:
        return f"{start}; it is {look}{otherwise}"
    if shard.format == "jsonl" and kind == "invalid_json" and looks_like_table(_bytes(shard)):
        return f"{start}; it seems to be CSV; give its name the ending .csv{otherwise}"
    message = first[kind].removeprefix(f"{shard.name}:")
    if kind == "missing_column" and not has_template:
        message += "; if the prompt is in other columns, set input.prompt to a template over them"
    if rows == 1:
        record = next(iter(shard_records(shard)))[1]
        inside = rows_inside(record) if isinstance(record, dict) else None
        if inside is not None:
            message += f"; {inside}"
        return f"{start}: line {message}{otherwise}"
    share = "all" if most == rows else f"{most:,}"
    return f"{start}; {share} of them fail like line {message}{otherwise}"
