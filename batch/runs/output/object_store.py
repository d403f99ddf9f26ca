"""Writes outputs to object stores, which have no rename: a file appears, whole, when it is closed, and not before."""

import ctypes
import re
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from io import RawIOBase
from pathlib import Path
from shutil import copyfileobj
from threading import Event
from typing import Any, BinaryIO, cast
from urllib.parse import parse_qsl, urlsplit

import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq

from batch.errors import BatchRouterError, SpecError, StorageError
from batch.runs.layout import Layout, is_folder
from batch.runs.manifest import read_manifest
from batch.runs.output.parts import Join, beside, joiner, suffixes
from schemas.base import Spec
from schemas.job import OutputSpec
from schemas.reaching import names_secret

MANIFEST = "_manifest.json"

# Readers of folders ignore names that begin with a dot. The name is always the same, so that at most one such file can
# be left behind.
_PROBE = ".batchrouter-probe"

# On other filesystems a file can be seen while it grows, so it is written under another name first.
_WHOLE_ONCE_CLOSED = frozenset({"s3", "gs", "gcs"})

_OURS = re.compile(r"\.?part-\d{5,}-[0-9a-f]{16}\.(errors\.jsonl|jsonl|parquet)(\.tmp)?")

_COPY_BYTES = 1 << 20

# Arrow sends in the background, and would hold a whole file in memory if the network is slower than the disk.
_UNSENT_BYTES = 16 << 20

# Parts that are uploaded at once: enough to hide the three round trips of each small one.
_AT_ONCE = 4

# A pyarrow stream that is closed or garbage-collected becomes a file with what was written so far, and pyarrow cannot
# abort it. So the stream of a failed upload gets a reference that is never given back, not even when the interpreter
# ends, since Arrow would then wait for a store that may be gone. The store never shows that file, and drops it as it
# drops that of a killed process.
_keep_for_ever = ctypes.pythonapi.Py_IncRef


class RemotePart(Spec):
    """One file of an output that is a folder."""

    name: str
    """Its file name. It contains the beginning of the hash, so that other content has another name."""
    rows: int
    """How many results are in it."""
    bytes: int
    """Its size."""
    sha256: str
    """The hash of its bytes, in hex digits."""


class RemoteManifest(Spec):
    """`_manifest.json` in an output that is a folder. Written last: once it exists, every part is there, whole."""

    job: str
    """The job's name."""
    fingerprint: str
    """The run's fingerprint, as in the report."""
    format: str
    """The format of the parts, as in the job file."""
    rows: int
    """How many results are in all parts."""
    bytes: int
    """Size of all parts."""
    parts: tuple[RemotePart, ...]
    """In the order of the input."""
    errors: tuple[RemotePart, ...] = ()
    """Parts with failures, in the same order, if the format keeps these apart."""


@dataclass(frozen=True)
class Store:
    """A folder on a pyarrow filesystem. Its methods raise what pyarrow raises."""

    filesystem: Any
    folder: str
    renames: bool
    """Does a file get its name by a rename? Otherwise it appears when it is closed."""
    stop: Event = field(default_factory=Event)
    """Once set, every write that is under way fails."""

    @contextmanager
    def writing(self, name: str) -> Iterator[BinaryIO]:
        """Yield a file to write to. When the block ends without error, it is in the folder as `name`, whole.

        If the block raises or the process is killed, an older file of that name stays as it was.
        """
        path = f"{self.folder}/{name}"
        temp = f"{self.folder}/.{name}.tmp" if self.renames else path
        stream = self.filesystem.open_output_stream(temp, compression=None)
        try:
            yield cast(BinaryIO, _BoundedStream(stream, self.stop))
        except BaseException:
            _keep_for_ever(ctypes.py_object(stream))
            raise
        stream.close()
        if self.renames:
            self.filesystem.move(temp, path)

    def sizes(self) -> dict[str, int]:
        """The size of each file in the folder, by name; empty if the folder does not exist."""
        selector = pa.fs.FileSelector(self.folder, allow_not_found=True)
        found = self.filesystem.get_file_info(selector)
        return {info.base_name: info.size for info in found if info.type == pa.fs.FileType.File}

    def remove(self, name: str) -> None:
        """Remove a file, if it exists."""
        with suppress(FileNotFoundError):
            self.filesystem.delete_file(f"{self.folder}/{name}")


def open_store(path: str) -> tuple[Store, str]:
    """The folder that an output URI names, or that its file is in; and the file's name, empty if it names a folder.

    Raises:
        SpecError: the URI contains a secret, which would be stored with the run, or it names no file.
    """
    parts = urlsplit(path)
    if parts.password is not None or any(names_secret(name) for name, _ in parse_qsl(parts.query)):
        raise SpecError("output.path: holds a password or a key, which a run directory must not; use the environment")
    filesystem, inner = pa.fs.FileSystem.from_uri(path)
    renames = parts.scheme not in _WHOLE_ONCE_CLOSED
    if parts.path.endswith("/"):
        return Store(filesystem, inner.rstrip("/"), renames), ""
    folder, _, name = inner.rpartition("/")
    if not folder:
        raise SpecError(f"output.path {path} names no file; end it with / for a folder of parts")
    return Store(filesystem, folder, renames), name


def check_store_writable(output: OutputSpec) -> None:
    """Check that the output can be written, by writing, listing and removing a small file.

    Raises:
        SpecError: it cannot be written; the message says why.
    """
    with _explained(output.path, SpecError, "see that it exists and may be written and listed"):
        store, name = open_store(output.path)
        if name and store.filesystem.get_file_info(f"{store.folder}/{name}").type == pa.fs.FileType.Directory:
            raise SpecError(f"output.path {output.path} is a folder; end it with / for a folder of parts")
        with store.writing(_PROBE) as probe:
            probe.write(b"Written by batchrouter to see whether it may. It can be deleted.\n")
        store.sizes()
        store.remove(_PROBE)


