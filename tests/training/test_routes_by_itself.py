"""`train` makes a router from labels or from results of earlier runs, and that router routes a job."""

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from batch.errors import SpecError
from batch.routers.checkpoints.format import load_checkpoint
from jobs import train
from jobs.commands.run import run_job
from jobs.commands.train import train_router
from jobs.stopped import StoppedError
from schemas.job import JobSpec
from schemas.training import HeldOut, TrainingReport, TrainSpec
from tests.job_folder import interrupt_after
from tests.rehearsed import Served, serve
from tests.routers.tiny_bert import USUAL, build_tiny_bert
from tests.routers.tiny_causal import build_tiny_causal

MODELS = ("small", "large")
# Further keys that a router of this kind needs in a job.
MF_PAIR = {"mf": {"strong": "large", "weak": "small"}}


def question(number: int) -> tuple[str, str]:
    """A prompt and its right answer; odd numbers give sums, which the small model gets wrong."""
    if number % 2:
        return f"How much is {number} plus {3 * number}? Work it out step by step.", str(4 * number)
    return f"Which animal is in my photo {number}, a cat or a dog?", "a cat"


def reply(model: str, prompt: str, answer: str) -> str:
    """A model's answer; the small model cannot add."""
    return "It is 7." if model == "small" and "plus" in prompt else f"It is {answer}."


QUESTIONS = [question(number) for number in range(80)]
REPLIES = {model: {prompt: reply(model, prompt, answer) for prompt, answer in QUESTIONS} for model in MODELS}
# The judge's prompt contains the answer that it grades.
REPLIES["judge"] = {
    f"Is it right that {prompt} {said}": "10" if said == f"It is {answer}." else "That is wrong: 1"
    for prompt, answer in QUESTIONS
    for said in {reply(model, prompt, answer) for model in MODELS}
}


