import gzip
from pathlib import Path

import pytest

from batch.errors import InputError
from batch.reading.sources import _location, find_sources, fingerprint_sources, open_stream
from schemas.job import InputSpec


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"{}\n")


def found(folder: Path, *paths: str) -> list[str]:
    sources = find_sources(InputSpec(path=tuple(str(folder / path) for path in paths)))
    return [str(Path(source.location).relative_to(folder)) for source in sources]


def test_a_folder_gives_its_supported_files_at_any_depth_sorted_and_leaves_out_hidden_ones(tmp_path: Path) -> None:
    """A folder means its supported files, at any depth, sorted by path, without hidden ones."""
    touch(tmp_path, "b/2.jsonl", "b/1.csv", "a.parquet", "c.jsonl.gz", "notes.txt", ".git/x.jsonl", "b/.y.jsonl")
    assert found(tmp_path, "") == ["a.parquet", "b/1.csv", "b/2.jsonl", "c.jsonl.gz"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.jsonl", ["a.jsonl", "b.jsonl"]),
        ("[ab].jsonl", ["a.jsonl", "b.jsonl"]),
        ("?.csv", ["a.csv"]),
        ("*/*.jsonl", ["x/c.jsonl", "y/c.jsonl"]),
        ("**/*.jsonl", ["a.jsonl", "b.jsonl", "x/c.jsonl", "x/z/d.jsonl", "y/c.jsonl"]),
        ("x/**/d.jsonl", ["x/z/d.jsonl"]),
        ("a.*", ["a.csv", "a.jsonl"]),
    ],
)
def test_a_glob_gives_the_supported_files_that_it_names(tmp_path: Path, pattern: str, expected: list[str]) -> None:
    """A glob means the supported files that match, sorted by path; `**` is any depth."""
    touch(tmp_path, "a.jsonl", "b.jsonl", "a.csv", "x/c.jsonl", "y/c.jsonl", "x/z/d.jsonl", "a.txt", ".h.jsonl")
    assert found(tmp_path, pattern) == expected


def test_a_list_keeps_its_order_and_reads_a_file_once(tmp_path: Path) -> None:
    """A list is read in its order; a file that is in it twice is read once."""
    touch(tmp_path, "a.jsonl", "b.jsonl", "c.jsonl")
    assert found(tmp_path, "c.jsonl", "*.jsonl", "a.jsonl") == ["c.jsonl", "a.jsonl", "b.jsonl"]


def test_a_file_whose_name_looks_like_a_glob_is_found(tmp_path: Path) -> None:
    """If a file with exactly this name exists, it is read, whatever characters its name has."""
    touch(tmp_path, "a[1]*.jsonl", "a1.jsonl")
    assert found(tmp_path, "a[1]*.jsonl") == ["a[1]*.jsonl"]


def test_a_glob_below_a_folder_with_brackets_is_refused_with_how_to_write_them(tmp_path: Path) -> None:
    """The hint appears only if a folder has exactly this name, and the glob that it proposes finds the file."""
    touch(tmp_path, "data [v1]/a.jsonl", "other/b.jsonl")
    with pytest.raises(InputError, match=r"write data \[\[\]v1\]; input.path takes"):
        found(tmp_path, "data [v1]/*.jsonl")
    assert found(tmp_path, "data [[]v1]/*.jsonl") == ["data [v1]/a.jsonl"]
    with pytest.raises(InputError, match=r"no supported file matches; input.path takes"):
        found(tmp_path, "data [v2]/*.jsonl")


def test_files_that_share_a_basename_have_different_names(tmp_path: Path) -> None:
    """Files that share a basename are named with as much of their folders as differs."""
    touch(tmp_path, "p/x/in.jsonl", "p/y/in.jsonl", "p/y/other.jsonl")
    names = [source.name for source in find_sources(InputSpec(path=str(tmp_path)))]
    assert names == ["x/in.jsonl", "y/in.jsonl", "other.jsonl"]


