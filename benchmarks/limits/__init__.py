"""How well clients use and keep rate limits, counted by servers that are not ours: `python -m benchmarks.limits`."""
