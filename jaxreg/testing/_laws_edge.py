"""Laws of the edge: zero strengths, zero groups, no entries, huge and tiny ones.

Most bugs of the field live here: 0/0 at a zero group, the derivative of a root at 0.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxreg.testing import _compiled
from jaxreg.testing._candidates import minimises
from jaxreg.testing._case import Case, DoesNotApply, fields, refusal, spread_out


def gradient_finite(case: Case) -> None:
    """The gradient is finite everywhere, at zeros and zero groups too."""
    inside = np.isfinite(case.value(case.points))
    slope = case.gradient(case.points)
    good = np.isfinite(slope).all(1) | ~inside
    case.require(good, "the gradient is not finite", slope, x=case.points, gradient=slope)


def zero_groups(case: Case) -> None:
    """At zeros, zero groups and zero leaves the value and the prox are numbers."""
    value = case.value(case.points)
    case.require(~np.isnan(value), "the value is NaN", x=case.points)
    if case.subject.refusals["prox"] is None:
        moved = case.prox(case.points)
        good = np.isfinite(moved).all(1)
        case.require(good, "the prox is not finite", moved, case.step, x=case.points, prox=moved)
    if case.subject.refusals["subgradient"] is None:
        found = case.subgradient(case.points, case.points[::-1])
        inside = np.isfinite(value)
        good = np.isfinite(found).all(1) | ~inside
        detail = "the least-norm subgradient is not finite"
        case.require(good, detail, found, x=case.points, gradient=case.points[::-1])


def zero_strength(case: Case) -> None:
    """With lam = 0 the value is 0 and the prox the identity, also at zeros; so is a step of 0."""
    case.finite_value(case.points)
    if case.subject.has_lam:
        nothing = case.penalty.map_field("lam", lambda lam: jax.tree.map(lambda v: 0 * v, lam))
        _is_nothing(case, nothing, "lam = 0", case.step)
    elif not case.subject.penalty.terms():
        _is_nothing(case, case.penalty, "no term", case.step)
    if case.subject.refusals["prox"] is None:
        _is_identity(case, case.penalty, "a step of 0", 0.0)


def _is_nothing(case: Case, penalty, when: str, step: float) -> None:
    value, slope = case.value(case.points, penalty), case.gradient(case.points, penalty)
    case.require(value == 0, f"with {when} the value is not 0", x=case.points, value=value)
    flat = (slope == 0).all(1)
    case.require(flat, f"with {when} the gradient is not 0", slope, x=case.points, gradient=slope)
    if case.subject.refusals["prox"] is None:
        _is_identity(case, penalty, when, step)


def _is_identity(case: Case, penalty, when: str, step: float) -> None:
    moved = case.prox(case.points, penalty, np.full(len(case.points), step))
    allowed = (1e-12 + case.tolerance) * (1 + np.abs(case.points))
    good = (np.abs(moved - case.points) <= allowed).all(1)
    detail = f"with {when} the prox is not the identity"
    case.require(good, detail, moved - case.points, step, x=case.points, prox=moved)


def zero_weights(case: Case) -> None:
    """With weights that are 0 for some coordinates, the prox still minimises and nothing is NaN."""
    if not fields(case.penalty, "weights"):
        raise DoesNotApply("it has no `weights`")
    penalty = _half_weighted(case)
    value, slope = case.value(case.points, penalty), case.gradient(case.points, penalty)
    inside = np.isfinite(case.value(case.points))
    good = (np.isfinite(value) & np.isfinite(slope).all(1)) | ~inside
    case.require(good, "value or gradient is not finite", slope, x=case.points)
    if case.subject.refusals["prox"] is not None:
        return
    moved = case.prox(case.points, penalty)
    good = np.isfinite(moved).all(1)
    case.require(good, "the prox is not finite", moved, case.step, x=case.points, prox=moved)
    if penalty.convex:
        minimises(case, penalty, case.points, moved, np.full((8, 1), case.step))


def _half_weighted(case: Case):
    """Every other weight 0; all of them where weights cannot differ by coordinate."""
    alternating = jnp.asarray(np.arange(case.x.size) % 2, jnp.float32)
    tree = case.layout.tree(jnp.zeros(case.x.size))

    def given(weights):
        every_other = lambda w: w * (jnp.arange(w.size) % 2).reshape(w.shape) if w.ndim else 0 * w
        return jax.tree.map(lambda w: every_other(jnp.asarray(w)), weights)

    if all(w is not None for w in fields(case.penalty, "weights")):
        return case.penalty.map_field("weights", given)
    mask = case.layout.tree(alternating)
    penalty = case.penalty.map_field("weights", lambda _: mask)
    if refusal(lambda p, x: p(x), penalty, tree) is None:
        return penalty
    return case.penalty.map_field("weights", lambda _: jnp.zeros(()))


def empty_leaves(case: Case) -> None:
    """A leaf without entries is no trouble: it adds nothing and the prox hands it back."""
    empty = _emptied(case)
    step = None if case.subject.refusals["prox"] is not None else case.step
    try:
        args = (empty, jnp.float32, case.penalty, jnp.zeros((2, empty.size)), step)
        value, moved = _compiled.narrow(*args)
    except ValueError as error:
        if any(repr(path) in str(error) for path in empty.paths):
            raise DoesNotApply(f"its structure goes with the shape: {error}") from error
        raise
    good = np.isfinite(np.asarray(moved)).all() and not np.isnan(np.asarray(value)).any()
    case.require(good, "an empty leaf gives NaN or inf")


def any_strength(case: Case) -> None:
    """With lam from 1e-30 to 1e30 in float32 nothing is NaN, the prox is finite, and zeros of R stay so."""
    if not case.subject.has_lam:
        raise DoesNotApply("it has no `lam`")
    step = None if case.subject.refusals["prox"] is not None else case.step
    points = case.points.astype(np.float32)
    with jax.enable_x64(False):
        usual, _ = _compiled.narrow(case.layout, jnp.float32, case.penalty, points, step)
        for size in (1e-30, 1e7, 1e20, 1e30):
            penalty = case.penalty.map_field("lam", functools.partial(_sized, size))
            found = _compiled.narrow(case.layout, jnp.float32, penalty, points, step)
            _is_sound(case, points, np.asarray(usual) == 0, size, *map(np.asarray, found))
            grad = case.gradient(points, penalty)
            good = ~np.isnan(grad).any(1) | ~np.isfinite(found[0])
            detail = f"with lam = {size:g} the gradient is NaN"
            case.require(good, detail, grad, x=points, gradient=grad)


def _sized(size: float, lam):
    large = lambda v: jnp.where(v > 0, size, 0.0).astype(v.dtype)
    return jax.tree.map(lambda v: large(jnp.asarray(v)), lam)


def _is_sound(case: Case, points, zero, size: float, value, moved) -> None:
    when = f"with lam = {size:g}"
    case.require(~np.isnan(value), f"{when} the value is NaN", x=points, value=value)
    stays = (value == 0) | ~zero
    case.require(stays, f"{when} a value that was 0 is not", x=points, value=value)
    good = np.isfinite(moved).all(1)
    case.require(good, f"{when} the prox is not finite", moved, case.step, x=points, prox=moved)


def _emptied(case: Case):
    """The layout with size 0 along the first axis of the first leaf that has one."""
    shapes = list(case.layout.shapes)
    for i, shape in enumerate(shapes):
        if shape and case.layout.dtypes[i] is None:
            shapes[i] = (0, *shape[1:])
            return case.layout.resized(tuple(shapes))
    raise DoesNotApply("its leaves are scalars")


def huge_and_tiny(case: Case) -> None:
    """Entries of 1e30 and 1e-30 in float32 give no NaN, and a prox that is finite."""
    step = None if case.subject.refusals["prox"] is not None else case.step
    signs = case.generic[0] / np.abs(case.generic[0])
    base = signs * (0.5 + spread_out(case.x.size))
    mixed = base * np.where(np.arange(base.size) % 2, 1e30, 1e-30)
    rows = [1e30 * base, 1e-30 * base, mixed, case.zeroed(1e30 * base)]
    points = np.stack(rows + [-row for row in rows])
    with jax.enable_x64(False):
        floats = points.astype(np.float32)
        found = _compiled.narrow(case.layout, jnp.float32, case.penalty, floats, step)
        grad = case.gradient(floats)
    value, moved = (np.asarray(part) for part in found)
    case.require(~np.isnan(value), "the value is NaN", x=points)
    good = ~np.isnan(grad).any(1) | ~np.isfinite(value)
    case.require(good, "the gradient is NaN", grad, x=points, gradient=grad)
    good = np.isfinite(moved).all(1)
    case.require(good, "the prox is not finite", moved, step, x=points, prox=moved)
