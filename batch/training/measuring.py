"""Measures a trained router on prompts that were kept out of training, beside the word count, which needs none."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from batch.arrays import Floats
from batch.measures.bootstrap import groups_of, interval, resampled
from batch.measures.pair import PairOrder, least_gap
from batch.routers.length import LengthRouter
from batch.training.data import Judged
from schemas.training import HeldOut, TrainingReport

RESAMPLES = 1000
LEVELS = (0.5, 0.8)
SHARES = (0.1, 0.2, 0.3, 0.5, 0.7)

# With fewer prompts a figure says nothing: with 42 prompts the APGR of a random router has a standard deviation of .07.
FEWEST_MEASURED = 20
# On the public benchmarks no router trained on fewer labels beat the word count.
FEW_LABELS = 200
# With fewer held-out scores a cutoff is further off by chance than if it also uses scores of training prompts.
_FEWEST_FOR_CUTOFFS = 100


def measure(held: Judged, scores: Floats, seed: int) -> HeldOut | str:
    """Measure scores of the held-out prompts of one data set, or say in a sentence why they cannot be.

    Args:
        scores: as `gaps` gives them, one per prompt of `held`.
        seed: of the bootstrap.
    """
    ends = held.quality[:, [0, -1]]
    both = np.flatnonzero(~np.isnan(ends).any(axis=1)).tolist()
    if len(both) < FEWEST_MEASURED:
        some = f"only {len(both)}" if both else "none"
        return f"{some} of its held-out prompts have labels of both {held.models[0]} and {held.models[-1]}"
    weak, strong = ends[both].T
    if not strong.mean() - weak.mean() > least_gap(weak, strong):
        return f"on its held-out prompts {held.models[-1]} is no better than {held.models[0]}"
    prompts = [held.prompts[i] for i in both]
    words = LengthRouter(held.models[-1], 60.0).score(prompts)[:, 0]
    everything = np.ones((1, len(prompts)))
    order = PairOrder(scores[both], weak, strong)
    figures, counted = order.measures(everything, LEVELS), PairOrder(words, weak, strong).measures(everything, ())
    apgrs = [order.measures(weights, ()).apgr for weights in resampled(groups_of(prompts), RESAMPLES, seed)]
    return HeldOut(
        prompts=len(prompts),
        weakest=round(float(weak.mean()), 4),
        strongest=round(float(strong.mean()), 4),
        apgr=round(float(figures.apgr[0]), 4),
        interval=_rounded(interval(np.concatenate(apgrs))),
        cpt50=round(float(figures.cpt[0, 0]), 4),
        cpt80=round(float(figures.cpt[0, 1]), 4),
        apgr_length=round(float(counted.apgr[0]), 4),
    )


def cutoffs(held: Floats, trained: Callable[[], Floats]) -> dict[str, float]:
    """The cutoffs that send each of SHARES of the prompts to the strongest model, by share.

    They come from the scores of held-out prompts if there are enough, else from all scores.

    Args:
        held: scores of held-out prompts, shape (prompts,).
        trained: returns scores of the training prompts, out of fold if the kind of router has such scores.
    """
    scores = np.sort(held if len(held) >= _FEWEST_FOR_CUTOFFS else np.concatenate([held, trained()]))[::-1]
    return {str(share): float(np.float32(scores[max(round(share * len(scores)), 1) - 1])) for share in SHARES}


def cautions(figures: Mapping[str, HeldOut | str], prompts: int, labelled: Mapping[str, int]) -> Iterator[str]:
    """What to know before use, a sentence each.

    Args:
        prompts: different prompts that are labelled.
        labelled: how many labels each model has.
    """
    if prompts < FEW_LABELS:
        yield (
            f"Only {prompts} different prompts are labelled. Below about {FEW_LABELS} nothing was found that beats the "
            "word count; label more before relying on this."
        )
    most = max(labelled.values())
    for model, count in labelled.items():
        if count < most / 2:
            yield f"{model} has {count} labels, and another model {most}: its predictions are the weaker."
    for name, found in figures.items():
        if isinstance(found, str):
            yield f"{name}: not measured, for {found}."
            continue
        if found.apgr <= found.apgr_length:
            yield (
                f"{name}: no better than the word count, {found.apgr:.3f} against {found.apgr_length:.3f}. "
                "`router: {kind: length}` does as well and needs no training."
            )
        if found.interval is None or found.interval[0] <= found.apgr_random:
            yield (
                f"{name}: with {found.prompts} prompts held out, {found.apgr:.3f} may be chance; a larger `validation` "
                "says more."
            )


def tuning_cautions(chosen: Mapping[str, Any]) -> Iterator[str]:
    """What to know before use of a whole model that was fine-tuned, a sentence each; nothing for other kinds.

    Args:
        chosen: as `fine_tune` returns it.
    """
    if "validation_losses" not in chosen:
        return
    epoch, of_shares = chosen["epoch"], chosen.get("validation_loss_of_shares")
    loss = chosen["validation_losses"][epoch]
    if epoch == 0:
        yield (
            "Fine-tuning brought nothing: no epoch predicted the validation part better than the base model, which was "
            "kept as it was; if its head is new, it scores by lot. Label more, or try another `learning_rate`."
        )
    if of_shares is not None and not loss < of_shares:
        yield (
            f"On the validation part it predicts no better than how often each outcome was seen, whatever the prompt: "
            f"a loss of {loss:.4f} against {of_shares:.4f}. Label more, or try another `learning_rate`."
        )


def table(report: TrainingReport) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Heads and rows of the figures, as the card and the terminal show them."""
    heads = ("data", "prompts", "APGR", "95 %", "word count", "lots", "CPT50", "CPT80")
    rows: list[tuple[str, ...]] = [
        (
            name,
            f"{found.prompts:,}",
            f"{found.apgr:.3f}",
            "-" if found.interval is None else f"{found.interval[0]:.3f} to {found.interval[1]:.3f}",
            f"{found.apgr_length:.3f}",
            f"{found.apgr_random:.3f}",
            f"{100 * found.cpt50:.1f} %",
            f"{100 * found.cpt80:.1f} %",
        )
        for name, found in report.held_out.items()
    ]
    return heads, rows


def _rounded(bounds: tuple[float, float] | None) -> tuple[float, float] | None:
    return None if bounds is None else (round(bounds[0], 4), round(bounds[1], 4))