def test_a_file_uri_reads_like_a_path(tmp_path: Path) -> None:
    """A file:// URI works for files and globs, and its locations can be opened again."""
    touch(tmp_path, "a.jsonl")
    (source,) = find_sources(InputSpec(path=f"file://{tmp_path}/*.jsonl"))
    assert source.location == f"file://{tmp_path}/a.jsonl"
    with open_stream(source.location, None) as stream:
        assert stream.read() == b"{}\n"


@pytest.mark.parametrize(
    ("asked", "inner", "child", "expected"),
    [
        ("s3://b/a/*.csv?region=eu", "b/a/*.csv", "b/a/b c.csv", "s3://b/a/b%20c.csv?region=eu"),
        ("s3://b/a%20b/", "b/a b", "b/a b/c.csv", "s3://b/a%20b/c.csv"),
        ("gs://b", "b", "b/c.csv", "gs://b/c.csv"),
        ("hdfs://host:9000/a", "/a", "/a/c.csv", "hdfs://host:9000/a/c.csv"),
        ("/data", "/data", "/data/c d.csv", "/data/c d.csv"),
    ],
)
def test_a_file_below_a_uri_has_a_uri_of_its_own(asked: str, inner: str, child: str, expected: str) -> None:
    """A file found below a URI is addressed by a URI with the same host and query."""
    assert _location(asked, inner, child) == expected


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nowhere.jsonl", "no such file"),
        ("*.jsonl", "no supported file matches"),
        ("missing/*.jsonl", "no supported file matches"),
        ("notes.txt", "unknown kind of file"),
        ("a.parquet.gz", "unknown kind of file"),
        ("empty", "no supported file in this folder"),
    ],
)
def test_a_path_that_gives_nothing_is_refused_in_one_line(tmp_path: Path, name: str, words: str) -> None:
    """A path that leads to nothing readable is refused in one line that names it."""
    (tmp_path / "empty").mkdir()
    touch(tmp_path, "notes.txt", "a.parquet.gz")
    with pytest.raises(InputError) as caught:
        found(tmp_path, name)
    message = str(caught.value)
    assert words in message
    assert str(tmp_path / name) in message
    assert "\n" not in message


def test_an_unknown_scheme_is_refused_in_one_line() -> None:
    """An address of no known filesystem is an input error."""
    with pytest.raises(InputError, match="nope://x/y"):
        find_sources(InputSpec(path="nope://x/y.jsonl"))


def test_a_password_in_an_address_is_refused_and_not_repeated() -> None:
    """An address with a password is refused, because run directories store addresses."""
    with pytest.raises(InputError) as caught:
        find_sources(InputSpec(path="s3://key:hunter2@bucket/x.jsonl"))
    assert "hunter2" not in str(caught.value)


def test_the_fingerprint_is_equal_until_a_file_changes(tmp_path: Path) -> None:
    """The fingerprint stays equal as long as no file changes, and differs after."""
    touch(tmp_path, "a.jsonl", "b.jsonl")
    spec = InputSpec(path=str(tmp_path))
    before = fingerprint_sources(find_sources(spec))
    assert [entry["size"] for entry in before] == [3, 3]
    assert all(isinstance(entry["mtime_ns"], int) for entry in before)
    assert fingerprint_sources(find_sources(spec)) == before
    (tmp_path / "b.jsonl").write_bytes(gzip.compress(b"x", mtime=0))
    assert fingerprint_sources(find_sources(spec))[0] == before[0]
    assert fingerprint_sources(find_sources(spec))[1] != before[1]


@pytest.mark.parametrize("url", ["https://example.org/a.jsonl", "HTTP://example.org/a.jsonl"])
def test_a_web_address_is_refused_with_a_remedy(url: str) -> None:
    """PyArrow's own message would only be that it does not know such a filesystem."""
    with pytest.raises(
        InputError, match=r"takes no web addresses; download the file first, or pipe it into /dev/stdin$"
    ):
        find_sources(InputSpec(path=url))
