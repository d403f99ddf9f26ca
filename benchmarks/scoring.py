"""Prompts per second of the correctness router: all at once, and one at a time as RouteLLM scores them.

    python benchmarks/scoring.py [--prompts N] [--threads N] [--data FOLDER]

Both ways run the same two layers, in the same process on the same prompts, so their ratio holds where absolute
figures drift. The synthetic prompts are near 96 tokens; with --data, a folder with mmlu.parquet, real ones follow.
"""

import argparse
import random
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from batch.routers.base import Router
from batch.routers.build import build_router
from schemas.routers import CorrectnessRouterSpec

# Common words are one token each; two more tokens frame a prompt.
WORDS = ("time", "year", "people", "way", "day", "man", "thing", "woman", "life", "child", "world", "school")
MEAN_WORDS = 94
# One at a time is slow and steady: a part of the prompts tells its speed.
ALONE = 8


def synthetic(count: int) -> list[str]:
    """Prompts of 47 to 141 words, 94 in the mean."""
    chance = random.Random(0)
    return [
        " ".join(chance.choices(WORDS, k=chance.randint(MEAN_WORDS // 2, MEAN_WORDS * 3 // 2))) for _ in range(count)
    ]


def prompts_per_second(router: Router, batches: Sequence[Sequence[str]]) -> float:
    """Score every batch in turn."""
    began = time.perf_counter()
    for prompts in batches:
        router.score(prompts)
    return sum(map(len, batches)) / (time.perf_counter() - began)


def compare(name: str, router: Router, prompts: Sequence[str]) -> None:
    """Print one line: both speeds and their ratio."""
    router.score(prompts[:64])
    alone = prompts_per_second(router, [[prompt] for prompt in prompts[::ALONE]])
    together = prompts_per_second(router, [prompts])
    print(f"{name:>12}  {together:8.0f}  {alone:13.0f}  {together / alone:6.1f}")


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=2000)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    options = parser.parse_args()
    router = build_router(CorrectnessRouterSpec(), ("weak", "strong"), seed=0, threads=options.threads)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, CUDA {torch.cuda.is_available()}")
    print("     prompts   batched  one at a time   ratio     (prompts/s)")
    compare("96 tokens", router, synthetic(options.prompts))
    mmlu = options.data / "mmlu.parquet"
    if mmlu.exists():
        import pandas as pd

        questions = pd.read_parquet(mmlu, columns=["prompt"])["prompt"]
        compare("MMLU", router, questions.sample(min(options.prompts, len(questions)), random_state=0).tolist())


if __name__ == "__main__":
    main()
