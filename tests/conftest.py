"""Settings of the whole suite."""

import atexit
import warnings

from hypothesis import settings

# Two busy cores make timings of single examples meaningless.
settings.register_profile("default", deadline=None)
settings.load_profile("default")


def pytest_unconfigure() -> None:
    """Have nothing follow the summary: LiteLLM imports more of itself when the process ends, and pydantic warns.

    Who registers last is called first, and by then pytest has put back the filters that it found.
    """
    atexit.register(warnings.simplefilter, "ignore")
