"""Settings of the whole suite."""

import atexit
import os
import warnings
from collections.abc import Generator
from pathlib import Path

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


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Generator[None]:
    """Leave out the `release` tests unless the `-m` expression speaks of them, and put the rest into a good order."""
    if "release" not in config.option.markexpr:
        left_out = [item for item in items if item.get_closest_marker("release") is not None]
        if left_out:
            config.hook.pytest_deselected(items=left_out)
            items[:] = [item for item in items if item.get_closest_marker("release") is None]
    yield
    items[:] = in_lanes(items, int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))


def in_lanes(items: list[pytest.Item], workers: int) -> list[pytest.Item]:
    """The order in which the `real` tests, which mostly wait, run beside the others, which mostly compute.

    pytest-xdist first hands each worker an equal part of the list, and lets a worker that has finished take tests from
    the end of the longest part. Here every part but the last begins with `real` tests, whole files of them in turn,
    since the tests of a file share servers and clusters. From three workers on, the last part has none.
    """
    by_file: dict[Path, list[pytest.Item]] = {}
    others = []
    for item in items:
        if item.get_closest_marker("real") is None:
            others.append(item)
        else:
            by_file.setdefault(item.path, []).append(item)
    lanes: list[list[pytest.Item]] = [[] for _ in range(workers - 1 if workers > 2 else workers)]
    for turn, tests in enumerate(by_file.values()):
        lanes[turn % len(lanes)] += tests
    ordered: list[pytest.Item] = []
    for worker in range(workers):
        lane = lanes[worker] if worker < len(lanes) else []
        part = (len(items) - len(ordered)) // (workers - worker)
        room = max(0, part - len(lane))
        ordered += lane + others[:room]
        del others[:room]
    return ordered + others


def pytest_unconfigure() -> None:
    """Have nothing follow the summary: LiteLLM imports more of itself when the process ends, and pydantic warns.

    Who registers last is called first, and by then pytest has put back the filters that it found.
    """
    atexit.register(warnings.simplefilter, "ignore")
