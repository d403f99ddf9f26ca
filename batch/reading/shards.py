"""Cuts the input into shards. The cuts are stable: the same input is always cut at the same places."""

from builtins import map as map_here
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Literal, Protocol, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from batch.errors import InputError
from batch.reading.column_checks import check_columns
from batch.reading.formats.arrow_files import arrow_layout
from batch.reading.formats.format_checks import check_kinds, decompression_errors
from batch.reading.formats.looks import HEAD_BYTES, is_json_lines
from batch.reading.formats.stream_copies import copy_path, copy_stream
from batch.reading.ranges import CountedRange, TextRange, count_range, cut
from batch.reading.shard import Shard
from batch.reading.sources import Source, find_sources, input_errors, open_file, open_stream
from batch.reading.spool import Spooling, spool_file
from schemas.job import CsvSpec, InputSpec

# Enough shards to keep a small cluster busy; each small enough that a worker can hold it several times, and large
# enough to be worth a task.
SHARDS_WANTED = 32
MIN_SHARD_BYTES = 1 << 20
MAX_SHARD_BYTES = 16 << 20
# Smaller inputs are read in this process, which is done before a worker process would have started.
WORTH_SPREADING_BYTES = 64 << 20
MAX_PARQUET_ROWS = 20_000
# For long rows: 20,000 prompts of 100 kB would fill a worker's memory, which holds about ten times a shard's bytes.
MAX_PARQUET_BYTES = 24 << 20

# Formats whose shards are row ranges; shards of the others are byte ranges.
_BY_ROWS = ("parquet", "arrow")
_SPOOLED_ALWAYS = ("csv", "json")

Given = TypeVar("Given")
Made = TypeVar("Made")


class Mapper(Protocol):
    """Calls a function once per item and returns the results in order. Function, items and results can be pickled."""

    def __call__(self, function: Callable[[Given], Made], items: Iterable[Given], /) -> Iterable[Made]: ...


def find_shards(
    spec: InputSpec,
    spool: Path,
    *,
    map: Mapper = map_here,  # noqa: A002 - it stands in for the builtin
    sources: Sequence[Source] | None = None,
) -> list[Shard]:
    """Cut the input into shards, in input order, rows numbered from 0 over all files, `spec.limit` applied.

    No file is held in memory as a whole. Line files are cut at line ends; compressed files and CSV are first streamed
    into `spool`.

    Args:
        spool: folder for spooled copies.
        map: spreads the spooling of files and the counting of byte ranges over workers if the input is large. With a
            limit, rows are counted in this process, and only as many as needed.
        sources: what `find_sources` returned; if left out, this function calls it.

    Raises:
        InputError: the input is missing, unreadable, of an unknown kind or without rows, or no row has a column that
            the spec names.
        SpecError: the prompt template or the parameters cannot be used.
        StorageError: the spool cannot be written.
    """
    shards = cut_files(spec, spool, map=map, sources=sources)
    check_columns(spec, shards)
    return shards


