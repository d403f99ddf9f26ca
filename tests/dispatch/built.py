"""Builds the real dispatcher with servers that are written as functions."""

from collections.abc import Sequence
from typing import Any

from batch.dispatch.dispatcher import Dispatcher
from batch.dispatch.ports import Work
from schemas.endpoints import ModelSpec
from schemas.job import DispatchSpec
from tests.fakes import Behaviour, FunctionTransport


def built(
    work: Work, behaviour: Behaviour, models: Sequence[ModelSpec], spec: DispatchSpec | None = None, **options: Any
) -> Dispatcher:
    """Return a dispatcher that was fed nothing yet. `options` are passed on to `Dispatcher`."""
    return Dispatcher(
        models,
        spec or DispatchSpec(),
        work,
        seed=0,
        keys=lambda name: None,
        wall=lambda: 0.0,
        transports=lambda endpoint: FunctionTransport(behaviour, endpoint),
        **options,
    )
