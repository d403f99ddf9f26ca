"""From committed parts to the output that the job asked for."""

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

_PART = re.compile(r"part-\d{5,}\.(errors\.jsonl|jsonl|parquet)")


def check_writable(output: OutputSpec) -> None:
    """Find out, before anything is sent, whether the output can be written. Leaves nothing behind.

    Raises:
        SpecError: it cannot: no permission, a file where a folder should be, a device, a run directory, a name that is
            too long for the file system, no such bucket.
    """
    # A file in it, since a folder that may not be entered may well be seen.
    _check_reach(Layout(run_path(output)).manifest, f"run directory {run_path(output)}", "output.run_dir")
    path = local_path(output.path)
    if path is None:
        from batch.runs.output.object_store import check_store

        check_store(output)
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
    folder = path if is_folder(output) else _own(path).parent
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
    """Refuse a path that cannot even be looked at."""
    try:
        path.exists()
    except OSError as error:
        raise SpecError(f"{what} cannot be used: {error.strerror}; choose another {key}") from error


def write_output(layout: Layout, shards: Sequence[int], output: OutputSpec) -> str:
    """Write the output from the committed parts of `shards`, wherever it goes; done again, it ends the same.

    Returns:
        Where the results are: the one file, or `output.path`.

    Raises:
        StorageError: something cannot be written.
    """
    if local_path(output.path) is None:
        from batch.runs.output.object_store import upload

        upload(layout, shards, output)
        return output.path
    written = finish(layout, shards, output)
    return str(written[0]) if len(written) == 1 else output.path


def finish(layout: Layout, shards: Sequence[int], output: OutputSpec) -> list[Path]:
    """Write the output to this machine; done again, it ends byte for byte the same.

    A file output is all parts in one, streamed into a temporary file beside it and renamed; where it is a link, what it
    leads to is replaced, and the link stays. A folder gets the parts
    as `part-00000.*`, and loses parts of that name that an earlier, longer run left there. An OpenAI batch output
    has its failures in `<name>.errors.jsonl`, which exists only where something failed.

    Returns:
        The files written, results first.

    Raises:
        StorageError: something cannot be written.
    """
    target = local_path(output.path)
    assert target is not None, "object stores have their own way"
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


def _own(path: Path) -> Path:
    """Where a file is, if `path` is a link to it."""
    return path.resolve() if path.is_symlink() else path


def _place(path: Path, sources: Sequence[Path], join: Join) -> None:
    path = _own(path)
    for half_done in list(leftovers(path)):
        half_done.unlink(missing_ok=True)
    with replacing(path) as temp, temp.open("wb") as file:
        join(sources, file)
