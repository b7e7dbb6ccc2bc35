"""SLOPE: the sorted l1 norm, which charges the largest entries most.

Large weights on large entries pull neighbours in size together, so that correlated features come out
with equal coefficients; and with weights that follow the quantiles of a normal, the share of false
discoveries is controlled.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import ndtri
from jax.typing import ArrayLike

from jaxreg import prox
from jaxreg._check import above, shown, strength
from jaxreg._tree import PyTree, accumulator, is_concrete, safe_abs
from jaxreg.penalties._common import share
from jaxreg.penalties._weighted import Weighted, one_step, short
from jaxreg.penalty import Penalty
from jaxreg.prox._lanes import pooled
from jaxreg.prox.ordered import slope_residual

__all__ = ["slope"]


class Slope(Weighted):
    """lam * sum_i weights_i * |theta|_(i), the entries of a leaf sorted from large to small."""

    q: ArrayLike | PyTree = None
    smooth, convex = False, True

    def levels(self, x: Array) -> Array:
        """lam * weights, one per rank, [n]."""
        lam = short("slope", jnp.asarray(self.lam), tuple(range(x.ndim))).reshape(())
        if self.weights is not None:
            return jnp.broadcast_to(lam * jnp.asarray(self.weights), (x.size,))
        rank = jnp.arange(1, x.size + 1, dtype=x.dtype)
        # From the lower tail, where small probabilities keep their digits.
        return -lam * ndtri(rank * self._rate() / (2 * x.size))

    def leaf_value(self, x: Array) -> Array:
        size = safe_abs(x).ravel()
        order = jnp.argsort(-size)
        size = size[order]
        # Entries of equal size share their weights: the least-norm subgradient.
        first = jnp.concatenate([jnp.ones(x.size > 0, bool), size[1:] != size[:-1]])
        weights = self.levels(x)
        return jnp.sum(pooled(first, weights, jnp.ones_like(size), jnp.zeros_like(size)) * size)

    def leaf_prox(self, x: Array, step: Array) -> Array:
        step = one_step("slope", step, tuple(range(x.ndim))).reshape(())
        return prox.slope(x, step * self.levels(x))

    def leaf_subgradient(self, x: Array, grad: Array) -> Array:
        return slope_residual(x, grad, self.levels(x)) if x.size else grad

    def leaf_lambda_max(self, grad: Array) -> Array:
        pull = jnp.cumsum(-jnp.sort(-jnp.abs(grad).ravel()))
        hold = jnp.cumsum(self.levels(grad))
        needed = jnp.where(hold > 0, pull / jnp.where(hold > 0, hold, 1), jnp.inf)
        return jnp.max(jnp.where(pull > 0, needed, 0), initial=0.0)

    def leaf_conjugate(self, dual: Array) -> Array:
        pull = jnp.cumsum(-jnp.sort(-jnp.abs(dual).ravel()))
        return jnp.where(jnp.all(pull <= jnp.cumsum(self.levels(dual))), 0.0, jnp.inf)

    def fit_weights(self, weights: Any, x: Any, path: str) -> Array:
        weights = jnp.asarray(weights, accumulator(x))
        if weights.shape not in ((), (jnp.size(x),)):
            raise ValueError(
                f"slope: `weights` has shape {weights.shape} on the leaf {path!r} with {jnp.size(x)} "
                "entries; give one weight per rank, largest first, or `q` for any leaf."
            )
        return weights

    def _rate(self) -> Array:
        q = jnp.asarray(self.q)
        if q.ndim:
            raise ValueError(f"slope: `q` has shape {q.shape}; give one number per leaf.")
        return q


def slope(
    lam: ArrayLike | PyTree,
    *,
    q: ArrayLike | PyTree | None = None,
    weights: ArrayLike | PyTree | None = None,
) -> Penalty:
    """lam * sum_i weights_i * |theta|_(i), sorted from large to small; weights decrease, too.

    The weights are Benjamini and Hochberg's for the target rate `q` of false discoveries,
    weights_i = Phi^-1(1 - i q / (2 n)), or your own (OWL): linear ones make OSCAR, equal ones the
    lasso, (1, 0, ..., 0) the maximum norm. To pick where correlated features should enter together
    with equal coefficients, or where the false discovery rate matters.

    Args:
      lam: strength >= 0: a scalar, or a prefix pytree (per layer). For a mean loss with noise sigma
        and n examples the theory's choice is sigma / sqrt(n).
      q: the rate, 0 < q <= 1; 0.1 if neither is given. It is a leaf: it can be swept.
      weights: one per rank, largest first, [size of the leaf] or a prefix pytree of such.

    Raises:
      ValueError: a strength is negative or NaN, `q` is not a rate, `weights` increase, or both are
        given; at the first call, `weights` do not fit a leaf. In a diagonal metric there is no
        closed form, as the order of the answer is not that of the argument.

    Source: Bogdan et al., SLOPE (2015); the prox is isotonic regression of sorted
    entries. n log n for the sort, the rest is linear.
    >>> import jaxreg as jr
    >>> reg = jr.slope(1.0, weights=jnp.array([4.0, 2.0]))
    >>> reg(jnp.array([-1.0, 3.0])).item(), reg.prox(jnp.array([5.0, 2.0]), 1.0).tolist()
    (14.0, [1.0, 0.0])
    """
    lam = strength("slope", "lam", lam)
    if weights is None:
        rate = share("slope", "q", above("slope", "q", 0.1 if q is None else q, 0), "0 and 1")
        return Slope(lam, None, rate)
    if q is not None:
        raise ValueError("slope: `q` and `weights` are two ways to say the same; give one of them.")
    checked = strength("slope", "weights", weights)
    for w in jax.tree.leaves(checked):
        if is_concrete(w) and (np.diff(np.atleast_1d(np.asarray(w, float))) > 0).any():
            raise ValueError(
                f"slope: `weights` must decrease, got {shown(weights)}; the first is for the largest "
                "entry. Increasing ones are not a norm."
            )
    return Slope(lam, checked)