@pytest.fixture(scope="module")
def endpoints(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Serve both models and the judge."""
    folder = tmp_path_factory.mktemp("replies")
    for model, replies in REPLIES.items():
        lines = (json.dumps({"prompt": prompt, "reply": reply}) + "\n" for prompt, reply in replies.items())
        (folder / f"{model}.jsonl").write_text("".join(lines))
    with serve(*({"model": model, "answers": {"file": str(folder / f"{model}.jsonl")}} for model in REPLIES)) as served:
        yield served


@pytest.fixture
def served(endpoints: Served) -> Served:
    endpoints.forget()
    return endpoints


def best(figures: HeldOut) -> float:
    """APGR of a router that knows which prompts are sums; only these does the small model get wrong."""
    sums = 1 - figures.weakest
    return 1 - sums / 2


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def labelled(folder: Path) -> dict[str, Any]:
    """Judgements: the large model is always right, the small one wherever nothing is to be added."""
    rows = [{"prompt": prompt, "s": "plus" not in prompt, "l": True} for prompt, _ in QUESTIONS]
    return {"kind": "judged", "path": write(folder / "labels.jsonl", rows), "models": {"small": "s", "large": "l"}}


def trained(folder: Path, *data: Mapping[str, Any], overwrite: bool = False, **keys: Any) -> TrainingReport:
    spec = {"kind": "static", "data": data, "validation": 0.4, "output": str(folder / "made"), **keys}
    return train(TrainSpec.model_validate(spec), overwrite=overwrite)


def job(folder: Path, served: Served, **changes: Any) -> JobSpec:
    """A job over QUESTIONS, whose ids are q0, q1 and so on."""
    rows = [{"id": f"q{i}", "question": q, "answer": a} for i, (q, a) in enumerate(QUESTIONS)]
    path = folder / "questions.jsonl"
    if not path.exists():
        write(path, rows)
    base: dict[str, Any] = {
        "engine": "inline",
        "input": {"path": str(path), "prompt": "{question}"},
        "models": [{"name": n, "endpoints": [{"url": u}]} for n, u in zip(MODELS, served.urls, strict=False)],
        "plan": {"strategy": "share", "strong": 0.5},
        "output": {"path": str(folder / "results.jsonl")},
    }
    return JobSpec.model_validate(base | changes)


def answered(folder: Path, served: Served, output_format: str = "jsonl") -> list[str]:
    """Send all questions to each model, and return the paths of the results."""
    outputs = []
    for model in MODELS:
        output = {"path": str(folder / f"{model}.{output_format}"), "format": output_format}
        report = run_job(job(folder, served, plan={"strategy": "pin", "model": model}, output=output))
        assert report.rows.ok == len(QUESTIONS)
        outputs.append(str(output["path"]))
    return outputs


def results(runs: Sequence[str], folder: Path, **judge: Any) -> dict[str, Any]:
    """The item of `data` that judges these runs."""
    source = {"path": str(folder / "questions.jsonl"), "prompt": "{question}"}
    return {"kind": "results", "input": source, "runs": runs, "judge": judge}


@pytest.mark.parametrize("kind", ["correctness", "static", "knn"])
def test_a_trained_router_routes_a_job(kind: str, served: Served, tmp_path: Path) -> None:
    """The router sends exactly the sums to the large model; the card shows it, and a cutoff sends about its share."""
    report = trained(tmp_path, labelled(tmp_path), kind=kind)
    assert report.models == MODELS
    assert report.prompts + report.held_out_prompts == len(QUESTIONS)
    figures = report.held_out["labels"]
    assert figures.apgr > best(figures) - 0.01
    assert figures.apgr_length == pytest.approx(0.5)
    router = {"kind": kind, "checkpoint": report.output}
    run_job(job(tmp_path, served, router=router))
    sent = {(model, "plus" in prompt) for model, prompt in served.sent()}
    assert sent == {("large", True), ("small", False)}
    card = (tmp_path / "made" / "README.md").read_text()
    assert f"router: {{kind: {kind}, checkpoint:" in card
    cutoff = {"strategy": "cutoff", "cutoff": report.cutoffs["0.5"]}
    served.forget()
    run_job(job(tmp_path, served, router=router, plan=cutoff), fresh=True)
    assert sum(model == "large" for model, _ in served.sent()) == pytest.approx(len(QUESTIONS) / 2, abs=6)


def test_the_same_labels_give_the_same_checkpoint(tmp_path: Path) -> None:
    """The same labels and seed give the same bytes in any folder; another seed holds out other prompts."""
    data = labelled(tmp_path)
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        trained(tmp_path, data, output=str(tmp_path / name), seed=seed)
    one, two, three = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("one", "two", "three")
    )
    assert set(one) == {"README.md", "config.json", "weights.safetensors"}
    assert one == two
    assert one["config.json"] != three["config.json"]
    assert str(tmp_path).encode() not in b"".join(one.values())


@pytest.mark.parametrize("output_format", ["jsonl", "parquet"])
def test_from_the_results_of_earlier_runs(output_format: str, served: Served, tmp_path: Path) -> None:
    """Two runs of one input, one per model, are judged by comparing each answer with the reference column."""
    runs = answered(tmp_path, served, output_format)
    report = trained(tmp_path, results(runs, tmp_path, kind="exact", column="answer", extract=r"(\d+|a cat)\.?$"))
    assert report.quality == {"small": 0.5, "large": 1.0}
    assert report.data[0].judged == {"small": 80, "large": 80}
    assert report.held_out["questions"].apgr > best(report.held_out["questions"]) - 0.01
    assert {file.name for file in report.data[0].files} == {"questions.jsonl", *(Path(run).name for run in runs)}


def test_from_run_directories_judged_by_a_function(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`runs` takes run directories too, and a user's own function judges the answers."""
    (tmp_path / "own_judge.py").write_text("def holds(prompt, answer, row): return row['answer'] in answer\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_judge", raising=False)
    runs = [f"{run}.run" for run in answered(tmp_path, served)]
    report = trained(tmp_path, results(runs, tmp_path, kind="function", path="own_judge:holds"))
    assert report.quality["small"] == pytest.approx(0.5, abs=0.02)
    assert report.quality["large"] == 1.0


def test_judged_by_a_model(served: Served, tmp_path: Path) -> None:
    """The judge grades each answer once, and the same command again sends it nothing."""
    runs = answered(tmp_path, served)
    judge = {
        "kind": "model",
        "model": {"name": "judge", "price": {"input": 0, "output": 1}, "endpoints": [{"url": served.urls[2]}]},
        "prompt": "Is it right that {prompt} {response}",
    }
    data = results(runs, tmp_path, **judge)
    served.forget()
    report = trained(tmp_path, data)
    assert report.quality == {"small": 0.5, "large": 1.0}
    assert served.prompts() == dict.fromkeys(REPLIES["judge"], 1)
    (spent,) = report.spent
    assert re.fullmatch(rf"judged {len(REPLIES['judge'])} answers by models: \$0\.000240, in all calls together", spent)
    served.forget()
    assert trained(tmp_path, data, overwrite=True) == report
    assert not served.posts


def test_a_judge_that_was_interrupted_goes_on(served: Served, tmp_path: Path) -> None:
    """Interrupted training writes no checkpoint; when rerun, it grades only the answers that have no grade."""
    runs = answered(tmp_path, served)
    # A rate limit makes the judge slow enough to be interrupted before its last answer.
    endpoint = {"url": served.urls[2], "limits": {"rpm": 6000, "burst": 1}}
    judge = {"model": {"name": "judge", "endpoints": [endpoint]}, "prompt": "Is it right that {prompt} {response}"}
    data = [results(runs, tmp_path, kind="model", **judge)]
    spec = TrainSpec.model_validate({"kind": "static", "data": data, "output": str(tmp_path / "made")})
    served.forget()
    with pytest.raises(StoppedError):
        train_router(spec, progress=interrupt_after(3))
    assert 0 < len(served.posts) < len(REPLIES["judge"])
    assert not (tmp_path / "made").exists()
    train_router(spec)
    assert served.prompts() == dict.fromkeys(REPLIES["judge"], 1)


def test_a_judge_without_its_key_is_refused(served: Served, tmp_path: Path) -> None:
    """A missing API key is reported by the judge's place in the training file, before any run is read."""
    endpoint = {"url": served.urls[2], "api_key_env": "NO_SUCH_KEY"}
    data = results(["absent.jsonl"], tmp_path, kind="model", model={"name": "judge", "endpoints": [endpoint]})
    with pytest.raises(SpecError, match=r"^data\.0\.judge\.model\.endpoints\.0: .* NO_SUCH_KEY is not set$"):
        trained(tmp_path, data)


@pytest.mark.parametrize("kind", ["static", "mf"])
def test_preferences_train_too(kind: str, served: Served, tmp_path: Path) -> None:
    """A win is quality 1, a loss 0, and a tie one half for both; mf trains on the preferences themselves."""
    rows = [
        {"prompt": prompt, "model_a": "large", "model_b": "small", "winner": "model_a" if "plus" in prompt else "tie"}
        for prompt, _ in QUESTIONS
    ]
    battles = {"kind": "preferences", "path": write(tmp_path / "battles.jsonl", rows)}
    report = trained(tmp_path, battles, kind=kind)
    assert report.quality == {"small": 0.25, "large": 0.75}
    figures = report.held_out["battles"]
    # A win is a gap of one, a tie a gap of none.
    assert figures.apgr > 1 - (figures.strongest - figures.weakest) / 2 - 0.01
    run_job(job(tmp_path, served, router={"kind": kind, "checkpoint": report.output, **MF_PAIR.get(kind, {})}))
    assert {(model, "plus" in prompt) for model, prompt in served.sent()} == {("large", True), ("small", False)}


def test_data_from_several_places(tmp_path: Path) -> None:
    """Each item of `data` has a name of its own and is measured by itself."""
    rows = [{"q": f"{prompt} Please.", "x": 2 if "plus" in prompt else 9, "y": 10} for prompt, _ in QUESTIONS]
    scores = {
        "kind": "scores",
        "path": write(tmp_path / "labels2.jsonl", rows),
        "prompt": "{q}",
        "models": {"small": "x", "large": "y"},
        "lowest": 1,
        "highest": 10,
        "name": "labels",
    }
    report = trained(tmp_path, labelled(tmp_path), scores)
    assert set(report.held_out) == {"labels", "labels-2"}
    assert [one.rows for one in report.data] == [80, 80]
    config = load_checkpoint(Path(report.output), "static").config
    assert config.training["held_out"]["labels-2"]["prompts"] > 20
    assert np.isfinite(list(report.cutoffs.values())).all()


def test_what_is_there_is_not_lost(tmp_path: Path) -> None:
    """Only `overwrite` replaces a checkpoint, nothing replaces another folder, and no other file is left behind."""
    data = labelled(tmp_path)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    spec = TrainSpec.model_validate(
        {"kind": "static", "data": [data], "validation": 0.4, "output": str(tmp_path / "thesis")}
    )
    for overwrite in (False, True):
        with pytest.raises(SpecError, match="exists and is no checkpoint"):
            train(spec, overwrite=overwrite)
    mine = spec.model_copy(update={"output": str(tmp_path / "mine")})
    train(mine)
    with pytest.raises(SpecError, match=r"holds a checkpoint; --overwrite replaces it"):
        train(mine)
    before = set(tmp_path.iterdir())
    assert train(mine.model_copy(update={"kind": "knn"}), overwrite=True).kind == "knn"
    assert load_checkpoint(tmp_path / "mine", "knn").config.kind == "knn"
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("kind", "tuning"),
    [
        ("bert", {"learning_rate": 3e-3}),
        pytest.param("causal_llm", {"learning_rate": 1e-2}, marks=pytest.mark.real, id="causal_llm"),
    ],
)
def test_a_whole_model_is_fine_tuned(kind: str, tuning: dict[str, Any], served: Served, tmp_path: Path) -> None:
    """The checkpoint has the base model's layout, with a card and figures beside it, and routes a job."""
    base = tmp_path / "base"
    if kind == "bert":
        build_tiny_bert(base, spread=USUAL)
    else:
        build_tiny_causal(base, bare=True)
    # The tiny models' vocabulary holds these words, and single characters.
    rows = [{"prompt": f"{('prove', 'write')[i % 2]} {i} of the sum", "s": i % 2, "l": 1} for i in range(80)]
    data = {"kind": "judged", "path": write(tmp_path / "l.jsonl", rows), "models": {"small": "s", "large": "l"}}
    tuning = {"base": str(base), "epochs": 8, "batch_tokens": 512, **tuning}
    report = trained(tmp_path, data, kind=kind, fine_tuning=tuning)
    figures = report.held_out["l"]
    assert figures.apgr > best(figures) - 0.01
    stored = json.loads((tmp_path / "made" / "training.json").read_text())
    assert stored["held_out"]["l"]["apgr"] == figures.apgr
    assert f"router: {{kind: {kind}, checkpoint" in (tmp_path / "made" / "README.md").read_text()
    run_job(job(tmp_path, served, router={"kind": kind, "checkpoint": report.output}))
    assert len(served.posts) == len(QUESTIONS)


