"""RouteLLM's similarity-weighted ranking, for a batch of prompts at once."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from batch.errors import SpecError
from batch.routers.arena.arena import Arena, build_arena, open_arena
from batch.routers.arena.battles import Battles
from batch.routers.registry import build_router, router_fingerprint, trained_encoder
from batch.routers.sw_ranking import SwRankingRouter
from schemas.embedders import EndpointEmbedderSpec
from schemas.routers import SwRankingRouterSpec
from tests.routers import sw_reference
from tests.routers.conftest import PAIR
from tests.routers.routellm_layouts import MODELS, battle_table, draw_battles, write_arena
from tests.routers.vectors import NumbersInText, texts

STRONG, WEAK = MODELS[1], MODELS[-2]
TIERS = 5


def prompts(count: int, dimension: int, shift: float = 0.4) -> NDArray[np.float32]:
    return np.random.default_rng(9).normal(size=(count, dimension)).astype(np.float32) + np.float32(shift)


def references(battles: Battles, vectors: NDArray[np.float32], asked: NDArray[np.float32]) -> list[float]:
    """Win rates by the formulas, with one fit for each prompt."""
    kept = np.flatnonzero(battles.long_enough)
    first, second = [battles.first[i] for i in kept], [battles.second[i] for i in kept]
    outcome = battles.outcome[kept]
    tier = sw_reference.tiers(sw_reference.elo(first, second, outcome), TIERS)
    of_tiers = [str(tier[name]) for name in first], [str(tier[name]) for name in second]
    pair = str(tier[STRONG]), str(tier[WEAK])
    used = vectors[kept].astype(np.float64)
    return [sw_reference.win_rate(*of_tiers, outcome, used, one.astype(np.float64), pair) for one in asked]


def router(arena: Arena, strong: str = STRONG, weak: str = WEAK) -> SwRankingRouter:
    return SwRankingRouter("large", arena, strong, weak, NumbersInText())


@pytest.mark.parametrize("shift", [0.4, 0.0, -3.0])
def test_win_rates_are_those_of_one_fit_a_prompt(shift: float) -> None:
    """They agree within 1e-6, with ties, battles within a tier, and prompts similar to some, few or no battles."""
    battles, vectors = draw_battles(1200, 24)
    asked = prompts(12, 24, shift)
    scores = router(build_arena(battles, [vectors[:500], vectors[500:]], 1200, TIERS)).win_rates(asked)
    expected = references(battles, vectors, asked)
    assert np.ptp(expected) > 0.01
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-6)


def test_published_layouts_score_as_the_formulas(tmp_path: Path) -> None:
    """A CSV of battles, and Parquet files with one vector for each battle whose prompt is long enough, are read."""
    battles, vectors = draw_battles(600, 16)
    places = write_arena(tmp_path, battles, vectors)
    spec = SwRankingRouterSpec(kind="sw_ranking", battles=places[:1], embeddings=places[1:], tiers=TIERS)
    asked = prompts(5, 16)
    scores = router(open_arena(spec)).score(texts(asked))
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores[:, 0], references(battles, vectors, asked), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("battle_file", "vector_file"), [("b.jsonl", "v.npy"), ("b.parquet", "v.safetensors")])
def test_files_of_other_kinds_say_the_same(tmp_path: Path, battle_file: str, vector_file: str) -> None:
    """JSON lines or Parquet with one column `winner`, and arrays with a vector for every battle, score the same."""
    from safetensors.numpy import save_file

    battles, vectors = draw_battles(400, 16)
    table = battle_table(battles)
    names = {1.0: "model_a", 0.0: "model_b", 0.5: "tie (bothbad)"}
    table["winner"] = [names[one] for one in battles.outcome]
    table = table.drop(columns=["winner_model_a", "winner_model_b", "winner_tie"])
    if battle_file.endswith(".jsonl"):
        table.to_json(tmp_path / battle_file, orient="records", lines=True)
        np.save(tmp_path / vector_file, vectors)
    else:
        table.to_parquet(tmp_path / battle_file)
        save_file({"embeddings": vectors}, tmp_path / vector_file)
    spec = SwRankingRouterSpec(
        kind="sw_ranking",
        battles=(str(tmp_path / battle_file),),
        embeddings=(str(tmp_path / vector_file),),
        tiers=TIERS,
    )
    asked = prompts(6, 16)
    scores = router(open_arena(spec)).win_rates(asked)
    expected = router(build_arena(battles, [vectors], 400, TIERS)).win_rates(asked)
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-12)


def test_batches_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts that need several batches score as in one batch, and a vector of zeros has a finite score."""
    battles, vectors = draw_battles(500, 12)
    ranked = router(build_arena(battles, [vectors], 500, TIERS))
    asked = np.vstack([prompts(30, 12), np.zeros((1, 12), np.float32)])
    together = ranked.score(texts(asked))
    monkeypatch.setattr("batch.routers.sw_ranking._AT_ONCE", 450 * 7)
    np.testing.assert_allclose(ranked.score(texts(asked)), together, rtol=0, atol=1e-6)
    assert np.isfinite(together).all()


