"""APGR of the routers knn and cluster, beside that of the default's heads, on judged answers of MMLU and GSM8K.

    python -m benchmarks.neighbours --data FOLDER [--layer N] [--seeds N] [--threads N]

All are measured by five-fold cross-validation: each fold's router is trained on both sets together, as the default is,
without the prompts that it scores, and chooses its options anew. Equal prompts are in the same fold. APGR is 0.5 for a
router that chooses at random and higher for a better one. `gsm8k_relaxed` has the same answers to GSM8K with the
grader's parsing errors repaired; no router is trained on it.
"""

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from batch.measures.pair import apgr
from batch.routers.checkpoints.encoder_files import packaged_encoder
from batch.routers.checkpoints.format import Checkpoint, CheckpointConfig, EncoderConfig
from batch.routers.cluster import ClusterRouter
from batch.routers.embedders.local import LocalEmbedder
from batch.routers.knn import KnnRouter
from batch.training.cluster import fit_cluster
from batch.training.correctness import fit_and_cross_validate
from batch.training.data import Judged, assign_parts
from batch.training.knn import fit_knn
from benchmarks.ship_checkpoints import SETTINGS

FOLDS = 5
VALIDATION = 0.1
MODELS = ("weak", "strong")
TRAINERS = {"knn": (fit_knn, KnnRouter), "cluster": (fit_cluster, ClusterRouter)}


class StoredVectors:
    """An embedder that returns vectors computed beforehand."""

    def __init__(self, texts: Sequence[str], vectors: NDArray[np.float32]) -> None:
        self._vectors = dict(zip(texts, vectors, strict=True))
        self.dimension = vectors.shape[1]

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.stack([self._vectors[text] for text in texts])


def read(folder: Path, name: str) -> Judged:
    frame = pd.read_parquet(folder / f"{name}.parquet")
    if "split" in frame:
        frame = frame[frame["split"] == "dev"]
    good = frame[["weak_correct", "strong_correct"]].to_numpy(dtype=float)
    again = {}
    if "weak_correct_relaxed" in frame:
        relaxed = frame[["weak_correct_relaxed", "strong_correct_relaxed"]]
        again = {f"{name}_relaxed": relaxed.to_numpy(dtype=float)}
    return Judged(name, frame["prompt"].tolist(), MODELS, good, again)


def subset(judged: Judged, rows: NDArray[np.bool_]) -> Judged:
    prompts = [prompt for prompt, wanted in zip(judged.prompts, rows, strict=True) if wanted]
    return replace(judged, prompts=prompts, quality=judged.quality[rows])


def cross_validated(kind: str, sets: Sequence[Judged], embedder: StoredVectors, seed: int) -> dict[str, float]:
    """APGR by set of verdicts; every prompt is scored by a router that was trained without its fold."""
    fit, build = TRAINERS[kind]
    folds = [assign_parts(judged.prompts, FOLDS, seed) for judged in sets]
    gains = [np.empty(len(judged.prompts)) for judged in sets]
    encoder = EncoderConfig(name="MiniLM", layer=0, max_tokens=256, dimension=embedder.dimension)
    for fold in range(FOLDS):
        kept = [subset(judged, dealt != fold) for judged, dealt in zip(sets, folds, strict=True)]
        trained = fit(kept, embedder, seed, VALIDATION)
        config = CheckpointConfig(
            kind="knn" if kind == "knn" else "cluster",
            models=MODELS,
            matched_by="name",
            encoder=encoder,
            options=dict(trained.options),
            weights_sha256="",
        )
        router = build(MODELS, Checkpoint(config, trained.tensors), embedder)
        for judged, dealt, gain in zip(sets, folds, gains, strict=True):
            scores = router.score(subset(judged, dealt == fold).prompts)
            gain[dealt == fold] = scores[:, 1] - scores[:, 0]
        print(f"    fold {fold}: {dict(trained.chosen)}")
    return {
        name: apgr(gain, good[:, 0], good[:, 1])
        for judged, gain in zip(sets, gains, strict=True)
        for name, good in {judged.name: judged.quality, **judged.judged_again}.items()
    }


def main() -> None:
    """Embed once, then cross-validate each kind for each seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--layer", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--vectors", type=Path, default=None, help="file that stores the vectors for the next call")
    options = parser.parse_args()
    sets = [read(options.data, name) for name in ("mmlu", "gsm8k")]
    texts = sorted({prompt for judged in sets for prompt in judged.prompts})
    if options.vectors is not None and options.vectors.exists():
        vectors = np.load(options.vectors)
    else:
        encoder = LocalEmbedder(
            packaged_encoder(), layer=options.layer, max_tokens=256, batch_tokens=4096, threads=options.threads
        )
        vectors = encoder.embed(texts)
        if options.vectors is not None:
            np.save(options.vectors, vectors)
    embedder = StoredVectors(texts, vectors)
    for seed in range(options.seeds):
        heads = fit_and_cross_validate(sets, embedder, seed, SETTINGS["correctness"]).apgr
        print(f"heads, layer {options.layer}, seed {seed}: {_shown(heads)}")
        for kind in TRAINERS:
            began = time.perf_counter()
            named = _shown(cross_validated(kind, sets, embedder, seed))
            print(f"{kind}, layer {options.layer}, seed {seed}: {named} ({time.perf_counter() - began:.0f} s)")


def _shown(figures: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {figure:.3f}" for name, figure in figures.items())


if __name__ == "__main__":
    main()
