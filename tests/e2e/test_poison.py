"""Rows and answers that are poison: each stays in its own row, and everything else goes on."""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import count, islice
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.e2e.commands import Command
from tests.e2e.poison_server import BAD, CONTENT_BYTES, FINE, PoisonServer, poison_server
from tests.process_memory import resident_of_session

pytestmark = pytest.mark.real

# Of these so many follow each bad answer: an endpoint that only answers badly would be left alone for a while.
GOOD_ROWS = 5
LONG = 10_000_000

LONG_ROWS, LONG_ROW = 200, 2_000_000
MOST_HELD = 600 << 20

# What is left of a JSON line that becomes a request, and the kind of error of each line that does not.
SENDABLE: tuple[bytes, ...] = (
    rb'{"id":"nul","prompt":"a\u0000b"}',
    b'{"id":"../../../etc/passwd","prompt":"an id that would be a path"}',
    b'{"id":"' + b"i" * 300 + b'","prompt":"an id that is no file name"}',
    b'{"id":"<script>\\n\\u001b[2J","prompt":"an id that is none for a terminal"}',
    b'{"id":"long","prompt":"' + b"x" * LONG + b'"}',
    b'{"id":"taken","prompt":"columns that are called like ours","row":-1,"error":{"kind":1},"input_row":2}',
    b'{"id":"wide","prompt":"a number that no column holds","number":18446744073709551615}',
    b'{"id":"nested","prompt":"as deep as can be","deep":' + b"[" * 300 + b"]" * 300 + b"}",
    b'{"id":"unset","prompt":"a parameter that is not a number is not set","temperature":NaN}',
)
SPOILED: tuple[tuple[str, bytes], ...] = (
    ("invalid_json", b'{"id":"x1","prompt":"a\x00b"}'),
    ("invalid_json", rb'{"id":"x2","prompt":"\ud800"}'),
    ("invalid_json", b'{"id":"x4","prompt":"deeper","deep":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    ("wrong_type", b'{"id":"x6","prompt":"endless","temperature":1e999}'),
    ("invalid_json", b'{"id":"x7","prompt":"cut o'),
    ("invalid_encoding", b'{"id":"x8","prompt":"caf\xe9"}'),
    ("invalid_encoding", b'{"id":"x9","prompt":"\xed\xa0\x80"}'),
    ("wrong_type", b'["a","list"]'),
    ("wrong_type", b'{"id":"x10","prompt":{"not":"a text"}}'),
    ("empty_prompt", b'{"id":"x11","prompt":" \\n"}'),
    ("duplicate_id", b'{"id":"nul","prompt":"again"}'),
    ("unknown_model", b'{"id":"x12","prompt":"?","model":"../../etc/passwd\\n"}'),
)


def _write_jsonl(folder: Path) -> Sequence[str | None]:
    """Every answer once, good rows between them, and every line that can be spoiled; returns each row's error."""
    good = (b'{"id":"good-%d","prompt":"answer:fine"}' % n for n in count())
    rows: list[tuple[str | None, bytes]] = [(None, _asking(name)) for name in FINE]
    for name, (kind, _) in BAD.items():
        rows += [(kind, _asking(name)), *((None, line) for line in islice(good, GOOD_ROWS))]
    rows += [(None, line) for line in SENDABLE]
    rows += SPOILED
    (folder / "rows.jsonl").write_bytes(b"".join(line + b"\n" for _, line in rows))
    return [kind for kind, _ in rows]


def _asking(name: str) -> bytes:
    return b'{"id":"a-%b","prompt":"answer:%b"}' % (name.encode(), name.encode())


def _write_csv(folder: Path) -> Sequence[str | None]:
    path = folder / "rows.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("id", "prompt"))
        writer.writerow(("csv-1", "a\x00b"))
        writer.writerow(("=cmd|' /C calc'!A0", "y" * 1_000_000))
        writer.writerow(("csv-3",))
    with path.open("ab") as raw:
        raw.write(b'csv-4,"caf\xe9"\r\n')
    return [None, None, "wrong_type", "invalid_encoding"]


def _write_parquet(folder: Path) -> Sequence[str | None]:
    bad_text = pa.array([b"a\x00b", b"caf\xe9", b"late", b"z" * 1_000_000]).cast(pa.binary()).view(pa.string())
    late = pa.array([None, None, 2**62, 0], pa.int64()).view(pa.timestamp("ms"))
    table = pa.table(
        {"id": ["pq-1", "pq-2", "pq-3", "pq-4"], "prompt": bad_text, "when": late, "ratio": [float("nan")] * 4}
    )
    pq.write_table(table, folder / "rows.parquet")
    return [None, "invalid_encoding", None, None]


def _long_prompt(row: int) -> str:
    return f"{row:06} ".ljust(LONG_ROW, "w")


@pytest.fixture(scope="module")
def server() -> Iterator[PoisonServer]:
    with poison_server() as served:
        yield served


class PoisonedJob:
    """A job over all poison there is, in three formats."""

    def __init__(self, folder: Path, server: PoisonServer, inputs: Sequence[str] = ()) -> None:
        """Without `inputs` they are written, and every row's error is `expected`."""
        self.folder = folder
        self.expected: list[str | None] = []
        if not inputs:
            inputs = ("rows.jsonl", "rows.csv", "rows.parquet")
            self.expected = [*_write_jsonl(folder), *_write_csv(folder), *_write_parquet(folder)]
        job = {
            "engine": "inline",
            "input": {"path": list(inputs), "id_column": "id" if self.expected else None},
            "router": {"kind": "length"},
            "models": [
                {
                    "name": "m",
                    "price": {"input": 1, "output": 2},
                    "endpoints": [{"url": server.url, "limits": {"max_in_flight": 8}}],
                }
            ],
            "plan": {"strategy": "pin", "model": "m"},
            "dispatch": {"timeout_seconds": 5, "max_attempts": 1},
            "output": {"path": "results.jsonl"},
        }
        self.file = folder / "job.yaml"
        self.file.write_text(json.dumps(job))
        self.started = 0

    def start(self, *settings: str) -> Command:
        """The same command, or with other settings."""
        self.started += 1
        return Command(self.file, self.folder / f"start-{self.started}", *settings)

    def report(self) -> dict[str, Any]:
        return dict(orjson.loads((self.folder / "results.jsonl.run" / "report.json").read_bytes()))

    def rows(self) -> list[dict[str, Any]]:
        """The results; every line is JSON in UTF-8."""
        raw = (self.folder / "results.jsonl").read_bytes()
        assert raw.endswith(b"\n")
        return [orjson.loads(line) for line in raw.decode("utf-8", "strict").removesuffix("\n").split("\n")]


def _adds_up(rows: Mapping[str, int]) -> bool:
    return rows["total"] == rows["ok"] + rows["failed"] + rows["invalid"] + rows["unsent"]


def _lasting(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows without what differs from run to run."""
    return [{key: row[key] for key in row.keys() - {"latency_seconds", "attempts"}} for row in rows]


@pytest.fixture(scope="module")
def whole(server: PoisonServer, tmp_path_factory: pytest.TempPathFactory) -> PoisonedJob:
    """The job after a run that nobody disturbed."""
    job = PoisonedJob(tmp_path_factory.mktemp("whole"), server)
    command = job.start()
    assert command.wait() == 1, command.stderr
    return job


def test_poison_stays_in_its_row(whole: PoisonedJob) -> None:
    """Each poison ends in its own row with its own kind of error, and everything else is answered."""
    rows = whole.rows()
    assert [row["row"] for row in rows] == list(range(len(whole.expected)))
    assert [row["error"] and row["error"]["kind"] for row in rows] == whole.expected
    sent = {"bad_request", "bad_answer", "no_choices", "timeout", "connection_lost"}
    for row, kind in zip(rows, whole.expected, strict=True):
        assert row["status"] == ("ok" if kind is None else "failed" if kind in sent else "invalid")
    counts = whole.report()["rows"]
    assert _adds_up(counts)
    assert (counts["total"], counts["ok"], counts["unsent"]) == (len(rows), whole.expected.count(None), 0)

    by_id = {row["id"]: row for row in rows}
    assert by_id["a-nul"]["content"] == "a\0b"
    assert by_id["a-separators"]["content"] == "a\u2028b\u0085c"
    assert by_id["a-null_content"]["content"] is None
    # What cannot be written as UTF-8 costs one character, not the answer.
    assert by_id["a-latin1"]["content"] == "caf\ufffd"
    assert by_id["a-surrogate"]["content"] == "\ufffd"
    assert len(by_id["a-long"]["content"]) == CONTENT_BYTES
    for name in ("a-no_usage", "a-usage_of_nonsense"):
        assert [by_id[name][key] for key in ("prompt_tokens", "completion_tokens", "cost_usd")] == [None] * 3
    assert not whole.report()["cost_is_complete"]
    assert by_id["a-refused"]["error"]["status"] == 400
    assert by_id["../../../etc/passwd"]["status"] == "ok"
    assert (by_id["taken"]["row"], by_id["taken"]["input_row"]) == (rows.index(by_id["taken"]), 2)
    assert by_id["wide"]["number"] == 2**64 - 1


def test_poison_survives_kills(whole: PoisonedJob, server: PoisonServer, tmp_path: Path) -> None:
    """Killed among the bad answers, twice, the same command ends with the same rows."""
    broken = PoisonedJob(tmp_path, server)
    for requests in (20, 25):
        seen = len(server.asked)
        command = broken.start()
        command.until(lambda: len(server.asked) >= seen + requests)  # noqa: B023  called at once
        command.kill()
    command = broken.start()
    assert command.wait() == 1, command.stderr
    assert _lasting(broken.rows()) == _lasting(whole.rows())
    assert _adds_up(broken.report()["rows"])


def test_poison_fits_into_parquet(whole: PoisonedJob, server: PoisonServer, tmp_path: Path) -> None:
    """The same rows come back from a Parquet output."""
    command = PoisonedJob(tmp_path, server).start(f"output.path={tmp_path}/results.parquet", "output.format=parquet")
    assert command.wait() == 1, command.stderr
    rows = whole.rows()
    table = pq.read_table(tmp_path / "results.parquet")
    for name in ("id", "status", "content", "prompt_tokens"):
        assert table[name].to_pylist() == [row[name] for row in rows], name
    assert [error and error["kind"] for error in table["error"].to_pylist()] == whole.expected


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.parquet"])
def test_long_prompts_are_held_a_few_at_a_time(server: PoisonServer, tmp_path: Path, name: str) -> None:
    """400 MB of prompts pass through a process that holds a shard of them as it reads, and less as it sends."""
    if name.endswith("jsonl"):
        with (tmp_path / name).open("w") as file:
            for row in range(LONG_ROWS):
                file.write(json.dumps({"id": f"r{row}", "prompt": _long_prompt(row)}) + "\n")
    else:
        # All in one row group. A page is read whole, so that what a writer puts into one is held.
        table = pa.table({"prompt": pa.array(_long_prompt(row) for row in range(LONG_ROWS))})
        pq.write_table(table, tmp_path / name, use_dictionary=False, write_batch_size=8)
        del table
    job = PoisonedJob(tmp_path, server, inputs=(name,))
    command = job.start()
    peak = 0
    while not command.ends_within(0.05):
        peak = max([peak, *map(resident_of_session, command.processes())])
    assert command.wait() == 0, command.stderr
    assert job.report()["rows"]["ok"] == LONG_ROWS
    assert peak < MOST_HELD
