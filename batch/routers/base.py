"""What a router is, and what embeds prompts for those that need it."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from batch.clock import WallClock
from batch.dispatch.transports.keys import Keys


class Router(Protocol):
    """Scores prompts; the higher, the more a prompt needs the model of that column.

    `models` says what the columns mean. With one column per model, each is the predicted quality of that
    model's answer, a probability. A pair router has one column: how likely the strongest model's answer wins.
    """

    models: tuple[str, ...]

    def score(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        """Return scores of shape `(len(prompts), len(models))`, rows in the order of `prompts`.

        A prompt's scores depend on that prompt alone: not on its neighbours, the clock or earlier calls. One thread
        calls at a time.
        """
        ...


class Embedder(Protocol):
    """Turns texts into vectors."""

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return vectors of shape `(len(texts), dimension)`, in the order of `texts`."""
        ...


@dataclass(frozen=True, slots=True)
class SpendingRecord:
    """Where a router that calls endpoints records what it spends, and how much that may be."""

    log: Path
    """File of a SpendingLog."""
    cap: Decimal | None = None
    """Most dollars that the log may come to, earlier sittings included; `None`: no budget."""


@dataclass(frozen=True, slots=True)
class Outside:
    """What routers that call endpoints need of the world; it pickles by reference, so that no key travels."""

    keys: Keys
    wall: WallClock
    spending: SpendingRecord | None = None
    """`None`: what is spent is recorded nowhere."""


NOTHING_OUTSIDE = Outside(keys=lambda name: None, wall=lambda: 0.0)
