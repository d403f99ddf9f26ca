"""Is a paid answer ever lost, or paid twice? Kills runs and resumes them until they end: `python -m benchmarks.kills`.

A server writes each row that it is asked for into a ledger. Inline jobs of 60 rows are killed just before the writes,
fsyncs, renames and other calls that they make on their files, ten times each. Jobs of 3,000 rows, inline and on Ray,
are killed at random instants: the command, its whole process group, the dispatcher or the raylet. With --faults, the
disk also fails at such calls. The results are compared with those of an unbroken run. The summary counts the rows that
were lost, duplicated or sent again; the exit status is 1 if there is any fault. The benchmark needs strace. 200 kills
take about 15 minutes on two cores.
"""

import argparse
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random

from tests.e2e.commands import Command
from tests.e2e.kills.account import Account
from tests.e2e.kills.harness import Boundary, Fault, Job, Strike, break_at_each, ending
from tests.e2e.ledger_server import Ledger, ledger_server

DEATHS = 10
SMALL = 60
LARGE = 3000
LONGEST_SECONDS = {"inline": 2.0, "ray": 10.0}

# The share of the kills that happen at random instants, in whole jobs of ten kills each.
RANDOM_SHARE = {"inline": 0.25, "ray": 0.15}


def strike_part(name: str) -> Strike:
    """A strike that kills the processes with `name` in their command line, or the whole command if there is none.

    There may be none because it has not started yet, or has ended already.
    """

    def strike(command: Command) -> None:
        found = [pid for pid, line in command.processes().items() if name in line.partition(" --")[0] + " "]
        for pid in found:
            os.kill(pid, signal.SIGKILL)
        if not found:
            command.kill()

    return strike


STRIKES: dict[str, dict[str, Strike]] = {
    "inline": {"the process": Command.kill},
    "ray": {
        "the dispatcher": strike_part("ray::DispatcherActor"),
        "the raylet": strike_part("/raylet "),
        "the driver": Command.kill_driver,
        "the driver's process group": Command.kill,
    },
}


class Harness:
    """Runs jobs, each in a folder of its own, against one server, and adds up what became of their rows.

    Attributes:
        account: the sum over all jobs so far.
    """

    def __init__(self, folder: Path, ledger: Ledger) -> None:
        self.account = Account()
        self._folder = folder
        self._ledger = ledger
        self._jobs = 0

    def job(self, rows: int, engine: str, output_format: str, at_once: int) -> Job:
        """A new job."""
        self._jobs += 1
        return Job(
            self._folder / f"job-{self._jobs:03}",
            self._ledger,
            rows,
            engine=engine,
            format=output_format,
            at_once=at_once,
        )

    def at_boundaries(self, most: int) -> None:
        """Kill before at most `most` calls, spread evenly over a run."""
        boundaries, unbroken = self._traced()
        chosen = _spread(boundaries, most)
        for job, account in break_at_each(chosen, self._small, Job.die_at, unbroken, DEATHS):
            self._add("before calls, results byte for byte", job, account)

    def at_faults(self, most: int) -> None:
        """Let the disk fail at most `most` calls: by turns it is full (ENOSPC) or broken (EIO)."""
        boundaries, unbroken = self._traced()
        # A run goes on if it cannot remove a temporary file.
        chosen = _spread([b for b in boundaries if b.call != "unlink"], most)
        faults = [Fault(("ENOSPC", "EIO")[place % 2], boundary) for place, boundary in enumerate(chosen)]
        for job, account in break_at_each(faults, self._small, Job.fail_at, unbroken, DEATHS):
            self._add("a failing disk, results byte for byte", job, account)

    def at_random(self, engine: str, kills: int, seed: int) -> None:
        """Kill at random instants; each job kills another part of the run."""
        with ending(self.job(LARGE, "inline", "jsonl", 64)) as job:
            job.finish()
            unbroken = job.results
        strikes = list(STRIKES[engine].items())
        for number in range(-(-kills // DEATHS)):
            what, strike = strikes[number % len(strikes)]
            with ending(self.job(LARGE, engine, "jsonl", 8)) as job:
                job.die_at_random(DEATHS, Random(f"{seed}/{engine}/{number}"), LONGEST_SECONDS[engine], strike)
                self._add(f"{engine}, {what} at random instants", job, job.account(unbroken))

    def _traced(self) -> tuple[list[Boundary], dict[str, bytes]]:
        with ending(self._small()) as job:
            return job.traced(), job.results

    def _small(self) -> Job:
        return self.job(SMALL, "inline", "openai_batch", 8)

    def _add(self, what: str, job: Job, account: Account) -> None:
        self.account += account
        for line in job.stopped_badly:
            print(f"  {line}")
        if account.faults:
            print(f"  {account}")
        print(
            f"  {what}: {account.kills} kills, {account.sent_again} rows sent again, {account.faults} faults",
            flush=True,
        )


def _spread(boundaries: Sequence[Boundary], most: int) -> list[Boundary]:
    """At most `most` of the boundaries, evenly spread; print how many of each call these are."""
    count = min(most, len(boundaries))
    chosen = [boundaries[place * len(boundaries) // count] for place in range(count)]
    calls = ", ".join(f"{count} {call}" for call, count in Counter(b.call for b in chosen).most_common())
    print(f"{len(boundaries)} calls on files, {len(chosen)} of them tried: {calls}")
    return chosen


def _summary(account: Account) -> str:
    return "\n".join(
        (
            f"{account.kills} kills and failures in {account.jobs} jobs of {account.rows} rows together",
            f"rows lost                                    {account.lost}",
            f"rows duplicated                              {account.duplicated}",
            f"files of results that differ (corrupt)       {account.corrupt}",
            f"rows sent again                              {account.sent_again}",
            f"  of which their outcome was journaled       {account.journaled_sent_again}",
            f"  of which not listed as ambiguous           {account.unlisted_sent_again}",
            f"failures of the disk that ended badly        {account.stopped_badly}",
        )
    )


def main() -> None:
    """Kill as often as the arguments say, and print the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument(
        "--faults", type=int, default=0, help="how many disk failures to inject; with 1000, every call fails once"
    )
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, ledger_server(Path(folder)) as ledger:
        harness = Harness(Path(folder), ledger)
        if asked.faults:
            harness.at_faults(asked.faults)
        at_random = {engine: round(asked.kills * share) for engine, share in RANDOM_SHARE.items()}
        if asked.kills:
            harness.at_boundaries(asked.kills - sum(at_random.values()))
        for engine, kills in at_random.items():
            harness.at_random(engine, kills, asked.seed)
    print(_summary(harness.account))
    print(f"{time.monotonic() - started:.0f} seconds")
    sys.exit(harness.account.faults > 0)


if __name__ == "__main__":
    main()
