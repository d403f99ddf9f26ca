"""What the documentation says exists, and what exists is in the documentation."""

import json
import re
import subprocess
from inspect import isfunction, signature
from pathlib import Path

import pytest
import typer
import yaml
from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo

from batch.errors import DispatchError
from batch.runs.layout import Layout
from batch.runs.manifest import Manifest
from batch.runs.output.rows import FIELDS
from jobs.cli import app
from jobs.exit_status import Exit
from schemas import embedders, endpoints, evaluation_spec, imported, job, plans, rehearse, reports, routers, training

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
KEY_ROW = re.compile(r"^\| `(\w+)` \|", re.MULTILINE)
DEFAULT_ROW = re.compile(r"^\| `(\w+)` \| (?:[^|\\]|\\.)* \| ((?:[^|\\]|\\.)*) \|", re.MULTILINE)
MEANING_ROW = re.compile(r"^\| `(\w+)` \|.* \| (.*) \|$", re.MULTILINE)
# Sections have their defaults in tables of their own; the lists of RouteLLM's files are in the text.
NOT_A_VALUE = {"see there", "RouteLLM's two"}
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
        "### embedder kind: import": embedders.ImportEmbedderSpec,
        "### kind: rules": routers.RulesRouterSpec,
        "### rules": routers.RuleSpec,
        "### kind: length": routers.LengthRouterSpec,
        "### kind: random": routers.RandomRouterSpec,
        "### kind: constant": routers.ConstantRouterSpec,
        "### kind: import": routers.ImportRouterSpec,
        "## models": endpoints.ModelSpec,
        "### price": endpoints.PriceSpec,
        "### endpoints": endpoints.EndpointSpec,
        "### A class of your own": imported.ImportSpec,
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
        "# Measuring routers": evaluation_spec.EvalSpec,
        "### kind: labelled": evaluation_spec.LabelledSpec,
        "### kind: gsm8k, mmlu, mt-bench": evaluation_spec.Gsm8kSpec,
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
    "run-directory.md": {
        "### run.json": Manifest,
        "### report.json": reports.Report,
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
            evaluation_spec.EvalSpec.model_validate(block)
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


def test_the_overview_names_every_command_and_what_it_takes() -> None:
    """Its table has each command once; those of which it says that they take an option do, and no other does."""
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    options = {
        name: {o for p in command.params for o in p.opts if o.startswith("--")} for name, command in commands.items()
    }
    overview = sections((ROOT / "docs" / "command-line.md").read_text())["# The command line"]
    listed = re.findall(r"^\| \[`batchrouter (\w+)", overview, re.MULTILINE)
    assert sorted(listed) == sorted(options)
    taking = dict(re.findall(r"^\| `(--[a-z]+).*? \| ((?:`\w+`(?:, )?)+) \|", overview, re.MULTILINE))
    shared = {option: set(re.findall(r"`(\w+)`", takers)) for option, takers in taking.items()}
    assert {"--set", "--limit", "--json"} <= set(shared)
    for option, takers in shared.items():
        assert takers == {name for name in listed if option in options[name]}, option


def test_the_readme_names_every_command() -> None:
    """A reader of the first page knows what there is, and nothing that there is not."""
    commands = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    named = set(re.findall(r"batchrouter (\w+) \w+\.yaml", README)) | set(re.findall(r"`([a-z]+)`", README))
    assert commands <= named
    assert set(re.findall(r"^ +batchrouter (\w+)", README, re.MULTILINE)) <= commands


def test_the_readmes_result_has_the_fields_of_every_result() -> None:
    """The example is JSON, and its keys are a result's in their order, with the input's own columns behind them."""
    example = json.loads(re.findall(r"```json\n(.*?)```", README, re.DOTALL)[0])
    carried = ["topic", "language"]
    assert list(example) == [*FIELDS, *carried]


def test_every_field_of_a_result_and_every_kind_of_error_is_documented() -> None:
    """The table of fields is complete and in order, and the kinds that rows may fail by are all named."""
    page = sections((ROOT / "docs" / "job-file.md").read_text())["### Fields of results"]
    table = page[page.index("| field | holds |") :].split("\n\n")[0]
    cells = [row.split("|")[1] for row in table.splitlines()[2:]]
    assert [field for cell in cells for field in re.findall(r"`(\w+)`", cell)] == list(FIELDS)
    kinds = re.findall(r"`(\w+)`", re.findall(r"Kinds of failed rows are (.*?)\(", page, re.DOTALL)[0])
    assert sorted(kinds) == sorted({error.kind for error in kinds_of(DispatchError) if error.reached} | {"ambiguous"})


def kinds_of(error: type[DispatchError]) -> list[type[DispatchError]]:
    """All classes below `error`."""
    return [below for each in error.__subclasses__() for below in (each, *kinds_of(each))]


def test_the_exit_statuses_are_those_of_the_program() -> None:
    """The table has each of them once."""
    page = (ROOT / "docs" / "command-line.md").read_text()
    assert re.findall(r"^\| (\d+) \|", page, re.MULTILINE) == [str(status.value) for status in Exit]


@pytest.mark.parametrize("heading", SECTIONS["job-file.md"])
def test_the_schema_says_what_the_reference_says(heading: str) -> None:
    """`batchrouter schema` describes each key in the words of `docs/job-file.md`."""
    model = SECTIONS["job-file.md"][heading]
    described = {key: field.description for key, field in model.model_fields.items()}
    for key, meaning in MEANING_ROW.findall(sections((ROOT / "docs" / "job-file.md").read_text())[heading]):
        if key in described:
            assert " ".join(str(described[key]).split()) == meaning, key


def test_benchmarks_that_are_described_together_have_the_same_keys_and_defaults() -> None:
    """One table in `docs/evaluate.md` stands for RouteLLM's three benchmarks."""
    tables = [
        {key: (field.annotation, field.get_default()) for key, field in model.model_fields.items() if key != "kind"}
        for model in (evaluation_spec.Gsm8kSpec, evaluation_spec.MmluSpec, evaluation_spec.MtBenchSpec)
    ]
    assert tables[0] == tables[1] == tables[2]


@pytest.mark.parametrize(
    ("page", "heading", "model"),
    [(page, heading, model) for page, by_heading in SECTIONS.items() for heading, model in by_heading.items()],
)
def test_documented_defaults_are_those_of_the_program(page: str, heading: str, model: type[BaseModel]) -> None:
    """A default in the reference is the one that holds where a file leaves the key out.

    Words instead of a value describe what happens where the program's default is None.
    """
    for key, cell in DEFAULT_ROW.findall(sections((ROOT / "docs" / page).read_text())[heading]):
        if key not in model.model_fields or cell in NOT_A_VALUE:
            continue
        field = model.model_fields[key]
        if cell == "required":
            # A plan is not needed where there is only one model, which the page says below the table.
            assert field.is_required() or (model, key) == (job.JobSpec, "plan"), key
            continue
        default = field.get_default(call_default_factory=True)
        if cell == "empty":
            assert default is not None, key
            assert len(default) == 0, key
        elif cell.startswith("`"):
            text = cell.strip("`")
            value = text if isinstance(default, str) else yaml.safe_load(text)
            assert validated(field, value) == default, key
        else:
            assert default is None, key


def validated(field: FieldInfo, value: object) -> object:
    """The value that the field has where a job file says this one."""
    return TypeAdapter(field.rebuild_annotation()).validate_python(value)


def test_every_file_of_a_run_directory_is_documented() -> None:
    """`docs/run-directory.md` has a row for each file and folder that `Layout` names."""
    names = {"shard": 12, "model": "m", "suffix": "*"}
    layout = Layout(Path("run"))
    places = set()
    for name, member in vars(Layout).items():
        if isinstance(member, property):
            places.add(layout.place(getattr(layout, name)))
        elif isfunction(member) and signature(member).return_annotation is Path:
            taken = [names[parameter] for parameter in list(signature(member).parameters)[1:]]
            places.add(layout.place(member(layout, *taken)).replace("/m.", "/<model>.").replace("/m/", "/<model>/"))
    page = sections((ROOT / "docs" / "run-directory.md").read_text())["## Files"]
    listed = {cell for row in re.findall(r"^\| (`.*?) \| ", page, re.MULTILINE) for cell in re.findall(r"`(.+?)`", row)}
    # A second file of a row is given by its ending, as in `scored/00012.json`, and folders by what is in them.
    assert {
        place for place in places if not any(cell == place or cell.startswith(f"{place}/") for cell in listed)
    } == set()


def test_links_between_pages_lead_somewhere() -> None:
    """Relative links in README and docs name files that exist, and headings that their pages have."""
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for target, heading in re.findall(r"\]\((?!https?://)([^)#]*)#?([^)]*)\)", page.read_text()):
            file = page.parent / target if target else page
            assert file.exists(), f"{page.name} links to {target}"
            assert not heading or heading in anchors(file.read_text()), f"{page.name} links to {target}#{heading}"


def test_files_that_pages_name_exist() -> None:
    """A path of ours in code quotes is one that is there; what a diff in a block of code adds need not be."""
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    assert len(pages) > 20
    for page in pages:
        prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
        for path in re.findall(r"`((?:batch|jobs|schemas|tests|benchmarks|docs|examples)/[\w./-]*)`", prose):
            assert (ROOT / path).exists(), f"{page.name} names {path}"


def test_the_diffs_for_contributors_apply() -> None:
    """Each diff in CONTRIBUTING.md fits the code as it is; a new file in it is not there yet."""
    blocks = re.findall(r"^```diff\n(.*?)^```", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 4
    for block in blocks:
        # A contributor who has tried a diff out has it in the tree, where it can only be taken back.
        tries = [
            subprocess.run(
                ["git", "apply", "--check", *options, "-"],
                input=block,
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=False,
            )
            for options in ((), ("--reverse",))
        ]
        assert any(tried.returncode == 0 for tried in tries), f"CONTRIBUTING.md needs an update: {tries[0].stderr}"


def anchors(text: str) -> set[str]:
    """What the headings of a page are called in links, as GitHub does it."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
