"""`run --rehearse`: the job as it is, sent to local stand-ins with the same limits."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jobs.rehearse import Rehearsal
from schemas.endpoints import EndpointSpec, LimitsSpec
from schemas.job import JobSpec
from schemas.rehearse import LatencySpec, RehearsalEndpointSpec, RehearsalLimitsSpec, RehearsalSpec

# A hosted model of middling speed: a third of a second to the first token, then 200 tokens a second.
_LATENCY = LatencySpec(median_seconds=0.3, per_output_token_seconds=0.005, sigma=0.3)

# Requests that left in time may arrive a little closer together than they left.
_JITTER_REQUESTS = 2


@contextmanager
def rehearsed(job: JobSpec) -> Iterator[JobSpec]:
    """The same job against stand-ins that are served meanwhile, with an output and a run directory of its own."""
    endpoints = [endpoint for model in job.models for endpoint in model.endpoints]
    names = [e.model or model.name for model in job.models for e in model.endpoints]
    spec = RehearsalSpec(
        seed=job.seed,
        endpoints=tuple(
            RehearsalEndpointSpec(model=name, latency=_LATENCY, limits=_limits(endpoint.limits))
            for name, endpoint in zip(names, endpoints, strict=True)
        ),
    )
    with _served(spec) as urls:
        yield _redirected(job, iter(urls))


def _limits(limits: LimitsSpec) -> RehearsalLimitsSpec:
    burst = None if limits.rpm is None else (limits.burst or max(1, int(limits.rpm / 60))) + _JITTER_REQUESTS
    return RehearsalLimitsSpec(rpm=limits.rpm, tpm=limits.tpm, burst=burst, max_in_flight=limits.max_in_flight)


def _redirected(job: JobSpec, urls: Iterator[str]) -> JobSpec:
    models = tuple(
        model.model_copy(update={"endpoints": tuple(_stand_in(e, next(urls)) for e in model.endpoints)})
        for model in job.models
    )
    path = Path(job.output.path)
    slash = "/" if job.output.path.endswith("/") else ""
    own = f"{path.with_name(f'{path.stem}.rehearsal{path.suffix}')}{slash}"
    output = job.output.model_copy(update={"path": own, "run_dir": None})
    return job.model_copy(update={"name": f"{job.name} (rehearsal)", "models": models, "output": output})


def _stand_in(endpoint: EndpointSpec, url: str) -> EndpointSpec:
    changes = {"url": url, "api_key_env": None, "transport": "openai", "provider": "generic"}
    return endpoint.model_copy(update=changes)


@contextmanager
def _served(spec: RehearsalSpec) -> Iterator[tuple[str, ...]]:
    """Serve from a thread of this process; the urls."""
    urls: Future[tuple[str, ...]] = Future()
    stop: Future[None] = Future()

    async def serve() -> None:
        async with Rehearsal(spec) as rehearsal:
            urls.set_result(rehearsal.urls)
            await asyncio.wrap_future(stop)

    with ThreadPoolExecutor(1, thread_name_prefix="rehearsal") as thread:
        serving = thread.submit(asyncio.run, serve())
        # Whichever comes first: the urls, or the reason why there are none.
        either: list[Future[Any]] = [urls, serving]
        wait(either, return_when=FIRST_COMPLETED)
        if serving.done():
            serving.result()
        try:
            yield urls.result()
        finally:
            stop.set_result(None)
            serving.result()
