"""Embedders that are a user's own class."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from batch.errors import SpecError
from batch.routers.embedders.imported import ImportedEmbedder
from batch.routers.registry import build_router, trained_encoder
from batch.runs.fingerprint import changed, fingerprint
from schemas.embedders import ImportEmbedderSpec
from schemas.job import JobSpec
from schemas.routers import CorrectnessRouterSpec, MfRouterSpec
from tests.routers.conftest import PAIR
from tests.routers.embedders.endpoint_checkpoint import write_checkpoint

HERE = "tests.routers.thirdparty"


def spec(name: str = "CountsCharacters", **options: Any) -> ImportEmbedderSpec:
    return ImportEmbedderSpec(kind="import", path=f"{HERE}:{name}", options=options)


def router(folder: Path, embedder: ImportEmbedderSpec) -> CorrectnessRouterSpec:
    encoder = {"kind": "import", "name": f"{HERE}:CountsCharacters", "max_tokens": None, "dimension": 8}
    return CorrectnessRouterSpec(checkpoint=write_checkpoint(folder, **encoder), embedder=embedder)


def test_a_router_scores_by_its_vectors(tmp_path: Path) -> None:
    """The heads of the checkpoint weigh the first and the second number of the user's vectors."""
    built = build_router(router(tmp_path, spec(characters="ab234567")), PAIR, seed=0)
    odds = np.log(built.score(["aab", "bbb"]) / (1 - built.score(["aab", "bbb"])))
    np.testing.assert_allclose(odds, [[2, 1], [0, 3]], atol=1e-5)
    assert built.score([]).shape == (0, 2)


def test_the_checkpoint_must_be_of_the_same_class(tmp_path: Path) -> None:
    """Another class, another kind of encoder and vectors of another length are refused."""
    other = router(tmp_path, spec("Embeds", returned=[[0.0]]))
    with pytest.raises(SpecError, match=r"^router\.embedder\.path: the checkpoint was trained on .*, not .*:Embeds$"):
        build_router(other, PAIR, seed=0)
    with pytest.raises(SpecError, match=r"which is of kind 'local', not 'import'$"):
        build_router(CorrectnessRouterSpec(embedder=spec()), PAIR, seed=0)
    short = build_router(router(tmp_path, spec(characters="ab")), PAIR, seed=0)
    with pytest.raises(SpecError, match=r"returned the shape \(1, 2\), not \(1, 8\)$"):
        short.score(["aab"])


def test_weights_that_name_no_encoder_take_its_vectors(tmp_path: Path) -> None:
    """RouteLLM's weights do not name their encoder, so the job's embedder is taken as the right one."""
    from tests.routers.routellm_layouts import write_mf

    theirs = MfRouterSpec(kind="mf", checkpoint=write_mf(tmp_path, 8), embedder=spec(characters="abcdefgh"))
    assert trained_encoder(theirs).kind == "import"
    assert np.isfinite(build_router(theirs, PAIR, seed=0).score(["a", "b"])).all()


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        ([["a"]], "no array of numbers: could not convert string"),
        ([[1.0], [2.0, 3.0]], "no array of numbers"),
        ([1.0], r"the shape \(1,\), not \(1, any\)"),
        ([[1.0], [2.0]], r"the shape \(2, 1\), not \(1, any\)"),
        ([[]], "vectors without numbers"),
        ([[float("nan")]], "a number that is not finite"),
        ([[1e300]], "a number that is not finite"),
    ],
)
def test_what_is_no_vector_is_refused(returned: object, said: str) -> None:
    """The message names the key, the class and what is wrong with the returned value."""
    embedder = ImportedEmbedder(spec("Embeds", returned=returned), dimension=None)
    with pytest.raises(SpecError, match=rf"^router\.embedder\.path: {HERE}:Embeds: `embed` returned {said}"):
        embedder.embed(["one text"])


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("Absent", {}, r"^embedder\.path: the module .* has no class 'Absent'$"),
        ("NoRouter", {}, r"^embedder\.path: .* has no method `embed\(texts\)`, so it is no embedder$"),
        ("CountsCharacters", {"letters": "a"}, r"^embedder\.options: .* refuses them: .*letters"),
    ],
)
def test_a_class_that_cannot_be_made_is_refused(name: str, options: dict[str, Any], said: str) -> None:
    """The message names the key in the user's file."""
    with pytest.raises(SpecError, match=said):
        ImportedEmbedder(spec(name, **options), dimension=None, key="embedder")


def test_a_failure_names_the_place_in_the_users_code() -> None:
    """The message is one line with the exception and its place in the user's code."""
    embedder = ImportedEmbedder(spec("EmbedsNothing"), dimension=None)
    with pytest.raises(SpecError, match=r": `embed` failed: RuntimeError: out of memory \(thirdparty\.py:\d+\)$"):
        embedder.embed(["one text"])


def test_another_class_or_other_options_make_another_run() -> None:
    """The class and its options are both part of a job's fingerprint."""

    def parts(embedder: ImportEmbedderSpec) -> Any:
        job = JobSpec.model_validate(
            {
                "name": "j",
                "input": {"path": "x.jsonl"},
                "models": [{"name": "a"}, {"name": "b"}],
                "plan": {"strategy": "share", "strong": 0.5},
                "output": {"path": "out.jsonl"},
                "router": {"kind": "correctness", "checkpoint": "c", "embedder": embedder},
            }
        )
        return fingerprint(job, [], None).parts

    first = parts(spec(characters="ab"))
    assert changed(first, parts(spec("Embeds", characters="ab"))) == ["router.embedder.path"]
    assert changed(first, parts(spec(characters="abc"))) == ["router.embedder.options.characters"]
