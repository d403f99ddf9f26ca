"""Keys asked of the process that has them."""

import pickle
import socket
import stat
import tempfile
from pathlib import Path
from threading import Event, Thread, current_thread

import pytest

from batch.errors import SpecError
from batch.running.ray.key_server import AskedKeys, KeyServer

KEY = "sk-äß-" + "x" * 9000


def test_a_key_is_told_by_name_and_what_travels_holds_none() -> None:
    """However long it is; a name that is not set has none, nor does one that is empty."""
    server = KeyServer({"THE_KEY": KEY, "EMPTY": ""}.get)
    server.start()
    try:
        travelled = pickle.dumps(server.keys)
        assert KEY.encode() not in travelled
        asked = pickle.loads(travelled)
        assert (asked("THE_KEY"), asked("NO_KEY"), asked("EMPTY")) == (KEY, None, None)
    finally:
        server.close()


def test_only_its_own_user_can_ask_and_nobody_after_it_was_closed() -> None:
    """The socket is in a folder that others cannot enter, and is gone with the server; then a line says so."""
    server = KeyServer(lambda name: None)
    server.start()
    path = Path(server.keys.path)
    assert path.is_socket()
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    server.close()
    assert not path.parent.exists()
    with pytest.raises(SpecError, match="the key THE_KEY cannot be asked for: No such file"):
        AskedKeys(str(path))("THE_KEY")


@pytest.fixture
def long_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go: too deep for the path of a socket."""
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_a_socket_has_a_short_path_where_temporary_files_have_long_ones(long_folder: Path) -> None:
    """Its folder is in /tmp then, as private as elsewhere, and nothing is left in either."""
    server = KeyServer({"THE_KEY": KEY}.get)
    server.start()
    try:
        folder = Path(server.keys.path).parent
        assert (folder.parent, stat.S_IMODE(folder.stat().st_mode)) == (Path("/tmp"), 0o700)
        assert server.keys("THE_KEY") == KEY
    finally:
        server.close()
    assert not folder.exists()
    assert list(long_folder.iterdir()) == []


def test_a_socket_that_cannot_be_made_is_one_line(long_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system refuses it, or there is no folder for it: what to change is said, and nothing is left."""
    monkeypatch.setattr("batch.running.ray.key_server._MOST_PATH_BYTES", 1000)
    with pytest.raises(SpecError, match=r"AF_UNIX path too long; set TMPDIR to .*") as refused:
        KeyServer(lambda name: None).start()
    assert "\n" not in str(refused.value)
    assert list(long_folder.iterdir()) == []
    long_folder.rmdir()
    with pytest.raises(SpecError, match="No such file or directory"):
        KeyServer(lambda name: None).start()


@pytest.mark.parametrize(("trouble", "said"), [(None, False), (ValueError("a bug"), True)], ids=["gone", "bug"])
def test_an_asker_that_is_gone_is_nobodys_trouble(
    trouble: Exception | None, said: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that was killed before its answer came leaves no trace on standard error; a bug of ours still does."""
    asked, gone, answering = Event(), Event(), list[Thread]()

    def slow(name: str) -> str:
        answering.append(current_thread())
        asked.set()
        assert gone.wait(5)
        if trouble is not None:
            raise trouble
        return KEY

    server = KeyServer(slow)
    server.start()
    try:
        with socket.socket(socket.AF_UNIX) as asking:
            asking.connect(server.keys.path)
            asking.sendall(b"THE_KEY\n")
            assert asked.wait(5)
        gone.set()
        answering[0].join(5)
    finally:
        server.close()
    err = capsys.readouterr().err
    assert "ValueError: a bug" in err if said else err == ""


def test_why_a_key_cannot_be_told_is_told() -> None:
    """A file that is gone or a command that failed is one line on the asker's side too, not an empty key."""

    def failing(name: str) -> str:
        raise SpecError(f"{name} ended with status 1")

    server = KeyServer(failing)
    server.start()
    try:
        with pytest.raises(SpecError, match="fetch-token ended with status 1"):
            server.keys("fetch-token")
    finally:
        server.close()
