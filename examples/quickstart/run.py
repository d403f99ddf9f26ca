"""Run the quickstart job against local endpoints: `python examples/quickstart/run.py`.

Every call starts afresh. To see a run go on where it stopped, interrupt it with Ctrl-C and call with `--resume`;
called so after the end, it finds that there is nothing left to do. Other arguments go to `batchrouter run`.
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
STOPPED = (3, 130)


async def main(arguments: Sequence[str]) -> int:
    """Serve the endpoints, run the job in a process of its own, and give its exit status."""
    passed_on = [a for a in arguments if a != "--resume"]
    if "--resume" not in arguments:
        passed_on.append("--fresh")
    async with Rehearsal(load_spec(HERE / "endpoints.yaml", RehearsalSpec), folder=HERE) as rehearsal:
        say(f"Serving {len(rehearsal.urls)} local endpoints. Running {shown(HERE / 'job.yaml')} ...\n")
        # Ctrl-C reaches the run by itself. It waits for what is in flight, so the endpoints must outlive it.
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, lambda: None)
        job = str(HERE / "job.yaml")
        run = await asyncio.create_subprocess_exec(sys.executable, "-m", "jobs.cli", "run", job, *passed_on)
        loop.add_signal_handler(signal.SIGTERM, run.terminate)
        status = await run.wait()
    if status in STOPPED:
        say(f"\nTo go on where it stopped:  {shown(Path(sys.executable))} {shown(Path(__file__))} --resume")
    return status


def shown(path: Path) -> str:
    """`path` as short as it can be typed from here."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def say(text: str) -> None:
    """Print at once: the run's own lines come from another process."""
    print(text, flush=True)


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(main(sys.argv[1:])))
    except SpecError as error:
        sys.exit(f"quickstart: {error}")
