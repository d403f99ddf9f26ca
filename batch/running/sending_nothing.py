"""The engine of `--finish`: it sends nothing, so results are written from what earlier sittings answered."""

from collections.abc import Sequence
from pathlib import Path

from batch.dispatch.dispatcher import DispatchEnd
from batch.running.dispatch_thread import DispatchPlan, DispatchState
from batch.running.engine import DispatchHandle, InlineEngine
from batch.runs.layout import Layout
from batch.storage.lock import FileLock


class SendsNothing:
    """Stands in for the dispatcher. It completes each shard at once, so rows without an outcome are `unsent`."""

    def __init__(self, plan: DispatchPlan) -> None:
        layout = Layout(Path(plan.run_path))
        self._lock = FileLock(layout.journal_lock, f"run directory {layout.path}")
        self._completed: list[int] = []
        self._ended = False

    def start(self) -> None:
        """Lock the journals.

        Raises:
            RunLockedError: a dispatcher is at work on this run.
        """
        self._lock.acquire()

    def feed(self, shards: Sequence[int]) -> None:
        self._completed += shards

    def close_feed(self) -> None:
        self._ended = True

    def drain(self) -> None:
        self._ended = True

    def poll(self) -> DispatchState:
        completed, self._completed = tuple(self._completed), []
        end = DispatchEnd(interrupted=False, stalled=(), notes=()) if self._ended else None
        return DispatchState(lanes=(), completed=completed, since_first=None, since_last=None, end=end)

    def close(self) -> None:
        self._lock.release()


class FinishingEngine(InlineEngine):
    """Runs everything in this process, except that nothing is sent."""

    def dispatcher(self, plan: DispatchPlan) -> DispatchHandle:
        stand_in = SendsNothing(plan)
        stand_in.start()
        return stand_in
