"""`status` and `report`: what a run directory says, read without disturbing the run that may be using it."""

import fcntl
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from zlib import crc32

import orjson
from pydantic import ValidationError

from batch.errors import SpecError
from batch.runs.committed import read_commit
from batch.runs.directory import read_manifest
from batch.runs.journal.replay import replay
from batch.runs.layout import Layout
from batch.runs.routing_record import read_routing_record
from batch.runs.waits import StoredWait, read_waits
from jobs.environment import wall_clock
from schemas.reports import Report


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a run stands."""

    job: str
    running: bool
    """Is a process at work on it?"""
    finished: bool
    """Is there a report?"""
    shards: int
    """0: the input has not been cut yet."""
    rows: int
    scored: int
    """Rows read and scored."""
    routed: int
    """Rows that a model was chosen for."""
    statuses: dict[str, int]
    """Rows that have ended, by how."""
    ambiguous: int
    """Rows whose request was in flight, now or when a run was killed."""
    sittings: int
    wall_seconds: float
    waits: dict[str, StoredWait] = field(default_factory=dict)
    """By model: the moment before which no endpoint of it may be asked, in seconds since 1970, and what they said."""


def standing(path: Path) -> Standing:
    """Look at a run directory.

    Raises:
        SpecError: it is none.
    """
    layout = Layout(path)
    manifest = read_manifest(layout)
    shards = manifest.shards or ()
    statuses: Counter[str] = Counter()
    scored = routed = ambiguous = 0
    for index, shard in enumerate(shards):
        scored += shard["rows"] if layout.scored(index).exists() else 0
        routing = read_routing_record(layout, index)
        if routing is not None:
            routed += sum(routing.routed.values()) + len(routing.shares_answer_of)
        record = read_commit(layout, index)
        if record is not None:
            statuses.update(orjson.loads(record.ledger)["statuses"])
            continue
        for model in routing.routed if routing is not None else ():
            journal = replay(layout.journal(index, model))
            statuses["ok"] += len(journal.ok)
            statuses["failed"] += len(journal.failed)
            ambiguous += len(journal.ambiguous)
    return Standing(
        job=manifest.job,
        running=_is_locked(layout.run_lock),
        finished=layout.report.exists(),
        shards=len(shards),
        rows=sum(shard["rows"] for shard in shards),
        scored=scored,
        routed=routed,
        statuses=dict(statuses),
        ambiguous=ambiguous,
        sittings=len(manifest.sittings),
        wall_seconds=sum(sitting.wall for sitting in manifest.sittings),
        waits={model: wait for model, wait in read_waits(layout.waits).items() if wait.until > wall_clock()},
    )


def stored_report(path: Path) -> Report:
    """The report of a finished run.

    Raises:
        SpecError: there is none, and why.
    """
    layout = Layout(path)
    manifest = read_manifest(layout)
    try:
        written = layout.report.read_bytes()
        if manifest.report is not None and manifest.report != (len(written), crc32(written)):
            raise SpecError(f"{layout.report} is damaged; run the job again, which writes it again")
        return Report.model_validate_json(written)
    except FileNotFoundError as error:
        raise SpecError(f"{path}: run {manifest.job!r} has no report yet; see `batchrouter status`") from error
    except ValidationError as error:
        raise SpecError(f"{layout.report} was not written by this version; run the job again") from error


def _is_locked(path: Path) -> bool:
    """Does a process hold this lock?"""
    try:
        with path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            return False
    except FileNotFoundError:
        return False
