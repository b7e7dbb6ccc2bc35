"""A minimum of a smooth function of a few numbers between bounds, on the host.

BFGS on the coordinates that no bound holds, with steps cut to where the function falls as its gradient
promises (Nocedal & Wright, Numerical Optimization, 2006, sections 3.1 and 6.1).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

__all__ = ["descended"]

_STEPS = 200
_LEVEL = 1e-8  # the gradient that ends it
_FAR = 3.0  # no step is longer in any coordinate


class Valued(Protocol):
    """What a function returns: its value and its gradient, among other things."""

    @property
    def score(self) -> float: ...

    @property
    def gradient(self) -> np.ndarray: ...


def descended(
    function: Callable[[np.ndarray], Any],
    theta: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    unit: float = 1.0,
) -> tuple[np.ndarray, Any]:
    """From `theta` down to a minimum within [low, high], and what the function returned there.

    Args:
      function: [G] -> `Valued`.
      theta: where to start, within the bounds.
      low: [G].
      high: [G].
      unit: the size of the function's values, by which its gradient is judged.
    """
    here: Valued = function(theta)
    inverse = None
    for _ in range(_STEPS):
        slope = here.gradient
        free = np.where(slope > 0, theta > low, theta < high).astype(float)
        if np.abs(slope * free).max() <= _LEVEL * unit:
            break
        step = -free * slope / unit if inverse is None else -free * (inverse @ (free * slope))
        found = _shorter(function, here, theta, step, low, high) if step @ slope < 0 else None
        if found is None:
            if inverse is None:
                break
            inverse = None  # what was learnt of the curvature misleads here
            continue
        moved, there = found
        inverse = _updated(inverse, moved - theta, there.gradient - slope)
        theta, here = moved, there
    return theta, here


def _shorter(
    function: Callable[[np.ndarray], Valued], here: Valued, theta: np.ndarray, step: np.ndarray,
    low: np.ndarray, high: np.ndarray,
) -> tuple[np.ndarray, Valued] | None:  # fmt: skip
    """The first of ever shorter steps that is low enough; none where rounding ends the descent."""
    step = step * min(1.0, _FAR / np.abs(step).max())
    for half in range(20):
        moved = np.clip(theta + step / 2**half, low, high)
        there, promised = function(moved), here.gradient @ (moved - theta)
        if there.score < here.score and there.score <= here.score + 1e-4 * promised:
            return moved, there
    return None


def _updated(inverse: np.ndarray | None, step: np.ndarray, turn: np.ndarray) -> np.ndarray | None:
    """The inverse of the curvature, as a step and the turn of the gradient on it tell (eq. 6.17, 6.20)."""
    along = step @ turn
    if along <= 1e-12 * np.linalg.norm(step) * np.linalg.norm(turn):
        return inverse
    if inverse is None:
        inverse = np.eye(len(step)) * along / (turn @ turn)
    left = np.eye(len(step)) - np.outer(step, turn) / along
    return left @ inverse @ left.T + np.outer(step, step) / along
