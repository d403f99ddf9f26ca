from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from jobs.terminal.check_and_status import render_check, render_status
from schemas.checks import CheckReport, EndpointCheck
from schemas.run_status import RunStatus

STATUS = RunStatus(
    job="gsm8k",
    running=True,
    finished=False,
    shards=2,
    rows=1_000,
    scored=1_000,
    routed=900,
    statuses={"ok": 480, "failed": 20, "unsent": 0},
    ambiguous=7,
    sittings=0,
    wall_seconds=0.0,
)


def printed_check(check: CheckReport) -> str:
    file = StringIO()
    render_check(check, "gsm8k", Console(file=file, width=80))
    return file.getvalue()


def printed_status(status: RunStatus) -> list[str]:
    file = StringIO()
    render_status(status, Path("out/results.jsonl.run"), Console(file=file, width=80))
    return [" ".join(line.split()) for line in file.getvalue().splitlines()]


def test_a_check_prints_each_endpoints_finding_once() -> None:
    """An unreachable endpoint is shown in its place; it is a problem only if its model has no other."""
    endpoints = (
        EndpointCheck(model="small", url="http://a/v1", usable=True, said="serves small"),
        EndpointCheck(model="small", url="http://b/v1", usable=False, said="no connection: connection refused"),
    )
    text = printed_check(CheckReport(rows=3, invalid=1, faults=("a.jsonl:2: prompt is blank",), endpoints=endpoints))
    assert text.splitlines()[0] == "gsm8k  3 rows, 1 invalid"
    assert text.count("connection refused") == 1
    assert "invalid: a.jsonl:2: prompt is blank" in text
    assert "Nothing stands in the way of a run." in text
    assert "Nothing stands" not in printed_check(
        CheckReport(rows=3, invalid=0, endpoints=endpoints, problems=("model small: none is usable",))
    )


def test_a_running_run_has_rows_in_flight() -> None:
    """While a run works, its open requests are shown as in flight, and no sitting has a time yet."""
    assert printed_status(STATUS) == [
        "gsm8k running out/results.jsonl.run",
        "rows 1,000 in 2 shards",
        "scored 1,000 100 %",
        "routed 900 90 %",
        "ended 500 50 % 20 failed, 480 ok",
        "in flight 7 sent, and not answered yet",
    ]


@pytest.mark.parametrize("finished", [True, False])
def test_a_stopped_run_can_be_resumed(finished: bool) -> None:
    """After a kill these requests are ambiguous; without a report, the status says to rerun the command."""
    lines = printed_status(
        STATUS.model_copy(update={"running": False, "finished": finished, "sittings": 2, "wall_seconds": 75.0})
    )
    assert "ambiguous 7 in flight when the run was killed, and possibly billed" in lines
    assert "time 1 min 15 s in 2 sittings so far" in lines
    assert ("Rerun the same `batchrouter run` to resume." in lines) is not finished


@pytest.mark.parametrize(("running", "unsent"), [(False, 3), (False, 0), (True, 3)])
def test_a_finished_run_with_unsent_rows_has_advice(running: bool, unsent: int) -> None:
    """`--finish` or refusing endpoints leave unsent rows; the status says how to send them, except during a run."""
    statuses = {"ok": 997, "unsent": unsent}
    lines = printed_status(
        STATUS.model_copy(update={"running": running, "finished": True, "statuses": statuses, "ambiguous": 0})
    )
    advice = "Rerun the same `batchrouter run` to send the rows that are unsent."
    assert (advice in lines) is (unsent > 0 and not running)
