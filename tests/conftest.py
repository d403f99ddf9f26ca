"""Settings of the whole suite."""

import warnings

from hypothesis import settings

# Two busy cores make timings of single examples meaningless.
settings.register_profile("default", deadline=None)
settings.load_profile("default")


def pytest_unconfigure() -> None:
    """Have nothing follow the summary: LiteLLM imports more of itself when the process ends, and pydantic warns."""
    warnings.simplefilter("ignore")
