"""The process's surroundings: the only place that reads the environment, the clock and signals for the engine."""

import logging
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from pydantic import ValidationError

from batch.environment import Environment
from batch.errors import SpecError
from batch.running.resolved_job import ResolvedJob
from schemas.base import problems
from schemas.embedders import EndpointEmbedderSpec
from schemas.endpoints import EndpointSpec, ModelSpec, named
from schemas.job import JobSpec
from schemas.plans import PinPlanSpec
from schemas.routers import EmbeddingRouterSpec

_EMBEDDER = "router.embedder"

# As `Exit.STOPPED` of the command line.
_STOPPED = 3

# Left to themselves these libraries ask the network, phone home, print at import, or keep memory that was freed: Arrow
# 60 MiB over the processes of a run on Ray.
_QUIET = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "true",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
}


def set_library_defaults() -> None:
    """Set what keeps the libraries quiet and local, where the user has not decided otherwise."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    root_logger()


def root_logger() -> logging.Logger:
    """The logger above all of ours, with a handler: without any, Python prints our warnings on standard error."""
    logger = logging.getLogger("batchrouter")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    return logger


def settled_environment() -> dict[str, str]:
    """What `set_library_defaults` sees to, as it is now: for processes that do not inherit it."""
    return {name: os.environ[name] for name in _QUIET}


def settle_ray_token() -> None:
    """Give a local cluster's processes the token by which they know each other, where the user has not decided on one.

    Ray would write it into the home folder, which may not be there or not be written to. One that is there serves.
    """
    if any(os.environ.get(name) for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")):
        return
    if not os.access(os.path.expanduser("~/.ray/auth_token"), os.R_OK):  # noqa: PTH111  Path.home raises without a home
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def ray_folders() -> tuple[str, ...]:
    """Where a local Ray cluster may have its sockets and logs, the best first."""
    asked = (os.environ.get(name) for name in ("RAY_TMPDIR", "TMPDIR"))
    here = os.environ.get("XDG_RUNTIME_DIR")
    return tuple(place for place in (*asked, "/tmp", here, "/var/tmp", "/dev/shm") if place)  # noqa: S108


def end_process(reason: str | None) -> None:
    """End this process at once, with the status of a run that goes on later, after a line that says why.

    For the death of Ray's processes, after which a call into Ray may never return. `None`: it has been said already.
    """
    # The standard streams may be held by the very thread that hangs.
    with suppress(OSError):
        if reason is not None:
            os.write(2, f"batchrouter: {reason}\n".encode())
        else:
            sys.stdout.flush()
            sys.stderr.flush()
    os._exit(_STOPPED)


def key(name: str) -> str | None:
    """The value of an environment variable, or what `file:` and `command:` lead to; passed by reference, so that values
    never travel.

    Raises:
        SpecError: the file cannot be read, or the command failed.
    """
    if name.startswith(("file:", "command:")):
        from jobs.key_sources import key_from

        return key_from(name)
    return os.environ.get(name)


wall_clock = time.time
monotonic = time.monotonic
pause = time.sleep

ENVIRONMENT = Environment(key, wall_clock)
"""Keys and wall clock of this process."""


def now() -> datetime:
    """The date and time, in UTC."""
    return datetime.now(UTC)


def resolve_endpoints(models: tuple[ModelSpec, ...]) -> tuple[ModelSpec, ...]:
    """Fill in what endpoints leave out: url and key by the environment, their own names, and their model's name.

    Raises:
        SpecError: an endpoint has no url and the environment has none either.
    """
    return tuple(_with_surroundings(model, f"models.{model.name}", "COMPLETION") for model in models)


def resolve_job(job: JobSpec, cache: Path | None = None) -> ResolvedJob:
    """Fill in what the job leaves to the environment: see `resolve_endpoints` and `with_embedder`."""
    models = resolve_endpoints(job.models)
    job = with_embedder(job, cache)
    return ResolvedJob(job, models, embedder_of(job))


def model_with_surroundings(model: ModelSpec, key: str) -> ModelSpec:
    """The same for one model, which the user calls `key`.

    Raises:
        SpecError: as `resolve_endpoints`, and where a key is named but not set.
    """
    filled = _with_surroundings(model, key, "COMPLETION")
    missing = _missing(key, filled)
    if missing:
        raise SpecError("\n".join(missing))
    return filled


def with_embedder(job: JobSpec, cache: Path | None = None) -> JobSpec:
    """Fill in what the endpoints of a router's embedder leave to the environment.

    Args:
        cache: where its vectors are kept, if the job does not say.

    Raises:
        SpecError: as `resolve_endpoints`.
    """
    router, pool = job.router, embedder_of(job)
    if pool is None or not isinstance(router, EmbeddingRouterSpec):
        return job
    assert isinstance(router.embedder, EndpointEmbedderSpec), "only these have a pool"
    embedder = _filled_embedder(router.embedder, _EMBEDDER, cache)
    return job.model_copy(update={"router": router.model_copy(update={"embedder": embedder})})


def embedder_with_surroundings(
    embedder: EndpointEmbedderSpec, key: str, cache: Path | None = None
) -> EndpointEmbedderSpec:
    """Fill in what the endpoints of an embedder, which the user calls `key`, leave to the environment.

    Args:
        cache: where its vectors are kept, if the embedder does not say.

    Raises:
        SpecError: as `resolve_endpoints`, and where a key is named but not set.
    """
    filled = _filled_embedder(embedder, key, cache)
    missing = _missing(key, filled.pool())
    if missing:
        raise SpecError("\n".join(missing))
    return filled


def _filled_embedder(embedder: EndpointEmbedderSpec, key: str, cache: Path | None) -> EndpointEmbedderSpec:
    return embedder.at(_with_surroundings(embedder.pool(), key, "EMBEDDING"), str(cache) if cache else None)


def embedder_of(job: JobSpec) -> ModelSpec | None:
    """The embedding model that the job's scores come from, with its endpoints; `None` where nothing is asked."""
    router = job.router
    if isinstance(job.plan, PinPlanSpec) or not isinstance(router, EmbeddingRouterSpec):
        return None
    return router.embedder.pool() if isinstance(router.embedder, EndpointEmbedderSpec) else None


