"""The error of a run that stopped and can be resumed."""

from batch.errors import BatchRouterError


class StoppedError(BatchRouterError):
    """The run stopped before its end and lost nothing; the same command resumes it.

    Attributes:
        interrupted: the user or the system asked it to stop; otherwise endpoints stayed unreachable.
    """

    def __init__(self, message: str, *, interrupted: bool) -> None:
        super().__init__(message)
        self.interrupted = interrupted
