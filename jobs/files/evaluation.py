"""Loads evaluation files, without importing anything heavy."""

from collections.abc import Sequence
from pathlib import Path

from jobs.files.yaml_specs import PathKeys, load_spec
from schemas.evaluation_spec import EvalSpec

_PATHS = PathKeys(
    paths=(("benchmarks", "*", "path"), ("output",), ("cache",), ("routers", "*", "embedder", "cache")),
    paths_or_ids=(
        ("routers", "*", "checkpoint"),
        ("routers", "*", "embedder", "model"),
        ("routers", "*", "battles"),
        ("routers", "*", "embeddings"),
    ),
    endpoints=(("routers", "*", "embedder"), ("routers", "*", "embedder", "endpoints", "*")),
)


def load_evaluation(path: Path, settings: Sequence[str] = ()) -> EvalSpec:
    """Load an evaluation file, and apply `--set` settings to it. Raises SpecError, one line per fault."""
    return load_spec(path, EvalSpec, settings, _PATHS)
