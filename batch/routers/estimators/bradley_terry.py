"""Strengths of players from their wins and losses, for many tournaments of the same players at once.

The model is Bradley and Terry's (1952): player i beats player j with probability `sigmoid(strength[i] - strength[j])`.
The likelihood depends only on how often each player beat each other one. So a tournament is a square matrix of summed
weights, however many battles it has, and a fit is a few Newton steps on systems of equations of that size.
"""

import numpy as np

from batch.arrays import Floats, Indices

_STEPS = 200
# Penalty on squared strengths, as a share of all weight. It changes a win rate by less than 1e-9; without it, a player
# that never lost would be infinitely strong.
_RIDGE = 1e-12
# The fit ends when the next step would gain less log likelihood than this share of all weight. The error is then far
# smaller still, since Newton's method converges quadratically.
_SMALL_ENOUGH = 1e-16


def fit_strengths(wins: Floats, start: Floats | None = None) -> Floats:
    """Return the strengths of greatest likelihood, in natural log odds, shape (tournaments, players).

    The last player's strength is 0. If no chain of battles connects two players, the difference of their strengths has
    no meaning. A player that won every battle gets a very large, finite strength.

    Each step is a Newton step times `log(1 + r) / r`, where `r` is the most that the whole step would change the
    difference of two strengths. Such a step always gains likelihood (Sun and Tran-Dinh 2019), and near the optimum
    it becomes the whole step.

    Args:
        wins: `wins[t, i, j]` is the weight of player i's wins over player j in tournament t, a tie being half a win for
            each; shape (tournaments, players, players).
        start: strengths to begin from, shape (players,).

    Raises:
        ArithmeticError: the steps did not converge, as with weights that are negative or not finite.
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
    """Does a chain of battles connect these two players? `wins` is one tournament, shape (players, players)."""
    neighbours = (wins + wins.T) > 0
    reached, last = {one}, {one}
    while last := {int(j) for i in last for j in np.flatnonzero(neighbours[i])} - reached:
        reached |= last
    return other in reached


def group_by_strength(strengths: Floats, groups: int) -> Indices:
    """Group players, given strongest first, so that the sum of the groups' variances is least, as RouteLLM does.

    Returns the number of each player's group, from 0 for the strongest; some numbers may be unused. A group's variance
    counts once, whatever the group's size, so an outlier may stay in a large group, and there may be fewer groups than
    `groups`. The solution is exact, by dynamic programming in `groups * len(strengths)**2` steps.
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
