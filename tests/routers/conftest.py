"""The packaged encoder is loaded once for all tests."""

import pytest

from batch.routers.base import Router
from batch.routers.build import build_router
from batch.routers.embedder import LocalEmbedder, packaged_encoder
from schemas.routers import CorrectnessRouterSpec

PAIR = ("small", "large")


@pytest.fixture(scope="session")
def embedder() -> LocalEmbedder:
    return LocalEmbedder(packaged_encoder(), layer=2, max_tokens=256, batch_tokens=1024)


@pytest.fixture(scope="session")
def correctness() -> Router:
    return build_router(CorrectnessRouterSpec(batch_tokens=1024), PAIR, seed=0)
