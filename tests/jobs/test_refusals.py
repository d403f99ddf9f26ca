"""Each fault of a job or its surroundings is one line before anything is sent."""

import os
import re
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.exit_status import Exit
from tests.jobs.console_script import Command, Job, written
from tests.rehearsed import Served

# Each function spoils the job or its surroundings.


def key_is_not_set(job: Job, folder: Path) -> None:
    os.environ.pop("NO_SUCH_KEY", None)
    job["models"][0]["endpoints"][0]["api_key_env"] = "NO_SUCH_KEY"
    job["models"][1]["endpoints"][0]["api_key_env"] = "NO_SUCH_KEY"


def nobody_listens(job: Job, folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        job["models"][1]["endpoints"][0]["url"] = f"http://127.0.0.1:{server.getsockname()[1]}/v1"


def url_holds_a_password(job: Job, folder: Path) -> None:
    job["models"][0]["endpoints"][0]["url"] = "https://me:sk-0123456789abcdef@host/v1"


def url_holds_a_key(job: Job, folder: Path) -> None:
    job["models"][0]["endpoints"][0]["url"] = "https://host/v1?api-version=1&api-key=sk-0123456789abcdef"


def no_url_anywhere(job: Job, folder: Path) -> None:
    del job["models"][0]["endpoints"]


def port_is_none(job: Job, folder: Path) -> None:
    job["models"][0]["endpoints"][0]["url"] = "http://127.0.0.1:http/v1"


def input_is_empty(job: Job, folder: Path) -> None:
    (folder / "prompts.jsonl").write_text("")


def input_is_missing(job: Job, folder: Path) -> None:
    job["input"]["path"] = "promts.jsonl"


def glob_matches_nothing(job: Job, folder: Path) -> None:
    job["input"]["path"] = "data/*.jsonl"


def input_is_an_empty_folder(job: Job, folder: Path) -> None:
    (folder / "data.jsonl").mkdir()
    job["input"]["path"] = "data.jsonl"


def input_loops(job: Job, folder: Path) -> None:
    (folder / "loop.jsonl").symlink_to("loop.jsonl")
    job["input"]["path"] = "loop.jsonl"


def input_is_of_another_kind(job: Job, folder: Path) -> None:
    (folder / "prompts.txt").write_text("p")
    job["input"]["path"] = "prompts.txt"


def input_is_no_parquet(job: Job, folder: Path) -> None:
    (folder / "prompts.parquet").write_text("not parquet")
    job["input"]["path"] = "prompts.parquet"


def input_is_no_gzip(job: Job, folder: Path) -> None:
    (folder / "prompts.jsonl.gz").write_text("not gzip")
    job["input"]["path"] = "prompts.jsonl.gz"


def output_is_below_a_file(job: Job, folder: Path) -> None:
    (folder / "out").write_text("a file")


def output_is_a_file_with_a_slash(job: Job, folder: Path) -> None:
    (folder / "results").write_text("a file")
    job["output"]["path"] = "results/"


def output_is_the_input(job: Job, folder: Path) -> None:
    job["output"] = {"path": "prompts.jsonl", "run_dir": "run"}


def output_is_in_the_input_folder(job: Job, folder: Path) -> None:
    job["input"]["path"] = "."
    job["output"] = {"path": "results.jsonl", "run_dir": "../elsewhere.run"}


def run_dir_is_in_the_input_folder(job: Job, folder: Path) -> None:
    (folder / "data").mkdir()
    (folder / "prompts.jsonl").rename(folder / "data" / "prompts.jsonl")
    job["input"]["path"] = "data"
    job["output"] = {"path": "out/results.jsonl", "run_dir": "data/run"}


def output_matches_the_input_glob(job: Job, folder: Path) -> None:
    job["input"]["path"] = "*.jsonl"
    job["output"] = {"path": "results.jsonl"}


def run_dir_holds_other_things(job: Job, folder: Path) -> None:
    (folder / "thesis").mkdir()
    (folder / "thesis" / "chapter.tex").write_text("years of work")
    job["output"]["run_dir"] = "thesis"


def run_dir_is_a_file(job: Job, folder: Path) -> None:
    (folder / "run").write_text("a file")
    job["output"]["run_dir"] = "run"


def output_holds_a_key(job: Job, folder: Path) -> None:
    job["output"]["path"] = "s3://key:hunter2@bucket/results.jsonl"


def output_is_nowhere(job: Job, folder: Path) -> None:
    job["output"]["path"] = "ftp://host/results.jsonl"


def rows_are_refused(job: Job, folder: Path) -> None:
    (folder / "prompts.jsonl").write_text('{"prompt": "good"}\n{"prompt": 7}\n')
    job["input"]["on_invalid"] = "fail"


def ids_are_refused(job: Job, folder: Path) -> None:
    (folder / "prompts.jsonl").write_text('{"id": "a", "prompt": "x"}\n{"id": "b", "prompt": "y"}\n' * 2)
    job["input"] |= {"on_invalid": "fail", "id_column": "id"}


def template_names_no_column(job: Job, folder: Path) -> None:
    job["input"]["prompt"] = "{question}"


def template_is_broken(job: Job, folder: Path) -> None:
    job["input"]["prompt"] = "{prompt"


def checkpoint_is_missing(job: Job, folder: Path) -> None:
    job["router"] = {"kind": "correctness", "checkpoint": "nowhere"}


def import_is_missing(job: Job, folder: Path) -> None:
    job["router"] = {"kind": "import", "path": "no_such_module:Router"}


def cap_without_price(job: Job, folder: Path) -> None:
    del job["models"][0]["price"]
    job["dispatch"] = {"budget_usd": 1}


SPOILT: dict[Callable[[Job, Path], None], tuple[str, ...]] = {
    key_is_not_set: (
        r"^models\.small\.endpoints\.0: the environment variable NO_SUCH_KEY is not set$",
        r"^models\.large\.endpoints\.0: the environment variable NO_SUCH_KEY is not set$",
    ),
    nobody_listens: (r"^model large: no connection to http://127\.0\.0\.1:\d+/v1: connection refused; is the server",),
    url_holds_a_password: (
        r"models\.0\.endpoints\.0\.url: the url holds a password or a key, which results would show",
    ),
    url_holds_a_key: (r"models\.0\.endpoints\.0\.url: the url holds a password or a key, which results would show",),
    no_url_anywhere: (r"^models\.small\.endpoints\.0 has no url: give one, or set COMPLETION_BASE_URL or OPENAI_",),
    port_is_none: (r"job\.yaml:6: models\.0\.endpoints\.0\.url: the url's host or port cannot be read",),
    input_is_empty: (r"prompts\.jsonl: .*no rows?",),
    input_is_missing: (r"promts\.jsonl: no such file; check input\.path$",),
    glob_matches_nothing: (r"data/\*\.jsonl: no supported file matches; input\.path takes ",),
    input_is_an_empty_folder: (
        r"data\.jsonl: no supported file in this folder, without names that begin with \. or _; input\.path takes ",
    ),
    input_loops: (r"loop\.jsonl: ",),
    input_is_of_another_kind: (r"prompts\.txt: unknown kind of file; input\.path takes \.jsonl",),
    input_is_no_parquet: (r"prompts\.parquet: is no Parquet file: ",),
    input_is_no_gzip: (r"prompts\.jsonl\.gz: its name says gzip, and it is not compressed with it",),
    output_is_below_a_file: (r"out/results\.jsonl.*; choose another output\.path$",),
    output_is_a_file_with_a_slash: (r"results/ asks for a folder, but is a file; leave out the last /$",),
    output_is_the_input: (r"^output\.path .*prompts\.jsonl: the results would replace the input; choose another",),
    output_is_in_the_input_folder: (
        r"^output\.path .*: the results would be read as input next time, from .*; choose",
    ),
    run_dir_is_in_the_input_folder: (r"^run directory .*/data/run: its files would be read as input next time, from ",),
    output_matches_the_input_glob: (
        r"^output\.path .*: the results would be read as input next time, from .*\*\.jsonl",
    ),
    run_dir_holds_other_things: (
        r"thesis: the folder holds other things \(chapter\.tex\) and no run; choose another ",
    ),
    run_dir_is_a_file: (r"run: a file is in the way; choose another output\.run_dir$",),
    output_holds_a_key: (r"^output\.path: holds a password or a key, which a run directory must not; use the env",),
    output_is_nowhere: (r"^output\.path ftp://host/results\.jsonl cannot be written: Unrecognized filesystem type",),
    rows_are_refused: (r"prompts\.jsonl:2: .*; input\.on_invalid is `fail`, so nothing was sent$",),
    ids_are_refused: (r"prompts\.jsonl.*: .*id.*; input\.on_invalid is `fail`, so nothing was sent$",),
    template_names_no_column: (r"'question'",),
    template_is_broken: (r"^input\.prompt: .*; write \{\{ and \}\} for braces in the text$",),
    checkpoint_is_missing: (r"nowhere",),
    import_is_missing: (r"no_such_module",),
    cap_without_price: (r"^dispatch\.budget_usd needs a price for small",),
}


@pytest.mark.parametrize("spoil", SPOILT, ids=lambda spoil: spoil.__name__)
def test_each_fault_is_one_line_and_nothing_is_sent(
    spoil: Callable[[Job, Path], None],
    command: Command,
    job: Job,
    served: Served,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The command ends with status 2, one line for each fault on stderr, nothing on stdout, and no request."""
    for name in ("COMPLETION_BASE_URL", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "in"
    folder.mkdir()
    (tmp_path / "prompts.jsonl").rename(folder / "prompts.jsonl")
    spoil(job, folder)
    ended = command("run", written(job, folder))
    assert ended.status == Exit.WRONG, ended.err
    assert "Traceback" not in ended.err
    assert ended.out == ""
    expected = SPOILT[spoil]
    assert len(ended.faults) == len(expected), ended.err
    for fault, said in zip(ended.faults, expected, strict=True):
        assert re.search(said, fault), fault
    assert served.posts == []


@pytest.mark.parametrize("key", ["sk-0123\n", " sk-0123", "sk-01\r\n23", "sk-“0123”", " "])
def test_a_key_that_no_header_takes_is_not_repeated(
    key: str, command: Command, job: Job, served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key with a line break or an odd character is refused before anything is sent, by its variable's name."""
    monkeypatch.setenv("ODD_KEY", key)
    job["models"][0]["endpoints"][0]["api_key_env"] = "ODD_KEY"
    ended = command("run", written(job, tmp_path))
    assert ended.status == Exit.WRONG
    (fault,) = ended.faults
    assert fault.startswith("models.small.endpoints.0: the environment variable ODD_KEY holds more than a key: a line ")
    assert "0123" not in ended.err
    assert served.posts == []


@pytest.mark.parametrize(
    ("url", "said"), [("host:80/v1", "starts with http:// or"), ("http://me:sk-0123@host/v1", "holds a password")]
)
def test_a_wrong_url_of_the_environment_is_one_line(
    url: str, said: str, command: Command, job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line names the environment variable and does not repeat a password."""
    monkeypatch.setenv("COMPLETION_BASE_URL", url)
    del job["models"][0]["endpoints"]
    ended = command("run", written(job, tmp_path))
    assert ended.status == Exit.WRONG
    (fault,) = ended.faults
    assert fault.startswith("models.small.endpoints.0: COMPLETION_BASE_URL in the environment: ")
    assert said in fault
    assert "sk-0123" not in fault


def test_another_jobs_run_directory_is_refused(command: Command, job: Job, served: Served, tmp_path: Path) -> None:
    """The line names the keys that differ, and nothing is sent; --fresh keeps the old run beside the new one."""
    path = written(job, tmp_path)
    assert command("run", path).status == Exit.OK
    served.forget()
    ended = command("run", path, "--set", "seed=1", "--set", "input.system=Be brief.")
    assert ended.status == Exit.WRONG
    (fault,) = ended.faults
    assert re.search(r"results\.jsonl\.run belongs to a job that differs in input\.system, seed; --fresh starts", fault)
    assert served.posts == []
    assert command("run", path, "--set", "seed=1", "--fresh").status == Exit.OK
    assert len(served.posts) == 3
    assert (tmp_path / "out" / "results.jsonl.run.1" / "run.json").exists()