def upload(layout: Layout, shards: Sequence[int], output: OutputSpec) -> None:
    """Write the output from the committed parts of `shards`. Interrupted and called again, it writes the same bytes.

    A single file is streamed, and appears once it is whole. A folder gets parts that are named by their content, and
    then the manifest. Then parts that the manifest does not name are removed: an earlier run or a killed process left
    them.

    Raises:
        StorageError: something cannot be read or written. The answers are safe in the run directory.
    """
    with _explained(output.path, StorageError, "see to it, then rerun the same command to resume"):
        store, name = open_store(output.path)
        # In a thread, because Ctrl-C interrupts only the main one: between opening a stream and keeping it, an
        # interrupt would drop the stream, and dropping it closes it.
        with ThreadPoolExecutor(1) as thread:
            try:
                if is_folder(output):
                    thread.submit(_upload_folder, store, layout, shards, output).result()
                else:
                    thread.submit(_upload_whole, store, name, layout, shards, output).result()
            finally:
                store.stop.set()


def _upload_whole(store: Store, name: str, layout: Layout, shards: Sequence[int], output: OutputSpec) -> None:
    join = joiner(layout, shards, output)
    # Results last, so that a reader who finds them also finds the failures.
    for suffix in reversed(suffixes(output)):
        parts = [layout.part(shard, suffix) for shard in shards]
        target = beside(name, suffix, output)
        if target == name or any(part.stat().st_size for part in parts):
            with store.writing(target) as file:
                join(parts, file)
        else:
            store.remove(target)


def _upload_folder(store: Store, layout: Layout, shards: Sequence[int], output: OutputSpec) -> None:
    """Upload the parts that the store lacks, then the manifest, then remove parts that the manifest does not name."""
    join = joiner(layout, shards, output)
    there = store.sizes()

    def put(part: tuple[int, str]) -> RemotePart | None:
        shard, suffix = part
        return _upload_part(store, there, layout, shard, suffix, join)

    with ThreadPoolExecutor(_AT_ONCE) as threads:
        groups = [
            tuple(part for part in threads.map(put, [(shard, suffix) for shard in shards]) if part is not None)
            for suffix in suffixes(output)
        ]
    parts, errors = groups[0], groups[1] if len(groups) > 1 else ()
    run = read_manifest(layout)
    manifest = RemoteManifest(
        job=run.job,
        fingerprint=run.fingerprint,
        format=output.format,
        rows=sum(part.rows for part in parts),
        bytes=sum(part.bytes for part in parts),
        parts=parts,
        errors=errors,
    )
    with store.writing(MANIFEST) as file:
        file.write(manifest.model_dump_json(indent=2).encode())
    named = {part.name for part in (*parts, *errors)}
    for name in store.sizes():
        if _OURS.fullmatch(name) and name not in named:
            store.remove(name)


def _upload_part(
    store: Store, there: dict[str, int], layout: Layout, shard: int, suffix: str, join: Join
) -> RemotePart | None:
    """Upload one part, unless an earlier sitting has. Returns `None` for the failures of a shard that has none."""
    source = layout.part(shard, suffix)
    if suffix == "errors.jsonl" and not source.stat().st_size:
        return None
    with _as_uploaded(source, join) as file:
        part = _describe(file, shard, suffix)
        if there.get(part.name) != part.bytes:
            file.seek(0)
            with store.writing(part.name) as target:
                copyfileobj(file, target, _COPY_BYTES)
    return part


@contextmanager
def _as_uploaded(source: Path, join: Join) -> Iterator[BinaryIO]:
    """Yield the content of a part as it is uploaded. A Parquet part gets its typed columns here."""
    if source.suffix != ".parquet":
        with source.open("rb") as file:
            yield file
        return
    # In a temporary file, because the hash must be known before the first byte is sent.
    with tempfile.TemporaryFile(dir=source.parent) as typed:
        join([source], cast(BinaryIO, typed))
        yield cast(BinaryIO, typed)


def _describe(file: BinaryIO, shard: int, suffix: str) -> RemotePart:
    file.seek(0)
    digest, size, lines = sha256(), 0, 0
    while chunk := file.read(_COPY_BYTES):
        digest.update(chunk)
        size += len(chunk)
        lines += chunk.count(b"\n")
    rows = pq.ParquetFile(file).metadata.num_rows if suffix == "parquet" else lines
    name = f"part-{shard:05}-{digest.hexdigest()[:16]}.{suffix}"
    return RemotePart(name=name, rows=rows, bytes=size, sha256=digest.hexdigest())


class _BoundedStream(RawIOBase):
    """A pyarrow stream that waits now and then until all is sent, so that memory stays small. Does not close it."""

    def __init__(self, stream: Any, stop: Event) -> None:
        self._stream = stream
        self._stop = stop
        self._unsent = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        if self._stop.is_set():
            raise InterruptedError("the upload was stopped")
        self._stream.write(data)
        size = memoryview(data).nbytes
        self._unsent += size
        if self._unsent >= _UNSENT_BYTES:
            self._stream.flush()
            self._unsent = 0
        return size


@contextmanager
def _explained(path: str, kind: type[BatchRouterError], cure: str) -> Iterator[None]:
    """Turn errors of pyarrow and the system into one of `kind`, in one line that ends in `cure`."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        # The first line is the store's own message; some filesystems add every place in which they looked.
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise kind(f"output.path {path} cannot be written: {said}; {cure}") from error
