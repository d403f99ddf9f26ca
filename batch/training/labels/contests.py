"""From judged answers and preferences to how far the stronger of two models is ahead on each prompt."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from batch.arrays import Floats
from batch.errors import InputError
from batch.training.data import Judged, Preferences, choose_validation


@dataclass(frozen=True)
class Contests:
    """Prompts that two models answered, and how far the stronger model's answer was ahead."""

    prompts: Sequence[str]
    ahead: Floats
    """Shape (prompts,), from -1, where the weaker model's answer is wholly better, to 1; 0 is a tie."""

    def __len__(self) -> int:
        return len(self.prompts)

    def of(self, chosen: Sequence[int]) -> "Contests":
        """Only the contests with these numbers."""
        return Contests([self.prompts[i] for i in chosen], self.ahead[list(chosen)])


def collect_contests(data: Sequence[Judged | Preferences], models: tuple[str, ...] | None = None) -> Contests:
    """Gather all contests between a stronger and a weaker model.

    In `Judged` a contest is between the strongest and the weakest of its models, if both answers were judged. In
    `Preferences` it is between any two of `models`.

    Args:
        models: weakest first; left out, those of each `Judged`.

    Raises:
        InputError: there are preferences and no `models`, or no contest is left.
    """
    found = [contest for one in data for contest in _of(one, models)]
    if not found:
        raise InputError("data: no prompt with judged answers of both the strongest and the weakest model")
    return Contests([prompt for prompt, _ in found], np.array([ahead for _, ahead in found]))


def split_contests(whole: Contests, validation: float, seed: int) -> tuple[Contests, Contests]:
    """Return those to train on and about this share to validate with; equal prompts stay together.

    Raises InputError where one of the two would be empty.
    """
    held = choose_validation(whole.prompts, validation, seed)
    parts = whole.of(np.flatnonzero(~held).tolist()), whole.of(np.flatnonzero(held).tolist())
    if not all(map(len, parts)):
        raise InputError(f"data: {len(whole)} labelled prompts are too few to keep {validation:.0%} for validation")
    return parts


def _of(one: Judged | Preferences, models: tuple[str, ...] | None) -> Iterator[tuple[str, float]]:
    if isinstance(one, Judged):
        names = [model for model in models or one.models if model in one.models]
        if len(names) < 2:
            return
        ahead = one.quality[:, one.models.index(names[-1])] - one.quality[:, one.models.index(names[0])]
        yield from ((prompt, float(by)) for prompt, by in zip(one.prompts, ahead, strict=True) if np.isfinite(by))
        return
    if models is None:
        raise InputError("models: preferences do not say which model is the stronger; list them, weakest first")
    strength = {model: place for place, model in enumerate(models)}
    for prompt, first, second, outcome in zip(one.prompts, one.first, one.second, one.outcome, strict=True):
        if first != second and first in strength and second in strength and np.isfinite(outcome):
            towards_first = 2 * float(outcome) - 1
            yield prompt, towards_first if strength[first] > strength[second] else -towards_first
