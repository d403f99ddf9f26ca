"""Every kind of router, and what the rest of the program asks of a router's spec."""

import logging
from collections.abc import Mapping
from typing import Any

from batch.environment import NO_ENVIRONMENT, Environment
from batch.errors import SpecError
from batch.routers import (
    bert,
    causal_llm,
    cluster,
    constant,
    correctness,
    imported,
    knn,
    length,
    mf,
    random,
    rules,
    static,
    sw_ranking,
)
from batch.routers.base import Router
from batch.routers.checkpoints.format import EncoderConfig
from batch.routers.kind import BuildContext, RouterKind
from schemas.routers import EmbeddingRouterSpec, RouterSpec

_log = logging.getLogger("batchrouter.routers")

_KINDS: tuple[RouterKind[Any], ...] = (
    random.KIND,
    constant.KIND,
    length.KIND,
    rules.KIND,
    correctness.KIND,
    static.KIND,
    knn.KIND,
    cluster.KIND,
    mf.KIND,
    sw_ranking.KIND,
    bert.KIND,
    causal_llm.KIND,
    imported.KIND,
)
KINDS: Mapping[str, RouterKind[Any]] = {kind.name: kind for kind in _KINDS}
"""The record of each kind of router, by the `kind` of its spec."""

ROW_KINDS = tuple(name for name, kind in KINDS.items() if kind.row_spec is not None)
"""What `router-<kind>-<cutoff>` in a row may name: these need nothing but their defaults."""


def kind_of(spec: RouterSpec) -> RouterKind[Any]:
    """The record of the spec's kind."""
    return KINDS[spec.kind]


def build_router(
    spec: RouterSpec,
    models: tuple[str, ...],
    seed: int,
    threads: int | None = None,
    environment: Environment = NO_ENVIRONMENT,
) -> Router:
    """Build the router for a job's `models`, cheapest first; nothing is sent yet.

    Args:
        threads: CPU threads for routers that compute with torch or ONNX; left out, the library's own choice.
        environment: for routers whose embedder calls endpoints.

    Raises:
        SpecError: in one line, for whatever the spec names that is missing or does not fit.
    """
    router = kind_of(spec).build(spec, BuildContext(models, seed, threads, environment))
    _log.info("built the router %s for %s", spec.kind, ", ".join(router.models))
    return router


def row_spec(kind: str) -> RouterSpec | None:
    """The spec of a router that a row names by its kind alone; `None` for a kind that needs more than defaults."""
    found: RouterSpec | None = KINDS[kind].row_spec if kind in KINDS else None
    return found


def router_fingerprint(spec: RouterSpec) -> str | None:
    """Hash that changes with anything on disk that affects the router's scores; `None` where it reads nothing.

    Raises:
        SpecError: what it reads cannot be read.
    """
    fingerprint = kind_of(spec).fingerprint
    return None if fingerprint is None else fingerprint(spec)


def trained_encoder(spec: EmbeddingRouterSpec) -> EncoderConfig:
    """The encoder that the router's vectors must come from. Raises SpecError."""
    kind = next((kind for kind in _KINDS if isinstance(spec, kind.spec)), None)
    if kind is None or kind.encoder is None:
        raise SpecError(f"router.kind: {type(spec).__name__} has no encoder")
    return kind.encoder(spec)
