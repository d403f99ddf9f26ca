"""`run --rehearse`: sends a job to local stand-ins that have the limits of its endpoints."""

from collections.abc import Iterator
from contextlib import contextmanager

from batch.runs.layout import is_folder, local_path, run_path
from jobs.rehearsal.server import Rehearsal, served
from jobs.resolve import embedder_of
from schemas.embedders import EndpointEmbedderSpec
from schemas.endpoints import EndpointSpec, LimitsSpec, ModelSpec
from schemas.job import JobSpec
from schemas.rehearse import LatencySpec, RehearsalEndpointSpec, RehearsalLimitsSpec, RehearsalSpec
from schemas.routers import EmbeddingRouterSpec

# A hosted model of average speed: a third of a second to the first token, then 200 tokens a second.
_LATENCY = LatencySpec(median_seconds=0.3, per_output_token_seconds=0.005, sigma=0.3)

# Requests that are sent within the limits may arrive a little closer together than they were sent.
_JITTER_REQUESTS = 2


@contextmanager
def rehearsed(job: JobSpec) -> Iterator[JobSpec]:
    """Serve stand-ins inside the block; yields the job with their urls, an output and a run directory of its own.

    Each endpoint of the job's models, and of its router's embedder, gets a stand-in.
    """
    embedder = embedder_of(job)
    pools = job.models if embedder is None else (*job.models, embedder)
    endpoints = [endpoint for model in pools for endpoint in model.endpoints]
    names = [e.model or model.name for model in pools for e in model.endpoints]
    spec = RehearsalSpec(
        seed=job.seed,
        endpoints=tuple(
            RehearsalEndpointSpec(model=name, latency=_LATENCY, limits=_limits(endpoint.limits))
            for name, endpoint in zip(names, endpoints, strict=True)
        ),
    )
    with served(Rehearsal(spec)) as urls:
        stand_ins = iter(urls)
        redirected = _redirected(job, stand_ins)
        yield redirected if embedder is None else _embedded(redirected, embedder, stand_ins)


def _limits(limits: LimitsSpec) -> RehearsalLimitsSpec:
    burst = None if limits.rpm is None else (limits.burst or max(1, int(limits.rpm / 60))) + _JITTER_REQUESTS
    return RehearsalLimitsSpec(rpm=limits.rpm, tpm=limits.tpm, burst=burst, max_in_flight=limits.max_in_flight)


def _redirected(job: JobSpec, urls: Iterator[str]) -> JobSpec:
    models = tuple(
        model.model_copy(update={"endpoints": tuple(_stand_in(e, next(urls)) for e in model.endpoints)})
        for model in job.models
    )
    # A rehearsal writes nothing to an object store: its output is a local file beside the run directory.
    path = local_path(job.output.path) or run_path(job.output).with_suffix("")
    slash = "/" if is_folder(job.output) else ""
    own = f"{path.with_name(f'{path.stem}.rehearsal{path.suffix}')}{slash}"
    output = job.output.model_copy(update={"path": own, "run_dir": None})
    return job.model_copy(update={"name": f"{job.name} (rehearsal)", "models": models, "output": output})


def _embedded(job: JobSpec, pool: ModelSpec, urls: Iterator[str]) -> JobSpec:
    """Have stand-ins embed too, with vectors as long as the checkpoint needs, and without the real cache."""
    from batch.routers.registry import trained_encoder

    router = job.router
    assert isinstance(router, EmbeddingRouterSpec), "only these embed"
    assert isinstance(router.embedder, EndpointEmbedderSpec), "only these have a pool"
    embedder = EndpointEmbedderSpec(
        kind="endpoint",
        model=pool.name,
        endpoints=tuple(_stand_in(e, next(urls)) for e in pool.endpoints),
        dimensions=trained_encoder(router).dimension,
        max_tokens=router.embedder.max_tokens,
    )
    return job.model_copy(update={"router": router.model_copy(update={"embedder": embedder})})


def _stand_in(endpoint: EndpointSpec, url: str) -> EndpointSpec:
    """An endpoint at `url` with the same limits and weight; keys, headers and certificates are left out."""
    return EndpointSpec(url=url, model=endpoint.model, weight=endpoint.weight, limits=endpoint.limits)
