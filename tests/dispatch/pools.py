"""Endpoints and keyed requests for the tests of balancers."""

from collections.abc import Iterable, Sequence
from random import Random

from batch.dispatch.balancing.balancers import Balancer
from batch.dispatch.endpoint import Endpoint
from batch.dispatch.request import Request
from schemas.endpoints import EndpointSpec, LimitsSpec
from tests.fakes import fake_endpoint, request


class Clock:
    """A clock that the test moves by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def endpoints(weights: Sequence[float], clock: Clock | None = None) -> list[Endpoint]:
    limits = LimitsSpec(max_in_flight=10**9)
    return [
        fake_endpoint(EndpointSpec(url=f"http://e{i}/v1", weight=w, limits=limits), i, clock or Clock(), Random(0))
        for i, w in enumerate(weights)
    ]


def keyed(key: int) -> Request:
    row = request(key)
    row.key = key
    return row


def keys(count: int) -> list[Request]:
    """Return `count` requests with different keys."""
    draw = Random(5)
    return [keyed(draw.randrange(1, 2**64)) for _ in range(count)]


def picks(balancer: Balancer, ready: Sequence[Endpoint], asked: Iterable[Request]) -> list[int]:
    """Return the index of the endpoint picked for each request; no request is started."""
    return [balancer.pick(row, ready).index for row in asked]
