"""Routers in the setting of RouteLLM's paper: trained on 1,531 judged answers of MMLU, measured on all others.

    python -m benchmarks.paper_setting [--data FOLDER] [--labels N] [--threads N]

It prints APGR, CPT50 and CPT80 by the paper's protocol, as means over five seeds, and beside them the paper's best
figures for its routers with about as many labels (arXiv 2406.18665, MMLU). A higher APGR is better. CPT50 and CPT80 are
the percentage of prompts that the strong model has to answer for 50 % and 80 % of the gap between the models; lower is
better. The router `length`, which counts words and needs no labels, is also measured on GSM8K, beside the paper's
figures there.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from batch.measures.routellm import protocol_curve, protocol_figures
from batch.routers.base import Embedder
from batch.routers.checkpoints.encoder_files import packaged_encoder
from batch.routers.checkpoints.format import Checkpoint, CheckpointConfig, EncoderConfig
from batch.routers.correctness import CorrectnessRouter
from batch.routers.embedders.local import LocalEmbedder
from batch.routers.length import LengthRouter
from batch.training.correctness import fit_correctness
from batch.training.data import Judged, Trained, assign_parts
from batch.training.encoders import token_encoder
from batch.training.static import fit_static

LABELS, SEEDS, VALIDATION = 1531, range(5), 0.2
MODELS = ("mixtral-8x7b-instruct-v0.1", "gpt-4-1106-preview")
MAX_TOKENS = 256


class StoredVectors:
    """An embedder that computes the vectors of all prompts once and looks them up afterwards."""

    def __init__(self, prompts: list[str], embedder: Embedder) -> None:
        self.vectors = embedder.embed(prompts)
        self.places = {prompt: place for place, prompt in enumerate(prompts)}

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return self.vectors[[self.places[text] for text in texts]]


def score_gains(trained: Trained, known: StoredVectors, prompts: list[str]) -> NDArray[np.float64]:
    """The strong model's score less the weak model's, for each prompt, by a router that was just trained."""
    encoder = EncoderConfig(name="packaged", layer=0, max_tokens=MAX_TOKENS, dimension=known.vectors.shape[1])
    config = CheckpointConfig(
        models=MODELS, matched_by="position", encoder=encoder, options=dict(trained.options), weights_sha256=""
    )
    scores = CorrectnessRouter(MODELS, Checkpoint(config, trained.tensors), known).score(prompts)
    gained: NDArray[np.float64] = scores[:, 1].astype(np.float64) - scores[:, 0]
    return gained


def protocol_results(scores: NDArray[np.float64], quality: NDArray[np.float64]) -> tuple[float, float, float]:
    """APGR, CPT50 and CPT80 by RouteLLM's protocol."""
    weak, strong = quality.T
    # The protocol cuts at quantiles, which fails on ties. Adding the place breaks ties far below a score's precision.
    untied = scores + 1e-12 * np.arange(len(scores))
    found = protocol_figures(protocol_curve(untied, weak, strong), weak.mean(), strong.mean())
    return found.apgr, 100 * found.cpt[1], 100 * found.cpt[2]


def print_line(name: str, figures: list[tuple[float, float, float]]) -> None:
    apgr, half, most = np.mean(figures, axis=0)
    spread = f"  ({np.std([one[0] for one in figures]):.3f} between seeds)" if len(figures) > 1 else ""
    print(f"{name:<44} {apgr:.3f} {half:7.1f} {most:7.1f}{spread}")


def main() -> None:
    """Train each kind with five seeds and print the means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--labels", type=int, default=LABELS)
    parser.add_argument("--threads", type=int, default=None)
    options = parser.parse_args()
    frame = pd.read_parquet(options.data / "mmlu.parquet").drop_duplicates("prompt")
    prompts, quality = frame["prompt"].tolist(), frame[["weak_correct", "strong_correct"]].to_numpy(dtype=float)
    folder = packaged_encoder()
    local = LocalEmbedder(folder, layer=2, max_tokens=MAX_TOKENS, batch_tokens=4096, threads=options.threads)
    vectors = {
        "correctness": (fit_correctness, StoredVectors(prompts, local)),
        "static": (fit_static, StoredVectors(prompts, token_encoder().embedder)),
    }
    print(f"MMLU, {options.labels} labels, {len(prompts) - options.labels} others measured, {len(SEEDS)} seeds")
    print(f"{'':<44}  APGR   CPT50   CPT80")
    for kind, (fit, known) in vectors.items():
        found = []
        for seed in SEEDS:
            order = np.argsort(assign_parts(prompts, 1 << 62, 1000 + seed))
            seen, unseen = order[: options.labels], order[options.labels :]
            judged = Judged("mmlu", [prompts[i] for i in seen], MODELS, quality[seen])
            trained = fit([judged], known, seed, VALIDATION)
            print(f"  {kind}, seed {seed}: {dict(trained.chosen)}")
            found.append(protocol_results(score_gains(trained, known, [prompts[i] for i in unseen]), quality[unseen]))
        print_line(f"{kind}", found)
    words = LengthRouter(MODELS[1], 60.0)
    print_line("length (no labels)", [protocol_results(words.score(prompts)[:, 0].astype(float), quality)])
    print("the paper: SW .603/35.4/71.6, causal LLM .600/35.5/70.3, MF .597/35.5/71.4, BERT .572/41.3/72.2")
    gsm8k = pd.read_parquet(options.data / "gsm8k.parquet")
    print(f"\nGSM8K, no labels, {len(gsm8k)} questions")
    answers = gsm8k[["weak_correct", "strong_correct"]].to_numpy(dtype=float)
    print_line("length", [protocol_results(words.score(gsm8k["prompt"].tolist())[:, 0].astype(float), answers)])
    print("the paper: causal LLM .622, SW .568, MF .565, BERT .531, all trained on GPT-4's verdicts")


if __name__ == "__main__":
    main()
