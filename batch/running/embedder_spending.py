"""What a run's budget leaves for the embedder of its router."""

from collections.abc import Mapping

from batch.costs.prices import Price
from batch.environment import SpendingRecord
from batch.running.stages import ScoreTask
from batch.runs.journal.spent import spent
from batch.runs.layout import Layout
from schemas.job import JobSpec


def spending_record(job: JobSpec, layout: Layout, prices: Mapping[str, Price | None]) -> SpendingRecord | None:
    """Where the embedder records what it spends, and its cap; `None`: the router calls no endpoint.

    The cap is what answers of earlier sittings have left of the budget. It holds as long as nothing else spends.
    """
    if not ScoreTask(job, heavy=True).calls_endpoints:
        return None
    budget = job.dispatch.budget_usd
    return SpendingRecord(layout.embeddings, None if budget is None else budget - spent(layout, prices))
