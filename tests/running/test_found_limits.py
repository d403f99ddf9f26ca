"""The limits that a sitting has found for its endpoints are stored for the next sitting."""

import asyncio
from pathlib import Path

import pytest

from batch.dispatch.dispatcher import Dispatcher
from batch.limits import LearnedLimits
from batch.running.found_limits import read_found, write_found
from schemas.endpoints import EndpointSpec, LimitsSpec, ModelSpec
from schemas.job import DispatchSpec
from tests.dispatch.memory_work import MemoryWork
from tests.fakes import FunctionTransport, answer
from tests.virtual_time import run

FOUND = {"m": {"http://a/v1": LearnedLimits(96, None), "http://b/v1": LearnedLimits(None, 600.5)}}


def test_what_was_found_is_read_back(tmp_path: Path) -> None:
    """Models, endpoints and their limits are read back, including limits that are unknown."""
    path = tmp_path / "limits.json"
    write_found(path, FOUND)
    assert read_found(path) == FOUND


@pytest.mark.parametrize("text", ["", "{", "[]", '{"m": {"http://a/v1": {"in_flight": "many"}}}'])
def test_a_missing_or_damaged_file_reads_as_empty(tmp_path: Path, text: str) -> None:
    """A new search for the limits costs a minute; a run that stopped because of the file could cost a night."""
    path = tmp_path / "limits.json"
    assert read_found(path) == {}
    path.write_text(text)
    assert read_found(path) == {}


def test_the_next_sitting_begins_where_the_last_one_ended() -> None:
    """An endpoint with a stored limit of 96 gets 96 requests at once; the job file's limit goes before a stored one."""

    async def main() -> dict[str, int]:
        most: dict[str, int] = {}

        async def serve(request: object, endpoint: EndpointSpec) -> object:
            url = str(endpoint.url)
            now[url] = now.get(url, 0) + 1
            most[url] = max(most.get(url, 0), now[url])
            await asyncio.sleep(1)
            now[url] -= 1
            return answer()

        now: dict[str, int] = {}
        endpoints = (
            EndpointSpec(url="http://a/v1", model="m"),
            EndpointSpec(url="http://b/v1", model="m", limits=LimitsSpec(max_in_flight=5)),
        )
        known = {"m": {url: LearnedLimits(96, None) for url in ("http://a/v1", "http://b/v1")}}
        dispatcher = Dispatcher(
            [ModelSpec(name="m", endpoints=endpoints)],
            DispatchSpec(),
            MemoryWork({(0, "m"): list(range(101))}),
            seed=0,
            keys=lambda name: None,
            wall=lambda: 0.0,
            transports=lambda endpoint: FunctionTransport(serve, endpoint),  # type: ignore[arg-type]
            known=known,
        )
        dispatcher.feed(0)
        dispatcher.close_feed()
        await dispatcher.run()
        return most

    assert run(main()) == {"http://a/v1": 96, "http://b/v1": 5}
