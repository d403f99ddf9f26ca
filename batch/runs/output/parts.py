"""Output parts: the results of one shard in the output's format, written whole or not at all, and how to join them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from shutil import copyfileobj
from typing import BinaryIO, assert_never

from batch.runs.committed import check_committed
from batch.runs.layout import Layout
from batch.runs.output.rows import Result, to_batch_line, to_json
from batch.storage.atomic import replacing
from batch.storage.checksums import CheckedWriter, Checksum
from schemas.job import OutputSpec

WriteResult = Callable[[Result], None]

Join = Callable[[Sequence[Path], BinaryIO], None]
"""Writes the content of parts, in order, to one file. Raises OSError."""

_BUFFER_BYTES = 1 << 20


class PartWriter:
    """Writes the results of a shard, in order, to the files of its part.

    Attributes:
        write: writes the next result.
    """

    def __init__(self, write: WriteResult, files: Mapping[str, CheckedWriter]) -> None:
        self.write = write
        self._files = files

    def checksums(self) -> dict[str, Checksum]:
        """The checksums of the part's files, by suffix. Call it once the files are closed."""
        return {suffix: file.checksum for suffix, file in self._files.items()}


def suffixes(output: OutputSpec) -> tuple[str, ...]:
    """The file name endings of a part in this format; that of the results comes first."""
    match output.format:
        case "jsonl":
            return ("jsonl",)
        case "parquet":
            return ("parquet",)
        case "openai_batch":
            return ("jsonl", "errors.jsonl")
        case _:
            assert_never(output.format)


def beside(name: str, suffix: str, output: OutputSpec) -> str:
    """The name of the output's file with this ending: `results.jsonl`, or `results.errors.jsonl` beside it."""
    return name if suffix == suffixes(output)[0] else f"{name.removesuffix('.jsonl')}.{suffix}"


def joiner(layout: Layout, shards: Sequence[int], output: OutputSpec) -> Join:
    """The function that joins parts of a run to files of its output. Reads and checks the parts of all `shards` first.

    Raises:
        DamagedError: a part is not as it was committed; it can be made again from the journals.
        StorageError: the disk fails.
    """
    for shard in shards:
        check_committed(layout, shard, suffixes(output))
    if output.format != "parquet":
        return _concatenate
    from batch.runs.output.parquet import Carried, join

    carried = Carried(layout.part(shard, "parquet") for shard in shards)
    return lambda parts, target: join(parts, carried, target)


@contextmanager
def part_writer(layout: Layout, shard: int, output: OutputSpec) -> Iterator[PartWriter]:
    """Yield a writer for the results of `shard`. The part gets its name when the block ends without error.

    Raises:
        StorageError: the part cannot be written.
    """
    with ExitStack() as stack:
        temps = {s: stack.enter_context(replacing(layout.part(shard, s))) for s in suffixes(output)}
        # The stack closes these before it renames the temporary files.
        files = {suffix: stack.enter_context(CheckedWriter(temp)) for suffix, temp in temps.items()}
        with _writing(output, list(files.values())) as write:
            yield PartWriter(write, files)


@contextmanager
def _writing(output: OutputSpec, files: Sequence[CheckedWriter]) -> Iterator[WriteResult]:
    match output.format:
        case "jsonl":
            yield _jsonl(files[0])
        case "openai_batch":
            yield _openai_batch(*files)
        case "parquet":
            from batch.runs.output.parquet import ParquetPart

            with ParquetPart(files[0]) as part:
                yield part.write
        case _:
            assert_never(output.format)


def _concatenate(parts: Sequence[Path], target: BinaryIO) -> None:
    for path in parts:
        with path.open("rb") as part:
            copyfileobj(part, target, _BUFFER_BYTES)


def _jsonl(file: BinaryIO) -> WriteResult:
    def write(result: Result) -> None:
        file.write(to_json(result) + b"\n")

    return write


def _openai_batch(good: BinaryIO, bad: BinaryIO) -> WriteResult:
    def write(result: Result) -> None:
        file = good if result.error is None else bad
        file.write(to_batch_line(result) + b"\n")

    return write
