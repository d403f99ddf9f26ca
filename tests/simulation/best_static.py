"""The best throughput of a fixed number in flight on each simulated server, found by search and kept in a table.

The search runs each server once with every number of RUNGS; the tests that compare with its result run it once.
`python -m benchmarks.best_static` searches again and writes the table, `best_static.json`.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import NamedTuple

from batch.dispatch.limits.requests import Concurrency
from tests.simulation.servers import Client, Server, SharedServer, lognormal_tokens

CEILING = 512
SEEDS = (1, 2, 3)
TABLE = Path(__file__).with_suffix(".json")
# Every number in flight that the search tries.
RUNGS = sorted({round(1.25**k) for k in range(28)} | {CEILING})


def batching(speed: float, half: float) -> SharedServer:
    """A server like vLLM: all requests together get `speed * half * c / (c + half)` tokens per second."""
    return SharedServer(lambda c: speed * half / (c + half))


def thrashing(speed: float, half: float, best: int) -> SharedServer:
    """As `batching`, but with more than `best` requests at once the server thrashes and gets slower."""
    return SharedServer(lambda c: speed * half / (c + half) / (1 + 2 * max(0, c - best) / best))


def slots(number: int, speed: float, *, queues: bool = True) -> SharedServer:
    """A server that works on `number` requests at once; it queues others, as Ollama does, or refuses them."""
    return SharedServer(lambda _: speed, slots=number, queues=queues)


QUEUEING: Mapping[str, Callable[[], Server]] = {
    "vLLM, 0.5 to 12 s": lambda: batching(200, 20),
    "vLLM, 2 to 12 s": lambda: batching(50, 100),
    "thrashes beyond 20": lambda: thrashing(200, 20, 20),
    "thrashes beyond 48": lambda: thrashing(100, 30, 48),
    "1 slot": lambda: slots(1, 200),
    "4 slots": lambda: slots(4, 100),
    "32 slots": lambda: slots(32, 100),
    "32 slots, 10 s": lambda: slots(32, 10),
}
SLOW: Mapping[str, Callable[[], Server]] = {
    "thrashes beyond 100, 8 s": lambda: thrashing(33, 60, 100),
    "vLLM, 10 s and more": lambda: batching(100, 5),
    # The best is 300 in flight, where an answer takes three minutes.
    "vLLM, 10 s and much more": lambda: batching(10, 20),
}
SERVERS: Mapping[str, Callable[[], Server]] = {**QUEUEING, **SLOW}


class Case(NamedTuple):
    """One server with the answers of one seed, and the span of seconds over which it is measured."""

    name: str
    seed: int
    start: float
    end: float


class Best(NamedTuple):
    """The best number in flight, and the tokens per second it reaches."""

    in_flight: int
    tokens_per_second: float


CASES = [
    *(Case(name, seed, 60, 120) for name in SERVERS for seed in SEEDS),
    *(Case(name, SEEDS[0], 240, 480) for name in SLOW),
]


def answers(seed: int) -> Callable[[], float]:
    """Answer lengths: a hundred tokens on average, 500 for the longest of a hundred answers."""
    return lognormal_tokens(100, 0.8, Random(seed))


def reached(case: Case, in_flight: int) -> float:
    """Tokens per second of a server with this many requests in flight at any time."""
    client = Client(SERVERS[case.name](), Concurrency(in_flight), answers(case.seed), case.seed)
    return client.until(case.end).throughput(case.start, case.end)


def search(case: Case) -> Best:
    """Try every number of RUNGS."""
    tokens_per_second, in_flight = max((reached(case, in_flight), in_flight) for in_flight in RUNGS)
    return Best(in_flight, tokens_per_second)


def written(table: Mapping[Case, Best]) -> str:
    """The table as text, one case a line."""
    lines = [json.dumps([*case, *best]) for case, best in table.items()]
    return "[\n" + ",\n".join(lines) + "\n]\n"


def read() -> dict[Case, Best]:
    """The table as it was last written."""
    rows = json.loads(TABLE.read_text())
    return {Case(*row[:4]): Best(*row[4:]) for row in rows}