def _with_surroundings(model: ModelSpec, key: str, prefix: str) -> ModelSpec:
    filled = tuple(
        _filled(endpoint, model.name, f"{key}.endpoints.{i}", prefix) for i, endpoint in enumerate(model.endpoints)
    )
    return model.model_copy(update={"endpoints": named(filled, model.name)})


def _filled(endpoint: EndpointSpec, model: str, key: str, prefix: str) -> EndpointSpec:
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


def _missing(where: str, model: ModelSpec) -> list[str]:
    from jobs.key_sources import faults

    return [
        f"{where}.endpoints.{position}{fault}"
        for position, endpoint in enumerate(model.endpoints)
        for fault in faults(endpoint, key)
    ]


@contextmanager
def interrupts(drain: Callable[[], None]) -> Iterator[None]:
    """Call `drain` on the first Ctrl-C, SIGTERM or end of the terminal; a second one raises KeyboardInterrupt."""
    asked = False

    def on_signal(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        drain()

    heard = [signal.SIGINT, signal.SIGTERM]
    # Under nohup the run is to go on without a terminal.
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        heard.append(signal.SIGHUP)
    before = {number: signal.signal(number, on_signal) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def block_sighup() -> Iterator[None]:
    """Have processes that are started meanwhile outlive a closed terminal, which tells all in front of it.

    They inherit what is blocked; for this process a signal only waits until the block ends.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _first_set(*names: str) -> str | None:
    return next((name for name in names if os.environ.get(name)), None)
