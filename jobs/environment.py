"""Environment variables, clock and signals of this process. Nothing else reads them for the engine."""

import logging
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from types import FrameType

from batch.environment import Environment

# As `Exit.STOPPED` of the command line.
_STOPPED = 3

# By default these libraries call the network, send telemetry, print at import, or keep freed memory: Arrow 60 MiB over
# the processes of a run on Ray.
_QUIET = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "true",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
}


def set_library_defaults() -> None:
    """Set variables that keep libraries quiet and local; those that the user has set stay."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    root_logger()


def root_logger() -> logging.Logger:
    """The parent of all our loggers, with at least one handler: without any, Python would print warnings on stderr."""
    logger = logging.getLogger("batchrouter")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    return logger


def settled_environment() -> dict[str, str]:
    """The variables of `set_library_defaults` with their values, for processes that do not inherit them."""
    return {name: os.environ[name] for name in _QUIET}


def settle_ray_token() -> None:
    """Give the processes of a local cluster a token to authenticate each other, unless the user has configured one.

    Ray would write its own token into the home folder, which may be missing or read-only. An existing token is used.
    """
    if any(os.environ.get(name) for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")):
        return
    if not os.access(os.path.expanduser("~/.ray/auth_token"), os.R_OK):  # noqa: PTH111  Path.home raises without a home
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def ray_folders() -> tuple[str, ...]:
    """Folders where a local Ray cluster may keep its sockets and logs, the best first."""
    asked = (os.environ.get(name) for name in ("RAY_TMPDIR", "TMPDIR"))
    here = os.environ.get("XDG_RUNTIME_DIR")
    return tuple(place for place in (*asked, "/tmp", here, "/var/tmp", "/dev/shm") if place)  # noqa: S108


def end_process(reason: str | None) -> None:
    """Print the reason and end this process at once, with the exit status of a run that can be resumed.

    Called when Ray's processes have died, after which a call into Ray may never return.

    Args:
        reason: `None` if it has been printed already.
    """
    # The thread that hangs may hold the locks of the standard streams.
    with suppress(OSError):
        if reason is not None:
            os.write(2, f"batchrouter: {reason}\n".encode())
        else:
            sys.stdout.flush()
            sys.stderr.flush()
    os._exit(_STOPPED)


def key(name: str) -> str | None:
    """The value of an environment variable, or the key that a `file:` or `command:` reference leads to.

    Specs and messages between processes hold such references only, never a key.

    Raises:
        SpecError: the file cannot be read, or the command failed.
    """
    if name.startswith(("file:", "command:")):
        from jobs.key_sources import key_from

        return key_from(name)
    return os.environ.get(name)


wall_clock = time.time
monotonic = time.monotonic
pause = time.sleep

ENVIRONMENT = Environment(key, wall_clock)
"""Keys and wall clock of this process."""


def now() -> datetime:
    """The date and time, in UTC."""
    return datetime.now(UTC)


@contextmanager
def interrupts(drain: Callable[[], None]) -> Iterator[None]:
    """Call `drain` on the first Ctrl-C, SIGTERM or closing of the terminal; the second one raises KeyboardInterrupt."""
    asked = False

    def on_signal(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        drain()

    heard = [signal.SIGINT, signal.SIGTERM]
    # Under nohup the run must outlive its terminal.
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        heard.append(signal.SIGHUP)
    before = {number: signal.signal(number, on_signal) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def block_sighup() -> Iterator[None]:
    """Block SIGHUP, which a closing terminal sends to its foreground processes, for child processes of the block.

    They inherit the blocked signal and so outlive the terminal. This process gets the signal when the block ends.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
