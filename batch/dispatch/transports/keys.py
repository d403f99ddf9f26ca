"""The key of an endpoint, which may be replaced while a run goes on."""

import asyncio
import logging
from pathlib import Path

from batch.environment import Keys
from batch.errors import Refused, SpecError

_log = logging.getLogger("batchrouter.dispatch.keys")

KEY_REFUSED = 401
"""The status with which servers refuse an expired key."""

# The shortest time between two checks of a key file, and between two runs of a command that printed the same key again.
_LOOK_SECONDS = 1.0
_HOLD_SECONDS = 10.0

# How many recent keys are masked: answers to requests that were sent with an older key may still come.
_MOST_REMEMBERED = 4


class EndpointKey:
    """A key, which is read again when its file changes and when the server refuses it.

    Attributes:
        value: the present key; `None`: the endpoint has none.
        renewable: does the key come from a file or a command, so that it may be replaced?
    """

    def __init__(self, reference: str | None, keys: Keys) -> None:
        """Read the key.

        Args:
            reference: as `access.key_reference` gives it.

        Raises:
            SpecError: there is no key under this reference.
        """
        self._reference = reference
        self._keys = keys
        self._file = Path(reference.removeprefix("file:")) if reference and reference.startswith("file:") else None
        self.renewable = self._file is not None or bool(reference and reference.startswith("command:"))
        self._lock: asyncio.Lock | None = None
        self._seen = self._state()
        self._look_at = self._ask_at = 0.0
        self.value = keys(reference) if reference is not None else None
        if reference is not None and not self.value:
            raise SpecError(f"the environment variable {reference} is not set")
        self.remembered: tuple[str, ...] = (self.value,) if self.value else ()

    async def follow_file(self) -> bool:
        """Read the key file again if it has changed; at most once a second. Returns whether the key is a new one."""
        now = asyncio.get_running_loop().time()
        if self._file is None or now < self._look_at:
            return False
        self._look_at = now + _LOOK_SECONDS
        if self._state() == self._seen:
            return False
        try:
            return await self._read_again(self.value)
        except SpecError:
            # The file is being replaced: the previous key is used until there is a new one or the server refuses it.
            return False

    async def renew(self, refused: str | None) -> bool:
        """Read the key again, because the server refused `refused`. Returns whether the key is now another one.

        If many requests are refused at once, one of them reads the key and the others wait. A source that gave the same
        key again, or failed, is not read again for ten seconds.

        Raises:
            SpecError: the file cannot be read, or the command failed.
        """
        return self.renewable and await self._read_again(refused)

    async def _read_again(self, old: str | None) -> bool:
        self._lock = self._lock or asyncio.Lock()
        async with self._lock:
            if self.value != old:
                return True
            now = asyncio.get_running_loop().time()
            seen = self._state()
            if now < self._ask_at and seen == self._seen:
                return False
            assert self._reference is not None
            # A command may take seconds, and so may a network file system.
            try:
                value = await asyncio.to_thread(self._keys, self._reference)
            except SpecError:
                # Without this, a failing command would run once for each request that was refused.
                self._ask_at = asyncio.get_running_loop().time() + _HOLD_SECONDS
                raise
            self._seen = seen
            if not value or value == old:
                self._ask_at = asyncio.get_running_loop().time() + _HOLD_SECONDS
                return False
            self.value = value
            self.remembered = (value, *self.remembered)[:_MOST_REMEMBERED]
            return True

    def _state(self) -> tuple[int, int, int] | None:
        """A value that changes when the file does, also when a link then points to another file."""
        if self._file is None:
            return None
        try:
            found = self._file.stat()
        except OSError:
            # The file is being replaced; the previous key is used until the server refuses it.
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

    def __repr__(self) -> str:
        return f"EndpointKey({'renewable' if self.renewable else 'fixed'})"


async def renewed(key: EndpointKey, refused: str | None) -> bool:
    """Read the key again. Returns whether it is another one than the server refused.

    Raises:
        Refused: there is no key, because the file cannot be read or the command failed.
    """
    try:
        another = await key.renew(refused)
    except SpecError as error:
        _log.warning("a server refused the key, and reading it again failed")
        raise Refused(f"HTTP {KEY_REFUSED}, and there is no new key: {error}", status=KEY_REFUSED) from error
    _log.info("a server refused the key; %s", "it was replaced" if another else "there is no other one")
    return another
