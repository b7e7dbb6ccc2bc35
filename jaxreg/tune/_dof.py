"""Where a penalty lets parameters move, and how it bends there: what degrees of freedom are made of.

Near θ a penalty R is smooth along a linear space U and has kinks in all other directions: U is orthogonal
to all differences of gradients that R has arbitrarily near θ (Lemaréchal, Oustry & Sagastizábal 2000, "The
U-Lagrangian of a convex function"). For the lasso U are the entries that are not 0, for a group lasso those
of active groups, for total variation what is constant on the stretches of θ. A minimum of L + R moves
with the data in U alone. With H the Hessian of R and M that of the loss, both on U,

    dof = tr M (M + H)^+

where the loss is quadratic in the outputs: the size of the support for the lasso (Zou, Hastie & Tibshirani
2007), the number of stretches that are not 0 for the fused lasso (Tibshirani & Taylor 2011), the trace of
the hat matrix for ridge, and the formula of Vaiter et al. (2012) for groups.

U is found by gradients of R at random places near θ, in float64. Entries that R does not couple there are
told apart first, so that the linear algebra is of the size of a group or a stretch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.flatten_util import ravel_pytree

from jaxreg import _tree
from jaxreg._tree import PyTree
from jaxreg.penalty import Penalty

if TYPE_CHECKING:
    import scipy.sparse

# scipy is imported where it is used: at every start it would take half a second.

__all__ = ["Active", "NotSmooth", "active", "whitener"]

_NEAR = 1e-4  # how near gradients are looked at: of an entry, beyond what float32 rounds away
_NEAR_ZERO = 1e-6  # of the size of the entries, where an entry is 0
_NEARER = 16.0
_KINK = 1e-7  # of the largest gradient
_FLAT = 1e-12  # of the largest eigenvalue of a Hessian
_ROWS = 128  # gradients in one call
_MOST = 3000  # entries that one kink may tie together
_HALVES = 40
_FAR = (9.0, -5.0, 0.1)  # one entry alone, so that it changes its order among the others


class NotSmooth(ValueError):
    """Why a penalty has no free directions at a place."""


class Active(NamedTuple):
    """A penalty at a place θ of P numbers, of which d directions are free.

    Attributes:
      basis: [P, d], orthonormal and sparse.
      slope: [P], a gradient of R, whose part along the basis is the gradient there.
      curvature: [d, d], of R along the basis.
      least: from a gradient [P] of the loss to the least element of it + dR; None where R has no closed
        form for it.
    """

    basis: scipy.sparse.csc_matrix
    slope: np.ndarray
    curvature: np.ndarray
    least: Callable[[np.ndarray], np.ndarray | None]


def active(penalty: Penalty, params: PyTree) -> Active:
    """The free directions of a penalty at parameters.

    Raises:
      NotSmooth: the penalty is infinite near the parameters, or ties too many entries together.
    """
    with jax.enable_x64(True):
        wide = lambda x: jnp.asarray(x, jnp.float64) if _tree.is_floating(x) else x
        penalty, held = jax.tree.map(wide, (penalty, _tree.held(params)))
        theta = np.asarray(_theta(held))
        slopes = _Slopes(penalty, held, theta)
        basis, slope, aside = _free(slopes, theta)
        rows = _blocks(_curved, penalty, held, basis.T.toarray(), jnp.asarray(aside))

    def least(grad: np.ndarray) -> np.ndarray | None:
        with jax.enable_x64(True):
            try:
                return np.asarray(_least(penalty, held, jnp.asarray(grad)))
            except ValueError:
                return None

    curvature = basis.T @ rows.T
    return Active(basis, slope, 0.5 * (curvature + curvature.T), least)


def whitener(matrix: np.ndarray) -> Callable[[np.ndarray], np.ndarray] | None:
    """B [..., d] -> B G with G G' the pseudo-inverse of a symmetric matrix; None if not positive."""
    if not matrix.size:  # nothing is free, as beyond the largest λ that leaves anything
        return lambda b: b
    size = np.abs(np.diag(matrix)).max(initial=1e-300)
    try:
        root = np.linalg.cholesky(matrix)
        if (np.diag(root) ** 2).min(initial=np.inf) > _FLAT * size:
            from scipy.linalg import solve_triangular

            solve = lambda flat: solve_triangular(root, flat.T, lower=True).T
            return lambda b: solve(b.reshape(-1, b.shape[-1])).reshape(b.shape)
    except np.linalg.LinAlgError:
        pass
    values, vectors = np.linalg.eigh(matrix)
    if values.min(initial=0) < -1e-8 * size:
        return None
    kept = values > _FLAT * max(values.max(initial=0), 1e-300)
    scaled = vectors[:, kept] / np.sqrt(values[kept])
    return lambda b: b @ scaled


