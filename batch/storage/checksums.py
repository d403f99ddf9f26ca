"""Size and CRC-32 of files, taken while they are written and compared before they are trusted.

CRC-32 because it is free: 3.9 GB/s on one core, where BLAKE2b does 0.9. It is against disks, not against forgers.
"""

import io
from pathlib import Path
from typing import IO, Any, NamedTuple
from zlib import crc32

from batch.storage.atomic import storage_error

_BUFFER_BYTES = 1 << 20


class Checksum(NamedTuple):
    """What a file must be; as JSON a list of both."""

    size: int
    """Bytes."""
    crc: int
    """CRC-32 of all of them."""


class CheckedWriter(io.BufferedWriter):
    """A new file that knows the checksum of what was written to it. It is only appended to: do not seek."""

    def __init__(self, path: Path) -> None:
        """Open `path` for writing; raises OSError, as every write may."""
        self._counted = _CountedFile(path, "wb")
        super().__init__(self._counted, _BUFFER_BYTES)

    @property
    def checksum(self) -> Checksum:
        """Of all that was written so far; also after closing."""
        if not self.closed:
            self.flush()
        return Checksum(self._counted.size, self._counted.crc)


class _CountedFile(io.FileIO):
    """The raw file beneath: it sees the bytes in large pieces."""

    size = 0
    crc = 0

    def write(self, data: Any) -> int:
        written = super().write(data)
        self.crc = crc32(memoryview(data)[:written], self.crc)
        self.size += written
        return written


def checksum_of(file: IO[bytes]) -> Checksum:
    """The checksum of what is left to read of `file`, in constant memory. Raises OSError."""
    size = crc = 0
    while chunk := file.read(_BUFFER_BYTES):
        size += len(chunk)
        crc = crc32(chunk, crc)
    return Checksum(size, crc)


def matches(path: Path, expected: Checksum) -> bool:
    """Is this file there and as it was written? Reads all of it, unless its size says no already.

    Raises:
        StorageError: the disk fails.
    """
    try:
        if path.stat().st_size != expected.size:
            return False
        with path.open("rb", buffering=0) as file:
            return checksum_of(file) == expected
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise storage_error(path, error, "read") from error
