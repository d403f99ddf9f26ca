"""Each fault of a job file is one line: file, line, key, what to do."""

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from pydantic import ValidationError

from batch.errors import SpecError
from jobs.files.yaml_specs import load_job
from schemas.job import DispatchSpec
from schemas.plans import SharePlanSpec
from schemas.routers import CorrectnessRouterSpec

JOB = """\
name: table
engine: inline
input:
  path: prompts.jsonl
router: {kind: random}
models:
  - name: small
    endpoints:
      - url: http://127.0.0.1:9/v1
  - name: large
plan: {strategy: share, strong: 0.5}
dispatch:
  balancer: least_connections
output: {path: out/results.jsonl}
"""


def written(folder: Path, text: str = JOB) -> Path:
    path = folder / "job.yaml"
    path.write_text(text)
    return path


def faults(path: Path, settings: Sequence[str] = ()) -> list[str]:
    """The lines of the refusal."""
    with pytest.raises(SpecError) as caught:
        load_job(path, settings)
    return str(caught.value).splitlines()


def test_the_job_that_the_others_are_spoilt_from_is_good(tmp_path: Path) -> None:
    """The job loads, and its paths are relative to its own folder."""
    job = load_job(written(tmp_path))
    assert job.input.path == str(tmp_path / "prompts.jsonl")
    assert job.output.path == str(tmp_path / "out/results.jsonl")


def test_a_hub_id_stays_what_it_is(tmp_path: Path) -> None:
    """A checkpoint is a path of the job's folder if it exists there, or if it begins with a dot or a tilde."""
    (tmp_path / "mine").mkdir()
    for given, meant in (
        ("routellm/mf_gpt4_augmented", "routellm/mf_gpt4_augmented"),
        ("mine", str(tmp_path / "mine")),
        ("./absent", str(tmp_path / "absent")),
        ("~/absent", str(Path.home() / "absent")),
    ):
        job = load_job(written(tmp_path, JOB.replace("{kind: random}", f"{{kind: correctness, checkpoint: {given}}}")))
        assert isinstance(job.router, CorrectnessRouterSpec)
        assert job.router.checkpoint == meant


SPOILT = {
    "not YAML": ("models:\n", "models: [\n", r":\d+: not valid YAML: "),
    "a tab": ("  path: prompts", "\tpath: prompts", r":4: not valid YAML: .*'\\t'"),
    "a key twice": ("router: {kind: random}", "name: again", r":5: not valid YAML: the key 'name' is there twice"),
    "a key that cannot be one": (
        "name: table",
        "[a]: table",
        r":1: not valid YAML: a list or a mapping cannot be a key",
    ),
    "a date that is none": ("name: table", "name: 2024-13-45", r":1: not valid YAML: 2024-13-45 is no date"),
    "a key that is a number": ("name: table", "1: table", r":1: 1: keys should be strings, not 1$"),
    "unknown key": ("engine: inline", "engin: inline", r":2: engin: unknown key 'engin'; did you mean 'engine'\?"),
    "unknown nested key": (
        "- url:",
        "- urll:",
        r":9: models\.0\.endpoints\.0\.urll: unknown key 'urll'; did you mean 'url'\?",
    ),
    "missing key": ("  path: prompts.jsonl", "  limit: 5", r":3: input\.path: 'path' is missing"),
    "a template without quotes": (
        "  path: prompts.jsonl",
        "  path: prompts.jsonl\n  prompt: {question}",
        r":\d+: input\.prompt: .*braces without quotes for a mapping; write the template as '\"\{question\}\"'",
    ),
    "missing section": ("output: {path: out/results.jsonl}", "", r":1: output: 'output' is missing"),
    "wrong type": ("strong: 0.5", "strong: half", r":11: plan\.strong: input should be a valid number.*'half'"),
    "out of range": ("strong: 0.5", "strong: 1.5", r":11: plan\.strong: .*less than or equal to 1, not 1\.5"),
    "unknown router": (
        "kind: random",
        "kind: randon",
        r":5: router: unknown kind 'randon' \(did you mean 'random'\?\)",
    ),
    "router without kind": ("{kind: random}", "{}", r":5: router: .*kind.* is missing"),
    "unknown plan": ("strategy: share", "strategy: shares", r":11: plan: unknown strategy 'shares'.*'share'"),
    "unknown balancer": (
        "balancer: least_connections",
        "balancer: fair",
        r":13: dispatch\.balancer: .*'least_connections'.*, not 'fair'",
    ),
    "unknown plan model": (
        "{strategy: share, strong: 0.5}",
        "{strategy: pin, model: huge}",
        r": plan\.model 'huge' is not among the models: small, large",
    ),
    "unknown fallback": (
        "balancer: least_connections",
        "fallbacks: {small: [huge]}",
        r"dispatch\.fallbacks names 'huge', which is not among the models: small, large",
    ),
    "one model twice": ("name: large", "name: small", r"two models are called 'small'"),
    "a url of another kind": ("http://127", "ftp://127", r":9: models\.0\.endpoints\.0\.url: .*http:// or https://"),
}


