"""Notices that Ray's own processes have died. Ray does not tell its driver, or ends the driver without a message."""

import errno
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Protocol

from batch.errors import StorageError

_log = logging.getLogger("batchrouter.running")

# A node needs these two processes. Ray's agents need not be watched: the raylet ends when one of them dies.
_NEEDED = ("gcs_server", "raylet")

_LOOK_SECONDS = 0.25
# Less often, because each check of a joined cluster opens connections to it.
_LOOK_JOINED_SECONDS = 2.0
_CONNECT_SECONDS = 5.0
# Errors which mean that this process can open no more files, and not that another process has died.
_OURS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
# 30 seconds. Ray itself forgives a head that is gone for a minute, in which it may be restarted, then ends the process.
_HEAD_MISSES = 15

# A call into Ray may never return once a process is dead. It has this long to return before this process is ended.
_GRACE_SECONDS = 20.0
_GRACE_STARTING_SECONDS = 5.0

RESUME_HINT = "rerun the same command to resume"


class Look(Protocol):
    """One way to check that the processes that Ray needs are alive."""

    def missing(self) -> str | None:
        """What is gone, in words; `None`: nothing is."""
        ...


class NodeWatch:
    """Checks at intervals, in a thread of its own, that Ray is alive.

    Attributes:
        reason: what is gone, as one line; `None` while nothing is.
    """

    def __init__(self, end_process: Callable[[str], None], *, every: float = _LOOK_SECONDS) -> None:
        """
        Args:
            end_process: prints a line and ends this process at once. It is called if a call into Ray has not returned
                in time; until then `check` raises.
            every: seconds between checks.
        """
        self.reason: str | None = None
        self._end_process = end_process
        self._every = every
        self._grace = _GRACE_STARTING_SECONDS
        self._look: Look | None = None
        self._looking = threading.Lock()
        self._closed = threading.Event()

    def start(self, look: Look) -> None:
        """Start to check, even while Ray is still being started."""
        self._look = look
        threading.Thread(target=self._run, name="ray watch", daemon=True).start()

    def started(self) -> None:
        """Note that Ray is up. From now on a caller has more time between two calls of `check`."""
        self._grace = _GRACE_SECONDS

    def check(self, *, now: bool = False) -> None:
        """Return if Ray is alive.

        Args:
            now: check at this instant instead of relying on the last check.

        Raises:
            StorageError: one of Ray's processes is gone.
        """
        if now:
            self._look_once()
        if self.reason is not None:
            raise StorageError(self.reason)

    def close(self) -> None:
        """Stop checking; this process is not ended any more."""
        self._closed.set()

    def _run(self) -> None:
        while not self._closed.wait(self._every):
            self._look_once()
            if self.reason is not None:
                if not self._closed.wait(self._grace):
                    self._end_process(self.reason)
                return

    def _look_once(self) -> None:
        with self._looking:
            if self.reason is None and self._look is not None:
                missing = self._look.missing()
                if missing is not None:
                    self.reason = f"{missing}; {RESUME_HINT}"
                    _log.error("%s", missing)


class OwnProcesses:
    """The processes of a local cluster, which are children of this process; they are found as they appear."""

    def __init__(self) -> None:
        """To be constructed before the cluster starts: children that exist now belong to something else."""
        self._before = set(_children(os.getpid()))
        self._known: dict[str, Process] = {}

    def missing(self) -> str | None:
        """As Look."""
        if len(self._known) < len(_NEEDED):
            # Where no file can be opened now, the next look finds them.
            with suppress(OSError):
                self._find()
        for name, process in self._known.items():
            if not process.lives():
                return f"Ray's process {name} has died, as it may when memory runs out"
        return None

    def all(self) -> list["Process"]:
        """The processes found, with their own children first: workers would wait a minute for a dead head."""
        known = list(self._known.values())
        children: list[Process] = []
        # Where no file can be opened now, the workers end by themselves, later.
        with suppress(OSError):
            children = [child for process in known for child in _children(process.pid)]
        return children + known

    def _find(self) -> None:
        for process in _children(os.getpid()):
            name = _name_of(process)
            if name in _NEEDED and process not in self._before:
                self._known.setdefault(name, process)


class JoinedCluster:
    """A cluster that was joined: the raylet of this node must answer on its socket, and the head on its port."""

    def __init__(self, raylet_socket: str, head: str) -> None:
        """
        Args:
            raylet_socket: the path of the socket of this node's raylet.
            head: `host:port`.
        """
        # If the raylet is on another machine, its socket never answers here, and is not checked.
        self._raylet_socket = raylet_socket if _answers_at(raylet_socket) else None
        host, _, port = head.rpartition(":")
        self._head = (host.strip("[]"), int(port))
        self._misses = 0

    def missing(self) -> str | None:
        """As Look."""
        if self._raylet_socket is not None and not _answers_at(self._raylet_socket):
            return "Ray's process raylet on this node has died, as it may when memory runs out"
        try:
            with socket.create_connection(self._head, _CONNECT_SECONDS):
                self._misses = 0
        except OSError as error:
            self._misses += error.errno not in _OURS
            if self._misses >= _HEAD_MISSES:
                return f"the head of the Ray cluster at {self._head[0]}:{self._head[1]} does not answer any more"
        return None


def watch_joined(end_process: Callable[[str], None]) -> NodeWatch:
    """A watch of a joined cluster, which looks less often."""
    return NodeWatch(end_process, every=_LOOK_JOINED_SECONDS)


def lives(pid: int) -> bool:
    """Is this a process of this machine that has not ended? A zombie has ended.

    If this process can open no more files and so cannot find out, the other is taken to be alive.
    """
    try:
        return _stat(pid) is not None
    except OSError:
        return True


class Process(NamedTuple):
    """A process of this machine. Its start time is part of it because process numbers are reused."""

    pid: int
    started: str

    def lives(self) -> bool:
        """As the function `lives`; a later process with the same number does not count."""
        try:
            stat = _stat(self.pid)
        except OSError:
            return True
        return stat is not None and stat.started == self.started

    def kill(self) -> None:
        """Kill the process, if it has not ended."""
        if self.lives():
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


class _Stat(NamedTuple):
    """What /proc says about a process."""

    name: str
    parent: int
    started: str


def _children(parent: int) -> list[Process]:
    """The children of a process; none if there is no /proc, as on macOS. Raises OSError as `_stat`."""
    found = []
    proc = Path("/proc")
    for entry in proc.iterdir() if proc.is_dir() else ():
        stat = _stat(int(entry.name)) if entry.name.isdigit() else None
        if stat is not None and stat.parent == parent:
            found.append(Process(int(entry.name), stat.started))
    return found


def _name_of(process: Process) -> str | None:
    stat = _stat(process.pid)
    return stat.name if stat is not None else None


def _stat(pid: int) -> _Stat | None:
    """Read /proc; `None`: the process has ended. Raises OSError if this process can open no more files."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError as error:
        if error.errno in _OURS:
            raise
        return None
    # A name may hold parentheses and blanks.
    name, _, rest = text.partition("(")[2].rpartition(") ")
    state, parent, *others = rest.split()
    if state in "ZX":
        return None
    # Fields 3 and 4 are read; the 22nd is the time of its start.
    return _Stat(name, int(parent), others[17])


def _answers_at(path: str) -> bool:
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
            asking.settimeout(_CONNECT_SECONDS)
            asking.connect(path)
    except (ConnectionRefusedError, FileNotFoundError):
        return False
    except OSError:
        # The other side is too busy to accept, or no descriptor is left here: neither means that it has died.
        return True
    return True
