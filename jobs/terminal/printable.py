"""Makes foreign text harmless on a terminal: rows, file names, servers and job files may hold escape sequences.

An escape sequence can set a terminal's title, its colours or the clipboard; a bidirectional override shows a text as
another one. Everything that this program prints goes through `printable`: plain text in the streams of
`jobs.terminal.streams`, tables in the console below.
"""

import json
import re
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, TextIO
from unicodedata import category

if TYPE_CHECKING:
    from rich.console import Console

# Nearly all texts have no such character, so this check saves the slower substitution.
_SUSPICIOUS = re.compile(r"[^\x20-\x7e\n\t]")


def printable(text: str) -> str:
    """`text` with invisible and control characters escaped as in JSON, except line breaks and tabs.

    JSON keeps its meaning, since it has such characters in its strings only.
    """
    return _SUSPICIOUS.sub(_escaped, text) if _SUSPICIOUS.search(text) else text


def is_seen(char: str) -> bool:
    """Whether a reader sees the character: a letter, a sign, or a space of some width."""
    return char.isprintable() or category(char) == "Zs"


def _escaped(match: re.Match[str]) -> str:
    char = match[0]
    return char if is_seen(char) else json.dumps(char)[1:-1]


def console(*, stderr: bool = False) -> "Console":
    """Rich's console on a standard stream. Its own colours and cursor movements pass; those in texts are escaped."""
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

    class PrintableConsole(Console):
        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
            for segment in super().render(renderable, options):
                # Rich marks its own cursor movements as `control`; any other segment may hold foreign text.
                if segment.control:
                    yield segment
                else:
                    yield Segment(printable(segment.text), segment.style)

    return PrintableConsole(file=_of_console(sys.stderr if stderr else sys.stdout), stderr=stderr)


def _of_console(stream: TextIO) -> TextIO | None:
    """The stream that a console writes to without escaping; `None`: the console uses the current standard stream."""
    styled: TextIO | None = getattr(stream, "styled", None)
    return styled
