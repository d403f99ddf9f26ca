"""Compares batchrouter with other clients at rate limits and failing servers: `python -m benchmarks.limits [case ...]`.

Without names it runs all cases. Each client sends the same rows, in a process of its own, to servers of its own. The
figures come from the servers' logs, not from the clients. Each case prints a table with a line for each client; above
it stands the target that batchrouter's line is to meet. Columns that several tables share:

    used       requests or tokens that the server accepted, as a share of what its limit allowed
    refused    requests that the server refused with 429, as a share of all requests
    answered   requests that were answered with 200
    calls      all requests that reached the servers
    seconds    from the first accepted request to the last
    time       `seconds`, divided by batchrouter's
"""

import argparse
import signal
import sys
from collections.abc import Callable

from benchmarks.limits.failures import case_dying, case_faults, case_retry_after
from benchmarks.limits.proxy_limits import case_proxy
from benchmarks.limits.request_limits import case_envoy, case_nginx, case_windows
from benchmarks.limits.settings import Settings
from benchmarks.limits.token_limits import case_tokens
from benchmarks.limits.unknown_limits import case_unknown

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
    """Run the named cases, or all of them, and print their tables."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.limits",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="cases:\n" + "\n".join(f"  {name:<12} {case.__doc__}" for name, case in CASES.items()),
    )
    parser.add_argument("cases", nargs="*", metavar="case", help=", ".join(CASES))
    parser.add_argument(
        "--scale", type=float, default=1.0, help="below 1: fewer rows and shorter waits, to see whether a case runs"
    )
    parser.add_argument(
        "--longest-window", type=int, choices=(1, 10, 60), default=60, help="in seconds; longer windows are left out"
    )
    parser.add_argument("--alone", action="store_true", help="run batchrouter only, without the other clients")
    parser.add_argument(
        "--curator",
        metavar="PYTHON",
        help="a Python interpreter with bespokelabs-curator; else Curator is left out",
    )
    given = parser.parse_args()
    unknown = [name for name in given.cases if name not in CASES]
    if unknown:
        parser.error(f"no case {unknown[0]!r}; there are {', '.join(CASES)}")
    settings = Settings(given.scale, given.longest_window, not given.alone, given.curator)
    # Exits through SystemExit, so that the `with` blocks end the servers and clients.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    for name in given.cases or CASES:
        CASES[name](settings)


if __name__ == "__main__":
    main()
