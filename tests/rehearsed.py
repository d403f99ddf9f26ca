"""Rehearsed endpoints in a thread of the test's own process, that remember every request."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from jobs.rehearsal.endpoint import RehearsedEndpoint
from jobs.rehearsal.http import HttpRequest, HttpResponse, Respond
from jobs.rehearsal.server import Rehearsal, served
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
    seen = Served()
    with served(RecordingRehearsal(spec, seen, environ or {})) as seen.urls:
        yield seen
