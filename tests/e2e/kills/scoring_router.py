"""Routers that say which process scores what, and what becomes of it."""

import os
import signal
import time
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SECONDS = 0.4
LETHAL = "lethal"


class WatchedRouter:
    """Scores by hash, slowly. Into `folder` it writes what it was given: `begun-` before it scores, `done-` after."""

    def __init__(self, folder: str) -> None:
        self.models = ("any",)
        self._folder = Path(folder)

    def score(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        note = f"{os.getpid()}-{prompts[0].replace(' ', '_')}"
        (self._folder / f"begun-{note}").touch()
        time.sleep(SECONDS)
        (self._folder / f"done-{note}").touch()
        numbers = [int.from_bytes(blake2b(prompt.encode(), digest_size=3).digest()) for prompt in prompts]
        return (np.array(numbers) / 2**24).astype(np.float32).reshape(-1, 1)


class LethalRouter(WatchedRouter):
    """One prompt kills the process that scores it, every time."""

    def score(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        if LETHAL in prompts:
            (self._folder / f"died-{os.getpid()}").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().score(prompts)
