"""Settings of the whole suite."""

import atexit
import warnings

import pytest
from hypothesis import settings

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
