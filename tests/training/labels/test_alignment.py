"""Labels from several sources get one order of models, and some prompts are held out of training."""

import numpy as np
import pytest

from batch.errors import InputError
from batch.training.data import Judged, Preferences
from batch.training.labels.alignment import aligned, as_judged, choose_held_out, gap, labels_of, mean_quality, part_of
from batch.training.labels.files import Labels

PROMPTS = [f"prompt {i}" for i in range(40)]


def labels(data: Judged | Preferences) -> Labels:
    return Labels("judged", data, (), 0)


def judged(models: tuple[str, ...], *quality: float) -> Judged:
    """A set in which each model has the same quality on every prompt."""
    return Judged("set", PROMPTS, models, np.tile(quality, (len(PROMPTS), 1)))


def test_models_are_ordered_by_how_good_they_are() -> None:
    """Models come weakest first by mean quality over all sets; a set has no labels of a model that it lacks."""
    models, data = aligned([labels(judged(("b", "a"), 0.9, 0.2)), labels(judged(("c", "a"), 0.5, 0.4))], None)
    assert models == ("a", "c", "b")
    first, second = (as_judged(one, models) for one in data)
    np.testing.assert_array_equal(first.quality[0], [0.2, np.nan, 0.9])
    np.testing.assert_array_equal(second.quality[0], [0.4, 0.5, np.nan])
    assert labels_of(data[0], models) == {"a": 40, "c": 0, "b": 40}
    assert gap([first, second]) == pytest.approx((0.2, 0.9))
    assert mean_quality([first, second], models) == pytest.approx({"a": 0.3, "c": 0.5, "b": 0.9})


def test_models_that_are_named_are_all_there_are() -> None:
    """Other models leave the data, and so do prompts that do not compare two of the named models."""
    battles = Preferences("b", PROMPTS[:3], ["x", "y", "x"], ["y", "z", "x"], np.array([0.0, 1.0, 0.5]))
    models, data = aligned([labels(judged(("y", "x", "w"), 0.9, 0.2, 0.5)), labels(battles)], ("x", "y"))
    assert models == ("x", "y")
    assert as_judged(data[0], models).quality.shape == (40, 2)
    assert data[1].prompts == PROMPTS[:1]
    np.testing.assert_array_equal(as_judged(data[1], models).quality, [[0.0, 1.0]])


def test_a_tie_is_half_a_victory_for_both() -> None:
    """A model that did not take part has no label."""
    battles = Preferences("b", ["p", "q"], ["x", "x"], ["y", "y"], np.array([0.5, 1.0]))
    np.testing.assert_array_equal(as_judged(battles, ("y", "z", "x")).quality, [[0.5, np.nan, 0.5], [0, np.nan, 1]])


def test_what_cannot_make_a_router_is_refused() -> None:
    """The message names the model, or what is missing."""
    good = labels(judged(("small", "large"), 0.2, 0.8))
    unjudged = labels(judged(("small", "large", "huge"), 0.2, 0.8, np.nan))
    few = labels(Judged("few", PROMPTS[:7] * 9, ("small", "large"), np.tile([0.0, 1.0], (63, 1))))
    for data, wanted, said in (
        ([good], ("small", "huge"), r"^models: 'huge' is nowhere in data; there are small, large$"),
        ([unjudged], ("small", "huge"), r"^models: no answer of 'huge' was ever judged$"),
        ([labels(judged(("large",), 0.8))], None, r"^data: only large has labels; a router needs two models"),
        ([few], None, r"^data: 7 different prompts have labels; 20 is the least"),
        ([good], ("large", "small"), r"^data: small is no better than large \(mean quality 0\.200 and 0\.800\)"),
        ([labels(judged(("weak", "strong"), 0.5, 0.5))], None, r"^data: strong is no better than weak"),
        ([good, labels(judged(("other", "one"), 0.1, 0.2))], ("small", "large"), r"^data\.1: no row has a label of"),
    ):
        with pytest.raises(InputError, match=said):
            aligned(data, wanted)


def test_equal_prompts_are_all_held_out_or_none() -> None:
    """A prompt's text and the seed alone decide whether it is held out, at about the share that was asked for."""
    prompts = [f"{i}" for i in range(5000)]
    out = choose_held_out(prompts, 0.3, seed=1)
    assert 0.27 < out.mean() < 0.33
    assert (choose_held_out(prompts[::-1], 0.3, seed=1)[::-1] == out).all()
    assert (choose_held_out(prompts, 0.3, seed=2) != out).any()
    assert (choose_held_out(prompts, 0.4, seed=1) >= out).all()


def test_a_part_has_the_rows_that_were_chosen() -> None:
    """`part_of` takes rows of judgements, with their repeated verdicts, and of preferences."""
    chosen = np.array([True, False, True])
    whole = Judged("j", ["a", "b", "c"], ("x", "y"), np.arange(6.0).reshape(3, 2), {"again": np.ones((3, 2))})
    part = part_of(whole, chosen)
    assert isinstance(part, Judged)
    assert part.prompts == ["a", "c"]
    assert part.quality.tolist() == [[0, 1], [4, 5]]
    assert part.judged_again["again"].shape == (2, 2)
    battles = part_of(Preferences("p", ["a", "b", "c"], "xyz", "yzx", np.array([0.0, 1.0, 0.5])), chosen)
    assert isinstance(battles, Preferences)
    assert (battles.first, battles.second, battles.outcome.tolist()) == (["x", "z"], ["y", "x"], [0.0, 0.5])
