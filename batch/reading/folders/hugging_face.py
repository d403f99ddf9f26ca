"""Finds the data files in folders written by Hugging Face's `Dataset.save_to_disk` and `DatasetDict.save_to_disk`."""

import posixpath
from typing import Any

import orjson
import pyarrow.fs

from batch.errors import InputError

_STATE, _SPLITS = "state.json", "dataset_dict.json"


def dataset_files(filesystem: Any, folder: str) -> list[str] | None:
    """Return the paths of a saved dataset's files, of all splits, in its own order; `None` if there is no dataset.

    Other files in the folder (caches of `map`, files of an earlier save) are left out.

    Raises:
        InputError: the dataset's description names no files, or a split is missing. PyArrow's errors pass through.
    """
    splits = _description(filesystem, posixpath.join(folder, _SPLITS))
    if splits is not None:
        names = splits.get("splits")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise InputError(f"{posixpath.join(folder, _SPLITS)}: names no splits; save the dataset again")
        found: list[str] = []
        for name in names:
            files = dataset_files(filesystem, posixpath.join(folder, name))
            if files is None:
                raise InputError(f"{posixpath.join(folder, name)}: the split is missing; save the dataset again")
            found += files
        return found
    state = _description(filesystem, posixpath.join(folder, _STATE))
    if state is None or "_data_files" not in state:
        return None
    try:
        return [posixpath.join(folder, posixpath.basename(one["filename"])) for one in state["_data_files"]]
    except (TypeError, KeyError) as error:
        raise InputError(f"{posixpath.join(folder, _STATE)}: names no files; save the dataset again") from error


def _description(filesystem: Any, path: str) -> dict[str, Any] | None:
    if filesystem.get_file_info(path).type != pyarrow.fs.FileType.File:
        return None
    with filesystem.open_input_stream(path) as file:
        try:
            found = orjson.loads(file.read())
        except orjson.JSONDecodeError:
            return None
    return found if isinstance(found, dict) else None
