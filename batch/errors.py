"""The errors this engine raises. Class and attributes say what happened; nobody inspects message text."""

from typing import TYPE_CHECKING, ClassVar, Literal

if TYPE_CHECKING:
    from batch.dispatch.request import Allowance


class BatchRouterError(Exception):
    """Base of all. The message is one line: what, where, what to do."""


class SpecError(BatchRouterError):
    """The job file, or something it names, is wrong. Nothing was sent."""


class InputError(SpecError):
    """The input cannot be read, or has rows that the job refuses."""


class StorageError(BatchRouterError):
    """Something could not be stored. The run stops at once; the same command goes on later."""


class DispatcherDied(StorageError):
    """The dispatcher's process is gone. What it stored is there, and another dispatcher may go on."""


class EmbedderError(BatchRouterError):
    """Prompts could not be embedded, for now. The same command goes on later."""


class RunLockedError(SpecError):
    """Another process works on this run directory."""


class FingerprintError(SpecError):
    """The job differs, in what affects answers, from the one its run directory was made for."""


class DispatchError(BatchRouterError):
    """One attempt ended without an answer. Raised by transports only, which keep the cause.

    Attributes:
        kind: stable name for journals and reports.
        status: HTTP status, where there was an answer.
        code: the provider's `error.code`, where it gave one.
        body: the answer's JSON on one line, where there was one: for the results, never for logs.
        retry_after: seconds the server asked us to stay away, if it did.
        allowances: what the server said about its limits.
        retryable: may the row be tried again?
        reached: may the server have seen (and billed) the request?
        blame: `row`: another endpoint would say the same; `endpoint`: this endpoint's trouble;
            `throttle`: the endpoint is well and wants us to slow down; `gone`: waiting cannot cure it,
            the endpoint is out for the run.
    """

    kind: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False
    reached: ClassVar[bool] = True
    blame: ClassVar[Literal["row", "endpoint", "throttle", "gone"]] = "row"

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        retry_after: float | None = None,
        body: bytes | None = None,
        allowances: "tuple[Allowance, ...]" = (),
    ) -> None:
        super().__init__(message)
        self.allowances = allowances
        self.body = body
        self.status = status
        self.code = code
        self.retry_after = retry_after


class BadRequest(DispatchError):
    """The server refuses this row: 400, 404 of a path, 413, 422."""

    kind = "bad_request"


class RateLimited(DispatchError):
    """Too fast, and waiting cures it: 429, or whatever else says that the server is at its capacity."""

    kind = "rate_limited"
    retryable = True
    blame = "throttle"


class ServerError(DispatchError):
    """5xx, or 408 and 409."""

    kind = "server_error"
    retryable = True
    blame = "endpoint"


class TimedOut(DispatchError):
    """No whole answer within `timeout_seconds`. The server may have finished, and billed."""

    kind = "timeout"
    retryable = True
    blame = "endpoint"


class NotConnected(DispatchError):
    """No connection, so nothing was sent: it does not count as an attempt."""

    kind = "not_connected"
    retryable = True
    reached = False
    blame = "endpoint"


class ConnectionLost(DispatchError):
    """The connection broke after sending began."""

    kind = "connection_lost"
    retryable = True
    blame = "endpoint"


class BadAnswer(DispatchError):
    """2xx, but not the JSON that was promised."""

    kind = "bad_answer"
    retryable = True
    blame = "endpoint"


class Refused(DispatchError):
    """The endpoint refuses us for good: key, permission, spent credit, unknown model, a redirect."""

    kind = "refused"
    blame = "gone"
    # Another endpoint of the pool may well answer.
    retryable = True
