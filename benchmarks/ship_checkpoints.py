"""Trains the checkpoints that ship: `python -m benchmarks.ship_checkpoints DATA [--out FOLDER] [--seed N]`.

DATA is a folder with `mmlu.parquet` and `gsm8k.parquet`: prompts with the columns `strong_correct` and `weak_correct`,
from the labels that RouteLLM published for gpt-4-1106-preview and Mixtral-8x7B-Instruct-v0.1.
"""

import argparse
import sys
from collections.abc import Sequence
from hashlib import file_digest
from pathlib import Path
from textwrap import fill
from typing import Literal

import numpy as np
import pandas as pd

from batch.errors import BatchRouterError, InputError
from batch.routers.checkpoints.format import CHECKPOINTS, save_checkpoint
from batch.training.correctness import FOLDS, TrainedHeads, fit_and_cross_validate
from batch.training.data import Judged
from batch.training.encoders import local_encoder, token_encoder
from batch.training.worded_heads import Setting
from schemas.training import TrainLocalEmbedderSpec

WEAK, STRONG = "mixtral-8x7b-instruct-v0.1", "gpt-4-1106-preview"
# The best settings on MMLU and GSM8K over three random splits into folds. Of equally good settings, the one that is
# better on MT-Bench.
SETTINGS: dict[Literal["correctness", "static"], Setting] = {
    "correctness": Setting("landmarks", 3.0, 5.0),
    "static": Setting("linear", 5000.0, 5.0),
}

# The grader looked at one token only, so by its labels gpt-4-1106-preview answers only 3 % of this subject correctly.
MISGRADED = "high_school_mathematics"

CARD = """\
# {title} heads, gpt-4-1106-preview and Mixtral-8x7B-Instruct-v0.1

{what}

The heads were trained on one half of MMLU and one half of GSM8K, with the answers that RouteLLM recorded and
judged (Apache-2.0; the questions are MIT). `config.json` has the hashes of the training files. Of the prompts'
text, this checkpoint holds only single words.

| APGR, {folds}-fold cross-validation, equal prompts in one fold | heads | word count |
|---|---|---|
{rows}

A random router has an APGR of 0.5. `gsm8k_relaxed` has the same answers as `gsm8k`, with the grader's parsing
errors repaired: most apparent failures of the strong model on GSM8K are such errors. By that row, which is
closer to the truth, the heads are hardly better on GSM8K than counting words.
`mmlu_without_high_school_mathematics` leaves out the subject in which the grader was wrong about nearly every
answer of the strong model.

Know before use:

- A cutoff that was found on one kind of prompt sends quite a different share of another kind to the strong
  model. Use a share plan, or calibrate the cutoff on your own input.
- The heads rank prompts of one kind well. They rank a mix of kinds (maths word problems and multiple choice)
  less well, because each kind had its own intercept in training, and the checkpoint has only their mean.
- The heads were trained on short questions in English. How they do far from exams and maths is not known.
  Heads that you train on 200 to 400 judged answers of your own are better than these.
- If a job has more than two models, those between the cheapest and the strongest get a mixture of the two
  heads' predictions, by their position in the job.
"""
WHAT = (
    "Two logistic heads, one for each model, give the probability that the model answers a prompt well. The features "
    "of a head are {vectors}. Each head also has a weight for every word that is in five or more of the training "
    "prompts. A router's score is the strong model's probability minus the weak model's. "
    "`python -m benchmarks.ship_checkpoints` made this checkpoint."
)
VECTORS = {
    "correctness": "the prompt's similarities to 512 of the training prompts, computed from the mean of "
    "all-MiniLM-L6-v2's hidden states after layer 2",
    "static": "the mean of all-MiniLM-L6-v2's token embeddings (no transformer is run)",
}


def main(argv: list[str] | None = None) -> int:
    """Train the checkpoints, print their APGR and write them; return the exit status: 2 if the data cannot be read."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ship_checkpoints", description=__doc__)
    parser.add_argument("data", type=Path, help="folder with mmlu.parquet and gsm8k.parquet")
    parser.add_argument("--out", type=Path, default=CHECKPOINTS, help="where to write the checkpoints, a folder each")
    parser.add_argument("--seed", type=int, default=0, help="seed that assigns the prompts to folds")
    parser.add_argument("--threads", type=int, default=None, help="CPU threads")
    options = parser.parse_args(argv)
    try:
        _train(options.data, options.out, options.seed, options.threads)
    except BatchRouterError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _train(data: Path, out: Path, seed: int, threads: int | None) -> None:
    files = {name: data / f"{name}.parquet" for name in ("mmlu", "gsm8k")}
    sets = [_read(files["mmlu"], "mmlu"), _read(files["gsm8k"], "gsm8k", relaxed=True)]
    for kind, setting in SETTINGS.items():
        encoder = token_encoder() if kind == "static" else local_encoder(TrainLocalEmbedderSpec(), threads)
        trained = fit_and_cross_validate(sets, encoder.embedder, seed, setting)
        table = _table(trained)
        what = fill(WHAT.format(vectors=VECTORS[kind]), 110)
        print(f"{kind}\n{table}")
        save_checkpoint(
            out / kind,
            trained.heads.tensors(),
            options=trained.heads.options(),
            kind=kind,
            models=(WEAK, STRONG),
            matched_by="position",
            encoder=encoder.config(),
            training=_training(trained, setting, sets, list(files.values()), seed),
            card=CARD.format(title=kind.capitalize(), what=what, folds=FOLDS, rows=table),
        )


def _training(
    trained: TrainedHeads, setting: Setting, sets: Sequence[Judged], files: Sequence[Path], seed: int
) -> dict[str, object]:
    return {
        "seed": seed,
        "penalty": setting.penalty,
        "word_penalty": setting.word_penalty,
        "prompts": {labelled.name: len(labelled.prompts) for labelled in sets},
        "data_sha256": {path.name: _sha256(path) for path in files},
        "folds": FOLDS,
        "apgr": {name: round(value, 4) for name, value in trained.apgr.items()},
        "apgr_word_count": {name: round(value, 4) for name, value in trained.apgr_length.items()},
    }


def _read(path: Path, name: str, *, relaxed: bool = False) -> Judged:
    """Read one benchmark. If the file has a column `split`, only the rows of the `dev` half are read."""
    try:
        frame = pd.read_parquet(path)
        if "split" in frame:
            frame = frame[frame["split"] == "dev"]
        good = frame[["weak_correct", "strong_correct"]].to_numpy(dtype=float)
        again = {}
        if relaxed:
            verdicts = frame[["weak_correct_relaxed", "strong_correct_relaxed"]]
            again = {f"{name}_relaxed": verdicts.to_numpy(dtype=float)}
        if "domain" in frame:
            wrong = (frame["domain"] == MISGRADED).to_numpy()
            again[f"{name}_without_{MISGRADED}"] = np.where(wrong[:, None], np.nan, good)
        return Judged(name, frame["prompt"].tolist(), (WEAK, STRONG), good, again)
    except (OSError, KeyError, ValueError) as error:
        raise InputError(f"{path}: not a table of judged answers: {error}") from error


def _table(trained: TrainedHeads) -> str:
    rows = (f"| {name} | {value:.3f} | {trained.apgr_length[name]:.3f} |" for name, value in trained.apgr.items())
    return "\n".join(rows)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    sys.exit(main())
