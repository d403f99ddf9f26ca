"""Where the files of a run are. `docs/run-directory.md` describes what is in them."""

from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path, PurePosixPath
from urllib.parse import quote, unquote, urlsplit

from batch.storage.atomic import is_temporary
from schemas.job import OutputSpec

# Longer quoted names are cut and get a hash that tells them apart: file systems allow 255 bytes for a name.
_LONGEST_NAME = 150


@dataclass(frozen=True)
class Layout:
    """Names the files of a run directory. It opens none, so it can be passed to any process.

    Paths are made of shard indexes and quoted model names only, never of anything that a row holds.
    """

    path: Path

    @property
    def manifest(self) -> Path:
        """What the run is."""
        return self.path / "run.json"

    @property
    def manifest_copy(self) -> Path:
        """A copy of the manifest, which is read if the manifest is damaged."""
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
        """The limits of endpoints that were learned."""
        return self.path / "limits.json"

    @property
    def waits(self) -> Path:
        """The pauses that endpoints have asked for."""
        return self.path / "waits.json"

    @property
    def spool(self) -> Path:
        """Folder of input as lines, if it was not lines before: decompressed, CSV, JSON arrays, streams."""
        return self.path / "spool"

    @property
    def embeddings(self) -> Path:
        """Log of what the router's embedder was sent and cost."""
        return self.path / "embeddings.jsonl"

    @property
    def cache(self) -> Path:
        """Folder of the embedding vectors that endpoints returned."""
        return self.path / "cache"

    @property
    def journals(self) -> Path:
        """Folder of the journals; it exists once a request was about to be sent."""
        return self.path / "journal"

    def anything_sent(self) -> bool:
        """Was a request of this run ever about to be sent, as far as its files show?"""
        return self.journals.exists() or self.answered(0).parent.exists()

    def scored(self, shard: int) -> Path:
        """The scored part: the rows of one shard with their scores."""
        return self.path / "scored" / f"{shard:05}.parquet"

    def scored_record(self, shard: int) -> Path:
        """Checksums of the scored part, written before it."""
        return self.path / "scored" / f"{shard:05}.json"

    def routed(self, model: str, shard: int) -> Path:
        """The routed part: the requests of one shard for one model."""
        return self.path / "routed" / file_name(model) / f"{shard:05}.parquet"

    def routing_record(self, shard: int) -> Path:
        """The routing record: rows per model, shared answers, duplicate ids. Written last when a shard is routed."""
        return self.path / "verdicts" / f"{shard:05}.json"

    def journal(self, shard: int, model: str) -> Path:
        """The journal: intents and outcomes of one shard and model."""
        return self.path / "journal" / f"{shard:05}" / f"{file_name(model)}.jsonl"

    def part(self, shard: int, suffix: str) -> Path:
        """Results of one shard; `suffix` is as `jsonl`."""
        return self.path / "output" / f"part-{shard:05}.{suffix}"

    def answered(self, shard: int) -> Path:
        """The record of rows that the shard's journals held an end for when they were last read."""
        return self.path / "answered" / f"{shard:05}.json"

    def commit(self, shard: int) -> Path:
        """The commit record: counts and ambiguous rows of a shard. Written last when it is committed."""
        return self.path / "committed" / f"{shard:05}.json"

    def place(self, path: Path) -> str:
        """The path of one of the run's files within the run directory, which may be renamed and moved."""
        return path.relative_to(self.path).as_posix()


def local_path(path: str) -> Path | None:
    """The local path of an output path, which is plain or begins with `file://`; `None`: it is on an object store."""
    if "://" not in path:
        return Path(path)
    parts = urlsplit(path)
    return Path(unquote(parts.path)) if parts.scheme == "file" else None


def is_folder(output: OutputSpec) -> bool:
    """Is the output a folder of parts? It is if its path ends in / or, on this machine, names a folder."""
    place = local_path(output.path)
    if place is None:
        return urlsplit(output.path).path.endswith("/")
    return output.path.endswith("/") or place.is_dir()


def run_path(output: OutputSpec) -> Path:
    """The run directory of a job with this output: `output.run_dir`, else `<path>.run`.

    The run directory is always on this machine, because journals need a disk. If the output is on an object store, its
    name is the last part of the output's path, in the current folder.
    """
    if output.run_dir is not None:
        return Path(output.run_dir)
    place = local_path(output.path)
    if place is not None:
        return Path(f"{place}.run")
    address = urlsplit(output.path)
    return Path(f"{PurePosixPath(unquote(address.path)).name or address.hostname}.run")


def file_name(model: str) -> str:
    """A file name for a model: one path component, and no two models share one."""
    name = quote(model, safe="")
    # quote() leaves dots alone. "." and ".." are folders that exist already, and `.*.tmp` is removed as a leftover.
    if set(model) == {"."} or is_temporary(Path(name)):
        name = name.replace(".", "%2E")
    if len(name) <= _LONGEST_NAME:
        return name
    return f"{name[:_LONGEST_NAME]}~{blake2b(model.encode(), digest_size=8).hexdigest()}"
