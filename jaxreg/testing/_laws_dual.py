"""Laws of the certificates: conjugate, subdifferential and lambda_max agree with value and prox."""

from __future__ import annotations

import jax
import numpy as np

from jaxreg.testing import _compiled
from jaxreg.testing._case import Case, DoesNotApply, fields, times
from jaxreg.testing._laws_value import kinks, least_norm


def moreau(case: Case) -> None:
    """R(z) + R*(q) = <z, q> at the two parts of x that Moreau's identity splits, >= elsewhere."""
    case.need("prox", "conjugate")
    if not case.penalty.convex:
        raise DoesNotApply("it is not convex")
    duals = case.points / case.step
    args = (case.layout, case.penalty, duals, 1 / case.step)
    q = np.asarray(_compiled.conjugate_proxes(*args))
    # What is 0 up to rounding is 0: beside it, R* may be infinite.
    q = np.where(np.abs(q) > 1e-12 * (1 + np.abs(duals)), q, 0)
    z = case.points - case.step * q
    # Just inside, as rounding may put q outside a ball on whose boundary it lies.
    q_inside = (1 - 1e-7) * q
    gap = case.value(z) + _conjugate(case, q_inside) - np.sum(z * q_inside, 1)
    scale = 1 + np.abs(case.value(z)) + np.sum(np.abs(z * q), 1)
    good = np.abs(gap) <= (1e-6 + 10 * case.tolerance) * scale
    detail = "R(z) + R*(q) is not <z, q>, with x = z + step * q split by prox_conjugate"
    case.require(good, detail, z, case.step, x=case.points, z=z, q=q, differs_by=gap)
    for dual in (1.01 * q, 2 * q, duals):
        _fenchel_young(case, z, dual)


def _support(case: Case) -> np.ndarray:
    template = case.layout.tree(np.zeros(case.x.size))
    return case.layout.support(case.penalty.support(template))


def _conjugate(case: Case, duals: np.ndarray) -> np.ndarray:
    return np.asarray(_compiled.conjugates(case.layout, case.penalty, duals))


def _fenchel_young(case: Case, z: np.ndarray, duals: np.ndarray) -> None:
    conjugate = _conjugate(case, duals)
    for points in (case.points, z, 10 * duals, 1000 * z):
        value = case.value(points)
        gap = value + conjugate - np.sum(points * duals, 1)
        scale = 1 + np.abs(np.where(np.isfinite(value), value, 0))
        good = ~(gap < -(1e-8 + case.tolerance) * scale)
        detail = "R(z) + R*(q) < <z, q>: the conjugate is too small"
        case.require(good, detail, points, z=points, q=duals, conjugate=conjugate, short_by=-gap)


def certificate_of_prox(case: Case) -> None:
    """At the prox of x, with (prox - x)/step for gradient, `subdiff_distance` is 0."""
    case.need("prox", "subgradient")
    near = case.prox(case.points)
    pull = (near - case.points) / case.step
    rest = case.subgradient(near, pull)
    size = np.linalg.norm(rest, axis=1)
    allowed = (1e-6 + 1e3 * case.tolerance) * (1 + np.linalg.norm(pull, axis=1))
    detail = "the certificate says that the prox does not solve its own problem"
    case.require(size <= allowed, detail, rest, case.step, x=case.points, prox=near,
                 distance=size)  # fmt: skip


def subgradient_least_norm(case: Case) -> None:
    """`min_norm_subgradient` is the least-norm element: minus it is the steepest descent."""
    x, grad = kinks(case), 0.5 * case.points[::-1]
    least_norm(case, x, case.subgradient(x, grad), grad, "subgradient")


def lambda_max_exact(case: Case) -> None:
    """Just above `lambda_max` zero is stationary, just below it is not."""
    case.need("lambda_max", "subgradient")
    grad = np.where(_support(case), case.y, 0.0)
    found = float(_compiled.lambda_max(case.layout, case.penalty, grad))
    if not fields(case.penalty):
        raise DoesNotApply("it has no `lam`")
    if np.isinf(found):
        return _rests(case, grad, times(case.penalty, 1e3), False, found)
    _rests(case, grad, _with_lam(case, 1.001 * found + 1e-9), True, found)
    if found > 0:
        _rests(case, grad, _with_lam(case, 0.999 * found), False, found)


def _with_lam(case: Case, lam: float):
    """lam replaced if it is one number; strengths that differ are relative to each other."""
    given = [v for part in fields(case.penalty) for v in jax.tree.leaves(part)]
    if len(given) == 1 and np.ndim(given[0]) == 0:
        return case.penalty.map_field("lam", lambda _: np.float32(lam) * np.ones_like(given[0]))
    return times(case.penalty, lam)


def _rests(case: Case, grad: np.ndarray, penalty, should: bool, found: float) -> None:
    """Zero is (or is not) stationary, by the subdifferential and, where convex, by the prox."""
    x = np.zeros((8, grad.size))
    rows = np.stack([grad] * 8)
    rest = np.asarray(_compiled.subgradients(case.layout, penalty, x, rows))
    says = [np.linalg.norm(rest[0]) <= 1e-9 * (1 + np.linalg.norm(grad))]
    if penalty.convex and case.subject.refusals["prox"] is None:
        moved = case.prox(-case.step * rows, penalty)
        says.append(np.abs(moved[0]).max() <= (1e-9 + case.tolerance) * np.abs(grad).max())
    side = "above" if should else "below"
    detail = f"just {side} lambda_max = {found:.6g} zero is {'not ' * should}stationary"
    case.require(all(said == should for said in says), detail, rows, gradient=rows)
