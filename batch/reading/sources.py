"""Which files an input names, and how each is opened."""

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
from batch.reading.folders.beside import FileFact, facts_of
from batch.reading.folders.hugging_face import dataset_files
from batch.reading.folders.listing import WILDCARDS, files_below, fits, goes_deep, is_left_out, matches, split
from batch.reading.folders.partitions import Partition, Value, partition_of, typed
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
# These are read at any place in them, so compression is within them and not around them.
_NEVER_PACKED = ("parquet", "arrow")


@dataclass(frozen=True, slots=True)
class Source:
    """One input file."""

    location: str
    """Absolute local path, or URI."""

    name: str
    """What ids and messages call it: its basename, and as much of its folder as tells it from the others."""

    format: Format
    """How its rows are written."""

    compression: str | None
    """`gzip`, `zstd`, `bz2` or none."""

    size: int
    """Bytes, as stored."""

    mtime_ns: int | None
    """Last change, nanoseconds since the epoch; `None` where the store does not say."""

    is_stream: bool = False
    """Can it be read only once, as standard input and named pipes? It is copied then (`formats.stream_copies`)."""

    spooled: str | None = None
    """File name of that copy in the spool."""

    partition: tuple[tuple[str, Value], ...] = ()
    """Columns that its folders' names give to each of its rows."""

    notes: tuple[FileFact, ...] = ()
    """What a reader should know of the files beside it; the first file of a folder has them."""


def find_sources(spec: InputSpec, key: str = "input.path") -> list[Source]:
    """List the files that `spec.path` names: a list in its order, folders and globs sorted by path.

    A file named twice is read once. `key` is what the user calls `spec.path`, for messages. Raises InputError for
    a path that is not there, a glob or folder without a supported file, and a file of an unknown kind.
    """
    paths = (spec.path,) if isinstance(spec.path, str) else spec.path
    if not paths:
        raise InputError(f"{key}: the list is empty; name at least one file")
    found = {source.location: (source, partition) for path in paths for source, partition in _expand(path, key)}
    partitions = typed([partition for _, partition in found.values()])
    return _named([replace(s, partition=p) for (s, _), p in zip(found.values(), partitions, strict=True)])


def fingerprint_sources(sources: Sequence[Source]) -> list[dict[str, Any]]:
    """Path, size and mtime_ns of every input file, in reading order: equal as long as the input is the same.

    Where folders give columns, `partition` has them by name.
    """
    return [
        {"path": s.location, "size": s.size, "mtime_ns": s.mtime_ns}
        | ({"partition": dict(s.partition)} if s.partition else {})
        for s in sources
    ]


def input_matching(spec: InputSpec, path: str) -> str | None:
    """The one of `spec.path` that reads a file at `path`, whether or not it is there yet; `None`: none does.

    Asks no object store: there, what has a wildcard in its name is taken for a pattern.
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
    # As in reading: what is there by this very name is no pattern.
    if not WILDCARDS.isdisjoint(folder) and (store or not os.path.exists(folder)):  # noqa: PTH110
        folder, wanted = split(folder)
    root = _resolved(store, folder).rstrip("/") + "/"
    inside = place.removeprefix(root).split("/")
    if not place.startswith(root) or (goes_deep(wanted) and any(is_left_out(part) for part in inside)):
        return False
    return fits(inside, wanted)


def _place(path: str) -> tuple[str, str]:
    """Which store a path is on, nothing for this machine, and the path within it."""
    if "://" not in path:
        return "", _absolute(path)
    parts = urlsplit(path)
    if parts.scheme == "file":
        return "", unquote(parts.path)
    # Two names for one store.
    scheme = "gs" if parts.scheme == "gcs" else parts.scheme
    return scheme, (parts.hostname or "") + unquote(parts.path)


def _resolved(store: str, path: str) -> str:
    return path.rstrip("/") if store else os.path.realpath(path)


@contextmanager
def reading(name: str, key: str = "input.path") -> Iterator[None]:
    """Turn what goes wrong while reading `name`, which `key` led to, into a one-line InputError."""
    try:
        yield
    except FileNotFoundError as error:
        raise InputError(f"{name}: no such file; check {key}") from error
    except PermissionError as error:
        raise InputError(f"{name}: may not be read; check its permissions") from error
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{name}: cannot be read: {' '.join(str(error).split())}") from error


def is_local(location: str) -> bool:
    """Is this a file of this machine, that another one need not see?"""
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
    """A seekable pyarrow file. Raises what pyarrow raises."""
    filesystem, path = filesystem_of(location)
    return filesystem.open_input_file(path)


def open_stream(location: str, compression: str | None) -> Any:
    """A pyarrow stream of the file's decompressed bytes. Raises what pyarrow raises."""
    filesystem, path = filesystem_of(location)
    return filesystem.open_input_stream(path, compression=compression)


