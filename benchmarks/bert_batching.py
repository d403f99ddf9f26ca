"""Prompts per second of the bert router: in batches, and one prompt at a time as RouteLLM scores them.

    python -m benchmarks.bert_batching [--prompts N] [--threads N] [--data FOLDER] [--rounds N] [--batch-tokens N ...]

The classifier is the packaged MiniLM with all six layers and a head of random weights; speed does not depend on the
weights. RouteLLM's code calls tokenizer and model with one prompt at a time. Both ways take turns in one process, so
their ratio holds even if the machine's speed drifts. With several --batch-tokens, each size takes its turn; on a CPU,
`Forward` may use smaller batches.

The synthetic prompts have about 96 tokens. If the folder --data has mmlu.parquet, its prompts are measured next.
The columns:

    batched, one at a time   prompts per second in the best round
    ratio                    the median over the rounds, with the lowest and the highest
    difference               largest difference of scores between the two ways; the target in float32 is 1e-5
    tokenizer                prompts per second of the tokenizer alone

If torch sees a GPU, a further line gives the network's own speed on tokens that are on the GPU already. The lower of
this speed and the tokenizer's bounds what batching can still gain.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from batch.routers.bert import BertRouter, token_limit, win_rates
from batch.routers.checkpoints.encoder_files import packaged_encoder
from batch.routers.network.batching import token_batches
from batch.routers.network.forward import first_tokens
from batch.routers.network.pretrained import save_pretrained, transformers_muted
from benchmarks.scoring import synthetic_prompts
from schemas.routers import DEFAULT_BATCH_TOKENS


def build_classifier(folder: Path) -> Path:
    """Write the packaged encoder with a head for three labels into `folder`."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(0)
    with transformers_muted():
        classifier = AutoModelForSequenceClassification.from_pretrained(packaged_encoder(), num_labels=3)
    # The usual small random weights give all prompts nearly the same score, which would hide a difference.
    torch.nn.init.normal_(classifier.classifier.weight, std=0.5)
    save_pretrained(folder, classifier, AutoTokenizer.from_pretrained(packaged_encoder()))
    return folder


class OneAtATime:
    """Scores as RouteLLM does: one call of tokenizer and model for each prompt."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        with transformers_muted():
            self.model = AutoModelForSequenceClassification.from_pretrained(folder).eval().to(self.device)
        self._limit = token_limit(self.tokenizer, self.model)

    def score(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        """Win rates, shape (prompts, 1)."""
        with torch.no_grad():
            logits = [self._logits(prompt) for prompt in prompts]
        return win_rates(np.concatenate(logits))

    def _logits(self, prompt: str) -> Any:
        tokens = self.tokenizer(prompt, return_tensors="pt", truncation=True, max_length=self._limit)
        return self.model(**tokens.to(self.device)).logits.float().cpu().numpy()


def speed(count: int, work: Callable[[], object]) -> float:
    """Run `work` on `count` prompts and return prompts per second."""
    began = time.perf_counter()
    work()
    return count / (time.perf_counter() - began)


def network_alone(alone: OneAtATime, tokens: Sequence[Sequence[int]]) -> None:
    """Print the classifier's speed on batches that are on the GPU already, in bfloat16."""
    batches = []
    for batch in token_batches([len(ids) for ids in tokens], DEFAULT_BATCH_TOKENS):
        rows = [torch.tensor(tokens[i], device=alone.device) for i in batch]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        batches.append((ids, (ids != 0).long()))
    torch.cuda.synchronize()
    with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16):
        began = time.perf_counter()
        for ids, mask in batches:
            alone.model(input_ids=ids, attention_mask=mask)
        torch.cuda.synchronize()
    print(f"              network alone  {len(tokens) / (time.perf_counter() - began):8.0f} prompts/s")


def compare(
    name: str, routers: Mapping[int, BertRouter], alone: OneAtATime, prompts: Sequence[str], rounds: int
) -> None:
    """Print both speeds, their ratio, the largest difference of scores, and the tokenizer's own speed."""
    expected = alone.score(prompts)
    differences = {budget: float(np.abs(router.score(prompts) - expected).max()) for budget, router in routers.items()}
    tokenize = first_tokens(alone.tokenizer, token_limit(alone.tokenizer, alone.model))
    batched: dict[int, list[float]] = {budget: [] for budget in routers}
    single, tokens = [], []
    for _ in range(rounds):
        for budget, router in routers.items():
            batched[budget].append(speed(len(prompts), partial(router.score, prompts)))
        single.append(speed(len(prompts), lambda: alone.score(prompts)))
        tokens.append(speed(len(prompts), lambda: tokenize(prompts)))
    for budget, rates in batched.items():
        ratios = np.divide(rates, single)
        print(
            f"{name:>12}  {budget:12}  {max(rates):8.1f}  {max(single):13.1f}  "
            f"{np.median(ratios):6.2f} ({ratios.min():.2f}-{ratios.max():.2f})  "
            f"{differences[budget]:10.1e}  {max(tokens):9.0f}"
        )
    if torch.cuda.is_available():
        network_alone(alone, tokenize(prompts))


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=400)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch-tokens", type=int, nargs="+", default=[DEFAULT_BATCH_TOKENS])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = build_classifier(Path(temporary))
        routers = {
            budget: BertRouter("strong", folder, batch_tokens=budget, threads=options.threads)
            for budget in options.batch_tokens
        }
        alone = OneAtATime(folder)
    card = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {card}")
    print("     prompts  batch tokens   batched  one at a time   ratio              difference  tokenizer  (prompts/s)")
    compare("96 tokens", routers, alone, synthetic_prompts(options.prompts), options.rounds)
    mmlu = options.data / "mmlu.parquet"
    if mmlu.exists():
        import pandas as pd

        questions = pd.read_parquet(mmlu, columns=["prompt"])["prompt"]
        sample = questions.sample(min(options.prompts, len(questions)), random_state=0).tolist()
        compare("MMLU", routers, alone, sample, options.rounds)


if __name__ == "__main__":
    main()