def test_fine_tuning_that_brings_nothing_is_reported(tmp_path: Path) -> None:
    """If steps are so long that no epoch predicts better, the random head stays, and report and card warn of it."""
    base = build_tiny_bert(tmp_path / "base", spread=USUAL)
    tuning = {"base": str(base), "epochs": 2, "learning_rate": 1.0}
    report = trained(tmp_path, labelled(tmp_path), kind="bert", fine_tuning=tuning)
    assert report.chosen["epoch"] == 0
    assert any(line.startswith("Fine-tuning brought nothing") for line in report.warnings)
    assert "- Fine-tuning brought nothing" in (tmp_path / "made" / "README.md").read_text()


def test_a_base_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """The message names the key, and says that the base is neither a folder nor a repository."""
    with pytest.raises(SpecError, match=r"^fine_tuning\.base: no/such: no such folder, and no such repository"):
        trained(tmp_path, labelled(tmp_path), kind="bert", fine_tuning={"base": "no/such"})


@pytest.mark.parametrize(
    ("embedder", "said"),
    [
        ({"model": "no/such"}, r"^embedder\.model: no/such: no such folder, and no such repository"),
        ({"layer": 99}, r"^embedder\.model: .* it has 6 layers, not 99$"),
        (
            {"kind": "endpoint", "model": "v", "url": "http://127.0.0.1:9/v1", "api_key_env": "ABSENT"},
            r"^embedder\.endpoints\.0: the environment variable ABSENT is not set$",
        ),
    ],
)
def test_an_encoder_that_cannot_be_used_is_refused(embedder: dict[str, Any], said: str, tmp_path: Path) -> None:
    """The message names the key in the training file, and nothing is written."""
    data = labelled(tmp_path)
    before = set(tmp_path.iterdir())
    with pytest.raises(SpecError, match=said):
        trained(tmp_path, data, kind="knn", embedder=embedder)
    assert set(tmp_path.iterdir()) == before


