"""Runs several clients on the same rows and servers, and prints their figures as one table."""

import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import NamedTuple

from benchmarks.limits import figures
from benchmarks.limits.clients.batch import Batch, Client, client_process
from benchmarks.limits.figures import LoggedRequest
from benchmarks.limits.servers.processes import Server
from benchmarks.limits.table import show, times

LONGEST_RUN_SECONDS = 900.0
# A server may write its log this much later than it answers.
_LOG_DELAY_SECONDS = 0.3

StartServers = Callable[[], AbstractContextManager[Sequence[Server]]]
"""Starts the servers of one client, and ends them with the block."""
BuildBatch = Callable[[Sequence[Server]], Batch]
"""Builds what a client has to send, from the servers that were started for it."""
ShouldStop = Callable[[Sequence[Server]], bool]
"""Whether a client has run for long enough; called about ten times a second while it runs."""
Columns = Callable[[Sequence[LoggedRequest]], Mapping[str, str]]
"""Computes a client's cells of the table, by column, from what its servers logged."""


class ClientRun(NamedTuple):
    """A running client and the servers that it sends to."""

    process: "subprocess.Popen[bytes]"
    servers: Sequence[Server]
    should_stop: ShouldStop

    def ended(self) -> bool:
        """Whether the client has ended, or has run for long enough."""
        return self.process.poll() is not None or self.should_stop(self.servers)

    def requests(self) -> list[LoggedRequest]:
        """The requests that its servers have logged so far, in order of arrival."""
        return sorted(request for server in self.servers for request in server.requests())


def compare(
    title: str, target: str, clients: Sequence[Client], logs: Sequence[Sequence[LoggedRequest]], columns: Columns
) -> None:
    """Print a table with a line for each client; `time` is a client's seconds divided by those of the first client."""
    first_seconds = figures.duration_seconds(logs[0])
    lines = [
        (
            client.name,
            {
                **columns(log),
                "answered": f"{len(figures.accepted(log)):,}",
                "calls": f"{len(log):,}",
                "seconds": f"{figures.duration_seconds(log):.1f}",
                "time": times(figures.duration_seconds(log), first_seconds),
            },
        )
        for client, log in zip(clients, logs, strict=True)
    ]
    show(title, target, lines)


def observe(
    clients: Sequence[Client],
    start_servers: StartServers,
    build_batch: BuildBatch,
    *,
    should_stop: ShouldStop = lambda servers: False,
    at_once: bool = False,
) -> list[list[LoggedRequest]]:
    """Run each client against servers of its own; return, for each client, what its servers logged.

    A client that has not ended after `LONGEST_RUN_SECONDS` is stopped, and a line says so.

    Args:
        should_stop: ends a client early.
        at_once: run all clients at the same time; for clients that leave the machine nearly idle.
    """
    logs = []
    for group in [clients] if at_once else [[client] for client in clients]:
        with ExitStack() as stack:
            runs = [stack.enter_context(_started(client, start_servers, build_batch, should_stop)) for client in group]
            _wait(runs)
            time.sleep(_LOG_DELAY_SECONDS)
            logs += [run.requests() for run in runs]
    return logs


@contextmanager
def _started(
    client: Client, start_servers: StartServers, build_batch: BuildBatch, should_stop: ShouldStop
) -> Iterator[ClientRun]:
    with start_servers() as servers, client_process(client, build_batch(servers)) as process:
        yield ClientRun(process, servers, should_stop)


def _wait(runs: Sequence[ClientRun]) -> None:
    deadline = time.monotonic() + LONGEST_RUN_SECONDS
    while not all(run.ended() for run in runs):
        if time.monotonic() > deadline:
            print(f"  (stopped after {LONGEST_RUN_SECONDS:.0f} s)")
            return
        time.sleep(0.1)
