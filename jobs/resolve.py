"""Fills in what a job leaves to the environment: urls, keys and names of endpoints."""

import os
from pathlib import Path

from pydantic import ValidationError

from batch.errors import SpecError
from batch.running.resolved_job import ResolvedJob
from jobs.environment import key
from schemas.base import problems
from schemas.embedders import EndpointEmbedderSpec
from schemas.endpoints import EndpointSpec, ModelSpec, named
from schemas.job import JobSpec
from schemas.plans import PinPlanSpec
from schemas.routers import EmbeddingRouterSpec

_EMBEDDER = "router.embedder"


def resolve_endpoints(models: tuple[ModelSpec, ...]) -> tuple[ModelSpec, ...]:
    """Fill in what endpoints leave out: url and key from the environment, their own names, and their model's name.

    Raises:
        SpecError: an endpoint has no url and the environment has none either.
    """
    return tuple(_resolved_model(model, f"models.{model.name}", "COMPLETION") for model in models)


def resolve_job(job: JobSpec, cache: Path | None = None) -> ResolvedJob:
    """Fill in what the job leaves to the environment; see `resolve_endpoints` and `resolve_router`."""
    models = resolve_endpoints(job.models)
    job = resolve_router(job, cache)
    return ResolvedJob(job, models, embedder_of(job))


def resolve_model(model: ModelSpec, key: str) -> ModelSpec:
    """Fill in what the endpoints of one model leave out, as `resolve_endpoints` does; the user's file calls it `key`.

    Raises:
        SpecError: as in `resolve_endpoints`; or a key is named and not set.
    """
    filled = _resolved_model(model, key, "COMPLETION")
    _refuse_missing(key, filled)
    return filled


def resolve_router(job: JobSpec, cache: Path | None = None) -> JobSpec:
    """Fill in what the endpoints of the router's embedder leave to the environment.

    Args:
        cache: folder for its vectors, if the job names none.

    Raises:
        SpecError: as in `resolve_endpoints`.
    """
    router, pool = job.router, embedder_of(job)
    if pool is None or not isinstance(router, EmbeddingRouterSpec):
        return job
    assert isinstance(router.embedder, EndpointEmbedderSpec), "only these have a pool"
    embedder = _resolved_embedder(router.embedder, _EMBEDDER, cache)
    return job.model_copy(update={"router": router.model_copy(update={"embedder": embedder})})


def resolve_embedder(embedder: EndpointEmbedderSpec, key: str, cache: Path | None = None) -> EndpointEmbedderSpec:
    """Fill in what the endpoints of an embedder leave to the environment; the user's file calls the embedder `key`.

    Args:
        cache: folder for its vectors, if the embedder names none.

    Raises:
        SpecError: as in `resolve_endpoints`; or a key is named and not set.
    """
    filled = _resolved_embedder(embedder, key, cache)
    _refuse_missing(key, filled.pool())
    return filled


def _resolved_embedder(embedder: EndpointEmbedderSpec, key: str, cache: Path | None) -> EndpointEmbedderSpec:
    return embedder.at(_resolved_model(embedder.pool(), key, "EMBEDDING"), str(cache) if cache else None)


def embedder_of(job: JobSpec) -> ModelSpec | None:
    """The embedding model whose endpoints the job's router calls; `None` if it calls none."""
    router = job.router
    if isinstance(job.plan, PinPlanSpec) or not isinstance(router, EmbeddingRouterSpec):
        return None
    return router.embedder.pool() if isinstance(router.embedder, EndpointEmbedderSpec) else None


def _resolved_model(model: ModelSpec, key: str, prefix: str) -> ModelSpec:
    filled = tuple(
        _resolved_endpoint(endpoint, model.name, f"{key}.endpoints.{i}", prefix)
        for i, endpoint in enumerate(model.endpoints)
    )
    return model.model_copy(update={"endpoints": named(filled, model.name)})


def _resolved_endpoint(endpoint: EndpointSpec, model: str, key: str, prefix: str) -> EndpointSpec:
    changes: dict[str, str] = {}
    url = None
    if endpoint.model is None:
        changes["model"] = model
    if endpoint.url is None and endpoint.uds is None and endpoint.transport == "openai":
        url = _first_set(f"{prefix}_BASE_URL", "OPENAI_BASE_URL")
        if url is None:
            raise SpecError(f"{key} has no url: give one, or set {prefix}_BASE_URL or OPENAI_BASE_URL")
        changes["url"] = os.environ[url].rstrip("/")
        if endpoint.key_tag is None and "authorization" not in {name.lower() for name in endpoint.headers}:
            variable = _first_set(f"{prefix}_API_KEY", "OPENAI_API_KEY")
            if variable is not None:
                changes["api_key_env"] = variable
    try:
        return EndpointSpec.model_validate({**endpoint.model_dump(), **changes})
    except ValidationError as error:
        said = "; ".join(sentence for _, sentence in problems(error, EndpointSpec, changes))
        raise SpecError(f"{key}: {url} in the environment: {said}") from error


def missing_keys(job: ResolvedJob) -> list[str]:
    """One line for each key, variable or certificate that an endpoint names and that is missing or cannot be sent."""
    pools = [(f"models.{model.name}", model) for model in job.models]
    if job.embedder is not None:
        pools.append((_EMBEDDER, job.embedder))
    return [line for key, model in pools for line in _missing(key, model)]


def _refuse_missing(where: str, model: ModelSpec) -> None:
    missing = _missing(where, model)
    if missing:
        raise SpecError("\n".join(missing))


def _missing(where: str, model: ModelSpec) -> list[str]:
    from jobs.key_sources import faults

    return [
        f"{where}.endpoints.{position}{fault}"
        for position, endpoint in enumerate(model.endpoints)
        for fault in faults(endpoint, key)
    ]


def _first_set(*names: str) -> str | None:
    return next((name for name in names if os.environ.get(name)), None)
