"""Sealed files: small JSON objects that begin with a checksum, so that a damaged file is never taken for a sound one.

    {"crc":"1c291ca3","rows":7,...}

The checksum is over the file's place in the run directory and everything after the checksum's comma. So a file that
was swapped with another one counts as damaged too. Files of older versions have no checksum and are read as they are.
"""

from pathlib import Path
from zlib import crc32

from batch.errors import DamagedError
from batch.storage.atomic import read_bytes, write_bytes

_MARK = b'{"crc":"'
_PREFIX = _MARK + b'%08x",'
_START = len(_PREFIX % 0)


def write_sealed(path: Path, place: str, body: bytes) -> None:
    """Store a JSON object with its checksum, atomically. The object must have at least one key.

    Args:
        path: the file.
        place: its path within the run directory, which may be moved.

    Raises:
        StorageError: it cannot be written.
    """
    write_bytes(path, sealed(place, body))


def read_sealed(path: Path, place: str) -> bytes | None:
    """The JSON object that was stored; `None` if there is no such file.

    Raises:
        DamagedError: the file is not what was written.
        StorageError: the disk fails.
    """
    data = read_bytes(path)
    return None if data is None else unsealed(path, place, data)


def sealed(place: str, body: bytes) -> bytes:
    """The JSON object `body` with the checksum in front. Inverse of `unsealed`."""
    rest = body.removeprefix(b"{")
    return _PREFIX % _crc(place, rest) + rest


def unsealed(path: Path, place: str, data: bytes) -> bytes:
    """The JSON object that `sealed` was given. Raises DamagedError if the checksum is wrong."""
    if not data.startswith(_MARK):
        return data
    rest = data[_START:]
    if not data.startswith(_PREFIX % _crc(place, rest)):
        raise DamagedError(f"{path} is damaged: its checksum is wrong", path=str(path))
    return b"{" + rest


def _crc(place: str, rest: bytes) -> int:
    return crc32(rest, crc32(place.encode() + b"\0"))
