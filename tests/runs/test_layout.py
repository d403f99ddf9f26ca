"""Paths of a run directory."""

from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st

from batch.runs.layout import Layout, file_name, is_folder, run_path
from schemas.job import OutputSpec

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=300)


@given(NAMES)
@example("..")
@example(".")
@example("../../etc/passwd")
@example("a/b\x00c")
@example("模" * 200)
def test_a_model_name_is_one_component_of_a_path(name: str) -> None:
    """The files of a model stay inside the run directory and have valid names, whatever the model is called."""
    layout = Layout(Path("/runs/r"))
    journal = layout.journal(3, name)
    assert journal.parent == Path("/runs/r/journal/00003")
    assert layout.routed(name, 12).parent.parent == Path("/runs/r/routed")
    assert layout.routed(name, 12).parent.name not in ("", ".", "..")
    assert "\x00" not in str(journal)
    assert len(journal.name.encode()) <= 200


@given(NAMES, NAMES)
@example("a" * 200 + "b", "a" * 200 + "c")
@example(".", "%2E")
def test_two_models_never_share_a_file(one: str, other: str) -> None:
    """Different model names give different file names."""
    assert (file_name(one) == file_name(other)) == (one == other)


def test_the_run_directory_is_beside_the_output() -> None:
    """Without `run_dir` the run directory is the output's path with `.run` added, also for a folder."""
    assert run_path(OutputSpec(path="out/results.jsonl")) == Path("out/results.jsonl.run")
    assert run_path(OutputSpec(path="out/parts/")) == Path("out/parts.run")
    assert run_path(OutputSpec(path="out/parts/", run_dir="elsewhere")) == Path("elsewhere")
    assert run_path(OutputSpec(path="file:///out/the%20parts/")) == Path("/out/the parts.run")


def test_of_an_object_store_the_last_name_counts() -> None:
    """The run directory of an output on an object store is in the current folder."""
    for path, name in {
        "s3://bucket/out/results.jsonl": "results.jsonl.run",
        "gs://bucket/out/parts/": "parts.run",
        "s3://bucket/a%2Fb.jsonl?region=eu-west-1": "b.jsonl.run",
        "s3://bucket/": "bucket.run",
        "s3://bucket/..": "...run",
    }.items():
        assert run_path(OutputSpec(path=path)) == Path(name)


def test_what_is_a_folder_of_parts(tmp_path: Path) -> None:
    """An output is a folder if its path ends in /, or if it is an existing folder on this machine."""
    for path, folder in {
        f"{tmp_path}": True,
        f"{tmp_path}/new": False,
        f"{tmp_path}/new/": True,
        f"{tmp_path}/what?/": True,
        f"file://{tmp_path}": True,
        "s3://bucket/new": False,
        "s3://bucket/new/": True,
        "s3://bucket/new/?region=eu-west-1": True,
        "s3://bucket/new?prefix=a/": False,
    }.items():
        assert is_folder(OutputSpec(path=path)) == folder, path
