"""How many embedding inputs one endpoint takes in a request."""

from batch.errors import DispatchError

# Limits are per minute: a size that is throttled for longer than that, with no answer in between, is too large to pass.
_THROTTLED_SECONDS = 60.0
# If larger packs fail each time they are tried, they are tried more rarely: rows must not use up their attempts on
# that.
_NEEDED_GROWTH = 4
_MOST_NEEDED = 1024


class PackSize:
    """How many inputs one endpoint takes in a request: the configured number, or fewer if it turns out to take fewer.

    A refusal may be due to one bad input or to the number of inputs; sending the halves shows which. While the halves
    are in flight, new requests have half as many inputs; if both are answered, it stays at that. Other failures halve
    the number too, and good answers double it again. Each time that a doubled size fails, four times as many good
    answers are needed for the next doubling.
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
        """How many inputs the next request may have."""
        return min((self._allowed, *(size // 2 for size in self._in_question)))

    def answered(self, size: int) -> None:
        """A request of `size` inputs was answered."""
        self._throttled_since = None
        self._taken_apart = self._taken_apart or size > 1
        if size >= self._allowed:
            self._good += 1
            if self._good >= self._needed:
                self._good = 0
                self._allowed = self._grown_to = min(self._most, 2 * size)

    def failed(self, size: int, error: DispatchError, now: float) -> None:
        """A request of `size` inputs ended in an error other than a refusal of these inputs."""
        if error.blame == "throttle":
            self._throttled(size, now)
        elif error.blame == "endpoint" and error.reached:
            self._shrink(size)

    def mixed_up(self) -> bool:
        """An answer could not be split among its rows. Returns whether inputs are sent one by one from now on.

        They are if no pack of this endpoint was ever split. If one was, this answer is taken for an accident.
        """
        if not self._taken_apart:
            self._most = self._allowed = 1
        return not self._taken_apart

    def refused(self, size: int) -> None:
        """A request of at least two inputs was refused as bad; its halves are sent now."""
        self._in_question.append(size)

    def settled(self, size: int, *, too_large: bool) -> None:
        """The halves of a refused request have ended.

        Args:
            too_large: were all inputs answered in the halves, so that their number was the reason?
        """
        self._in_question.remove(size)
        if too_large:
            self._most = min(self._most, size // 2)
            self._allowed = min(self._allowed, self._most)

    def _shrink(self, size: int) -> None:
        """Allow fewer inputs: perhaps so many were too much for the endpoint."""
        if size > 1:
            self._allowed = min(self._allowed, size // 2)
            self._good = 0
            if size >= self._grown_to:
                self._needed = min(_MOST_NEEDED, self._needed * _NEEDED_GROWTH)

    def _throttled(self, size: int, now: float) -> None:
        """A limit refused the request; allow fewer inputs if limits have refused all requests for over a minute."""
        if self._throttled_since is None:
            self._throttled_since = now
        elif now - self._throttled_since > _THROTTLED_SECONDS:
            self._throttled_since = now
            self._shrink(size)
