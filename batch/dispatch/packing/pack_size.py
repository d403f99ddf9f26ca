"""How many embedding inputs one endpoint takes in a request."""

from batch.errors import DispatchError

# Limits are per minute: what is refused for longer than that, with nothing answered, is too large to ever pass.
_THROTTLED_SECONDS = 60.0
# Where more inputs fail each time they are tried, rows must not use up their attempts on that.
_NEEDED_GROWTH = 4
_MOST_NEEDED = 1024


class PackSize:
    """How many inputs one endpoint takes in a request: what is configured, less where it turned out to be less.

    A refusal may come from one bad input or from the number of inputs; only the halves tell. While they are under
    way, new requests have half as many; if both are answered, that stays. Other trouble halves the number too, and
    good answers double it again: four times as many of them, each time that what was doubled failed.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._allowed = most
        self._good, self._needed = 0, 1
        self._grown_to = most + 1
        self._in_question: list[int] = []
        self._throttled_since: float | None = None
        self._taken_apart = False

    @property
    def allowed(self) -> int:
        """Inputs that the next request may have."""
        return min((self._allowed, *(size // 2 for size in self._in_question)))

    def answered(self, size: int) -> None:
        """A request of so many inputs was answered."""
        self._throttled_since = None
        self._taken_apart = self._taken_apart or size > 1
        if size >= self._allowed:
            self._good += 1
            if self._good >= self._needed:
                self._good = 0
                self._allowed = self._grown_to = min(self._most, 2 * size)

    def failed(self, size: int, error: DispatchError, now: float) -> None:
        """A request of so many inputs ended in an error that is not about them."""
        if error.blame == "throttle":
            self._throttled(size, now)
        elif error.blame == "endpoint" and error.reached:
            self._shrink(size)

    def mixed_up(self) -> bool:
        """One was answered, and its answers cannot be told apart: will inputs go alone from now on?

        They will where that was so from the first. Where packs were taken apart before, it is an accident.
        """
        if not self._taken_apart:
            self._most = self._allowed = 1
        return not self._taken_apart

    def refused(self, size: int) -> None:
        """One of at least two inputs was refused as bad; its halves go out now."""
        self._in_question.append(size)

    def settled(self, size: int, *, too_large: bool) -> None:
        """The halves of what was refused have ended; `too_large`: all of it was answered."""
        self._in_question.remove(size)
        if too_large:
            self._most = min(self._most, size // 2)
            self._allowed = min(self._allowed, self._most)

    def _shrink(self, size: int) -> None:
        """Perhaps so many inputs were too much for the endpoint."""
        if size > 1:
            self._allowed = min(self._allowed, size // 2)
            self._good = 0
            if size >= self._grown_to:
                self._needed = min(_MOST_NEEDED, self._needed * _NEEDED_GROWTH)

    def _throttled(self, size: int, now: float) -> None:
        """A limit refused the request."""
        if self._throttled_since is None:
            self._throttled_since = now
        elif now - self._throttled_since > _THROTTLED_SECONDS:
            self._throttled_since = now
            self._shrink(size)
