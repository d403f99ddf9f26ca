"""The dispatcher of a sitting as the pipeline uses it: started once, fed with routed shards, and watched."""

from collections.abc import Callable, Sequence

from batch.dispatch.dispatcher import DispatchEnd
from batch.dispatch.snapshot import LaneSnapshot
from batch.running.dispatch_thread import DispatchState
from batch.running.engine import DispatchHandle
from batch.running.run_shards import RunShards
from batch.running.shard_states import ShardState
from batch.running.sitting_times import SittingTimes
from batch.runs.layout import Layout
from batch.runs.output.commit import discard_commits


class DispatchFeed:
    """Feeds routed shards to a dispatcher and notes which of them it has completed.

    Attributes:
        started: has `start` been called?
        closed: was the dispatcher told that no more shards come?
    """

    def __init__(
        self, build: Callable[[], DispatchHandle], shards: RunShards, layout: Layout, times: SittingTimes
    ) -> None:
        """
        Args:
            build: starts the dispatcher.
            shards: of the run; their states are kept.
            times: are told when requests were sent.
        """
        self._build = build
        self._shards = shards
        self._layout = layout
        self._times = times
        self._dispatcher: DispatchHandle | None = None
        self._state: DispatchState | None = None
        self._fed = False
        self.closed = False

    @property
    def started(self) -> bool:
        return self._dispatcher is not None

    @property
    def polled(self) -> bool:
        """Has the dispatcher said where it stands?"""
        return self._state is not None

    @property
    def end(self) -> DispatchEnd | None:
        """How the dispatcher ended; `None`: it has not ended, or was not started."""
        return self._state.end if self._state is not None else None

    @property
    def lanes(self) -> tuple[LaneSnapshot, ...]:
        """The lanes as of the last poll."""
        return self._state.lanes if self._state is not None else ()

    def start(self) -> None:
        """Start the dispatcher."""
        self._dispatcher = self._build()

    def feed(self, shards: Sequence[int]) -> None:
        """Have the dispatcher send what is left of these routed shards.

        Before `start` and after the feed was closed the shards stay routed, and nothing else happens.
        """
        if self._dispatcher is not None and not self.closed:
            self._fed = True
            discard_commits(self._layout, shards)
            self._shards.states.move_all(shards, ShardState.SENDING)
            self._dispatcher.feed(shards)

    def poll(self, *, drain: bool) -> bool:
        """Take what the dispatcher says, if it was ever given anything to do.

        Args:
            drain: have it start nothing new. Otherwise the feed is closed once every shard is routed.

        Returns:
            Was it asked?

        Raises:
            BatchRouterError: the dispatcher failed.
        """
        if self._dispatcher is None or not (self._fed or drain):
            return False
        self._fed = True
        if drain:
            self.closed = True
            self._dispatcher.drain()
        elif not self.closed and self._shards.all_routed:
            self.closed = True
            self._dispatcher.close_feed()
        self._state = self._dispatcher.poll()
        if self._state.error is not None:
            raise self._state.error
        self._times.saw(self._state)
        self._shards.states.move_all(self._state.completed, ShardState.ANSWERED)
        return True

    def close(self) -> None:
        """End the dispatcher, whatever it is doing."""
        if self._dispatcher is not None:
            self._dispatcher.close()
