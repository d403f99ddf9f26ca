"""OpenAI's batch files: the APIs that input lines may name, and the lines that results have."""

from typing import Any, Final, Literal

from schemas.base import Spec

BatchUrl = Literal["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses"]
"""Path of an API that a row can be sent to."""

CHAT_URL: Final = "/v1/chat/completions"
COMPLETIONS_URL: Final = "/v1/completions"
EMBEDDINGS_URL: Final = "/v1/embeddings"
RESPONSES_URL: Final = "/v1/responses"
BATCH_URLS: tuple[BatchUrl, ...] = (CHAT_URL, COMPLETIONS_URL, EMBEDDINGS_URL, RESPONSES_URL)
"""The paths of all these APIs."""


class BatchResponse(Spec):
    """The HTTP answer in a result line."""

    status_code: int
    """HTTP status."""
    request_id: str
    """The provider's id of the request."""
    body: dict[str, Any] | None
    """The provider's whole answer."""


class BatchError(Spec):
    """A failure without an HTTP answer."""

    code: str
    """Kind of the error."""
    message: str
    """One line."""


class BatchResultLine(Spec):
    """One line of an OpenAI batch output or error file."""

    id: str
    """An id that batchrouter gives: always the same for the same row."""
    custom_id: str
    """The row's id."""
    response: BatchResponse | None
    """The HTTP answer; `None` if none came."""
    error: BatchError | None
    """The failure; `None` if an HTTP answer came, whatever its status."""
