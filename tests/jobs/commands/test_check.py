"""`check` finds imported classes that cannot be built, which would end a run."""

from pathlib import Path
from typing import Any

import pytest

from jobs.commands.check import check_job
from schemas.job import JobSpec

OWN = "tests.dispatch.test_imported_classes"


def problems(tmp_path: Path, *, balancer: object = "round_robin", transport: object = "openai") -> list[str]:
    """The problems that `check` finds in a job with this balancer, whose only endpoint has this transport."""
    (tmp_path / "in.jsonl").write_text('{"prompt": "hello"}\n')
    endpoint: dict[str, Any] = {"url": "http://127.0.0.1:1/v1", "transport": transport}
    job = JobSpec.model_validate(
        {
            "input": {"path": str(tmp_path / "in.jsonl")},
            "models": [{"name": "m", "price": {"input": 1, "output": 1}, "endpoints": [endpoint]}],
            "plan": {"strategy": "pin", "model": "m"},
            "dispatch": {"balancer": balancer},
            "output": {"path": str(tmp_path / "out.jsonl")},
        }
    )
    return list(check_job(job).problems)


@pytest.mark.parametrize(
    ("own", "of_balancer", "of_transport"),
    [
        ({"path": "no_such_module:X"}, *["cannot import 'no_such_module'"] * 2),
        (
            {"path": f"{OWN}:NoTransport", "options": {"keys": 1}},
            "has no method `pick(request, ready)`",
            "keys is given by",
        ),
    ],
)
def test_a_class_that_cannot_be_built_is_a_problem(
    tmp_path: Path, own: dict[str, Any], of_balancer: str, of_transport: str
) -> None:
    """The line is the one that would end a run, and names the key of the job file."""
    (balancer,) = [p for p in problems(tmp_path, balancer={"kind": "import", **own}) if "dispatch.balancer" in p]
    (transport,) = [p for p in problems(tmp_path, transport={"kind": "import", **own}) if p.startswith("transport.")]
    assert of_balancer in balancer
    assert of_transport in transport


def test_classes_that_can_be_built_are_no_problem(tmp_path: Path) -> None:
    """`check` does not ask an endpoint with a user's own transport for its models."""
    own = {
        "balancer": {"kind": "import", "path": f"{OWN}:Last"},
        "transport": {"kind": "import", "path": f"{OWN}:Notes"},
    }
    assert problems(tmp_path, **own) == []
