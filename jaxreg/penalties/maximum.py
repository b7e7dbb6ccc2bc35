"""Penalties on the largest or on the sum of a group's entries: l1,inf, linf and exclusive lasso.

In the first two a group pays for its largest entry only, so the others may be as large for nothing; in
the third the entries of a group compete, and few of them win.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from jaxreg import prox
from jaxreg._check import strength
from jaxreg._tree import PyTree, safe_abs
from jaxreg.penalties._common import optional
from jaxreg.penalties._groups import Grouped, structure
from jaxreg.penalty import Penalty
from jaxreg.prox._groups import largest, spread, total
from jaxreg.prox._waterline import waterline

__all__ = ["exclusive_lasso", "l1_linf", "linf"]


class L1Linf(Grouped):
    """lam * sum_g weights_g * max |theta_g|."""

    smooth, convex = False, True

    def leaf_value(self, x: Array) -> Array:
        inside, size = self.members(x), safe_abs(x)
        top = lax.stop_gradient(largest(size, inside))
        tied = size == spread(top, inside, x)
        # Entries that share the maximum share the slope: the least-norm subgradient.
        over = total(jnp.where(tied, size - spread(top, inside, x), 0), inside)
        return self.per_group(
            top + over / jnp.maximum(total(tied.astype(x.dtype), inside), 1), self.group_lam(x)
        )

    def leaf_prox(self, x: Array, step: Array) -> Array:
        if step.ndim == 0:
            return prox.linf(x, step * self.group_lam(x), self.members(x))
        return prox.linf(x, self.group_lam(x), self.members(x), step=step)

    def leaf_subgradient(self, x: Array, grad: Array) -> Array:
        inside, lam = self.members(x), self.group_lam(x)
        top, sign = spread(largest(jnp.abs(x), inside), inside, x), jnp.sign(x)
        # lam is shared out among the largest entries, where it cancels most: as water finds its level.
        want = jnp.where(jnp.abs(x) == top, -sign * grad, -jnp.inf)
        level = spread(waterline(want, 1.0, lam, 0.0, inside, floor=-jnp.inf), inside, x)
        moving = jnp.where(want > level, -sign * level, grad)
        return jnp.where(top > 0, moving, prox.linf(grad, lam, inside))

    def leaf_lambda_max(self, grad: Array) -> Array:
        return self.ratio(total(jnp.abs(grad), self.members(grad)), self.group_lam(grad))

    def leaf_conjugate(self, dual: Array) -> Array:
        inside = total(jnp.abs(dual), self.members(dual)) <= self.group_lam(dual)
        return jnp.where(jnp.all(inside), 0.0, jnp.inf)


class ExclusiveLasso(Grouped):
    """lam / 2 * sum_g weights_g * (sum |theta_g|)^2."""

    smooth, convex = False, True

    def leaf_value(self, x: Array) -> Array:
        norms = total(safe_abs(x), self.members(x))
        return self.per_group(0.5 * jnp.square(norms), self.group_lam(x))

    def leaf_prox(self, x: Array, step: Array) -> Array:
        inside = self.members(x)
        return prox.exclusive(x, step * spread(self.group_lam(x), inside, x), inside)

    def leaf_subgradient(self, x: Array, grad: Array) -> Array:
        inside = self.members(x)
        slope = spread(self.group_lam(x) * total(jnp.abs(x), inside), inside, x)
        moving = grad + slope * jnp.sign(x)
        return jnp.where(x == 0, prox.soft_threshold(grad, slope), moving)

    def leaf_lambda_max(self, grad: Array) -> Array:
        # At 0 the slope is 0: no strength holds a coordinate there.
        return jnp.where(jnp.any(grad != 0), jnp.inf, 0.0)

    def leaf_conjugate(self, dual: Array) -> Array:
        top, lam = largest(jnp.abs(dual), self.members(dual)), self.group_lam(dual)
        lam = jnp.broadcast_to(lam, top.shape)
        half = 0.5 * jnp.square(top) / jnp.where(lam > 0, lam, 1)
        return jnp.sum(jnp.where(lam > 0, half, jnp.where(top > 0, jnp.inf, 0)))


def l1_linf(
    lam: ArrayLike | PyTree,
    *,
    axis: int | tuple[int, ...] | None = None,
    groups: Any = None,
    weights: ArrayLike | PyTree | None = None,
) -> Penalty:
    """lam * sum_g weights_g * max |theta_g|; its prox cuts each group's largest entries to one level.

    To pick where groups live or die together, and where an entry of a living group should cost
    nothing: shared support across tasks, quantisation-friendly weights.

    Args:
      lam: strength >= 0: a scalar, a prefix pytree (per layer), or arrays with one strength per group.
      axis: the axis (or axes) that numbers the groups, as for `group_lasso`.
      groups: integer labels, or a list of index lists, as for `group_lasso`.
      weights: factors >= 0 on lam, one per group.

    Raises:
      ValueError: a strength is negative or NaN, an index is in two groups or none; at the first call,
        `axis` or `groups` do not fit a leaf.
      TypeError: `axis` is no integer, or `groups` neither labels nor index lists.

    Source: Quattoni et al., An efficient projection for l1,inf regularization (2009); the prox is x
    less its projection onto the l1 ball. Linear: a few sums, no sort; exact in a diagonal metric too.
    >>> import jaxreg as jr
    >>> w = jnp.array([[3.0, 2.0], [0.3, 0.4]])
    >>> jr.l1_linf(1.0, axis=0).prox(w, 1.0).tolist()
    [[2.0, 2.0], [0.0, 0.0]]
    """
    axis, labels = structure("l1_linf", axis, groups)
    strengths = strength("l1_linf", "lam", lam), optional("l1_linf", "weights", weights)
    return L1Linf(*strengths, axis, labels)


def linf(lam: ArrayLike | PyTree) -> Penalty:
    """lam * max |theta|, leaf by leaf; its prox cuts the largest entries of a leaf to one level.

    To pick where a leaf's range matters: weights that are to be quantised end up spread evenly
    between -max and max, many of them at the ends.

    Args:
      lam: strength >= 0: a scalar, or a prefix pytree (per layer).

    Raises:
      ValueError: a strength is negative or NaN.

    Source: Parikh & Boyd (2014), section 6.5.2. Linear: a few sums, no sort.
    >>> import jaxreg as jr
    >>> jr.linf(2.0).prox(jnp.array([3.0, -2.0, 0.5]), 1.0).tolist()
    [1.5, -1.5, 0.5]
    """
    return L1Linf(strength("linf", "lam", lam))


def exclusive_lasso(
    lam: ArrayLike | PyTree,
    *,
    axis: int | tuple[int, ...] | None = None,
    groups: Any = None,
    weights: ArrayLike | PyTree | None = None,
) -> Penalty:
    """lam/2 * sum_g weights_g * (sum_i |theta_g,i|)^2: entries of a group compete. Mind the half.

    To pick where each group should keep some entries and few: it is the opposite of `group_lasso`,
    sparse inside the groups and dense across them. With one entry per group it is l2(lam).

    Args:
      lam: strength >= 0: a scalar, a prefix pytree (per layer), or arrays with one strength per group.
      axis: the axis (or axes) that numbers the groups, as for `group_lasso`.
      groups: integer labels, or a list of index lists, as for `group_lasso`.
      weights: factors >= 0 on lam, one per group.

    Raises:
      ValueError: a strength is negative or NaN, an index is in two groups or none; at the first call,
        `axis` or `groups` do not fit a leaf.
      TypeError: `axis` is no integer, or `groups` neither labels nor index lists.

    Source: Zhou, Jin & Hoi, Exclusive lasso (2010), here with a half; prox: Kowalski (2009).
    Linear: a few sums, no sort; exact in a diagonal metric too.
    >>> import jaxreg as jr
    >>> jr.exclusive_lasso(0.5, axis=0).prox(jnp.array([[3.0, -1.0], [1.5, 0.0]]), 1.0).tolist()
    [[2.0, 0.0], [1.0, 0.0]]
    """
    axis, labels = structure("exclusive_lasso", axis, groups)
    strengths = (
        strength("exclusive_lasso", "lam", lam),
        optional("exclusive_lasso", "weights", weights),
    )
    return ExclusiveLasso(*strengths, axis, labels)
