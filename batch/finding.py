"""Finding the input of a job, in the same way for `check`, `estimate` and `run`."""

from builtins import map as map_here
from collections.abc import Sequence
from pathlib import Path

from batch.reading.present import check_column
from batch.reading.shard import Shard
from batch.reading.shards import Mapper, find_shards
from batch.reading.sources import Source
from batch.runs.keys import key_column
from schemas.job import JobSpec


def find_input(
    job: JobSpec,
    spool: Path,
    *,
    map: Mapper = map_here,  # noqa: A002 - it stands in for the builtin
    sources: Sequence[Source] | None = None,
) -> list[Shard]:
    """The shards of the input, once it is known that rows of it can be sent.

    Raises as `find_shards` does, and InputError where `dispatch.hash_key` names a column that no row has.
    """
    shards = find_shards(job.input, spool, map=map, sources=sources)
    check_hash_key(job, shards)
    return shards


def check_hash_key(job: JobSpec, shards: Sequence[Shard]) -> None:
    """Raise InputError where `dispatch.hash_key` names a column that no row has."""
    column = key_column(job.dispatch)
    if column is not None:
        check_column("dispatch.hash_key", column, shards)
