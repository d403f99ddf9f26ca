"""`status` and `report`: read a run directory without disturbing a run that may be using it."""

import fcntl
from collections import Counter
from pathlib import Path
from zlib import crc32

import orjson
from pydantic import ValidationError

from batch.errors import SpecError
from batch.runs.committed import read_commit
from batch.runs.journal.replay import replay
from batch.runs.layout import Layout
from batch.runs.manifest import read_manifest
from batch.runs.routing_record import read_routing_record
from batch.runs.waits import read_waits
from jobs.environment import wall_clock
from schemas.reports import Report
from schemas.run_status import RunStatus, Wait


def read_status(path: Path) -> RunStatus:
    """How far the run in this directory has come.

    Raises:
        SpecError: it is no run directory.
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
    return RunStatus(
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
        waits={model: Wait(*wait) for model, wait in read_waits(layout.waits).items() if wait.until > wall_clock()},
    )


def stored_report(path: Path) -> Report:
    """Read the report of a finished run.

    Raises:
        SpecError: the run has no report, or it is damaged or of another version.
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
    """Whether a process holds this lock."""
    try:
        with path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            return False
    except FileNotFoundError:
        return False
