"""A job together with what its file leaves to the environment."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from batch.costs.prices import Price, prices_for
from schemas.endpoints import ModelSpec
from schemas.job import JobSpec


@dataclass(frozen=True)
class ResolvedJob:
    """What a run needs to know of its job. It holds the names of keys and no key."""

    spec: JobSpec
    """The job as its file has it, but for the endpoints of its router's embedder, which are filled in."""
    models: tuple[ModelSpec, ...]
    """The models of `spec` in the same order, with every endpoint's `url` and `model` filled in."""
    embedder: ModelSpec | None
    """The embedding model that the scores come from; `None`: scoring calls no endpoint."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the models, cheapest first."""
        return tuple(model.name for model in self.models)

    @property
    def called(self) -> tuple[ModelSpec, ...]:
        """Every model whose endpoints the run calls: `models`, and the embedder if there is one."""
        return self.models if self.embedder is None else (*self.models, self.embedder)

    @cached_property
    def prices(self) -> Mapping[str, Price | None]:
        """The price of each of `models`; `None`: unknown."""
        return prices_for(self.models)
