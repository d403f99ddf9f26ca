"""Where the files of a run are."""

from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path, PurePosixPath
from urllib.parse import quote, unquote, urlsplit

from batch.storage.atomic import is_temporary
from schemas.job import OutputSpec

# Longer quoted names are cut and told apart by a hash: a file name ends at 255 bytes.
_LONGEST_NAME = 150


@dataclass(frozen=True)
class Layout:
    """Names the files of a run directory; opens none, so that any process may hold one.

    Paths come from shard indexes and quoted model names only, never from what a row says.
    """

    path: Path

    @property
    def manifest(self) -> Path:
        """What the run is."""
        return self.path / "run.json"

    @property
    def manifest_copy(self) -> Path:
        """The same once more, for when the first is damaged."""
        return self.path / "run.copy.json"

    @property
    def run_lock(self) -> Path:
        """Held by the process that drives the run."""
        return self.path / "run.lock"

    @property
    def journal_lock(self) -> Path:
        """Held by the process that appends to the journals."""
        return self.path / "journal.lock"

    @property
    def plan(self) -> Path:
        """The solved plan."""
        return self.path / "plan.json"

    @property
    def report(self) -> Path:
        """The report as JSON."""
        return self.path / "report.json"

    @property
    def report_html(self) -> Path:
        """The report as a page."""
        return self.path / "report.html"

    @property
    def found_limits(self) -> Path:
        """What endpoints were found to bear."""
        return self.path / "limits.json"

    @property
    def waits(self) -> Path:
        """How long endpoints ask to be left alone."""
        return self.path / "waits.json"

    @property
    def spool(self) -> Path:
        """Folder of inputs that had to be decompressed."""
        return self.path / "spool"

    @property
    def embeddings(self) -> Path:
        """Log of what a router's embedder spends."""
        return self.path / "embeddings.jsonl"

    @property
    def cache(self) -> Path:
        """Folder of vectors that a router was given by endpoints."""
        return self.path / "cache"

    @property
    def journals(self) -> Path:
        """Folder of the journals; there once something was sent."""
        return self.path / "journal"

    def anything_sent(self) -> bool:
        """Was a request of this run ever about to be sent, as far as its files tell?"""
        return self.journals.exists() or self.answered(0).parent.exists()

    def scored(self, shard: int) -> Path:
        """Rows of one shard with their scores."""
        return self.path / "scored" / f"{shard:05}.parquet"

    def scored_record(self, shard: int) -> Path:
        """Checksums of the scored part, written before it."""
        return self.path / "scored" / f"{shard:05}.json"

    def routed(self, model: str, shard: int) -> Path:
        """Requests of one shard for one model."""
        return self.path / "routed" / file_name(model) / f"{shard:05}.parquet"

    def routing_record(self, shard: int) -> Path:
        """Written last when a shard is routed: how many rows went where, and which are duplicates."""
        return self.path / "verdicts" / f"{shard:05}.json"

    def journal(self, shard: int, model: str) -> Path:
        """Intents and outcomes of one shard and model."""
        return self.path / "journal" / f"{shard:05}" / f"{file_name(model)}.jsonl"

    def part(self, shard: int, suffix: str) -> Path:
        """Results of one shard; `suffix` as `jsonl`."""
        return self.path / "output" / f"part-{shard:05}.{suffix}"

    def answered(self, shard: int) -> Path:
        """Which rows the shard's journals held an end for when they were last read."""
        return self.path / "answered" / f"{shard:05}.json"

    def commit(self, shard: int) -> Path:
        """Written last when a shard is committed: its counts, its ambiguous rows."""
        return self.path / "committed" / f"{shard:05}.json"

    def place(self, path: Path) -> str:
        """Where one of the run's files is, whatever the run directory is called and wherever it has moved."""
        return path.relative_to(self.path).as_posix()


def local_path(path: str) -> Path | None:
    """Where on this machine an output path leads, `file://` or plain; `None`: it is on an object store."""
    if "://" not in path:
        return Path(path)
    parts = urlsplit(path)
    return Path(unquote(parts.path)) if parts.scheme == "file" else None


def is_folder(output: OutputSpec) -> bool:
    """Are the results a folder of parts? On an object store only a / at the end says so."""
    place = local_path(output.path)
    if place is None:
        return urlsplit(output.path).path.endswith("/")
    return output.path.endswith("/") or place.is_dir()


def run_path(output: OutputSpec) -> Path:
    """The run directory of a job with this output: `output.run_dir`, else `<path>.run`.

    Journals need a disk. Of a path on an object store only the last name counts, so the run directory is relative.
    """
    if output.run_dir is not None:
        return Path(output.run_dir)
    place = local_path(output.path)
    if place is not None:
        return Path(f"{place}.run")
    address = urlsplit(output.path)
    return Path(f"{PurePosixPath(unquote(address.path)).name or address.hostname}.run")


def file_name(model: str) -> str:
    """A file name for a model: one path component, no two models share one."""
    name = quote(model, safe="")
    # quote() leaves dots alone. "." and ".." are folders that exist already, and `.*.tmp` is swept as a leftover.
    if set(model) == {"."} or is_temporary(Path(name)):
        name = name.replace(".", "%2E")
    if len(name) <= _LONGEST_NAME:
        return name
    return f"{name[:_LONGEST_NAME]}~{blake2b(model.encode(), digest_size=8).hexdigest()}"
