"""Finds the files that an input names, and opens them."""

import os
import posixpath
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal
from urllib.parse import quote, unquote, urlsplit

import pyarrow as pa
import pyarrow.fs

from batch.errors import InputError
from batch.reading.folders.hugging_face import dataset_files
from batch.reading.folders.listing import (
    WILDCARDS,
    files_below,
    is_recursive,
    is_skipped,
    matches,
    matches_glob,
    split_glob,
)
from batch.reading.folders.partitions import Partition, Value, partition_of, with_types
from batch.reading.folders.unread_files import FileFact, unread_notes
from schemas.job import InputSpec

Format = Literal["jsonl", "json", "parquet", "csv", "arrow"]

FORMATS: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".jsonlines": "jsonl",
    ".json": "json",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
    ".csv": "csv",
    ".tsv": "csv",
}
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}
SUPPORTED = ".jsonl, .json, .csv or .tsv (also with .gz, .zst or .bz2), .parquet, .arrow"
# These formats are read at any offset, so they compress inside the file and are never gzipped as a whole.
_NEVER_PACKED = ("parquet", "arrow")


@dataclass(frozen=True, slots=True)
class Source:
    """One input file."""

    location: str
    """Absolute local path, or URI."""

    name: str
    """Its name in ids and messages: the basename, with as many folders as distinguish it from other sources."""

    format: Format
    """How its rows are written."""

    compression: str | None
    """`gzip`, `zstd`, `bz2` or `None`."""

    size: int
    """Bytes, as stored."""

    mtime_ns: int | None
    """Time of the last change, in nanoseconds since the epoch; `None` if the store does not report it."""

    is_stream: bool = False
    """True for standard input and named pipes, which can be read only once and are copied (`formats.stream_copies`)."""

    spooled: str | None = None
    """File name of that copy in the spool."""

    partition: tuple[tuple[str, Value], ...] = ()
    """Columns and values that the names of its folders give to each of its rows."""

    notes: tuple[FileFact, ...] = ()
    """Notes on files beside it that are not read; the first file of a folder has them."""


def find_sources(spec: InputSpec, key: str = "input.path") -> list[Source]:
    """List the files that `spec.path` names: the items of a list in their order, folders and globs sorted by path.

    A file that is named twice is read once.

    Args:
        key: the job file's key for `spec.path`, for messages.

    Raises:
        InputError: a path does not exist, a glob or folder has no supported file, or a file is of an unknown kind.
    """
    paths = (spec.path,) if isinstance(spec.path, str) else spec.path
    if not paths:
        raise InputError(f"{key}: the list is empty; name at least one file")
    found = {source.location: (source, partition) for path in paths for source, partition in _expand(path, key)}
    partitions = with_types([partition for _, partition in found.values()])
    return _named([replace(s, partition=p) for (s, _), p in zip(found.values(), partitions, strict=True)])


def fingerprint_sources(sources: Sequence[Source]) -> list[dict[str, Any]]:
    """Return path, size and mtime_ns of every input file, in reading order: equal as long as the input is unchanged.

    If the names of folders give columns, `partition` holds them by name.
    """
    return [
        {"path": s.location, "size": s.size, "mtime_ns": s.mtime_ns}
        | ({"partition": dict(s.partition)} if s.partition else {})
        for s in sources
    ]


def input_matching(spec: InputSpec, path: str) -> str | None:
    """Return the item of `spec.path` that would read a file at `path`, even if that file does not exist yet.

    `None` if no item would. This makes no request to an object store: for these, a name with a wildcard counts as a
    pattern.
    """
    store, inner = _place(path)
    place = _resolved(store, inner)
    asked = (spec.path,) if isinstance(spec.path, str) else spec.path
    return next((one for one in asked if _takes_in(one, store, place)), None)


def _takes_in(asked: str, store: str, place: str) -> bool:
    asked_store, folder = _place(asked)
    if asked_store != store:
        return False
    if place == _resolved(store, folder):
        return True
    if _format(place) is None:
        return False
    wanted = ["**"]
    # As in reading: if a file or folder has exactly this name, the name is not a pattern.
    if not WILDCARDS.isdisjoint(folder) and (store or not os.path.exists(folder)):  # noqa: PTH110
        folder, wanted = split_glob(folder)
    root = _resolved(store, folder).rstrip("/") + "/"
    inside = place.removeprefix(root).split("/")
    if not place.startswith(root) or (is_recursive(wanted) and any(is_skipped(part) for part in inside)):
        return False
    return matches_glob(inside, wanted)