@pytest.mark.parametrize("spoilt", SPOILT)
def test_each_fault_is_one_line_with_file_and_line(spoilt: str, tmp_path: Path) -> None:
    """The line begins with the file, says where, and repeats what is wrong."""
    good, bad, said = SPOILT[spoilt]
    assert good in JOB
    path = written(tmp_path, JOB.replace(good, bad, 1))
    lines = faults(path)
    assert len(lines) == 1
    assert lines[0].startswith(str(path))
    assert re.search(said, lines[0]), lines[0]


def test_all_faults_are_reported_at_once(tmp_path: Path) -> None:
    """Two faults are two lines, each with its own line number."""
    lines = faults(written(tmp_path, JOB.replace("engine: inline", "engin: ray").replace("strong: 0.5", "strong: 2")))
    assert {re.search(r":(\d+): ", line)[1] for line in lines} == {"2", "11"}  # type: ignore[index]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is a mapping of keys"),
        (b"- just\n- a list\n", "is a mapping of keys"),
        (b"just text\n", "is a mapping of keys"),
        (b"name: \xff\n", "not UTF-8 text at byte 6"),
        (b"name: \x00\n", "not valid YAML: "),
        (b"name: !!python/object/apply:os.getcwd []\n", "not valid YAML: "),
    ],
)
def test_a_file_that_is_no_job_is_refused(content: bytes, said: str, tmp_path: Path) -> None:
    """Whatever bytes the file holds, the refusal is one line."""
    path = tmp_path / "job.yaml"
    path.write_bytes(content)
    (line,) = faults(path)
    assert line.startswith(str(path))
    assert said in line


def test_a_missing_job_file_is_refused(tmp_path: Path) -> None:
    """The file with the most similar name is proposed; a folder cannot be read."""
    written(tmp_path)
    (line,) = faults(tmp_path / "jbo.yaml")
    assert line.endswith(f"no such file; did you mean {tmp_path / 'job.yaml'}?")
    (line,) = faults(tmp_path)
    assert "cannot be read" in line


def test_settings_replace_values_of_the_file(tmp_path: Path) -> None:
    """Dotted keys lead into mappings and lists, and a missing section is made."""
    job = load_job(
        written(tmp_path), ["plan.strong=0.3", "models.1.price.input=1", "models.1.price.output=2", "seed=7"]
    )
    assert isinstance(job.plan, SharePlanSpec)
    assert (job.plan.strong, job.seed) == (0.3, 7)
    assert job.models[1].price is not None


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("plan.strong", r"^--set 'plan\.strong': write it as key\.key=value$"),
        ("=5", r"^--set '=5': write it as key\.key=value$"),
        ("plan.strong=[", r"^--set plan\.strong: the value '\[' is not valid YAML: "),
        ("models.2.name=x", r"^--set models\.2\.name: models has items 0 to 1, not '2'$"),
        ("models.first.name=x", r"^--set models\.first\.name: models has items 0 to 1, not 'first'$"),
        ("name.x=1", r"^--set name\.x: name holds a value, not keys$"),
        ("plan.strnog=0.4", r"plan\.strnog: unknown key 'strnog'; did you mean 'strong'\?$"),
        ("input.prompt={q} {r}", r"^--set input\.prompt: the value '\{q\} \{r\}' is not valid YAML"),
        ("input.prompt={q}", r"input\.prompt: YAML takes braces without quotes for a mapping; write the template as"),
        ("plan.strong=half", r"plan\.strong: .*'half'$"),
        ("input=", r"input: .*"),
        ("plan={a: 1, a: 2}", r"^--set plan: the value .* is not valid YAML: the key 'a' is there twice$"),
    ],
)
def test_a_wrong_setting_is_one_line(setting: str, said: str, tmp_path: Path) -> None:
    """The line names the setting, or the key that it made wrong."""
    (line,) = faults(written(tmp_path), [setting])
    assert re.search(said, line), line


@pytest.mark.parametrize("word", ["on", "off", "auto"])
def test_dedup_takes_words_that_yaml_has_a_meaning_for(tmp_path: Path, word: str) -> None:
    """A bare `on` or `off`, which YAML reads as a truth value, is taken as the word."""
    text = JOB.replace("  balancer: least_connections\n", f"  dedup: {word}\n")
    assert load_job(written(tmp_path, text)).dispatch.dedup == word


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("90 min", 5400.0),
        ("6 h", 21600.0),
        ("2d", 172800.0),
        ("1.5 H", 5400.0),
        ("45s", 45.0),
        (30, 30.0),
        (".5", None),
    ],
)
def test_a_wait_is_written_with_a_unit_or_in_seconds(written: str | int, seconds: float | None) -> None:
    """Anything else is refused, with what to write."""
    if seconds is not None:
        assert DispatchSpec.model_validate({"longest_wait": written}).longest_wait == seconds
    else:
        with pytest.raises(ValidationError, match="is no duration; write seconds, or a number and s, min, h or d"):
            DispatchSpec.model_validate({"longest_wait": written})
