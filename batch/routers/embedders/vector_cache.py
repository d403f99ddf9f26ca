"""A cache of vectors on disk, so that an embedding is not paid for twice."""

import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from hashlib import blake2b
from pathlib import Path

import numpy as np

from batch.arrays import Float32s
from batch.errors import StorageError
from batch.storage.atomic import make_folder, storage_error

FILE = "embeddings.sqlite"

# How long to wait while other processes write a shard's vectors.
_PATIENCE_SECONDS = 60.0

Vector = Float32s


class VectorCache:
    """Vectors by the hash of all that they depend on, in one SQLite file that any number of processes may use.

    It holds neither texts nor keys, and only its owner may read it. Every method raises StorageError, in one line,
    where the file cannot be used.
    """

    def __init__(self, folder: Path, file: str = FILE) -> None:
        """Make the file, and its folder, where they are missing."""
        self._path = folder / file
        try:
            make_folder(folder)
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
        except OSError as error:
            raise storage_error(self._path, error, "open") from error
        with self._opened() as database:
            database.execute("CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, vector BLOB) WITHOUT ROWID")

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Vector]:
        """The vectors of those of these keys that are in the cache."""
        found = {}
        with self._opened() as database:
            for key in keys:
                row = database.execute("SELECT vector FROM vectors WHERE key = ?", (key,)).fetchone()
                if row is not None:
                    found[key] = np.frombuffer(row[0], "<f4").astype(np.float32)
        return found

    def put(self, vectors: Mapping[bytes, Vector]) -> None:
        """Store these vectors; they are on disk when this returns."""
        rows = [(key, vector.astype("<f4").tobytes()) for key, vector in vectors.items()]
        with self._opened() as database:
            database.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?)", rows)

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        """The database for one transaction. SQLite's connections belong in one thread, and must not be forked."""
        try:
            with closing(sqlite3.connect(self._path, timeout=_PATIENCE_SECONDS)) as database, database:
                yield database
        except sqlite3.Error as error:
            raise StorageError(f"cannot use {self._path}: {error}; it may be deleted") from error


def key_of(model: str, dimensions: int | None, text: str) -> bytes:
    """The key of a vector in the cache: a hash of 32 bytes over everything that the vector depends on."""
    size = b"" if dimensions is None else b"%d" % dimensions
    return blake2b(b"\0".join((model.encode(), size, text.encode())), digest_size=32).digest()
