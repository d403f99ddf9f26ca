"""Whether an endpoint's failure (5xx, timeout, broken connection) is the row's: the same row failing again says so."""

from batch.dispatch.endpoint import Endpoint
from batch.dispatch.health import State
from batch.dispatch.request import Request
from batch.errors import DispatchError


def failed_again(request: Request, error: DispatchError, endpoint: Endpoint, answers: int) -> bool:
    """Does this failure speak of the row alone, so that it is no evidence about the endpoint's health?

    It does where the row failed like this before, and its pool answered other rows since, or the endpoint is up: it
    goes into a cooldown when five *different* rows fail in a row. A row that an endpoint can never answer would
    otherwise put an endpoint out of use that answers all others. An endpoint that answered nobody yet is judged by
    every failure.

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
