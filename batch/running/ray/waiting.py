"""Waiting for work on Ray: never without a look at whether Ray is still there."""

from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError

from batch.errors import DispatcherDied, StorageError
from batch.running.ray.watch import NodeWatch, lives

# After so long comes a look at whether Ray is still there.
_LOOK_SECONDS = 1.0
# Ray tells of a process's death within a second, or never.
_MOST_LOOKS_AT_THE_DEAD = 10


def value(watch: NodeWatch, handle: Any, process: int | None = None) -> Any:
    """The value, or the error that the work itself raised.

    Args:
        process: does the work, on this machine; `None`: nobody knows which one will.

    Raises:
        StorageError: Ray could not have it done, not even by trying again; or Ray's own processes have died.
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
        # Where Ray's own processes died, what it says of the work is only what follows from that.
        watch.check(now=True)
        if isinstance(error, RayActorError):
            raise
        raise lost(error) from error


def lost(error: RayError) -> StorageError:
    said = str(error).strip().partition("\n")[0]
    return StorageError(f"Ray lost work that was under way: {said}; the same command goes on")
