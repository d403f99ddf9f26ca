"""Fine-tunes a sequence classifier on which of two models' answers is better: RouteLLM's BERT, on any encoder."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from batch.arrays import Indices
from batch.errors import InputError, SpecError
from batch.routers.bert import LABELS, STRONG_WINS, TIE, WEAK_WINS, load_classifier, token_limit
from batch.routers.network.forward import Tokenize, device, first_tokens
from batch.routers.network.pretrained import refuse_missing_weights, save_pretrained
from batch.training.data import Judged, Preferences
from batch.training.kind import FineTuner, FineTuningRequest
from batch.training.labels.contests import Contests, collect_contests, split_contests
from batch.training.tuning import Loss, OnEpoch, TokenizedExamples, tune

# BERT's authors searched from 2e-5 to 5e-5; the upper end suits encoders of MiniLM's size.
LEARNING_RATE = 5e-5
BATCH_TOKENS = 4096


def fine_tune_bert(
    data: Sequence[Judged | Preferences],
    base: Path,
    out: Path,
    *,
    models: tuple[str, ...] | None = None,
    seed: int,
    validation: float,
    layers: int | None = None,
    epochs: int = 3,
    learning_rate: float = LEARNING_RATE,
    batch_tokens: int = BATCH_TOKENS,
    on_epoch: OnEpoch | None = None,
) -> Mapping[str, Any]:
    """Fine-tune the encoder in `base` and write a checkpoint for `kind: bert` into `out`, in RouteLLM's layout.

    The labels are that the stronger model's answer is better, that both are alike, that the weaker's is better: of
    judged answers, the strongest model's against the weakest's. What is written is the epoch with the least loss on the
    validation part. Deterministic on one machine's CPU. Returns figures for a model card.

    Args:
        base: folder of an encoder, or of a classifier to train on, in safetensors.
        models: weakest first; needed for preferences.
        validation: share of the prompts, above 0 and below 1, that decides which epoch is kept.
        layers: train only the last so many, and the head; all where left out.
        epochs: at most; training ends before where two in a row bring nothing.
        batch_tokens: most tokens in one batch, padding included.

    Raises:
        InputError: the data has no contest, too few, or all with the same end.
        SpecError: `base` is no such encoder, or has fewer layers.
    """
    import torch

    trained, held = split_contests(collect_contests(data, models), validation, seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # for the head, which is new, and dropout
        tokenizer, tokenize, classifier = _opened(base, layers)
        examples = [TokenizedExamples(tokenize(part.prompts), _labels(part)) for part in (trained, held)]
        counts = _counted(examples[0].labels)
        tuned = tune(
            classifier.to(device()),
            _loss(classifier),
            *examples,
            seed=seed,
            epochs=epochs,
            learning_rate=learning_rate,
            batch_tokens=batch_tokens,
            padding=tokenizer.pad_token_id or 0,
            on_epoch=on_epoch,
        )
    _save(tokenizer, classifier, out)
    return {
        "prompts": len(trained),
        "validation_prompts": len(held),
        "labels": dict(zip(LABELS, counts.tolist(), strict=True)),
        "epoch": tuned.epoch,
        "validation_losses": [round(one, 4) for one in tuned.losses],
        "validation_loss_of_shares": round(_loss_of_shares(counts, examples[1].labels), 4),
    }


def _loss(classifier: Any) -> Loss:
    import torch

    def loss(ids: torch.Tensor, mask: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        logits = classifier(input_ids=ids, attention_mask=mask).logits.float()
        return torch.nn.functional.cross_entropy(logits, labels, reduction="none")

    return loss


def _save(tokenizer: Any, classifier: Any, out: Path) -> None:
    classifier.config.id2label = dict(enumerate(LABELS))
    classifier.config.label2id = {label: number for number, label in enumerate(LABELS)}
    save_pretrained(out, classifier, tokenizer)


def _labels(part: Contests) -> list[int]:
    return [STRONG_WINS if by > 0 else WEAK_WINS if by < 0 else TIE for by in part.ahead]


def _counted(labels: Sequence[int]) -> Indices:
    counts = np.bincount(labels, minlength=len(LABELS))
    if counts.max() == len(labels):
        raise InputError(
            f"data: all {len(labels)} prompts end in `{LABELS[counts.argmax()]}`; there is nothing to learn"
        )
    return counts


def _loss_of_shares(counts: Indices, labels: Sequence[int]) -> float:
    """The loss of predicting each label's frequency for every prompt: a router's loss must be below it."""
    shares = (counts + 1) / (counts + 1).sum()
    return float(-np.log(shares)[list(labels)].mean())


def _opened(base: Path, layers: int | None) -> tuple[Any, Tokenize, Any]:
    """Return the tokenizer, a function that tokenizes texts cut to the classifier's length, and the classifier."""
    try:
        tokenizer, classifier, loading = load_classifier(base)
        _refuse_missing_encoder_weights(classifier, loading)
        _freeze(classifier, layers)
        return tokenizer, first_tokens(tokenizer, token_limit(tokenizer, classifier)), classifier
    except (OSError, ValueError) as error:
        raise SpecError(f"fine_tuning.base: {base}: {error}".splitlines()[0]) from error


def _refuse_missing_encoder_weights(classifier: Any, loading: dict[str, Any]) -> None:
    """As `refuse_missing_weights`, but for the head, which is new, and the pooler below it, which encoders may lack."""
    within = f"{classifier.base_model_prefix}."
    missing = {name for name in loading["missing_keys"] if name.startswith(within) and ".pooler." not in name}
    mismatched = {entry for entry in loading["mismatched_keys"] if entry[0].startswith(within)}
    refuse_missing_weights({"missing_keys": missing, "mismatched_keys": mismatched})


def _freeze(classifier: Any, layers: int | None) -> None:
    """Freeze all but the last `layers` layers and what stands above them."""
    import torch

    if layers is None:
        return
    encoder = classifier.base_model
    have = int(classifier.config.num_hidden_layers)
    stacks = [one for one in encoder.modules() if isinstance(one, torch.nn.ModuleList) and len(one) == have]
    if layers > have or not stacks:
        raise ValueError(f"it has {have} layers, of which {layers} cannot be trained")
    for parameter in encoder.parameters():
        parameter.requires_grad_(False)
    for module in [*stacks[0][have - layers :], getattr(encoder, "pooler", None)]:
        for parameter in module.parameters() if module is not None else ():
            parameter.requires_grad_(True)


def _fine_tune(asked: FineTuningRequest) -> Mapping[str, Any]:
    spec = asked.spec
    return fine_tune_bert(
        asked.data,
        asked.base,
        asked.out,
        models=asked.models,
        seed=asked.seed,
        validation=asked.validation,
        layers=spec.layers,
        epochs=spec.epochs,
        learning_rate=LEARNING_RATE if spec.learning_rate is None else spec.learning_rate,
        batch_tokens=spec.batch_tokens,
        on_epoch=asked.on_epoch,
    )


TRAINER = FineTuner(
    kind="bert",
    card="RouteLLM's BERT: a sequence classifier of weak wins, tie and strong wins.",
    fine_tune=_fine_tune,
)
