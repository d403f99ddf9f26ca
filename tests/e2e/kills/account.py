"""What became of the rows of runs that were killed, or whose disk failed."""

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Account:
    """What became of the rows of one or several jobs."""

    jobs: int = 0
    kills: int = 0
    rows: int = 0
    lost: int = 0
    """Rows without a result."""
    duplicated: int = 0
    """Results more than one for a row."""
    corrupt: int = 0
    """Files of results that differ from those of an unbroken run."""
    sent_again: int = 0
    """Requests for rows that had been asked for before."""
    journaled_sent_again: int = 0
    """Of these, those whose outcome was in a journal when the run was killed."""
    unlisted_sent_again: int = 0
    """Of these, those that the report does not list as ambiguous, and that were not refused before."""
    stopped_badly: int = 0
    """Failures of the disk that ended in anything but status 3 and one line that names the file."""

    def __add__(self, other: "Account") -> "Account":
        return Account(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))

    @property
    def faults(self) -> int:
        """What there must be none of."""
        sent_again = self.journaled_sent_again + self.unlisted_sent_again
        return self.lost + self.duplicated + self.corrupt + sent_again + self.stopped_badly
