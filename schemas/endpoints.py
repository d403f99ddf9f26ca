"""Endpoints, their limits, and the models they serve."""

import re
from decimal import Decimal
from typing import Annotated, Literal
from urllib.parse import parse_qsl, urlsplit

from pydantic import Field, field_validator, model_validator

from schemas.base import InfinityMeansNone, Spec

Provider = Literal["openai", "anthropic", "azure", "generic"]

# The least that common servers take by default (text-embeddings-inference; OpenAI takes 2,048, vLLM any number), and
# what a request costs is spread so thin by then that more gains little.
DEFAULT_MAX_INPUTS = 32


_SECRET = re.compile(r"key|secret|token|sig|password", re.IGNORECASE)


def _holds_secret(url: str) -> bool:
    parts = urlsplit(url)
    return "@" in parts.netloc or any(_SECRET.search(name) for name, _ in parse_qsl(parts.query))


class LimitsSpec(Spec):
    """What an endpoint allows. Held on our side: the server sees at most this."""

    rpm: Annotated[Annotated[float, Field(gt=0, allow_inf_nan=False)] | None, InfinityMeansNone] = None
    """Requests per minute, paced evenly."""

    tpm: Annotated[Annotated[float, Field(gt=0, allow_inf_nan=False)] | None, InfinityMeansNone] = None
    """Tokens per minute, prompt and answer, reserved before sending as the provider counts them."""

    input_tpm: Annotated[Annotated[float, Field(gt=0, allow_inf_nan=False)] | None, InfinityMeansNone] = None
    """Prompt tokens per minute, where they have a limit of their own."""

    output_tpm: Annotated[Annotated[float, Field(gt=0, allow_inf_nan=False)] | None, InfinityMeansNone] = None
    """Answer tokens per minute, where they have a limit of their own."""

    max_in_flight: Annotated[Annotated[int, Field(gt=0)] | None, InfinityMeansNone] = None
    """Requests under way at once; left out: found while running, by what the endpoint answers per second."""

    burst: Annotated[Annotated[int, Field(gt=0)] | None, InfinityMeansNone] = None
    """Requests the server lets through at once above the pace; left out: only what evens out late timers."""

    window_seconds: Literal[1, 10, 60] | None = None
    """The server counts in windows of this length, which no limit overfills; left out: as the provider does."""

    max_inputs: Annotated[int, Field(gt=0)] = DEFAULT_MAX_INPUTS
    """Embedding rows that may travel in one request; 1: each alone. What the server refuses is found out."""

    @model_validator(mode="after")
    def _bursts_are_for_buckets(self) -> "LimitsSpec":
        if self.burst is not None and self.rpm is None:
            raise ValueError(f"burst {self.burst} needs an rpm")
        if self.burst is not None and self.window_seconds is not None:
            raise ValueError(f"burst {self.burst} is for servers that count evenly; leave it or window_seconds out")
        return self


class EndpointSpec(Spec):
    """One URL serving one model."""

    url: str | None = None
    """Base URL, up to and including `/v1`; left out: COMPLETION_BASE_URL, else OPENAI_BASE_URL."""

    model: str | None = None
    """What this endpoint calls the model; left out: the model's name in this file."""

    api_key_env: str | None = None
    """Name of the environment variable that holds the key; the key itself never enters this file."""

    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    """Share of the pool's requests relative to its other endpoints."""

    limits: LimitsSpec = LimitsSpec()
    """What this endpoint allows."""

    provider: Provider = "generic"
    """How limits are counted and headers are read."""

    transport: Literal["openai", "litellm"] = "openai"
    """`openai`: direct HTTP to an OpenAI-compatible server; `litellm`: everything LiteLLM knows."""

    @field_validator("url")
    @classmethod
    def _http(cls, url: str | None) -> str | None:
        if url is not None and not url.startswith(("http://", "https://")):
            raise ValueError(f"an endpoint's url starts with http:// or https://, not {url!r}")
        # Not repeated either; urls are in every result, in journals and reports.
        if url is not None and _holds_secret(url):
            raise ValueError("the url holds a password or a key, which results would show; name it in api_key_env")
        return url.rstrip("/") if url is not None else None

    @field_validator("api_key_env")
    @classmethod
    def _a_name(cls, name: str | None) -> str | None:
        # The value is not repeated: whoever pasted a key here must not find it in a log.
        if name is not None and not name.replace("_", "a").isalnum():
            raise ValueError("api_key_env takes the name of an environment variable, not the key")
        return name


class PriceSpec(Spec):
    """US dollars per million tokens."""

    input: Annotated[Decimal, Field(ge=0)]
    """Dollars per million prompt tokens."""

    output: Annotated[Decimal, Field(ge=0)]
    """Dollars per million completion tokens."""


class ModelSpec(Spec):
    """A model rows can be routed to, and the pool of endpoints that serves it."""

    name: str = Field(min_length=1)
    """The name used in results, reports and rows."""

    aliases: tuple[str, ...] = ()
    """Other names by which a row's own `model` may ask for it."""

    price: PriceSpec | None = None
    """Left out: LiteLLM's price table by this name; not there either: unknown, which is not zero."""

    endpoints: tuple[EndpointSpec, ...] = Field(default=(EndpointSpec(),), min_length=1)
    """The pool."""

    @model_validator(mode="after")
    def _endpoints_differ(self) -> "ModelSpec":
        seen = [(e.url, e.model) for e in self.endpoints]
        twice = next((pair for pair in seen if seen.count(pair) > 1), None)
        if twice:
            raise ValueError(f"model {self.name!r} lists the endpoint {twice[0]} twice; raise its weight instead")
        return self
