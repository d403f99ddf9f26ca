"""Logistic regression by Newton's method: a few hundred coefficients need nothing bigger, and it is deterministic."""

import numpy as np

from batch.arrays import Floats

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


def _objective(features: Floats, labels: Floats, penalty: Floats, coefficients: Floats) -> float:
    logits = features @ coefficients
    loss = np.logaddexp(0.0, logits).sum() - labels @ logits
    return float(loss + 0.5 * (penalty * coefficients) @ coefficients)
