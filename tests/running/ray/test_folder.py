"""The folder in which a local Ray cluster has its sockets and logs."""

import fcntl
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from batch.errors import SpecError
from batch.running.ray.folder import RayFolder

LONGEST_SOCKET = "session_2026-01-31_12-34-56_123456_4194304/sockets/plasma_store"


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder with a path short enough for sockets; the paths of pytest's own folders are too long."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder)


def made_in(folder: RayFolder) -> Path:
    return Path(folder.path).parent


def test_no_other_user_may_enter_it_and_it_goes_when_it_is_closed(place: Path) -> None:
    """Its mode is 0700 whatever the umask; `close` removes it with all that Ray made in it, and may be called twice."""
    before = os.umask(0)
    try:
        folder = RayFolder([str(place)], 0)
    finally:
        os.umask(before)
    assert stat.S_IMODE(made_in(folder).stat().st_mode) == 0o700
    sockets = Path(folder.path) / "session_x" / "sockets"
    sockets.mkdir(parents=True)
    (sockets / "raylet").touch()
    folder.close()
    folder.close()
    assert list(place.iterdir()) == []


def test_ray_s_longest_socket_fits(place: Path) -> None:
    """A socket with the longest name that Ray gives one can be bound in the folder."""
    folder = RayFolder([str(place)], 0)
    path = Path(folder.path) / LONGEST_SOCKET
    path.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))
    folder.close()


def test_places_that_do_not_serve_are_passed_over(place: Path, tmp_path: Path) -> None:
    """A place is skipped if its path is too long for sockets, or if it is a file or missing; nothing is left in it."""
    long = tmp_path / ("long" * 20)
    long.mkdir()
    a_file = tmp_path / "file"
    a_file.touch()
    folder = RayFolder([str(long), str(a_file), str(tmp_path / "missing"), str(place)], 0)
    assert made_in(folder).parent == place
    assert list(long.iterdir()) == []
    folder.close()


def test_where_no_place_serves_one_line_says_why_and_what_to_do(tmp_path: Path) -> None:
    """The error names each place with its reason, and both ways out: another folder, or the engine without Ray."""
    long = tmp_path / ("long" * 20)
    long.mkdir()
    with pytest.raises(SpecError) as refused:
        RayFolder([str(long), str(tmp_path / "missing")], 0)
    said = str(refused.value)
    assert "\n" not in said
    assert f"{long}: its path is too long for sockets" in said
    assert f"{tmp_path / 'missing'}: no such file or directory" in said
    assert "RAY_TMPDIR" in said
    assert "engine: inline" in said


def test_a_place_without_room_for_the_object_store_is_refused(place: Path) -> None:
    """A place is refused if neither shared memory nor the place itself has room for the object store."""
    free = os.statvfs(place)
    with pytest.raises(SpecError, match="MiB are free"):
        RayFolder([str(place)], free.f_bavail * free.f_frsize * 2 + (1 << 50))


def test_what_a_killed_run_left_is_removed_and_nothing_else(place: Path) -> None:
    """A folder of this user is stale if no process holds its lock or listens in it; only stale folders are removed."""
    stale, running, listening, other = (place / name for name in ("br-ray-a", "br-ray-b", "br-ray-c", "other"))
    for left_behind in (stale, running, listening, other):
        (left_behind / "r" / "session_x" / "sockets").mkdir(parents=True)
    (place / "br-ray-d").symlink_to(other)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(stale / "r" / "session_x" / "sockets" / "raylet"))
    held = os.open(running, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    with socket.socket(socket.AF_UNIX) as raylet:
        raylet.bind(str(listening / "r" / "session_x" / "sockets" / "raylet"))
        raylet.listen()
        folder = RayFolder([str(place)], 0)
    left = {entry.name for entry in place.iterdir()}
    assert left == {"br-ray-b", "br-ray-c", "br-ray-d", "other", made_in(folder).name}
    assert (other / "r").is_dir()
    folder.close()
    os.close(held)


def test_processes_that_a_killed_run_left_are_ended_with_its_folder(place: Path) -> None:
    """A killed run's process would go on writing into the stale folder; processes of a running run are left alone."""
    running = RayFolder([str(place)], 0)
    (place / "br-ray-a" / "r").mkdir(parents=True)
    orphan, agent = (
        subprocess.Popen([sys.executable, "-c", "input()", f"--session-dir={path}/x"], stdin=subprocess.PIPE)
        for path in (place / "br-ray-a" / "r", running.path)
    )
    with orphan, agent:
        RayFolder([str(place)], 0).close()
        assert orphan.wait(10) == -signal.SIGKILL
        assert agent.poll() is None
        agent.kill()
    running.close()


def test_two_runs_at_the_same_time_keep_their_folders(place: Path) -> None:
    """The second run does not take the first one's folder for a stale one."""
    first = RayFolder([str(place)], 0)
    second = RayFolder([str(place)], 0)
    assert made_in(first).is_dir()
    assert made_in(second).is_dir()
    first.close()
    second.close()
