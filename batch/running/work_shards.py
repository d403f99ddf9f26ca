"""Which shards a sitting works on."""

from collections.abc import Sequence
from itertools import takewhile

from batch.errors import InputError
from batch.reading.shard import Shard, from_stored
from batch.reading.sources import Source
from batch.runs.directory import RunDirectory


def work_shards(directory: RunDirectory, sources: Sequence[Source]) -> list[Shard]:
    """All shards of the run; where the input has changed, those at its beginning that were scored before that.

    Shards are routed in input order, so nothing was ever sent of the others.

    Raises:
        InputError: a file is no longer among the sources, or none of a changed input was scored.
    """
    layout, stored = directory.layout, directory.manifest.shards or ()
    if not directory.input_changed:
        return from_stored(stored, sources, layout.spool)
    scored = list(takewhile(lambda shard: layout.scored(shard["index"]).exists(), stored))
    if not scored:
        raise InputError("the input has changed, and nothing of it was read before that; --fresh starts a new run")
    return from_stored(scored, sources, layout.spool, are_read=False)


def note_on_changed_input(directory: RunDirectory, shards: Sequence[Shard]) -> str:
    """What the report of a run says whose input has changed."""
    rows, total = sum(shard.rows for shard in shards), sum(shard["rows"] for shard in directory.manifest.shards or ())
    return (
        f"the input has changed since the run began: the results have the {rows:,} rows that were read before that, "
        f"of {total:,}; put the input back, and the same command without --finish goes on"
    )
