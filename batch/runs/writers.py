"""Output parts: one of each file a format has, in row order, whole or not at all; and how they are joined."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from shutil import copyfileobj
from typing import BinaryIO, assert_never

from batch.runs.atomic import replacing
from batch.runs.layout import Layout
from batch.runs.result import Result, to_batch_line, to_json
from schemas.job import OutputSpec

WriteResult = Callable[[Result], None]

Join = Callable[[Sequence[Path], BinaryIO], None]
"""Writes parts, in order, as one file. Raises OSError."""

_BUFFER_BYTES = 1 << 20


def suffixes(output: OutputSpec) -> tuple[str, ...]:
    """File name endings of this format's parts; the results come first."""
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
    """What the output's file with this ending is called: `results.jsonl`, and with it `results.errors.jsonl`."""
    return name if suffix == suffixes(output)[0] else f"{name.removesuffix('.jsonl')}.{suffix}"


def joiner(layout: Layout, shards: Sequence[int], output: OutputSpec) -> Join:
    """How parts of a whole run become files of the output. Looks at all `shards`, once."""
    if output.format != "parquet":
        return _concatenate
    from batch.runs.parquet_results import Carried, join

    carried = Carried(layout.part(shard, "parquet") for shard in shards)
    return lambda parts, target: join(parts, carried, target)


@contextmanager
def part_writer(layout: Layout, shard: int, output: OutputSpec) -> Iterator[WriteResult]:
    """Yield a function that takes the shard's results in order. The part appears when the block ends without error.

    Raises:
        StorageError: the part cannot be written.
    """
    with ExitStack() as stack:
        temps = [stack.enter_context(replacing(layout.part(shard, suffix))) for suffix in suffixes(output)]
        yield stack.enter_context(_writing(output, temps))


@contextmanager
def _writing(output: OutputSpec, temps: Sequence[Path]) -> Iterator[WriteResult]:
    match output.format:
        case "jsonl":
            with temps[0].open("wb", _BUFFER_BYTES) as file:
                yield _jsonl(file)
        case "openai_batch":
            with temps[0].open("wb", _BUFFER_BYTES) as good, temps[1].open("wb", _BUFFER_BYTES) as bad:
                yield _openai_batch(good, bad)
        case "parquet":
            from batch.runs.parquet_results import ParquetPart

            with ParquetPart(temps[0]) as part:
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
