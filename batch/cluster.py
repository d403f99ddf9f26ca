"""Ray: reading and scoring spread over the cluster, the dispatcher on this node. The only module that imports it."""

import logging
import os
import socket
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import ray
from ray._private import ray_constants
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from batch.dispatch.host import DispatchHost, DispatchPlan, DispatchState
from batch.engine import Handle
from batch.errors import SpecError, StorageError
from batch.routers.base import Outside
from batch.stages import Reading, ScoredShard, Scoring, read_and_score, read_table, score_table

# Rows travel through files. The store holds a few tables on their way to a scorer and no more.
_OBJECT_STORE_BYTES = 256 << 20

_RETRIES = 3
_TASK_NICENESS = 10
_CLOSE_SECONDS = 10.0
_CONNECT_SECONDS = 5.0


class RayEngine:
    """Tasks and actors on Ray.

    A local cluster listens on loopback only, has no dashboard and ends with `close`. Keys are not passed: the
    dispatcher looks them up, by name, in the environment of its own process.
    """

    def __init__(
        self,
        *,
        address: str | None,
        actors: int | str,
        keys: Callable[[str], str | None],
        wall: Callable[[], float],
        pause: Callable[[float], None],
    ) -> None:
        """Join the cluster at `address`, or start a local one.

        Args:
            address: `None` starts a local cluster.
            actors: scoring actors for heavy routers, or `auto`.

        Raises:
            SpecError: there is no cluster at `address`.
        """
        self._keys = keys
        self._wall = wall
        self._pause = pause
        self._own = address is None
        _start(address)
        self.cpus = max(1, int(ray.cluster_resources().get("CPU", 1)))
        self.gpus = int(ray.cluster_resources().get("GPU", 0))
        self.slots = 2 * self.cpus
        self._call = ray.remote(max_retries=_RETRIES)(_call)
        self._read = ray.remote(max_retries=_RETRIES)(read_table)
        # Workers start now, and not when the first shard is there to be read.
        self._warm = [self._call.remote(int) for _ in range(self.cpus)]
        self._scorers: list[_ScorerHandle] = []
        self._most_scorers = actors if isinstance(actors, int) else (self.gpus or self.cpus)

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Handle:
        return self._call.remote(function, *arguments)

    def score(self, reading: Reading, scoring: Scoring) -> Handle:
        if not scoring.heavy:
            return self._call.remote(_read_and_score_light, reading, scoring)
        scorer = min(self._scorers, key=lambda s: len(s.scoring), default=None)
        most = 1 if scoring.calls_endpoints else self._most_scorers
        if scorer is None or (scorer.scoring and len(self._scorers) < most):
            scorer = _ScorerHandle(self._start_scorer(scoring), set())
            self._scorers.append(scorer)
        handle = scorer.actor.score.remote(reading, self._read.remote(reading))
        scorer.scoring.add(handle)
        return handle

    def stop_scoring(self) -> None:
        for scorer in self._scorers:
            ray.kill(scorer.actor)
        self._scorers.clear()

    def wait(self, handles: Collection[Handle], seconds: float) -> list[Handle]:
        if not handles:
            # Only the dispatcher is at work, and each look at it costs it time.
            self._pause(seconds)
            return []
        done, _ = ray.wait(list(handles), num_returns=len(handles), timeout=0)
        if not done:
            done, _ = ray.wait(list(handles), num_returns=1, timeout=seconds)
        return list(done)

    def result(self, handle: Handle) -> Any:
        for scorer in self._scorers:
            scorer.scoring.discard(handle)
        return _unwrapped(handle)

    def map(self, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterable[Any]:
        return [_unwrapped(handle) for handle in [self.submit(function, item) for item in items]]

    def dispatcher(self, plan: DispatchPlan) -> "RayDispatcher":
        return RayDispatcher(plan, self._keys, self._wall)

    def close(self) -> None:
        if self._own:
            ray.shutdown()

    def _start_scorer(self, scoring: Scoring) -> Any:
        """On a GPU where there are GPUs, else beside the tasks: reading and routing need every CPU that Ray counts.

        One that calls endpoints needs no GPU; it runs on this node, where the keys and the cache are.
        """
        options: dict[str, Any] = {"max_restarts": -1, "max_task_retries": -1}
        if scoring.calls_endpoints:
            options |= {"scheduling_strategy": _here(), "num_cpus": 0}
        else:
            options |= {"scheduling_strategy": "SPREAD", **({"num_gpus": 1} if self.gpus else {"num_cpus": 0})}
        threads = None if self.gpus else max(1, self.cpus // self._most_scorers)
        return ray.remote(**options)(RouterActor).remote(scoring, threads, Outside(self._keys, self._wall))


@dataclass(slots=True)
class _ScorerHandle:
    actor: Any
    scoring: set[Any]


class RouterActor:
    """Keeps a loaded router and scores the tables it is sent."""

    def __init__(self, scoring: Scoring, threads: int | None, outside: Outside) -> None:
        self._scorer = scoring.build(threads, outside)

    def score(self, reading: Reading, table: Any) -> ScoredShard:
        """Score and store one shard. Done again after a crash, it stores the same."""
        return score_table(reading, table, self._scorer)


class DispatcherActor:
    """Holds the dispatcher. A class with a coroutine would make Ray run its calls side by side, in any order."""

    def start(self, plan: DispatchPlan, keys: Callable[[str], str | None], wall: Callable[[], float]) -> None:
        """Not the constructor: what that raises, Ray reports as a death."""
        self._host = DispatchHost(plan, keys, wall)

    def feed(self, shards: Sequence[int]) -> None:
        """As DispatchHandle."""
        self._host.feed(shards)

    def close_feed(self) -> None:
        """As DispatchHandle."""
        self._host.close_feed()

    def drain(self) -> None:
        """As DispatchHandle."""
        self._host.drain()

    def poll(self) -> DispatchState:
        """As DispatchHandle."""
        return self._host.poll()

    def close(self) -> None:
        """As DispatchHandle."""
        self._host.close()


class RayDispatcher:
    """The dispatcher as an actor on this node, where the run directory is."""

    def __init__(self, plan: DispatchPlan, keys: Callable[[str], str | None], wall: Callable[[], float]) -> None:
        actor = ray.remote(num_cpus=0, scheduling_strategy=_here())(DispatcherActor)
        self._actor = actor.remote()
        self._started = self._actor.start.remote(plan, keys, wall)

    def feed(self, shards: Sequence[int]) -> None:
        self._actor.feed.remote(shards)

    def close_feed(self) -> None:
        self._actor.close_feed.remote()

    def drain(self) -> None:
        self._actor.drain.remote()

    def poll(self) -> DispatchState:
        try:
            _unwrapped(self._started)
            state: DispatchState = _unwrapped(self._actor.poll.remote())
        except RayActorError as error:
            raise StorageError("the dispatcher's process died; the same command goes on") from error
        return state

    def close(self) -> None:
        # In good order first, so that the journals are synced; then the process.
        with suppress(RayActorError, GetTimeoutError):
            try:
                ray.get(self._started, timeout=_CLOSE_SECONDS)
            except RayTaskError:
                # It could not start, which is what `poll` raises: there is nothing to close.
                pass
            else:
                ray.get(self._actor.close.remote(), timeout=_CLOSE_SECONDS)
        ray.kill(self._actor)


def _here() -> NodeAffinitySchedulingStrategy:
    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)


def _start(address: str | None) -> None:
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": False}
    if address is None:
        options |= {"include_dashboard": False, "dashboard_host": "127.0.0.1", "_node_ip_address": "127.0.0.1"}
        options |= {"object_store_memory": _OBJECT_STORE_BYTES, "num_cpus": os.cpu_count()}
        # Ray makes its workers wait for everything else on the machine; ours are what it is there for.
        options |= {"_system_config": {"worker_niceness": 0}}
        # Tells every run that the cluster asks for a token, as it does by default.
        logging.getLogger("ray._private.authentication.authentication_token_setup").setLevel(logging.ERROR)
        with _on_loopback():
            ray.init(**options)
        return
    nobody = f"ray.address {address}: no Ray cluster answers there; start one or leave it out"
    try:
        # Ray itself tries for a minute, and then ends the process.
        if not _is_silent(address):
            ray.init(address=address, **options)
            return
    except ConnectionError as error:
        raise SpecError(nobody) from error
    except ValueError as error:
        raise SpecError(f"ray.address {address}: {' '.join(str(error).split())}") from error
    raise SpecError(nobody)


def _is_silent(address: str) -> bool:
    """Is this a host and port to which no connection can be made?"""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return False
    try:
        with socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS):
            return False
    except OSError:
        return True


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Have a local cluster listen on loopback only.

    Where it may be joined from elsewhere, Ray turns 127.0.0.1 into the address of the network card, and then each of
    its processes listens on all interfaces. RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0 says that it may not, if it is set
    before Ray is imported; this says it at any time.
    """
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def _call(function: Callable[..., Any], *arguments: Any) -> Any:
    # Answers wait for nobody: where all CPUs are busy, the dispatcher goes before the tasks.
    os.setpriority(os.PRIO_PROCESS, 0, _TASK_NICENESS)
    return function(*arguments)


_light: dict[str, Any] = {}


def _read_and_score_light(reading: Reading, scoring: Scoring) -> ScoredShard:
    """Read and score in one task: a light router is built faster than a table travels."""
    key = scoring.job.model_dump_json()
    if key not in _light:
        _light[key] = scoring.build()
    return read_and_score(reading, _light[key])


def _unwrapped(handle: Any) -> Any:
    """The value, or the error that the work itself raised."""
    try:
        return ray.get(handle)
    except RayTaskError as error:
        cause = error.cause
        if isinstance(cause, Exception) and not isinstance(cause, RayTaskError):
            raise cause from None
        raise
