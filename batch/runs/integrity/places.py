"""Journals that are not where they belong: somebody moved, swapped or copied them."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from batch.runs.atomic import storage_error, sync
from batch.runs.journal import place_of, sound, stated_place
from batch.runs.layout import Layout

# Of a journal on the way to its place, and of a copy that has no place.
_MOVING, _ASIDE = ".moving", ".misplaced"

_HEADER_BYTES = 1 << 16


def put_back_journals(layout: Layout) -> None:
    """Move each journal to the place that its header names. A copy of one that is in its place is set aside.

    Begun and broken off, it is finished by the next call. Nobody may be writing to the journals. A journal of an older
    version names no place and stays where it is.

    Raises:
        StorageError: a file cannot be read or moved.
    """
    try:
        for path, place in list(_misplaced(layout)):
            target = layout.journals / place
            moving = target.with_name(target.name + _MOVING)
            theirs = _place_named_in(target)
            if moving.exists() or (target.exists() and theirs in (None, place)):
                path.rename(path.with_name(path.name + _ASIDE))
            else:
                target.parent.mkdir(mode=0o700, exist_ok=True)
                path.rename(moving)
        for moving in list(layout.journals.glob(f"*/*{_MOVING}")):
            target = moving.with_name(moving.name.removesuffix(_MOVING))
            moving.rename(target if not target.exists() else target.with_name(target.name + _ASIDE))
            sync(target.parent)
    except OSError as error:
        raise storage_error(layout.journals, error, "put journals back in") from error


def _misplaced(layout: Layout) -> Iterator[tuple[Path, str]]:
    for path in sorted(layout.journals.glob("*/*.jsonl")):
        place = _place_named_in(path)
        if place is not None and place != place_of(path):
            yield path, place


def _place_named_in(path: Path) -> str | None:
    """The place that the first header of a journal names; `None`: there is no such file, or it names none."""
    with suppress(FileNotFoundError), path.open("rb") as file:
        rest = sound(file.readline(_HEADER_BYTES).removesuffix(b"\n"))
        return None if rest is None else stated_place(rest)
    return None
