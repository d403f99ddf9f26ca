"""The dispatcher in a process of its own, as a Ray actor."""

import os
from collections.abc import Sequence
from contextlib import suppress

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError

from batch.environment import Environment
from batch.errors import DispatcherDied
from batch.reading.formats.without_pandas import leave_pandas_out
from batch.running.dispatch_thread import DispatchPlan, DispatchState, DispatchThread
from batch.running.ray.cluster import this_node
from batch.running.ray.log_relay import LogBuffer, LogLine, level_wanted, log_again
from batch.running.ray.waiting import value
from batch.running.ray.watch import NodeWatch

_CLOSE_SECONDS = 10.0


class DispatcherActor:
    """The actor that runs the dispatcher. It has no coroutines, which Ray would run side by side, in any order."""

    def start(self, plan: DispatchPlan, environment: Environment, log_level: int) -> int:
        """Start the dispatcher, and return the number of this process.

        The constructor does not do it: what a constructor raises, Ray reports as the death of the actor.

        Args:
            log_level: keep log records from this level on for `poll`.
        """
        leave_pandas_out()
        self._logs = LogBuffer()
        self._logs.listen(log_level)
        self._dispatcher = DispatchThread(plan, environment)
        self._dispatcher.start()
        return os.getpid()

    def feed(self, shards: Sequence[int]) -> None:
        """As DispatchHandle."""
        self._dispatcher.feed(shards)

    def close_feed(self) -> None:
        """As DispatchHandle."""
        self._dispatcher.close_feed()

    def drain(self) -> None:
        """As DispatchHandle."""
        self._dispatcher.drain()

    def poll(self) -> tuple[DispatchState, tuple[LogLine, ...]]:
        """As DispatchHandle, with the log records since the last call."""
        return self._dispatcher.poll(), self._logs.take()

    def close(self) -> tuple[LogLine, ...]:
        """As DispatchHandle; returns the last log records."""
        self._dispatcher.close()
        return self._logs.take()


class RayDispatcher:
    """The dispatcher as an actor on this node, where the run directory is."""

    def __init__(self, plan: DispatchPlan, environment: Environment, watch: NodeWatch) -> None:
        self._plan = plan
        self._environment = environment
        self._watch = watch
        self._process: int | None = None

    def start(self) -> None:
        """Start the actor, without waiting for it. What its start raises is raised by `poll`."""
        actor = ray.remote(num_cpus=0, scheduling_strategy=this_node())(DispatcherActor)
        self._actor = actor.remote()
        self._started = self._actor.start.remote(self._plan, self._environment, level_wanted())

    def feed(self, shards: Sequence[int]) -> None:
        self._actor.feed.remote(shards)

    def close_feed(self) -> None:
        self._actor.close_feed.remote()

    def drain(self) -> None:
        self._actor.drain.remote()

    def poll(self) -> DispatchState:
        try:
            if self._process is None:
                self._process = int(value(self._watch, self._started))
            state: DispatchState
            state, lines = value(self._watch, self._actor.poll.remote(), self._process)
        except RayActorError as error:
            raise DispatcherDied("the dispatcher's process died") from error
        log_again(lines)
        return state

    def close(self) -> None:
        if self._watch.reason is not None:
            # Ray is dead: the engine ends what is left of it, and Ray's workers end with that.
            return
        # The dispatcher is closed first, so that the journals are synced; then its process is killed.
        with suppress(RayActorError, GetTimeoutError):
            try:
                ray.get(self._started, timeout=_CLOSE_SECONDS)
            except RayTaskError:
                # The dispatcher could not start, which `poll` reports: there is nothing to close.
                pass
            else:
                log_again(ray.get(self._actor.close.remote(), timeout=_CLOSE_SECONDS))
        ray.kill(self._actor)
