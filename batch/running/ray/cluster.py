"""Starting a local Ray cluster, joining one that exists, and facts about the node that this process is on."""

import logging
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import ray
from ray._private import parameter, ray_constants, worker
from ray._private import utils as _utils
from ray._private.node import Node
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import batch
import schemas
from batch.errors import SpecError, StorageError
from batch.running.ray.folder import RayFolder

# Rows travel through files. The store holds a few tables on their way to a scorer and no more.
STORE_BYTES = 256 << 20

_CONNECT_SECONDS = 5.0

# Ray's messages quote the logs of its processes.
_MOST_CHARACTERS = 500

_QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": False}

# A resource of the head that looks like the one every node has of its own.
_HEAD = "node:__internal_head__"


def this_node() -> NodeAffinitySchedulingStrategy:
    """Schedules work on the node of this process and on no other."""
    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)


def raylet_socket() -> str:
    """The path of the socket of this node's raylet."""
    return str(_node_record()["RayletSocketName"])


def head_address() -> str:
    """Where the head of the cluster listens: `host:port`."""
    return str(ray.get_runtime_context().gcs_address)


def local_task_options() -> tuple[dict[str, Any], int]:
    """The options of a task that must run on this node, and how many such tasks can run at once."""
    node = _node_record()
    cpus = int(node["Resources"].get("CPU", 0))
    if cpus:
        return {"scheduling_strategy": this_node()}, cpus
    # A head that offers no CPU would never run a task that asks for one. Each node offers 1 of a resource of its own.
    cpus = os.cpu_count() or 1
    own = next(name for name in node["Resources"] if name.startswith("node:") and name != _HEAD)
    return {"scheduling_strategy": this_node(), "num_cpus": 0, "resources": {own: 1 / cpus}}, cpus


def scorer_placement() -> dict[str, Any]:
    """The options of an actor that may score on any node, except on those that offer no CPU.

    Scorers reserve no CPU, so Ray alone would also place them on a head that is meant to take no work.
    """
    alive = [node for node in ray.nodes() if node["Alive"]]
    idle = [node["NodeID"] for node in alive if not node["Resources"].get("CPU", 0)]
    anywhere: dict[str, Any] = {"scheduling_strategy": "SPREAD", "num_cpus": 0}
    if not idle or len(idle) == len(alive):
        return anywhere
    return anywhere | {"label_selector": {"ray.io/node-id": f"!in({','.join(idle)})"}}


def _node_record() -> dict[str, Any]:
    own = ray.get_runtime_context().get_node_id()
    return next(node for node in ray.nodes() if node["NodeID"] == own)


def start_local_cluster(folder: RayFolder) -> None:
    """Start a cluster of one node, for this process only, with its sockets and logs in `folder`.

    Raises:
        StorageError: it could not be started.
    """
    # This logger writes at each start that the cluster asks for a token, which is Ray's default.
    logging.getLogger("ray._private.authentication.authentication_token_setup").setLevel(logging.ERROR)
    try:
        with _adapted(local=True):
            ray.init(
                # Left out, Ray would join whatever cluster RAY_ADDRESS or this machine has.
                address="local",
                include_dashboard=False,
                dashboard_host="127.0.0.1",
                _node_ip_address="127.0.0.1",
                object_store_memory=STORE_BYTES,
                num_cpus=os.cpu_count(),
                _temp_dir=folder.path,
                _plasma_directory=folder.store,
                # By default Ray gives its workers a lower priority than everything else on the machine; our run is what
                # the machine is there for. Ray would also start a worker for each CPU at once, and a run that has
                # little left to read needs no second one.
                _system_config={"worker_niceness": 0, "prestart_worker_first_driver": False},
                **_QUIET,
            )
    # Ray raises a plain Exception where its node is not up in time, and RuntimeError, OSError, ValueError elsewhere.
    except Exception as error:
        ray.shutdown()
        raise StorageError(
            f"Ray could not be started: {_one_line(error)}; rerun the same command to try again; with "
            "`engine: inline` it runs without Ray"
        ) from error


def _one_line(error: Exception) -> str:
    """The message of one of Ray's errors, on one line and cut."""
    line = " ".join(str(error).split()) or type(error).__name__
    return line if len(line) <= _MOST_CHARACTERS else f"{line[:_MOST_CHARACTERS]}..."


def join_cluster(address: str, variables: Mapping[str, str]) -> None:
    """Join the cluster at `address`. Its nodes get our code from this machine.

    Args:
        variables: environment variables for our processes on the cluster.

    Raises:
        SpecError: no cluster answers at `address`, or it cannot be joined.
    """
    # The nodes have only the libraries that our code imports.
    code = [str(Path(package.__file__).parent) for package in (batch, schemas) if package.__file__]
    silent = f"ray.address {address}: no Ray cluster answers there; start one or leave it out"
    # Ray itself would try for a minute, and then end this process.
    if _is_silent(address):
        raise SpecError(silent)
    try:
        with _adapted(local=False):
            ray.init(address=address, runtime_env={"py_modules": code, "env_vars": dict(variables)}, **_QUIET)
    except ConnectionError as error:
        raise SpecError(silent) from error
    except (ValueError, RuntimeError) as error:
        raise SpecError(f"ray.address {address}: {_one_line(error)}") from error


def _is_silent(address: str) -> bool:
    """Is `address` a host and port to which no connection can be made?"""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return False
    try:
        with socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS):
            return False
    except OSError:
        return True


class PrivateName(NamedTuple):
    """A name of Ray that is replaced while `ray.init` runs, because Ray has no option for what it does."""

    owner: Any
    name: str
    replacement: Any
    local_only: bool
    """Replaced for a local cluster only, not when a cluster is joined."""


PRIVATE_NAMES: Final = (
    # Ray would print errors of its processes to standard output, which is for our reports.
    PrivateName(worker, "listen_error_messages", lambda driver, stopped: None, False),
    # A local cluster listens on loopback only. If it might be joined from elsewhere, Ray turns 127.0.0.1 into the
    # address of the network card, and each of its processes listens on all interfaces. Ray has an environment variable
    # for it, RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER, but reads it only when it is imported, so that it would also hold for
    # a cluster that the same process joins later.
    PrivateName(ray_constants, "ENABLE_RAY_CLUSTER", False, True),
    # The processes that watch a cluster (scaler, log reader, half a dashboard) serve nobody in a cluster for one run.
    # They take 160 MiB, almost a second to start and more than one to stop.
    PrivateName(parameter, "RayParams", partial(parameter.RayParams, no_monitor=True, include_log_monitor=False), True),
    PrivateName(Node, "start_api_server", lambda node, **options: None, True),
    # Without this, Ray imports a web server into this process, 13 MiB, to see whether its agent could show a page.
    PrivateName(_utils, "get_dashboard_dependency_error", lambda: ImportError("not needed"), True),
)
"""`tests/running/ray/test_private_names.py` says what the pinned version of Ray must have."""


@contextmanager
def _adapted(local: bool) -> Iterator[None]:
    """Replace PRIVATE_NAMES, and put Ray's own back afterwards."""
    with ExitStack() as replaced:
        for private in PRIVATE_NAMES:
            if local or not private.local_only:
                replaced.callback(setattr, private.owner, private.name, getattr(private.owner, private.name))
                setattr(private.owner, private.name, private.replacement)
        yield
