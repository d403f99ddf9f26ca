"""Which outcome stands for a row, over all the journals of its shard."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import NamedTuple

from batch.outcomes import Billed
from batch.runs.integrity.answered import replay_all
from batch.runs.journal.outcome_reader import JournaledOutcome, OutcomeReader
from batch.runs.journal.replay import Replay
from batch.runs.layout import Layout
from batch.runs.parts import routed_rows


class ModelOutcome(NamedTuple):
    """An outcome and the model it came from."""

    model: str
    outcome: JournaledOutcome


class ShardOutcomes:
    """What the routed parts and journals of one shard say about its rows.

    Attributes:
        planned: the model each routed row was planned for.
        replays: the journals, by model.
        answered: what the journals hold, as it is to be stored.
        any_billed: was any attempt at any row billed without an answer, as far as is known?
    """

    def __init__(
        self, layout: Layout, shard: int, models: Sequence[str], fallbacks: Mapping[str, Sequence[str]]
    ) -> None:
        """Read the shard's journals; outcomes stay on disk.

        Args:
            models: all of the job's.
            fallbacks: models to which a model's rows may have gone instead, in order.
        """
        self.planned: dict[int, str] = {}
        self._fallbacks = fallbacks
        self._readers: dict[str, OutcomeReader] = {}
        for model in models:
            self.planned |= dict.fromkeys(routed_rows(layout.routed(model, shard)), model)
        self.replays: dict[str, Replay]
        self.replays, self.answered = replay_all(layout, shard, models)
        self.any_billed = any(journal.billed for journal in self.replays.values())
        with ExitStack() as stack:
            for model, journal in self.replays.items():
                self._readers[model] = stack.enter_context(journal.open_outcomes())
            self._open = stack.pop_all()

    def find(self, row: int) -> ModelOutcome | None:
        """The outcome that stands: of the planned model and its fallbacks the one that answered, else the last tried.

        An outcome under any other model is what an older plan paid for; it does not count.
        """
        last: str | None = None
        for model in self._chain(row):
            if row in self.replays[model].ok:
                return ModelOutcome(model, self._readers[model].read(row))
            if row in self._readers[model]:
                last = model
        return ModelOutcome(last, self._readers[last].read(row)) if last is not None else None

    def superseded(self) -> Iterator[ModelOutcome]:
        """Answers under models that the plan no longer has for their rows; they were paid for, and do not count."""
        for model, journal in self.replays.items():
            others = [row for row in journal.ok if self.planned.get(row) != model and model not in self._chain(row)]
            for row in others:
                yield ModelOutcome(model, self._readers[model].read(row))

    def billed(self, row: int) -> Iterator[tuple[str, str | None, Billed]]:
        """The model, endpoint and tokens of each attempt at the row that may have been billed without an answer."""
        for model, journal in self.replays.items():
            for endpoint, billed in journal.billed.get(row, ()):
                yield model, endpoint, billed

    def sent(self, row: int) -> int:
        """Requests sent for a row so far. An attempt's number goes on counting where a row falls back."""
        return max((self.replays[model].attempts.get(row, 0) for model in self._chain(row)), default=0)

    def _chain(self, row: int) -> tuple[str, ...]:
        planned = self.planned.get(row)
        return () if planned is None else (planned, *self._fallbacks.get(planned, ()))

    def close(self) -> None:
        """Let go of the journals."""
        self._open.close()

    def __enter__(self) -> "ShardOutcomes":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
