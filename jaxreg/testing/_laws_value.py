"""Laws of the value: sign, shape, and derivatives by the parameters and by the strengths."""

from __future__ import annotations

import jax
import numpy as np

from jaxreg.testing import _compiled
from jaxreg.testing._case import Case, DoesNotApply, is_float, times


def value_nonnegative(case: Case) -> None:
    """R >= 0: a penalty that can pay for a bad fit is none."""
    value = case.value(case.points)
    case.require(value >= -case.tolerance, "the value is negative", x=case.points, value=value)


def gradient_matches_differences(case: Case) -> None:
    """Away from kinks the gradient is that of the value, by central differences."""
    h, x = 1e-7, case.generic[0]
    directions = _directions(case)
    ahead, behind = (case.finite_value(x + s * h * directions) for s in (1, -1))
    expected, slope = (ahead - behind) / (2 * h), case.gradient(case.generic)[0]
    found = directions @ slope
    scale = np.max(np.abs(np.append(expected, found))) + 1e-3
    good = np.abs(found - expected) <= (1e-4 + 1e3 * case.tolerance) * scale
    detail = "the gradient is not that of the value"
    rows = np.broadcast_to(x, directions.shape)
    case.require(good, detail, directions, x=rows, along=directions, gradient=found,
                 difference=expected)  # fmt: skip


def _directions(case: Case) -> np.ndarray:
    """The unit vectors, or where there are too many to try, signs in 24 patterns."""
    n = case.x.size
    if n <= 32:
        return np.eye(n)
    return np.sign(np.sin(np.outer(1 + np.arange(24), 1 + np.arange(n))))


def gradient_least_norm(case: Case) -> None:
    """At zeros the gradient is the least-norm subgradient: -g is steepest descent, R' = -|g|^2."""
    x = kinks(case)
    slope = case.gradient(x)
    least_norm(case, x, slope, np.zeros_like(slope), "gradient")


def kinks(case: Case) -> np.ndarray:
    """Points [8, n] with exact zeros, otherwise generic: no ties."""
    base = case.generic
    first = np.where(np.arange(base.shape[1]) == 0, base[0], 0)
    rows = [0 * first, first, base[0] * (case.x != 0), base[1] * (case.y != 0)]
    return np.stack(rows + [case.zeroed(row) for row in base[:4]])


def least_norm(case: Case, x: np.ndarray, found: np.ndarray, grad: np.ndarray, what: str) -> None:
    """`found` is the least-norm element of grad + dR(x), by one difference along it.

    g is the projection of 0 on a convex set S exactly when g is in S and min_{s in S} <s, g> =
    |g|^2, and -min <s, g> is the derivative of R along -g; no formula for S is needed.
    """
    size = np.linalg.norm(found, axis=1)
    h = 1e-6 / (1 + size)
    here = case.finite_value(x)
    ahead = case.finite_value(x - h[:, None] * found)
    slope = (ahead - here) / h - np.sum(grad * found, 1)
    allowed = (1e-3 + 1e3 * case.tolerance) * (1e-3 + size**2 + size * np.linalg.norm(grad, axis=1))
    good = np.abs(slope + size**2) <= allowed
    detail = f"the {what} is not the least-norm element of the subdifferential"
    rows = {"x": x, what: found, "minus_its_square": -(size**2), "slope_along_minus_it": slope}
    case.require(good, detail, np.where(x == 0, found, 0), **rows)


def smooth_means_smooth(case: Case) -> None:
    """Where `smooth` is True there is no kink, not even at zeros."""
    if not case.penalty.smooth:
        raise DoesNotApply("it does not claim to be smooth")
    x, h = kinks(case), 1e-7
    aside = h * case.generic
    parts = [case.value(x + aside), case.value(x - aside), case.value(x)]
    bend = (parts[0] + parts[1] - 2 * parts[2]) / h
    good = np.abs(bend) <= 1e-2 * (1 + np.abs(parts[2])) + 1e3 * case.tolerance
    detail = "it claims to be smooth, and its slope jumps"
    case.require(good, detail, aside, x=x, jump=bend)


