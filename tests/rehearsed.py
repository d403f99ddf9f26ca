"""Rehearsed endpoints in a thread of the test's own process, that remember every request."""

import asyncio
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from jobs.rehearsal.endpoint import RehearsedEndpoint
from jobs.rehearsal.http import HttpRequest, HttpResponse, Respond
from jobs.rehearse import Rehearsal
from schemas.rehearse import RehearsalSpec


@dataclass
class Served:
    """What was served: one URL per endpoint, and every POST in order of arrival."""

    urls: tuple[str, ...] = ()
    posts: list[dict[str, Any]] = field(default_factory=list)

    def prompts(self) -> Counter[str]:
        """How often each prompt came, to whatever model."""
        return Counter(prompt_of(post) for post in self.posts)

    def sent(self) -> Counter[tuple[str, str]]:
        """How often each (model, prompt) came."""
        return Counter((post["model"], prompt_of(post)) for post in self.posts)

    def forget(self) -> None:
        """Count anew."""
        self.posts.clear()


def prompt_of(body: Mapping[str, Any]) -> str:
    """The prompt in a request's body."""
    if "messages" in body:
        return "\n".join(m["content"] for m in body["messages"] if m["role"] == "user")
    text = body["input"] if "input" in body else body["prompt"]
    return text if isinstance(text, str) else "\n".join(text)


class RecordingRehearsal(Rehearsal):
    """Notes each POST before it is answered, refused or dropped."""

    def __init__(self, spec: RehearsalSpec, served: Served, environ: Mapping[str, str]) -> None:
        super().__init__(spec, environ=environ)
        self._served = served

    def _with_stats(self, endpoint: RehearsedEndpoint) -> Respond:
        respond = super()._with_stats(endpoint)

        async def recorded(request: HttpRequest) -> HttpResponse:
            if request.method == "POST":
                self._served.posts.append(json.loads(request.body))
            return await respond(request)

        return recorded


@contextmanager
def serve(*endpoints: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> Iterator[Served]:
    """Serve these endpoints meanwhile; `environ` holds the keys they ask for."""
    spec = RehearsalSpec.model_validate({"endpoints": list(endpoints)})
    served = Served()
    ready: Future[tuple[str, ...]] = Future()
    stop: Future[None] = Future()

    async def main() -> None:
        async with RecordingRehearsal(spec, served, environ or {}) as rehearsal:
            ready.set_result(rehearsal.urls)
            await asyncio.wrap_future(stop)

    with ThreadPoolExecutor(1, thread_name_prefix="rehearsal") as thread:
        serving = thread.submit(asyncio.run, main())
        either: list[Future[Any]] = [ready, serving]
        wait(either, return_when=FIRST_COMPLETED)
        if serving.done():
            serving.result()
        served.urls = ready.result()
        try:
            yield served
        finally:
            stop.set_result(None)
            serving.result()
