"""A Ray cluster of our own, or one that was there before; and which part of it is here."""

import logging
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray._private import parameter, ray_constants
from ray._private import utils as _utils
from ray._private.node import Node
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import batch
import schemas
from batch.errors import SpecError

# Rows travel through files. The store holds a few tables on their way to a scorer and no more.
_OBJECT_STORE_BYTES = 256 << 20

_CONNECT_SECONDS = 5.0

_QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": False}

# A resource of the head that looks like the one every node has of its own.
_HEAD = "node:__internal_head__"


def here() -> NodeAffinitySchedulingStrategy:
    """On this node and no other."""
    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)


def near() -> tuple[dict[str, Any], int]:
    """Options of a task that must run on this node, and how many of them can run at once."""
    node = next(node for node in ray.nodes() if node["NodeID"] == ray.get_runtime_context().get_node_id())
    cpus = int(node["Resources"].get("CPU", 0))
    if cpus:
        return {"scheduling_strategy": here()}, cpus
    # A head that takes no work would never run a task that asks for a CPU. Each node has one of a resource of its own.
    cpus = os.cpu_count() or 1
    own = next(name for name in node["Resources"] if name.startswith("node:") and name != _HEAD)
    return {"scheduling_strategy": here(), "num_cpus": 0, "resources": {own: 1 / cpus}}, cpus


def start() -> None:
    """Start a cluster of this machine alone, for this process alone."""
    # Tells every run that the cluster asks for a token, as it does by default.
    logging.getLogger("ray._private.authentication.authentication_token_setup").setLevel(logging.ERROR)
    with _on_loopback(), _unwatched():
        ray.init(
            # Left out, Ray would join whatever cluster RAY_ADDRESS or this machine has.
            address="local",
            include_dashboard=False,
            dashboard_host="127.0.0.1",
            _node_ip_address="127.0.0.1",
            object_store_memory=_OBJECT_STORE_BYTES,
            num_cpus=os.cpu_count(),
            # Ray makes its workers wait for everything else on the machine; ours are what it is there for. It also
            # starts one for each CPU at once, and a run that has little left to read needs no second one.
            _system_config={"worker_niceness": 0, "prestart_worker_first_driver": False},
            **_QUIET,
        )


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
        ray.init(address=address, runtime_env={"py_modules": code, "env_vars": dict(environment)}, **_QUIET)
    except ConnectionError as error:
        raise SpecError(nobody) from error
    except (ValueError, RuntimeError) as error:
        raise SpecError(f"ray.address {address}: {' '.join(str(error).split())}") from error


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


@contextmanager
def _unwatched() -> Iterator[None]:
    """Have a local cluster start none of the processes that watch it: scaler, log reader, half a dashboard.

    Nobody asks them anything. They take 160 MiB, almost a second to start and more than one to stop. That the agent
    that stays could have a page to show is not asked either: this process would import all it needs to see it, 13 MiB.
    """
    params, start_api_server, lacking = (
        parameter.RayParams,
        Node.start_api_server,
        _utils.get_dashboard_dependency_error,
    )
    parameter.RayParams = partial(params, no_monitor=True, include_log_monitor=False)
    Node.start_api_server = lambda node, **options: None
    _utils.get_dashboard_dependency_error = lambda: ImportError("nobody asks")
    try:
        yield
    finally:
        parameter.RayParams, Node.start_api_server = params, start_api_server
        _utils.get_dashboard_dependency_error = lacking
