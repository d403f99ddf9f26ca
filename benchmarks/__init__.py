"""Each speed claim, rerunnable, with its peer measured in the same run."""
