"""The job file may name the user's own balancers and transports by their import paths."""

from collections.abc import Sequence
from typing import Any, ClassVar

import pytest
from pydantic import ValidationError

from batch.dispatch.dispatcher import Dispatcher
from batch.dispatch.endpoint import Endpoint
from batch.dispatch.request import Request
from batch.errors import RateLimited, SpecError
from batch.runs.fingerprint import fingerprint
from schemas.base import problems
from schemas.endpoints import EndpointSpec, ModelSpec
from schemas.imported import ImportSpec
from schemas.job import DispatchSpec, JobSpec
from tests.dispatch.memory_work import MemoryWork
from tests.fakes import answer
from tests.virtual_time import run

HERE = "tests.dispatch.test_imported_classes"
ROWS = 200


class Last:
    """Picks the last endpoint that is ready."""

    def __init__(self, *, raises: str | None = None, foreign: bool = False) -> None:
        self._raises = raises
        self._foreign = foreign

    def pick(self, request: Request, ready: Sequence[Endpoint]) -> object:
        if self._raises is not None:
            raise RuntimeError(self._raises)
        return "nobody" if self._foreign else ready[-1]


class Notes:
    """A transport that answers, throttles or fails as `sends` says, and records its constructor arguments."""

    built: ClassVar[list[dict[str, Any]]] = []
    closed: ClassVar[list[str]] = []

    def __init__(self, endpoint: EndpointSpec, *, sends: str = "answers", **given: Any) -> None:
        self._endpoint = endpoint
        self._sends = sends
        self._count = 0
        Notes.built.append({"model": endpoint.model, **given})

    async def send(self, request: Request) -> object:
        if self._sends == "nothing":
            return None
        if self._sends == "raises":
            raise KeyError("lost")
        self._count += 1
        if self._sends == "throttles" and self._count % 5 == 0:
            raise RateLimited("HTTP 429", status=429)
        return answer()

    async def aclose(self) -> None:
        Notes.closed.append(str(self._endpoint.model))


class NoTransport:
    """A class without a method `send`."""

    def __init__(self, endpoint: EndpointSpec, **given: Any) -> None:
        pass


def dispatch(balancer: object = "least_connections", *, transport: object = None) -> tuple[MemoryWork, Dispatcher]:
    """Send 200 rows to two endpoints of one model."""
    spec = DispatchSpec.model_validate({"balancer": balancer})
    transport = transport or {"kind": "import", "path": f"{HERE}:Notes"}
    endpoints = tuple(
        EndpointSpec.model_validate({"url": f"http://e{i}/v1", "model": "m", "transport": transport}) for i in range(2)
    )
    work = MemoryWork({(0, "m"): list(range(ROWS))})
    built: list[Dispatcher] = []

    async def main() -> None:
        dispatcher = Dispatcher(
            [ModelSpec(name="m", endpoints=endpoints)], spec, work, seed=0, keys=lambda name: None, wall=lambda: 0.0
        )
        built.append(dispatcher)
        dispatcher.feed(0)
        dispatcher.close_feed()
        await dispatcher.run()

    run(main())
    return work, built[0]


def test_an_imported_balancer_and_transport_are_built_and_used() -> None:
    """The balancer picks the endpoint of every row; each endpoint has its own transport, which is closed at the end."""
    Notes.built.clear()
    Notes.closed.clear()
    work, dispatcher = dispatch({"kind": "import", "path": f"{HERE}:Last"})
    assert {row.status for row in work.outcomes.values()} == {"ok"}
    assert len(work.outcomes) == ROWS
    first, last = dispatcher.lanes["m"].pool.endpoints
    assert (first.sent, last.sent) == (0, ROWS)
    assert [set(given) for given in Notes.built] == [{"model", "timeout_seconds", "keys", "wall"}] * 2
    assert Notes.closed == ["m", "m"]


