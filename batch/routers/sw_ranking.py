"""RouteLLM's similarity-weighted ranking: which of two models wins the battles that resemble the prompt.

A battle is a recorded comparison of two models' answers to one prompt. For each prompt to score (Ong et al. 2024,
arXiv 2406.18665, section 4.2, as their code computes it):

1. Each battle gets the weight `10 * 10**(s / max(s))`, where `s` is the cosine of its prompt's vector and this one's.
2. The strength of each tier (a group of models of like strength) is fitted to the weighted battles, by Bradley and
   Terry's model.
3. The score is the win rate that follows from the difference between the tiers of the strong and of the weak model.

RouteLLM's code fits a regression with a row for each battle, for each prompt. The fit depends only on the sum of
weights for each pair of winner and loser, so this code sums the weights first, and fits a whole batch of prompts at
once.
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

    Memory: 4 bytes for each battle and number of its vector, and 16 MB more while it scores, for any number of prompts.
    """

    def __init__(self, strongest: str, arena: "Arena", strong: str, weak: str, embedder: Embedder) -> None:
        """Fit the strengths for battles of equal weight.

        Args:
            strongest: the job's strongest model.
            arena: the battles.
            strong: name, in the battles, of the model that stands for the job's strongest.
            weak: name, in the battles, of the model that stands for the job's cheapest.

        Raises:
            SpecError: as `Arena.pair`.
        """
        self.models: tuple[str, ...] = (strongest,)
        self._arena = arena
        self._embedder = embedder
        self._strong, self._weak = arena.pair(strong, weak)
        # The strengths if all battles weigh the same: a start that is near every prompt's own.
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
        """Return the strong model's win rates, from 0 to 1, shape (prompts,); `vectors` is (prompts, dimension)."""
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