def cut_files(
    spec: InputSpec,
    spool: Path,
    *,
    map: Mapper = map_here,  # noqa: A002 - it stands in for the builtin
    key: str = "input.path",
    sources: Sequence[Source] | None = None,
) -> list[Shard]:
    """As `find_shards`, for files whose rows need not be prompts: the columns are not checked."""
    sources = find_sources(spec, key) if sources is None else sources
    sources = [copy_stream(source, spool, stored=False) if source.is_stream else source for source in sources]
    check_kinds(sources)
    sources = [_with_detected_format(source) for source in sources]
    if sum(source.size for source in sources) < WORTH_SPREADING_BYTES:
        map = map_here  # noqa: A001 - it stands in for the builtin
    packed = [s for s in sources if s.compression is not None or s.format in _SPOOLED_ALWAYS]
    tasks = [Spooling(s, spool, spec.limit, spec.csv) for s in packed]
    spooled = dict(zip(packed, map(spool_file, tasks), strict=True))
    texts = [_Text(s, *_stored(s, spooled.get(s))) for s in sources if s.format not in _BY_ROWS]
    total = sum(text.size for text in texts)
    target = min(max(total // SHARDS_WANTED, MIN_SHARD_BYTES), MAX_SHARD_BYTES)
    ranges = {text.source: list(cut(text.location, text.size, target)) for text in texts}
    count = map if spec.limit is None else map_here
    counted = iter(count(count_range, [part for parts in ranges.values() for part in parts]))
    shards: list[Shard] = []
    rows = 0
    for shard in _text_shards(sources, ranges, counted):
        if spec.limit is not None and rows >= spec.limit:
            break
        kept = shard.rows if spec.limit is None else min(shard.rows, spec.limit - rows)
        shards.append(replace(shard, index=len(shards), first_row=rows, rows=kept))
        rows += kept
    if not shards:
        raise InputError(f"{_shown(spec)}: no rows; the input is empty")
    facts = {fact for source in sources for fact in source.notes}
    if spec.csv != CsvSpec() and not any(source.format == "csv" for source in sources):
        facts.add(("csv_options", "`input.csv` is not used, because no file of the input is CSV"))
    if facts:
        shards[0] = replace(shards[0], notes=tuple(sorted(facts)))
    return shards


def check_streams(sources: Iterable[Source], spool: Path) -> None:
    """Raise InputError if a resumed run is given other piped rows than those it began with."""
    for source in sources:
        if source.is_stream and copy_path(source, spool).exists():
            copy_stream(source, spool, stored=True)


def refill_spool(
    spec: InputSpec,
    spool: Path,
    shards: Sequence[Shard],
    sources: Sequence[Source],
    *,
    map: Mapper = map_here,  # noqa: A002 - it stands in for the builtin
) -> None:
    """Spool again the files that shards need and that are no longer in the spool. Raises as `cut_files` does."""
    names = {shard.name: shard.spooled for shard in shards if shard.spooled is not None}
    needed = [copy_stream(s, spool, stored=True) if s.is_stream else s for s in sources if s.name in names]
    gone = [_with_detected_format(s) for s in needed if s.name in names and not (spool / str(names[s.name])).exists()]
    for _ in map(spool_file, [Spooling(s, spool, spec.limit, spec.csv, names[s.name]) for s in gone]):
        pass


@dataclass(frozen=True, slots=True)
class _Text:
    """A file of lines: the source itself, or its spooled copy."""

    source: Source
    location: str
    size: int


def _stored(source: Source, spooled: Path | None) -> tuple[str, int]:
    if spooled is None:
        return source.location, source.size
    location = str(spooled.absolute())
    return location, spooled.stat().st_size


def _shown(spec: InputSpec) -> str:
    return spec.path if isinstance(spec.path, str) else ", ".join(spec.path)


def _text_shards(
    sources: Sequence[Source], ranges: dict[Source, list[TextRange]], counted: Iterator[CountedRange]
) -> Iterator[Shard]:
    """Yield the shards that hold rows; they are not yet numbered over the whole input."""
    for source in sources:
        if source.format == "parquet" or source.format == "arrow":
            yield from _row_shards(source, source.format)
            continue
        line = 1
        for part in ranges[source]:
            found = next(counted)
            if found.rows:
                yield Shard(
                    index=0,
                    location=part.location,
                    name=source.name,
                    format="jsonl" if source.format == "jsonl" else "csv",
                    start=found.start,
                    stop=found.stop,
                    first_row=0,
                    rows=found.rows,
                    first_line=line,
                    mtime_ns=None if (spooled := spool_name(part, source)) else source.mtime_ns,
                    size=None if spooled else source.size,
                    crc=found.crc,
                    spooled=spooled,
                    partition=source.partition,
                )
            line += found.lines


def spool_name(part: TextRange, source: Source) -> str | None:
    """File name of the spooled copy that is read in place of the source; `None` if the source itself is read."""
    return source.spooled if part.location == source.location else PurePath(part.location).name


def _with_detected_format(source: Source) -> Source:
    """Settle what a .json file is by its first bytes: JSON lines, or one JSON document. Other sources are returned."""
    if source.format != "json":
        return source
    with decompression_errors(source), open_stream(source.location, source.compression) as stream:
        lines = is_json_lines(stream.read(HEAD_BYTES))
    return replace(source, format="jsonl") if lines else source


def _parquet_layout(location: str) -> tuple[list[str], list[int], int]:
    """Return the names of the columns, the rows of each row group, and the decompressed bytes of the whole file."""
    with open_file(location) as file:
        opened = pq.ParquetFile(file)
        groups = [opened.metadata.row_group(i) for i in range(opened.num_row_groups)]
        stored = sum(group.total_byte_size for group in groups)
        return opened.schema_arrow.names, [group.num_rows for group in groups], stored


def _layout(source: Source) -> tuple[list[int], int]:
    """Return the rows of each row group or record batch of a Parquet or Arrow file, and the file's bytes.

    Raises InputError if the file is damaged or has two columns of one name.
    """
    with input_errors(source.location):
        try:
            if source.format == "parquet":
                names, sizes, stored = _parquet_layout(source.location)
            else:
                names, sizes = arrow_layout(source.location)
                stored = source.size
        except pa.ArrowInvalid as error:
            words = " ".join(str(error).split()).rstrip(".")
            raise InputError(f"{source.name}: is damaged or cut off ({words}); fetch or write it again") from error
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        # A record holds one value per name, so one of the two columns would be lost.
        raise InputError(f"{source.name}: two columns are called {twice!r}; rename one")
    return sizes, stored


def _row_shards(source: Source, format: Literal["parquet", "arrow"]) -> Iterator[Shard]:  # noqa: A002 - the field's name
    sizes, stored = _layout(source)
    rows = sum(sizes)
    fitting = MAX_PARQUET_BYTES * rows // max(stored, 1)
    for start, stop in _joined(sizes, max(1, min(MAX_PARQUET_ROWS, fitting))):
        yield Shard(
            index=0,
            location=source.location,
            name=source.name,
            format=format,
            start=start,
            stop=stop,
            first_row=0,
            rows=stop - start,
            first_line=start + 1,
            mtime_ns=None if source.spooled else source.mtime_ns,
            size=None if source.spooled else source.size,
            spooled=source.spooled,
            partition=source.partition,
        )


def _joined(sizes: Sequence[int], most: int) -> Iterator[tuple[int, int]]:
    """Yield row ranges of at most `most` rows: small row groups are joined, big ones are cut."""
    start = end = 0
    for size in sizes:
        if end > start and end + size - start > most:
            yield start, end
            start = end
        end += size
        while end - start > most:
            yield start, start + most
            start += most
    if end > start:
        yield start, end
