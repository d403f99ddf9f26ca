"""How well limits are used and kept, counted by servers that are not ours: `python -m benchmarks.limits [case ...]`."""
