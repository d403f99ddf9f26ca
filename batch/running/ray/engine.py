"""The engine on Ray. Any node scores; the dispatcher, and whatever touches the run directory, runs on this node."""

import atexit
import os
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import ray
from ray.exceptions import RayActorError
from ray.experimental.internal_kv import _internal_kv_del, _internal_kv_get, _internal_kv_put

from batch.environment import Environment
from batch.errors import SpecError, StorageError
from batch.reading.formats.without_pandas import leave_pandas_out
from batch.reading.sources import is_local
from batch.running.dispatch_thread import DispatchPlan
from batch.running.engine import Handle
from batch.running.ray.cluster import (
    STORE_BYTES,
    head_address,
    join_cluster,
    local_task_options,
    raylet_socket,
    scorer_placement,
    start_local_cluster,
    this_node,
)
from batch.running.ray.dispatcher import RayDispatcher
from batch.running.ray.folder import RayFolder
from batch.running.ray.key_server import KeyServer
from batch.running.ray.waiting import lost, value
from batch.running.ray.watch import JoinedCluster, NodeWatch, OwnProcesses, watch_joined
from batch.running.scorer import Scorer
from batch.running.stages import (
    ReadTask,
    ScoredShard,
    ScoreTask,
    read_and_score,
    read_table,
    score_rows,
    score_table,
    store_scored,
)

_RETRIES = 3
# How often the process that scores a shard may die. Ray's own count of retries would not do: it also counts calls to a
# node that is gone, and so gives up a shard that another node would score.
_MOST_DEATHS = 3
_TASK_NICENESS = 10
_CLOSE_SECONDS = 10.0
_WARM_SECONDS = 10.0


