"""A dispatcher that is started again when its process dies."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal

from batch.clock import Clock
from batch.dispatch.snapshot import LaneSnapshot
from batch.errors import DispatcherDied
from batch.running.dispatch_thread import DispatchState
from batch.running.engine import DispatchHandle

_log = logging.getLogger("batchrouter.running")

# A dispatcher that dies more often does so for a reason that another start does not cure.
MOST_RESTARTS = 3
WITHIN_SECONDS = 600.0


class RestartingDispatcher:
    """A DispatchHandle over several dispatchers: when one dies, the next goes on from the journals.

    A row whose outcome was stored is not sent again; a row that was in flight is ambiguous. Calls arrive in order. What
    a dead dispatcher was told is repeated to the next one.
    """

    def __init__(self, start_dispatcher: Callable[[], DispatchHandle], clock: Clock) -> None:
        """
        Args:
            start_dispatcher: starts a dispatcher that waits for the lock on the journals and trusts nothing but them.
        """
        self._start_dispatcher = start_dispatcher
        self._clock = clock
        # Fed and not complete, in the order they were fed.
        self._open: dict[int, None] = {}
        self._feed_closed = False
        self._drained = False
        self._closed = False
        self._deaths: list[float] = []
        self._restarts = 0
        self._state: DispatchState | None = None
        self._before: tuple[LaneSnapshot, ...] = ()

    def start(self) -> None:
        """Start the first dispatcher. To be called once, before anything else."""
        self._dispatcher = self._start_dispatcher()

    def feed(self, shards: Sequence[int]) -> None:
        """As DispatchHandle."""
        self._open.update(dict.fromkeys(shards))
        self._dispatcher.feed(shards)

    def close_feed(self) -> None:
        """As DispatchHandle."""
        self._feed_closed = True
        self._dispatcher.close_feed()

    def drain(self) -> None:
        """As DispatchHandle."""
        self._drained = True
        self._dispatcher.drain()

    def poll(self) -> DispatchState:
        """As DispatchHandle. If the process has died, start the next dispatcher and wait for it.

        Raises:
            DispatcherDied: too many have died.
        """
        if self._state is not None and self._state.end is not None:
            # Nothing is left to do or to report, so it does not matter if the process has died since.
            return replace(self._state, completed=(), since_first=None, since_last=None)
        while True:
            try:
                state = self._dispatcher.poll()
            except DispatcherDied as death:
                self._start_again(death)
            else:
                break
        for shard in state.completed:
            self._open.pop(shard, None)
        self._state = self._in_all(state)
        if state.end is not None:
            # The process ends before the last shards are committed, which need the resources that it holds.
            self.close()
        return self._state

    def close(self) -> None:
        """As DispatchHandle."""
        if not self._closed:
            self._closed = True
            self._dispatcher.close()

    def _start_again(self, death: DispatcherDied) -> None:
        now = self._clock()
        self._deaths = [at for at in self._deaths if now - at < WITHIN_SECONDS] + [now]
        if len(self._deaths) > MOST_RESTARTS:
            _log.error("%s %d times within %g minutes", death, len(self._deaths), WITHIN_SECONDS / 60)
            raise DispatcherDied(
                f"{death} {len(self._deaths)} times within {WITHIN_SECONDS / 60:g} minutes; "
                "rerun the same command to resume"
            ) from death
        self._dispatcher.close()
        self._restarts += 1
        _log.warning("%s; starting it again with %d open shards", death, len(self._open))
        self._before = self._state.lanes if self._state is not None else ()
        self._dispatcher = self._start_dispatcher()
        self._dispatcher.feed(tuple(self._open))
        if self._drained:
            self._dispatcher.drain()
        elif self._feed_closed:
            self._dispatcher.close_feed()

    def _in_all(self, state: DispatchState) -> DispatchState:
        """The state of the present dispatcher, with the counts of the dead ones added."""
        if not self._restarts:
            return state
        before = {lane.model: lane for lane in self._before}
        lanes = tuple(_added(lane, before.get(lane.model)) for lane in state.lanes)
        end = state.end
        if end is not None:
            times = "once" if self._restarts == 1 else f"{self._restarts} times"
            end = replace(end, notes=(f"the dispatcher's process died and was started again {times}", *end.notes))
        return replace(state, lanes=lanes, end=end)


def _added(lane: LaneSnapshot, before: LaneSnapshot | None) -> LaneSnapshot:
    """Add the counts of the same lane of an earlier dispatcher."""
    if before is None:
        return lane
    return replace(
        lane,
        total=lane.total + before.done,
        done=lane.done + before.done,
        ok=lane.ok + before.ok,
        failed=lane.failed + before.failed,
        throttled=lane.throttled + before.throttled,
        cost=None if lane.cost is None else lane.cost + (before.cost or Decimal(0)),
    )
