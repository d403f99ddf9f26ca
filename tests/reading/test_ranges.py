from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.reading import ranges
from batch.reading.ranges import BOM, LineTally, TextRange, count_range, cut

pieces = st.lists(st.sampled_from([b"\n", b" ", b"\t", b"\r", b"{}", b"x" * 40, b"\x00", b"\xff"]), max_size=60)


@given(pieces, st.integers(1, 50), st.booleans())
def test_ranges_hold_every_row_once_wherever_they_are_cut(
    tmp_path_factory: pytest.TempPathFactory, parts: list[bytes], target: int, bom: bool
) -> None:
    """Whatever the target size, the ranges of a file hold each of its rows once, at the right line."""
    text = b"".join(parts)
    path = tmp_path_factory.mktemp("ranges") / "a.jsonl"
    path.write_bytes((BOM if bom else b"") + text)
    data = path.read_bytes()
    expected = [(i, line) for i, line in enumerate(text.split(b"\n"), 1) if line.strip()]
    rows: list[tuple[int, bytes]] = []
    line = 1
    for part in cut(str(path), len(data), target):
        counted = count_range(part)
        held = data[counted.start : counted.stop].split(b"\n")
        here = [(i, raw) for i, raw in enumerate(held, line) if raw and not raw.isspace()]
        assert len(here) == counted.rows
        rows += here
        line += counted.lines
    assert rows == expected


@given(pieces, st.integers(1, 9))
def test_a_tally_does_not_depend_on_where_chunks_end(parts: list[bytes], size: int) -> None:
    """A stream has the same tally however it is cut into chunks."""
    text = b"".join(parts)
    tally = LineTally()
    for start in range(0, len(text), size):
        tally.add(text[start : start + size])
    lines = text.split(b"\n")
    assert tally.lines == len(lines) - 1
    assert tally.rows == sum(bool(line.strip()) for line in lines[:-1])
    assert tally.unfinished_row == bool(lines[-1].strip())


def test_a_line_longer_than_many_ranges_is_one_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line that spans several ranges and chunks belongs to the range it starts in."""
    monkeypatch.setattr(ranges, "CHUNK_BYTES", 7)
    monkeypatch.setattr(ranges, "SEEK_BYTES", 5)
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"a" * 300 + b"\nb\n")
    counted = [count_range(part) for part in cut(str(path), 303, 100)]
    assert [c.rows for c in counted] == [1, 0, 0, 1]
    assert [c.lines for c in counted] == [1, 0, 0, 1]


def test_a_range_beyond_the_last_line_start_is_empty(tmp_path: Path) -> None:
    """A range in which no line starts holds nothing."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"{}\nunfinished")
    assert count_range(TextRange(str(path), 5, 13)).rows == 0
