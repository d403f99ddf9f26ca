"""How many files this process may have open, and how many of them connections may take."""

import resource
from contextlib import suppress
from pathlib import Path

# Files that are opened besides connections and journals: the input, parts, name look-ups, the event loop's own.
_RESERVED = 48
# The share of the remaining files that connections may take. Journals take the rest: each shard in progress has one per
# model.
_CONNECTIONS = 2 / 3
# Some systems refuse an unlimited soft limit; no run needs more than this.
_MOST = 1 << 20


def raise_limit() -> None:
    """Raise this process's soft limit of open files to its hard one; child processes inherit it.

    Shells commonly set 1,024, while the hard limit is many times more. If the system refuses, the limit stays as it is.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST if hard == resource.RLIM_INFINITY else min(hard, _MOST)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def connections(endpoints: int) -> int | None:
    """How many connections each of this many endpoints may have, so that the process never runs out of open files.

    At least one; `None`: there is no limit.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return None
    left = soft - len(list(Path("/dev/fd").iterdir())) - _RESERVED
    return max(1, int(left * _CONNECTIONS) // max(1, endpoints))


def note(each: int) -> str:
    """A line for the report of a run that this limit held back: how many requests each endpoint was sent at once."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return (
        f"this process may open {soft:,} files (`ulimit -n`), so each endpoint was sent at most {each:,} requests at "
        "once; a higher limit allows more"
    )
