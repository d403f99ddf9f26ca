"""Noticing that Ray's own processes have died."""

import os
import resource
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from batch.errors import StorageError
from batch.running.ray import watch as watching
from batch.running.ray.watch import RESUME_HINT, JoinedCluster, NodeWatch, OwnProcesses, lives

PATIENCE_SECONDS = 30


class Scripted:
    """A look that reports `gone` as missing."""

    def __init__(self) -> None:
        self.gone: str | None = None

    def missing(self) -> str | None:
        return self.gone


@pytest.fixture
def raylet(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A child of this process that has the name of one of Ray's."""
    program = tmp_path / "raylet"
    program.symlink_to("/bin/sleep")
    with subprocess.Popen([str(program), "60"]) as child:
        yield child
        child.kill()


def test_a_child_of_ray_s_that_dies_is_noticed_even_before_its_parent_has_waited_for_it(
    tmp_path: Path,
) -> None:
    """The child is found by its name while it runs, and is missing once it has ended, although still a zombie."""
    own = OwnProcesses()
    program = tmp_path / "raylet"
    program.symlink_to("/bin/sleep")
    child = subprocess.Popen([str(program), "60"])
    try:
        while not own.all():
            assert own.missing() is None
        assert [process.pid for process in own.all()] == [child.pid]
        assert lives(child.pid)
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert "raylet" in str(own.missing())
        assert not lives(child.pid)
    finally:
        child.kill()
        child.wait()


def test_a_process_that_cannot_be_looked_at_is_taken_to_live(tmp_path: Path) -> None:
    """If this process can open no more files it cannot see others; the run must not end for that."""
    own = OwnProcesses()
    program = tmp_path / "gcs_server"
    program.symlink_to("/bin/sleep")
    child = subprocess.Popen([str(program), "60"])
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        while not own.all():
            assert own.missing() is None
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
        missing, alive, found = own.missing(), lives(child.pid), own.all()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        child.kill()
        child.wait()
    assert (missing, alive, [process.pid for process in found]) == (None, True, [child.pid])
    assert own.missing() is not None


def test_a_process_from_before_the_cluster_is_not_watched(raylet: subprocess.Popen[bytes]) -> None:
    """A child with the name of one of Ray's that ran before the cluster started does not belong to the cluster."""
    while not Path(f"/proc/{raylet.pid}/cmdline").read_bytes().startswith(b"/"):
        pass
    own = OwnProcesses()
    assert own.missing() is None
    assert own.all() == []


def test_a_caller_is_given_the_loss_and_how_to_resume_in_one_line() -> None:
    """`check` raises nothing while Ray is alive; afterwards each call raises what is gone. The process is not ended."""
    ended: list[str] = []
    look = Scripted()
    watch = NodeWatch(ended.append, every=0.001)
    watch.start(look)
    watch.check()
    watch.check(now=True)
    look.gone = "the raylet has died"
    for _ in range(2):
        with pytest.raises(StorageError) as stopped:
            watch.check(now=True)
        assert str(stopped.value) == f"the raylet has died; {RESUME_HINT}"
    watch.close()
    assert ended == []


def test_a_process_that_hangs_in_ray_is_ended_after_a_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """The watch is not closed, because the only thread that would close it hangs in a call to Ray."""
    monkeypatch.setattr(watching, "_GRACE_SECONDS", 0.01)
    ended: list[str] = []
    done = threading.Event()

    def end(reason: str) -> None:
        ended.append(reason)
        done.set()

    look = Scripted()
    watch = NodeWatch(end, every=0.001)
    watch.start(look)
    watch.started()
    look.gone = "the raylet has died"
    assert done.wait(PATIENCE_SECONDS)
    assert ended == [f"the raylet has died; {RESUME_HINT}"]


def test_a_joined_cluster_s_raylet_is_checked_at_its_socket() -> None:
    """The raylet is alive while its socket is listened on, and missing once a connection is refused."""
    with (
        tempfile.TemporaryDirectory(dir="/tmp") as folder,
        socket.create_server(("127.0.0.1", 0)) as head,
        socket.socket(socket.AF_UNIX) as raylet,
    ):
        raylet.bind(f"{folder}/raylet")
        raylet.listen()
        joined = JoinedCluster(f"{folder}/raylet", f"127.0.0.1:{head.getsockname()[1]}")
        assert joined.missing() is None
        raylet.close()
        assert "raylet" in str(joined.missing())


def test_a_joined_cluster_s_head_may_be_away_for_a_while() -> None:
    """14 failed checks in a row are tolerated, so a head may be restarted; the 15th reports it as missing."""
    with socket.create_server(("127.0.0.1", 0)) as head:
        port = head.getsockname()[1]
    joined = JoinedCluster("/nowhere/raylet", f"127.0.0.1:{port}")
    for _ in range(14):
        assert joined.missing() is None
    with socket.create_server(("127.0.0.1", port)):
        assert joined.missing() is None
    for _ in range(14):
        assert joined.missing() is None
    assert f"127.0.0.1:{port}" in str(joined.missing())


def test_a_lack_of_descriptors_is_not_taken_for_a_death(monkeypatch: pytest.MonkeyPatch) -> None:
    """If this process can open no socket, it has learned nothing about the cluster."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder, socket.socket(socket.AF_UNIX) as raylet:
        raylet.bind(f"{folder}/raylet")
        raylet.listen()
        joined = JoinedCluster(f"{folder}/raylet", "127.0.0.1:9")

        def full(*given: object, **named: object) -> None:
            raise OSError(24, "Too many open files")

        monkeypatch.setattr(socket, "socket", full)
        monkeypatch.setattr(socket, "create_connection", full)
        for _ in range(40):
            assert joined.missing() is None
