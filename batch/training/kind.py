"""What training knows of a kind of router: the record that each trainer's file ends with."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batch.routers.base import Embedder
from batch.training.data import Judged, Trained
from batch.training.encoders import Encoder
from batch.training.labels.alignment import Data, as_judged
from schemas.training import FineTuningSpec, TrainKind


@dataclass(frozen=True, slots=True)
class FitRequest:
    """What weights over prompts' vectors are fitted on."""

    data: Sequence[Data]
    models: tuple[str, ...]
    """Weakest first."""
    embedder: Embedder
    """Turns prompts into vectors."""
    seed: int
    """Of everything random."""
    validation: float
    """Share of `data` by which settings are chosen."""

    def judged(self) -> list[Judged]:
        """`data` with preferences made into judged answers, as `as_judged` does."""
        return [as_judged(one, self.models) for one in self.data]


@dataclass(frozen=True, slots=True)
class FineTuningRequest:
    """What a whole network is fine-tuned on, and where it is written to."""

    data: Sequence[Data]
    models: tuple[str, ...]
    """Weakest first."""
    spec: FineTuningSpec
    base: Path
    """Folder of the network to begin with."""
    out: Path
    """Folder for the checkpoint, in RouteLLM's layout."""
    seed: int
    """Of everything random."""
    validation: float
    """Share of `data` by which the epoch that is kept is chosen."""
    on_epoch: Callable[[str], None] | None = None
    """Called with a line of text after each epoch."""


@dataclass(frozen=True, slots=True)
class VectorTrainer:
    """How routers of a kind are trained that go by prompts' vectors."""

    kind: TrainKind
    """Which router."""
    card: str
    """What the router does, in one sentence of the model card."""
    fit: Callable[[FitRequest], Trained]
    """Fits the weights; deterministic but for the embedder. Raises SpecError where the data does not suffice."""
    own_encoder: Callable[[], Encoder] | None = None
    """Makes the only encoder that such a router can use; `None`: the training file chooses one."""
    names_pair: bool = False
    """Does the `router` block that uses the checkpoint name a strong and a weak model?"""


@dataclass(frozen=True, slots=True)
class FineTuner:
    """How routers of a kind are trained that are a whole network."""

    kind: TrainKind
    """Which router."""
    card: str
    """What the router does, in one sentence of the model card."""
    fine_tune: Callable[[FineTuningRequest], Mapping[str, Any]]
    """Writes the checkpoint and returns figures for the model card. Raises SpecError where the data does not suffice,
    the base model is not there, or a library is missing."""


Trainer = VectorTrainer | FineTuner
