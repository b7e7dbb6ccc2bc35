"""Where a prox is compared with its rivals."""

from __future__ import annotations

import numpy as np

from jaxreg.penalty import Penalty
from jaxreg.testing._case import Case


def rivals(case: Case, points: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Points z [8, 8, n] around every prox `near` [8, n].

    Other proxes, and points on the way to them, lie in the domain of a convex constraint; steps of
    1e-4 see a threshold that is wrong by 0.1 %, long ones what is wrong far away.
    """
    aside = 0.01 * (case.generic[1] - case.generic[0])
    next_, far = np.roll(near, 1, 0), np.roll(near, 3, 0)
    on_the_way = [near + 1e-4 * (next_ - near), near + 1e-4 * (far - near)]
    return np.stack([next_, far, *on_the_way, points, 0 * near, near + aside, near - aside], axis=1)


def minimises(
    case: Case, penalty: Penalty, points: np.ndarray, near: np.ndarray, steps: np.ndarray
) -> None:
    """R(z) >= R(p) + <(x - p)/step, z - p>: the strong convexity inequality of the prox objective.

    F(z) >= F(p) + |z - p|^2 / (2 step) with F = R + |. - x|^2 / (2 step) is this, less the terms
    that cancel; it loses no digits, so thresholds wrong by 0.1 % are seen.
    """
    z = rivals(case, points, near)
    pull = (points - near) / steps
    gain = np.sum(pull[:, None] * (z - near[:, None]), -1)
    base = case.value(near, penalty)
    inside = np.isfinite(base)
    detail = "the prox is outside the domain of R"
    case.require(inside, detail, step=steps, x=points, prox=near, value=base)
    there = case.value(z.reshape(-1, z.shape[-1]), penalty).reshape(gain.shape)
    with np.errstate(invalid="ignore"):
        short = base[:, None] + gain - there
        scale = 1 + np.abs(base[:, None]) + np.abs(gain) + np.where(there < np.inf, there, 0)
        good = short <= case.tolerance * scale
    worst = np.argmax(np.where(good, 0, np.nan_to_num(short, nan=np.inf)), 1)
    rows = np.arange(len(z))
    case.require(
        good.all(1),
        "another point z has a lower R(z) + |z - x|^2 / (2 step) than the prox has",
        (z - near[:, None])[rows, worst] * pull,
        steps,
        x=points,
        prox=near,
        z=z[rows, worst],
        lower_by=short[rows, worst],
    )
