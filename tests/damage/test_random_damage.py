"""Random damage to the files of a run directory, after a run has finished and between two sittings.

BATCHROUTER_DAMAGES is the number of damages to try for each kind of run; 2,000 in all take some 20 minutes.
"""

import gzip
import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from shutil import copytree
from tempfile import TemporaryDirectory
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batch.errors import BatchRouterError
from batch.runs.integrity.answered import read_answered
from batch.runs.journal.lines import checked_content, place_in_header
from batch.runs.layout import Layout
from jobs.stopped import StoppedError
from schemas.job import JobSpec
from schemas.reports import Report
from tests.damage.harms import Harm, harms
from tests.job_folder import ENDPOINTS, JobFolder, interrupt_after
from tests.rehearsed import Served, serve
from tests.running.test_resuming import SLOW, narrow

EXAMPLES = int(os.environ.get("BATCHROUTER_DAMAGES", "12"))
MANY = 100
ENDS = ("went on", "refused in one line")
SEEN = Counter[str]()


class Base:
    """A run directory before it is damaged, and what its run gives without damage.

    Attributes:
        results: the rows of the results, without the fields that differ if a row is sent again.
        prompts: the prompts that were sent.
        ids: the ids of the rows with each prompt.
        sendable: the number of requests that the whole run sends.
    """

    # No dataclass: hypothesis would print all of it beside each failure.
    def __init__(
        self,
        there: JobFolder,
        results: list[dict[str, Any]],
        prompts: set[str],
        ids: dict[str, set[str]],
        sendable: int,
    ) -> None:
        self.there = there
        self.results = results
        self.prompts = prompts
        self.ids = ids
        self.sendable = sendable

    def job(self, **changes: Any) -> JobSpec:
        folder = self.there.folder
        return self.there.job(
            input={"path": str(folder / "in"), "id_column": "id", "params": {"temperature": 0}},
            output={"path": str(folder / "results.jsonl"), "run_dir": str(folder / "results.jsonl.run")},
            dispatch={"dedup": "auto"},
            **changes,
        )


@pytest.fixture(scope="module", autouse=True)
def tell() -> Iterator[None]:
    """Print how the damages ended, if many are tried."""
    yield
    if EXAMPLES >= MANY:
        print(f"\n{sum(SEEN[end] for end in ENDS)} damages: {dict(SEEN)}")


def write_input(folder: Path) -> None:
    """Write three files, a shard each, two of them spooled; with a shared prompt, a repeated id and invalid rows."""
    folder.mkdir()
    rows = [{"id": f"a{i}", "prompt": f"pa{i}" + " word" * i, "topic": i} for i in range(9)]
    lines = [json.dumps(row) for row in [*rows, {"id": "a0", "prompt": "again"}, {"id": "s0", "prompt": "shared"}]]
    (folder / "a.jsonl").write_text("".join(f"{line}\n" for line in [*lines, '{"prompt": ', '{"prompt": 7}']))
    packed = [{"id": f"b{i}", "prompt": f"pb{i}" + " word" * i} for i in range(8)] + [{"id": "s1", "prompt": "shared"}]
    (folder / "b.jsonl.gz").write_bytes(gzip.compress("".join(f"{json.dumps(r)}\n" for r in packed).encode(), mtime=0))
    (folder / "c.csv").write_text(
        "id,prompt\n" + "".join(f"c{i},pc{i}{' word' * i}\n" for i in range(8)) + "s2,shared\n"
    )


