"""The linear program decides which kinds of rows each endpoint gets; tests of its parts are here too."""

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.dispatch.answer_lengths import ExpectedTokens, kind_of
from batch.dispatch.balancing.linear_program import Latency, LinearProgramAssigner, best_shares
from batch.dispatch.endpoint import Endpoint
from batch.dispatch.request import LimitCost
from batch.dispatch.row_buffer import RowBuffer
from batch.errors import Refused
from schemas.endpoints import EndpointSpec, LimitsSpec
from tests.fakes import answer, fake_endpoint, request

SHORT, LONG = (0, 10), (0, 20)
COSTS = {SHORT: LimitCost(1, 32, 0, 0), LONG: LimitCost(1, 1024, 0, 0)}


def endpoint(index: int, **limits: float) -> Endpoint:
    spec = EndpointSpec(url=f"http://e{index}/v1", limits=LimitsSpec.model_validate(limits))
    return fake_endpoint(spec, index, lambda: 0.0, Random(0))


def test_an_endpoint_held_back_by_tokens_gets_the_short_rows() -> None:
    """One endpoint allows few requests and many tokens, so it gets the long rows; the other gets the short ones."""
    few_requests, few_tokens = endpoint(0, rpm=60, tpm=1e6), endpoint(1, rpm=6000, tpm=3_000)
    unknown = {0: Latency(), 1: Latency()}
    shares = best_shares([few_requests, few_tokens], {SHORT: 90, LONG: 60}, COSTS, unknown)
    assert shares[0][LONG] == pytest.approx(1.0, abs=0.02)
    assert shares[1][SHORT] == pytest.approx(1.0, abs=0.02)


def test_an_endpoint_that_is_out_gets_no_share() -> None:
    """With one of two endpoints out there is nothing to decide, so there are no shares."""
    first, second = endpoint(0, rpm=60), endpoint(1, tpm=600)
    asked = request()
    first.start(asked)
    first.failed(asked, Refused("x"))
    first.give_up(Refused("x"))
    assert best_shares([first, second], {SHORT: 10, LONG: 10}, COSTS, {0: Latency(), 1: Latency()}) == {}


def test_kinds_are_taken_in_their_shares() -> None:
    """Over 1,000 picks, each endpoint gets each kind in the share that the linear program computed."""
    pool = [endpoint(0, rpm=600, tpm=120_000), endpoint(1, rpm=600, tpm=30_000)]
    fit = LinearProgramAssigner(pool, COSTS.__getitem__)
    at_hand = {SHORT: 600, LONG: 400}
    expected = best_shares(pool, at_hand, COSTS, {0: Latency(), 1: Latency()})
    assert fit.update_due(1.0)
    fit.update(at_hand, 1.0)
    assert not fit.update_due(5.9)
    for each in pool:
        picks = Counter(fit.choose(each, at_hand) for _ in range(1000))
        for kind, share in expected[each.index].items():
            assert picks[kind] == pytest.approx(1000 * share, abs=2)


@given(st.lists(st.integers(1, 500), min_size=10, max_size=60), st.floats(0, 0.1))
def test_latency_is_a_line_through_what_was_seen(seen: list[int], slope: float) -> None:
    """If answers take `0.3 + slope * tokens` seconds, the estimate at their mean length is within 20 % of that, also
    if all have the same length; no estimate is negative.
    """
    latency = Latency()
    assert latency.seconds(100) == 0.0
    for tokens in seen:
        latency.learn(tokens, 0.3 + slope * tokens)
    mean = sum(seen) / len(seen)
    assert latency.seconds(mean) == pytest.approx(0.3 + slope * mean, rel=0.2)
    assert latency.seconds(0) >= 0.0


@given(
    st.lists(st.tuples(st.sampled_from(["pop", "kind", "far", "first", "add", "sort"]), st.integers(0, 2)), max_size=60)
)
def test_a_row_buffer_gives_out_each_row_once(steps: list[tuple[str, int]]) -> None:
    """In any sequence of steps a row buffer gives out each row once until it is put back, and its counts are right."""
    rows = [request(row, prompt_tokens=10 * 4 ** (row % 3), max_tokens=5) for row in range(200)]
    kinds = {row.row: kind_of(row) for row in rows}
    waiting = list(rows)
    here: set[int] = set()
    out: list[int] = []
    at_hand = RowBuffer(kind_of)
    for step, choice in steps:
        taken = None
        match step:
            case "add":
                batch, waiting = waiting[: choice + 1], waiting[choice + 1 :]
                at_hand.extend(batch)
                here |= {row.row for row in batch}
            case "pop":
                taken = at_hand.pop()
                assert (taken is None) == (not here)
            case "kind":
                kind = kind_of(rows[choice])
                taken = at_hand.first_of(kind)
                assert (taken is None) == (not any(kinds[row] == kind for row in here))
                if taken is not None:
                    at_hand.remove(taken)
            case "far":
                taken = at_hand.find(choice / 3)
                assert (taken is None) == (not here)
                if taken is not None:
                    at_hand.remove(taken)
            case "first":
                if out:
                    back = rows[out.pop()]
                    at_hand.put_first(back)
                    here.add(back.row)
                    assert at_hand.pop() is back
                    taken = None
                    here.discard(back.row)
                    out.append(back.row)
            case "sort":
                at_hand.sort(lambda row: row.row)
        if taken is not None:
            assert taken.row in here
            here.discard(taken.row)
            out.append(taken.row)
        assert len(at_hand) == len(here)
        assert {k: n for k, n in at_hand.counts.items() if n} == dict(Counter(kinds[row] for row in here))


def test_what_is_expected_follows_the_answers_of_rows_alike() -> None:
    """Until eight rows of a kind are answered, `max_tokens` is expected; for rows of another kind it still is."""
    expected = ExpectedTokens()
    alike, other = request(max_tokens=1000), request(max_tokens=100)
    for _ in range(8):
        assert expected.cost(alike).expected == 1000
        expected.learn(alike, answer(10, 200))
    assert expected.cost(alike) == LimitCost(1, 10, 1000, 200)
    assert expected.cost(other).expected == 100
    assert expected.work(alike) > expected.work(other)
