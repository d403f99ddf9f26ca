"""Private names of Ray that we replace: what the pinned version must have beside its documented interface."""

import inspect
import tomllib
from pathlib import Path

import pytest
import ray
from ray._private import parameter, ray_constants, worker
from ray._private.node import Node

from batch.running.ray.cluster import PRIVATE_NAMES, PrivateName

PYPROJECT = Path(__file__).parents[3] / "pyproject.toml"


def test_ray_is_pinned_to_the_version_that_these_names_are_of() -> None:
    """A new version of Ray must pass these tests before users get it."""
    needed = tomllib.loads(PYPROJECT.read_text())["project"]["dependencies"]
    assert "ray>=2.60,<2.61" in needed
    assert ray.__version__.startswith("2.60.")


def test_these_names_are_replaced() -> None:
    """There are five, one of them replaced also when a cluster is joined; a sixth needs a reason beside it."""
    assert [(private.name, private.local_only) for private in PRIVATE_NAMES] == [
        ("listen_error_messages", False),
        ("ENABLE_RAY_CLUSTER", True),
        ("RayParams", True),
        ("start_api_server", True),
        ("get_dashboard_dependency_error", True),
    ]


@pytest.mark.parametrize("private", PRIVATE_NAMES, ids=lambda private: private.name)
def test_ray_has_the_name(private: PrivateName) -> None:
    """The pinned Ray has each name, and it is Ray's own while no cluster is being started."""
    assert getattr(private.owner, private.name) is not private.replacement


def test_they_are_called_as_the_replacements_expect() -> None:
    """The replacements take the arguments that Ray 2.60 passes."""
    assert list(inspect.signature(worker.listen_error_messages).parameters) == ["worker", "threads_stopped"]
    assert isinstance(ray_constants.ENABLE_RAY_CLUSTER, bool)
    assert {"no_monitor", "include_log_monitor"} <= set(inspect.signature(parameter.RayParams).parameters)
    kinds = [p.kind for p in inspect.signature(Node.start_api_server).parameters.values()]
    assert kinds == [inspect.Parameter.POSITIONAL_OR_KEYWORD, *[inspect.Parameter.KEYWORD_ONLY] * 2]