def _place(path: str) -> tuple[str, str]:
    """Return the store that holds a path (empty text for this machine) and the path within the store."""
    if "://" not in path:
        return "", _absolute(path)
    parts = urlsplit(path)
    if parts.scheme == "file":
        return "", unquote(parts.path)
    # `gcs` and `gs` name the same store.
    scheme = "gs" if parts.scheme == "gcs" else parts.scheme
    return scheme, (parts.hostname or "") + unquote(parts.path)


def _resolved(store: str, path: str) -> str:
    return path.rstrip("/") if store else os.path.realpath(path)


@contextmanager
def input_errors(name: str, key: str = "input.path") -> Iterator[None]:
    """Turn an error of reading `name`, which the job file's `key` names, into an InputError of one line."""
    try:
        yield
    except FileNotFoundError as error:
        raise InputError(f"{name}: no such file; check {key}") from error
    except PermissionError as error:
        raise InputError(f"{name}: may not be read; check its permissions") from error
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{name}: cannot be read: {' '.join(str(error).split())}") from error


def is_local(location: str) -> bool:
    """Is this a file of this machine, which other machines may not see?"""
    return "://" not in location or location.startswith("file://")


def local_path(location: str) -> str:
    """The path of a file of this machine."""
    return filesystem_of(location)[1]


def filesystem_of(location: str) -> tuple[Any, str]:
    """The pyarrow filesystem of a location, and the path within it."""
    if "://" not in location:
        return pa.fs.LocalFileSystem(), location
    filesystem, path = pa.fs.FileSystem.from_uri(location)
    return filesystem, path


def open_file(location: str) -> Any:
    """Open a file as a seekable pyarrow file. Raises pyarrow's errors."""
    filesystem, path = filesystem_of(location)
    return filesystem.open_input_file(path)


def open_stream(location: str, compression: str | None) -> Any:
    """Open a pyarrow stream of the file's decompressed bytes. Raises pyarrow's errors."""
    filesystem, path = filesystem_of(location)
    return filesystem.open_input_stream(path, compression=compression)


def _expand(path: str, key: str) -> Iterator[tuple[Source, Partition]]:
    """Yield the files of one path, glob, folder or URI, each with the columns that its folders' names give."""
    if "://" in path and urlsplit(path).password is not None:
        raise InputError(f"{key}: holds a password, which a run directory must not; use the environment")
    if path.lower().startswith(("http://", "https://")):
        raise InputError(f"{path}: {key} takes no web addresses; download the file first, or pipe it into /dev/stdin")
    if _is_stream(path):
        yield Source(path, posixpath.basename(path), "jsonl", None, 0, None, is_stream=True), ()
        return
    notes: tuple[FileFact, ...] = ()
    with input_errors(path, key):
        filesystem, inner = filesystem_of(path if "://" in path else _absolute(path))
        kind = filesystem.get_file_info(inner).type
        if kind == pa.fs.FileType.File:
            if _format(inner) is None:
                raise InputError(f"{path}: unknown kind of file; {key} takes {SUPPORTED}")
            infos = [filesystem.get_file_info(inner)]
            root = posixpath.dirname(inner)
        elif kind == pa.fs.FileType.Directory:
            infos, notes = _files_of(filesystem, inner)
            root = inner
            if not infos:
                raise InputError(
                    f"{path}: no supported file in this folder, without names that begin with . or _; "
                    f"{key} takes {SUPPORTED}"
                )
        elif WILDCARDS.isdisjoint(inner):
            raise InputError(f"{path}: no such file; check {key}")
        else:
            infos = matches(filesystem, inner, _is_any)
            root, wanted = split_glob(inner)
            infos, notes = _sorted_out(infos, all_json=".json" in wanted[-1].lower().replace(".jsonl", ""))
            if not infos:
                raise InputError(
                    f"{path}: no supported file matches; {_brackets_hint(filesystem, inner)}{key} takes {SUPPORTED}"
                )
    for info in infos:
        compression = COMPRESSIONS.get(posixpath.splitext(info.path)[1].lower())
        file_format = _format(info.path)
        assert file_format is not None
        location = _location(path, inner, info.path)
        source = Source(location, info.base_name, file_format, compression, info.size or 0, info.mtime_ns)
        source, notes = replace(source, notes=notes), ()
        yield source, partition_of(root, info.path[len(root.rstrip("/")) + 1 :])


