"""The end of a run that can go on."""

from batch.errors import BatchRouterError


class StoppedError(BatchRouterError):
    """The run stopped before its end, and lost nothing: the same command goes on.

    Attributes:
        interrupted: somebody asked it to stop; else endpoints stayed unreachable.
    """

    def __init__(self, message: str, *, interrupted: bool) -> None:
        super().__init__(message)
        self.interrupted = interrupted
