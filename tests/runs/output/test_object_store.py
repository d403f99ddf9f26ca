"""Writing the output to an object store."""

import json
import os
import signal
from collections.abc import Iterator
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from threading import Event
from typing import Literal

import pyarrow.fs
import pyarrow.parquet as pq
import pytest

from batch.errors import SpecError, StorageError
from batch.runs.layout import Layout
from batch.runs.manifest import Manifest
from batch.runs.output.local import check_output_writable, write_local_output, write_output
from batch.runs.output.object_store import MANIFEST, RemoteManifest, Store, _BoundedStream, open_store
from schemas.job import OutputSpec
from tests.e2e.object_store import BUCKET, ObjectStore, object_store
from tests.runs.output.test_local import run

Format = Literal["jsonl", "parquet", "openai_batch"]
FORMATS: tuple[Format, ...] = ("jsonl", "parquet", "openai_batch")
FINGERPRINT = "0123456789abcdef0123456789abcdef"

# More requests than any upload needs: the test stops once an upload ends before the request to be refused.
MANY = 60


@pytest.fixture(scope="module")
def server() -> Iterator[ObjectStore]:
    with object_store() as (running, environ), pytest.MonkeyPatch.context() as patch:
        for name, value in environ.items():
            patch.setenv(name, value)
        yield running


@pytest.fixture
def store(server: ObjectStore) -> ObjectStore:
    """An object store with an empty bucket."""
    server.obey()
    filesystem, _ = pyarrow.fs.FileSystem.from_uri(f"s3://{BUCKET}")
    filesystem.delete_dir_contents(BUCKET)
    return server


def committed(folder: Path, output: OutputSpec) -> Layout:
    """A run directory with two committed shards of three rows, two of which failed."""
    layout = run(folder, output)
    manifest = Manifest(job="nightly", created="", batchrouter="", fingerprint=FINGERPRINT, parts={}, plan={})
    layout.manifest.write_text(manifest.model_dump_json())
    return layout


def check_whole(objects: dict[str, bytes]) -> RemoteManifest:
    """Check that every part that the manifest names exists with the rows, size and hash that it states."""
    manifest = RemoteManifest.model_validate_json(objects[MANIFEST])
    for part in (*manifest.parts, *manifest.errors):
        assert len(objects[part.name]) == part.bytes
        assert sha256(objects[part.name]).hexdigest() == part.sha256
    return manifest


@pytest.mark.parametrize("format_", FORMATS)
def test_a_folder_gets_parts_named_by_content_and_a_manifest(
    store: ObjectStore, tmp_path: Path, format_: Format
) -> None:
    """The objects hold what a local folder's files hold; the manifest names them in order, with rows and sums."""
    output = OutputSpec(path=f"s3://{BUCKET}/out/", format=format_)
    assert write_output(committed(tmp_path, output), [0, 1], output) == output.path
    objects = store.objects("out")
    manifest = check_whole(objects)
    named = [part.name for part in (*manifest.parts, *manifest.errors)]
    assert sorted(objects) == sorted([MANIFEST, *named])
    local = OutputSpec(path=f"{tmp_path}/out/", format=format_)
    files = {path.name: path for path in write_local_output(Layout(tmp_path / "run"), [0, 1], local)}
    if format_ == "parquet":
        contents = [pq.read_table(path).to_pylist() for path in files.values()]
        assert [pq.read_table(BytesIO(objects[name])).to_pylist() for name in named] == contents
    else:
        assert {objects[name] for name in named} == {path.read_bytes() for path in files.values()}
    for name, part in zip(named, (*manifest.parts, *manifest.errors), strict=True):
        shard, _, rest = name.removeprefix("part-").partition("-")
        assert f"part-{shard}.{rest.partition('.')[2]}" in files
        assert part.sha256.startswith(rest.partition(".")[0])
    assert [part.name[:11] for part in manifest.parts] == ["part-00000-", "part-00001-"]
    assert (manifest.job, manifest.fingerprint, manifest.format) == ("nightly", FINGERPRINT, format_)
    assert [part.rows for part in manifest.parts] == ([1, 1] if format_ == "openai_batch" else [3, 3])
    assert [part.rows for part in manifest.errors] == ([2, 2] if format_ == "openai_batch" else [])
    assert manifest.rows == sum(part.rows for part in manifest.parts)
    assert manifest.bytes == sum(part.bytes for part in manifest.parts)