class RayEngine:
    """Runs work as tasks and actors of Ray.

    A local cluster listens on loopback only, has no dashboard and ends with `close`. Its processes inherit this one's
    environment, so the dispatcher finds keys there by their names.

    A cluster that is joined gets our code from here. Whatever reads or writes the run directory, and whatever reads
    local files, runs on this node; scored rows come back to it through Ray's object store. No key is given to Ray: a
    process that needs one asks this process for it.
    """

    def __init__(
        self,
        *,
        address: str | None,
        actors: int | str,
        environment: Environment,
        pause: Callable[[float], None],
        end_process: Callable[[str | None], None],
        folders: Sequence[str],
        variables: Mapping[str, str] | None = None,
        warm: bool = True,
    ) -> None:
        """
        Args:
            address: of the cluster to join; `None`: a local one is started.
            actors: scoring actors for heavy routers, or `auto`.
            environment: keys and wall clock, for routers and dispatchers that call endpoints.
            pause: lets so many seconds pass.
            end_process: prints a line, if it is given one, and ends this process at once. Called only where Ray has
                died and a call into it does not return.
            folders: where a local cluster may have its sockets and logs, the best first.
            variables: environment variables for our processes on a joined cluster. Ray shows them to everybody who
                can reach the cluster.
            warm: have workers ready before they are asked for anything; they hold 80 MiB each.
        """
        self._address = address
        self._actors = actors
        self._folders = folders
        self._variables = variables or {}
        self._warm_up = warm
        self._environment = environment
        self._pause = pause
        self._end_process = end_process
        self._own = address is None
        self._key_server: KeyServer | None = None
        self._scorers: list[_ScorerHandle] = []
        self._folder: RayFolder | None = None
        self._own_processes: OwnProcesses | None = None
        self._watch = NodeWatch(self._end) if address is None else watch_joined(self._end)

    def start(self) -> None:
        """Join the cluster at `address`, or start a local one.

        Raises:
            SpecError: there is no cluster at `address`, or none that this node is part of; or none of `folders` serves.
            StorageError: the local cluster could not be started.
        """
        if self._address is None:
            self._start_local(RayFolder(self._folders, STORE_BYTES))
        else:
            join_cluster(self._address, self._variables)
            self._watch.start(JoinedCluster(raylet_socket(), head_address()))
        self._watch.started()
        self.cpus = max(1, int(ray.cluster_resources().get("CPU", 1)))
        self.gpus = int(ray.cluster_resources().get("GPU", 0))
        self.slots = 2 * self.cpus
        # A local cluster has one node, so tasks need no placement, and Ray is faster without.
        nearby, workers = ({}, 1) if self._address is None else local_task_options()
        self._call = ray.remote(max_retries=_RETRIES, **nearby)(_call)
        self._read = ray.remote(max_retries=_RETRIES, **nearby)(read_table)
        self._read_anywhere = ray.remote(max_retries=_RETRIES, scheduling_strategy="SPREAD")(read_table)
        # These tasks make Ray start its workers now, and not when the first shard is to be read.
        self._warm = [self._call.remote(int) for _ in range(workers)] if self._warm_up else []
        self._most_scorers = self._actors if isinstance(self._actors, int) else (self.gpus or self.cpus)
        if self._address is not None:
            key_server = KeyServer(self._environment.keys)
            key_server.start()
            self._key_server = key_server
            self._environment = replace(self._environment, keys=self._key_server.keys)
            self._check_here(self._address)

    def _start_local(self, folder: RayFolder) -> None:
        """Start a local cluster and watch it from its first process on."""
        self._folder = folder
        self._own_processes = OwnProcesses()
        self._watch.start(self._own_processes)
        try:
            start_local_cluster(folder)
        except BaseException:
            self.close()
            # Ray does not end the processes of a cluster that it could not start completely.
            for process in self._own_processes.all():
                process.kill()
            raise

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Handle:
        return self._call.remote(function, *arguments)

    def score(self, reading: ReadTask, scoring: ScoreTask) -> Handle:
        """As Engine. On a joined cluster any node scores if the router loads a model; this one stores the tables."""
        local = self._own or is_local(reading.shard.location)
        read = self._read if local else self._read_anywhere
        if not scoring.heavy:
            if local:
                return self._call.remote(_read_and_score_light, reading, scoring)
            return self._call.remote(_score_light, reading, scoring, read.remote(reading))
        scorer = min(self._scorers, key=lambda s: len(s.scoring), default=None)
        most = 1 if scoring.calls_endpoints else self._most_scorers
        if scorer is None or (scorer.scoring and len(self._scorers) < most):
            scorer = _ScorerHandle(self._start_scorer(scoring), set())
            self._scorers.append(scorer)
        if self._own:
            handle = scorer.actor.store.remote(reading, read.remote(reading))
        else:
            handle = self._call.remote(store_scored, reading, scorer.actor.score.remote(reading, read.remote(reading)))
        scorer.scoring.add(handle)
        return handle

    def stop_scoring(self) -> None:
        for scorer in self._scorers:
            ray.kill(scorer.actor)
        self._scorers.clear()

    def wait(self, handles: Collection[Handle], seconds: float) -> list[Handle]:
        if not handles:
            # Only the dispatcher is at work, and each poll takes time from it.
            self._pause(seconds)
            self._watch.check()
            return []
        self._watch.check()
        done, _ = ray.wait(list(handles), num_returns=len(handles), timeout=0)
        if not done:
            done, _ = ray.wait(list(handles), num_returns=1, timeout=seconds)
        return list(done)

    def result(self, handle: Handle) -> Any:
        for scorer in self._scorers:
            scorer.scoring.discard(handle)
        try:
            return value(self._watch, handle)
        except RayActorError as error:
            raise lost(error) from error

    def map(self, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterable[Any]:
        return [value(self._watch, handle) for handle in [self.submit(function, item) for item in items]]

    def dispatcher(self, plan: DispatchPlan) -> RayDispatcher:
        # For the first task Ray starts two workers. Once both are up, the dispatcher takes the second one; before that,
        # Ray would start a third for it, of 50 MiB, for nothing.
        if self._warm:
            ray.wait(self._warm, num_returns=len(self._warm), timeout=_WARM_SECONDS)
        dispatcher = RayDispatcher(plan, self._environment, self._watch)
        dispatcher.start()
        return dispatcher

    def close(self) -> None:
        self._watch.close()
        if self._watch.reason is None:
            ray.shutdown()
        else:
            self._shut_down_what_is_left()
        if self._key_server is not None:
            self._key_server.close()
        if self._folder is not None:
            self._folder.close()

    def _shut_down_what_is_left(self) -> None:
        """Shut down after the death of Ray's processes: `ray.shutdown` may hang, and without it Ray crashes at exit."""
        left = self._own_processes.all() if self._own_processes is not None else []
        shutting_down = threading.Thread(target=ray.shutdown, name="ray shutdown", daemon=True)
        shutting_down.start()
        shutting_down.join(_CLOSE_SECONDS)
        for process in left:
            process.kill()
        if shutting_down.is_alive():
            # Ray's exit handler would shut down again and crash. Ours is registered last, so it is called first.
            atexit.register(self._end_process, None)

    def _end(self, reason: str) -> None:
        """Kill Ray's processes, remove the folder and end this process; called in the thread of the watch."""
        for process in self._own_processes.all() if self._own_processes is not None else ():
            process.kill()
        if self._folder is not None:
            self._folder.close()
        self._end_process(reason)

    def _check_here(self, address: str) -> None:
        """Check that tasks for this node run on this machine, as this user, who can use the run directory."""
        try:
            value(self._watch, self._call.remote(self._environment.keys, ""))
        except SpecError as error:
            self.close()
            raise SpecError(
                f"ray.address {address}: this is no node of that cluster, or its processes are another user's; "
                "run the command on a node, where the run directory is"
            ) from error

    def _start_scorer(self, scoring: ScoreTask) -> Any:
        """Start an actor that scores: with a GPU if the cluster has any, else without reserving a CPU.

        Reading and routing need every CPU that Ray counts. A scorer that calls endpoints needs no GPU; it runs on this
        node, where the keys and the cache are.
        """
        options: dict[str, Any] = {"max_restarts": -1, "max_task_retries": -1}
        if scoring.calls_endpoints:
            options |= {"scheduling_strategy": this_node(), "num_cpus": 0}
        elif self.gpus:
            options |= {"scheduling_strategy": "SPREAD", "num_gpus": 1}
        else:
            options |= scorer_placement()
        threads = None if self.gpus else max(1, self.cpus // self._most_scorers)
        actor = ray.remote(**options)(RouterActor).remote(scoring, threads, self._environment)
        # Loads while the first shard is being read. If it fails, the first call that scores raises the error.
        actor.load.remote()
        return actor


@dataclass(slots=True)
class _ScorerHandle:
    actor: Any
    scoring: set[Any]


class RouterActor:
    """Keeps a loaded router and scores the tables it is sent."""

    def __init__(self, scoring: ScoreTask, threads: int | None, environment: Environment) -> None:
        """Load nothing yet: what a constructor raises, Ray reports as the death of the actor."""
        self._build = partial(scoring.build, threads, environment)
        self._scorer: Scorer | None = None

    def load(self) -> None:
        """Load the router, if it is not loaded."""
        self._loaded()

    def score(self, reading: ReadTask, table: Any) -> Any:
        """Score one shard and return its table."""
        with _counted(reading):
            return score_rows(reading, table, self._loaded())

    def store(self, reading: ReadTask, table: Any) -> ScoredShard:
        """Score and store one shard. Repeated after a crash, it stores the same."""
        with _counted(reading):
            return score_table(reading, table, self._loaded())

    def _loaded(self) -> Scorer:
        if self._scorer is None:
            leave_pandas_out()
            self._scorer = self._build()
        return self._scorer


@contextmanager
def _counted(reading: ReadTask) -> Iterator[None]:
    """Count in Ray's key-value store how often a process began to score this shard and did not come to an end.

    Raises:
        StorageError: too many have.
    """
    job = ray.get_runtime_context().get_job_id()
    name = f"batchrouter/{job}/{reading.shard.index}".encode()
    begun = int(_internal_kv_get(name) or b"0")
    if begun > _MOST_DEATHS:
        raise StorageError(
            f"the process that scored shard {reading.shard.index} of the input died, {begun} times over, as it does "
            "when memory runs out; lower router.batch_tokens or router.actors, then rerun the same command to resume"
        )
    _internal_kv_put(name, b"%d" % (begun + 1))
    try:
        yield
    finally:
        _internal_kv_del(name)


def _call(function: Callable[..., Any], *arguments: Any) -> Any:
    # If all CPUs are busy, the dispatcher has priority over the tasks, so that answers are not kept waiting.
    os.setpriority(os.PRIO_PROCESS, 0, _TASK_NICENESS)
    leave_pandas_out()
    return function(*arguments)


_light: dict[str, Scorer] = {}


def _read_and_score_light(reading: ReadTask, scoring: ScoreTask) -> ScoredShard:
    """Read and score a shard in one task: building a light router takes less time than sending a table."""
    return read_and_score(reading, _light_scorer(scoring))


def _score_light(reading: ReadTask, scoring: ScoreTask, table: Any) -> ScoredShard:
    """Score and store a table that another node has read."""
    return score_table(reading, table, _light_scorer(scoring))


def _light_scorer(scoring: ScoreTask) -> Scorer:
    key = scoring.job.model_dump_json()
    if key not in _light:
        _light[key] = scoring.build()
    return _light[key]
