"""OpenAI's batch files: the lines we accept and the lines we write."""

from typing import Any, Final, Literal

from schemas.base import Spec

BatchUrl = Literal["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses"]
"""Path of an API that rows are sent to."""

CHAT_URL: Final = "/v1/chat/completions"
COMPLETIONS_URL: Final = "/v1/completions"
EMBEDDINGS_URL: Final = "/v1/embeddings"
RESPONSES_URL: Final = "/v1/responses"
BATCH_URLS: tuple[BatchUrl, ...] = (CHAT_URL, COMPLETIONS_URL, EMBEDDINGS_URL, RESPONSES_URL)
"""All of them."""


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
