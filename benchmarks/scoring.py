"""Prompts per second of the routers that ship: in one batch, one prompt at a time, and as RouteLLM scores.

    python -m benchmarks.scoring [--prompts N] [--threads N] [--data FOLDER]

All ways run in one process on the same prompts, so their ratios hold even if the machine's speed drifts. RouteLLM's way
runs the whole encoder on one prompt at a time, as its routers do. The synthetic prompts have about 96 tokens. If the
folder --data has mmlu.parquet, its prompts are measured next. Each line gives a router's prompts per second batched and
one at a time, the ratio of the two, and the batched speed as a multiple of RouteLLM's way.
"""

import argparse
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from batch.routers.checkpoints.encoder_files import packaged_encoder
from batch.routers.checkpoints.format import load_checkpoint
from batch.routers.correctness import CorrectnessRouter
from batch.routers.embedders.int8 import Int8Embedder
from batch.routers.embedders.local import LocalEmbedder
from batch.routers.embedders.registry import build_embedder
from batch.routers.network.pretrained import transformers_muted
from batch.routers.registry import build_router
from schemas.embedders import LocalEmbedderSpec
from schemas.routers import StaticRouterSpec

PAIR = ("weak", "strong")
# Each of these common words is one token; the tokenizer adds two tokens to a prompt.
WORDS = ("time", "year", "people", "way", "day", "man", "thing", "woman", "life", "child", "world", "school")
MEAN_WORDS = 94
# One prompt at a time is slow and its speed is steady, so every eighth prompt is enough to measure it.
SINGLE_EVERY = 8

Score = Callable[[Sequence[str]], Any]


def synthetic_prompts(count: int) -> list[str]:
    """Prompts of 47 to 141 words, 94 on average."""
    chance = random.Random(0)
    return [
        " ".join(chance.choices(WORDS, k=chance.randint(MEAN_WORDS // 2, MEAN_WORDS * 3 // 2))) for _ in range(count)
    ]


def prompts_per_second(score: Score, batches: Sequence[Sequence[str]]) -> float:
    """Score the batches one after another; return prompts per second."""
    began = time.perf_counter()
    for prompts in batches:
        score(prompts)
    return sum(map(len, batches)) / (time.perf_counter() - began)


def routellm_way() -> Score:
    """A function that runs the whole encoder on one prompt after another, as RouteLLM's routers do."""
    from transformers import AutoModel, AutoTokenizer

    folder = packaged_encoder()
    with transformers_muted():
        tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()

    def score(prompts: Sequence[str]) -> None:
        with torch.no_grad():
            for prompt in prompts:
                model(**tokenizer(prompt, return_tensors="pt", truncation=True, max_length=256))

    return score


def correctness(threads: int | None, *, int8: bool) -> tuple[str, Score]:
    """The default router in int8 or not: a name with the precision that it really runs in, and its `score`."""
    checkpoint = load_checkpoint()
    embedder = build_embedder(
        LocalEmbedderSpec(), checkpoint.config.encoder, batch_tokens=16_384, threads=threads, int8=int8
    )
    assert isinstance(embedder, LocalEmbedder | Int8Embedder)
    return f"correctness, {embedder.precision}", CorrectnessRouter(PAIR, checkpoint, embedder).score


def compare(name: str, routers: dict[str, Score], peer: Score, prompts: Sequence[str]) -> None:
    """Print a line for each router: its speed both ways and the ratios."""
    alone = [[prompt] for prompt in prompts[::SINGLE_EVERY]]
    peer(prompts[:16])
    theirs = prompts_per_second(peer, alone)
    print(f"{name}: RouteLLM's way {theirs:.0f}")
    for router, score in routers.items():
        score(prompts[:64])
        one, together = prompts_per_second(score, alone), prompts_per_second(score, [prompts])
        print(f"{router:>24} {together:9.0f} {one:14.0f} {together / one:7.1f} {together / theirs:15.1f}")


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=2000)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    options = parser.parse_args()
    static = build_router(StaticRouterSpec(kind="static"), PAIR, seed=0)
    routers = dict([correctness(options.threads, int8=int8) for int8 in (False, True)])
    routers["static"] = static.score
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, CUDA {torch.cuda.is_available()}")
    print(f"{'prompts/s':>24}   batched  one at a time   ratio  x RouteLLM's way")
    peer = routellm_way()
    compare("96 tokens", routers, peer, synthetic_prompts(options.prompts))
    mmlu = options.data / "mmlu.parquet"
    if mmlu.exists():
        import pandas as pd

        questions = pd.read_parquet(mmlu, columns=["prompt"])["prompt"]
        compare("MMLU", routers, peer, questions.sample(min(options.prompts, len(questions)), random_state=0).tolist())


if __name__ == "__main__":
    main()
