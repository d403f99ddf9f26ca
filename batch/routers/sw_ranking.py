"""RouteLLM's similarity-weighted ranking: the strengths of two models in battles that are like the prompt.

Every battle is weighed by `10 * 10**(s / max(s))`, where s is the cosine of its vector and the prompt's; models are
grouped into tiers; the tiers' strengths are fitted to the weighed battles, and the win rate follows from the
difference of two of them (Ong et al. 2024, arXiv 2406.18665, section 4.2, as their code has it). Their code fits one
regression of as many rows as there are battles for each prompt. Here a prompt's weights are summed by who beat whom,
which is all that the fit depends on, and a whole batch of prompts is fitted at once.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from batch.arrays import Float32s, Floats
from batch.routers.base import Embedder, Router
from batch.routers.checkpoints.format import EncoderConfig
from batch.routers.embedders.registry import build_embedder
from batch.routers.estimators.bradley_terry import fit_strengths
from batch.routers.kind import BuildContext, RouterKind
from schemas.routers import SwRankingRouterSpec

if TYPE_CHECKING:
    from batch.routers.arena.arena import Arena

# Similarities held at once, 4 bytes each: enough for a product to run at full speed, small enough for any machine.
_AT_ONCE = 4_000_000
_MOST_PROMPTS = 512


class SwRankingRouter:
    """Scores of shape (prompts, 1): how likely the strong model's answer wins.

    Holds 4 bytes for each battle and number of its vector, and 16 MB while it scores, however many prompts come.
    """

    def __init__(self, strongest: str, arena: "Arena", strong: str, weak: str, embedder: Embedder) -> None:
        """`strongest` is the job's; `strong` and `weak` are the battles'. Raises SpecError as `Arena.pair` does."""
        self.models: tuple[str, ...] = (strongest,)
        self._arena = arena
        self._embedder = embedder
        self._strong, self._weak = arena.pair(strong, weak)
        # Where the battles weigh the same; no prompt is far from it.
        self._start = fit_strengths(arena.unweighted_wins())[0]

    def score(self, prompts: Sequence[str]) -> Float32s:
        vectors = self._embedder.embed(prompts)
        at_once = max(1, min(_MOST_PROMPTS, _AT_ONCE // len(self._arena.vectors)))
        scores = np.empty((len(prompts), 1), dtype=np.float32)
        for start in range(0, len(prompts), at_once):
            some = slice(start, start + at_once)
            scores[some, 0] = self.win_rates(vectors[some])
        return scores

    def win_rates(self, vectors: Float32s) -> Floats:
        """Return how likely the strong model wins, shape (prompts,); `vectors` is (prompts, dimension)."""
        strengths = fit_strengths(self._arena.wins(self._arena.weights(vectors)), self._start)
        difference = strengths[:, self._strong] - strengths[:, self._weak]
        rates: Floats = 1.0 / (1.0 + np.exp(-np.clip(difference, -500.0, 500.0)))
        return rates


def _build(spec: SwRankingRouterSpec, context: BuildContext) -> Router:
    from batch.routers.arena.arena import open_arena

    encoder = _encoder(spec)  # vectors that do not fit are refused before all of them are read
    arena = open_arena(spec)
    arena.pair(spec.strong, spec.weak)
    embedder = build_embedder(
        spec.embedder,
        encoder,
        batch_tokens=spec.batch_tokens,
        threads=context.threads,
        environment=context.environment,
    )
    return SwRankingRouter(context.strongest, arena, spec.strong, spec.weak, embedder)


# The arena reads its files by pyarrow, which no other router needs: it is imported when an arena is opened.
def _encoder(spec: SwRankingRouterSpec) -> EncoderConfig:
    from batch.routers.arena.arena import arena_encoder

    return arena_encoder(spec)


def _fingerprint(spec: SwRankingRouterSpec) -> str:
    from batch.routers.arena.arena import arena_fingerprint

    return arena_fingerprint(spec)


KIND = RouterKind(spec=SwRankingRouterSpec, build=_build, loads_model=True, fingerprint=_fingerprint, encoder=_encoder)
