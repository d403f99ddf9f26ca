"""Journals that are not where they belong: somebody moved, swapped or copied them."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from batch.errors import RunLockedError
from batch.runs.journal.lines import CRC_MARK, checked_content, place_in_header
from batch.runs.layout import Layout
from batch.storage.atomic import make_folder, storage_error, sync
from batch.storage.lock import FileLock

# Of a journal on the way to its place, and of a file that is in its way or has no place.
_MOVING, _ASIDE = ".moving", ".misplaced"

_LOOKED_AT_BYTES = 1 << 16


def put_back_if_idle(layout: Layout) -> None:
    """As `put_back_journals`, unless a dispatcher of an earlier sitting still writes to the journals.

    Raises StorageError.
    """
    if layout.anything_sent():
        with suppress(RunLockedError), FileLock(layout.journal_lock, "journals"):
            put_back_journals(layout)


def put_back_journals(layout: Layout) -> None:
    """Move each journal to the place that its header names, wherever in the run directory it is now.

    What is in its way and is no journal is set aside, and so is a copy of a journal that is in its place. Begun and
    broken off, it is finished by the next call. Nobody may be writing to the journals. A journal of an older version
    names no place and stays where it is.

    Raises:
        StorageError: a file cannot be read or moved.
    """
    try:
        for path, place in list(_misplaced(layout)):
            target = layout.journals / place
            moving = target.with_name(target.name + _MOVING)
            if moving.exists() or _belongs_in(target, place):
                path.rename(path.with_name(path.name + _ASIDE))
            else:
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
    for path in sorted(layout.path.rglob("*")):
        if path.suffix not in (_MOVING, _ASIDE) and path.is_file() and not path.is_relative_to(layout.cache):
            place = _named_in(path)
            if place is not None and path != layout.journals / place:
                yield path, place


def _named_in(path: Path) -> str | None:
    """The place that the first header of a journal names; `None`: the file is no journal, or its header names none."""
    with path.open("rb") as file:
        if file.read(len(CRC_MARK)) != CRC_MARK:
            return None
        file.seek(0)
        rest = checked_content(file.readline(_LOOKED_AT_BYTES).removesuffix(b"\n"))
        return None if rest is None else place_in_header(rest)


def _belongs_in(target: Path, place: str) -> bool:
    """Is what is there a journal, and none of another place?"""
    if not target.exists():
        return False
    named = _named_in(target)
    if named is not None:
        return named == place
    with target.open("rb") as file:
        return any(checked_content(line) is not None for line in file.read(_LOOKED_AT_BYTES).split(b"\n"))
