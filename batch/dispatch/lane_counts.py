"""What has become of a lane's rows so far, in figures."""

from batch.outcomes import Billed, RowOutcome


class LaneCounts:
    """Counts of one lane's rows and tokens, in this sitting.

    Attributes:
        ok: rows that were answered.
        failed: rows that were given up.
        unsent: rows that were not sent, because no endpoint or no money was left.
        prompt_tokens: of the answered rows.
        completion_tokens: of the answered rows.
        lost_prompt_tokens: of attempts that may have been billed and brought no answer.
        lost_completion_tokens: of the same attempts.
    """

    def __init__(self) -> None:
        self.ok = self.failed = self.unsent = 0
        self.prompt_tokens = self.completion_tokens = 0
        self.lost_prompt_tokens = self.lost_completion_tokens = 0

    def add(self, outcome: RowOutcome) -> None:
        """A row has ended."""
        match outcome.status:
            case "ok":
                self.ok += 1
                self.prompt_tokens += outcome.prompt_tokens or 0
                self.completion_tokens += outcome.completion_tokens or 0
            case "unsent":
                self.unsent += 1
            case _:
                self.failed += 1

    def add_lost(self, billed: Billed) -> None:
        """An attempt that may have been billed brought no answer."""
        self.lost_prompt_tokens += billed.prompt_tokens or 0
        self.lost_completion_tokens += billed.completion_tokens or 0
