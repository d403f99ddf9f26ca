"""The errors this engine raises. Class and attributes say what happened; nobody inspects message text."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:
    from batch.limits import Allowance


A_YEAR = 365.0 * 86400
"""Seconds; the longest time for which a server is believed to want us to stay away."""


class BatchRouterError(Exception):
    """Base of all. The message is one line: what, where, what to do."""


class SpecError(BatchRouterError):
    """The job file, or something it names, is wrong. Nothing was sent."""


class InputError(SpecError):
    """The input cannot be read, or has rows that the job refuses."""


class StorageError(BatchRouterError):
    """Something could not be stored. The run stops at once; rerun the same command later to resume."""


class DamagedError(StorageError):
    """A file of the run directory is not as it was written, or is gone.

    Attributes:
        path: the file. What was made of other files is removed and made again; the message says what cannot be.
    """

    def __init__(self, message: str, *, path: str = "") -> None:
        super().__init__(message)
        self.path = path


class DispatcherDied(StorageError):
    """The dispatcher's process is gone. What it stored is there, and another dispatcher may go on."""


class EmbedderError(BatchRouterError):
    """Prompts could not be embedded, for now. Rerun the same command later to resume."""


class RunLockedError(SpecError):
    """Another process works on this run directory."""


class FingerprintError(SpecError):
    """The job differs, in what affects answers, from the one its run directory was made for."""


class DispatchError(BatchRouterError):
    """One attempt ended without an answer. Raised by transports only, which keep the cause.

    `str(error)` is one line: what happened, followed by `words`. It holds neither a prompt nor a key, so it may be
    shown and stored. It is put together when first asked for: errors that nobody shows cost nothing.

    Attributes:
        kind: stable name for journals and reports.
        status: HTTP status, where there was an answer; of an error inside a 2xx answer, the status it stands for.
        code: the provider's `error.code`, where it gave one.
        param: the parameter of the request that the provider says is at fault, where it names one.
        words: what the server itself says of the error: one printable line of at most 300 characters, in which keys
            are masked and whatever repeats the request's own text is left out. Empty where it says nothing.
        signature: `(kind, status, code)`: errors that are alike have the same.
        body: the answer's JSON on one line, where there was one: for the row's own result, never for logs, because it
            may repeat the prompt.
        retry_after: seconds the server asked us to stay away, if it did.
        allowances: what the server said about its limits.
        usage: (prompt, completion) tokens of this attempt, where the answer tells them although it is no good.
        billed: may this attempt have been billed? It then costs what `usage` says, or else at most its bound.
        retryable: may the row be tried again?
        most_attempts: attempts after which the row is given up for this error, if that is fewer than `max_attempts`.
        reached: may the server have seen (and billed) the request?
        blame: whose trouble this answer speaks of. One answer is evidence; the dispatcher decides, by what the same
            endpoint said to other rows. `row`: another endpoint would say the same. `endpoint`: this endpoint's
            trouble, which may pass. `throttle`: the endpoint is well and wants us to slow down. `gone`: the account
            or the endpoint refuses us, or this row alone (no key, no credit, no such model, no permission), and
            waiting does not cure it.
    """

    kind: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False
    reached: ClassVar[bool] = True
    blame: ClassVar[Literal["row", "endpoint", "throttle", "gone"]] = "row"
    most_attempts: ClassVar[int | None] = None
    _billed: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        param: str | None = None,
        words: str | Callable[[], str] = "",
        retry_after: float | None = None,
        body: bytes | None = None,
        allowances: "tuple[Allowance, ...]" = (),
        usage: tuple[int | None, int | None] | None = None,
        billed: bool | None = None,
    ) -> None:
        """
        Args:
            message: what happened, without the server's words.
            words: the server's words, or a function that finds them when they are first asked for.
            billed: left out: as this kind of error usually is, and always where `usage` is known.
        """
        super().__init__(message)
        self.allowances = allowances
        self.body = body
        self.status = status
        self.code = code
        self.param = param
        # A server may say anything: 1e300 seconds are no date, and neither is NaN.
        self.retry_after = None if retry_after is None or retry_after != retry_after else min(retry_after, A_YEAR)
        self.usage = usage
        self.billed = (usage is not None or self._usually_billed()) if billed is None else billed
        self._words = words

    @property
    def words(self) -> str:
        """The server's own words; empty where it says nothing."""
        if not isinstance(self._words, str):
            self._words = self._words()
        return self._words

    @property
    def signature(self) -> tuple[str, int | None, str | None]:
        """Equal for errors that are alike."""
        return self.kind, self.status, self.code

    def _usually_billed(self) -> bool:
        return self._billed

    def __reduce__(self) -> str | tuple[Any, ...]:
        # What finds the words cannot be pickled, and need not be: only the words travel.
        self._words = self.words
        return super().__reduce__()

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message}: {self.words}" if self.words else message


