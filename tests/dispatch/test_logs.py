"""The dispatcher logs what happens to endpoints and rows, and never logs prompts or keys."""

import asyncio
import logging
from collections import Counter
from decimal import Decimal

import pytest

from batch.dispatch.budget import Pricing
from batch.dispatch.request import Completion, Request
from batch.errors import NotConnected, RateLimited, Refused, ServerError
from batch.limits import Allowance
from schemas.endpoints import EndpointSpec, LimitsSpec, ModelSpec
from schemas.job import DispatchSpec
from tests.dispatch.built import built
from tests.dispatch.memory_work import MemoryWork
from tests.fakes import answer
from tests.virtual_time import run

PROMPT = "hi"
KEY = "sk-0123456789abcdefghij"
WORDS = f"you said {PROMPT!r} with the key {KEY}"


class Server:
    """A server whose behaviour depends on the name of the endpoint."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()

    async def __call__(self, request: Request, endpoint: EndpointSpec) -> Completion:
        name = str(endpoint.name)
        self.asked[name] += 1
        await asyncio.sleep(1)
        if name == "refuses":
            raise Refused("HTTP 401", status=401, code="invalid_api_key", words=WORDS)
        if name == "breaks" and self.asked[name] < 20:
            raise NotConnected("no connection", words=WORDS)
        if name == "limits" and self.asked[name] % 40 == 0:
            raise RateLimited("HTTP 429", status=429, retry_after=2.0, words=WORDS)
        if request.row % 50 == 0 and name != "well":
            raise ServerError("HTTP 500", status=500, words=WORDS)
        good = answer()
        good.allowances = (Allowance("requests", 6000, 5000, 1.0),) if name == "limits" else ()
        return good


def dispatch(names: tuple[str, ...], **options: object) -> None:
    """Send 500 rows to endpoints of these names."""
    endpoints = tuple(
        EndpointSpec(url=f"http://{name}/v1", name=name, limits=LimitsSpec(max_in_flight=16)) for name in names
    )
    work = MemoryWork({(0, "m"): list(range(500))})

    async def main() -> None:
        spec = DispatchSpec.model_validate({"max_attempts": 2, **options})
        price = Pricing(lambda asked: Decimal("0.1"), lambda prompt, completion: Decimal("0.05"))
        dispatcher = built(work, Server(), [ModelSpec(name="m", endpoints=endpoints)], spec, pricing={"m": price})
        dispatcher.feed(0)
        dispatcher.close_feed()
        await dispatcher.run()

    run(main())


def test_the_log_tells_what_happens_to_endpoints_and_rows(caplog: pytest.LogCaptureFixture) -> None:
    """The log has cooldowns and their ends, pauses, stated limits, endpoints that are out and rows given up."""
    with caplog.at_level(logging.DEBUG, "batchrouter"):
        dispatch(("refuses", "breaks", "limits"))
    said = [(record.name.removeprefix("batchrouter.dispatch."), record.getMessage()) for record in caplog.records]
    for logger, part in (
        ("endpoint", "refuses is out for the rest of the run"),
        ("health", "breaks is cooling down for 1.0 s: not_connected"),
        ("health", "breaks answers again after"),
        ("health", "limits pauses for 2.00 s: rate_limited, HTTP 429"),
        ("endpoint", "limits states a limit of 6000 per minute on requests"),
        ("lane", "is given up after 2 requests: server_error, HTTP 500"),
    ):
        assert any(name == logger and part in message for name, message in said), part


def test_the_log_tells_that_the_budget_is_used_up(caplog: pytest.LogCaptureFixture) -> None:
    """The pool logs this once, however many rows stay unsent."""
    with caplog.at_level(logging.INFO, "batchrouter"):
        dispatch(("limits",), budget_usd=1)
    said = [record.getMessage() for record in caplog.records if record.name == "batchrouter.dispatch.pool"]
    assert len(said) == 1
    assert said[0].startswith("m: rows no longer fit into the $")


def test_no_prompt_and_no_key_reaches_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """The log holds neither, even at the level DEBUG and though the servers repeat both in their errors."""
    with caplog.at_level(logging.DEBUG, "batchrouter"):
        dispatch(("refuses", "breaks", "limits"))
        dispatch(("limits",), budget_usd=1)
    assert len(caplog.records) > 20
    for record in caplog.records:
        message = record.getMessage()
        assert PROMPT not in message.split()
        assert repr(PROMPT) not in message
        assert KEY not in message
        assert "you said" not in message


def test_a_row_that_goes_well_costs_no_record(caplog: pytest.LogCaptureFixture) -> None:
    """Rows that are answered at once leave no log record at any level."""
    with caplog.at_level(logging.DEBUG, "batchrouter"):
        dispatch(("well",))
    assert caplog.records == []
