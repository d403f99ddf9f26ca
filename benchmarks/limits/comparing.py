"""Several clients at the same task, in one table."""

import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import NamedTuple

from benchmarks.limits import figures
from benchmarks.limits.clients.batch import Batch, Client, running
from benchmarks.limits.figures import Seen
from benchmarks.limits.servers.starting import Server
from benchmarks.limits.table import show, times

PATIENCE_SECONDS = 900.0
# A server's log may be so much behind.
_LOG_SECONDS = 0.3

Start = Callable[[], AbstractContextManager[Sequence[Server]]]
Told = Callable[[Sequence[Server]], Batch]
"""What a client is told, given the servers that were started for it."""
Enough = Callable[[Sequence[Server]], bool]
"""Has a client been watched for long enough? Asked ten times a second."""
Columns = Callable[[Sequence[Seen]], Mapping[str, str]]


class Task(NamedTuple):
    """A client at work, and its servers."""

    process: "subprocess.Popen[bytes]"
    servers: Sequence[Server]
    enough: Enough

    def ended(self) -> bool:
        """Is it done?"""
        return self.process.poll() is not None or self.enough(self.servers)

    def seen(self) -> list[Seen]:
        """What all its servers have seen."""
        return sorted(seen for server in self.servers for seen in server.seen())


def compare(
    title: str, asked: str, clients: Sequence[Client], logs: Sequence[Sequence[Seen]], columns: Columns
) -> None:
    """Print a line for each client. The first one's time is what the others' are divided by."""
    ours = figures.seconds(logs[0])
    lines = [
        (
            client.name,
            {
                **columns(seen),
                "answered": f"{len(figures.accepted(seen)):,}",
                "calls": f"{len(seen):,}",
                "seconds": f"{figures.seconds(seen):.1f}",
                "time": times(figures.seconds(seen), ours),
            },
        )
        for client, seen in zip(clients, logs, strict=True)
    ]
    show(title, asked, lines)


def observe(
    clients: Sequence[Client],
    start: Start,
    told: Told,
    *,
    enough: Enough = lambda servers: False,
    together: bool = False,
) -> list[list[Seen]]:
    """Run each client against servers of its own; what all of these saw, for each client.

    Args:
        enough: ends a client early.
        together: all at once, where each leaves the machine all but idle.
    """
    logs = []
    for group in [clients] if together else [[client] for client in clients]:
        with ExitStack() as stack:
            tasks = [stack.enter_context(_started(client, start, told, enough)) for client in group]
            _wait(tasks)
            time.sleep(_LOG_SECONDS)
            logs += [task.seen() for task in tasks]
    return logs


@contextmanager
def _started(client: Client, start: Start, told: Told, enough: Enough) -> Iterator[Task]:
    with start() as servers, running(client, told(servers)) as process:
        yield Task(process, servers, enough)


def _wait(tasks: Sequence[Task]) -> None:
    given_up = time.monotonic() + PATIENCE_SECONDS
    while not all(task.ended() for task in tasks):
        if time.monotonic() > given_up:
            print(f"  (stopped after {PATIENCE_SECONDS:.0f} s)")
            return
        time.sleep(0.1)
