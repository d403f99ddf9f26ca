"""How one of our aiohttp servers behaves: its speed, its limit, its failures."""

from typing import Annotated, Literal

from pydantic import Field

from schemas.base import Spec


class WindowLimit(Spec):
    """A limit of the package `limits`: an amount per window; a refused request takes nothing from it."""

    kind: Literal["window"] = "window"

    strategy: Literal["fixed", "moving"]
    """`fixed`: a window begins with the first request after the previous window ended; `moving`: the limit holds in any
    span of the window's length.
    """

    amount: int
    """Requests or tokens that one window allows."""

    seconds: int
    """Length of a window."""

    charge: Literal["request", "reserved", "used"] = "request"
    """`request`: each request counts one; `reserved`: prompt and `max_tokens` are charged on arrival and not refunded;
    `used`: prompt and answer are charged when the answer ends, and requests are refused while the window is full.
    """


class BucketLimit(Spec):
    """Two token buckets that refill evenly and hold a minute's worth each. On arrival `max_tokens` are reserved for the
    answer; what it did not use is refunded when it ends.
    """

    kind: Literal["bucket"] = "bucket"

    input_tpm: int
    """Prompt tokens per minute."""

    output_tpm: int
    """Answer tokens per minute: these are what the log gives as charged."""


class Outage(Spec):
    """A span in which the server does not answer; its times are seconds since the server's first request."""

    start: float
    """When the outage starts."""

    end: float
    """When it ends."""

    mode: Literal["reset", "503"]
    """`reset`: the server breaks connections off; `503`: it answers with status 503 at once."""


class RefuseOnce(Spec):
    """A single 429 with a Retry-After header."""

    request: int
    """The number of the request that is refused, counted from 1."""

    retry_after: float
    """Seconds in the header."""


class Behaviour(Spec):
    """How a server on one port behaves."""

    port: int = 0
    """The port it listens on; filled in when the server is started."""

    log: str = ""
    """The file in which it writes a line for each request when that ends; filled in when the server is started."""

    number: int = 0
    """Its place among the servers started together, from 0; filled in when the server is started."""

    seconds: float = 0.05
    """How long an answer takes, besides `token_seconds`."""

    token_seconds: float = 0.0
    """How much longer an answer takes for each of its tokens."""

    slots: int | None = None
    """Requests answered at once; the server queues all others. `None`: no bound."""

    limit: Annotated[WindowLimit | BucketLimit, Field(discriminator="kind")] | None = None
    """The server refuses requests beyond it with 429."""

    refuse_once: RefuseOnce | None = None
    """A single refusal."""

    fault_share: float = 0.0
    """The share of requests, drawn at random, that end with status 500."""

    outage: Outage | None = None
    """A span in which the server does not answer."""

    seed: int = 0
    """Seed of the random faults."""
