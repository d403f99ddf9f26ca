"""A balancer of the user's own, named by its import path."""

from collections.abc import Sequence
from typing import Any

from batch.dispatch.endpoint import Endpoint
from batch.dispatch.request import Request
from batch.errors import SpecError
from batch.user_code import call_failures, make_own
from schemas.imported import ImportSpec

_KEY = "dispatch.balancer"


class ImportedBalancer:
    """Asks the user's class. What the class raises, or picks wrongly, ends the run in one line."""

    def __init__(self, spec: ImportSpec) -> None:
        """
        Raises:
            SpecError: the class is missing, is no balancer, or its constructor fails.
        """
        self._balancer: Any = make_own(spec.path, spec.options, _KEY, call="pick(request, ready)", is_no="balancer")
        self._path = spec.path

    def pick(self, request: Request, ready: Sequence[Endpoint]) -> Endpoint:
        """As the user's class picks.

        Raises:
            SpecError: the class failed, or picked something else than one of `ready`.
        """
        with call_failures(self._path, _KEY, "pick"):
            picked: object = self._balancer.pick(request, ready)
        for endpoint in ready:
            if picked is endpoint:
                return endpoint
        raise SpecError(f"{_KEY}.path: {self._path}: `pick` returned a {type(picked).__name__} that is none of `ready`")
