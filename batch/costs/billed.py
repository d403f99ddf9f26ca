"""What an attempt that brought no answer may have been billed for."""

from typing import NamedTuple


class Billed(NamedTuple):
    """Tokens that an attempt without an answer was, or may have been, billed for."""

    prompt_tokens: int | None
    """`None`, as the next: nothing bounds it."""
    completion_tokens: int | None
    exact: bool
    """Did the server say so? Otherwise they are the most that it can be."""