# --- gradients near a place -----------------------------------------------------------------------------


def _part(params: PyTree) -> tuple[Any, list[bool]]:
    mask = _tree.trained(params)
    return _tree.partition(params, mask), mask


@jax.jit
def _theta(held: PyTree) -> Array:
    return ravel_pytree(_part(_tree.released(held))[0])[0]


def _value_of(held: PyTree) -> tuple[Array, Callable[[Penalty, Array], Array]]:
    params = _tree.released(held)
    part, mask = _part(params)
    theta, back = ravel_pytree(part)
    return theta, lambda penalty, theta: penalty(_tree.combine(back(theta), params, mask))


@jax.jit
def _near(penalty: Penalty, held: PyTree, moves: Array) -> tuple[Array, Array]:
    """Values and gradients of R, moved by each row."""
    theta, value = _value_of(held)
    both = jax.value_and_grad(lambda theta: value(penalty, theta))
    return lax.map(lambda move: both(theta + move), moves)


@jax.jit
def _curved(penalty: Penalty, held: PyTree, moves: Array, aside: Array) -> Array:
    """The Hessian of R, off its kinks, times each row."""
    theta, value = _value_of(held)
    slope = jax.grad(lambda theta: value(penalty, theta))
    return lax.map(lambda v: jax.jvp(slope, (theta + aside,), (v,))[1], moves)


@jax.jit
def _least(penalty: Penalty, held: PyTree, grad: Array) -> Array:
    params = _tree.released(held)
    part, _ = _part(params)
    back = ravel_pytree(part)[1]
    grads = back(grad)
    found = penalty.min_norm_subgradient(_tree.aligned(grads, params), grads)
    return ravel_pytree(found)[0]


def _blocks(
    function: Callable, penalty: Penalty, held: PyTree, rows: np.ndarray, *more: Any
) -> Any:
    """A function of rows in calls of one size, so that it compiles once."""
    made = []
    for start in range(0, len(rows), _ROWS):
        some = rows[start : start + _ROWS]
        filled = np.pad(some, ((0, _ROWS - len(some)), (0, 0)), mode="edge")
        out = function(penalty, held, jnp.asarray(filled), *more)
        made.append(jax.tree.map(np.asarray, out))
    if not made:
        return np.zeros((0, rows.shape[1]))
    return jax.tree.map(lambda *parts: np.concatenate(parts)[: len(rows)], *made)


class _Slopes:
    """Gradients of R near a place, and what stays of their differences however near it is."""

    def __init__(self, penalty: Penalty, held: PyTree, theta: np.ndarray):
        self._at = lambda moves: _blocks(_near, penalty, held, moves)
        nonzero = theta[theta != 0]
        size = np.sqrt((nonzero**2).mean()) if nonzero.size else 1.0
        self.unit = np.where(theta != 0, _NEAR * np.abs(theta), _NEAR_ZERO * size)

    def __call__(self, moves: np.ndarray) -> np.ndarray:
        values, slopes = self._at(moves)
        if not (np.isfinite(values).all() and np.isfinite(slopes).all()):
            raise NotSmooth(
                "the penalty is infinite beside the parameters, as a constraint is, and which directions "
                "are free at its border is not known here"
            )
        return slopes

    def kinks(self, signs: np.ndarray) -> np.ndarray:
        """Gradients in the limit from each side; the linear part is taken out by two distances."""
        far, near = self(signs * self.unit), self(signs * self.unit / _NEARER)
        return (_NEARER * near - far) / (_NEARER - 1)


