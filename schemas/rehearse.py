"""Local endpoints for dress rehearsals: their limits, latency and faults."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from schemas.base import Spec

Probability = Annotated[float, Field(ge=0, le=1)]


class LatencySpec(Spec):
    """How long an answer takes: `(median + per token * tokens of the answer) * lognormal(0, sigma)`."""

    median_seconds: Annotated[float, Field(ge=0)] = 0.0
    """Median time of an answer without tokens."""

    per_output_token_seconds: Annotated[float, Field(ge=0)] = 0.0
    """Time that each token of the answer adds."""

    sigma: Annotated[float, Field(ge=0, le=3)] = 0.0
    """Spread: 0 = none, 0.3 = mild, 1 = a long tail."""


class RehearsalLimitsSpec(Spec):
    """What the endpoint allows. It answers requests beyond a limit with status 429 and Retry-After."""

    rpm: Annotated[float, Field(gt=0)] | None = None
    """Requests per minute, counted in a token bucket that is refilled continuously; refused requests do not count."""

    tpm: Annotated[float, Field(gt=0)] | None = None
    """Tokens per minute. A request takes its prompt and `max_tokens` on arrival, and gives back what it did not use."""

    burst: Annotated[int, Field(gt=0)] | None = None
    """Requests that the bucket holds; left out: those of one second, at least one."""

    burst_tokens: Annotated[int, Field(gt=0)] | None = None
    """Tokens that the bucket holds; left out: those of one minute."""

    max_in_flight: Annotated[int, Field(gt=0)] | None = None
    """Most requests in flight."""

    @model_validator(mode="after")
    def _bursts_have_a_rate(self) -> "RehearsalLimitsSpec":
        if self.burst is not None and self.rpm is None:
            raise ValueError(f"burst {self.burst} needs an rpm")
        if self.burst_tokens is not None and self.tpm is None:
            raise ValueError(f"burst_tokens {self.burst_tokens} needs a tpm")
        return self


class FaultsSpec(Spec):
    """Shares of the accepted requests that go wrong, by kind of fault."""

    error_500: Probability = 0.0
    """The answer has status 500."""

    drop: Probability = 0.0
    """The connection breaks in the middle of the answer."""

    timeout: Probability = 0.0
    """No answer comes; the connection stays open until the client gives up."""

    bad_json: Probability = 0.0
    """The answer has status 200 and half a JSON document."""

    @model_validator(mode="after")
    def _leave_room(self) -> "FaultsSpec":
        together = self.error_500 + self.drop + self.timeout + self.bad_json
        if together > 1:
            raise ValueError(f"the faults add up to {together:g}; together they may be at most 1")
        return self


class AnswerTokensSpec(Spec):
    """Length of canned answers; it is distributed lognormally."""

    mean: Annotated[float, Field(ge=1)] = 60.0
    """Mean number of tokens."""

    sigma: Annotated[float, Field(ge=0, le=3)] = 0.5
    """Standard deviation of the logarithm."""


class RepliesSpec(Spec):
    """Recorded answers."""

    file: str
    """JSON Lines with the keys `prompt` (or `prompt_hash`) and `reply`; the path is relative to this file."""


class RehearsalEndpointSpec(Spec):
    """One endpoint that serves one model."""

    port: Annotated[int, Field(ge=0, le=65535)] = 0
    """Port on 127.0.0.1; 0: any free one."""

    model: str = Field(min_length=1)
    """The model that it serves; it refuses a request for another one."""

    latency: LatencySpec = LatencySpec()
    """How long an answer takes."""

    limits: RehearsalLimitsSpec = RehearsalLimitsSpec()
    """What the endpoint allows."""

    faults: FaultsSpec = FaultsSpec()
    """Shares of the accepted requests that go wrong."""

    answers: Literal["canned", "echo"] | RepliesSpec = "canned"
    """`canned`: made-up prose of a random length; `echo`: the prompt itself; or a file of recorded replies."""

    answer_tokens: AnswerTokensSpec = AnswerTokensSpec()
    """Length of canned answers."""

    api_key_env: str | None = None
    """Environment variable with the key that requests must carry; left out: they need no key."""

    @field_validator("api_key_env")
    @classmethod
    def _a_name(cls, name: str | None) -> str | None:
        # The message does not repeat the value: if it is a key, pasted by mistake, it must not appear in a log.
        if name is not None and not name.replace("_", "a").isalnum():
            raise ValueError("api_key_env takes the name of an environment variable, not the key")
        return name


class RehearsalSpec(Spec):
    """The endpoints of a rehearsal; one process serves all of them."""

    seed: int = 0
    """Seed of answers, latencies and faults."""

    endpoints: tuple[RehearsalEndpointSpec, ...] = Field(min_length=1)
    """The endpoints."""

    @model_validator(mode="after")
    def _ports_differ(self) -> "RehearsalSpec":
        ports = [e.port for e in self.endpoints if e.port]
        twice = next((port for port in ports if ports.count(port) > 1), None)
        if twice:
            raise ValueError(f"two endpoints have the port {twice}")
        return self
