"""Size and CRC-32 of files, computed while they are written and compared before they are used.

CRC-32 because it costs next to nothing: 3.9 GB/s on one core, where BLAKE2b does 0.9. It guards against bad disks, not
against forgery.
"""

import io
from pathlib import Path
from typing import IO, Any, NamedTuple
from zlib import crc32

from batch.storage.atomic import storage_error

_BUFFER_BYTES = 1 << 20


class Checksum(NamedTuple):
    """What a file must be. Stored as a JSON list of both numbers."""

    size: int
    """Bytes."""
    crc: int
    """CRC-32 of all its bytes."""


class CheckedWriter(io.BufferedWriter):
    """A new file that computes the checksum of what is written to it. Do not seek in it."""

    def __init__(self, path: Path) -> None:
        """Open `path` for writing. Raises OSError, as every write may."""
        self._counted = _CountedFile(path, "wb")
        super().__init__(self._counted, _BUFFER_BYTES)

    @property
    def checksum(self) -> Checksum:
        """The checksum of what was written so far; also available after closing."""
        if not self.closed:
            self.flush()
        return Checksum(self._counted.size, self._counted.crc)


class _CountedFile(io.FileIO):
    """The raw file beneath the buffer, which gets the bytes in large pieces."""

    size = 0
    crc = 0

    def write(self, data: Any) -> int:
        written = super().write(data)
        self.crc = crc32(memoryview(data)[:written], self.crc)
        self.size += written
        return written


def checksum_of(file: IO[bytes]) -> Checksum:
    """The checksum of the rest of `file`, which is read in constant memory. Raises OSError."""
    size = crc = 0
    while chunk := file.read(_BUFFER_BYTES):
        size += len(chunk)
        crc = crc32(chunk, crc)
    return Checksum(size, crc)


def matches(path: Path, expected: Checksum) -> bool:
    """Does this file exist, and does it have this checksum? Reads all of it, unless its size differs already.

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
