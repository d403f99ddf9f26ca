"""Which outcome counts for a row, over all the journals of its shard."""

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
    """An outcome, and the model that the row was sent to."""

    model: str
    outcome: JournaledOutcome


class ShardOutcomes:
    """What the routed parts and journals of one shard say about its rows.

    Attributes:
        planned: by row, the model that the plan chose; rows that are not sent are left out.
        replays: the journals, by model.
        answered: which rows the journals hold an end for, to be stored.
        any_billed: was any attempt at any row billed without an answer, as far as is known?
    """

    def __init__(
        self, layout: Layout, shard: int, models: Sequence[str], fallbacks: Mapping[str, Sequence[str]]
    ) -> None:
        """Read the shard's journals; outcomes stay on disk.

        Args:
            layout: of the run.
            shard: its index.
            models: all of the job's.
            fallbacks: by model, the models that its rows may have gone to instead, in order.

        Raises:
            StorageError: a file cannot be read.
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
        """The outcome that counts for `row`; `None` if it has none.

        Of the planned model and its fallbacks, it is that of the first that answered, or else of the last that was
        tried. An outcome of any other model was paid for under an older plan and does not count.
        """
        last: str | None = None
        for model in self._chain(row):
            if row in self.replays[model].ok:
                return ModelOutcome(model, self._readers[model].read(row))
            if row in self._readers[model]:
                last = model
        return ModelOutcome(last, self._readers[last].read(row)) if last is not None else None

    def superseded(self) -> Iterator[ModelOutcome]:
        """Answers of models that the plan no longer has for their rows. They were paid for and do not count."""
        for model, journal in self.replays.items():
            others = [row for row in journal.ok if self.planned.get(row) != model and model not in self._chain(row)]
            for row in others:
                yield ModelOutcome(model, self._readers[model].read(row))

    def billed(self, row: int) -> Iterator[tuple[str, str | None, Billed]]:
        """Of each attempt at `row` that may have been billed without an answer: model, endpoint and tokens."""
        for model, journal in self.replays.items():
            for endpoint, billed in journal.billed.get(row, ()):
                yield model, endpoint, billed

    def sent(self, row: int) -> int:
        """How many requests were sent for `row`. Attempts are numbered on when a row falls back to another model."""
        return max((self.replays[model].attempts.get(row, 0) for model in self._chain(row)), default=0)

    def _chain(self, row: int) -> tuple[str, ...]:
        planned = self.planned.get(row)
        return () if planned is None else (planned, *self._fallbacks.get(planned, ()))

    def close(self) -> None:
        """Close the journals."""
        self._open.close()

    def __enter__(self) -> "ShardOutcomes":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