class BadRequest(DispatchError):
    """The server refuses this row: 400, 413, 422, or a code that says so under any status."""

    kind = "bad_request"


class RateLimited(DispatchError):
    """Too fast, and waiting cures it: 429, or whatever else says that the server is at its capacity."""

    kind = "rate_limited"
    retryable = True
    blame = "throttle"


class ServerError(DispatchError):
    """5xx, or another status that speaks of the server's trouble: 408, 409, 424, 499."""

    kind = "server_error"
    retryable = True
    blame = "endpoint"

    def _usually_billed(self) -> bool:
        return self.status in _MAYBE_FINISHED


# A gateway gave up on a server behind it, which may have finished: 408 is Azure's word for that, 499 nginx's, 520 and
# 524 Cloudflare's, 598 other proxies'. A 500 or 503 says that the server itself did not answer.
_MAYBE_FINISHED = frozenset({408, 499, 502, 504, 520, 524, 598})


class TimedOut(DispatchError):
    """No whole answer within `timeout_seconds`. The server may have finished, and billed."""

    kind = "timeout"
    retryable = True
    blame = "endpoint"
    _billed = True


class NotConnected(DispatchError):
    """No connection, so nothing was sent: it does not count as an attempt."""

    kind = "not_connected"
    retryable = True
    reached = False
    blame: ClassVar[Literal["row", "endpoint", "throttle", "gone"]] = "endpoint"


class NoFileLeft(NotConnected):
    """No connection, because this process or its machine can open none: our trouble, so the row waits for a file."""

    blame = "throttle"


class ConnectionLost(DispatchError):
    """The connection broke after sending began."""

    kind = "connection_lost"
    retryable = True
    blame = "endpoint"
    _billed = True


class BadAnswer(DispatchError):
    """2xx, but not what was promised: not JSON, or no answer in it."""

    kind = "bad_answer"
    retryable = True
    blame = "endpoint"
    _billed = True


class PackMixedUp(DispatchError):
    """2xx for several inputs in one request, and it cannot be told which embedding belongs to which."""

    kind = "bad_answer"
    retryable = True
    blame = "row"
    _billed = True


class BadVector(DispatchError):
    """2xx without a usable embedding for one of the texts, as that text always gets: none, or with NaN in it."""

    kind = "bad_answer"
    blame = "row"
    _billed = True


class NoChoices(DispatchError):
    """2xx with an empty list of choices: the prompt or the answer was blocked. The endpoint is well.

    It may be chance (Gemini), so the row is tried once more; the same prompt is mostly blocked each time.
    """

    kind = "no_choices"
    retryable = True
    blame = "row"
    most_attempts = 2
    _billed = True


class Refused(DispatchError):
    """The endpoint refuses us: key, permission, spent credit, unknown model, a redirect."""

    kind = "refused"
    blame = "gone"
    # Another endpoint of the pool may well answer.
    retryable = True


class AccountRefused(Refused):
    """The server's words speak of our key or our credit, under a status and a code that would blame the row."""
