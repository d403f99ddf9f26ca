"""Where work runs: in this process, or on Ray. The pipeline sees no difference but time."""

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, Protocol

from batch.environment import Environment
from batch.errors import BatchRouterError
from batch.running.dispatch_thread import DispatchPlan, DispatchState, DispatchThread
from batch.running.stages import ReadTask, ScoredShard, ScoreTask, read_and_score

Handle = Any
"""Stands for one piece of work that was asked for."""


class DispatchHandle(Protocol):
    """The dispatcher, wherever it runs. Calls arrive in order and return at once."""

    def feed(self, shards: Sequence[int]) -> None:
        """Send what is left of these shards."""
        ...

    def close_feed(self) -> None:
        """Nothing more comes."""
        ...

    def drain(self) -> None:
        """Start nothing new, let what is in flight end."""
        ...

    def poll(self) -> DispatchState:
        """Where it stands, and which shards were completed since the last call."""
        ...

    def close(self) -> None:
        """End it, whatever it is doing."""
        ...


class Engine(Protocol):
    """Runs functions of picklable arguments, elsewhere and several at a time where it can."""

    slots: int
    """Pieces of work worth having asked for at once."""

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Handle:
        """Ask for `function(*arguments)`."""
        ...

    def score(self, reading: ReadTask, scoring: ScoreTask) -> Handle:
        """Ask for a shard to be read, scored and stored: a ScoredShard."""
        ...

    def stop_scoring(self) -> None:
        """Nothing more is to be scored: free what routers hold."""
        ...

    def wait(self, handles: Collection[Handle], seconds: float) -> list[Handle]:
        """Those that are done, as soon as there is one; none after `seconds`."""
        ...

    def result(self, handle: Handle) -> Any:
        """What the work returned, or raise what it raised."""
        ...

    def map(self, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterable[Any]:
        """`function` of each item, in order."""
        ...

    def dispatcher(self, plan: DispatchPlan) -> DispatchHandle:
        """Start the dispatcher."""
        ...

    def close(self) -> None:
        """End what is left."""
        ...


class _Task:
    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self.function = function
        self.arguments = arguments
        self.value: Any = None
        self.error: BatchRouterError | None = None


class InlineEngine:
    """Everything in this process: for tests, small jobs and dry runs. Work is done while it is waited for."""

    slots = 1

    def __init__(self, environment: Environment, pause: Callable[[float], None]) -> None:
        """
        Args:
            environment: keys and wall clock, for routers and dispatchers that call endpoints.
            pause: lets so many seconds pass.
        """
        self._environment = environment
        self._pause = pause
        self._scorer: Any = None

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Handle:
        return _Task(function, arguments)

    def score(self, reading: ReadTask, scoring: ScoreTask) -> Handle:
        return _Task(self._score, (reading, scoring))

    def stop_scoring(self) -> None:
        self._scorer = None

    def wait(self, handles: Collection[Handle], seconds: float) -> list[Handle]:
        for task in handles:
            try:
                task.value = task.function(*task.arguments)
            except BatchRouterError as error:
                task.error = error
            return [task]
        # Only the dispatcher's thread is at work.
        self._pause(seconds)
        return []

    def result(self, handle: Handle) -> Any:
        if handle.error is not None:
            raise handle.error
        return handle.value

    def map(self, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterable[Any]:
        return map(function, items)

    def dispatcher(self, plan: DispatchPlan) -> DispatchHandle:
        dispatcher = DispatchThread(plan, self._environment)
        dispatcher.start()
        return dispatcher

    def close(self) -> None:
        """Nothing outlives a call."""

    def _score(self, reading: ReadTask, scoring: ScoreTask) -> ScoredShard:
        if self._scorer is None:
            self._scorer = scoring.build(environment=self._environment)
        return read_and_score(reading, self._scorer)
