"""Settings of the whole suite."""

from hypothesis import settings

# Two busy cores make timings of single examples meaningless.
settings.register_profile("default", deadline=None)
settings.load_profile("default")
