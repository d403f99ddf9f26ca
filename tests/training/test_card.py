"""The model card as a reader sees it."""

from collections.abc import Mapping
from itertools import pairwise

import yaml

from batch.training.card import model_card
from schemas.training import DataReport, FileRead, HeldOut, TrainingReport

FIGURES = HeldOut(
    prompts=113, weakest=0.67, strongest=0.94, apgr=0.697, interval=(0.61, 0.81), cpt50=0.2, cpt80=0.6, apgr_length=0.6
)
REPORT = TrainingReport(
    kind="correctness",
    name="support questions",
    models=("small|8b", "large-model-with-a-long-name-70b"),
    quality={"small|8b": 0.67, "large-model-with-a-long-name-70b": 0.944},
    seed=0,
    data=(
        DataReport(
            name="labels",
            kind="judged",
            files=(FileRead(name="labels.jsonl", sha256="4f3f5384c0c1" + "0" * 52, size=9),),
            rows=342,
            skipped=0,
            duplicates=0,
            judged={"small|8b": 342, "large-model-with-a-long-name-70b": 342},
        ),
    ),
    prompts=229,
    held_out_prompts=113,
    chosen={"heads": "linear", "penalty": 500.0},
    held_out={"labels": FIGURES},
    cutoffs={"0.1": 0.5, "0.3": 0.25},
    warnings=("word " * 60 + "end.", "short."),
    output="out",
)


def test_running_text_has_lines_of_one_length() -> None:
    """No line of prose is longer than 100 columns, and none ends early where the next word would have fitted."""
    text = model_card(REPORT, {"kind": "correctness"}, matched_by="name")
    prose = [block for block in text.split("\n\n") if not block.startswith(("|", "#", "```", "- "))]
    assert len(prose) > 4
    for block in prose:
        lines = block.splitlines()
        assert max(map(len, lines)) <= 100, block
        for line, after in pairwise(lines):
            assert len(line) + 1 + len(after.split()[0]) > 100, block


def test_names_of_any_kind_can_be_copied_into_a_job() -> None:
    """The card's `router` block parses as YAML to the same values, whatever models and encoders are called."""
    embedder = {"kind": "endpoint", "model": "3"}
    router: dict[str, str | Mapping[str, str]] = {"kind": "mf", "strong": "a: b, {c} #d", "weak": "no"}
    router["embedder"] = embedder
    block = model_card(REPORT, router, matched_by="name").split("```yaml\n")[1].split("```")[0]
    assert yaml.safe_load(block)["router"] == router | {"checkpoint": "path/to/this/folder"}
    assert "{kind: mf, strong: " in block


def test_tables_stand_in_columns() -> None:
    """All lines of a table have the same length, whatever the names; a bar within a name is escaped."""
    text = model_card(REPORT, {"kind": "correctness"}, matched_by="name")
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert len(tables) == 4
    for lines in tables:
        assert len({len(line) for line in lines}) == 1, lines
        assert set(lines[1]) == {"|", "-", " "}
    assert "small\\|8b" in text


def test_warnings_are_a_list() -> None:
    """Each warning is one list item, and its continuation lines are indented."""
    text = model_card(REPORT, {"kind": "correctness"}, matched_by="name")
    block = text.split("## Know before use\n\n")[1].split("\n\n")[0].splitlines()
    assert [line[:2] for line in block] == ["- ", "  ", "  ", "  ", "- "]
    assert block[-1] == "- short."
    assert max(map(len, block)) <= 100


def test_what_is_copied_stays_on_its_line() -> None:
    """The block for a job is not wrapped, even if a line is longer than the card's prose may be."""
    text = model_card(REPORT, {"kind": "mf", "strong": "s" * 60, "weak": "w" * 60}, matched_by="name")
    block = text.split("```yaml\n")[1].split("\n```")[0].splitlines()
    assert block[0] == f"router: {{kind: mf, strong: {'s' * 60}, weak: {'w' * 60}, checkpoint: path/to/this/folder}}"
    assert block[1] == "plan: {strategy: share, strong: 0.3}"