def _expand(path: str, key: str) -> Iterator[tuple[Source, Partition]]:
    """The files of one path, glob, folder or URI, each with the columns in its folders' names."""
    if "://" in path and urlsplit(path).password is not None:
        raise InputError(f"{key}: holds a password, which a run directory must not; use the environment")
    if path.lower().startswith(("http://", "https://")):
        raise InputError(f"{path}: {key} takes no web addresses; download the file first, or pipe it into /dev/stdin")
    if _is_stream(path):
        yield Source(path, posixpath.basename(path), "jsonl", None, 0, None, is_stream=True), ()
        return
    notes: tuple[FileFact, ...] = ()
    with reading(path, key):
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
            root, wanted = split(inner)
            infos, notes = _sorted_out(infos, all_json=".json" in wanted[-1].lower().replace(".jsonl", ""))
            if not infos:
                raise InputError(
                    f"{path}: no supported file matches; {_brackets(filesystem, inner)}{key} takes {SUPPORTED}"
                )
    for info in infos:
        compression = COMPRESSIONS.get(posixpath.splitext(info.path)[1].lower())
        file_format = _format(info.path)
        assert file_format is not None
        location = _location(path, inner, info.path)
        source = Source(location, info.base_name, file_format, compression, info.size or 0, info.mtime_ns)
        source, notes = replace(source, notes=notes), ()
        yield source, partition_of(root, info.path[len(root.rstrip("/")) + 1 :])


def _brackets(filesystem: Any, inner: str) -> str:
    """What to say where a pattern has brackets that are meant literally: a folder or file is called just so."""
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
    """The files of a folder that are read, and what to say of the others."""
    saved = dataset_files(filesystem, folder)
    if saved is None:
        return _sorted_out(files_below(filesystem, folder, _is_any), all_json=False)
    infos = [filesystem.get_file_info(path) for path in saved]
    gone = next((info for info in infos if info.type != pa.fs.FileType.File or not _is_supported(info.path)), None)
    if gone is not None:
        raise InputError(f"{gone.path}: a file of the dataset is missing; save the dataset again")
    return infos, ()


def _sorted_out(infos: list[Any], *, all_json: bool) -> tuple[list[Any], tuple[FileFact, ...]]:
    """The files that are read, and what to say of the others.

    Beside files of other kinds, a .json file describes them (dataset_info.json, config.json) and holds no rows, unless
    `all_json`.
    """
    supported = [info for info in infos if _is_supported(info.path)]
    others = [info for info in supported if _format(info.path) != "json"]
    read = supported if all_json else others or supported
    described = [info.path for info in supported if _format(info.path) == "json"] if read is others else []
    return read, facts_of(described, (info.path for info in infos if not _is_supported(info.path)))


def _is_any(path: str) -> bool:
    return True


def _absolute(path: str) -> str:
    # Tasks in other processes have other working directories. `Path.resolve` would also follow links.
    return os.path.abspath(path)  # noqa: PTH100


def has_tabs(name: str) -> bool:
    """Does the name of a file say that tabs are between its columns?"""
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
    """The address of `found`, a path within the filesystem where `asked` is `inner`.

    >>> _location("s3://bucket/a/*.csv?region=eu", "bucket/a/*.csv", "bucket/a/b c.csv")
    's3://bucket/a/b%20c.csv?region=eu'
    """
    if "://" not in asked:
        return found
    # In a URI `?` starts the query, so it is no wildcard there.
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
