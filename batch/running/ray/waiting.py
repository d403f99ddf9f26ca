"""Waits for results of Ray, and checks meanwhile that Ray's own processes are alive."""

from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError

from batch.errors import DispatcherDied, StorageError
from batch.running.ray.watch import NodeWatch, lives

# Seconds between two checks that Ray is alive.
_LOOK_SECONDS = 1.0
# Ray reports the death of a process within a second, or never.
_MOST_LOOKS_AT_THE_DEAD = 10


def value(watch: NodeWatch, handle: Any, process: int | None = None) -> Any:
    """Wait for a result and return it, or raise the error that the work itself raised.

    Args:
        process: the number of the process on this machine that does the work; `None`: unknown.

    Raises:
        StorageError: Ray lost the work even after its retries, or Ray's own processes have died.
        RayActorError: the actor is gone.
    """
    looks_at_the_dead = 0
    try:
        while looks_at_the_dead < _MOST_LOOKS_AT_THE_DEAD:
            watch.check()
            with suppress(GetTimeoutError):
                return ray.get(handle, timeout=_LOOK_SECONDS)
            looks_at_the_dead += process is not None and not lives(process)
        raise DispatcherDied("the dispatcher's process died, and Ray did not notice")
    except RayTaskError as error:
        cause = error.cause
        if isinstance(cause, Exception) and not isinstance(cause, RayTaskError):
            raise cause from None
        raise
    except RayError as error:
        # If Ray's own processes have died, that is the cause, and this error only follows from it.
        watch.check(now=True)
        if isinstance(error, RayActorError):
            raise
        raise lost(error) from error


def lost(error: RayError) -> StorageError:
    """The error to raise when Ray has lost work that was under way."""
    said = str(error).strip().partition("\n")[0]
    return StorageError(f"Ray lost work that was under way: {said}; rerun the same command to resume")
