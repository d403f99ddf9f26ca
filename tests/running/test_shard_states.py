"""ShardStates: the table of transitions, and which shards are in which state."""

import logging
from itertools import pairwise
from random import Random

import pytest

from batch.running.shard_states import (
    FIRST_STATES,
    TRANSITIONS,
    IllegalTransitionError,
    ShardState,
    ShardStates,
)

# One way from each state in which a sitting finds a shard to the end.
WAYS = {
    ShardState.UNSCORED: ("scoring", "scored", "routing", "routed", "sending", "answered", "committing", "committed"),
    ShardState.SCORED: ("routing", "routed", "sending", "answered", "committing", "committed"),
    ShardState.UNCHECKED: ("checking", "routed", "sending", "answered", "committing", "committed"),
    ShardState.COMMITTED: (),
}
# Transitions back, made if ids turn out to repeat and a part has to be written again.
BACK = {(ShardState.COMMITTING, ShardState.ANSWERED), (ShardState.COMMITTED, ShardState.ANSWERED)}


def brought_to(state: ShardState) -> ShardStates:
    """One shard, led to `state` by allowed transitions."""
    for first, way in WAYS.items():
        path = [first, *map(ShardState, way)]
        if state in path:
            states = ShardStates([first])
            for step in path[1 : path.index(state) + 1]:
                states.move(0, step)
            return states
    raise AssertionError(f"no way leads to {state}")


def test_the_table_has_the_ways_to_the_end_and_back_and_nothing_else() -> None:
    """Every transition of the table is on a path from a first state to `committed`, or is one of the two back."""
    on_ways = set(BACK)
    for first, way in WAYS.items():
        path = [first, *map(ShardState, way)]
        on_ways |= set(pairwise(path))
    assert {(state, after) for state, all_after in TRANSITIONS.items() for after in all_after} == on_ways
    assert set(TRANSITIONS) == set(ShardState)
    assert set(WAYS) == FIRST_STATES


@pytest.mark.parametrize("state", ShardState)
@pytest.mark.parametrize("after", ShardState)
def test_a_transition_is_made_if_the_table_has_it(state: ShardState, after: ShardState) -> None:
    """Any other one raises, and leaves the shard where it is."""
    states = brought_to(state)
    if after in TRANSITIONS[state]:
        states.move(0, after)
        assert (states[0], states.of(after), states.of(state)) == (after, [0], [])
    else:
        with pytest.raises(IllegalTransitionError, match=f"shard 0 is {state} and cannot become {after}"):
            states.move(0, after)
        assert (states[0], states.of(state)) == (state, [0])


@pytest.mark.parametrize("first", sorted(set(ShardState) - FIRST_STATES))
def test_no_sitting_finds_a_shard_in_the_middle_of_work(first: ShardState) -> None:
    """Work that was under way when a sitting ended has stored nothing, or a whole step."""
    with pytest.raises(IllegalTransitionError, match=f"shard 1 cannot begin as {first}"):
        ShardStates([ShardState.UNSCORED, first])


@pytest.mark.parametrize("seed", range(5))
def test_on_a_random_walk_every_shard_is_in_one_state(seed: int) -> None:
    """20 shards, 600 allowed steps: `of`, `count` and `all_are` agree with a plain list that is kept beside them."""
    random = Random(seed)
    plain = [random.choice(sorted(FIRST_STATES)) for _ in range(20)]
    states = ShardStates(plain)
    for _ in range(600):
        index = random.randrange(20)
        plain[index] = random.choice(sorted(TRANSITIONS[plain[index]]))
        states.move(index, plain[index])
        for state in ShardState:
            assert states.of(state) == [i for i, one in enumerate(plain) if one is state]
        assert sum(states.count(state) for state in ShardState) == len(states) == 20
        some = random.sample(sorted(ShardState), 3)
        assert states.all_are(*some) == all(one in some for one in plain)
        assert states.of(*some) == [i for i, one in enumerate(plain) if one in some]


def test_transitions_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Each transition is logged with its shard and both states, and the first line counts the shards in each state."""
    with caplog.at_level(logging.DEBUG, "batchrouter.running"):
        states = ShardStates([ShardState.UNSCORED, ShardState.COMMITTED, ShardState.UNSCORED])
        states.move(2, ShardState.SCORING)
    assert caplog.messages == [
        "a sitting begins: ShardStates(2 unscored, 1 committed)",
        "shard 2: unscored -> scoring",
    ]