def _brackets_hint(filesystem: Any, inner: str) -> str:
    """The hint for a pattern whose brackets are meant literally, because a file or folder has them in its name."""
    parts = inner.split("/")
    for index, part in enumerate(parts):
        here = "/".join(parts[: index + 1])
        if "[" in part and filesystem.get_file_info(here).type != pa.fs.FileType.NotFound:
            plain = part.replace("[", "[[]")
            return f"brackets stand for one of the characters in them, and a name has them itself: write {plain}; "
        if not WILDCARDS.isdisjoint(part):
            break
    return ""


def _is_stream(path: str) -> bool:
    if "://" in path:
        return False
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116 - what is found here is looked up by its text everywhere else
    except (OSError, ValueError):
        return path == "/dev/stdin"
    return path == "/dev/stdin" or stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) or stat.S_ISSOCK(mode)


def _files_of(filesystem: Any, folder: str) -> tuple[list[Any], tuple[FileFact, ...]]:
    """Return the files of a folder that are read, and notes on those that are not."""
    saved = dataset_files(filesystem, folder)
    if saved is None:
        return _sorted_out(files_below(filesystem, folder, _is_any), all_json=False)
    infos = [filesystem.get_file_info(path) for path in saved]
    gone = next((info for info in infos if info.type != pa.fs.FileType.File or not _is_supported(info.path)), None)
    if gone is not None:
        raise InputError(f"{gone.path}: a file of the dataset is missing; save the dataset again")
    return infos, ()


def _sorted_out(infos: list[Any], *, all_json: bool) -> tuple[list[Any], tuple[FileFact, ...]]:
    """Return the files that are read, and notes on those that are not.

    A .json file beside files of other formats describes them (dataset_info.json, config.json) and is not read, unless
    `all_json`.
    """
    supported = [info for info in infos if _is_supported(info.path)]
    others = [info for info in supported if _format(info.path) != "json"]
    read = supported if all_json else others or supported
    described = [info.path for info in supported if _format(info.path) == "json"] if read is others else []
    return read, unread_notes(described, (info.path for info in infos if not _is_supported(info.path)))


def _is_any(path: str) -> bool:
    return True


def _absolute(path: str) -> str:
    # Tasks in other processes have other working directories. `Path.resolve` would also follow links.
    return os.path.abspath(path)  # noqa: PTH100


def has_tabs(name: str) -> bool:
    """Does the file's name say that tabs separate its columns?"""
    stem, extension = posixpath.splitext(name.lower())
    return (posixpath.splitext(stem)[1] if extension in COMPRESSIONS else extension) == ".tsv"


def _is_supported(path: str) -> bool:
    return _format(path) is not None


def _format(path: str) -> Format | None:
    stem, extension = posixpath.splitext(path)
    if extension.lower() not in COMPRESSIONS:
        return FORMATS.get(extension.lower())
    inner = FORMATS.get(posixpath.splitext(stem)[1].lower())
    return None if inner in _NEVER_PACKED else inner


def _location(asked: str, inner: str, found: str) -> str:
    """Return the URI of `found`, a path within the filesystem in which the URI `asked` has the path `inner`.

    >>> _location("s3://bucket/a/*.csv?region=eu", "bucket/a/*.csv", "bucket/a/b c.csv")
    's3://bucket/a/b%20c.csv?region=eu'
    """
    if "://" not in asked:
        return found
    # In a URI `?` starts the query, so it is not a wildcard.
    address, question, query = asked.partition("?")
    root = unquote(address).rstrip("/").removesuffix(inner.rstrip("/"))
    return f"{root}{quote(found)}{question}{query}"


def _named(sources: list[Source]) -> list[Source]:
    """Lengthen the names of files that share a basename until they differ."""
    times = Counter(source.name for source in sources)
    alike = [source.location.split("/") for source in sources if times[source.name] > 1]
    if not alike:
        return sources
    shared = 0
    while len({tuple(parts[: shared + 1]) for parts in alike}) == 1:
        shared += 1
    return [replace(s, name="/".join(s.location.split("/")[shared:])) if times[s.name] > 1 else s for s in sources]
