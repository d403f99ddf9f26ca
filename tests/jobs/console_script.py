"""Calling the console script."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def faults(self) -> list[str]:
        """The lines that say what is wrong."""
        return [line.removeprefix("batchrouter: ") for line in self.err.splitlines() if line.startswith("batchrouter:")]


Command = Callable[..., Ended]
Job = dict[str, Any]


def written(job: Job, folder: Path) -> Path:
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(job))
    return path
