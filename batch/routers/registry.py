"""From a router's spec to the router, in one place."""

from collections.abc import Callable
from typing import TYPE_CHECKING, assert_never

from batch.environment import NO_ENVIRONMENT, Environment
from batch.routers.base import Embedder, Router
from schemas.routers import (
    BertRouterSpec,
    CausalLlmRouterSpec,
    ClusterRouterSpec,
    ConstantRouterSpec,
    CorrectnessRouterSpec,
    ImportRouterSpec,
    KnnRouterSpec,
    LengthRouterSpec,
    MfRouterSpec,
    RandomRouterSpec,
    RouterSpec,
    RulesRouterSpec,
    StaticRouterSpec,
    SwRankingRouterSpec,
)

if TYPE_CHECKING:
    from batch.routers.checkpoints.format import Checkpoint

# What `router-<kind>-<cutoff>` in a row may name: these need nothing but their defaults.
_ROW_ROUTERS: dict[str, RouterSpec] = {
    "random": RandomRouterSpec(kind="random"),
    "constant": ConstantRouterSpec(kind="constant"),
    "length": LengthRouterSpec(kind="length"),
    "correctness": CorrectnessRouterSpec(),
    "static": StaticRouterSpec(kind="static"),
}
ROW_KINDS = tuple(_ROW_ROUTERS)


def build_router(
    spec: RouterSpec,
    models: tuple[str, ...],
    seed: int,
    threads: int | None = None,
    environment: Environment = NO_ENVIRONMENT,
) -> Router:
    """Build the router for a job's `models`, cheapest first; nothing is sent yet.

    Args:
        threads: torch's, for routers that use it.
        environment: for routers that call endpoints.

    Raises:
        SpecError: in one line, for whatever the spec names that is missing or does not fit.
    """
    match spec:
        case RandomRouterSpec() | ConstantRouterSpec() | LengthRouterSpec() | RulesRouterSpec():
            return _without_weights(spec, models, seed)
        case CorrectnessRouterSpec():
            from batch.routers.correctness import CorrectnessRouter

            return _on_vectors(CorrectnessRouter, spec, models, threads, environment)
        case StaticRouterSpec():
            return _static(spec, models)
        case KnnRouterSpec():
            from batch.routers.knn import KnnRouter

            return _on_vectors(KnnRouter, spec, models, threads, environment)
        case ClusterRouterSpec():
            from batch.routers.cluster import ClusterRouter

            return _on_vectors(ClusterRouter, spec, models, threads, environment)
        case MfRouterSpec():
            return _mf(spec, models, threads, environment)
        case SwRankingRouterSpec():
            return _sw_ranking(spec, models, threads, environment)
        case BertRouterSpec():
            from batch.routers.bert import BertRouter
            from batch.routers.lookup import checkpoint_folder

            return BertRouter(models[-1], checkpoint_folder(spec), batch_tokens=spec.batch_tokens, threads=threads)
        case CausalLlmRouterSpec():
            return _causal_llm(spec, models, threads)
        case ImportRouterSpec():
            from batch.routers.imported import import_router

            return import_router(spec.path, spec.options, models)
        case _:
            assert_never(spec)


def _causal_llm(spec: CausalLlmRouterSpec, models: tuple[str, ...], threads: int | None) -> Router:
    from batch.routers.causal_llm import CausalLlmRouter
    from batch.routers.lookup import checkpoint_folder

    folder = checkpoint_folder(spec)
    return CausalLlmRouter(
        models[-1], folder, threshold=spec.threshold, batch_tokens=spec.batch_tokens, threads=threads
    )


def _without_weights(
    spec: RandomRouterSpec | ConstantRouterSpec | LengthRouterSpec | RulesRouterSpec, models: tuple[str, ...], seed: int
) -> Router:
    match spec:
        case RandomRouterSpec():
            from batch.routers.random import RandomRouter

            return RandomRouter(models[-1], seed)
        case ConstantRouterSpec():
            from batch.routers.constant import ConstantRouter

            return ConstantRouter(models[-1], spec.value)
        case LengthRouterSpec():
            from batch.routers.length import LengthRouter

            return LengthRouter(models[-1], spec.midpoint)
        case RulesRouterSpec():
            from batch.routers.rules import RulesRouter

            return RulesRouter(models, spec)
        case _:
            assert_never(spec)


def for_kind(kind: str) -> RouterSpec | None:
    """Return the spec of a router that a row asks for by kind alone; `None` for one that needs more."""
    return _ROW_ROUTERS.get(kind)


def _on_vectors(
    router: Callable[[tuple[str, ...], "Checkpoint", Embedder], Router],
    spec: CorrectnessRouterSpec | KnnRouterSpec | ClusterRouterSpec,
    models: tuple[str, ...],
    threads: int | None,
    environment: Environment,
) -> Router:
    from batch.routers.checkpoints.format import model_mixture
    from batch.routers.embedders.registry import build_embedder
    from batch.routers.lookup import open_checkpoint

    checkpoint = open_checkpoint(spec)
    model_mixture(models, checkpoint.config)  # a model it does not know is refused before the slow part
    trained_on = checkpoint.config.encoder
    embedder = build_embedder(
        spec.embedder,
        trained_on,
        batch_tokens=spec.batch_tokens,
        threads=threads,
        environment=environment,
        int8=spec.kind == "correctness",
    )
    return router(models, checkpoint, embedder)


def _static(spec: StaticRouterSpec, models: tuple[str, ...]) -> Router:
    from batch.routers.checkpoints.encoder_files import packaged_encoder
    from batch.routers.lookup import open_checkpoint
    from batch.routers.static import StaticRouter

    return StaticRouter(models, open_checkpoint(spec), packaged_encoder())


def _mf(spec: MfRouterSpec, models: tuple[str, ...], threads: int | None, environment: Environment) -> Router:
    from batch.routers.embedders.registry import build_embedder
    from batch.routers.mf import MfRouter, open_factors, pair_of

    factors = open_factors(spec)
    strong, weak = pair_of(spec, factors, models)
    factors.pair(strong, weak)  # a model it does not know is refused before the slow part
    embedder = build_embedder(
        spec.embedder, factors.encoder, batch_tokens=spec.batch_tokens, threads=threads, environment=environment
    )
    return MfRouter(models[-1], factors, strong, weak, embedder)


def _sw_ranking(
    spec: SwRankingRouterSpec, models: tuple[str, ...], threads: int | None, environment: Environment
) -> Router:
    from batch.routers.embedders.registry import build_embedder
    from batch.routers.sw_ranking import SwRankingRouter, arena_encoder, open_arena

    encoder = arena_encoder(spec)  # vectors that do not fit are refused before all of them are read
    arena = open_arena(spec)
    arena.pair(spec.strong, spec.weak)
    embedder = build_embedder(
        spec.embedder, encoder, batch_tokens=spec.batch_tokens, threads=threads, environment=environment
    )
    return SwRankingRouter(models[-1], arena, spec.strong, spec.weak, embedder)
