"""The fingerprint of a job: what is in it, and what is not."""

from copy import deepcopy
from typing import Any

import pytest

from batch.runs.fingerprint import changed, fingerprint
from schemas.job import JobSpec

INPUTS = [{"path": "in/a.jsonl", "size": 10, "mtime_ns": 5}]
JOB: dict[str, Any] = {
    "input": {"path": "in/a.jsonl", "params": {"temperature": 0, "stop": ["x"]}},
    "router": {"kind": "random"},
    "models": [
        {"name": "weak", "endpoints": [{"url": "http://a/v1"}, {"url": "http://b/v1", "model": "org/weak"}]},
        {"name": "strong", "aliases": ["s"]},
    ],
    "plan": {"strategy": "share", "strong": 0.5},
    "output": {"path": "out.jsonl"},
}


def job(changes: dict[str, Any]) -> JobSpec:
    """The job with some dotted keys set."""
    spec = deepcopy(JOB)
    for dotted, value in changes.items():
        *path, last = dotted.split(".")
        at: Any = spec
        for key in path:
            at = at[int(key)] if isinstance(at, list) else at.setdefault(key, {})
        at[int(last) if isinstance(at, list) else last] = value
    return JobSpec.model_validate(spec)


ORIGINAL = fingerprint(job({}), INPUTS, "abc")


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "renamed"},
        {"engine": "inline"},
        {"ray.address": "auto"},
        {"input.path": "./in/../in/a.jsonl"},
        {"models.0.endpoints.0": {"url": "http://elsewhere/v1", "weight": 3, "limits": {"rpm": 9}, "api_key_env": "K"}},
        {"models.0.price": {"input": 1, "output": 2}},
        {"router.batch_tokens": 77},
        {"router.actors": 2},
        {"dispatch.balancer": "random"},
        {"dispatch.max_attempts": 1},
        {"dispatch.timeout_seconds": 1},
        {"dispatch.on_ambiguous": "fail"},
        {"dispatch.budget_usd": 1},
        {"output.path": "elsewhere.jsonl"},
        {"plan": {"strategy": "cutoff", "cutoff": 0.3}},
    ],
)
def test_pace_money_and_places_do_not_make_another_run(changes: dict[str, Any]) -> None:
    """Settings that change no answer do not change the hash."""
    assert fingerprint(job(changes), INPUTS, "abc").hash == ORIGINAL.hash


@pytest.mark.parametrize(
    ("changes", "keys"),
    [
        ({"seed": 1}, ["seed"]),
        ({"input.prompt": "{q}"}, ["input.prompt"]),
        ({"input.params.temperature": 1}, ["input.params.temperature"]),
        ({"input.params.top_p": 1}, ["input.params.top_p"]),
        ({"input.limit": 5}, ["input.limit"]),
        ({"router": {"kind": "constant"}}, ["router.kind", "router.value"]),
        ({"models.1.name": "stronger"}, None),
        ({"models.1.aliases": []}, ["models.strong.aliases"]),
        ({"models.0.endpoints.1.model": "other"}, ["models.weak.endpoints.model"]),
        ({"dispatch.dedup": "on"}, ["dispatch.dedup"]),
        ({"output.format": "parquet"}, ["output.format"]),
        ({"output.carry": False}, ["output.carry"]),
    ],
)
def test_settings_that_change_answers_make_another_run(changes: dict[str, Any], keys: list[str] | None) -> None:
    """A setting that changes answers changes the hash, and is named as the job file spells it."""
    other = fingerprint(job(changes), INPUTS, "abc")
    assert other.hash != ORIGINAL.hash
    named = changed(ORIGINAL.parts, other.parts)
    assert named == keys if keys is not None else "models" in named


def test_the_order_of_models_counts() -> None:
    """The order of the models, cheapest first, changes answers."""
    turned = fingerprint(job({"models": JOB["models"][::-1]}), INPUTS, "abc")
    assert changed(ORIGINAL.parts, turned.parts) == ["models"]


def test_inputs_and_checkpoint_count() -> None:
    """A touched input or another checkpoint is another run; the same file elsewhere is not."""
    touched = fingerprint(job({}), [{**INPUTS[0], "mtime_ns": 6}], "abc")
    assert changed(ORIGINAL.parts, touched.parts) == ["input.files"]
    assert changed(ORIGINAL.parts, fingerprint(job({}), INPUTS, "abd").parts) == ["router.checkpoint.files"]
    moved = fingerprint(job({}), [{**INPUTS[0], "path": "/data/a.jsonl"}], "abc")
    assert moved.hash == ORIGINAL.hash


def test_a_changed_plan_is_found_without_the_hash() -> None:
    """The plan is not in the hash; its changes are found separately."""
    other = fingerprint(job({"plan.strong": 0.4}), INPUTS, "abc")
    assert other.hash == ORIGINAL.hash
    assert changed(ORIGINAL.plan, other.plan) == ["plan.strong"]


def test_a_run_begun_before_a_key_existed_goes_on() -> None:
    """Keys of `input` that were added later are in the fingerprint only if they ask for something new."""
    assert {"input.shape", "input.row_params"}.isdisjoint(ORIGINAL.parts)
    for key, value in {"input.shape": "embeddings", "input.row_params": "ignore"}.items():
        assert changed(ORIGINAL.parts, fingerprint(job({key: value}), INPUTS, "abc").parts) == [key]


def test_a_routers_checkpoint_may_move() -> None:
    """Only the name of a router's file counts, even in older manifests, since a hash stands for its content."""
    here, there, other = (
        fingerprint(job({"router": {"kind": "knn", "checkpoint": path}}), INPUTS, "abc")
        for path in ("/a/b/mine", "/c/mine", "/c/other")
    )
    assert here.hash == there.hash
    assert changed({**here.parts, "router.checkpoint": "/a/b/mine"}, there.parts) == []
    assert changed(here.parts, other.parts) == ["router.checkpoint"]
