"""Writing folders whole or not at all, and removing what killed writers left."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from batch.errors import StorageError
from batch.storage.atomic_folder import check_folder_writable, clear_killed, replacing_folder


def written(path: Path, text: str) -> None:
    with replacing_folder(path) as new:
        (new / "file").write_text(text)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_folder_appears_when_the_block_ends(tmp_path: Path) -> None:
    """Until the block ends, the path has the old folder; then it has the new one, and no temporary folder is left."""
    path = tmp_path / "deep" / "er" / "made"
    written(path, "old")
    with replacing_folder(path) as new:
        (new / "other").touch()
        assert names(path) == ["file"]
    assert names(path) == ["other"]
    assert names(path.parent) == ["made"]


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_a_block_that_raises_changes_nothing(error: type[BaseException], tmp_path: Path) -> None:
    """If the block raises, the old folder stays and no hidden one is left."""
    path = tmp_path / "made"
    written(path, "old")

    def stopped() -> None:
        with replacing_folder(path) as new:
            (new / "file").write_text("new")
            raise error

    with pytest.raises(error):
        stopped()
    assert (path / "file").read_text() == "old"
    assert names(tmp_path) == ["made"]


def test_a_folder_that_cannot_get_its_name_leaves_the_old_one(tmp_path: Path) -> None:
    """If the last rename fails, the old folder, which was moved away before, is put back."""
    path = tmp_path / "made"
    written(path, "old")
    with pytest.raises(FileNotFoundError), replacing_folder(path) as new:
        new.rmdir()
    assert (path / "file").read_text() == "old"
    assert names(tmp_path) == ["made"]


def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    """A writer killed by SIGKILL leaves a hidden folder; `clear_killed` removes it and nothing else."""
    path = tmp_path / "made"
    for other in (".other.x1.tmp", ".made", "made.tmp"):
        (tmp_path / other).mkdir()
    before = names(tmp_path)
    killed = (
        "import os, pathlib, signal, sys\n"
        "from batch.storage.atomic_folder import replacing_folder\n"
        "with replacing_folder(pathlib.Path(sys.argv[1])) as new:\n"
        "    (new / 'file').touch()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run([sys.executable, "-c", killed, str(path)], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert len(names(tmp_path)) == len(before) + 1
    clear_killed(path)
    assert names(tmp_path) == before


def test_the_folder_of_a_running_writer_is_left_alone(tmp_path: Path) -> None:
    """The hidden folder of a writer that still runs is not removed."""
    path = tmp_path / "made"
    with replacing_folder(path) as new:
        clear_killed(path)
        (new / "file").write_text("new")
    assert (path / "file").read_text() == "new"


def test_a_folder_that_was_moved_away_is_put_back(tmp_path: Path) -> None:
    """The old folder is put back only if its writer was killed between moving it away and naming the new one."""
    path, left = tmp_path / "made", tmp_path / ".made.x1.tmp"
    for stays in ("old", "new"):
        (left / "old").mkdir(parents=True)
        (left / "old" / "file").write_text("old")
        clear_killed(path)
        assert (path / "file").read_text() == stays
        assert names(tmp_path) == ["made"]
        (path / "file").write_text("new")


def test_a_folder_that_cannot_be_written_fails_the_check(tmp_path: Path) -> None:
    """A folder that exists or can be made passes the check, which creates nothing; a folder below a file fails it."""
    check_folder_writable(tmp_path)
    check_folder_writable(tmp_path / "deep" / "er")
    assert names(tmp_path) == []
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"^cannot write .*file/below: Not a directory; .* to start over$"):
        check_folder_writable(tmp_path / "file" / "below")
