"""What one endpoint refused since its last good answer, compared over different rows."""

from typing import Literal

from batch.dispatch.request import Request
from batch.dispatch.transports.parsing.error_codes import ACCOUNT_CODES, ROW_CODES
from batch.errors import AccountRefused, BadAnswer, DispatchError, NoChoices

# How many different rows an endpoint must refuse alike, with no good answer in between, before it is doubted. A refusal
# of the account (401, 403, ...) is less often about a row than a 400 is, and clumps of bad rows are common: in an input
# that is sorted, or made by one faulty step.
REFUSED_ROWS = 5
BAD_ROWS = 10
# An answer with nothing usable in it is billed all the same, so few are enough.
UNREADABLE_ROWS = 5
# How many rows from elsewhere in the input a doubted endpoint must refuse, one at a time, before it is out.
PROBES = 5
# When a lane has only refused rows left, no other row can show whose fault it is. An endpoint is then out after this
# many different rows, if the status or the code names the account.
ACCOUNT_ROWS = 2

_ACCOUNT_STATUSES = frozenset({301, 302, 303, 307, 308, 401, 402})
_TOO_LARGE = 413

Verdict = Literal["nothing", "doubt", "out"]


def is_refusal(error: DispatchError) -> bool:
    """Did the server read the request and refuse it in a way that waiting does not cure?"""
    return error.blame == "gone" or (error.blame == "row" and not error.retryable)


def is_unreadable(error: DispatchError) -> bool:
    """Was the response a 2xx without an answer in it?"""
    return isinstance(error, BadAnswer | NoChoices)


def clearly_about_row(error: DispatchError) -> bool:
    """Do code or status say that this row's text or length is the reason?"""
    return error.blame == "row" and (error.code in ROW_CODES or error.status == _TOO_LARGE)


def about_account(error: DispatchError) -> bool:
    """Is key, credit, model or address the reason, rather than a permission that one row may lack?"""
    if error.blame != "gone":
        return False
    return isinstance(error, AccountRefused) or error.code in ACCOUNT_CODES or error.status in _ACCOUNT_STATUSES


class Refusals:
    """Counts the different rows that an endpoint refused alike since its last good answer.

    One refusal says nothing about the endpoint. Once it has refused enough different rows alike, it is *doubted*: it is
    sent one row at a time, from elsewhere in the input, and is out once it refuses these alike too.

    Attributes:
        rows: shard and number of the refused rows, by what refusals of one kind have in common.
    """

    def __init__(self) -> None:
        self.rows: dict[object, set[tuple[int, int]]] = {}
        self._probes: dict[object, int] = {}
        self._repeats = 0

    def count(self, error: DispatchError) -> int:
        """How many different rows were refused like this."""
        return len(self.rows.get(_alike(error), ()))

    def add(self, request: Request, error: DispatchError, *, in_flight: int, probe: bool) -> Verdict:
        """The endpoint refused this row. Returns what that means for the endpoint.

        Args:
            in_flight: requests that are still in flight at the endpoint.
            probe: was the row sent while the endpoint was doubted?
        """
        alike = _alike(error)
        rows = self.rows.setdefault(alike, set())
        row = (request.shard, request.row)
        if row in rows:
            if not is_unreadable(error):
                return "nothing"
            # If an endpoint has answered nothing yet, repeated unreadable answers are not the fault of one row. Fresh
            # rows go first, so this matters only in jobs of a few rows, which would wait for a cooldown at each
            # attempt.
            self._repeats += 1
            seen = len(rows) + self._repeats
        else:
            rows.add(row)
            seen = len(rows)
        if probe:
            self._probes[alike] = self._probes.get(alike, 0) + 1
            if self._probes[alike] >= PROBES:
                return "out"
        # While many requests are in flight, good answers may only be slower than refusals.
        return "doubt" if seen >= max(_enough(error), in_flight) else "nothing"

    def clear(self) -> None:
        """The endpoint gave a good answer."""
        self.rows.clear()
        self._probes.clear()
        self._repeats = 0


def _alike(error: DispatchError) -> object:
    return "unreadable" if is_unreadable(error) else error.signature


def _enough(error: DispatchError) -> int:
    if is_unreadable(error):
        return UNREADABLE_ROWS
    return REFUSED_ROWS if error.blame == "gone" else BAD_ROWS
