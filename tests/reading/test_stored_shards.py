"""Shards as a run directory stores them, and the checks that detect a damaged or changed file."""

import gzip
import os
from pathlib import Path
from shutil import move

import pytest

from batch.errors import DamagedError, InputError
from batch.reading.read import read_shard
from batch.reading.shard import from_stored, to_stored
from batch.reading.shards import find_shards, refill_spool
from batch.reading.sources import find_sources
from schemas.job import InputSpec
from tests.reading.rows import count_words

LINES = b"".join(b'{"prompt": "p%d"}\n' % i for i in range(20))


def texts(folder: Path, stored: list[dict[str, object]]) -> list[str]:
    """The prompts of stored shards, read in the folder where the input is now."""
    spec = InputSpec(path=str(folder / "in"))
    shards = from_stored(stored, find_sources(spec), folder / "spool")
    return [text for shard in shards for text in read_shard(shard, spec, count_words)["text"].to_pylist()]


def stored_in(folder: Path) -> list[dict[str, object]]:
    """Cut an input with a plain and a compressed file."""
    (folder / "in" / "deep").mkdir(parents=True)
    (folder / "in" / "a.jsonl").write_bytes(LINES)
    (folder / "in" / "deep" / "a.jsonl").write_bytes(LINES)
    (folder / "in" / "b.jsonl.gz").write_bytes(gzip.compress(LINES, mtime=0))
    (folder / "in" / "c.csv").write_text("prompt\nfrom csv\n")
    return [to_stored(shard) for shard in find_shards(InputSpec(path=str(folder / "in")), folder / "spool")]


def test_stored_shards_name_no_folder(tmp_path: Path) -> None:
    """A folder that was moved with its input and spool is read at its new place."""
    stored = stored_in(tmp_path / "before")
    assert str(tmp_path) not in repr(stored)
    before = texts(tmp_path / "before", stored)
    move(tmp_path / "before", tmp_path / "after")
    assert texts(tmp_path / "after", stored) == before
    assert len(before) == 61


def test_shards_of_an_older_version_move_too(tmp_path: Path) -> None:
    """Older versions stored absolute locations; these are not used, for input files or for spooled ones."""
    folder = tmp_path / "before"
    stored_in(folder)
    old = []
    for shard in find_shards(InputSpec(path=str(folder / "in")), folder / "spool"):
        one = {**to_stored(shard), "location": shard.location}
        for key in ("size", "crc", "spooled"):
            del one[key]
        old.append(one)
    move(folder, tmp_path / "after")
    assert len(texts(tmp_path / "after", old)) == 61


def test_a_file_that_is_gone_from_the_input_is_refused(tmp_path: Path) -> None:
    """The message names the file and both remedies: put it back, or use `--fresh`."""
    stored = stored_in(tmp_path)
    (tmp_path / "in" / "b.jsonl.gz").unlink()
    with pytest.raises(InputError, match=r"b\.jsonl\.gz: no longer among the files .*; put it back, or --fresh"):
        texts(tmp_path, stored)


@pytest.mark.parametrize("gone", ["removed", "flipped", "truncated", "empty"])
def test_a_damaged_spool_is_noticed_and_filled_again(gone: str, tmp_path: Path) -> None:
    """A damaged spooled file is an error that names it; if it is removed, the same file is made again."""
    stored = stored_in(tmp_path)
    spec, before = InputSpec(path=str(tmp_path / "in")), texts(tmp_path, stored)
    sources = find_sources(spec)
    shards = from_stored(stored, sources, tmp_path / "spool")
    spooled = Path(next(shard.location for shard in shards if shard.spooled))
    data = bytearray(spooled.read_bytes())
    data[len(data) // 2] ^= 1
    match gone:
        case "flipped":
            spooled.write_bytes(data)
        case "truncated":
            spooled.write_bytes(data[:-5])
        case "empty":
            spooled.write_bytes(b"")
    if gone != "removed":
        with pytest.raises(DamagedError) as damaged:
            texts(tmp_path, stored)
        assert damaged.value.path == str(spooled)
        assert find_shards(spec, tmp_path / "spool") == shards, "a damaged file is not taken for a whole one"
        spooled.write_bytes(data[:-5])
    spooled.unlink()
    refill_spool(spec, tmp_path / "spool", shards, sources)
    assert texts(tmp_path, stored) == before


def test_changed_content_is_noticed_behind_an_old_date(tmp_path: Path) -> None:
    """A file edited in place is refused even if its size and time are those of the file that was cut."""
    path = tmp_path / "in" / "a.jsonl"
    stored = stored_in(tmp_path)
    before = path.stat()
    path.write_bytes(LINES.replace(b"p7", b"q7"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(InputError, match=r"a\.jsonl: changed during the run; put the file back"):
        texts(tmp_path, stored)