def convex_means_convex(case: Case) -> None:
    """Where `convex` is True, R in the middle is at most the mean of R at the ends."""
    if not case.penalty.convex:
        raise DoesNotApply("it does not claim to be convex")
    a, b = case.points, case.generic
    ends = 0.5 * (case.value(a) + case.value(b))
    middle = case.value(0.5 * (a + b))
    with np.errstate(invalid="ignore"):
        good = (middle <= ends + case.tolerance * (1 + np.abs(ends))) | np.isinf(ends)
    detail = "it claims to be convex, and is higher between two points than at them"
    case.require(good, detail, a=a, b=b, middle=middle, mean_of_ends=ends)


def homogeneous_in_lam(case: Case) -> None:
    """c * R has the value c R and the prox of R with the step c * step; so has c * lam."""
    factor, points = 3.0, case.points
    variants = {"3 * penalty": factor * case.penalty}
    base = case.value(points)
    if case.subject.has_lam and np.isfinite(base).all():
        tripled = times(case.penalty, factor)
        # R may depend on lam in another way (MCP does); its prox is then tested law by law.
        if np.allclose(case.value(points, tripled), factor * base, rtol=1e-6, atol=1e-9):
            variants["the penalty with 3 * lam"] = tripled
    for name, penalty in variants.items():
        value = case.value(points, penalty)
        good = np.isclose(value, factor * base, rtol=1e-6, atol=case.tolerance) | (value == base)
        case.require(good, f"{name} has not 3 times the value", x=points, value=value)
        if case.subject.refusals["prox"] is not None:
            continue
        steps = np.full(len(points), factor * case.step)
        expected, found = case.prox(case.generic, step=steps), case.prox(case.generic, penalty)
        allowed = (1e-6 + 10 * case.tolerance) * (1 + np.abs(expected))
        good = (np.abs(found - expected) <= allowed).all(1)
        detail = f"{name} has not the prox at 3 times the step"
        case.require(good, detail, found - expected, case.step, x=case.generic,
                     expected=expected, found=found)  # fmt: skip


def strength_gradient(case: Case) -> None:
    """The derivative of R by its strengths is finite, and by lam that of the value."""
    points = np.concatenate([case.points[4:], case.generic[:4]])
    case.finite_value(points)
    floats = jax.tree.leaves(case.penalty)
    if not floats or not all(is_float(v) for v in floats):
        raise DoesNotApply("it has no strengths, or some that are integers")
    slopes = _compiled.strength_gradients(case.layout, case.penalty, points)
    finite = [np.isfinite(np.asarray(g)).reshape(8, -1).all(1) for g in jax.tree.leaves(slopes)]
    case.require(np.all(finite, 0), "a derivative by a strength is not finite", x=points)
    if case.subject.has_lam:
        _lam_slope(case, points, slopes)


def _lam_slope(case: Case, points: np.ndarray, slopes) -> None:
    by_path = jax.tree_util.tree_flatten_with_path(slopes)[0]
    given = jax.tree.leaves(case.penalty)
    found = np.zeros(len(points))
    for (path, slope), value in zip(by_path, given):
        if any(getattr(key, "name", None) == "lam" for key in path):
            found += np.sum(np.reshape(slope * value, (len(points), -1)), 1)
    h = 1e-3  # strengths are float32
    ahead, behind = (case.value(points, times(case.penalty, 1 + s * h)) for s in (1, -1))
    expected = (ahead - behind) / (2 * h)
    good = np.abs(found - expected) <= 1e-2 * (np.abs(expected) + 1e-3)
    detail = "the derivative by lam is not that of the value"
    case.require(good, detail, x=points, gradient=found, difference=expected)
