"""Which files a folder or a glob means."""

import fnmatch
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow.fs

WILDCARDS = frozenset("*?[")
# Names that begin so are not data: hidden files, and what Spark, Hive and Delta write beside it (_SUCCESS, _delta_log).
_LEFT_OUT = (".", "_")

Supported = Callable[[str], bool]
"""Is the file at this path of a kind that can be read?"""


def is_left_out(name: str) -> bool:
    """Does a folder or a glob leave out what is called so? It has to be asked for by name.

    A column may be called `_hour`, so `_hour=1` is a partition, as for Spark.
    """
    return name.startswith(".") or (name.startswith("_") and "=" not in name)


def files_below(filesystem: Any, folder: str, supported: Supported) -> list[Any]:
    """Supported files at any depth, sorted by path, without what is left out."""
    selector = pyarrow.fs.FileSelector(folder, recursive=True)
    prefix = len(folder.rstrip("/")) + 1
    return sorted(
        (
            info
            for info in filesystem.get_file_info(selector)
            if info.type == pyarrow.fs.FileType.File
            and supported(info.path)
            and not any(is_left_out(part) for part in info.path[prefix:].split("/"))
        ),
        key=lambda info: str(info.path),
    )


def matches(filesystem: Any, pattern: str, supported: Supported) -> list[Any]:
    """Supported files that a glob names, sorted by path. `**` stands for any folders, also none."""
    base, wanted = split(pattern)
    if filesystem.get_file_info(base).type != pyarrow.fs.FileType.Directory:
        return []
    if goes_deep(wanted):
        found = files_below(filesystem, base, supported)
    else:
        listed = filesystem.get_file_info(pyarrow.fs.FileSelector(base))
        found = [i for i in listed if i.type == pyarrow.fs.FileType.File and supported(i.path)]
        found.sort(key=lambda info: str(info.path))
    prefix = len(base.rstrip("/")) + 1
    return [info for info in found if fits(info.path[prefix:].split("/"), wanted)]


def split(pattern: str) -> tuple[str, list[str]]:
    """The folder that a glob starts from, and the parts of its path below that."""
    parts = pattern.split("/")
    literal = next(i for i, part in enumerate(parts) if not WILDCARDS.isdisjoint(part))
    return "/".join(parts[:literal]) or "/", parts[literal:]


def goes_deep(wanted: Sequence[str]) -> bool:
    """Can a glob with these parts name files in folders below its base? Some names are left out then."""
    return len(wanted) > 1 or wanted[0] == "**"


def fits(parts: Sequence[str], wanted: Sequence[str]) -> bool:
    """Does a path match a glob, both in parts?"""
    if not wanted:
        return not parts
    if wanted[0] == "**":
        return fits(parts, wanted[1:]) or (bool(parts) and fits(parts[1:], wanted))
    if not parts or (is_left_out(parts[0]) and not wanted[0].startswith(_LEFT_OUT)):
        return False
    return fnmatch.fnmatchcase(parts[0], wanted[0]) and fits(parts[1:], wanted[1:])
