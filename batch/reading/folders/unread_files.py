"""Notes on files in a folder that look like data but are not read."""

import posixpath
from collections.abc import Iterable

_SHOWN = 5
# Files that Hugging Face's libraries write beside the data of data sets and models.
_DESCRIPTIONS = frozenset(
    ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "config.json", "croissant.json")
)
# Suffixes of formats that may hold rows but cannot be read. Code, documentation and pictures get no note: every
# repository has some.
_DATA = tuple(
    f".{ending}"
    for ending in (
        *("txt", "xml", "xlsx", "xls", "ods", "orc", "avro", "xz", "lz4", "snappy", "br", "zip", "7z", "tar", "tgz"),
        *("pkl", "pickle", "npy", "npz", "h5", "hdf5", "sqlite", "sqlite3", "db", "duckdb", "dta", "sav", "rds"),
        *("tfrecord", "msgpack"),
    )
)

FileFact = tuple[str, str]
"""Code and text of a fact, as `batch.reading.notes.Fact`."""


def unread_notes(described: Iterable[str], unread: Iterable[str]) -> tuple[FileFact, ...]:
    """Return notes on files that are not read.

    Args:
        described: paths of .json files that are treated as descriptions of the files beside them.
        unread: paths of files whose format cannot be read.
    """
    facts = []
    names = [name for path in described if (name := posixpath.basename(path)) not in _DESCRIPTIONS]
    if names:
        why = "because .json files beside other kinds describe them"
        facts.append(("not_read", f"not read, {why}: {_shown(names)}; name them in input.path where they hold rows"))
    names = [posixpath.basename(path) for path in unread if path.lower().endswith(_DATA)]
    if names:
        facts.append(("not_read", f"not read, because their kind is not supported: {_shown(names)}"))
    return tuple(facts)


def _shown(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else "")
