"""Trains the matrix factorisation on preferences, in RouteLLM's form: a vector for each model, a projection of the
prompt's vector, and a classifier over their product (Ong et al. 2024, arXiv 2406.18665, section 4.2).

As in RouteLLM, noise is added to prompts' vectors in training, which keeps the factors from learning prompts by heart.
Three things differ from RouteLLM. Vectors are standardised first; the stored projection includes that step, which adds
no more than a bias. A tie counts as half a win for each model. Training stops at the epoch that predicts held-out
prompts best. Trained on MMLU and GSM8K together, over layer 2 of the packaged encoder, the cross-validated APGR is .643
and .601 (mean of two assignments to folds); without ties that of MMLU is .55.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from batch.arrays import Float32s, Floats, Indices
from batch.errors import InputError
from batch.routers.base import Embedder
from batch.routers.mf import UNIT_FLOOR
from batch.training.data import Judged, Preferences, Trained, choose_validation
from batch.training.kind import FitRequest, VectorTrainer

if TYPE_CHECKING:
    import torch

RANK = 32
# Noise in standard deviations of the vectors' numbers. APGR is about the same from 1 to 3.
NOISE = 2.0
LEARNING_RATE = 3e-4
MOST_IN_BATCH = 512
# Few preferences are cut into batches as small as this, so that an epoch has several steps.
LEAST_IN_BATCH = 16
STEPS_AN_EPOCH = 8
MOST_EPOCHS = 400
# Training ends after so many epochs without a lower loss on held-out preferences.
PATIENCE = 15


@dataclass(frozen=True)
class _Pairs:
    """Preferences: prompts and models by number, one element of each array for each preference."""

    prompt: Indices
    first: Indices
    second: Indices
    outcome: Floats
    """1 where the first was preferred, 0 where the second was, one half for a tie."""

    def where(self, mask: NDArray[np.bool_]) -> "_Pairs":
        return _Pairs(self.prompt[mask], self.first[mask], self.second[mask], self.outcome[mask])


@dataclass(frozen=True)
class _Fitted:
    """Factors over standardised vectors."""

    models: Floats
    projection: Floats
    bias: Floats
    classifier: Floats
    epochs: int
    loss: float
    """Loss on held-out preferences after the last epoch."""


def fit_mf(data: Sequence[Judged | Preferences], embedder: Embedder, seed: int, validation: float) -> Trained:
    """Fit the factors of all models in `data` together; the result is for a checkpoint of kind `mf`.

    In `Judged`, any two models with judged answers to a prompt give a preference for the better one, or a tie. Prompts'
    vectors are scaled to length 1, as the router does. Once the number of epochs is found, the factors are trained on
    all preferences for that many epochs. `options["models"]` names the models in the order of their vectors, weakest
    first by mean log odds over all prompts. Equal data, vectors and seed give equal factors on one machine.

    Args:
        seed: decides which prompts are held out, and draws initial factors, order and noise.
        validation: share of the prompts, between 0 and 1, that decides when to stop.

    Raises:
        InputError: all preferences are ties, or prompts are too few to hold some out.
    """
    prompts, models, pairs = _collect(data)
    if not (pairs.outcome != 0.5).any():
        raise InputError("data: no model's answer is better than another's; mf is trained on preferences")
    # Not the seed itself: whoever dealt before with the same one has taken those prompts away.
    held = choose_validation(prompts, validation, ~seed)[pairs.prompt]
    if held.all() or not held.any():
        raise InputError(f"data: {len(prompts)} prompts are too few to hold out {validation:g} of them; add more")
    vectors = embedder.embed(prompts).astype(np.float64)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), UNIT_FLOOR)
    mean, spread = vectors.mean(axis=0), vectors.std(axis=0)
    spread[spread < UNIT_FLOOR] = 1.0
    standard = ((vectors - mean) / spread).astype(np.float32)
    trial = _fit(standard, len(models), pairs.where(~held), pairs.where(held), seed, MOST_EPOCHS, PATIENCE)
    final = _fit(standard, len(models), pairs, pairs.where(held), seed, trial.epochs, trial.epochs)
    units = final.models / np.maximum(np.linalg.norm(final.models, axis=1, keepdims=True), UNIT_FLOOR)
    # Standardised vectors have mean zero, so that the bias is all that is left of a model's mean log odds.
    order = np.argsort((units * final.classifier) @ final.bias, kind="stable")
    projection = final.projection / spread
    tensors = {
        "models": final.models[order],
        "projection": projection,
        "bias": final.bias - projection @ mean,
        "classifier": final.classifier,
    }
    return Trained(
        {name: tensor.astype(np.float32) for name, tensor in tensors.items()},
        {"models": [models[i] for i in order]},
        {
            "rank": RANK,
            "noise": NOISE,
            "epochs": trial.epochs,
            "validation_log_loss": round(trial.loss, 4),
            "preferences": int((pairs.outcome != 0.5).sum()),
            "ties": int((pairs.outcome == 0.5).sum()),
        },
    )


def _collect(data: Sequence[Judged | Preferences]) -> tuple[list[str], list[str], _Pairs]:
    """Return distinct prompts, models, and who was preferred."""
    prompts: dict[str, int] = {}
    models: dict[str, int] = {}
    rows = [
        (
            prompts.setdefault(prompt, len(prompts)),
            models.setdefault(first, len(models)),
            models.setdefault(second, len(models)),
            outcome,
        )
        for one in data
        for prompt, first, second, outcome in (_judged(one) if isinstance(one, Judged) else _preferred(one))
        if first != second
    ]
    numbers = np.array([row[:3] for row in rows], dtype=np.intp).reshape(-1, 3)
    outcome = np.array([row[3] for row in rows], dtype=np.float64)
    return list(prompts), list(models), _Pairs(numbers[:, 0], numbers[:, 1], numbers[:, 2], outcome)


def _preferred(one: Preferences) -> Iterator[tuple[str, str, str, float]]:
    return zip(one.prompts, one.first, one.second, one.outcome.tolist(), strict=True)


def _judged(one: Judged) -> Iterator[tuple[str, str, str, float]]:
    for first, second in combinations(range(len(one.models)), 2):
        gain = one.quality[:, first] - one.quality[:, second]
        for row in np.flatnonzero(~np.isnan(gain)).tolist():
            yield one.prompts[row], one.models[first], one.models[second], (1.0 + float(np.sign(gain[row]))) / 2.0


def _fit(vectors: Float32s, models: int, train: _Pairs, held: _Pairs, seed: int, epochs: int, patience: int) -> _Fitted:
    """Train for `epochs`, or until what is held out has not been predicted better for `patience`; the best of it.

    With as much patience as epochs, the last of it.
    """
    import torch

    chance = torch.Generator().manual_seed(seed)
    factors = [
        torch.randn(models, RANK, generator=chance),
        # From nothing: what is left of a first guess after few epochs would be noise.
        torch.zeros(RANK, vectors.shape[1]),
        torch.zeros(RANK),
        torch.randn(RANK, generator=chance) / RANK**0.5,
    ]
    for factor in factors:
        factor.requires_grad_()
    optimizer = torch.optim.Adam(factors, lr=LEARNING_RATE)
    known = torch.from_numpy(vectors)
    size = min(MOST_IN_BATCH, max(LEAST_IN_BATCH, len(train.prompt) // STEPS_AN_EPOCH))
    rows, unseen = _tensors(train), _tensors(held)
    best: _Fitted | None = None
    for epoch in range(1, epochs + 1):
        order = torch.randperm(len(train.prompt), generator=chance)
        for start in range(0, len(order), size):
            some = order[start : start + size]
            prompt, first, second, outcome = (column[some] for column in rows)
            blurred = known[prompt]
            blurred = blurred + NOISE * torch.randn(blurred.shape, generator=chance)
            optimizer.zero_grad()
            _loss(factors, blurred, first, second, outcome).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        with torch.no_grad():
            loss = float(_loss(factors, known[unseen[0]], *unseen[1:]))
        if best is None or loss < best.loss or patience >= epochs:
            matrices = [factor.detach().numpy().astype(np.float64) for factor in factors]
            best = _Fitted(*matrices, epochs=epoch, loss=loss)  # type: ignore[misc]
        elif epoch - best.epochs >= patience:
            break
    assert best is not None, "there is an epoch"
    return best


def _tensors(pairs: _Pairs) -> "tuple[torch.Tensor, ...]":
    import torch

    columns: tuple[NDArray[Any], ...] = (pairs.prompt, pairs.first, pairs.second, pairs.outcome.astype(np.float32))
    return tuple(torch.from_numpy(column) for column in columns)


def _loss(
    factors: "list[torch.Tensor]",
    vectors: "torch.Tensor",
    first: "torch.Tensor",
    second: "torch.Tensor",
    outcome: "torch.Tensor",
) -> "torch.Tensor":
    """Mean log loss of who was preferred."""
    from torch.nn import functional

    models, projection, bias, classifier = factors
    units = functional.normalize(models, dim=1)
    logits = ((units[first] - units[second]) * (vectors @ projection.T + bias)) @ classifier
    return functional.binary_cross_entropy_with_logits(logits, outcome)


def _fit_all(asked: FitRequest) -> Trained:
    return fit_mf(asked.data, asked.embedder, asked.seed, asked.validation)


TRAINER = VectorTrainer(
    kind="mf",
    card="RouteLLM's matrix factorisation: how likely the strongest model's answer wins.",
    fit=_fit_all,
    names_pair=True,
)