@pytest.mark.parametrize("format_", FORMATS)
def test_a_file_is_one_object(store: ObjectStore, tmp_path: Path, format_: Format) -> None:
    """An object equals the local file byte for byte; a format with an error file has a second object."""
    ending = "parquet" if format_ == "parquet" else "jsonl"
    output = OutputSpec(path=f"s3://{BUCKET}/deep/in/results.{ending}", format=format_)
    write_output(committed(tmp_path, output), [0, 1], output)
    local = OutputSpec(path=f"{tmp_path}/out/results.{ending}", format=format_)
    files = write_local_output(Layout(tmp_path / "run"), [0, 1], local)
    assert store.objects("deep/in") == {path.name: path.read_bytes() for path in files}


def _refused(layout: Layout, output: OutputSpec) -> str | None:
    """Write the output and return the message of the error, if there is one."""
    try:
        write_output(layout, [0, 1], output)
    except StorageError as error:
        return str(error)
    return None


@pytest.mark.parametrize("place", ["out/", "out/results.jsonl"])
def test_a_request_refused_anywhere_is_made_up_for(store: ObjectStore, tmp_path: Path, place: str) -> None:
    """Whichever request is refused, the error is one line, no partial object appears, and the next try succeeds."""
    output = OutputSpec(path=f"s3://{BUCKET}/{place}", format="openai_batch")
    layout = committed(tmp_path, output)
    write_output(layout, [0, 1], output)
    expected = store.objects("out")
    write_output(layout, [0], output)
    older = store.objects("out")
    assert older != expected
    for at in range(1, MANY):
        store.refuse(at)
        said = _refused(layout, output)
        store.obey()
        if said is None:
            break
        assert "ACCESS_DENIED" in said
        assert "\n" not in said
        seen = store.objects("out")
        if place.endswith("/"):
            check_whole(seen)
        else:
            assert all(content in (older.get(name), expected[name]) for name, content in seen.items())
        write_output(layout, [0, 1], output)
        assert store.objects("out") == expected
        write_output(layout, [0], output)
    assert 3 < at < MANY - 1


def test_parts_that_are_there_are_not_uploaded_again(store: ObjectStore, tmp_path: Path) -> None:
    """A second upload sends only the manifest; each object takes three requests."""
    output = OutputSpec(path=f"s3://{BUCKET}/out/")
    layout = committed(tmp_path, output)
    store.obey()
    write_output(layout, [0, 1], output)
    assert store.obey() == 9
    write_output(layout, [0, 1], output)
    assert store.obey() == 3


def test_parts_that_are_not_named_go_and_other_files_stay(store: ObjectStore, tmp_path: Path) -> None:
    """An earlier, longer run's part is removed; the user's own objects are not, however they are called."""
    output = OutputSpec(path=f"s3://{BUCKET}/out/")
    layout = committed(tmp_path, output)
    write_output(layout, [0, 1], output)
    gone = check_whole(store.objects("out")).parts[1].name
    folder, _ = open_store(output.path)
    for name in ("notes.txt", "part-list.jsonl", "part-00001.jsonl"):
        with folder.writing(name) as file:
            file.write(b"mine")
    write_output(layout, [0], output)
    left = store.objects("out")
    assert gone not in left
    assert set(left) == {MANIFEST, check_whole(left).parts[0].name, "notes.txt", "part-list.jsonl", "part-00001.jsonl"}


def _break_off(folder: Store, name: str, size: int) -> None:
    with folder.writing(name) as file:
        file.write(bytes(size))
        raise EOFError


@pytest.mark.parametrize("size", [0, 100, 12 << 20])
def test_an_upload_that_breaks_off_is_never_seen(store: ObjectStore, size: int) -> None:
    """If an upload fails after any number of bytes, the older object stays; if there is none, no object appears."""
    folder, _ = open_store(f"s3://{BUCKET}/out/")
    with folder.writing("older") as file:
        file.write(b"whole")
    for name in ("older", "newer"):
        with pytest.raises(EOFError):
            _break_off(folder, name, size)
    assert store.objects("out") == {"older": b"whole"}


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Make Ctrl-C interrupt this process, even if a shell started it in the background, where it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("at", [1, 2, 3])
def test_ctrl_c_at_any_request_leaves_no_half_object(store: ObjectStore, tmp_path: Path, at: int) -> None:
    """An object whose upload was interrupted at any point is missing or whole; the next try makes it whole."""
    output = OutputSpec(path=f"s3://{BUCKET}/out/results.jsonl")
    layout = committed(tmp_path, output)
    expected = b"".join(layout.part(shard, "jsonl").read_bytes() for shard in (0, 1))
    store.signal(at, signal.SIGINT, os.getpid())
    with pytest.raises(KeyboardInterrupt):
        write_output(layout, [0, 1], output)
    assert store.objects("out") in ({}, {"results.jsonl": expected})
    write_output(layout, [0, 1], output)
    assert store.objects("out") == {"results.jsonl": expected}


