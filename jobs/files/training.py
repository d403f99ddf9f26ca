"""Loads training files, without importing anything heavy."""

from collections.abc import Sequence
from pathlib import Path

from jobs.files.yaml_specs import PathKeys, load_spec
from schemas.training import TrainSpec

_PATHS = PathKeys(
    paths=(
        ("data", "*", "path"),
        ("data", "*", "input", "path"),
        ("data", "*", "runs"),
        ("embedder", "cache"),
        ("output",),
    ),
    paths_or_ids=(("embedder", "model"), ("fine_tuning", "base")),
    endpoints=(
        ("data", "*", "judge", "model", "endpoints", "*"),
        ("embedder",),
        ("embedder", "endpoints", "*"),
    ),
)


def load_training(path: Path, settings: Sequence[str] = ()) -> TrainSpec:
    """Load a training file, and apply `--set` settings to it. Raises SpecError, one line per fault."""
    return load_spec(path, TrainSpec, settings, _PATHS)
