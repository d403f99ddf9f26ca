"""Local endpoints for dress rehearsals: what they allow, how slow they are, what goes wrong."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from schemas.base import Spec

Probability = Annotated[float, Field(ge=0, le=1)]


class LatencySpec(Spec):
    """How long an answer takes: `(median + per token * answer tokens) * lognormal(0, sigma)`."""

    median_seconds: Annotated[float, Field(ge=0)] = 0.0
    """Seconds an answer without tokens takes, half the time."""

    per_output_token_seconds: Annotated[float, Field(ge=0)] = 0.0
    """Seconds that each token of the answer adds."""

    sigma: Annotated[float, Field(ge=0, le=3)] = 0.0
    """Spread: 0 = none, 0.3 = mild, 1 = a long tail."""


class RehearsalLimitsSpec(Spec):
    """What the endpoint allows; beyond it the answer is 429 with Retry-After."""

    rpm: Annotated[float, Field(gt=0)] | None = None
    """Requests per minute: a token bucket refilled continuously; refused requests do not count."""

    tpm: Annotated[float, Field(gt=0)] | None = None
    """Tokens per minute: prompt plus `max_tokens` is taken on arrival, what is left over goes back."""

    burst: Annotated[int, Field(gt=0)] | None = None
    """Requests the bucket holds; left out: one second's worth, at least one."""

    burst_tokens: Annotated[int, Field(gt=0)] | None = None
    """Tokens the bucket holds; left out: one minute's worth."""

    max_in_flight: Annotated[int, Field(gt=0)] | None = None
    """Requests under way at once."""

    @model_validator(mode="after")
    def _bursts_have_a_rate(self) -> "RehearsalLimitsSpec":
        if self.burst is not None and self.rpm is None:
            raise ValueError(f"burst {self.burst} needs an rpm")
        if self.burst_tokens is not None and self.tpm is None:
            raise ValueError(f"burst_tokens {self.burst_tokens} needs a tpm")
        return self


class FaultsSpec(Spec):
    """Share of accepted requests that go wrong, by how they do."""

    error_500: Probability = 0.0
    """Answered with status 500."""

    drop: Probability = 0.0
    """Connection broken in the middle of the answer."""

    timeout: Probability = 0.0
    """Never answered; the connection stays open until the client gives up."""

    bad_json: Probability = 0.0
    """Status 200 with half a JSON document."""

    @model_validator(mode="after")
    def _leave_room(self) -> "FaultsSpec":
        together = self.error_500 + self.drop + self.timeout + self.bad_json
        if together > 1:
            raise ValueError(f"the faults add up to {together:g}; they share at most 1")
        return self


class AnswerTokensSpec(Spec):
    """Length of canned answers: lognormal."""

    mean: Annotated[float, Field(ge=1)] = 60.0
    """Mean number of tokens."""

    sigma: Annotated[float, Field(ge=0, le=3)] = 0.5
    """Spread of the logarithm."""


class RepliesSpec(Spec):
    """Recorded answers."""

    file: str
    """JSON Lines of `{"prompt", "reply"}` or `{"prompt_hash", "reply"}`; relative to this file."""


class RehearsalEndpointSpec(Spec):
    """One endpoint, serving one model."""

    port: Annotated[int, Field(ge=0, le=65535)] = 0
    """Port on 127.0.0.1; 0 = any free one."""

    model: str = Field(min_length=1)
    """The model it answers for; a request for another is refused."""

    latency: LatencySpec = LatencySpec()
    """How long an answer takes."""

    limits: RehearsalLimitsSpec = RehearsalLimitsSpec()
    """What it allows."""

    faults: FaultsSpec = FaultsSpec()
    """What goes wrong."""

    answers: Literal["canned", "echo"] | RepliesSpec = "canned"
    """`canned`: prose of the length drawn; `echo`: the prompt; or recorded replies."""

    answer_tokens: AnswerTokensSpec = AnswerTokensSpec()
    """Length of canned answers."""

    api_key_env: str | None = None
    """Environment variable with the key that requests must carry; left out: none is needed."""

    @field_validator("api_key_env")
    @classmethod
    def _a_name(cls, name: str | None) -> str | None:
        # The value is not repeated: whoever pasted a key here must not find it in a log.
        if name is not None and not name.replace("_", "a").isalnum():
            raise ValueError("api_key_env takes the name of an environment variable, not the key")
        return name


class RehearsalSpec(Spec):
    """A file of endpoints, all served by one process."""

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
