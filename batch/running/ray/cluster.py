"""A Ray cluster of our own, or one that was there before; and which part of it is here."""

import logging
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

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

# Ray quotes its processes' logs.
_MOST_SAID = 500

_QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": False}

# A resource of the head that looks like the one every node has of its own.
_HEAD = "node:__internal_head__"


def here() -> NodeAffinitySchedulingStrategy:
    """On this node and no other."""
    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)


def raylet_socket() -> str:
    """The path of the socket of this node's raylet."""
    return str(_this_node()["RayletSocketName"])


def head() -> str:
    """Where the head of the cluster listens: `host:port`."""
    return str(ray.get_runtime_context().gcs_address)


def near() -> tuple[dict[str, Any], int]:
    """Options of a task that must run on this node, and how many of them can run at once."""
    node = _this_node()
    cpus = int(node["Resources"].get("CPU", 0))
    if cpus:
        return {"scheduling_strategy": here()}, cpus
    # A head that takes no work would never run a task that asks for a CPU. Each node has one of a resource of its own.
    cpus = os.cpu_count() or 1
    own = next(name for name in node["Resources"] if name.startswith("node:") and name != _HEAD)
    return {"scheduling_strategy": here(), "num_cpus": 0, "resources": {own: 1 / cpus}}, cpus


def _this_node() -> dict[str, Any]:
    own = ray.get_runtime_context().get_node_id()
    return next(node for node in ray.nodes() if node["NodeID"] == own)


def start(folder: RayFolder) -> None:
    """Start a cluster of this machine alone, for this process alone, with its sockets and logs in `folder`.

    Raises:
        StorageError: it could not be started.
    """
    # Tells every run that the cluster asks for a token, as it does by default.
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
                # Ray makes its workers wait for everything else on the machine; ours are what it is there for. It also
                # starts one for each CPU at once, and a run that has little left to read needs no second one.
                _system_config={"worker_niceness": 0, "prestart_worker_first_driver": False},
                **_QUIET,
            )
    # Ray raises a plain Exception where its node is not up in time, and RuntimeError, OSError, ValueError elsewhere.
    except Exception as error:
        ray.shutdown()
        raise StorageError(
            f"Ray could not be started: {_said(error)}; the same command tries again, and with `engine: inline` it "
            "runs without Ray"
        ) from error


def _said(error: Exception) -> str:
    """What an error of Ray's says, on one line."""
    said = " ".join(str(error).split()) or type(error).__name__
    return said if len(said) <= _MOST_SAID else f"{said[:_MOST_SAID]}..."


def join(address: str, environment: Mapping[str, str]) -> None:
    """Join the cluster at `address`, and have its nodes import our code from here, with this environment.

    Raises:
        SpecError: there is none, or none that can be joined.
    """
    # Installed on the nodes is only what our code imports.
    code = [str(Path(package.__file__).parent) for package in (batch, schemas) if package.__file__]
    nobody = f"ray.address {address}: no Ray cluster answers there; start one or leave it out"
    # Ray itself tries for a minute, and then ends the process.
    if _is_silent(address):
        raise SpecError(nobody)
    try:
        with _adapted(local=False):
            ray.init(address=address, runtime_env={"py_modules": code, "env_vars": dict(environment)}, **_QUIET)
    except ConnectionError as error:
        raise SpecError(nobody) from error
    except (ValueError, RuntimeError) as error:
        raise SpecError(f"ray.address {address}: {_said(error)}") from error


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
def _adapted(local: bool) -> Iterator[None]:
    """Have `ray.init` do three things that it has no options for. Ray's version is pinned for the names used here.

    Errors of its processes are not printed: Ray would write them to standard output, where our reports go.

    A local cluster listens on loopback only. Where it may be joined from elsewhere, Ray turns 127.0.0.1 into the
    address of the network card, and then each of its processes listens on all interfaces.

    A local cluster starts none of the processes that watch it: scaler, log reader, half a dashboard. Nobody asks them
    anything; they take 160 MiB, almost a second to start and more than one to stop. Nor does this process import what
    it would need to see whether the agent that stays could have a page to show, 13 MiB.
    """
    with ExitStack() as replaced:
        _replace(replaced, worker, "listen_error_messages", lambda driver, stopped: None)
        if local:
            _replace(replaced, ray_constants, "ENABLE_RAY_CLUSTER", False)
            few = partial(parameter.RayParams, no_monitor=True, include_log_monitor=False)
            _replace(replaced, parameter, "RayParams", few)
            _replace(replaced, Node, "start_api_server", lambda node, **options: None)
            _replace(replaced, _utils, "get_dashboard_dependency_error", lambda: ImportError("not needed"))
        yield


def _replace(replaced: ExitStack, owner: Any, name: str, value: Any) -> None:
    replaced.callback(setattr, owner, name, getattr(owner, name))
    setattr(owner, name, value)
