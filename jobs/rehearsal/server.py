"""`batchrouter rehearse`: local OpenAI-compatible endpoints with limits, latency and faults."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from random import Random
from typing import Any, Self

import orjson

from batch.clock import Clock
from batch.errors import SpecError
from jobs.files.yaml_specs import load_spec
from jobs.rehearsal.answers import answer_source
from jobs.rehearsal.endpoint import RehearsedEndpoint
from jobs.rehearsal.http import HttpConnection, HttpRequest, HttpResponse, Respond
from schemas.rehearse import RehearsalSpec

HOST = "127.0.0.1"
# A dispatcher opens all its connections at once. With asyncio's default of 100, each further one would wait a second.
LISTEN_BACKLOG = 2048


def run_rehearsal(path: Path) -> None:
    """Serve the endpoints of the file at `path` until SIGINT or SIGTERM.

    Prints one line per endpoint, `<model> <url>`, once all of them answer.

    Raises:
        SpecError: the file is wrong, a key is missing or a port is taken; nothing is served.
    """
    import uvloop

    spec = load_spec(path, RehearsalSpec)
    uvloop.run(_serve_until_signal(spec, path.parent))


class Rehearsal:
    """The endpoints of a spec, served inside `async with`.

    Attributes:
        endpoints: in the spec's order.
        urls: base URLs of the endpoints, up to and including `/v1`.
    """

    def __init__(self, spec: RehearsalSpec, *, folder: Path = Path(), environ: Mapping[str, str] | None = None) -> None:
        """The spec's files are relative to `folder`; `environ` holds the keys that it names."""
        self._spec = spec
        self._folder = folder
        self._environ = environ or {}
        self._stack = AsyncExitStack()
        self.endpoints: tuple[RehearsedEndpoint, ...] = ()
        self.urls: tuple[str, ...] = ()

    async def __aenter__(self) -> Self:
        self.endpoints = tuple(self._build(time.monotonic))
        async with AsyncExitStack() as starting:
            urls = [await self._listen(index, starting) for index in range(len(self.endpoints))]
            self._stack = starting.pop_all()
        self.urls = tuple(urls)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    def stats(self) -> dict[str, Any]:
        """The counters of all endpoints: the body of `GET /stats`, which every endpoint answers."""
        counted = zip(self.urls, self.endpoints, strict=True)
        return {"endpoints": [{"url": url, **endpoint.stats()} for url, endpoint in counted]}

    def _build(self, clock: Clock) -> list[RehearsedEndpoint]:
        built = []
        for index, spec in enumerate(self._spec.endpoints):
            key = None
            if spec.api_key_env is not None:
                key = self._environ.get(spec.api_key_env)
                if not key:
                    raise SpecError(f"endpoints.{index}.api_key_env: {spec.api_key_env} is not set in the environment")
            answers = answer_source(spec, self._spec.seed, self._folder)
            random = Random(f"{self._spec.seed}:{index}")  # noqa: S311  a rehearsal must be repeatable
            built.append(RehearsedEndpoint(spec, answers, clock=clock, random=random, key=key))
        return built

    async def _listen(self, index: int, stack: AsyncExitStack) -> str:
        """Serve one endpoint until `stack` closes, and return its URL."""
        respond = self._with_stats(self.endpoints[index])
        connections: set[HttpConnection] = set()
        port = self._spec.endpoints[index].port
        try:
            server = await asyncio.get_running_loop().create_server(
                lambda: HttpConnection(respond, connections), HOST, port, backlog=LISTEN_BACKLOG
            )
        except OSError as error:
            advice = "choose another, or 0 for any free one"
            reason = error.strerror or "it is taken"
            raise SpecError(f"endpoints.{index}.port: cannot listen on {port}: {reason}; {advice}") from error
        stack.push_async_callback(_stop, server, connections)
        return f"http://{HOST}:{server.sockets[0].getsockname()[1]}/v1"

    def _with_stats(self, endpoint: RehearsedEndpoint) -> Respond:
        async def respond(request: HttpRequest) -> HttpResponse:
            if request.method == "GET" and request.path == "/stats":
                return HttpResponse(200, orjson.dumps(self.stats()))
            return await endpoint.respond(request)

        return respond


@contextmanager
def served(rehearsal: Rehearsal) -> Iterator[tuple[str, ...]]:
    """Serve a rehearsal from a thread of this process inside the block; yields the urls, in the spec's order.

    Raises what starting the rehearsal raises.
    """
    urls: Future[tuple[str, ...]] = Future()
    stop: Future[None] = Future()

    async def serve() -> None:
        async with rehearsal:
            urls.set_result(rehearsal.urls)
            await asyncio.wrap_future(stop)

    with ThreadPoolExecutor(1, thread_name_prefix="rehearsal") as thread:
        serving = thread.submit(asyncio.run, serve())
        # Either the urls come, or serving ends with the reason why there are none.
        either: list[Future[Any]] = [urls, serving]
        wait(either, return_when=FIRST_COMPLETED)
        if serving.done():
            serving.result()
        try:
            yield urls.result()
        finally:
            stop.set_result(None)
            serving.result()


async def _stop(server: asyncio.Server, connections: set[HttpConnection]) -> None:
    server.close()
    for connection in tuple(connections):
        await connection.aclose()
    await server.wait_closed()


async def _serve_until_signal(spec: RehearsalSpec, folder: Path) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    async with Rehearsal(spec, folder=folder, environ=os.environ) as rehearsal:
        models: Sequence[str] = [endpoint.spec.model for endpoint in rehearsal.endpoints]
        for model, url in zip(models, rehearsal.urls, strict=True):
            sys.stdout.write(f"{model} {url}\n")
        sys.stdout.flush()
        await stopped.wait()