# --- free directions ------------------------------------------------------------------------------------


def _free(
    slopes: _Slopes, theta: np.ndarray
) -> tuple[scipy.sparse.csc_matrix, np.ndarray, np.ndarray]:
    """A basis of the free directions, a gradient, and a small move off all kinks."""
    import scipy.sparse

    rng = np.random.default_rng(0)
    draw = lambda n: rng.choice([-1.0, 1.0], (n, theta.size)) * rng.uniform(1, 2, (n, theta.size))
    first = draw(8)
    around = slopes.kinks(np.concatenate([first, -first]))
    limit = _KINK * np.abs(around).max(initial=0)
    touched = np.flatnonzero((np.abs(around - around[0]) > limit).any(0))
    alone = np.setdiff1d(np.arange(theta.size), touched)
    parts = [
        scipy.sparse.csc_matrix(
            (np.ones(alone.size), (alone, np.arange(alone.size))), (theta.size, alone.size)
        )
    ]
    if touched.size and _coupled(slopes, touched, limit, rng, draw):
        parts += _tied(slopes, touched, limit, draw)
    aside = first[0] * slopes.unit / _NEARER
    return scipy.sparse.csc_matrix(scipy.sparse.hstack(parts)), around[0], aside


def _coupled(slopes: _Slopes, touched: np.ndarray, limit: float, rng: Any, draw: Any) -> bool:
    """Whether a kink of one entry moves with another entry; for the lasso it does not."""
    if touched.size == 1:
        return False
    moved = np.zeros((_HALVES, slopes.unit.size), bool)
    moved[:, touched] = rng.random((_HALVES, touched.size)) < 0.5
    before = draw(_HALVES)
    after = np.where(moved, rng.choice(_FAR, (_HALVES, 1)) * draw(_HALVES), before)
    apart = np.abs(slopes.kinks(after) - slopes.kinks(before)) > limit
    return bool((apart & ~moved)[:, touched].any())


def _tied(slopes: _Slopes, touched: np.ndarray, limit: float, draw: Any) -> list[Any]:
    """The free directions among entries at kinks that tie them together, a bundle of entries at a time."""
    import scipy.sparse
    from scipy.sparse.csgraph import connected_components

    start = draw(1)[0]
    together = scipy.sparse.lil_matrix((touched.size, touched.size), dtype=bool)
    for i in range(0, touched.size, _ROWS):
        some = touched[i : i + _ROWS]
        moves = np.repeat(start[None], len(_FAR) * len(some), 0).reshape(len(some), len(_FAR), -1)
        moves[np.arange(len(some)), :, some] = _FAR
        seen = slopes.kinks(moves.reshape(-1, start.size))[:, touched].reshape(*moves.shape[:2], -1)
        together[i : i + _ROWS] = np.ptp(seen, 1) > limit
    count, label = connected_components(together, directed=False)
    largest = int(np.bincount(label).max())
    if largest > _MOST:
        raise NotSmooth(f"the penalty ties {largest} entries together, and {_MOST} are looked at")
    seen = slopes.kinks(draw(largest + 8))[:, touched]
    found = []
    for members in (np.flatnonzero(label == c) for c in range(count)):
        apart = seen[1 : len(members) + 8, members] - seen[0, members]
        _, sizes, ways = np.linalg.svd(apart)
        rank = int((sizes > 1e-8 * max(sizes.max(initial=0), limit)).sum())
        if rank < len(members):
            rows = np.repeat(touched[members], len(members) - rank)
            columns = np.tile(np.arange(len(members) - rank), len(members))
            shape = slopes.unit.size, len(members) - rank
            found.append(scipy.sparse.csc_matrix((ways[rank:].T.ravel(), (rows, columns)), shape))
    return found
