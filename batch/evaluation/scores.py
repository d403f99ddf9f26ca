"""Routers' scores of benchmarks' prompts, kept on disk: scoring is what takes the time of an evaluation."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np

from batch.arrays import Float32s, Floats
from batch.environment import Environment
from batch.errors import SpecError
from batch.routers.base import Router
from batch.routers.checkpoints.format import CHECKPOINTS, CONFIG, TRAINING
from batch.routers.checkpoints.hub import find_folder
from batch.routers.embedders.vector_cache import VectorCache, key_of
from batch.routers.registry import build_router, router_fingerprint
from batch.routers.scores import scores_of
from batch.runs.fingerprint import IGNORED_ROUTER_KEYS
from schemas.embedders import ImportEmbedderSpec
from schemas.routers import RouterSpec, RulesRouterSpec

CACHE_FILE = "scores.sqlite"

OnProgress = Callable[[int, int], None]
"""Told how many prompts are scored, of how many."""

# What is scored between two writes: an evaluation that was interrupted goes on from there.
_AT_ONCE = 1024


@dataclass(frozen=True)
class ScoringSettings:
    """How prompts are scored."""

    seed: int
    """Of routers that draw lots."""
    version: str
    """Of this package: another one may have other formulas, so its scores are not taken."""
    cache: Path
    """Folder in which scores are kept."""
    environment: Environment
    """For routers that call endpoints."""


@dataclass(frozen=True)
class Scored:
    """What a router says of prompts."""

    predicted: Floats
    """Shape (prompts, 1): how much each needs the strongest model; or (prompts, models): each model's quality, NaN
    for a model that the router does not know."""
    asked: int
    """Different prompts that the router had to be asked for."""


def score_prompts(
    spec: RouterSpec, models: tuple[str, ...], prompts: Sequence[str], scoring: ScoringSettings, on_progress: OnProgress
) -> Scored:
    """Score prompts, each different one once, those in the cache not at all; without such no router is loaded.

    Scores are kept by the router's spec, the hash of its weights, the models and the prompt. Routers without weights
    are not worth it, and what a router or an embedder of the user's own depends on is not known: they are asked every
    time.
    Raises SpecError for a router that cannot be built, and EmbedderError where its embedder cannot be reached.
    """
    _check_rules(spec, models)
    different = list(dict.fromkeys(prompts))
    identity = _identity(spec, models, scoring.version)
    known: dict[str, Float32s] = {}
    cache = None
    if identity is not None:
        cache = VectorCache(scoring.cache, CACHE_FILE)
        keys = {key_of(identity, None, prompt): prompt for prompt in different}
        known = {keys[key]: vector for key, vector in cache.get(list(keys)).items()}
    missing = [prompt for prompt in different if prompt not in known]
    if missing:
        router = build_router(spec, models, scoring.seed, environment=scoring.environment)
        for start in range(0, len(missing), _AT_ONCE):
            on_progress(start, len(missing))
            some = missing[start : start + _AT_ONCE]
            found = dict(zip(some, _by_model(router, spec.kind, models, some), strict=True))
            known |= found
            if cache is not None and identity is not None:
                cache.put({key_of(identity, None, prompt): vector for prompt, vector in found.items()})
        on_progress(len(missing), len(missing))
    return Scored(np.stack([known[prompt] for prompt in prompts]).astype(np.float64), len(missing))


def trained_on(spec: RouterSpec, files: Sequence[str]) -> bool:
    """Does the router's checkpoint say that it was trained on one of these files, given by their SHA-256?

    Raises SpecError where the checkpoint is not on this machine.
    """
    if not hasattr(spec, "checkpoint"):
        return False
    named: str | None = spec.checkpoint
    folder = find_folder(named, "router.checkpoint") if named else CHECKPOINTS / spec.kind
    return any(sha256 in said for said in map(_read, (folder / CONFIG, folder / TRAINING)) for sha256 in files)


def _read(path: Path) -> str:
    """Empty where there is no such file: another layout than ours, which does not say."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise SpecError(f"router.checkpoint: cannot read {path}: {error.strerror}") from error


def _identity(spec: RouterSpec, models: tuple[str, ...], version: str) -> str | None:
    """What scores depend on besides the prompt; `None` for routers whose scores are not kept."""
    weights = router_fingerprint(spec)
    if weights is None or isinstance(getattr(spec, "embedder", None), ImportEmbedderSpec):
        return None
    fields = spec.model_dump(mode="json", exclude=IGNORED_ROUTER_KEYS)
    # The folder may have moved; its content counts.
    fields.pop("checkpoint", None)
    whole = json.dumps([version, weights, list(models), fields], sort_keys=True)
    return blake2b(whole.encode(), digest_size=16).hexdigest()


def _by_model(router: Router, kind: str, models: tuple[str, ...], prompts: Sequence[str]) -> Float32s:
    """Scores with the columns in the order of `models`; a pair router's one column as it is."""
    scores = scores_of(router, kind, prompts)
    if len(router.models) == 1:
        return scores
    ends = [model for model in (models[0], models[-1]) if model not in router.models]
    if ends:
        raise SpecError(f"router {kind}: it has no column for {ends[0]!r}, only for {', '.join(router.models)}")
    ordered = np.full((len(prompts), len(models)), np.nan, dtype=np.float32)
    for column, model in enumerate(models):
        if model in router.models:
            ordered[:, column] = scores[:, router.models.index(model)]
    return ordered


def _check_rules(spec: RouterSpec, models: tuple[str, ...]) -> None:
    """A job's rules name its own models; here they must be the benchmark's."""
    if isinstance(spec, RulesRouterSpec):
        for rule in spec.rules:
            if rule.model is not None and rule.model not in models:
                raise SpecError(f"a rule names the model {rule.model!r}, which is not among: {', '.join(models)}")
