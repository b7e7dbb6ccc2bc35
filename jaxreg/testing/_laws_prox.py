"""Laws of the prox: it minimises what it says, and moves no two points apart."""

from __future__ import annotations

import numpy as np

from jaxreg.testing import _compiled
from jaxreg.testing._candidates import minimises, rivals
from jaxreg.testing._case import Case, DoesNotApply


def projection_stays(case: Case) -> None:
    """A constraint's prox lands inside, whatever the step, and projecting again moves nothing."""
    if not case.subject.is_indicator:
        raise DoesNotApply("it is not the indicator of a set")
    near = case.prox(case.points)
    value = case.value(near)
    case.require(value == 0, "the projection is outside the set", near, x=case.points, prox=near)
    again = case.prox(near, step=np.full(8, 7 * case.step))
    good = (np.abs(again - near) <= (1e-9 + 10 * case.tolerance) * (1 + np.abs(near))).all(1)
    detail = "projecting twice is not projecting once"
    case.require(good, detail, again - near, x=case.points, once=near, twice=again)


def prox_minimises(case: Case) -> None:
    """No point has a lower R(z) + |z - x|^2 / (2 step): the strong convexity inequality."""
    if not case.penalty.convex:
        raise DoesNotApply("it is not convex; prox_on_a_grid looks for lower points")
    near = case.prox(case.points)
    minimises(case, case.penalty, case.points, near, np.full((len(near), 1), case.step))


def prox_on_a_grid(case: Case) -> None:
    """Not convex: no point of a fine grid in one and two dimensions is lower than the prox."""
    _not_convex(case)
    points = _planar(case)
    near = case.prox(points)
    best = _objective(case, near, points)
    case.require(np.isfinite(best), "the prox is outside the domain of R", near, case.step,
                 x=points, prox=near)  # fmt: skip
    for k in range(len(points)):
        _none_lower(case, points[k], near[k], best[k], _grid(case, points[k], near[k]))
    full = case.prox(case.points)
    best = _objective(case, full, case.points)
    for k, z in enumerate(rivals(case, case.points, full)):
        _none_lower(case, case.points[k], full[k], best[k], z)


def _not_convex(case: Case) -> None:
    case.need("prox")
    if case.penalty.convex:
        raise DoesNotApply("it is convex; prox_minimises covers every dimension")


def _objective(case: Case, z: np.ndarray, x: np.ndarray) -> np.ndarray:
    return case.value(z) + np.sum((z - x) ** 2, -1) / (2 * case.step)


def _planar(case: Case) -> np.ndarray:
    """Points [8, n] on an axis, or in a plane with a neighbour: in its row, its column, a leaf."""
    n, rows = case.x.size, np.zeros((8, case.x.size))
    blocks = list(case.layout.blocks(np.arange(n)).values())
    block = blocks[0]
    below = int(block[1].flat[0]) if block.ndim and len(block) > 1 else min(1, n - 1)
    beyond = int(blocks[1].flat[0]) if len(blocks) > 1 and blocks[1].size else below
    partners = [0, 0, min(1, n - 1), min(1, n - 1), below, below, beyond, beyond]
    for row, partner, scale in zip(rows, partners, [1, 0.5, 1, 2, 1, 0.5, 1, 2]):
        row[partner] = case.y[partner]
        row[0] = scale * (case.x[0] or case.generic[0][0])
    return rows


def _grid(case: Case, x: np.ndarray, near: np.ndarray) -> np.ndarray:
    """A plane through the first axis and that of `x`, finer around the prox, [961, n]."""
    other = [i for i in np.flatnonzero(x) if i > 0] or [min(1, x.size - 1)]
    reach = 1.3 * np.max(np.abs(x)) + 0.1
    coarse = np.linspace(-reach, reach, 19)
    fine = np.array([-0.1, -0.03, -0.01, -1e-3, 1e-3, 0.01, 0.03, 0.1])

    def ticks(i):
        return np.concatenate([coarse, near[i] + fine, [0, near[i], x[i], -near[i]]])

    z = np.tile(near, (31 * 31, 1))
    z[:, 0] = np.repeat(ticks(0), 31)
    if other[0] != 0:
        z[:, other[0]] = np.tile(ticks(other[0]), 31)
    return z


def _none_lower(case: Case, x: np.ndarray, near: np.ndarray, best: float, z: np.ndarray) -> None:
    lower_by = best - _objective(case, z, x)
    worst = int(np.argmax(lower_by))
    good = lower_by[worst] <= case.tolerance * (1 + abs(best))
    case.require(
        bool(good),
        "another point z has a lower R(z) + |z - x|^2 / (2 step) than the prox has",
        (z[worst] - near)[None],
        case.step,
        x=x[None],
        prox=near[None],
        z=z[worst][None],
        lower_by=lower_by[worst : worst + 1],
    )