def comparable(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The results without the fields that may differ if a row is sent again."""
    return [{k: v for k, v in row.items() if k not in ("latency_seconds", "attempts", "endpoint")} for row in rows]


def made(folder: Path, served: Served) -> Base:
    write_input(folder / "in")
    there = JobFolder(folder, served)
    base = Base(there, [], set(), {}, 0)
    there.run(base.job())
    base.results = comparable(there.results())
    for row in there.results():
        if row["status"] == "ok":
            base.ids.setdefault(row["content"], set()).add(row["id"])
    base.prompts = set(served.prompts())
    base.sendable = len(served.posts)
    return base


@pytest.fixture(scope="module")
def endpoints() -> Iterator[Served]:
    with serve(*ENDPOINTS) as served:
        yield served


@pytest.fixture(scope="module")
def finished(endpoints: Served, tmp_path_factory: pytest.TempPathFactory) -> Base:
    """A run that is finished."""
    endpoints.forget()
    return made(tmp_path_factory.mktemp("finished"), endpoints)


@pytest.fixture(scope="module")
def stopped(endpoints: Served, finished: Base, tmp_path_factory: pytest.TempPathFactory) -> Base:
    """The same run, interrupted after a few rows."""
    folder = tmp_path_factory.mktemp("stopped")
    copytree(finished.there.folder / "in", folder / "in", copy_function=_copy_with_times)
    with serve(*SLOW) as slow:
        there = JobFolder(folder, slow)
        base = Base(there, finished.results, finished.prompts, finished.ids, finished.sendable)
        with pytest.raises(StoppedError):
            there.run(base.job(models=narrow(there)), progress=interrupt_after(6))
    there.served = endpoints
    assert 0 < len(held(there.run_dir)) < base.sendable
    return base


def _copy_with_times(source: str, target: str) -> str:
    Path(target).write_bytes(Path(source).read_bytes())
    stat = Path(source).stat()
    os.utime(target, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    return target


def held(run_dir: Path) -> set[tuple[str, int]]:
    """(model, row) of every answer that is still whole in a journal, read without the code under test."""
    found = set()
    for path in run_dir.glob("journal/*/*.jsonl"):
        place = f"{path.parent.name}/{path.name}"
        for line in path.read_bytes().split(b"\n"):
            rest = checked_content(line)
            if rest is None:
                continue
            place = place_in_header(rest) or place
            if rest.startswith(b'"outcome"'):
                row = orjson.loads(b"{" + rest)["outcome"]["row"]
                found.add((place.removesuffix(".jsonl"), row))
    return found


def attempt(base: Base) -> tuple[Report | None, str]:
    """Run the same command again; return its report, or its error in one line."""
    try:
        return base.there.run(base.job()), ""
    except BatchRouterError as error:
        return None, f"{type(error).__name__}: {error}"


def try_damage(base: Base, damages: list[Harm]) -> None:
    """Damage a copy of the run, run the same command, and check its results, its requests and its report."""
    served = base.there.served
    with TemporaryDirectory() as place:
        folder = Path(place) / "run"
        copytree(base.there.folder, folder, copy_function=_copy_with_times)
        copy = Base(JobFolder(folder, served), base.results, base.prompts, base.ids, base.sendable)
        run_dir = copy.there.run_dir
        before = held(run_dir)
        told = [harm.do(run_dir) for harm in damages]
        after = held(run_dir)
        readable = all(read_answered(Layout(run_dir), shard).held for shard in range(3))
        served.forget()
        report, line = attempt(copy)
        assert report is not None or (line and "\n" not in line), told
        SEEN["refused in one line" if report is None else "went on"] += 1
        sent = served.prompts()
        assert set(sent) <= copy.prompts, f"{told}: a prompt was sent that nobody wrote"
        if report is None:
            assert not sent, f"{told}: sent something, then {line}"
            print(f"{told}: {line}")
            return
        assert comparable(copy.there.results()) == copy.results, told
        assert max(sent.values(), default=0) <= 1, told
        rows = {row["id"]: row["row"] for row in copy.there.results()}
        again = {rows[i] for prompt in sent for i in base.ids[prompt]} & {row for _, row in before}
        kept = {row for _, row in after}
        assert not again & kept, f"{told}: rows {again & kept} were sent again though a journal holds their answers"
        named = {row.row for row in report.ambiguous}
        if len(damages) == 1 or readable:
            assert again <= named, f"{told}: rows {again - named} were paid again, and the report does not say so"
        SEEN["rows paid again, named"] += len(again & named)


_SETTINGS = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=EXAMPLES < MANY
)


@_SETTINGS
@given(damages=st.lists(harms, min_size=1, max_size=1))
def test_damage_at_rest(finished: Base, damages: list[Harm]) -> None:
    """A damaged finished run has the same results or ends in one line; the report names rows that are paid again."""
    try_damage(finished, damages)


@_SETTINGS
@given(damages=st.lists(harms, min_size=1, max_size=1))
def test_damage_between_sittings(stopped: Base, damages: list[Harm]) -> None:
    """A damaged interrupted run resumes and has the results of an undamaged one, or ends in one line."""
    try_damage(stopped, damages)


@_SETTINGS
@given(damages=st.lists(harms, min_size=2, max_size=4))
def test_several_damages(finished: Base, stopped: Base, damages: list[Harm]) -> None:
    """With several damages at once, files are made again only from sound files."""
    try_damage(finished if len(damages) % 2 else stopped, damages)
