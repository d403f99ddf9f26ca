"""Run cases: `python -m benchmarks.limits [case ...]`; all of them by default."""

import argparse
import signal
import sys
from collections.abc import Callable

from benchmarks.limits.failing import case_dying, case_faults, case_retry_after
from benchmarks.limits.proxied import case_proxy
from benchmarks.limits.rates import case_envoy, case_nginx, case_windows
from benchmarks.limits.settings import Settings
from benchmarks.limits.tokens import case_tokens
from benchmarks.limits.unknown import case_unknown

CASES: dict[str, Callable[[Settings], None]] = {
    "nginx": case_nginx,
    "envoy": case_envoy,
    "windows": case_windows,
    "tokens": case_tokens,
    "proxy": case_proxy,
    "unknown": case_unknown,
    "retry_after": case_retry_after,
    "faults": case_faults,
    "dying": case_dying,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.limits",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="cases:\n" + "\n".join(f"  {name:<12} {case.__doc__}" for name, case in CASES.items()),
    )
    parser.add_argument("cases", nargs="*", metavar="case", help=", ".join(CASES))
    parser.add_argument("--scale", type=float, default=1.0, help="fewer rows, to see whether a case runs")
    parser.add_argument(
        "--longest-window", type=int, choices=(1, 10, 60), default=60, help="seconds; leave longer ones out"
    )
    parser.add_argument("--alone", action="store_true", help="without the peers")
    parser.add_argument("--curator", metavar="PYTHON", help="an interpreter that has bespokelabs-curator")
    given = parser.parse_args()
    unknown = [name for name in given.cases if name not in CASES]
    if unknown:
        parser.error(f"no case {unknown[0]!r}; there are {', '.join(CASES)}")
    settings = Settings(given.scale, given.longest_window, not given.alone, given.curator)
    # Ended by a signal, servers and clients are ended too.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    for name in given.cases or CASES:
        CASES[name](settings)


if __name__ == "__main__":
    main()
