"""Win rates per second of the router sw_ranking: in batches, and with one regression for each prompt as RouteLLM does.

    python -m benchmarks.sw_ranking [--battles N] [--dimension N] [--prompts N] [--reference N]

Battles and vectors are synthetic, of 64 models in 10 tiers. For each prompt the reference does what RouteLLM's code
does: it computes cosines with all battles in float64, vector lengths included, and then fits scikit-learn's logistic
regression on twice as many rows as there are battles. Both run in one process on the same vectors, so their ratio holds
even if the machine's speed drifts; neither includes embedding. The last line gives the largest difference of win rates.
It comes from scikit-learn, which stops at a tolerance of 1e-4; the tests compare with a converged fit, to 1e-6.
"""

import argparse
import time
import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped, unused-ignore]

from batch.arrays import Float32s, Floats
from batch.routers.arena.arena import Arena, build_arena
from batch.routers.arena.battles import Battles
from batch.routers.sw_ranking import SwRankingRouter

MODELS = [f"model-{i:02}" for i in range(64)]
TIERS = 10


def draw(battles: int, dimension: int) -> tuple[Battles, Float32s]:
    """Draw battles whose outcomes depend on the models' levels and on the prompt's vector; a fifth are ties."""
    chance = np.random.default_rng(0)
    first, second = chance.integers(0, len(MODELS), (2, battles))
    vectors = chance.normal(size=(battles, dimension)).astype(np.float32) + np.float32(0.5)
    skill = chance.normal(size=(len(MODELS), dimension)) / np.sqrt(dimension)
    level = np.linspace(1.5, -1.5, len(MODELS))
    log_odds = level[first] - level[second] + ((skill[first] - skill[second]) * vectors).sum(axis=1)
    won = chance.random(battles) < 1 / (1 + np.exp(-log_odds))
    outcome = np.where(chance.random(battles) < 0.2, 0.5, won.astype(float))
    names = [MODELS[i] for i in first], [MODELS[i] for i in second]
    return Battles(*names, outcome, np.ones(battles, np.bool_)), vectors


class OneFitAPrompt:
    """The reference: fits one regression for each prompt, as RouteLLM's code does."""

    def __init__(self, battles: Battles, vectors: Float32s, arena: Arena) -> None:
        self._vectors = vectors.astype(np.float64)
        first = pd.Series([arena.tier[name] for name in battles.first])
        second = pd.Series([arena.tier[name] for name in battles.second])
        ends = np.select([battles.outcome == 1.0, battles.outcome == 0.0], ["model_a", "model_b"], "tie")
        self._table = pd.DataFrame({"model_a": first, "model_b": second, "winner": ends})

    def win_rate(self, prompt: Floats, strong: int, weak: int) -> float:
        """How likely one tier beats another, for one prompt."""
        lengths = np.linalg.norm(self._vectors, axis=1) * np.linalg.norm(prompt)
        cosines = self._vectors @ prompt / lengths
        rated = self._ratings(10 * 10 ** (cosines / cosines.max()))
        return float(1 / (1 + 10 ** ((rated[weak] - rated[strong]) / 400)))

    def _ratings(self, weights: Floats) -> "pd.Series[float]":
        table = self._table
        tiers = pd.concat([table["model_a"], table["model_b"]]).unique()
        column = pd.Series(np.arange(len(tiers)), index=tiers)
        twice = pd.concat([table, table], ignore_index=True)
        features = np.zeros((len(twice), len(tiers)))
        rows = np.arange(len(twice))
        features[rows, column[twice["model_a"]]] = np.log(10)
        features[rows, column[twice["model_b"]]] = -np.log(10)
        won = (twice["winner"] == "model_a").to_numpy()
        won = won | ((twice["winner"] == "tie").to_numpy() & (rows < len(table)))
        fitted = LogisticRegression(fit_intercept=False, C=np.inf).fit(
            features, won.astype(float), sample_weight=np.concatenate([weights, weights])
        )
        return pd.Series(400 * fitted.coef_[0] + 1000, index=tiers)


class NoTexts:
    """An embedder that is never called, because this benchmark gives vectors in place of prompts."""

    def embed(self, texts: Sequence[str]) -> Float32s:
        raise NotImplementedError


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--battles", type=int, default=5000)
    parser.add_argument("--dimension", type=int, default=1536)
    parser.add_argument("--prompts", type=int, default=4096)
    parser.add_argument("--reference", type=int, default=100, help="prompts that the reference is timed on")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # scikit-learn's warnings about its arguments differ from version to version
    battles, vectors = draw(options.battles, options.dimension)
    arena = build_arena(battles, [vectors], options.battles, TIERS)
    router = SwRankingRouter("strong", arena, MODELS[0], MODELS[-1], NoTexts())
    prompts = np.random.default_rng(1).normal(size=(options.prompts, options.dimension)).astype(np.float32)
    prompts += np.float32(0.5)
    reference = OneFitAPrompt(battles, vectors, arena)
    pair = arena.tier[MODELS[0]], arena.tier[MODELS[-1]]
    router.win_rates(prompts[:64])
    began = time.perf_counter()
    rates = np.concatenate([router.win_rates(prompts[i : i + 512]) for i in range(0, len(prompts), 512)])
    together = len(prompts) / (time.perf_counter() - began)
    reference.win_rate(prompts[0].astype(np.float64), *pair)
    began = time.perf_counter()
    alone = [reference.win_rate(prompt.astype(np.float64), *pair) for prompt in prompts[: options.reference]]
    one_by_one = len(alone) / (time.perf_counter() - began)
    print(f"{options.battles} battles, {options.dimension} numbers a vector, {len(prompts)} prompts")
    print(
        f"at once {together:.0f} prompts/s, one fit a prompt {one_by_one:.1f} prompts/s: {together / one_by_one:.0f} x"
    )
    print(f"largest difference of win rates: {np.abs(rates[: len(alone)] - alone).max():.1e}")


if __name__ == "__main__":
    main()
