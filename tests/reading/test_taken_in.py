"""Which files an input would read, asked before they are there."""

from pathlib import Path

import pytest

from batch.errors import InputError
from batch.reading.sources import find_sources, input_matching
from schemas.job import InputSpec

FILES = (
    "a.jsonl",
    "b.txt",
    "c.csv.gz",
    "[d].jsonl",
    "sub/a.jsonl",
    "sub/.e.jsonl",
    "sub/deep/f.parquet",
    ".hidden/g.jsonl",
    "_log/g.jsonl",
    "sub/_i.jsonl",
    "sub.jsonl/h.jsonl",
)


@pytest.mark.parametrize(
    "asked",
    [
        "",
        "sub",
        "sub/",
        "sub.jsonl",
        ".hidden",
        "a.jsonl",
        "sub/../a.jsonl",
        "[d].jsonl",
        "[ab].jsonl",
        "*",
        "*.jsonl",
        "*/*.jsonl",
        "**",
        "**/*.jsonl",
        "**/a.jsonl",
        "sub/*",
        "sub/**",
        "sub/**/*.parquet",
        ".hidden/*",
        ".*/*.jsonl",
        "_log",
        "sub/_*",
        "nowhere/*",
    ],
)
def test_exactly_what_is_read_is_taken_in(asked: str, tmp_path: Path) -> None:
    """For every file of a tree, the answer is whether reading finds it."""
    for name in FILES:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text("{}\n")
    spec = InputSpec(path=f"{tmp_path}/{asked}")
    try:
        found = {Path(source.location) for source in find_sources(spec)}
    except InputError:
        found = set()
    assert {tmp_path / name for name in FILES if input_matching(spec, str(tmp_path / name))} == {
        p.resolve() for p in found
    }


def test_links_lead_to_what_they_lead_to(tmp_path: Path) -> None:
    """Another spelling of a folder is the same folder."""
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to("data")
    spec = InputSpec(path=("s3://bucket/data", str(tmp_path / "link")))
    assert input_matching(spec, str(tmp_path / "data" / "out.jsonl")) == str(tmp_path / "link")
    assert input_matching(spec, str(tmp_path / "other" / "out.jsonl")) is None
    assert input_matching(spec, f"file://{tmp_path}/data/out.jsonl") == str(tmp_path / "link")


@pytest.mark.parametrize(
    ("asked", "place", "taken"),
    [
        ("s3://bucket/data/", "s3://bucket/data/out/part-00000.jsonl", True),
        ("s3://bucket/data", "s3://bucket/data.jsonl", False),
        ("s3://bucket/data/*.jsonl", "s3://bucket/data/results.jsonl", True),
        ("s3://bucket/data/*.jsonl", "s3://bucket/data/out/results.jsonl", False),
        ("s3://bucket/**/*.jsonl", "s3://bucket/data/out/results.jsonl", True),
        ("s3://bucket/data/*.jsonl", "s3://bucket/data/results.parquet", False),
        ("s3://bucket/a%20b.jsonl?region=eu-west-1", "s3://bucket/a%20b.jsonl", True),
        ("s3://bucket/data/", "s3://other/data/results.jsonl", False),
        ("s3://bucket/data/", "gs://bucket/data/results.jsonl", False),
        ("gs://bucket/data/", "gcs://bucket/data/results.jsonl", True),
        ("s3://bucket/data/", "/bucket/data/results.jsonl", False),
        ("/bucket/data", "s3://bucket/data/results.jsonl", False),
        ("file:///bucket/data", "/bucket/data/results.jsonl", True),
    ],
)
def test_stores_are_apart_and_their_folders_nested(asked: str, place: str, taken: bool) -> None:
    """A file on a store is taken in by its name, its folder or a pattern there; the store is not asked."""
    assert input_matching(InputSpec(path=asked), place) == (asked if taken else None)
