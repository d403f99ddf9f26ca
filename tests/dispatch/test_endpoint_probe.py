"""An endpoint knows its probe although the clock moves between any two readings, as real clocks do."""

from random import Random

from batch.dispatch.health import State
from batch.errors import NotConnected
from schemas.endpoints import EndpointSpec
from tests.fakes import fake_endpoint, request


def test_a_probe_that_fails_is_known_as_the_probe() -> None:
    """A failed probe starts the next cooldown; if it were not recognized, the endpoint would wait for it forever."""
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 0.001
        return now

    endpoint = fake_endpoint(EndpointSpec(url="http://e/v1"), 0, clock, Random(0))
    for _ in range(3):
        probe = request()
        endpoint.start(probe)
        endpoint.failed(probe, NotConnected("refused"))
        assert endpoint.health.state is State.COOLING
        now += 100.0
