"""What state each shard of a run is in, and which changes of state are allowed."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Final

_log = logging.getLogger("batchrouter.running")


class ShardState(StrEnum):
    """How far a shard has come.

    The scored part or the routed parts of a shard may be lost while it is further along. They are made again without
    a change of state.
    """

    UNSCORED = "unscored"
    """Its rows have to be read and scored."""
    SCORING = "scoring"
    """Its rows are being read and scored."""
    SCORED = "scored"
    """Its scored part is stored, and the plan has not decided on its rows yet."""
    ROUTING = "routing"
    """The plan has decided, and its rows are being grouped by model on disk."""
    UNCHECKED = "unchecked"
    """An earlier sitting grouped its rows by model; these files have to be compared with their checksums."""
    CHECKING = "checking"
    """The files that an earlier sitting left are being compared with their checksums."""
    ROUTED = "routed"
    """Its rows are on disk by model, ready for the dispatcher."""
    SENDING = "sending"
    """The dispatcher has it."""
    ANSWERED = "answered"
    """Every row that was to be sent has its outcome in a journal."""
    COMMITTING = "committing"
    """Its part of the output is being written."""
    COMMITTED = "committed"
    """Its part of the output and its commit record are stored."""


TRANSITIONS: Final[Mapping[ShardState, frozenset[ShardState]]] = {
    ShardState.UNSCORED: frozenset({ShardState.SCORING}),
    ShardState.SCORING: frozenset({ShardState.SCORED}),
    ShardState.SCORED: frozenset({ShardState.ROUTING}),
    ShardState.ROUTING: frozenset({ShardState.ROUTED}),
    ShardState.UNCHECKED: frozenset({ShardState.CHECKING}),
    ShardState.CHECKING: frozenset({ShardState.ROUTED}),
    ShardState.ROUTED: frozenset({ShardState.SENDING}),
    ShardState.SENDING: frozenset({ShardState.ANSWERED}),
    ShardState.ANSWERED: frozenset({ShardState.COMMITTING}),
    # Back to ANSWERED where ids turn out to repeat in a later shard: the part is written again, with made-up ids.
    ShardState.COMMITTING: frozenset({ShardState.COMMITTED, ShardState.ANSWERED}),
    ShardState.COMMITTED: frozenset({ShardState.ANSWERED}),
}
"""For each state, the states that may follow it."""

FIRST_STATES: Final = frozenset(
    {ShardState.UNSCORED, ShardState.SCORED, ShardState.UNCHECKED, ShardState.COMMITTED},
)
"""States in which a sitting may find a shard."""


class IllegalTransitionError(RuntimeError):
    """A change of state that TRANSITIONS does not have: the pipeline has a bug."""


class ShardStates:
    """The states of all shards. It logs each change, and raises IllegalTransitionError for one that is not allowed."""

    def __init__(self, first: Sequence[ShardState] = ()) -> None:
        """`first` has the state in which this sitting finds each shard, by the shard's index."""
        for index, state in enumerate(first):
            if state not in FIRST_STATES:
                raise IllegalTransitionError(f"shard {index} cannot begin as {state}")
        self._state = list(first)
        self._shards: dict[ShardState, set[int]] = {state: set() for state in ShardState}
        for index, state in enumerate(first):
            self._shards[state].add(index)
        if first:
            _log.info("a sitting begins: %s", repr(self))

    def __len__(self) -> int:
        return len(self._state)

    def __getitem__(self, index: int) -> ShardState:
        return self._state[index]

    def __repr__(self) -> str:
        counts = ", ".join(f"{len(self._shards[state])} {state}" for state in ShardState if self._shards[state])
        return f"ShardStates({counts or 'no shards'})"

    def move(self, index: int, to: ShardState) -> None:
        """Change the state of one shard."""
        now = self._state[index]
        if to not in TRANSITIONS[now]:
            raise IllegalTransitionError(f"shard {index} is {now} and cannot become {to}")
        self._shards[now].discard(index)
        self._shards[to].add(index)
        self._state[index] = to
        _log.debug("shard %d: %s -> %s", index, now, to)

    def move_all(self, indexes: Iterable[int], to: ShardState) -> None:
        """Change the state of several shards, in the order given."""
        for index in tuple(indexes):
            self.move(index, to)

    def of(self, *states: ShardState) -> list[int]:
        """The shards in any of these states, in input order."""
        return sorted(index for state in states for index in self._shards[state])

    def count(self, *states: ShardState) -> int:
        """How many shards are in any of these states."""
        return sum(len(self._shards[state]) for state in states)

    def all_are(self, *states: ShardState) -> bool:
        """Is every shard in one of these states?"""
        return self.count(*states) == len(self._state)
