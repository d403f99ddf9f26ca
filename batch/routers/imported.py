"""A router of the user's own, named by its import path."""

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from batch.errors import SpecError
from batch.routers.base import Router
from batch.routers.kind import BuildContext, RouterKind
from batch.user_code import call_failures, make_own
from schemas.routers import ImportRouterSpec


def import_router(path: str, options: Mapping[str, Any], models: tuple[str, ...]) -> Router:
    """Build the class at `path`, written `package.module:Class`, with `options` as keyword arguments.

    The class says with `models` what its columns mean: one column, or one for each model it knows, the
    cheapest and the strongest of `models` among them. Raises SpecError, in one line, where the module, the
    class or either of its two members is missing, where its constructor refuses, or where `models` does not fit.
    """
    router = make_own(path, options, "router", call="score(prompts)", is_no="router")
    columns = getattr(router, "models", None)
    if not isinstance(columns, tuple) or not columns:
        raise SpecError(f"router.path: {path} needs `models`, a tuple that names the columns of its scores")
    missing = [name for name in (models[0], models[-1]) if name not in columns]
    if len(columns) > 1 and missing:
        raise SpecError(f"router.path: {path} has no column for {missing[0]!r}, only for {', '.join(columns)}")
    return _OwnRouter(router, path)


class _OwnRouter:
    """Wraps the user's router: its failures become one line with the place in the user's code."""

    def __init__(self, router: Any, path: str) -> None:
        self.models: tuple[str, ...] = router.models
        self._router = router
        self._path = path

    def score(self, prompts: Sequence[str]) -> NDArray[Any]:
        """Call the user's `score`. Raises SpecError for any exception of it that is not an error of this package."""
        with call_failures(self._path, "router", "score"):
            scores: NDArray[Any] = self._router.score(prompts)
        return scores


def _build(spec: ImportRouterSpec, context: BuildContext) -> Router:
    return import_router(spec.path, spec.options, context.models)


# The user's own class may load a model.
KIND = RouterKind(spec=ImportRouterSpec, build=_build, loads_model=True)
