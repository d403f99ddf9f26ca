"""What the documentation says exists, and what exists is in the documentation."""

import re
from pathlib import Path

import pytest
import typer
import yaml
from pydantic import BaseModel

from jobs.cli import app
from schemas import embedders, endpoints, evaluating, job, plans, rehearse, routers, training

ROOT = Path(__file__).parents[1]
KEY_ROW = re.compile(r"^\| `(\w+)` \|", re.MULTILINE)
YAML_BLOCK = re.compile(r"```yaml\n(.*?)```", re.DOTALL)

# Which models a heading describes. A key that every router or plan has is described once, above them.
SECTIONS: dict[str, dict[str, type[BaseModel]]] = {
    "job-file.md": {
        "# The job file": job.JobSpec,
        "## ray": job.RaySpec,
        "## input": job.InputSpec,
        "### csv": job.CsvSpec,
        "### kind: correctness": routers.CorrectnessRouterSpec,
        "### kind: static": routers.StaticRouterSpec,
        "### kind: knn": routers.KnnRouterSpec,
        "### kind: cluster": routers.ClusterRouterSpec,
        "### kind: mf": routers.MfRouterSpec,
        "### kind: sw_ranking": routers.SwRankingRouterSpec,
        "### kind: bert": routers.BertRouterSpec,
        "### kind: causal_llm": routers.CausalLlmRouterSpec,
        "### embedder kind: local": embedders.LocalEmbedderSpec,
        "### embedder kind: endpoint": embedders.EndpointEmbedderSpec,
        "### kind: rules": routers.RulesRouterSpec,
        "### rules": routers.RuleSpec,
        "### kind: length": routers.LengthRouterSpec,
        "### kind: random": routers.RandomRouterSpec,
        "### kind: constant": routers.ConstantRouterSpec,
        "### kind: import": routers.ImportRouterSpec,
        "## models": endpoints.ModelSpec,
        "### price": endpoints.PriceSpec,
        "### endpoints": endpoints.EndpointSpec,
        "### limits": endpoints.LimitsSpec,
        "### strategy: share": plans.SharePlanSpec,
        "### strategy: cutoff": plans.CutoffPlanSpec,
        "### strategy: pin": plans.PinPlanSpec,
        "## dispatch": job.DispatchSpec,
        "## output": job.OutputSpec,
    },
    "train.md": {
        "# Training a router": training.TrainSpec,
        "### kind: judged": training.JudgedDataSpec,
        "### kind: scores": training.ScoresDataSpec,
        "### kind: preferences": training.PreferencesDataSpec,
        "### kind: results": training.ResultsDataSpec,
        "### judge kind: exact": training.ExactJudgeSpec,
        "### judge kind: function": training.FunctionJudgeSpec,
        "### judge kind: model": training.ModelJudgeSpec,
        "### embedder kind: local": training.TrainLocalEmbedderSpec,
        "## fine_tuning": training.FineTuningSpec,
    },
    "evaluate.md": {
        "# Measuring routers": evaluating.EvalSpec,
        "### kind: labelled": evaluating.LabelledSpec,
        "### kind: gsm8k": evaluating.Gsm8kSpec,
        "### kind: mmlu": evaluating.MmluSpec,
        "### kind: mt-bench": evaluating.MtBenchSpec,
    },
    "rehearse.md": {
        "# Dress rehearsals": rehearse.RehearsalSpec,
        "## endpoints": rehearse.RehearsalEndpointSpec,
        "### latency": rehearse.LatencySpec,
        "### limits": rehearse.RehearsalLimitsSpec,
        "### faults": rehearse.FaultsSpec,
        "### answer_tokens": rehearse.AnswerTokensSpec,
        "### answers": rehearse.RepliesSpec,
    },
}
DESCRIBED_ONCE = {"batch_tokens", "actors", "kind", "strategy"}


def sections(text: str) -> dict[str, str]:
    """The text beneath each heading."""
    parts = re.split(r"^(#+ .*)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize(
    ("page", "heading", "model"),
    [(page, heading, model) for page, by_heading in SECTIONS.items() for heading, model in by_heading.items()],
)
def test_every_key_is_documented_and_every_documented_key_exists(
    page: str, heading: str, model: type[BaseModel]
) -> None:
    """The keys in a section's table are exactly the fields of the model that it describes."""
    documented = set(KEY_ROW.findall(sections((ROOT / "docs" / page).read_text())[heading]))
    assert documented - DESCRIBED_ONCE == set(model.model_fields) - DESCRIBED_ONCE


def test_no_model_of_a_job_is_left_out() -> None:
    """Every router, plan and section that a job file can hold has a heading."""
    schema = job.JobSpec.model_json_schema()
    described = {model.__name__ for model in SECTIONS["job-file.md"].values()} | {"JobSpec"}
    assert set(schema["$defs"]) - described == set()


def test_the_keys_that_all_routers_share_are_documented() -> None:
    """What is described once is described."""
    documented = set(KEY_ROW.findall(sections((ROOT / "docs" / "job-file.md").read_text())["## router"]))
    assert documented == {"batch_tokens", "actors"}


@pytest.mark.parametrize(
    "page", ["README.md", "docs/job-file.md", "docs/rehearse.md", "docs/train.md", "docs/evaluate.md"]
)
def test_yaml_in_the_documentation_is_valid(page: str) -> None:
    """Every YAML block is a whole file of its kind, or a job's section by its own name."""
    blocks = [yaml.safe_load(block) for block in YAML_BLOCK.findall((ROOT / page).read_text())]
    assert blocks
    for block in blocks:
        if "input" in block:
            job.JobSpec.model_validate(block)
        elif "benchmarks" in block:
            evaluating.EvalSpec.model_validate(block)
        elif "data" in block:
            training.TrainSpec.model_validate(block)
        elif "endpoints" in block:
            rehearse.RehearsalSpec.model_validate(block)
        else:
            whole = {
                "input": {"path": "x.jsonl"},
                "models": [{"name": "small-8b"}, {"name": "gpt-4o"}],
                "plan": {"strategy": "share", "strong": 0.5},
                "output": {"path": "out.jsonl"},
            }
            job.JobSpec.model_validate({**whole, **block})


def test_every_command_and_option_is_documented() -> None:
    """Each command has a section that shows all its own options, and no section shows an option that is none."""
    by_heading = sections((ROOT / "docs" / "command-line.md").read_text())
    shared = set(re.findall(r"`(--[a-z][a-z-]*)", by_heading["# The command line"]))
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        options = {option for parameter in command.params for option in parameter.opts if option.startswith("--")}
        own = set(re.findall(r"(?<![\w-])(--[a-z][a-z-]*)", by_heading[f"## {name}"]))
        assert own <= options, name
        assert options <= own | shared, name


def test_links_between_pages_lead_somewhere() -> None:
    """Relative links in README and docs name files that exist."""
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\((?!https?://)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
