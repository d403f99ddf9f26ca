"""Makes the run directory that a killed run leaves. No requests are sent; every other step is that of a real run."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from batch.dispatch.dispatcher import DispatchEnd
from batch.outcomes import RowOutcome
from batch.reading.sources import find_sources, fingerprint_sources
from batch.running.dispatch_thread import DispatchPlan, DispatchState
from batch.running.engine import DispatchHandle, InlineEngine
from batch.running.pipeline import Pipeline
from batch.running.run_work import RunWork
from batch.runs.directory import RunDirectory
from batch.runs.fingerprint import fingerprint
from batch.runs.journal.group_fsync import GroupSync
from batch.runs.layout import Layout, run_path
from benchmarks.constant_server import ANSWER
from benchmarks.dispatch import prompt
from jobs.environment import ENVIRONMENT, monotonic, pause
from jobs.files.yaml_specs import load_job
from jobs.resolve import resolve_job

URL = "http://127.0.0.1:9/v1"
MODELS = ("weak", "strong")

WasAnswered = Callable[[int, str], bool]
"""Whether a row was answered before the kill, by the row and its model."""


def stopped_run(folder: Path, rows: int, was_answered: WasAnswered) -> Path:
    """Make a job and the run directory of its first sitting; return the path of the job file.

    Each model has half of the rows and one endpoint, whose URL the caller has to set. Rows that were answered have an
    intent and an outcome in a journal, and shards without other rows are committed.
    """
    with (folder / "prompts.jsonl").open("w") as file:
        file.writelines(json.dumps({"id": f"r{row}", "prompt": prompt(row)}) + "\n" for row in range(rows))
    job = {
        "name": "stopped",
        "input": {"path": "prompts.jsonl", "params": {"temperature": 0.7}},
        "router": {"kind": "random"},
        "models": [{"name": name, "endpoints": [{"url": URL}]} for name in MODELS],
        "plan": {"strategy": "share", "strong": 0.5},
        "output": {"path": "results.jsonl"},
    }
    path = folder / "job.yaml"
    path.write_text(json.dumps(job))
    spec = load_job(path)
    sources = find_sources(spec.input)
    asked = fingerprint(spec, fingerprint_sources(sources), None)
    with RunDirectory.open(run_path(spec.output), asked, job=spec.name, created="", version="") as directory:
        Pipeline(resolve_job(spec), sources, directory, _Engine(was_answered), monotonic).run()
    return path


class _Engine(InlineEngine):
    def __init__(self, was_answered: WasAnswered) -> None:
        super().__init__(ENVIRONMENT, pause)
        self._was_answered = was_answered

    def dispatcher(self, plan: DispatchPlan) -> DispatchHandle:
        return _Dispatch(plan, self._was_answered)


class _Dispatch:
    """Writes the journals that a dispatcher would have written, and ends when its feed is closed."""

    def __init__(self, plan: DispatchPlan, was_answered: WasAnswered) -> None:
        self._was_answered = was_answered
        self._group = GroupSync(enabled=False)
        self._work = RunWork(Layout(Path(plan.run_path)), plan.models, plan.spec.fallbacks, self._group)
        self._completed: list[int] = []
        self._end: DispatchEnd | None = None

    def feed(self, shards: Sequence[int]) -> None:
        """Journal the answered rows of these shards."""
        for shard in shards:
            left = [self._journal(shard, model) for model in self._work.history(shard).remaining]
            if not any(left):
                self._completed.append(shard)

    def _journal(self, shard: int, model: str) -> int:
        left = 0
        with self._work.journal(shard, model) as journal:
            for batch in self._work.routed(shard, model):
                for request in batch:
                    if not self._was_answered(request.row, model):
                        left += 1
                        continue
                    journal.intent(request.row, 1, 0)
                    journal.outcome(
                        RowOutcome(
                            request.row,
                            status="ok",
                            endpoint=0,
                            attempts=1,
                            latency=0.25,
                            prompt_tokens=24,
                            completion_tokens=31,
                            response=ANSWER.encode(),
                        )
                    )
        return left

    def close_feed(self) -> None:
        """End as an interrupted dispatcher does; this is where the kill happens."""
        self._end = DispatchEnd(interrupted=True, stalled=(), notes=())

    def drain(self) -> None:
        """Do nothing: no request is in flight."""

    def poll(self) -> DispatchState:
        """The shards completed since the last call, and the end, once the feed is closed."""
        completed, self._completed = tuple(self._completed), []
        return DispatchState((), completed, None, None, self._end)

    def close(self) -> None:
        """Close the journals."""
        self._group.close()
