"""Decides whether a failure (5xx, timeout, broken connection) is the row's fault: it is if the row fails repeatedly."""

from batch.dispatch.endpoint import Endpoint
from batch.dispatch.health import State
from batch.dispatch.request import Request
from batch.errors import DispatchError


def failed_again(request: Request, error: DispatchError, endpoint: Endpoint, answers: int) -> bool:
    """Is the row to blame for this failure, so that it says nothing about the endpoint's health?

    Yes if the row failed in the same way before, and its pool has answered other rows since or the endpoint is up. An
    endpoint therefore goes into a cooldown when five *different* rows fail one after the other. Otherwise one row that
    no endpoint can answer would put an endpoint out of use that answers all other rows. For an endpoint that has not
    answered any request yet, every failure counts.

    Args:
        answers: good answers that the pool has given in this sitting.
    """
    if not error.reached or not endpoint.answers:
        return False
    rows = request.rows or (request,)
    alike = (error.kind, error.status)
    return all(
        row.failed_as == alike and (answers > row.answers_at_failure or endpoint.health.state is State.UP)
        for row in rows
    )