@pytest.mark.parametrize(
    ("balancer", "message"),
    [
        ({"path": "no_such_module:X"}, "dispatch.balancer.path: cannot import 'no_such_module'"),
        ({"path": f"{HERE}:Nothing"}, f"dispatch.balancer.path: the module '{HERE}' has no class 'Nothing'"),
        ({"path": f"{HERE}:NoTransport"}, r"has no method `pick\(request, ready\)`, so it is no balancer"),
        ({"path": f"{HERE}:Last", "options": {"x": 1}}, "dispatch.balancer.options: .* unexpected keyword argument"),
        ({"path": f"{HERE}:Last", "options": {"raises": "a\nb"}}, r"`pick` failed: RuntimeError: a b \(test_imported"),
        ({"path": f"{HERE}:Last", "options": {"foreign": True}}, "`pick` returned a str that is none of `ready`"),
    ],
)
def test_a_balancer_that_fails_ends_the_run_in_one_line(balancer: dict[str, Any], message: str) -> None:
    """The error is one line with the key or the class and the cause."""
    with pytest.raises(SpecError, match=message) as error:
        dispatch({"kind": "import", **balancer})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("transport", "message"),
    [
        ({"path": f"{HERE}:NoTransport"}, r"transport.path: .*NoTransport has no method `send\(request\)`"),
        ({"path": f"{HERE}:Notes", "options": {"keys": 1}}, "transport.options: keys is given by batchrouter"),
        ({"path": f"{HERE}:Notes", "options": {"sends": "nothing"}}, "`send` returned a NoneType"),
        ({"path": f"{HERE}:Notes", "options": {"sends": "raises"}}, "`send` failed: KeyError: 'lost'"),
    ],
)
def test_a_transport_that_fails_ends_the_run_in_one_line(transport: dict[str, Any], message: str) -> None:
    """An exception other than `DispatchError`, or a result that is no answer, is the class's fault and ends the run."""
    with pytest.raises(SpecError, match=message) as error:
        dispatch(transport={"kind": "import", **transport})
    assert "\n" not in str(error.value)


JOB: dict[str, Any] = {
    "input": {"path": "x.jsonl"},
    "models": [{"name": "m", "endpoints": [{"transport": {"kind": "import", "path": "a.b:C"}}]}],
    "plan": {"strategy": "pin", "model": "m"},
    "output": {"path": "out.jsonl"},
}


@pytest.mark.parametrize(
    ("balancer", "sentence"),
    [
        ("leest_connections", "input should be 'weighted_round_robin'"),
        ({"kind": "import", "path": "a.b"}, "string should match pattern"),
        ({"kind": "import", "path": "a.b:C", "option": {}}, "unknown key 'option'; did you mean 'options'?"),
        ({"kind": "imported", "path": "a.b:C"}, "input should be 'import', not 'imported'"),
        ({"kind": "import"}, "'path' is missing"),
    ],
)
def test_a_wrong_balancer_is_explained_in_one_line(balancer: object, sentence: str) -> None:
    """A wrong balancer gives one problem, at its key, worded for the form (name or import) that the user meant."""
    data = {**JOB, "dispatch": {"balancer": balancer}}
    with pytest.raises(ValidationError) as error:
        JobSpec.model_validate(data)
    ((location, said),) = problems(error.value, JobSpec, data)
    assert location[:2] == ("dispatch", "balancer")
    assert "name" not in location
    assert said.startswith(sentence)


def test_names_stay_names_and_a_class_makes_no_other_run() -> None:
    """A built-in balancer is stored by its name, and the fingerprint depends on neither balancer nor transport."""
    named = JobSpec.model_validate({**JOB, "models": [{"name": "m"}], "dispatch": {"balancer": "random"}})
    own = JobSpec.model_validate({**JOB, "dispatch": {"balancer": {"kind": "import", "path": "a.b:C"}}})
    assert named.model_dump(mode="json")["dispatch"]["balancer"] == "random"
    assert named.model_dump(mode="json")["models"][0]["endpoints"][0]["transport"] == "openai"
    assert JobSpec.model_validate(own.model_dump(mode="json")) == own
    assert isinstance(own.dispatch.balancer, ImportSpec)
    assert own.models[0].endpoints[0].place("m") == "import:m"
    assert fingerprint(named, [], None) == fingerprint(own, [], None)


def test_errors_of_the_transport_are_retried() -> None:
    """A `DispatchError` from the class ends only the attempt, and the row is sent again."""
    work, _ = dispatch(transport={"kind": "import", "path": f"{HERE}:Notes", "options": {"sends": "throttles"}})
    assert len(work.outcomes) == ROWS
    assert any(row.attempts > 1 for row in work.outcomes.values())
