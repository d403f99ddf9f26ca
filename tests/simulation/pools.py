"""Pools of simulated servers behind the real dispatcher, in virtual time. The servers do the counting."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

from batch.dispatch.budget import Pricing
from batch.dispatch.dispatcher import DispatchEnd, Dispatcher
from batch.dispatch.request import Completion, Request
from batch.errors import DispatchError
from schemas.endpoints import EndpointSpec, ModelSpec
from schemas.job import DispatchSpec
from tests.dispatch.built import built
from tests.dispatch.memory_work import MemoryWork
from tests.fakes import answer
from tests.virtual_time import run


@dataclass(frozen=True)
class Row:
    """The tokens of a row's prompt and answer, and its limit."""

    prompt: int
    answer: int
    max_tokens: int


@dataclass(frozen=True)
class Seen:
    """One request, as the server saw it."""

    started: float
    ended: float
    tokens: int
    good: bool


Answers = Callable[["Server", Row], Awaitable[Completion]]


@dataclass
class Server:
    """One simulated endpoint: the spec that the dispatcher gets, how it answers, and the requests it has seen."""

    spec: EndpointSpec
    behaviour: Answers
    seen: list[Seen] = field(default_factory=list)
    in_flight: int = 0

    async def serve(self, row: Row) -> Completion:
        """Answer one row, and record the request."""
        clock = asyncio.get_running_loop().time
        started = clock()
        good = False
        self.in_flight += 1
        try:
            completion = await self.behaviour(self, row)
            good = True
        finally:
            self.in_flight -= 1
            self.seen.append(Seen(started, clock(), row.prompt + row.answer, good))
        return completion

    def arrivals(self, start: float = 0.0, end: float = float("inf")) -> list[Seen]:
        """Requests that arrived in this span."""
        return [seen for seen in self.seen if start <= seen.started < end]

    def rate(self, start: float, end: float) -> float:
        """Good answers per second of requests that arrived in this span."""
        return sum(seen.good for seen in self.arrivals(start, end)) / (end - start)


def answering(fixed_seconds: float, seconds_per_token: float) -> Answers:
    """A server that always answers, in a time that grows with the answer's length."""

    async def behave(server: Server, row: Row) -> Completion:
        await asyncio.sleep(fixed_seconds + seconds_per_token * row.answer)
        return answer(row.prompt, row.answer)

    return behave


class RowsWork(MemoryWork):
    """Rows of different lengths, in memory."""

    def __init__(self, rows: Mapping[str, Sequence[Row]]) -> None:
        firsts: dict[str, int] = {}
        for model, own in rows.items():
            firsts[model] = sum(len(rows[m]) for m in firsts)
            assert len(own) > 0
        super().__init__({(0, m): list(range(firsts[m], firsts[m] + len(own))) for m, own in rows.items()})
        self.all_rows = [row for own in rows.values() for row in own]

    def routed(self, shard: int, model: str) -> Iterator[Sequence[Request]]:
        numbers = self.rows[shard, model]
        for start in range(0, len(numbers), 512):
            self.batches_read += 1
            yield [self._request(number, shard, model) for number in numbers[start : start + 512]]

    def _request(self, number: int, shard: int, model: str) -> Request:
        row = self.all_rows[number]
        body = b"x" * (4 * row.prompt)
        url = "/v1/chat/completions"
        # Rows with prompts of one length share their beginning.
        return Request(number, shard, url, body, row.prompt, row.max_tokens, model, key=row.prompt)


@dataclass(frozen=True)
class SimulatedDispatch:
    """How a simulated dispatch ended, and how many seconds it took."""

    end: DispatchEnd
    seconds: float
    work: RowsWork


def simulate(
    pools: Mapping[str, Sequence[Server]],
    rows: Mapping[str, Sequence[Row]],
    *,
    spec: DispatchSpec | None = None,
    also: Callable[[Dispatcher], object] = lambda dispatcher: None,
    pricing: Mapping[str, Pricing] | None = None,
) -> SimulatedDispatch:
    """Send every row of every model to its pool, in virtual time that begins at 0."""
    work = RowsWork(rows)
    servers = {str(server.spec.url): server for pool in pools.values() for server in pool}

    async def main() -> tuple[DispatchEnd, float]:
        loop = asyncio.get_running_loop()

        async def behave(request: Request, endpoint: EndpointSpec) -> Completion:
            return await servers[str(endpoint.url)].serve(work.all_rows[request.row])

        models = [ModelSpec(name=model, endpoints=tuple(s.spec for s in pool)) for model, pool in pools.items()]
        dispatcher = built(work, behave, models, spec, pricing=pricing)
        started = loop.time()
        for server in servers.values():
            server.seen.clear()
        dispatcher.feed(0)
        dispatcher.close_feed()
        also(dispatcher)
        end = await dispatcher.run()
        for server in servers.values():
            server.seen = [
                Seen(seen.started - started, seen.ended - started, seen.tokens, seen.good) for seen in server.seen
            ]
        return end, loop.time() - started

    end, seconds = run(main())
    return SimulatedDispatch(end, seconds, work)


def failing(share: float, error: Callable[[], DispatchError], then: Answers, random: Random) -> Answers:
    """A server that fails this share of its requests, and answers the others as `then` does."""

    async def behave(server: Server, row: Row) -> Completion:
        if random.random() < share:
            await asyncio.sleep(0.05)
            raise error()
        return await then(server, row)

    return behave
