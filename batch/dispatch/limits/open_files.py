"""How many files this process may have open, and how many of them connections may take."""

import resource
from contextlib import suppress
from pathlib import Path

# What is opened besides connections and journals: the input, parts, names being looked up, the event loop's own.
_RESERVED = 48
# Of what is left connections take this share. The others are journals: each shard that is under way has one per model.
_CONNECTIONS = 2 / 3
# Some systems refuse "as many as you like" for a soft limit; no run needs more than this.
_MOST = 1 << 20


def raise_limit() -> None:
    """Raise this process's soft limit of open files to its hard one; what it starts inherits that.

    Shells commonly give 1,024 of what may be many times more. Where that is refused, the limit stays as it is.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST if hard == resource.RLIM_INFINITY else min(hard, _MOST)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def connections(endpoints: int) -> int | None:
    """How many connections each of so many endpoints may have, for the process never to run out of open files.

    At least one; `None`: there is no limit.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return None
    left = soft - len(list(Path("/dev/fd").iterdir())) - _RESERVED
    return max(1, int(left * _CONNECTIONS) // max(1, endpoints))


def note(each: int) -> str:
    """Says how many requests an endpoint was sent at once, for a run that this limit held back."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return (
        f"this process may open {soft:,} files (`ulimit -n`), so each endpoint was sent at most {each:,} requests at "
        "once; a higher limit allows more"
    )
