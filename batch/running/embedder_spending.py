"""What a run's budget leaves for the embedder of its router."""

from batch.environment import SpendingRecord
from batch.running.resolved_job import ResolvedJob
from batch.running.stages import ScoreTask
from batch.runs.journal.spent import spent
from batch.runs.layout import Layout


def spending_record(job: ResolvedJob, layout: Layout) -> SpendingRecord | None:
    """Where the embedder records what it spends, and its cap; `None`: the router calls no endpoint.

    The cap is what answers of earlier sittings have left of the budget. It holds as long as nothing else spends.
    """
    if not ScoreTask(job.spec, heavy=True).calls_endpoints:
        return None
    budget = job.spec.dispatch.budget_usd
    return SpendingRecord(layout.embeddings, None if budget is None else budget - spent(layout, job.prices))
