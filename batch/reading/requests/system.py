"""Finds the system message of a row: its own, or else the job's."""

from collections.abc import Mapping, Set
from typing import Any, Final, NamedTuple

from batch.reading.notes import Fact
from batch.reading.template import PromptTemplate

SYSTEM_COLUMN: Final = "system"
_USED: Final[Set[str]] = frozenset({SYSTEM_COLUMN})
_NONE: Final[Set[str]] = frozenset()
# Other names of the column in data sets (OpenOrca, distilabel). Only `system` is used without being named by the job.
_ALIKE: Final = ("system_prompt", "system_message")


class SystemMessage(NamedTuple):
    """The system message to send before a row's prompt."""

    text: str | None
    """`None` if there is none."""
    columns: Set[str]
    """The row's column that gave it, which is not carried into the results."""
    notes: tuple[Fact, ...] = ()
    """Notes on columns that look like system messages."""


NO_SYSTEM: Final = SystemMessage(None, _NONE)


class SystemMessages:
    """Returns the system message for each row.

    A row's own column `system` takes precedence over `input.system`, unless the job has a prompt template: then all
    columns are data. The constructor raises SpecError if `input.system` is not a valid template.
    """

    def __init__(self, text: str | None, *, from_rows: bool) -> None:
        """
        Args:
            text: the job's `input.system`.
            from_rows: whether a row's own column may be the message.
        """
        self.template = PromptTemplate(text, "input.system", may_be_plain=True) if text else None
        """The job's template, if it has one."""
        named = self.template.named if self.template is not None else frozenset[str]()
        self._from_rows = from_rows and SYSTEM_COLUMN not in named
        self._unused = tuple(name for name in (SYSTEM_COLUMN, *_ALIKE) if name not in named)
        # Text without columns is the same for all rows.
        self._always: SystemMessage | None = NO_SYSTEM if self.template is None else None
        if self.template is not None and not named:
            self._always = SystemMessage(self.template.fill({}), _NONE)

    def of(self, record: Mapping[str, Any]) -> SystemMessage:
        """Return the message for a row whose prompt has none. Raises InvalidRow if the template cannot be filled."""
        notes: tuple[Fact, ...] = ()
        for name in self._unused:
            if record.get(name):
                own = _text(record[name]) if self._from_rows and name == SYSTEM_COLUMN else None
                if own is not None:
                    return SystemMessage(own, _USED)
                notes = (*notes, not_sent(name))
        if self._always is not None:
            return self._always._replace(notes=notes) if notes else self._always
        assert self.template is not None, "without one, the message is always the same"
        return SystemMessage(self.template.fill(record) or None, _NONE, (*notes, *self.template.blanks(record)))


def not_sent(name: str) -> Fact:
    """The note on a column that looks like a system message but is data."""
    return Fact(
        "system_not_sent",
        f'the column `{name}` is carried as data; `input.system: "{{{name}}}"` sends it as the system message',
    )


OWN_SYSTEM: Final = Fact(
    "system_not_sent", "the column `system` is carried as data, because the messages have a system message already"
)


def _text(value: Any) -> str | None:
    """Return the text of a system message (a string, or Anthropic's list of text parts); `None` if it is neither."""
    if isinstance(value, str):
        return value if value.strip() else None
    if isinstance(value, list):
        texts = [part.get("text") if isinstance(part, dict) else None for part in value]
        if all(isinstance(text, str) for text in texts):
            return "\n".join(str(text) for text in texts) or None
    return None