def test_a_model_that_never_lost_is_very_strong_and_finite() -> None:
    """If a model won every battle, its win rate is near 1 and nothing overflows."""
    outcome = np.array([1.0, 1.0, 0.0, 1.0] * 5)
    battles = Battles(["a", "a", "b", "b"] * 5, ["b", "c", "a", "c"] * 5, outcome, np.ones(20, np.bool_))
    vectors = prompts(20, 4)
    arena = build_arena(battles, [vectors], 20, 3)
    assert router(arena, "a", "c").win_rates(prompts(3, 4)).min() > 1 - 1e-6


def spec_of(tmp_path: Path, **changes: object) -> SwRankingRouterSpec:
    battles, vectors = draw_battles(200, 384)
    folders = write_arena(tmp_path, battles, vectors)
    values = {"battles": folders[:1], "embeddings": folders[1:], "strong": STRONG, "weak": WEAK, "tiers": TIERS}
    return SwRankingRouterSpec.model_validate({"kind": "sw_ranking"} | values | changes)


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    """Unknown models, one tier for both, another encoder and too few vectors are refused in one line by their key."""
    spec = spec_of(tmp_path)
    (tmp_path / "few").mkdir()
    np.save(tmp_path / "few" / "v.npy", np.ones((50, 384), np.float32))
    (tmp_path / "bad.jsonl").write_text('{"model_a": "a", "model_b": "b", "winner": "nobody"}\n')
    import torch
    from safetensors.torch import save_file

    save_file({"embeddings": torch.ones((200, 384), dtype=torch.bfloat16)}, tmp_path / "half.safetensors")
    endpoint = EndpointEmbedderSpec(kind="endpoint", model="vec", dimensions=512)
    for changes, message in (
        ({"strong": "gpt-5"}, r"router.strong: 'gpt-5' is in none of the battles"),
        ({"strong": MODELS[0], "weak": MODELS[0]}, r"router.tiers: .* one tier"),
        ({"embedder": endpoint}, r"router.embedder.dimensions: vectors have 512 numbers, and the router needs 384"),
        ({"embeddings": (str(tmp_path / "few"),)}, r"router.embeddings: 50 vectors do not fit 200 battles"),
        ({"embeddings": (str(tmp_path / "battles"),)}, r"router.embeddings: no .parquet"),
        ({"battles": (str(tmp_path / "bad.jsonl"),)}, r"router.battles: .*bad.jsonl: row 1: give winner_model_a"),
        ({"embeddings": (str(tmp_path / "half.safetensors"),)}, r"half.safetensors cannot be read: .*save float32"),
        ({"battles": ("b" * 300,)}, r"router.battles: b+: File name too long"),
        ({"battles": ("nobody/battles",)}, r"hf download nobody/battles --repo-type dataset"),
    ):
        with pytest.raises(SpecError, match=message) as refused:
            build_router(spec.model_copy(update=changes), PAIR, seed=0)
        assert "\n" not in str(refused.value)


def test_a_type_that_numpy_was_taught_is_refused_too(tmp_path: Path) -> None:
    """Some libraries add bfloat16 to numpy; what can be read must not depend on whether one is imported."""
    import ml_dtypes  # noqa: F401  adds bfloat16 to numpy
    import torch
    from safetensors.torch import save_file

    spec = spec_of(tmp_path)
    save_file({"embeddings": torch.ones((200, 384), dtype=torch.bfloat16)}, tmp_path / "half.safetensors")
    with pytest.raises(SpecError, match="save float32"):
        build_router(spec.model_copy(update={"embeddings": (str(tmp_path / "half.safetensors"),)}), PAIR, seed=0)


def test_models_that_no_battles_connect_are_refused() -> None:
    """Battles that do not connect two models, not even through others, say nothing about that pair."""
    first, second = ["a", "b", "c", "c", "d"], ["b", "a", "d", "d", "c"]
    battles = Battles(first, second, np.array([1.0, 0.5, 1.0, 1.0, 0.5]), np.ones(5, np.bool_))
    arena = build_arena(battles, [prompts(5, 4)], 5, 4)
    with pytest.raises(SpecError, match=r"no battles connect a and d"):
        router(arena, "a", "d")


def test_what_is_known_before_it_is_built(tmp_path: Path) -> None:
    """The encoder is the job's, with vectors as long as the battles'; the fingerprint changes with the files."""
    spec = spec_of(tmp_path)
    encoder = trained_encoder(spec)
    assert (encoder.dimension, encoder.layer, encoder.max_tokens) == (384, 6, 256)
    behind = spec.model_copy(update={"embedder": EndpointEmbedderSpec(kind="endpoint", model="vec")})
    assert (trained_encoder(behind).name, trained_encoder(behind).dimension) == ("vec", 384)
    before = router_fingerprint(spec)
    assert before == router_fingerprint(spec)
    with (tmp_path / "battles" / "train.csv").open("a") as file:
        file.write("\n")
    assert router_fingerprint(spec) != before
