"""The determinant behind an evidence: Gram matrices of scaled Jacobians, leaf by leaf.

At parameters θ whose posterior is exp(-n J), J = D + R with D the mean loss of n rows and R a quadratic
of curvature λ_i, the generalised Gauss-Newton matrix and the prior precision are

    H = sum_rows J_r' S_r S_r' J_r,    Λ = n diag(λ),

where J_r is the Jacobian of the m outputs of a row and S_r S_r' the Hessian of its loss by them. With
B = [S_r' J_r] Λ^(-1/2), of [n m, P], det(I + Λ^(-1) H) = det(I + B B') = det(I + B'B), and the smaller
one is taken. B B' is a sum over leaves, so no more of B is there than some of the leaves at a time.

Jacobians are in the dtype of the parameters and sums of their products in float64: in float32 large
eigenvalues would round away the small ones.
"""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.scipy.linalg import cho_solve

from jaxreg import _tree
from jaxreg._tree import PyTree
from jaxreg.fit.kept import kept
from jaxreg.fit.trainer import parts_of
from jaxreg.tune._likelihoods import LIKELIHOODS
from jaxreg.tune._quadratic import Prior

__all__ = ["Fitted", "Plan", "Volume", "fitted", "volume"]

_NUMBERS = 100_000_000  # entries of Jacobians at a time


class Fitted(NamedTuple):
    """The loss of a lane on its rows.

    Attributes:
      loss: the mean over rows of the likelihood's loss.
      grad: its gradient by the trained leaves.
      apart: how far the outputs of rows by themselves are from those of all rows together.
    """

    loss: Array
    grad: list[Array]
    apart: Array


@kept
def fitted(outputs: Callable, likelihood: str) -> Callable[..., Fitted]:
    """The compiled function (params, x, y) -> `Fitted`."""
    rule = LIKELIHOODS[likelihood]

    @jax.jit
    def run(params: PyTree, x: PyTree, y: Array) -> Fitted:
        part, whole = parts_of(params)
        leaves = _tree.flatten(part)

        def mean(values: list[Array]) -> tuple[Array, Array]:
            f = _flat(outputs(_tree.released(whole(leaves.rebuild(values))), x))
            f = f.astype(_tree.accumulator(f))
            return jnp.mean(jax.vmap(rule.loss)(f, _like(y, likelihood))), f

        (loss, f), grad = jax.value_and_grad(mean, has_aux=True)(leaves.values)
        alone = jax.vmap(_of_row(outputs, params))(x)
        return Fitted(loss, grad, jnp.max(jnp.abs(alone - f)) / (1 + jnp.max(jnp.abs(f))))

    return run


def _flat(f: Array) -> Array:
    return f.reshape(f.shape[0], -1)


def _like(y: Array, likelihood: str) -> Array:
    return y if likelihood == "categorical" else _flat(y)


def _of_row(outputs: Callable, params: PyTree) -> Callable[[PyTree], Array]:
    return lambda row: _flat(outputs(_tree.released(params), jax.tree.map(lambda a: a[None], row)))[
        0
    ]


# --- the determinant ---------------------------------------------------------------------------------