def prox_jumps_between_equals(case: Case) -> None:
    """Not convex: where the prox jumps, both sides have the same objective (bisection on a ray)."""
    _not_convex(case)
    ray = case.generic[4]
    low, high = _jump(case, ray)
    near = case.prox(np.stack([low * ray, high * ray] * 4))[:2]
    if np.max(np.abs(near[1] - near[0])) < 1e-4:
        return
    x = np.stack([low * ray] * 2)
    best = _objective(case, near, x)
    good = abs(best[0] - best[1]) <= 1e-7 + 10 * case.tolerance * (1 + abs(best[0]))
    detail = "the prox jumps at the wrong place: one side of the jump is lower than the other"
    case.require(bool(good), detail, (near[1] - near[0])[None], case.step, x=x[:1],
                 below=near[:1], above=near[1:], objectives_differ_by=best[1:] - best[:1])  # fmt: skip


def _jump(case: Case, ray: np.ndarray) -> tuple[float, float]:
    """The interval of size 1e-10 on [0, 1] * ray over which the prox changes most."""
    low, high = 0.0, 1.0
    while high - low > 1e-10:
        scales = np.linspace(low, high, 8)
        near = case.prox(scales[:, None] * ray)
        jump = int(np.argmax(np.linalg.norm(np.diff(near, axis=0), axis=1)))
        low, high = scales[jump], scales[jump + 1]
    return low, high


def prox_nonexpansive(case: Case) -> None:
    """Convex: <p - q, x - y> >= |p - q|^2, the prox is firmly non-expansive."""
    case.need("prox")
    if not case.penalty.convex:
        raise DoesNotApply("it is not convex")
    x, y = case.points, case.generic
    p, q = case.prox(x), case.prox(y)
    inner, square = np.sum((p - q) * (x - y), 1), np.sum((p - q) ** 2, 1)
    good = inner >= square - case.tolerance * (1 + square + np.sum((x - y) ** 2, 1))
    detail = "the prox moves two points apart"
    case.require(good, detail, (p - q) - (x - y), case.step, x=x, y=y, prox_x=p, prox_y=q)


def prox_in_a_metric(case: Case) -> None:
    """With one step per coordinate the prox minimises in that metric, or it refuses."""
    case.need("prox", "metric")
    n = case.x.size
    steps = case.step * (0.3 + np.mod(np.outer(1 + np.arange(8), 1 + np.arange(n)) * 0.754, 1.0))
    points = case.points
    near = np.asarray(_compiled.metric_proxes(case.layout, case.penalty, points, steps))
    if case.penalty.convex:
        return minimises(case, case.penalty, points, near, steps)
    z = rivals(case, points, near)
    square = np.sum((z - points[:, None]) ** 2 / (2 * steps[:, None]), -1)
    there = case.value(z.reshape(-1, n)).reshape(square.shape) + square
    best = case.value(near) + np.sum((near - points) ** 2 / (2 * steps), -1)
    good = (best[:, None] <= there + case.tolerance * (1 + np.abs(best[:, None]))).all(1)
    detail = "another point has a lower R(z) + sum (z - x)^2 / (2 step) than the prox has"
    case.require(good, detail, near - points, steps, x=points, prox=near)


def prox_differentiable(case: Case) -> None:
    """The derivative of the prox, by x and by the step, is finite; away from kinks it is right."""
    points = np.concatenate([case.points[4:], case.generic[:4]])
    steps, aside = np.full(8, case.step), case.generic[::-1]
    near = case.prox(points)
    args = (case.layout, case.penalty, points, aside, steps)
    by_x = np.asarray(_compiled.prox_tangents(*args))
    found = {"forward derivative": by_x}
    if case.subject.refusals["reverse"] is None:
        back, by_step = (np.asarray(part) for part in _compiled.prox_cotangents(*args))
        found |= {"reverse derivative": back, "derivative by the step": by_step[:, None]}
    for what, slope in found.items():
        good = np.isfinite(slope).all(1)
        blame = None if what.endswith("step") else slope
        detail = f"the {what} of the prox is not finite"
        case.require(good, detail, blame, case.step, x=points, prox=near)
    _matches_differences(case, points, aside, near, by_x)


def _matches_differences(case: Case, points, aside, near, by_x) -> None:
    h = max(1e-6, case.tolerance**0.5)
    ahead = (case.prox(points + h * aside) - near) / h
    behind = (near - case.prox(points - h * aside)) / h
    # Where the two sides differ there is a kink between them, and any slope in between is right.
    at_kink = np.abs(ahead - behind) > 1e-3 * (1 + np.abs(ahead))
    at_kink[:4] = True  # made of zeros, where an odd prox has equal sides at a kink
    rough = (1e-2 + 10 * case.tolerance**0.5) * (1 + np.abs(ahead))
    good = at_kink | (np.abs(by_x - ahead) <= rough)
    detail = "the derivative of the prox is not that of its values"
    rows = {"x": points, "along": aside, "derivative": by_x, "difference": ahead}
    case.require(good.all(1), detail, np.where(good, 0, by_x - ahead), case.step, **rows)
