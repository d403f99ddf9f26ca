"""The packaged encoder is loaded once for all tests."""

import pytest

from batch.routers.base import Router
from batch.routers.build import build_router
from batch.routers.embedder import LocalEmbedder, packaged_encoder
from schemas.routers import BertRouterSpec, CausalLlmRouterSpec, ClusterRouterSpec, CorrectnessRouterSpec, KnnRouterSpec
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
def knn(tmp_path_factory: pytest.TempPathFactory) -> Router:
    from tests.routers.vectors import write_neighbours

    spec = KnnRouterSpec(kind="knn", checkpoint=write_neighbours(tmp_path_factory.mktemp("knn"), "knn"))
    return build_router(spec, PAIR, seed=0)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Router:
    from tests.routers.vectors import write_neighbours

    folder = write_neighbours(tmp_path_factory.mktemp("cluster"), "cluster", places=20)
    return build_router(ClusterRouterSpec(kind="cluster", checkpoint=folder), PAIR, seed=0)
