"""Run the quickstart job against local endpoints: `python examples/quickstart/run.py`.

Without `--resume` it starts a new run. To resume a run, interrupt it with Ctrl-C and add `--resume`; a run that is
finished then has nothing left to send. All other arguments are passed on to `batchrouter run`.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from batch.errors import SpecError
from jobs.files.yaml_specs import load_spec
from jobs.rehearsal.server import Rehearsal
from schemas.rehearse import RehearsalSpec

HERE = Path(__file__).resolve().parent
# Exit statuses of a run that stopped before its end and can be resumed.
STOPPED = (3, 130)


async def main(arguments: Sequence[str]) -> int:
    """Serve the endpoints, run the job in a process of its own, and return its exit status."""
    passed_on = [a for a in arguments if a != "--resume"]
    if "--resume" not in arguments:
        passed_on.append("--fresh")
    async with Rehearsal(load_spec(HERE / "endpoints.yaml", RehearsalSpec), folder=HERE) as rehearsal:
        say(f"Serving {len(rehearsal.urls)} local endpoints. Running {shown(HERE / 'job.yaml')} ...\n")
        # Ctrl-C also reaches the run's process. The run then waits for requests in flight, so the endpoints stay up.
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, lambda: None)
        job = str(HERE / "job.yaml")
        run = await asyncio.create_subprocess_exec(sys.executable, "-m", "jobs.cli", "run", job, *passed_on)
        loop.add_signal_handler(signal.SIGTERM, run.terminate)
        status = await run.wait()
    if status in STOPPED:
        say(f"\nTo resume the run:  {shown(Path(sys.executable))} {shown(Path(__file__))} --resume")
    return status


def shown(path: Path) -> str:
    """`path` relative to the current folder, if it lies below it."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def say(text: str) -> None:
    """Print and flush, so that the line comes before those of the run's process."""
    print(text, flush=True)


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(main(sys.argv[1:])))
    except SpecError as error:
        sys.exit(f"quickstart: {error}")
