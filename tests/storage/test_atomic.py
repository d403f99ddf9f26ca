"""Writing files whole or not at all."""

import os
from pathlib import Path

import pytest

from batch.errors import StorageError
from batch.storage import atomic
from batch.storage.atomic import is_temporary, leftovers, make_folder, replacing, write_bytes


def test_the_content_appears_when_the_block_ends(tmp_path: Path) -> None:
    """Until the block ends, the path has its old content; then it has the new, in mode 0600, and no temporary file."""
    path = tmp_path / "deep" / "er" / "file.json"
    write_bytes(path, b"old")
    with replacing(path) as temp:
        temp.write_bytes(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert names(path.parent) == ["file.json"]


def test_a_block_that_raises_changes_nothing(tmp_path: Path) -> None:
    """An error inside the block keeps the old file, leaves no temporary one and is raised unchanged."""
    path = tmp_path / "file"
    write_bytes(path, b"old")
    with pytest.raises(ZeroDivisionError), replacing(path) as temp:
        temp.write_bytes(b"%d" % (1 // len(path.read_bytes()[3:])))
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("failing", [1, 2])
def test_a_failed_fsync_is_a_storage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int) -> None:
    """If fsync of the file or of its folder fails, the StorageError has the path and the system's reason."""
    path = tmp_path / "file"
    write_bytes(path, b"old")
    calls = 0

    def sync(path: Path) -> None:
        nonlocal calls
        calls += 1
        if calls == failing:
            raise OSError(5, os.strerror(5))

    monkeypatch.setattr(atomic, "sync", sync)
    with pytest.raises(StorageError, match=r"cannot write .*file: Input/output error"):
        write_bytes(path, b"new")
    assert path.read_bytes() == (b"old" if failing == 1 else b"new")
    assert names(tmp_path) == ["file"]


def test_a_full_disk_is_a_storage_error(tmp_path: Path) -> None:
    """An OSError raised inside the block becomes a StorageError, which keeps it as its cause."""
    with pytest.raises(StorageError, match="No space left") as caught, replacing(tmp_path / "file"):
        raise OSError(28, os.strerror(28))
    assert isinstance(caught.value.__cause__, OSError)
    assert names(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_a_storage_error(tmp_path: Path) -> None:
    """A file where a folder should be raises a StorageError."""
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot write"):
        write_bytes(tmp_path / "file" / "below", b"")


def test_what_a_killed_writer_left_is_found_beside_its_target(tmp_path: Path) -> None:
    """`leftovers` finds the temporary files of its path, not those of another path or the user's files."""
    mine, other, visible = tmp_path / ".a.json.x1.tmp", tmp_path / ".b.json.x1.tmp", tmp_path / "a.json.tmp"
    for path in (mine, other, visible):
        path.touch()
    assert list(leftovers(tmp_path / "a.json")) == [mine]
    assert is_temporary(other)
    assert not is_temporary(visible)
    assert list(leftovers(tmp_path / "absent" / "a.json")) == []


def test_long_names_leave_room_for_the_temporary_one(tmp_path: Path) -> None:
    """A file whose name has the longest length allowed, 255 bytes, can be written."""
    path = tmp_path / ("x" * 255)
    write_bytes(path, b"1")
    assert path.read_bytes() == b"1"


def test_folders_that_are_there_are_left_alone(tmp_path: Path) -> None:
    """An existing folder keeps its mode."""
    folder = tmp_path / "mine"
    folder.mkdir(mode=0o755)
    make_folder(folder)
    assert folder.stat().st_mode & 0o777 == 0o755


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())
