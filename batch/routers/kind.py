"""What the engine knows of a kind of router: the record that each router's file ends with."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar, get_args

from batch.environment import NO_ENVIRONMENT, Environment
from batch.routers.base import Router
from batch.routers.checkpoints.format import EncoderConfig
from schemas.base import Spec

S = TypeVar("S", bound=Spec)


@dataclass(frozen=True, slots=True)
class BuildContext:
    """What a router is built with besides its spec."""

    models: tuple[str, ...]
    """The job's models, cheapest first."""
    seed: int = 0
    """The job's seed."""
    threads: int | None = None
    """CPU threads for routers that compute with torch or ONNX; `None`: the library's own choice."""
    environment: Environment = NO_ENVIRONMENT
    """Keys, clock and spending record for routers whose embedder calls endpoints."""

    @property
    def strongest(self) -> str:
        """The job's strongest model: the only column of a pair router."""
        return self.models[-1]


@dataclass(frozen=True, slots=True)
class RouterKind(Generic[S]):
    """How routers of one kind are built, and what is known of them before that."""

    spec: type[S]
    """The `router` block of a job file for this kind."""
    build: Callable[[S, BuildContext], Router]
    """Builds the router; sends nothing. Raises SpecError, in one line, for what is missing or does not fit."""
    loads_model: bool = False
    """Does building it load a model? Such a router stays loaded in actors; any task builds the others anew."""
    fingerprint: Callable[[S], str] | None = None
    """Returns a hash that changes with anything on disk that affects scores; raises SpecError where it cannot be read.
    `None`: the router reads nothing from disk, or only the user's own code knows what it reads."""
    encoder: Callable[[S], EncoderConfig] | None = None
    """Returns the encoder that prompts' vectors must come from, or raises SpecError; `None`: it needs no vectors."""
    row_spec: S | None = None
    """What `router-<kind>-<cutoff>` in a row stands for; `None`: rows cannot name this kind."""

    @property
    def name(self) -> str:
        """The spec's `kind`."""
        (name,) = get_args(self.spec.model_fields["kind"].annotation)
        assert isinstance(name, str), "`kind` is a Literal of one text"
        return name
