"""Settings of the whole suite."""

import atexit
import os
import warnings

import pytest
from hypothesis import settings

# One thread of arithmetic in each test process, and in each command that a test starts. Several test processes share
# the cores, and threads that spin while they wait for others keep those from working: training the smallest Llama took
# 185 s on two loaded cores with two threads, and 27 s with one. NumPy and PyTorch read these when they are imported.
for _threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_threads, "1")

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
