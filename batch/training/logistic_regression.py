"""Logistic regression in two ways: the least summed log loss plus `penalty / 2` times the squared coefficients.

Both functions minimise that same loss, and neither can take the other's place:

- `fit_logistic` is Newton's method. It solves with a matrix of shape (coefficients, coefficients), which suits the few
  hundred dense features of a head: they need nothing bigger, and it is deterministic. The weights of the checkpoints
  that ship come from it, and would change in their last digits by another solver.
- `fit_sparse_logistic` is L-BFGS. It holds vectors only, which suits thousands of words, of which each prompt has few.
"""

from typing import Any

import numpy as np

from batch.arrays import Floats

Sparse = Any
"""A SciPy CSR array."""

_STEPS = 50
_SMALL_ENOUGH = 1e-6


def fit_logistic(features: Floats, labels: Floats, penalty: Floats, start: Floats | None = None) -> Floats:
    """Return the coefficients that minimise the summed log loss plus `penalty / 2` times their squares.

    `features` is (n, k), `labels` (n,) in [0, 1], `penalty` (k,) and positive, so that there is exactly one
    minimum, which `start` (k,), coefficients near it, only finds sooner. Raises ArithmeticError where it is not
    reached.
    """
    coefficients = np.zeros(features.shape[1]) if start is None else start
    value = _objective(features, labels, penalty, coefficients)
    for _ in range(_STEPS):
        probability = 1.0 / (1.0 + np.exp(-np.clip(features @ coefficients, -500.0, 500.0)))
        slope = features.T @ (probability - labels) + penalty * coefficients
        curvature = (features * (probability * (1.0 - probability))[:, None]).T @ features + np.diag(penalty)
        step = np.linalg.solve(curvature, slope)
        if slope @ step < _SMALL_ENOUGH:
            return coefficients - step
        # Far from the minimum a whole step can overshoot; half of it, often enough, cannot.
        scale = 1.0
        while (nearer := _objective(features, labels, penalty, coefficients - scale * step)) > value:
            scale /= 2.0
            if scale < _SMALL_ENOUGH:
                raise ArithmeticError("logistic regression found no way down; are the features finite?")
        coefficients, value = coefficients - scale * step, nearer
    raise ArithmeticError(f"logistic regression did not converge in {_STEPS} steps")


def fit_sparse_logistic(features: Sparse, labels: Floats, offsets: Floats, penalty: float, start: Floats) -> Floats:
    """Return the coefficients that minimise the same for sparse features, one penalty and given offsets, by L-BFGS.

    `features` is (n, k), `labels` (n,) in [0, 1], `offsets` (n,), log odds that are added to those of the features;
    `start` (k,) is where the search begins, and what is returned where there are no features.
    """
    from scipy.optimize import minimize

    if not features.shape[1]:
        return start

    def loss(weight: Floats) -> tuple[float, Floats]:
        logits = features @ weight + offsets
        wrong = 1.0 / (1.0 + np.exp(-np.clip(logits, -500.0, 500.0))) - labels
        value = np.logaddexp(0.0, logits).sum() - labels @ logits + 0.5 * penalty * weight @ weight
        return float(value), features.T @ wrong + penalty * weight

    found: Floats = minimize(loss, start, jac=True, method="L-BFGS-B").x
    return found


def _objective(features: Floats, labels: Floats, penalty: Floats, coefficients: Floats) -> float:
    logits = features @ coefficients
    loss = np.logaddexp(0.0, logits).sum() - labels @ logits
    return float(loss + 0.5 * (penalty * coefficients) @ coefficients)
