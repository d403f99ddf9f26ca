"""A folder with a job in it, run in this process against rehearsed endpoints."""

import json
import signal
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from batch.dispatch.snapshot import ProgressSnapshot
from jobs.commands.run import run_job
from jobs.terminal.progress import ProgressDisplay
from schemas.job import JobSpec
from schemas.reports import Report
from tests.rehearsed import Served

# Prices whose sums a float would round.
PRICES = {"small": {"input": "0.07", "output": "0.13"}, "large": {"input": "2.51", "output": "10.03"}}
ENDPOINTS = ({"model": "small", "answers": "echo"}, {"model": "large", "answers": "echo"})


class ActAfter(ProgressDisplay):
    """Does something, once, when so many rows have ended."""

    def __init__(self, rows: int, act: Callable[[], None]) -> None:
        super().__init__()
        self._rows: int | None = rows
        self._act = act

    def update(self, snapshot: ProgressSnapshot) -> None:
        if self._rows is not None and sum(lane.done for lane in snapshot.lanes) >= self._rows:
            self._rows = None
            self._act()


def interrupt_after(rows: int) -> ActAfter:
    """SIGINT to this process, as Ctrl-C sends it."""
    return ActAfter(rows, lambda: signal.raise_signal(signal.SIGINT))


@dataclass
class JobFolder:
    """Where a test's job lives, and what it may change of it."""

    folder: Path
    served: Served

    @property
    def results_path(self) -> Path:
        return self.folder / "results.jsonl"

    @property
    def run_dir(self) -> Path:
        return self.folder / "results.jsonl.run"

    def write(self, rows: Iterable[Mapping[str, Any] | str], name: str = "prompts.jsonl") -> None:
        """An input file: a line for each row, texts as they are."""
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        (self.folder / name).write_text("".join(f"{line}\n" for line in lines))

    def write_prompts(self, count: int, **more: Any) -> None:
        """Prompts p0, p1, ... with as many words as their number, so that scores by length differ."""
        self.write({"id": f"r{i}", "prompt": f"p{i}" + " word" * i, **more} for i in range(count))

    def job(self, **changes: Any) -> JobSpec:
        """The job; each change replaces one of its sections."""
        models = [
            {"name": name, "price": PRICES[name], "endpoints": [{"url": url}]}
            for name, url in zip(("small", "large"), self.served.urls, strict=False)
        ]
        base: dict[str, Any] = {
            "engine": "inline",
            "input": {"path": str(self.folder / "prompts.jsonl")},
            "router": {"kind": "length"},
            "models": models,
            "plan": {"strategy": "share", "strong": 0.5},
            "output": {"path": str(self.results_path)},
        }
        return JobSpec.model_validate(base | changes)

    def run(self, job: JobSpec | None = None, **options: Any) -> Report:
        return run_job(job or self.job(), **options)

    def results(self) -> list[dict[str, Any]]:
        """The result rows, dollars as they are written."""
        return [json.loads(line, parse_float=Decimal) for line in self.results_path.read_text().splitlines()]


def dollars(rows: Iterable[Mapping[str, Any]]) -> Decimal:
    """What the rows say they cost, added up exactly."""
    return sum((Decimal(row["cost_usd"] or 0) for row in rows), Decimal(0))
