"""Puts journals back that were moved, swapped or copied to a wrong place in the run directory."""

import logging
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from batch.errors import RunLockedError
from batch.runs.journal.lines import CRC_MARK, checked_content, place_in_header
from batch.runs.layout import Layout
from batch.storage.atomic import make_folder, storage_error, sync
from batch.storage.lock import FileLock

_log = logging.getLogger("batchrouter.runs")

# Suffixes of a journal on the way to its place, and of a file that lay in its place or is a copy of a journal.
_MOVING, _ASIDE = ".moving", ".misplaced"

_HEAD_BYTES = 1 << 16


def put_back_if_idle(layout: Layout) -> None:
    """Do as `put_back_journals`, unless the dispatcher of an earlier sitting still writes to the journals.

    Raises StorageError.
    """
    if layout.anything_sent():
        with suppress(RunLockedError), FileLock(layout.journal_lock, "journals"):
            put_back_journals(layout)


def put_back_journals(layout: Layout) -> None:
    """Move each journal to the place that its header names, wherever in the run directory it is now.

    A file that lies in that place and is no journal is renamed to `*.misplaced`, and so is a second copy of a journal.
    If a call is interrupted, the next one finishes its work. No process may be writing to the journals meanwhile. A
    journal of an older version names no place and stays where it is.

    Raises:
        StorageError: a file cannot be read or moved.
    """
    try:
        for path, place in list(_misplaced(layout)):
            target = layout.journals / place
            moving = target.with_name(target.name + _MOVING)
            if moving.exists() or _belongs_in(target, place):
                _log.warning("%s: set aside, since journal/%s is in its place", path, place)
                path.rename(path.with_name(path.name + _ASIDE))
            else:
                _log.warning("%s: put back as journal/%s, which its header names", path, place)
                make_folder(target.parent)
                path.rename(moving)
        for moving in list(layout.journals.glob(f"*/*{_MOVING}")):
            target = moving.with_name(moving.name.removesuffix(_MOVING))
            if target.exists():
                target.rename(target.with_name(target.name + _ASIDE))
            moving.rename(target)
            sync(target.parent)
    except OSError as error:
        raise storage_error(layout.journals, error, "put journals back in") from error


def _misplaced(layout: Layout) -> Iterator[tuple[Path, str]]:
    """The journals that are not in their place, each with the place that its header names."""
    for path in sorted(layout.path.rglob("*")):
        if path.suffix not in (_MOVING, _ASIDE) and path.is_file() and not path.is_relative_to(layout.cache):
            place = _named_in(path)
            if place is not None and path != layout.journals / place:
                yield path, place


def _named_in(path: Path) -> str | None:
    """The place that the first header of a file names; `None` if it is no journal, or its header names no place."""
    with path.open("rb") as file:
        if file.read(len(CRC_MARK)) != CRC_MARK:
            return None
        file.seek(0)
        rest = checked_content(file.readline(_HEAD_BYTES).removesuffix(b"\n"))
        return None if rest is None else place_in_header(rest)


def _belongs_in(target: Path, place: str) -> bool:
    """Is there a journal at `target` whose header names no other place?"""
    if not target.exists():
        return False
    named = _named_in(target)
    if named is not None:
        return named == place
    with target.open("rb") as file:
        return any(checked_content(line) is not None for line in file.read(_HEAD_BYTES).split(b"\n"))
