"""Run the quickstart job against local endpoints: `python examples/quickstart/run.py`.

Every call starts afresh. To see a run go on where it stopped, interrupt it with Ctrl-C and call with `--resume`;
called so after the end, it finds that there is nothing left to do. Other arguments go to `batchrouter run`.
"""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import yaml

HERE = Path(__file__).resolve().parent
BATCHROUTER = (sys.executable, "-m", "jobs.cli")


def main(arguments: Sequence[str]) -> int:
    """Serve, run, say where everything is; the run's exit status."""
    passed_on = [a for a in arguments if a != "--resume"]
    if "--resume" not in arguments:
        passed_on.append("--fresh")
    with endpoints() as urls:
        if not urls:
            return 2
        sys.stdout.write(f"Serving {len(urls)} local endpoints. Running {shown(HERE / 'job.yaml')} ...\n\n")
        sys.stdout.flush()
        status = finished(subprocess.Popen([*BATCHROUTER, "run", str(HERE / "job.yaml"), *passed_on]))
    results = HERE / "out" / "results.jsonl"
    if status in (0, 1):
        sys.stdout.write(
            f"\nResults, one line per prompt, in order:  {shown(results)}\n"
            f"The report, to look at in a browser:     {shown(Path(f'{results}.run') / 'report.html')}\n"
        )
    return status


@contextmanager
def endpoints() -> Iterator[list[str]]:
    """Serve endpoints.yaml from a process of its own; its lines `<model> <url>`, none if it could not start."""
    # In a session of its own, so that Ctrl-C reaches only the run, which then finishes what is in flight.
    command = [*BATCHROUTER, "rehearse", str(HERE / "endpoints.yaml")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as server:
        assert server.stdout is not None
        try:
            first = server.stdout.readline()
            # All endpoints answer before the first line is written, and the lines come in one piece.
            expected = len(yaml.safe_load((HERE / "endpoints.yaml").read_text())["endpoints"])
            yield [first, *(server.stdout.readline() for _ in range(expected - 1))] if first else []
        finally:
            server.terminate()


def finished(process: subprocess.Popen[bytes]) -> int:
    """Wait for `process`, which deals with Ctrl-C itself; its exit status."""
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue


def shown(path: Path) -> Path:
    """`path` as short as it can be typed from here."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
