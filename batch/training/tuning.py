"""Gradient descent on a whole network, in batches by token budget, until the validation loss stops falling."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from batch.routers.network.batching import token_batches
from batch.routers.network.forward import device

if TYPE_CHECKING:
    import torch

Loss = Callable[["torch.Tensor", "torch.Tensor", "torch.Tensor"], "torch.Tensor"]
OnEpoch = Callable[[str], None]

_log = logging.getLogger("batchrouter.training")

# Epochs without a better validation loss, after which training ends.
PATIENCE = 2
# The share of all steps in which the learning rate rises, linearly; in the others it falls linearly to 0.
_WARMUP = 0.1
_WEIGHT_DECAY = 0.01
_LONGEST_GRADIENT = 1.0
# Prompts are sorted by length within so many batches: enough to save most padding, few enough to keep the order random.
_SORTED_TOGETHER = 16


@dataclass(frozen=True)
class TokenizedExamples:
    """Prompts as tokens, with their labels: what a network is tuned on."""

    tokens: Sequence[Sequence[int]]
    labels: Sequence[int]

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True)
class Tuned:
    """The outcome of tuning."""

    epoch: int
    """The epoch whose parameters were kept, from 1; 0: the network as it was before."""
    losses: tuple[float, ...]
    """Mean validation loss before the first epoch and after each."""


def tune(
    network: "torch.nn.Module",
    loss: Loss,
    trained: TokenizedExamples,
    validation: TokenizedExamples,
    *,
    seed: int,
    epochs: int,
    learning_rate: float,
    batch_tokens: int,
    padding: int = 0,
    on_epoch: OnEpoch | None = None,
) -> Tuned:
    """Tune the parameters of `network` that require gradients; it keeps those of the epoch with the least loss.

    Deterministic on one machine's CPU if the caller seeds torch, which draws the numbers of dropout; `seed` is for the
    order of prompts.

    Args:
        network: on the device that `forward.device` names.
        loss: takes tokens, mask and labels of a batch padded on the right; returns one number for each of its prompts.
        epochs: most epochs; training ends sooner after `PATIENCE` epochs without a better validation loss.
        batch_tokens: most tokens in one batch, padding included.
    """
    import torch

    wanted = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(wanted, lr=learning_rate, weight_decay=_WEIGHT_DECAY)
    chance = torch.Generator().manual_seed(seed)
    planned = [list(_shuffled(trained, batch_tokens, chance)) for _ in range(epochs)]
    # Each prompt counts alike, whatever the length of those beside it; a batch of few takes a short step.
    steps = sum(map(len, planned))
    usual = len(trained) * epochs / steps
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _slope(steps))
    losses = [_mean_loss(network, loss, validation, batch_tokens, padding)]
    best, kept = 0, _copied(wanted)
    for epoch, batches in enumerate(planned, 1):
        network.train()
        for batch in batches:
            optimizer.zero_grad(set_to_none=True)
            with _precision():
                total = loss(*_tensors(trained, batch, padding)).sum() / usual
            total.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(wanted, _LONGEST_GRADIENT)
            optimizer.step()
            schedule.step()
        losses.append(_mean_loss(network, loss, validation, batch_tokens, padding))
        said = f"epoch {epoch} of {epochs}: validation loss {losses[-1]:.4f}, {losses[best]:.4f} at best before"
        _log.info(said)
        if on_epoch is not None:
            on_epoch(said)
        if losses[-1] < losses[best]:
            best, kept = epoch, _copied(wanted)
        elif epoch - best >= PATIENCE:
            break
    with torch.no_grad():
        for parameter, value in zip(wanted, kept, strict=True):
            parameter.copy_(value)
    network.eval()
    return Tuned(best, tuple(losses))


def _shuffled(examples: TokenizedExamples, batch_tokens: int, chance: "torch.Generator") -> Iterator[list[int]]:
    """Batches of an epoch: prompts of like length together, batches in any order."""
    import torch

    lengths = np.array([len(ids) for ids in examples.tokens])
    order = torch.randperm(len(lengths), generator=chance).numpy()
    together = max(_SORTED_TOGETHER * batch_tokens // max(int(lengths.mean()), 1), 1)
    batches = [
        part[batch].tolist()
        for start in range(0, len(order), together)
        for part in [order[start : start + together]]
        for batch in token_batches(lengths[part], batch_tokens)
    ]
    for place in torch.randperm(len(batches), generator=chance).tolist():
        yield batches[place]


def _mean_loss(
    network: "torch.nn.Module", loss: Loss, examples: TokenizedExamples, batch_tokens: int, padding: int
) -> float:
    import torch

    network.eval()
    total = 0.0
    for batch in token_batches([len(ids) for ids in examples.tokens], batch_tokens):
        with torch.no_grad(), _precision():
            total += float(loss(*_tensors(examples, batch.tolist(), padding)).sum())
    return total / len(examples)


def _tensors(
    examples: TokenizedExamples, batch: Sequence[int], padding: int
) -> tuple["torch.Tensor", "torch.Tensor", "torch.Tensor"]:
    import torch

    rows = [torch.tensor(examples.tokens[i]) for i in batch]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=padding)
    lengths = torch.tensor([len(row) for row in rows])
    mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
    labels = torch.tensor([examples.labels[i] for i in batch])
    on = device()
    return ids.to(on), mask.to(on), labels.to(on)


def _precision() -> "torch.autocast":
    import torch

    return torch.autocast("cuda", torch.bfloat16, enabled=device().type == "cuda")


def _copied(parameters: Sequence["torch.nn.Parameter"]) -> list["torch.Tensor"]:
    return [parameter.detach().clone() for parameter in parameters]


def _slope(steps: int) -> Callable[[int], float]:
    rising = max(int(steps * _WARMUP), 1)

    def factor(step: int) -> float:
        return min((step + 1) / rising, (steps - step) / max(steps - rising, 1))

    return factor