def test_memory_does_not_grow_with_a_file(tmp_path: Path) -> None:
    """A writer that is faster than the network waits for it every 16 MiB, so its buffer stays bounded."""
    waited_at = []

    class Stream(BytesIO):
        def flush(self) -> None:
            waited_at.append(self.tell())

    target = _BoundedStream(Stream(), Event())
    for _ in range(40):
        assert target.write(bytes(1 << 20)) == 1 << 20
    assert waited_at == [16 << 20, 32 << 20]


def test_where_files_are_seen_while_they_grow_they_are_renamed(tmp_path: Path) -> None:
    """On a filesystem with renames, an older file stays until the new one is whole."""
    folder = Store(pyarrow.fs.LocalFileSystem(), str(tmp_path), renames=True)
    (tmp_path / "a").write_bytes(b"older")
    with folder.writing("a") as file:
        file.write(b"newer")
        assert (tmp_path / "a").read_bytes() == b"older"
    assert (tmp_path / "a").read_bytes() == b"newer"
    assert folder.sizes() == {"a": 5}


def test_a_file_uri_is_a_local_path(tmp_path: Path) -> None:
    """An output with `file://` is written like any local path."""
    output = OutputSpec(path=f"file://{tmp_path}/out%20here/")
    check_output_writable(output)
    write_output(run(tmp_path, output), [0, 1], output)
    assert sorted(path.name for path in (tmp_path / "out here").iterdir()) == ["part-00000.jsonl", "part-00001.jsonl"]


def test_a_store_that_can_be_written_is_left_as_it_was(store: ObjectStore) -> None:
    """Checking whether the output can be written leaves no object behind."""
    folder, _ = open_store(f"s3://{BUCKET}/out/")
    with folder.writing("results.jsonl") as file:
        file.write(b"older")
    for path in ("out/results.jsonl", "out/", "new/", "new.jsonl", ""):
        check_output_writable(OutputSpec(path=f"s3://{BUCKET}/{path}"))
    assert store.objects() == {"out/results.jsonl": b"older"}


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("s3://nowhere/out/", "NO_SUCH_BUCKET"),
        (f"s3://{BUCKET}", "names no file; end it with /"),
        (f"s3://{BUCKET}/folder", "is a folder; end it with /"),
        (f"s3://key:hunter3@{BUCKET}/out/", "use the environment"),
        (f"s3://{BUCKET}/out/?secret_key=hunter3", "use the environment"),
        (f"s3://{BUCKET}/out/?reg=eu", "Unexpected query parameter"),
        (f"s3://{BUCKET}/two words/", "Cannot parse URI"),
        ("ftp://host/out/", "Unrecognized filesystem type"),
    ],
)
def test_an_output_that_cannot_be_is_refused_in_one_line(store: ObjectStore, path: str, said: str) -> None:
    """An output that cannot be written is refused before anything is sent, in a message without secrets."""
    folder, _ = open_store(f"s3://{BUCKET}/folder/")
    with folder.writing("file") as file:
        file.write(b"theirs")
    with pytest.raises(SpecError) as caught:
        check_output_writable(OutputSpec(path=path))
    text = str(caught.value)
    assert text.startswith("output.path")
    assert said in text
    assert "\n" not in text
    assert "hunter" not in text


@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_a_store_that_may_not_be_written_or_cleared_is_refused(store: ObjectStore, at: int) -> None:
    """A missing permission to create, send, complete or delete is refused in one line, before anything is sent."""
    store.refuse(at)
    with pytest.raises(SpecError, match="ACCESS_DENIED") as caught:
        check_output_writable(OutputSpec(path=f"s3://{BUCKET}/out/"))
    assert "\n" not in str(caught.value)


def test_the_manifest_is_plain_json(store: ObjectStore, tmp_path: Path) -> None:
    """The manifest has the documented keys, so that any program can read it."""
    output = OutputSpec(path=f"s3://{BUCKET}/out/")
    write_output(committed(tmp_path, output), [0, 1], output)
    found = json.loads(store.objects("out")[MANIFEST])
    assert list(found) == ["job", "fingerprint", "format", "rows", "bytes", "parts", "errors"]
    assert list(found["parts"][0]) == ["name", "rows", "bytes", "sha256"]
