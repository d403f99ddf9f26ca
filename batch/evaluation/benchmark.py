"""Benchmarks: prompts with the judged quality of each model's answer, in the form in which they are measured."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from batch.arrays import Floats
from batch.errors import InputError

# With fewer prompts, intervals are so wide that most routers cannot be told from a random one.
FEW_PROMPTS = 100


@dataclass(frozen=True)
class Benchmark:
    """One set of prompts, which is measured by itself."""

    name: str
    """Its name in figures and plots."""
    prompts: Sequence[str]
    """The texts that routers score."""
    models: tuple[str, ...]
    """Cheapest first, strongest last."""
    quality: Floats
    """Shape (prompts, models), no NaN."""
    cost: Floats | None = None
    """What each answer cost, shape (prompts, models); `None`: not known."""
    grades: bool = False
    """Is quality a grade, such as from 1 to 10? Otherwise it is between 0 and 1."""
    files: tuple[str, ...] = ()
    """SHA-256 of the files that were read."""
    notes: tuple[str, ...] = ()
    """Notes for the reader of its figures."""

    def rows(self, chosen: NDArray[np.bool_], name: str, *notes: str) -> "Benchmark":
        """The same benchmark with only some of its prompts. Raises InputError if none is left."""
        if not chosen.any():
            raise InputError(f"benchmark {name}: no prompt is left to measure on")
        return replace(
            self,
            name=name,
            prompts=[self.prompts[at] for at in np.flatnonzero(chosen).tolist()],
            quality=self.quality[chosen],
            cost=None if self.cost is None else self.cost[chosen],
            notes=(*self.notes, *notes),
        )


def judged_only(benchmark: Benchmark) -> Benchmark:
    """Without prompts for which some model's answer was not judged, or not priced. Raises InputError for none left."""
    values = benchmark.quality if benchmark.cost is None else np.hstack([benchmark.quality, benchmark.cost])
    known = np.asarray(np.isfinite(values).all(axis=1))
    left_out = int((~known).sum())
    if not left_out:
        return benchmark
    wanted = "judged" if benchmark.cost is None else "judged and priced"
    told = f"{left_out:,} of {len(known):,} prompts are left out: not every model's answer to them was {wanted}"
    return benchmark.rows(known, benchmark.name, told)


def priced(benchmark: Benchmark, prices: dict[str, float]) -> Benchmark:
    """With a price for every answer, where the benchmark has no costs of its own and all its models have a price."""
    if benchmark.cost is not None:
        return benchmark
    missing = [model for model in benchmark.models if model not in prices]
    if missing:
        some = len(missing) < len(benchmark.models)
        told = (f"`prices` has none for {', '.join(missing)}, so what answers cost is not known",) if some else ()
        return replace(benchmark, notes=(*benchmark.notes, *told))
    row = np.array([prices[model] for model in benchmark.models])
    return replace(benchmark, cost=np.broadcast_to(row, benchmark.quality.shape))
