"""Checks how the program behaves on field cases: `python -m benchmarks.field [--cases FOLDER] [--only NAME ...]`.

FOLDER has a folder for each case, below `inputs/` and `endpoints/`. A line for each case gives its seconds and says
whether all claims about it hold, or which do not. The last line counts the cases that behave as they should; the exit
status is 1 if any does not.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.field.endpoints import endpoint_claims
from benchmarks.field.inputs import INPUTS, Verdict
from benchmarks.field.outcome import ROOT, endpoint_case, input_case


def main() -> int:
    """Run the cases, print a line for each, and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.field", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=Path, default=ROOT.parent / "shared" / "field", help="a folder of cases")
    parser.add_argument("--only", nargs="*", default=(), help="run only the cases with these names")
    arguments = parser.parse_args()
    if not arguments.cases.is_dir():
        parser.error(f"{arguments.cases} is no folder; give --cases")
    good = total = 0
    without: list[str] = []
    for name, verdict, seconds in _verdicts(arguments.cases, frozenset(arguments.only)):
        if verdict is None:
            without.append(name)
            continue
        total += 1
        good += not verdict
        said = "; ".join(" ".join(sentence.split()) for sentence in verdict)
        print(f"{name:<40} {seconds:6.1f} s  {'as it should' if not verdict else 'NOT: ' + said}", flush=True)
    if without:
        print(f"cases without claims, not run: {', '.join(without)}")
    print(f"{good} of {total} behave as they should")
    return int(good < total)


def _verdicts(cases: Path, only: frozenset[str]) -> Iterator[tuple[str, Verdict | None, float]]:
    """Run each case; yield its name, the claims that do not hold (`None`: it has no claims), and its seconds."""
    for source in sorted((cases / "inputs").iterdir()):
        if (not only or source.name in only) and source.is_dir():
            started = time.monotonic()
            verdict = INPUTS.get(source.name)
            if verdict is None:
                yield source.name, None, 0.0
                continue
            with tempfile.TemporaryDirectory() as scratch, input_case(source, Path(scratch)) as case:
                yield source.name, verdict(case), time.monotonic() - started
    for source in sorted((cases / "endpoints").iterdir()):
        if (not only or source.name in only) and source.is_dir():
            claims = endpoint_claims(source.name)
            if not claims:
                yield source.name, None, 0.0
            for claim in claims:
                started = time.monotonic()
                name = f"{source.name} {claim.variant}".strip()
                with (
                    tempfile.TemporaryDirectory() as scratch,
                    endpoint_case(source, Path(scratch), claim.environment) as case,
                ):
                    yield name, claim.verdict(case), time.monotonic() - started


if __name__ == "__main__":
    sys.exit(main())
