"""From committed parts to the output that the job asked for."""

import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from shutil import copyfileobj

from batch.errors import SpecError
from batch.runs.atomic import leftovers, replacing, storage_error
from batch.runs.directory import is_run_directory
from batch.runs.layout import Layout
from batch.runs.writers import suffixes
from schemas.job import OutputSpec

_COPY_BYTES = 1 << 20
_Write = Callable[[Sequence[Path], Path], None]
_PART = re.compile(r"part-\d{5,}\.(errors\.jsonl|jsonl|parquet)")


def check_writable(output: OutputSpec) -> None:
    """Find out, before anything is sent, whether the output can be written. Leaves nothing behind.

    Raises:
        SpecError: it cannot: no permission, a file where a folder should be, a run directory, a remote path.
    """
    if "://" in output.path:
        raise SpecError(f"output.path {output.path}: only local paths can be written; give a folder or a file")
    path = Path(output.path)
    if output.path.endswith("/") and path.exists() and not path.is_dir():
        raise SpecError(f"output.path {output.path} asks for a folder, but is a file; leave out the last /")
    if is_run_directory(path):
        raise SpecError(f"output.path {output.path} is a run directory; choose another output.path")
    folder = path if _is_folder(output) else path.parent
    while not folder.exists():
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise SpecError(
            f"output.path {output.path} cannot be written: {folder}: {error.strerror}; choose another output.path"
        ) from error


def finish(layout: Layout, shards: Sequence[int], output: OutputSpec) -> list[Path]:
    """Write the output from the committed parts of `shards`; done again, it ends byte for byte the same.

    A file output is all parts in one, streamed into a temporary file beside it and renamed. A folder gets the parts
    as `part-00000.*`, and loses parts of that name that an earlier, longer run left there. An OpenAI batch output
    has its failures in `<name>.errors.jsonl`, which exists only where something failed.

    Returns:
        The files written, results first.

    Raises:
        StorageError: something cannot be written.
    """
    target = Path(output.path)
    folder = target if _is_folder(output) else target.parent
    write = _copier(layout, shards, output)
    written: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for suffix in suffixes(output):
            parts = [layout.part(shard, suffix) for shard in shards]
            if _is_folder(output):
                wanted = [(folder / part.name, [part]) for part in parts]
            else:
                wanted = [(_beside(target, suffix, output), parts)]
            for path, sources in wanted:
                if suffix == suffixes(output)[0] or any(source.stat().st_size for source in sources):
                    _place(path, sources, write)
                    written.append(path)
                else:
                    path.unlink(missing_ok=True)
        if _is_folder(output):
            for entry in folder.iterdir():
                if _PART.fullmatch(entry.name) and entry not in written:
                    entry.unlink()
    except OSError as error:
        raise storage_error(target, error) from error
    return written


def _copier(layout: Layout, shards: Sequence[int], output: OutputSpec) -> _Write:
    if output.format != "parquet":
        return _concatenate
    from batch.runs.parquet_results import Carried, join

    carried = Carried(layout.part(shard, "parquet") for shard in shards)
    return lambda sources, temp: join(sources, carried, temp)


def _concatenate(sources: Sequence[Path], temp: Path) -> None:
    with temp.open("wb") as whole:
        for source in sources:
            with source.open("rb") as part:
                copyfileobj(part, whole, _COPY_BYTES)


def _place(path: Path, sources: Sequence[Path], write: _Write) -> None:
    for half_done in list(leftovers(path)):
        half_done.unlink(missing_ok=True)
    with replacing(path) as temp:
        write(sources, temp)


def _beside(target: Path, suffix: str, output: OutputSpec) -> Path:
    """Where results go, and what comes with them: `results.jsonl` and `results.errors.jsonl`."""
    return (
        target if suffix == suffixes(output)[0] else target.with_name(f"{target.name.removesuffix('.jsonl')}.{suffix}")
    )


def _is_folder(output: OutputSpec) -> bool:
    return output.path.endswith("/") or Path(output.path).is_dir()
