"""Writes the output that the job asked for from committed parts: to this machine here, else to an object store."""

import logging
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from batch.errors import SpecError
from batch.runs.layout import Layout, is_folder, local_path, run_path
from batch.runs.manifest import is_run_directory
from batch.runs.output.parts import Join, beside, joiner, suffixes
from batch.storage.atomic import leftovers, replacing, storage_error
from schemas.job import OutputSpec

_log = logging.getLogger("batchrouter.runs")

_PART = re.compile(r"part-\d{5,}\.(errors\.jsonl|jsonl|parquet)")


def check_output_writable(output: OutputSpec) -> None:
    """Check, before anything is sent, that the output and the run directory can be written. Leaves nothing behind.

    Raises:
        SpecError: they cannot: no permission, a file where a folder should be, a device, a run directory, a name that
            is too long for the file system, no such bucket.
    """
    # A file inside the run directory: a folder that may not be entered can still be seen from outside.
    _check_reach(Layout(run_path(output)).manifest, f"run directory {run_path(output)}", "output.run_dir")
    path = local_path(output.path)
    if path is None:
        from batch.runs.output.object_store import check_store_writable

        check_store_writable(output)
        return
    _check_reach(path, f"output.path {output.path}", "output.path")
    if path.exists() and not path.is_dir() and not path.is_file():
        raise SpecError(
            f"output.path {output.path} is a device or a pipe, which would be replaced; choose another output.path"
        )
    if output.path.endswith("/") and path.exists() and not path.is_dir():
        raise SpecError(f"output.path {output.path} asks for a folder, but is a file; leave out the last /")
    if is_run_directory(path):
        raise SpecError(f"output.path {output.path} is a run directory; choose another output.path")
    folder = path if is_folder(output) else _link_target(path).parent
    while not folder.exists():
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise SpecError(
            f"output.path {output.path} cannot be written: {folder}: {error.strerror}; choose another output.path"
        ) from error


def _check_reach(path: Path, what: str, key: str) -> None:
    """Raise SpecError if the system cannot even say whether `path` exists."""
    try:
        path.exists()
    except OSError as error:
        raise SpecError(f"{what} cannot be used: {error.strerror}; choose another {key}") from error


def write_output(layout: Layout, shards: Sequence[int], output: OutputSpec) -> str:
    """Write the output from the committed parts of `shards`. Called again, it writes the same bytes.

    Returns:
        Where the results are: the path of the file if there is only one, else `output.path`.

    Raises:
        DamagedError: a part is not as it was committed.
        StorageError: something cannot be written.
    """
    if local_path(output.path) is None:
        from batch.runs.output.object_store import upload

        upload(layout, shards, output)
        _log.info("output of %d shards written to %s", len(shards), output.path)
        return output.path
    written = write_local_output(layout, shards, output)
    _log.info("output of %d shards written to %s", len(shards), output.path)
    return str(written[0]) if len(written) == 1 else output.path


def write_local_output(layout: Layout, shards: Sequence[int], output: OutputSpec) -> list[Path]:
    """Write the output to this machine. Called again, it writes the same bytes.

    If the output is one file, all parts are streamed into a temporary file beside it, which is then renamed. If that
    file is a symbolic link, the file that it leads to is replaced, and the link stays. If the output is a folder, it
    gets the parts as `part-00000.*`, and parts of that name which an earlier, longer run left there are removed. The
    failures of an OpenAI batch output are in `<name>.errors.jsonl`, which exists only if a row failed.

    Returns:
        The files written, results first.

    Raises:
        StorageError: something cannot be written.
    """
    target = local_path(output.path)
    assert target is not None, "an output on an object store is uploaded"
    in_parts = is_folder(output)
    folder = target if in_parts else target.parent
    join = joiner(layout, shards, output)
    written: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for suffix in suffixes(output):
            parts = [layout.part(shard, suffix) for shard in shards]
            if in_parts:
                wanted = [(folder / part.name, [part]) for part in parts]
            else:
                wanted = [(target.with_name(beside(target.name, suffix, output)), parts)]
            for path, sources in wanted:
                if suffix == suffixes(output)[0] or any(source.stat().st_size for source in sources):
                    _place(path, sources, join)
                    written.append(path)
                else:
                    path.unlink(missing_ok=True)
        if in_parts:
            for entry in folder.iterdir():
                if _PART.fullmatch(entry.name) and entry not in written:
                    entry.unlink()
    except OSError as error:
        raise storage_error(target, error) from error
    return written


def _link_target(path: Path) -> Path:
    """The file that `path` leads to if it is a symbolic link, else `path`."""
    return path.resolve() if path.is_symlink() else path


def _place(path: Path, sources: Sequence[Path], join: Join) -> None:
    path = _link_target(path)
    for half_done in list(leftovers(path)):
        half_done.unlink(missing_ok=True)
    with replacing(path) as temp, temp.open("wb") as file:
        join(sources, file)
