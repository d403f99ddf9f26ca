"""How much of a run's budget the embedder of its router may spend."""

from batch.environment import SpendingRecord
from batch.running.resolved_job import ResolvedJob
from batch.running.stages import ScoreTask
from batch.runs.journal.spent import spent
from batch.runs.layout import Layout


def spending_record(job: ResolvedJob, layout: Layout) -> SpendingRecord | None:
    """Where the embedder records what it spends, and the most it may spend; `None`: the router calls no endpoint.

    The cap is the budget less what answers of earlier sittings cost. It holds as long as nothing else spends, so
    under a budget the dispatcher starts after scoring.
    """
    if not ScoreTask(job.spec, heavy=True).calls_endpoints:
        return None
    budget = job.spec.dispatch.budget_usd
    return SpendingRecord(layout.embeddings, None if budget is None else budget - spent(layout, job.prices))
