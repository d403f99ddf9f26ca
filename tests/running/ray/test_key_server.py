"""A server that gives keys to processes without the environment, and the client that asks it."""

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


def test_a_client_gets_keys_by_name_and_its_pickle_has_none() -> None:
    """A key may be of any length; a name that is not set, or set to nothing, has no key."""
    server = KeyServer({"THE_KEY": KEY, "EMPTY": ""}.get)
    server.start()
    try:
        travelled = pickle.dumps(server.keys)
        assert KEY.encode() not in travelled
        asked = pickle.loads(travelled)
        assert (asked("THE_KEY"), asked("NO_KEY"), asked("EMPTY")) == (KEY, None, None)
    finally:
        server.close()


def test_only_the_same_user_can_ask_and_only_until_the_server_is_closed() -> None:
    """Other users cannot enter the socket's folder. `close` removes it; after that a client raises a SpecError."""
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
    """The folder for temporary files, at a path too long for a socket."""
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_a_socket_has_a_short_path_where_temporary_files_have_long_ones(long_folder: Path) -> None:
    """The socket's folder is then made in /tmp, with mode 0700 too, and `close` leaves nothing in either place."""
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
    """If the system refuses the socket or its folder is missing, the error says what to change, and nothing is left."""
    monkeypatch.setattr("batch.running.ray.key_server._MOST_PATH_BYTES", 1000)
    with pytest.raises(SpecError, match=r"AF_UNIX path too long; set TMPDIR to .*") as refused:
        KeyServer(lambda name: None).start()
    assert "\n" not in str(refused.value)
    assert list(long_folder.iterdir()) == []
    long_folder.rmdir()
    with pytest.raises(SpecError, match="No such file or directory"):
        KeyServer(lambda name: None).start()


@pytest.mark.parametrize(("trouble", "said"), [(None, False), (ValueError("a bug"), True)], ids=["gone", "bug"])
def test_a_client_that_was_killed_leaves_no_traceback(
    trouble: Exception | None, said: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """A client that is gone before its answer comes leaves nothing on standard error; an error in our own code does."""
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


def test_the_client_raises_why_a_key_cannot_be_read() -> None:
    """If a key's file is gone or its command failed, the client raises that error, and gives no empty key."""

    def failing(name: str) -> str:
        raise SpecError(f"{name} ended with status 1")

    server = KeyServer(failing)
    server.start()
    try:
        with pytest.raises(SpecError, match="fetch-token ended with status 1"):
            server.keys("fetch-token")
    finally:
        server.close()
