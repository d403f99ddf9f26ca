"""Lists the files of a folder or a glob."""

import fnmatch
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow.fs

WILDCARDS = frozenset("*?[")
# First characters of names that are not data: hidden files, and files that Spark, Hive and Delta write beside data
# (_SUCCESS, _delta_log).
_LEFT_OUT = (".", "_")

Supported = Callable[[str], bool]
"""Returns whether the file at a path has a format that can be read."""


def is_skipped(name: str) -> bool:
    """Do folders and globs leave out files and folders of this name? They are read only if the user names them.

    A column may be called `_hour`, so `_hour=1` is a partition and is read, as in Spark.
    """
    return name.startswith(".") or (name.startswith("_") and "=" not in name)


def files_below(filesystem: Any, folder: str, supported: Supported) -> list[Any]:
    """Return the supported files at any depth, sorted by path, without names that are left out."""
    selector = pyarrow.fs.FileSelector(folder, recursive=True)
    prefix = len(folder.rstrip("/")) + 1
    return sorted(
        (
            info
            for info in filesystem.get_file_info(selector)
            if info.type == pyarrow.fs.FileType.File
            and supported(info.path)
            and not any(is_skipped(part) for part in info.path[prefix:].split("/"))
        ),
        key=lambda info: str(info.path),
    )


def matches(filesystem: Any, pattern: str, supported: Supported) -> list[Any]:
    """Return the supported files that match a glob, sorted by path. `**` stands for any number of folders."""
    base, wanted = split_glob(pattern)
    if filesystem.get_file_info(base).type != pyarrow.fs.FileType.Directory:
        return []
    if is_recursive(wanted):
        found = files_below(filesystem, base, supported)
    else:
        listed = filesystem.get_file_info(pyarrow.fs.FileSelector(base))
        found = [i for i in listed if i.type == pyarrow.fs.FileType.File and supported(i.path)]
        found.sort(key=lambda info: str(info.path))
    prefix = len(base.rstrip("/")) + 1
    return [info for info in found if matches_glob(info.path[prefix:].split("/"), wanted)]


def split_glob(pattern: str) -> tuple[str, list[str]]:
    """Split a glob into its literal folder and the parts of the pattern below it."""
    parts = pattern.split("/")
    literal = next(i for i, part in enumerate(parts) if not WILDCARDS.isdisjoint(part))
    return "/".join(parts[:literal]) or "/", parts[literal:]


def is_recursive(wanted: Sequence[str]) -> bool:
    """Can a glob with these parts match files in folders below its literal folder? Then some names are left out."""
    return len(wanted) > 1 or wanted[0] == "**"


def matches_glob(parts: Sequence[str], wanted: Sequence[str]) -> bool:
    """Does a path match a glob? Both are given in parts."""
    if not wanted:
        return not parts
    if wanted[0] == "**":
        return matches_glob(parts, wanted[1:]) or (bool(parts) and matches_glob(parts[1:], wanted))
    if not parts or (is_skipped(parts[0]) and not wanted[0].startswith(_LEFT_OUT)):
        return False
    return fnmatch.fnmatchcase(parts[0], wanted[0]) and matches_glob(parts[1:], wanted[1:])
