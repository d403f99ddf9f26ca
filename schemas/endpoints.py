"""Endpoints, their limits, and the models they serve."""

from decimal import Decimal
from itertools import chain, count
from typing import Annotated, Literal

from pydantic import Field, model_validator

from schemas.base import InfinityMeansNone, Spec
from schemas.imported import ImportSpec
from schemas.reaching import Provider, ReachSpec

__all__ = ["DEFAULT_MAX_INPUTS", "EndpointSpec", "LimitsSpec", "ModelSpec", "PriceSpec", "Provider"]

# The lowest default of common servers (text-embeddings-inference; OpenAI takes 2,048, vLLM any number). With so many
# inputs the overhead of a request hardly counts any more.
DEFAULT_MAX_INPUTS = 32


class LimitsSpec(Spec):
    """What an endpoint allows. batchrouter keeps within these limits, so the server sees at most this."""

    rpm: Annotated[Annotated[float, Field(gt=0, allow_inf_nan=False)] | None, InfinityMeansNone] = None
    """Requests per minute, spread evenly."""

    tpm: Annotated[Annotated[float, Field(gt=0, allow_inf_nan=False)] | None, InfinityMeansNone] = None
    """Tokens of prompts and answers per minute, reserved before sending in the way that the provider counts them."""

    input_tpm: Annotated[Annotated[float, Field(gt=0, allow_inf_nan=False)] | None, InfinityMeansNone] = None
    """Prompt tokens per minute, if they have a limit of their own."""

    output_tpm: Annotated[Annotated[float, Field(gt=0, allow_inf_nan=False)] | None, InfinityMeansNone] = None
    """Answer tokens per minute, if they have a limit of their own."""

    max_in_flight: Annotated[Annotated[int, Field(gt=0)] | None, InfinityMeansNone] = None
    """Most requests in flight; left out: the run finds it by measuring how much the endpoint answers per second. Never
    more than the connections that the process may have (`ulimit -n`)."""

    burst: Annotated[Annotated[int, Field(gt=0)] | None, InfinityMeansNone] = None
    """Requests that the server accepts at once above the even rate; left out: as many as make up for late timers."""

    window_seconds: Literal[1, 10, 60] | None = None
    """Length of the windows in which the server counts; no window exceeds a limit. Left out: the provider's."""

    max_inputs: Annotated[int, Field(gt=0)] = DEFAULT_MAX_INPUTS
    """Most rows to embed in one request; 1: one each. If the server accepts fewer, the run learns it."""

    @model_validator(mode="after")
    def _bursts_are_for_buckets(self) -> "LimitsSpec":
        if self.burst is not None and self.rpm is None:
            raise ValueError(f"burst {self.burst} needs an rpm")
        if self.burst is not None and self.window_seconds is not None:
            raise ValueError(f"burst {self.burst} is for servers that count evenly; leave it or window_seconds out")
        return self


class EndpointSpec(ReachSpec):
    """One URL serving one model."""

    model: str | None = None
    """Name of the model at this endpoint; left out: its name in this file."""

    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    """Share of the pool's requests, relative to the weights of its other endpoints."""

    limits: LimitsSpec = LimitsSpec()
    """What this endpoint allows."""

    def place(self, model: str) -> str:
        """Its url or socket, else its transport's name for it; `model` is the model that it serves."""
        if self.url is None and self.uds is not None:
            return f"unix://{self.uds}"
        if self.url is None and isinstance(self.transport, ImportSpec):
            return f"import:{self.model or model}"
        return self.url or f"litellm:{self.model or model}"


class PriceSpec(Spec):
    """US dollars per million tokens."""

    input: Annotated[Decimal, Field(ge=0)]
    """Dollars per million prompt tokens."""

    output: Annotated[Decimal, Field(ge=0)]
    """Dollars per million completion tokens."""


class ModelSpec(Spec):
    """A model that rows can be routed to, and the pool of endpoints that serve it."""

    name: str = Field(min_length=1)
    """Its name in results, in reports and in the rows that ask for it."""

    aliases: tuple[str, ...] = ()
    """Other names by which a row's `model` may ask for it."""

    price: PriceSpec | None = None
    """Its price; left out: LiteLLM's price table by this name. If that has none, the price is unknown, which is not
    zero.
    """

    endpoints: tuple[EndpointSpec, ...] = Field(default=(EndpointSpec(),), min_length=1)
    """Its pool of endpoints."""

    @property
    def limits_prompt_tokens(self) -> bool:
        """Whether any endpoint limits the tokens of prompts."""
        limits = (endpoint.limits for endpoint in self.endpoints)
        return any(limit.tpm is not None or limit.input_tpm is not None for limit in limits)

    @model_validator(mode="after")
    def _endpoints_differ(self) -> "ModelSpec":
        seen = [_identity(endpoint) for endpoint in self.endpoints]
        twice = next((e for e, own in zip(self.endpoints, seen, strict=True) if seen.count(own) > 1), None)
        if twice is not None:
            raise ValueError(
                f"model {self.name!r} lists the endpoint {twice.place(self.name)} twice; raise its weight, "
                "or give them different keys"
            )
        names = [endpoint.name for endpoint in self.endpoints if endpoint.name is not None]
        same = next((name for name in names if names.count(name) > 1), None)
        if same is not None:
            raise ValueError(f"model {self.name!r} has two endpoints with the name {same!r}")
        return self


def _identity(endpoint: EndpointSpec) -> tuple[object, ...]:
    """What distinguishes an endpoint from the others of its pool: its address, model, key, headers and certificate."""
    return (
        endpoint.url,
        endpoint.uds,
        endpoint.model,
        endpoint.api_version,
        endpoint.api_key_env,
        endpoint.api_key_file,
        endpoint.api_key_command,
        sorted(endpoint.headers.items()),
        sorted(endpoint.query.items()),
        endpoint.client_cert,
        endpoint.transport if isinstance(endpoint.transport, ImportSpec) else None,
    )


def named(endpoints: tuple[EndpointSpec, ...], model: str) -> tuple[EndpointSpec, ...]:
    """The same endpoints of `model`, with a name each where their urls do not distinguish them.

    A given name stays. An endpoint whose url is unique is called by its url, so that its journals and the limits that
    earlier sittings learned stay valid. The others are distinguished by their keys (`url#KEY_A`), else by numbers.
    """
    places = [endpoint.place(model) for endpoint in endpoints]
    taken = {endpoint.name for endpoint in endpoints if endpoint.name is not None}
    unnamed = [place for endpoint, place in zip(endpoints, places, strict=True) if endpoint.name is None]
    filled = []
    for endpoint, place in zip(endpoints, places, strict=True):
        if endpoint.name is not None or (unnamed.count(place) == 1 and place not in taken):
            filled.append(endpoint)
            continue
        first = place if endpoint.key_tag is None else f"{place}#{endpoint.key_tag}"
        numbered = (f"{first}{'#' if endpoint.key_tag is None else '-'}{number}" for number in count(2))
        name = next(name for name in chain((first,), numbered) if name not in taken)
        taken.add(name)
        filled.append(endpoint.model_copy(update={"name": name}))
    return tuple(filled)
