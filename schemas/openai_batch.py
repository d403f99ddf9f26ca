"""OpenAI's batch files: the lines we accept and the lines we write."""

from typing import Any, Literal

from schemas.base import Spec

# Order matters to nobody; the set is what `url` may be. The first two carry prompts we can route.
CHAT_URL = "/v1/chat/completions"
COMPLETIONS_URL = "/v1/completions"
EMBEDDINGS_URL = "/v1/embeddings"
BATCH_URLS = (CHAT_URL, COMPLETIONS_URL, EMBEDDINGS_URL)
BatchUrl = Literal["/v1/chat/completions", "/v1/completions", "/v1/embeddings"]


class BatchResponse(Spec):
    """The answer inside an output line."""

    status_code: int
    """HTTP status."""
    request_id: str
    """The provider's id of the request."""
    body: dict[str, Any] | None
    """The provider's whole JSON."""


class BatchError(Spec):
    """A failure that is not an HTTP answer."""

    code: str
    """Class of the error."""
    message: str
    """One line."""


class BatchResultLine(Spec):
    """One line of an OpenAI batch output or error file."""

    id: str
    """Ours, stable per row."""
    custom_id: str
    """The row's id."""
    response: BatchResponse | None
    """`None` when no HTTP answer came."""
    error: BatchError | None
    """`None` when an HTTP answer came, whatever its status."""
