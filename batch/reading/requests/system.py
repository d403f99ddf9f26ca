"""The system message of a row: its own, else the job's."""

from collections.abc import Mapping, Set
from typing import Any, Final, NamedTuple

from batch.reading.notes import Fact
from batch.reading.template import PromptTemplate

SYSTEM_COLUMN: Final = "system"
_USED: Final[Set[str]] = frozenset({SYSTEM_COLUMN})
_NONE: Final[Set[str]] = frozenset()
# What data sets call it (OpenOrca, distilabel); only `system` is found by itself.
_ALIKE: Final = ("system_prompt", "system_message")


class SystemMessage(NamedTuple):
    """What goes before a row's prompt."""

    text: str | None
    """`None`: nothing."""
    columns: Set[str]
    """The row's column that it is from, which is not carried."""
    notes: tuple[Fact, ...] = ()
    """What a reader should know."""


NO_SYSTEM: Final = SystemMessage(None, _NONE)


class SystemMessages:
    """Says what system message goes before each row's prompt.

    A row's own column `system` wins over `input.system`, unless the job has a template for the prompt: all columns are
    data then. Raises SpecError for an `input.system` that is no template.
    """

    def __init__(self, text: str | None, *, from_rows: bool) -> None:
        """
        Args:
            text: the job's `input.system`.
            from_rows: may a row's own column be the message?
        """
        self.template = PromptTemplate(text, "input.system", may_be_plain=True) if text else None
        """The job's, where it has one."""
        named = self.template.named if self.template is not None else frozenset[str]()
        self._from_rows = from_rows and SYSTEM_COLUMN not in named
        self._unused = tuple(name for name in (SYSTEM_COLUMN, *_ALIKE) if name not in named)
        # A text without columns is the same for all rows.
        self._always: SystemMessage | None = NO_SYSTEM if self.template is None else None
        if self.template is not None and not named:
            self._always = SystemMessage(self.template.fill({}), _NONE)

    def of(self, record: Mapping[str, Any]) -> SystemMessage:
        """The message of a row whose prompt has none. Raises InvalidRow where the job's template cannot be filled."""
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
    """The note on a column that looks like a system message and is none."""
    return Fact(
        "system_not_sent",
        f'the column `{name}` is carried as data; `input.system: "{{{name}}}"` sends it as the system message',
    )


OWN_SYSTEM: Final = Fact(
    "system_not_sent", "the column `system` is carried as data, because the messages have a system message already"
)


def _text(value: Any) -> str | None:
    """The text of a system message: a string, or a list of text parts as Anthropic has them; `None`: neither."""
    if isinstance(value, str):
        return value if value.strip() else None
    if isinstance(value, list):
        texts = [part.get("text") if isinstance(part, dict) else None for part in value]
        if all(isinstance(text, str) for text in texts):
            return "\n".join(str(text) for text in texts) or None
    return None
