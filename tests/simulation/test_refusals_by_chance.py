"""Endpoints that refuse a share of all requests whatever the pace, behind the real dispatcher, in virtual time."""

from random import Random

import pytest

from batch.errors import RateLimited
from schemas.endpoints import EndpointSpec
from tests.simulation.pools import Row, Server, answering, failing, simulate

ROW = Row(10, 10, 10)


@pytest.mark.parametrize(("share", "most"), [(0.05, 100), (0.2, 200), (0.35, 200), (0.5, 1000)])
def test_chance_refusals_do_not_stop_requests_in_parallel(share: float, most: float) -> None:
    """Answers take a second, and a share of the requests is refused at random: no row fails for that.

    3,000 rows take less than a fifteenth of the time that one request at a time would, and less than a third if half
    of the requests are refused.
    """
    for seed in range(3):
        lots = failing(share, lambda: RateLimited("x", status=429), answering(1.0, 0.0), Random(seed))
        server = Server(EndpointSpec.model_validate({"url": "http://a.test/v1"}), lots)
        outcome = simulate({"m": [server]}, {"m": [ROW] * 3000})
        assert {o.status for o in outcome.work.outcomes.values()} == {"ok"}
        assert outcome.seconds < most