class Plan(NamedTuple):
    """How B is made: of which leaves at a time, of how many rows, and which side is the smaller.

    Attributes:
      groups: the trained leaves that a prior holds, in parts.
      rows: how many rows at a time.
      wide: whether B has more columns than rows, so that it is B B' that is made.
    """

    groups: tuple[tuple[int, ...], ...]
    rows: int
    wide: bool

    @property
    def order(self) -> list[int]:
        """The leaves, as they come."""
        return [i for group in self.groups for i in group]

    @classmethod
    def of(cls, sizes: dict[int, int], n: int, m: int, rows: int | None) -> Plan:
        """For leaves, by index, of so many entries, n rows and m outputs."""
        total = sum(sizes.values())
        if total < n * m:
            fit = max(_NUMBERS // (m * total), 1)
            return cls((tuple(sizes),), min(rows or n, fit, n), False)
        groups: list[list[int]] = [[]]
        held = 0
        for index, size in sizes.items():
            if groups[-1] and held + n * m * size > _NUMBERS:
                groups, held = [*groups, []], 0
            groups[-1].append(index)
            held += n * m * size
        return cls(tuple(map(tuple, groups)), min(rows or 256, n), True)


@kept
def _roots(outputs: Callable, likelihood: str, group: tuple[int, ...], rows: int) -> Callable:
    """The compiled function (params, x) -> S'J of each leaf of a group, [n m, size]."""
    rule = LIKELIHOODS[likelihood]

    @jax.jit
    def run(params: PyTree, x: PyTree) -> list[Array]:
        part, whole = parts_of(params)
        leaves = _tree.flatten(part)
        taken = [leaves.values[i] for i in group]

        def of_row(row: PyTree) -> list[Array]:
            def f(taken: list[Array]) -> Array:
                values = list(leaves.values)
                for i, value in zip(group, taken):
                    values[i] = value
                out = _of_row(outputs, whole(leaves.rebuild(values)))(row)
                return out.astype(_tree.accumulator(out))

            root = rule.root(f(taken))
            return [root.T @ j.reshape(len(root), -1) for j in jax.jacrev(f)(taken)]

        made = lax.map(of_row, x, batch_size=rows)
        return [a.reshape(-1, a.shape[-1]) for a in made]

    return run


class Volume(NamedTuple):
    """What the determinant tells of a lane.

    Attributes:
      log_det: log det(I + B B').
      effective: trace of H (H + Λ)^-1 on each leaf.
      gain: g'(H + Λ)^-1 g of the gradient g of n J, twice what n J would still fall by to second order.
      penalty: R.
    """

    log_det: Array
    effective: Array
    gain: Array
    penalty: Array


def volume(
    outputs: Callable,
    likelihood: str,
    plan: Plan,
    x: PyTree,
    params: PyTree,
    grad: list[Array],
    curved: Prior,
    scale: float,
) -> Volume:
    """The determinant of one lane, of J = D + R / scale."""
    n = jax.tree.leaves(x)[0].shape[0]
    values = jax.tree.leaves(parts_of(params)[0])
    pick = lambda parts: [parts[i] for i in plan.order]
    with jax.enable_x64(True):
        held = [pick(parts) for parts in (values, grad, curved.lam, curved.slope)]
        by, u, penalty = _scaled(held, n, scale)
    roots = [_roots(outputs, likelihood, group, plan.rows) for group in plan.groups]
    side = _by_rows if plan.wide else _by_columns
    log_det, effective, gain = side(roots, plan, params, x, by, u)
    return Volume(log_det, effective, gain, penalty)


def _by_rows(roots: list, plan: Plan, params: PyTree, x: PyTree, by: list, u: list) -> tuple:
    """log det(I + B B') and what goes with it; a group of leaves at a time."""
    grams, pushed, places = [], [], iter(range(len(by)))
    for group, root in zip(plan.groups, roots):
        parts, mine = root(params, x), [next(places) for _ in group]
        with jax.enable_x64(True):
            gram, push = _gram(parts, [by[i] for i in mine], [u[i] for i in mine])
        grams, pushed = [*grams, gram], [*pushed, push]
    with jax.enable_x64(True):
        return _of_rows(grams, pushed, u)


def _by_columns(roots: list, plan: Plan, params: PyTree, x: PyTree, by: list, u: list) -> tuple:
    """log det(I + B'B) and what goes with it; some rows at a time."""
    total: Any = 0.0
    for rows in _slices(x, plan.rows):
        parts = roots[0](params, rows)
        with jax.enable_x64(True):
            total = total + _inner(parts, by)
    with jax.enable_x64(True):
        return _of_columns(total, u)


def _slices(x: PyTree, rows: int) -> Iterator[PyTree]:
    for first in range(0, len(jax.tree.leaves(x)[0]), rows):
        yield jax.tree.map(lambda a, first=first: a[first : first + rows], x)


@jax.jit
def _scaled(
    held: list[list[Array]], n: Array, scale: Array
) -> tuple[list[Array], list[Array], Array]:
    """Λ^(-1/2), 0 where nothing holds an entry; that times the gradient of n J; and R."""
    by, along, penalty = [], [], jnp.zeros(())
    for x, g, a, s in zip(*held):
        x, g, a, s = (jnp.ravel(v).astype(float) for v in (x, g, a, s))
        safe = jnp.where(a > 0, a, 1)
        by.append(jnp.where(a > 0, jnp.sqrt(scale / (n * safe)), 0))
        along.append(by[-1] * n * (g + (a * x + s) / scale))
        penalty += 0.5 * jnp.sum(jnp.where(a > 0, (a * x + s) ** 2 / safe, 0))
    return by, along, penalty


@jax.jit
def _gram(parts: list[Array], by: list[Array], u: list[Array]) -> tuple[Array, Array]:
    """B B' of each leaf, [leaves, n m, n m], and B u."""
    scaled = [a.astype(float) * b for a, b in zip(parts, by)]
    pushed = functools.reduce(operator.add, [b @ v for b, v in zip(scaled, u)])
    return jnp.stack([b @ b.T for b in scaled]), pushed


@jax.jit
def _inner(parts: list[Array], by: list[Array]) -> Array:
    """B'B, [P, P]."""
    whole = jnp.concatenate([a.astype(float) * b for a, b in zip(parts, by)], 1)
    return whole.T @ whole


@jax.jit
def _of_rows(grams: list, pushed: list, u: list) -> tuple[Array, Array, Array]:
    """log det(I + G), the trace of (I + G)^-1 G_l, and u'(I + B'B)^-1 u by Woodbury's identity."""
    each = jnp.concatenate(grams)
    root = jnp.linalg.cholesky(jnp.eye(each.shape[1]) + each.sum(0))
    inverse = cho_solve((root, True), jnp.eye(each.shape[1]))
    squares = functools.reduce(operator.add, [v @ v for v in u])
    along = functools.reduce(operator.add, pushed)
    return _log_det(root), jnp.sum(each * inverse, (1, 2)), squares - along @ inverse @ along


@jax.jit
def _of_columns(inner: Array, u: list[Array]) -> tuple[Array, Array, Array]:
    """The same from B'B, whose columns are the entries."""
    root = jnp.linalg.cholesky(jnp.eye(len(inner)) + inner)
    inverse = cho_solve((root, True), jnp.eye(len(inner)))
    ends = np.cumsum([0, *(len(v) for v in u)])
    share = 1 - jnp.diag(inverse)
    effective = jnp.stack([jnp.sum(share[a:b]) for a, b in itertools.pairwise(ends)])
    whole = jnp.concatenate(u)
    return _log_det(root), effective, whole @ inverse @ whole


def _log_det(root: Array) -> Array:
    return 2 * jnp.sum(jnp.log(jnp.diag(root)))