def test_an_endpoint_without_the_embedding_model_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The endpoint does not know the model; the message begins with the key `embedder`."""
    with serve({"model": "vectors"}) as embedding:
        monkeypatch.setenv("EMBEDDING_BASE_URL", embedding.urls[0])
        with pytest.raises(SpecError, match=r"^embedder: .*other"):
            trained(tmp_path, labelled(tmp_path), kind="knn", embedder={"kind": "endpoint", "model": "other"})


def test_vectors_from_an_endpoint(served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training measures the vectors' length and pays for no vector twice; a job embeds with the same model."""
    with serve({"model": "vectors"}) as embedding:
        monkeypatch.setenv("EMBEDDING_BASE_URL", embedding.urls[0])
        vectors = {"kind": "endpoint", "model": "vectors"}
        report = trained(tmp_path, labelled(tmp_path), kind="knn", embedder=vectors)
        assert embedding.prompts().total() > 0
        encoder = load_checkpoint(Path(report.output), "knn").config.encoder
        assert (encoder.kind, encoder.name, encoder.layer) == ("endpoint", "vectors", None)
        assert "embedder: {kind: endpoint, model: vectors}" in (tmp_path / "made" / "README.md").read_text()
        embedding.forget()
        assert trained(tmp_path, labelled(tmp_path), kind="knn", embedder=vectors, overwrite=True) == report
        assert not embedding.posts
        run_job(job(tmp_path, served, router={"kind": "knn", "checkpoint": report.output, "embedder": vectors}))
        assert embedding.posts
    assert {path.name for path in tmp_path.iterdir()} >= {"made", "made.cache"}


def test_vectors_from_a_class_of_the_users_own(served: Served, tmp_path: Path) -> None:
    """A job with the same embedder can use the router, and the card names the class with its options."""
    own = {"kind": "import", "path": "tests.routers.thirdparty:CountsCharacters", "options": {"characters": "+-?"}}
    report = trained(tmp_path, labelled(tmp_path), kind="knn", embedder=own)
    encoder = load_checkpoint(Path(report.output), "knn").config.encoder
    assert (encoder.kind, encoder.name, encoder.dimension, encoder.max_tokens) == ("import", own["path"], 3, None)
    card = (tmp_path / "made" / "README.md").read_text()
    block = yaml.safe_load(card.split("```yaml\n")[1].split("```")[0])
    assert block["router"]["embedder"] == own
    run_job(job(tmp_path, served, router={"kind": "knn", "checkpoint": report.output, "embedder": own}))
    assert len(served.sent()) == len(QUESTIONS)
