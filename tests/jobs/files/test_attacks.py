"""Job files that are valid YAML but hostile or odd: each is refused in one line, or read as its author meant."""

import math
from pathlib import Path

import pytest

from batch.errors import SpecError
from batch.runs.layout import Layout, file_name
from jobs.files.yaml_specs import load_job
from schemas.job import LONGEST_TIMEOUT_SECONDS
from tests.jobs.files.test_yaml_specs import JOB, faults, written


@pytest.mark.parametrize("key", ["rpm", "tpm", "input_tpm", "output_tpm", "max_in_flight"])
def test_infinity_as_a_limit_means_that_there_is_none(tmp_path: Path, key: str) -> None:
    """Users write `.inf` if nothing is limited."""
    job = load_job(written(tmp_path), [f"models.0.endpoints.0.limits.{key}=.inf"])
    assert getattr(job.models[0].endpoints[0].limits, key) is None


def test_an_infinite_budget_and_number_of_rows_mean_none(tmp_path: Path) -> None:
    """`.inf` also means none for other bounds that may be left out."""
    job = load_job(written(tmp_path), ["dispatch.budget_usd=.inf", "input.limit=.inf"])
    assert job.dispatch.budget_usd is None
    assert job.input.limit is None


def test_an_infinite_timeout_is_the_longest_that_timers_take(tmp_path: Path) -> None:
    """It is a week; a longer timeout is refused, because HTTP clients cannot hold it."""
    job = load_job(written(tmp_path), ["dispatch.timeout_seconds=.inf"])
    assert job.dispatch.timeout_seconds == LONGEST_TIMEOUT_SECONDS < math.inf
    (line,) = faults(written(tmp_path), ["dispatch.timeout_seconds=1e300"])
    assert "dispatch.timeout_seconds: input should be less than or equal to 604800" in line


@pytest.mark.parametrize("value", ["-.inf", ".nan", "0"])
def test_other_odd_numbers_are_refused(tmp_path: Path, value: str) -> None:
    """Only plus infinity is accepted as a limit."""
    (line,) = faults(written(tmp_path), [f"models.0.endpoints.0.limits.rpm={value}"])
    assert "models.0.endpoints.0.limits.rpm" in line


ANCHORED = """\
engine: inline
x-common: &common
  price: {input: 1, output: 2}
x-endpoint: &endpoint {url: http://127.0.0.1:9/v1, limits: {rpm: 5}}
input: {path: prompts.jsonl}
models:
  - <<: *common
    name: small
    endpoints: [*endpoint, {<<: *endpoint, url: http://127.0.0.1:10/v1}]
  - {<<: [*common], name: large}
plan: {strategy: pin, model: small}
output: {path: out/results.jsonl}
"""


def test_anchors_merge_keys_and_their_places_work(tmp_path: Path) -> None:
    """A mapping is written once and merged several times; a mapping's own key takes precedence over a merged one."""
    small, large = load_job(written(tmp_path, ANCHORED)).models
    assert small.price == large.price
    assert small.price is not None
    assert small.price.output == 2
    assert [endpoint.url for endpoint in small.endpoints] == ["http://127.0.0.1:9/v1", "http://127.0.0.1:10/v1"]
    assert [endpoint.limits.rpm for endpoint in small.endpoints] == [5, 5]


def test_a_fault_in_a_merged_mapping_names_the_line_where_it_stands(tmp_path: Path) -> None:
    """The line is that of the anchor's key, where the fault has to be mended."""
    lines = faults(written(tmp_path, ANCHORED.replace("output: 2", "output: -2")))
    assert any(":3: models.0.price.output: " in line for line in lines)


def test_a_key_twice_beside_a_merge_is_still_refused(tmp_path: Path) -> None:
    """A merge does not hide a key that is there twice, and does not itself count as a second one."""
    (line,) = faults(written(tmp_path, ANCHORED.replace("name: small", "name: small\n    name: other")))
    assert ":9: not valid YAML: the key 'name' is there twice" in line


def bomb(levels: int) -> str:
    """Lists of nine aliases each: nine to the power of `levels` values."""
    first = "x-0: &x0 [0, 0, 0, 0, 0, 0, 0, 0, 0]\n"
    return first + "".join(f"x-{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 9)}]\n" for n in range(1, levels))


def merge_bomb(levels: int) -> str:
    """Mappings that merge the one before twice: PyYAML would hold two to the power of `levels` keys."""
    first = "x-0: &x0 {k0: 0}\n"
    return first + "".join(f"x-{n}: &x{n} {{<<: [*x{n - 1}, *x{n - 1}], k{n}: 0}}\n" for n in range(1, levels))


ATTACKS = {
    "a list in itself": ("x-a: &a [*a]\n" + JOB, ":1: .*refers to the anchor itself"),
    "a mapping in itself": (JOB.replace("input:\n", "input: &i\n  params: {x: *i}\n"), ":3: .*refers to the anchor"),
    "nine to the power of twelve values": (bomb(12) + JOB, r":\d+: .*more than 200,000 values"),
    "two to the power of thirty keys": (merge_bomb(30) + JOB, r":\d+: .*more than 200,000 values"),
    "3,000 levels": (JOB.replace("inline", "[" * 3000 + "]" * 3000), ":2: .*more than 64 levels of nesting"),
    "a NUL in a path": (JOB.replace("prompts.jsonl", r'"p\0.jsonl"'), r":4: .*holds the character '\\x00'"),
    "half a surrogate pair in a path": (JOB.replace("prompts.jsonl", r'"\ud800"'), r":4: .*'\\ud800'"),
    "half a surrogate pair in a key": (JOB.replace("name:", r'"n\udfff":', 1), r":1: .*'\\udfff'"),
    "a number of 5,000 digits": ("seed: " + "9" * 5000 + "\n" + JOB, ":1: .*more digits than can be read"),
    "merging a number": (JOB + "<<: 5\n", r":15: .*expected a mapping"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_one_line_with_its_place(tmp_path: Path, name: str) -> None:
    """The refusal is one line with file, line and fault, without a traceback or gigabytes of memory."""
    text, expected = ATTACKS[name]
    with pytest.raises(SpecError, match=expected) as caught:
        load_job(written(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_a_setting_is_checked_as_the_file_is(tmp_path: Path) -> None:
    """Values of `--set` are YAML too, and are checked in the same way."""
    (line,) = faults(written(tmp_path), [r'input.path="a\0b"'])
    assert line.startswith("--set input.path: ")
    assert "'\\x00'" in line


@pytest.mark.parametrize("model", [".small.tmp", ".tmp", "..tmp", "....tmp"])
def test_a_model_called_like_a_temporary_file_keeps_its_files(model: str) -> None:
    """Files of killed writers are removed by their name, `.*.tmp`; a model's folder must not have such a name."""
    folder = Layout(Path("run")).routed(model, 0).parent.name
    assert not (folder.startswith(".") and folder.endswith(".tmp"))
    assert len({file_name(model), file_name("small"), file_name("tmp")}) == 3
