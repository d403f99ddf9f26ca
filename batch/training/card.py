"""Writes the model card: what a router was trained on, how well it does, and how to use it."""

import json
import re
from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

from batch.training.fit_words import FEWEST_PROMPTS
from batch.training.measuring import table
from batch.training.registry import TRAINERS
from schemas.training import FileRead, TrainingReport

# Width of running text, for reading the card in a terminal.
_WIDTH = 100

Block = Mapping[str, Any]
"""A section of a job file."""

_PLAIN = re.compile(r"[A-Za-z/][\w./-]*")
# Words that YAML does not read as text.
_WORDS = frozenset({"null", "true", "false", "yes", "no", "on", "off", "y", "n"})


def model_card(report: TrainingReport, router: Block, *, matched_by: str) -> str:
    """Write the card in Markdown; the same report gives the same text.

    Args:
        router: keys of the `router` block that uses it, but for `checkpoint`.
        matched_by: as `TrainSpec.matched_by`.
    """
    parts = [
        f"# {report.name}\n\n" + _text(f"{TRAINERS[report.kind].card} Made by `batchrouter train`."),
        _models(report, matched_by),
        _use(report, router),
        _figures(report),
        _know(report.warnings),
        _origin(report),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _models(report: TrainingReport, matched_by: str) -> str:
    rows = [
        (name, f"{quality:.3f}", f"{sum(one.judged.get(name, 0) for one in report.data):,}")
        for name, quality in report.quality.items()
    ]
    said = (
        "A job's models must be called so."
        if matched_by == "name"
        else "The first and the last stand for any cheap and any strong model of a job."
    )
    return _text(f"Models, weakest first. {said}") + "\n\n" + _table(("model", "mean quality", "labels"), rows)


def _written(value: object) -> str:
    """Write a value as YAML on one line; a text that YAML would read as something else is quoted."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_written(key)}: {_written(one)}" for key, one in value.items()) + "}"
    if not isinstance(value, str):
        return json.dumps(value, ensure_ascii=False, default=str)
    return value if _PLAIN.fullmatch(value) and value.lower() not in _WORDS else json.dumps(value, ensure_ascii=False)


def _use(report: TrainingReport, router: Block) -> str:
    whole = _written({**router, "checkpoint": "path/to/this/folder"})
    block = f"router: {whole}\nplan: {{strategy: share, strong: 0.3}}"
    said = (
        "A share is met exactly on any input. A cutoff is for input like the data below; on other prompts it sends "
        "quite another share to the strongest model."
    )
    rows = [(f"{100 * float(share):.0f} %", f"{cutoff:.6g}") for share, cutoff in report.cutoffs.items()]
    cutoffs = _table(("sent to the strongest", "`plan: {strategy: cutoff, cutoff: ...}`"), rows)
    return f"## Use\n\n```yaml\n{block}\n```\n\n{_text(said)}\n\n{cutoffs}"


def _figures(report: TrainingReport) -> str:
    heads, rows = table(report)
    if not rows:
        return "## How well it does\n\nNot measured; see below."
    measured = (
        f"On {report.held_out_prompts:,} prompts that training has not seen, "
        f"{report.models[-1]} against {report.models[0]}:"
    )
    meaning = (
        "APGR is the share of the quality gap that is recovered, averaged over all shares of strong calls; drawing "
        "lots has 0.5. CPT50 and CPT80 are the shares of strong calls that recover 50 and 80 % of the gap. The word "
        "count needs no training. 95 % is a bootstrap interval."
    )
    return f"## How well it does\n\n{_text(measured)}\n\n{_table(heads, rows)}\n\n{_text(meaning)}"


def _know(warnings: Sequence[str]) -> str:
    return "## Know before use\n\n" + "\n".join(_text(f"- {line}", "  ") for line in warnings) if warnings else ""


def _origin(report: TrainingReport) -> str:
    rows = [
        (one.name, one.kind, f"{one.rows:,}", f"{one.duplicates:,}", f"{one.skipped:,}", _files(one.files))
        for one in report.data
    ]
    settled = ", ".join(f"{key} {value}" for key, value in report.chosen.items())
    seen = f"{report.prompts:,} different prompts, whose text is not in here"
    if "word_penalty" in report.chosen:
        seen += f", but for single words that are in {FEWEST_PROMPTS} of them or more"
    return (
        f"## Trained on\n\n{_text(seen)}.\n\n"
        + _table(("data", "kind", "labelled rows", "repeated prompts", "left out", "files (SHA-256)"), rows)
        + "\n\n"
        + _text(f"Seed {report.seed}" + (f"; settled on: {settled}." if settled else "."))
    )


def _files(files: Sequence[FileRead]) -> str:
    return ", ".join(f"{file.name} ({file.sha256[:12]})" for file in files)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [[cell.replace("|", "\\|") for cell in line] for line in (heads, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    padded = ([cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines)
    return "\n".join("| " + " | ".join(line) + " |" for line in padded)


def _text(paragraph: str, indent: str = "") -> str:
    """Wrap a paragraph into lines of bounded length; lines after the first begin with `indent`."""
    return fill(paragraph, _WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
