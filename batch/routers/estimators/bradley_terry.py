"""Strengths of players from who beat whom, for many tournaments of the same players at once.

The model is Bradley and Terry's (1952): i beats j with probability `sigmoid(strength[i] - strength[j])`. A battle
matters only through who met whom and who won, so a tournament is a square of summed weights, however many battles
it has, and a fit is a few Newton steps on systems as small as there are players.
"""

import numpy as np

from batch.arrays import Floats, Indices

_STEPS = 200
# Of all weight. What it costs is below 1e-9 in a win rate; without it, who never lost would be infinitely strong.
_RIDGE = 1e-12
# Of all weight: what the next step would still gain in log likelihood. Errors are far smaller, steps being quadratic.
_SMALL_ENOUGH = 1e-16


def fit_strengths(wins: Floats, start: Floats | None = None) -> Floats:
    """Return the strengths of greatest likelihood, in natural log odds, shape (tournaments, players).

    `wins[t, i, j]`, shape (tournaments, players, players), is the weight of i's wins over j, a tie being half a win
    for each. The last player's strength is 0. Where some never met, not even through others, the difference of their
    strengths means nothing; someone who only won is strong without measure, but finite.

    Each step is Newton's, shortened by `log(1 + r) / r` where `r` is the most it would change a difference: then it
    always gains (Sun and Tran-Dinh 2019), and near the end it is whole.

    Args:
        start: strengths to begin from, shape (players,).

    Raises:
        ArithmeticError: a strength is not found; weights that are not finite or negative do that.
    """
    tournaments, players, _ = wins.shape
    strengths = np.zeros((tournaments, players)) if start is None else np.tile(start, (tournaments, 1))
    losses = wins.swapaxes(1, 2)
    games = wins + losses
    weight = games.sum(axis=(1, 2))
    ridge = _RIDGE * weight[:, None]
    diagonal = np.arange(players - 1)
    for _ in range(_STEPS):
        difference = np.clip(strengths[:, :, None] - strengths[:, None, :], -500.0, 500.0)
        beats = 1.0 / (1.0 + np.exp(-difference))
        beaten = beats.swapaxes(1, 2)
        slope = ((losses * beats - wins * beaten).sum(axis=2) + ridge * strengths)[:, :-1]
        spread = games * beats * beaten
        curvature = -spread[:, :-1, :-1]
        curvature[:, diagonal, diagonal] += spread.sum(axis=2)[:, :-1] + ridge
        step = np.linalg.solve(curvature, slope[:, :, None])[:, :, 0]
        reach = np.maximum(step.max(axis=1), 0.0) - np.minimum(step.min(axis=1), 0.0)
        shortened = np.log1p(reach) / np.where(reach > 0.0, reach, 1.0)
        strengths[:, :-1] -= np.where(reach > 0.0, shortened, 1.0)[:, None] * step
        gain = (slope * step).sum(axis=1)
        if (gain <= _SMALL_ENOUGH * weight).all():
            return strengths
    raise ArithmeticError(f"strengths were not found in {_STEPS} steps; are all weights finite and positive?")


def are_connected(wins: Floats, one: int, other: int) -> bool:
    """Did these two meet, directly or through others? `wins` is one tournament, shape (players, players)."""
    neighbours = (wins + wins.T) > 0
    reached, last = {one}, {one}
    while last := {int(j) for i in last for j in np.flatnonzero(neighbours[i])} - reached:
        reached |= last
    return other in reached


def group_by_strength(strengths: Floats, groups: int) -> Indices:
    """Group players, given strongest first, so that the sum of the groups' variances is least, as RouteLLM has it.

    Returns each player's group, from 0 at the strongest; numbers may be left out. Variances are summed as they are,
    not by size, so one outlier among equals may be left in company, and fewer than `groups` groups may come out.
    Exact, by dynamic programming in `groups * len(strengths)**2` steps.
    """
    count = len(strengths)
    variance = np.zeros((count, count))
    for i in range(count):
        for j in range(i + 1, count):
            variance[i, j] = strengths[i : j + 1].var()
    # least[j]: of the players up to j; a single one is no cost in any number of groups.
    least = variance[0]
    last_of_left = np.zeros((groups, count), dtype=np.intp)
    for group in range(1, groups):
        improved = np.zeros(count)
        for j in range(1, count):
            sums = least[:j] + variance[1 : j + 1, j]
            last_of_left[group, j] = np.argmin(sums)
            improved[j] = sums[last_of_left[group, j]]
        least = improved
    end = count - 1
    numbers = np.zeros(count, dtype=np.intp)
    for group in range(groups - 1, 0, -1):
        left = last_of_left[group, end]
        numbers[left + 1 : end + 1] = group
        end = int(left)
    return numbers
