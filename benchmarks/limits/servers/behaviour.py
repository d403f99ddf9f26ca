"""How one answering server behaves."""

from typing import Annotated, Literal

from pydantic import Field

from schemas.base import Spec


class WindowLimit(Spec):
    """The package `limits`: so much in a window, and a refusal takes nothing."""

    kind: Literal["window"] = "window"

    strategy: Literal["fixed", "moving"]
    """`fixed`: a window begins with the first request after the last one ended; `moving`: in any such time."""

    amount: int
    """Of what is charged, in a window."""

    seconds: int
    """Length of a window."""

    charge: Literal["request", "reserved", "used"] = "request"
    """`request`: each counts one; `reserved`: prompt and `max_tokens` on arrival, for good; `used`: prompt and answer
    when it ends, refusing while the window is full.
    """


class BucketLimit(Spec):
    """Two buckets that refill evenly, a minute's worth each. The answer is reserved as `max_tokens` and what it did
    not use is given back at its end.
    """

    kind: Literal["bucket"] = "bucket"

    input_tpm: int
    """Prompt tokens per minute."""

    output_tpm: int
    """Answer tokens per minute: what is charged in the log."""


class Death(Spec):
    """A time during which it does not answer, in seconds since its first request."""

    first: float
    """From."""

    last: float
    """Until."""

    how: Literal["reset", "503"]
    """`reset`: connections are broken off; `503`: says so at once."""


class RefuseOnce(Spec):
    """One 429 that asks to stay away."""

    request: int
    """The request that is refused, counted from 1."""

    retry_after: float
    """Seconds, in the answer's header."""


class Behaviour(Spec):
    """A server on one port."""

    port: int = 0
    """It listens here; filled in when it is started,"""

    log: str = ""
    """as is the file in which it writes down what it saw, a line for each request at its end,"""

    number: int = 0
    """and its place among those started together."""

    seconds: float = 0.05
    """An answer takes this long,"""

    token_seconds: float = 0.0
    """and this much more for each of its tokens."""

    slots: int | None = None
    """Requests answered at once; the others queue without complaint."""

    limit: Annotated[WindowLimit | BucketLimit, Field(discriminator="kind")] | None = None
    """Refused with 429 beyond it."""

    refuse_once: RefuseOnce | None = None
    """A single refusal."""

    fault_share: float = 0.0
    """Of its requests, drawn at random, that end in a 500."""

    death: Death | None = None
    """A time during which it does not answer."""

    seed: int = 0
    """Of the faults."""
