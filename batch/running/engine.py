"""Engines run the work of a pipeline: in this process, or on Ray. The results are the same."""

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, Protocol

from batch.environment import Environment
from batch.errors import BatchRouterError
from batch.running.dispatch_thread import DispatchPlan, DispatchState, DispatchThread
from batch.running.stages import ReadTask, ScoredShard, ScoreTask, read_and_score

Handle = Any
"""Stands for one call that an engine was given."""


class DispatchHandle(Protocol):
    """The dispatcher, wherever it runs. Calls arrive in order and return at once."""

    def feed(self, shards: Sequence[int]) -> None:
        """Send what is left of these shards."""
        ...

    def close_feed(self) -> None:
        """Say that no more shards come: the dispatcher ends once every row has its outcome."""
        ...

    def drain(self) -> None:
        """Start nothing new, let what is in flight end."""
        ...

    def poll(self) -> DispatchState:
        """The state of the dispatch, with the shards that were completed since the last call."""
        ...

    def close(self) -> None:
        """End the dispatcher at once, whatever it is doing."""
        ...


class Engine(Protocol):
    """Runs functions of picklable arguments, elsewhere and several at a time where it can."""

    slots: int
    """How many calls are worth having under way at once."""

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Handle:
        """Start `function(*arguments)`."""
        ...

    def score(self, reading: ReadTask, scoring: ScoreTask) -> Handle:
        """Start reading, scoring and storing a shard; the result is a ScoredShard."""
        ...

    def stop_scoring(self) -> None:
        """Free what routers hold: nothing more is scored."""
        ...

    def wait(self, handles: Collection[Handle], seconds: float) -> list[Handle]:
        """Return the handles whose work is done, as soon as there is one, or none after `seconds`."""
        ...

    def result(self, handle: Handle) -> Any:
        """Return what the work returned, or raise what it raised."""
        ...

    def map(self, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterable[Any]:
        """Return `function(item)` for each item, in order."""
        ...

    def dispatcher(self, plan: DispatchPlan) -> DispatchHandle:
        """Start a dispatcher."""
        ...

    def close(self) -> None:
        """End the engine's processes."""
        ...


class _Task:
    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self.function = function
        self.arguments = arguments
        self.value: Any = None
        self.error: BatchRouterError | None = None


class InlineEngine:
    """Runs everything in this process, inside `wait`: for tests, small jobs and dry runs."""

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
