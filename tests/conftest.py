"""Settings of the whole suite."""

import atexit
import os
import warnings

import pytest
from hypothesis import settings

if "PYTEST_XDIST_WORKER" in os.environ:
    # Test processes that run beside each other have a core each. Where each has a thread on every core, those that have
    # nothing to do spin while they wait for the others, and arithmetic takes several times as long. Read when NumPy and
    # PyTorch are imported, so it is set before.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# Two busy cores make timings of single examples meaningless.
settings.register_profile("default", deadline=None)
settings.load_profile("default")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the `release` tests unless the `-m` expression speaks of them."""
    if "release" in config.option.markexpr:
        return
    left_out = [item for item in items if item.get_closest_marker("release") is not None]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item.get_closest_marker("release") is None]


def pytest_unconfigure() -> None:
    """Have nothing follow the summary: LiteLLM imports more of itself when the process ends, and pydantic warns.

    Who registers last is called first, and by then pytest has put back the filters that it found.
    """
    atexit.register(warnings.simplefilter, "ignore")
