"""Says in one line each what commands other than `run` spend: on embedding endpoints and on judge models."""

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

from batch.errors import SpecError
from batch.routers.embedders.spending_log import read_spending
from batch.runs.layout import Layout
from jobs.commands.status import stored_report
from jobs.terminal.format import UNKNOWN, counted, printable, usd
from schemas.reports import Report


def embeddings_spent(log: Path, ending: str = "") -> tuple[str, ...]:
    """One line about the spending in `log`, followed by `ending`; empty if no endpoint embedded anything."""
    spending = read_spending(log)
    if not spending.inputs:
        return ()
    cost = usd(spending.usd if spending.is_complete else None)
    asked = counted(spending.inputs, "prompt")
    return (f"embedded {asked} by {printable(spending.model or UNKNOWN)}: {spending.tokens:,} tokens, {cost}{ending}",)


def judging_spent(folder: Path) -> tuple[str, ...]:
    """One line about all runs of judge models in `folder`, including earlier calls; empty if there are none."""
    total, rows, complete = Decimal(0), 0, True
    for report in _reports(folder):
        total += report.cost_usd
        rows += report.rows.ok + report.rows.failed
        complete = complete and report.cost_is_complete
    if not rows:
        return ()
    cost = usd(total) if complete or total else UNKNOWN
    least = "" if complete or not total else "at least "
    return (f"judged {counted(rows, 'answer')} by models: {least}{cost}, in all calls together",)


def _reports(folder: Path) -> Iterator[Report]:
    for run in sorted(folder.glob("*/asked-*.run")):
        # A run that stopped has no report yet; the report that it gets when it is resumed includes its spending.
        if Layout(run).report.exists():
            try:
                yield stored_report(run)
            except SpecError as error:
                raise SpecError(f"{error}; delete {run} to have its answers judged again") from error
