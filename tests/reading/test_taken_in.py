"""Which files an input would read, found out before the files exist."""

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
def test_the_input_matches_exactly_the_files_that_are_read(asked: str, tmp_path: Path) -> None:
    """`input_matching` says of every file in a tree whether reading would find it."""
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


def test_links_are_followed(tmp_path: Path) -> None:
    """A link to a folder, or a file URI of it, is the same folder."""
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
def test_inputs_on_object_stores_are_matched_by_name(asked: str, place: str, taken: bool) -> None:
    """A file on a store is matched by its name, its folder or a pattern, without a request to the store."""
    assert input_matching(InputSpec(path=asked), place) == (asked if taken else None)
