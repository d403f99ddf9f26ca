"""The folder of a local Ray cluster: sockets, logs, and the object store where there is no shared memory for it."""

import fcntl
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from batch.errors import SpecError

_PREFIX = "br-ray-"
# Ray gives every user access to what it makes. It makes this folder inside ours, which no other user may enter.
_RAYS = "r"

# The longest path of a socket that Ray makes within its folder; the pid is that of this process.
_RAYS_SOCKET = "session_2026-01-31_12-34-56_123456_{pid}/sockets/plasma_store"
_MOST_SOCKET_BYTES = 107 if sys.platform == "linux" else 103

_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  only its free space is looked at
# Room for logs. Ray itself regards a disk as full at 95 %.
_LEAST_FREE_BYTES = 16 << 20
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class RayFolder:
    """A folder that only this user may enter, made in the first suitable place, and removed by `close`.

    Attributes:
        path: for Ray's `_temp_dir`.
        store: for Ray's `_plasma_directory`; `None`: /dev/shm serves, which Ray takes by itself.
    """

    def __init__(self, places: Sequence[str], store_bytes: int) -> None:
        """Make the folder, and remove those that killed runs have left beside it.

        Args:
            places: existing folders to make it in, the best first.
            store_bytes: what Ray's object store may hold.

        Raises:
            SpecError: none of these places serves.
        """
        in_memory = _has_room(_SHARED_MEMORY, store_bytes)
        least = _LEAST_FREE_BYTES + (0 if in_memory else store_bytes)
        self._own, self._lock = _made(places, least)
        self._closed = False
        rays = self._own / _RAYS
        rays.mkdir(mode=0o700)
        self.path = str(rays)
        self.store = None if in_memory else str(self._own)

    def close(self) -> None:
        """Remove the folder, even if processes still write into it."""
        # Processes of Ray may make files in it while it is being removed, so one attempt may not be enough.
        for _ in range(3):
            shutil.rmtree(self._own, ignore_errors=True)
        if not self._closed:
            self._closed = True
            os.close(self._lock)


def _made(places: Sequence[str], least_bytes: int) -> tuple[Path, int]:
    reasons = []
    for place in map(Path, dict.fromkeys(places)):
        _remove_stale(place)
        try:
            own, lock = _new(place)
        except OSError as error:
            reasons.append(f"{place}: {(error.strerror or str(error)).lower()}")
            continue
        unfit = _unfit(own, least_bytes)
        if unfit is None:
            return own, lock
        reasons.append(f"{place}: {unfit}")
        shutil.rmtree(own, ignore_errors=True)
        os.close(lock)
    raise SpecError(
        f"Ray has no folder for its sockets and logs ({'; '.join(reasons)}): set RAY_TMPDIR to a folder with a short "
        "path that can be written, or set `engine: inline`, which runs without Ray"
    )


def _new(place: Path) -> tuple[Path, int]:
    """A new folder, and a descriptor that holds its lock for as long as this process lives."""
    while True:
        own = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place)).absolute()
        try:
            lock = os.open(own, _FOLDER)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            # Another run has locked it, takes it for stale and is about to remove it, so a new one is needed.
            os.close(lock)
            continue
        except OSError:
            # This file system has no locks, so no other run can take the folder for stale.
            return own, lock
        if own.exists():
            return own, lock
        os.close(lock)


def _unfit(own: Path, least_bytes: int) -> str | None:
    """Why Ray cannot use this folder; `None`: it can."""
    if not _has_room(own, least_bytes):
        return f"less than {least_bytes >> 20} MiB are free"
    longest = own / _RAYS / _RAYS_SOCKET.format(pid=os.getpid())
    if len(os.fsencode(longest)) > _MOST_SOCKET_BYTES:
        return "its path is too long for sockets"
    probe = own / "probe"
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as bound:
            bound.bind(str(probe))
        probe.unlink()
    except OSError as error:
        return f"no socket can be made there: {error.strerror or error}"
    return None


def _has_room(place: Path, least_bytes: int) -> bool:
    """Can this process write here, and are so many bytes free?"""
    try:
        free = os.statvfs(place)
    except OSError:
        return False
    return os.access(place, os.W_OK | os.X_OK) and free.f_bavail * free.f_frsize >= least_bytes


def _remove_stale(place: Path) -> None:
    """Remove the folders of this user's killed runs: those without a lock in which no process of Ray answers."""
    # An error here does not matter to this run, which makes a folder of its own.
    with suppress(OSError):
        for entry in os.scandir(place):
            with suppress(OSError):
                if entry.name.startswith(_PREFIX) and entry.stat(follow_symlinks=False).st_uid == os.geteuid():
                    _remove_if_stale(Path(entry.path))


def _remove_if_stale(own: Path) -> None:
    descriptor = os.open(own, _FOLDER)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not any(_has_listener(path) for path in own.glob(f"{_RAYS}/session_*/sockets/*")):
            _end_orphans(own)
            shutil.rmtree(own, ignore_errors=True)
    except BlockingIOError:
        # The run of this folder is alive.
        pass
    finally:
        os.close(descriptor)


def _end_orphans(own: Path) -> None:
    """Kill this user's processes that have the folder on their command line.

    Ray's agents end with their raylet. One that was still starting when its raylet was killed takes the process that
    adopted it for its parent, and lives on.
    """
    for process in Path("/proc").glob("[0-9]*"):
        # A process that has ended by now, or is another user's, is left alone.
        with suppress(OSError):
            named = os.fsencode(f"{own}/") in (process / "cmdline").read_bytes()
            if named and process.stat().st_uid == os.geteuid() and process.name != str(os.getpid()):
                os.kill(int(process.name), signal.SIGKILL)


def _has_listener(path: Path) -> bool:
    """Does a process listen on the Unix socket at `path`? Also true of a socket for which this cannot be found out."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.connect(str(path))
    except ConnectionRefusedError:
        return False
    except OSError:
        # A socket that cannot be tried counts as having a listener, so that its folder is left alone.
        return path.is_socket()
    return True
