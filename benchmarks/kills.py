"""Is a paid answer ever lost, or paid twice? Runs are killed and resumed until they end: `python -m benchmarks.kills`.

A server writes each row that it is asked for into a ledger. Jobs of 60 rows in this process are killed before the
writes, fsyncs, renames and other calls that they make on their files, ten times each; jobs of 3,000 rows, in this
process and on Ray, at random instants: the command, its whole process group, the dispatcher, the raylet. Their results
are compared with those of an unbroken run. Needs strace. 200 kills take about 15 minutes on two cores.
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

# Of 200 kills so many are at random instants, in whole jobs of ten.
RANDOM_SHARE = {"inline": 0.25, "ray": 0.15}


def strike_part(name: str) -> Strike:
    """SIGKILL to what has this in its name; where there is none, not yet or not any more, to all of it."""

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
    """Jobs in folders of their own, one server for all, and one account.

    Attributes:
        account: of all jobs so far.
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
        """Kill before so many calls, as evenly spread over a run as can be."""
        boundaries, unbroken = self._traced()
        chosen = _spread(boundaries, most)
        for job, account in break_at_each(chosen, self._small, Job.die_at, unbroken, DEATHS):
            self._add("before calls, results byte for byte", job, account)

    def at_faults(self, most: int) -> None:
        """Have the disk fail at so many calls, full or broken by turns."""
        boundaries, unbroken = self._traced()
        # A temporary file that cannot be removed stops nothing.
        chosen = _spread([b for b in boundaries if b.call != "unlink"], most)
        faults = [Fault(("ENOSPC", "EIO")[place % 2], boundary) for place, boundary in enumerate(chosen)]
        for job, account in break_at_each(faults, self._small, Job.fail_at, unbroken, DEATHS):
            self._add("a failing disk, results byte for byte", job, account)

    def at_random(self, engine: str, kills: int, seed: int) -> None:
        """Kill at random instants; what is struck changes from job to job."""
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
    """So many of these, evenly spread."""
    count = min(most, len(boundaries))
    chosen = [boundaries[place * len(boundaries) // count] for place in range(count)]
    calls = ", ".join(f"{count} {call}" for call, count in Counter(b.call for b in chosen).most_common())
    print(f"{len(boundaries)} calls on files, {len(chosen)} of them tried: {calls}")
    return chosen


def _told(account: Account) -> str:
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
    """Kill so often, and account for it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--faults", type=int, default=0, help="failures of the disk; 1000 tries every call")
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
    print(_told(harness.account))
    print(f"{time.monotonic() - started:.0f} seconds")
    sys.exit(harness.account.faults > 0)


if __name__ == "__main__":
    main()
