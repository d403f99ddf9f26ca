"""Writes small checkpoints, battles and vectors in the layouts that RouteLLM published."""

import json
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors.numpy import save_file

from batch.routers.arena.battles import Battles

RANK = 8
MODELS = tuple(f"model-{i}" for i in range(14))


def write_mf(folder: Path, dimension: int, spelling: Literal["sequence", "bare"] = "sequence") -> str:
    """Write 64 models' vectors, a projection and a classifier, all drawn at random; return the folder."""
    chance = np.random.default_rng(0)
    at = ".0" if spelling == "sequence" else ""
    tensors = {
        "P.weight": chance.normal(size=(64, RANK)),
        f"text_proj{at}.weight": chance.normal(size=(RANK, dimension)) / np.sqrt(dimension),
        f"classifier{at}.weight": chance.normal(size=(1, RANK)) * 3,
    }
    if spelling == "bare":
        tensors["Q.weight"] = chance.normal(size=(10, dimension))
    folder.mkdir(exist_ok=True)
    save_file({name: tensor.astype(np.float32) for name, tensor in tensors.items()}, folder / "model.safetensors")
    config = {"dim": RANK, "num_models": 64, "text_dim": dimension, "num_classes": 1, "use_proj": True}
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


def draw_battles(count: int, dimension: int, seed: int = 0) -> tuple[Battles, NDArray[np.float32]]:
    """Draw battles of models whose strengths depend on the prompt, with prompt vectors; every tenth is too short."""
    chance = np.random.default_rng(seed)
    first, second = chance.integers(0, len(MODELS), (2, count))
    vectors = chance.normal(size=(count, dimension)).astype(np.float32) + np.float32(0.4)
    skill = chance.normal(size=(len(MODELS), dimension)) * 0.2
    level = np.linspace(1.5, -1.5, len(MODELS))
    log_odds = level[first] - level[second] + ((skill[first] - skill[second]) * vectors).sum(axis=1)
    won = chance.random(count) < 1 / (1 + np.exp(-log_odds))
    outcome = np.where(chance.random(count) < 0.2, 0.5, won.astype(float))
    long_enough = np.arange(count) % 10 != 9
    return Battles([MODELS[i] for i in first], [MODELS[i] for i in second], outcome, long_enough), vectors


def battle_table(battles: Battles) -> pd.DataFrame:
    """The columns of RouteLLM's data sets; a short prompt has 15 characters once it is stripped."""
    return pd.DataFrame(
        {
            "id": range(len(battles.first)),
            "model_a": battles.first,
            "model_b": battles.second,
            "prompt": [
                json.dumps(["  " + "x," * 8 if long else " x, y\n\"'z 890123 ", None]) for long in battles.long_enough
            ],
            "response_a": 'A "quoted"\nanswer, in two lines',
            "winner_model_a": (battles.outcome == 1.0).astype(int),
            "winner_model_b": (battles.outcome == 0.0).astype(int),
            "winner_tie": (battles.outcome == 0.5).astype(int),
        }
    )


def write_arena(folder: Path, battles: Battles, vectors: NDArray[np.float32]) -> tuple[str, str]:
    """Write battles as one CSV and vectors as two Parquet files, as on the hub; return both folders."""
    for name in ("battles", "vectors/data"):
        (folder / name).mkdir(parents=True)
    battle_table(battles).to_csv(folder / "battles" / "train.csv", index=False)
    kept = vectors[battles.long_enough].astype(np.float64)
    for part, rows in enumerate(np.array_split(kept, 2)):
        file = folder / "vectors" / "data" / f"train-0000{part}-of-00002.parquet"
        pd.DataFrame({"embeddings": list(rows)}).to_parquet(file)
    return str(folder / "battles"), str(folder / "vectors")
