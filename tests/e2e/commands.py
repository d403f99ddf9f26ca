"""The real command as a process that a test watches, interrupts and kills."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOOK_EVERY_SECONDS = 0.002
# A command takes seconds. On two cores that much else keeps busy, Ray alone took 23 s to start.
PATIENCE_SECONDS = 180.0
BATCHROUTER = (sys.executable, "-m", "jobs.cli")


class Command:
    """`batchrouter run JOB --json`, leader of a process group and session of its own, its output in files."""

    def __init__(self, job: Path, output: Path, *settings: str, program: Sequence[str] = BATCHROUTER) -> None:
        """`output` with the suffixes .out and .err is what it prints; `settings` are `key=value`."""
        self._out = output.with_suffix(".out")
        self._err = output.with_suffix(".err")
        given = [word for setting in settings for word in ("--set", setting)]
        # Files, since a pipe would stay open for as long as anything that Ray started.
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self._process = subprocess.Popen(
                [*program, "run", str(job), "--json", *given],
                cwd=ROOT,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    @property
    def stdout(self) -> str:
        return self._out.read_text()

    @property
    def stderr(self) -> str:
        return self._err.read_text()

    def ends_within(self, seconds: float) -> bool:
        """Does it end before so many seconds have passed?"""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def wait(self, seconds: float = PATIENCE_SECONDS) -> int:
        """The exit status."""
        return self._process.wait(seconds)

    def until(self, happened: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> None:
        """Return at the instant that something has happened; the command must not have ended before."""
        deadline = time.monotonic() + seconds
        while not happened():
            assert self._process.poll() is None, f"ended with {self._process.returncode}: {self.stderr}"
            assert time.monotonic() < deadline, f"not within {seconds} seconds: {self.stderr}"
            time.sleep(LOOK_EVERY_SECONDS)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the whole process group, as a terminal does."""
        os.killpg(self._process.pid, number)

    def kill(self) -> None:
        """SIGKILL the process group. What Ray keeps in groups of its own is left to end by itself."""
        self.signal(signal.SIGKILL)
        self._process.wait()

    def kill_driver(self) -> None:
        """SIGKILL the process itself and nothing else, as the kernel does when memory runs out."""
        self._process.kill()
        self._process.wait()

    def kill_all(self) -> None:
        """SIGKILL the process and whatever it started: for the end of a test that failed."""
        for pid in self.processes():
            os.kill(pid, signal.SIGKILL)
        self._process.wait()

    def processes(self) -> dict[int, str]:
        """What lives of the session: its command line by pid."""
        return {pid: line for pid, line in living().items() if session_of(pid) == self._process.pid}

    def leaves_nothing(self, seconds: float = 5) -> bool:
        """Has every process of the session ended, or does it within so many seconds?"""
        deadline = time.monotonic() + seconds
        while self.processes():
            if time.monotonic() > deadline:
                return False
            time.sleep(LOOK_EVERY_SECONDS)
        return True


def living() -> dict[int, str]:
    """Command lines of all processes, by pid; those that have ended and only wait to be noticed are left out."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            # A process that has ended has no command line any more.
            if line:
                found[int(entry.name)] = line.replace(b"\0", b" ").decode(errors="replace").strip()
    return found


def session_of(pid: int) -> int | None:
    """The session a process belongs to; `None`: it has just ended."""
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None
