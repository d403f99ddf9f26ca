"""The packaged encoder, and a router of each kind that loads a checkpoint, each built once for all tests."""

import pytest

from batch.routers.base import Router
from batch.routers.checkpoints.encoder_files import packaged_encoder
from batch.routers.embedders.local import LocalEmbedder
from batch.routers.registry import build_router
from schemas.routers import (
    BertRouterSpec,
    CausalLlmRouterSpec,
    ClusterRouterSpec,
    CorrectnessRouterSpec,
    KnnRouterSpec,
    MfRouterSpec,
    StaticRouterSpec,
)
from tests.routers.tiny_bert import build_tiny_bert
from tests.routers.tiny_causal import build_tiny_causal

PAIR = ("small", "large")


@pytest.fixture(scope="session")
def embedder() -> LocalEmbedder:
    return LocalEmbedder(packaged_encoder(), layer=2, max_tokens=256, batch_tokens=1024)


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Router:
    folder = build_tiny_bert(tmp_path_factory.mktemp("bert"))
    return build_router(BertRouterSpec(kind="bert", checkpoint=str(folder), batch_tokens=256), PAIR, seed=0)


@pytest.fixture(scope="session")
def causal_llm(tmp_path_factory: pytest.TempPathFactory) -> Router:
    folder = build_tiny_causal(tmp_path_factory.mktemp("causal_llm"))
    return build_router(CausalLlmRouterSpec(kind="causal_llm", checkpoint=str(folder), batch_tokens=600), PAIR, seed=0)


@pytest.fixture(scope="session")
def correctness() -> Router:
    return build_router(CorrectnessRouterSpec(batch_tokens=1024), PAIR, seed=0)


@pytest.fixture(scope="session")
def static() -> Router:
    return build_router(StaticRouterSpec(kind="static"), PAIR, seed=0)


@pytest.fixture(scope="session")
def knn(tmp_path_factory: pytest.TempPathFactory) -> Router:
    from tests.routers.vectors import write_neighbours

    spec = KnnRouterSpec(kind="knn", checkpoint=write_neighbours(tmp_path_factory.mktemp("knn"), "knn"))
    return build_router(spec, PAIR, seed=0)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Router:
    from tests.routers.vectors import write_neighbours

    folder = write_neighbours(tmp_path_factory.mktemp("cluster"), "cluster", places=20)
    return build_router(ClusterRouterSpec(kind="cluster", checkpoint=folder), PAIR, seed=0)


@pytest.fixture(scope="session")
def mf(tmp_path_factory: pytest.TempPathFactory, embedder: LocalEmbedder) -> Router:
    from batch.routers.mf import MfRouter, open_factors
    from tests.routers.routellm_layouts import write_mf

    spec = MfRouterSpec(kind="mf", checkpoint=write_mf(tmp_path_factory.mktemp("mf"), 384))
    return MfRouter(PAIR[-1], open_factors(spec), spec.strong, spec.weak, embedder)


@pytest.fixture(scope="session")
def sw_ranking(embedder: LocalEmbedder) -> Router:
    from batch.routers.arena.arena import build_arena
    from batch.routers.sw_ranking import SwRankingRouter
    from tests.routers.routellm_layouts import MODELS, draw_battles

    battles, vectors = draw_battles(300, 384)
    return SwRankingRouter(PAIR[-1], build_arena(battles, [vectors], 300, 5), MODELS[0], MODELS[-1], embedder)
