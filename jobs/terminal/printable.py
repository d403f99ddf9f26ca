"""What strangers wrote, made harmless: rows, file names, servers and job files may hold escape sequences.

An escape sequence sets a terminal's title, its colours or the clipboard; a bidirectional override shows a text as
another one. Whatever this program prints goes through `printable`: as text by the streams of `jobs.terminal.streams`,
in tables by the console here.
"""

import json
import re
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, TextIO
from unicodedata import category

if TYPE_CHECKING:
    from rich.console import Console

# Nearly every text has nothing else.
_SUSPICIOUS = re.compile(r"[^\x20-\x7e\n\t]")


def printable(text: str) -> str:
    """`text` with everything that is no character to be seen as JSON escapes it, but for line breaks and tabs.

    JSON stays the same JSON: it has such characters in its texts only.
    """
    return _SUSPICIOUS.sub(_escaped, text) if _SUSPICIOUS.search(text) else text


def is_seen(char: str) -> bool:
    """Is it a letter, a sign or a space of some width?"""
    return char.isprintable() or category(char) == "Zs"


def _escaped(match: re.Match[str]) -> str:
    char = match[0]
    return char if is_seen(char) else json.dumps(char)[1:-1]


def console(*, stderr: bool = False) -> "Console":
    """Rich's console on a standard stream: its own colours and cursor movements pass, those in texts do not."""
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

    class PrintableConsole(Console):
        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
            for segment in super().render(renderable, options):
                # Rich's own movements are `control`; what is in a text is a stranger's.
                if segment.control:
                    yield segment
                else:
                    yield Segment(printable(segment.text), segment.style)

    return PrintableConsole(file=_of_console(sys.stderr if stderr else sys.stdout), stderr=stderr)


def _of_console(stream: TextIO) -> TextIO | None:
    """Where a console may write as it is; `None`: to whatever the standard stream is then."""
    styled: TextIO | None = getattr(stream, "styled", None)
    return styled
