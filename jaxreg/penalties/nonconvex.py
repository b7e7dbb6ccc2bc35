"""Penalties between l1 and the count of nonzeros: sparse, with little bias on large entries.

The lasso shrinks every survivor by the same amount; these pull less on large entries than on small
ones. The price: a loss plus one of them may have several local minima, `lambda_max` and
`subdiff_distance` speak of stationary points, and the prox jumps. See `folded` for MCP and SCAD.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxreg import prox
from jaxreg._check import above, strength
from jaxreg._tree import PyTree, safe_abs
from jaxreg.leaf import Elementwise, LeafPenalty
from jaxreg.penalties._common import optional, placed, share
from jaxreg.penalty import Penalty
from jaxreg.prox._norm import scaled_norm
from jaxreg.prox._roots import two_thirds_power
from jaxreg.value import snake_name

__all__ = ["l0", "l1_minus_l2", "l_half", "l_two_thirds", "log_sum"]


class LogSum(Elementwise):
    """lam * sum log(1 + |theta| / epsilon)."""

    epsilon: ArrayLike | PyTree = dataclasses.field(default=0.1)
    smooth, convex = False, False
    even = True

    def rho(self, x: Array) -> Array:
        return jnp.log1p(safe_abs(x) / self.epsilon)

    def prox_rho(self, x: Array, threshold: Array) -> Array:
        return prox.log_sum(x, threshold, self.epsilon)

    def kink(self) -> ArrayLike:
        return 1 / jnp.asarray(self.epsilon)


class LHalf(Elementwise):
    """lam * sum |theta|^(1/2)."""

    smooth, convex = False, False
    even = True

    def rho(self, x: Array) -> Array:
        # The input of the root is guarded: its slope at 0 is infinite, the subgradient there 0.
        return jnp.where(x == 0, 0, jnp.sqrt(jnp.where(x == 0, 1, jnp.abs(x))))

    def prox_rho(self, x: Array, threshold: Array) -> Array:
        return prox.l_half(x, threshold)

    def kink(self) -> ArrayLike:
        return jnp.inf


class LTwoThirds(Elementwise):
    """lam * sum |theta|^(2/3)."""

    smooth, convex = False, False
    even = True

    def rho(self, x: Array) -> Array:
        return two_thirds_power(x)

    def prox_rho(self, x: Array, threshold: Array) -> Array:
        return prox.l_two_thirds(x, threshold)

    def kink(self) -> ArrayLike:
        return jnp.inf


class L0(Elementwise):
    """lam * number of nonzeros."""

    smooth, convex = False, False
    even = True

    def rho(self, x: Array) -> Array:
        return (x != 0).astype(x.dtype)

    def prox_rho(self, x: Array, threshold: Array) -> Array:
        return prox.l0(x, threshold)

    def kink(self) -> ArrayLike:
        return jnp.inf


class L1MinusL2(LeafPenalty):
    """lam * (|theta|_1 - l2_ratio * |theta|_2) of each leaf."""

    lam: ArrayLike | PyTree
    l2_ratio: ArrayLike | PyTree = dataclasses.field(default=1.0)
    smooth, convex = False, False

    def leaf_value(self, x: Array) -> Array:
        lam, ratio = self._scalars()
        # scaled_norm of a single nonzero is its size to the last bit, so the value there is 0.
        return lam * (jnp.sum(safe_abs(x)) - ratio * scaled_norm(x, None).reshape(()))

    def leaf_prox(self, x: Array, step: Array) -> Array:
        lam, ratio = self._scalars()
        if step.size != 1:
            raise ValueError(
                f"l1_minus_l2: `step` has shape {step.shape}; the leaf is one group, and its prox in a "
                "diagonal metric (after Adam, say) has no closed form. Give a scalar step (plain SGD), "
                "or couple it by add_penalty_gradient."
            )
        return prox.l1_minus_l2(x, step.reshape(()) * lam, ratio)

    def leaf_subgradient(self, x: Array, grad: Array) -> Array:
        """At 0, where R is not regular, minus the steepest descent direction of loss plus R."""
        lam, ratio = self._scalars()
        norm = scaled_norm(x, None)
        moving = grad + lam * (jnp.sign(x) - ratio * x / jnp.where(norm == 0, 1, norm))
        held = jnp.where(x == 0, prox.soft_threshold(grad, lam), moving)
        return jnp.where(norm == 0, prox.l1_minus_l2(grad, lam, ratio), held)

    def leaf_lambda_max(self, grad: Array) -> Array:
        lam, ratio = self._scalars()
        size, reach = jnp.max(jnp.abs(grad), initial=0.0), lam * (1 - ratio)
        needed = jnp.where(reach > 0, size / jnp.where(reach > 0, reach, 1), jnp.inf)
        return jnp.where(size > 0, needed, 0.0)

    def _scalars(self) -> tuple[Array, Array]:
        lam, ratio = jnp.asarray(self.lam), jnp.asarray(self.l2_ratio)
        for name, value in (("lam", lam), ("l2_ratio", ratio)):
            if value.size != 1:
                raise ValueError(
                    f"l1_minus_l2: `{name}` has shape {value.shape}, and a leaf is one group: give one "
                    "number per leaf."
                )
        return lam.reshape(()), ratio.reshape(())


def log_sum(
    lam: ArrayLike | PyTree,
    epsilon: ArrayLike | PyTree = 0.1,
    *,
    weights: ArrayLike | PyTree | None = None,
    center: ArrayLike | PyTree | None = None,
    nonneg: bool = False,
) -> Penalty:
    """lam * sum_i log(1 + |theta_i| / epsilon), what iteratively reweighted l1 descends on.

    Between l1 (large epsilon, with lam / epsilon fixed) and l0 (small epsilon): the pull of an
    entry is lam / (|theta| + epsilon), strong on small ones and weak on large ones.

    Args:
      lam: strength >= 0: a scalar, a prefix pytree (per layer) or arrays (per coordinate).
      epsilon: > 0, in any of the same forms: the size of entries that count as nearly zero. Units
        of the parameters. The prox is continuous for step * lam * weights <= epsilon^2.
      weights: factors >= 0 on lam.
      center: what the parameters are pulled to, 0 by default; a prefix of the parameters.
      nonneg: whether theta must be >= 0 as well: the value is inf outside, the prox one-sided.

    Raises:
      ValueError: a strength is negative or NaN, or `epsilon` is not > 0.

    Source: Candes, Wakin & Boyd (2008), eq. 9; prox: Prater-Bennette, Shen & Tripp (2022). Cost: one
    pass.
    >>> import jaxreg as jr
    >>> jr.log_sum(0.5, epsilon=1.0).prox(jnp.array([2.0, 0.4]), 1.0).tolist()
    [1.82..., 0.0]
    """
    checked = LogSum(
        strength("log_sum", "lam", lam),
        above("log_sum", "epsilon", epsilon, 0),
        weights=optional("log_sum", "weights", weights),
    )
    return placed("log_sum", checked, center, nonneg)


def _power(
    cls: Any,
    lam: ArrayLike | PyTree,
    weights: ArrayLike | PyTree | None,
    center: ArrayLike | PyTree | None,
    nonneg: bool,
) -> Penalty:
    name = snake_name(cls)
    checked = cls(strength(name, "lam", lam), weights=optional(name, "weights", weights))
    return placed(name, checked, center, nonneg)


def l_half(
    lam: ArrayLike | PyTree,
    *,
    weights: ArrayLike | PyTree | None = None,
    center: ArrayLike | PyTree | None = None,
    nonneg: bool = False,
) -> Penalty:
    """lam * sum_i |theta_i|^(1/2): sparser than the lasso at the same fit, with a closed-form prox.

    Its slope at 0 is infinite, so 0 is a local minimum of any objective with it: start away from 0.

    Args:
      lam: strength >= 0: a scalar, a prefix pytree (per layer) or arrays (per coordinate).
      weights: factors >= 0 on lam.
      center: what the parameters are pulled to, 0 by default; a prefix of the parameters.
      nonneg: whether theta must be >= 0 as well: the value is inf outside, the prox one-sided.

    Raises:
      ValueError: a strength is negative or NaN.

    Source: Xu, Chang, Xu & Zhang (2012), theorem 1. Cost: one pass.
    >>> import jaxreg as jr
    >>> jr.l_half(1.0).prox(jnp.array([3.0, 1.4]), 1.0).tolist()
    [2.69..., 0.0]
    """
    return _power(LHalf, lam, weights, center, nonneg)


def l_two_thirds(
    lam: ArrayLike | PyTree,
    *,
    weights: ArrayLike | PyTree | None = None,
    center: ArrayLike | PyTree | None = None,
    nonneg: bool = False,
) -> Penalty:
    """lam * sum_i |theta_i|^(2/3): between l1 and l_half, with a closed-form prox.

    The exponent that suits images' gradients (hyper-Laplacian priors). 0 is a local minimum of any
    objective with it: start away from 0.

    Args:
      lam: strength >= 0: a scalar, a prefix pytree (per layer) or arrays (per coordinate).
      weights: factors >= 0 on lam.
      center: what the parameters are pulled to, 0 by default; a prefix of the parameters.
      nonneg: whether theta must be >= 0 as well: the value is inf outside, the prox one-sided.

    Raises:
      ValueError: a strength is negative or NaN.

    Source: Cao, Sun & Xu (2013), section 3. Cost: one pass.
    >>> import jaxreg as jr
    >>> jr.l_two_thirds(1.0).prox(jnp.array([3.0, 1.2]), 1.0).tolist()
    [2.50..., 0.0]
    """
    return _power(LTwoThirds, lam, weights, center, nonneg)


def l0(
    lam: ArrayLike | PyTree,
    *,
    weights: ArrayLike | PyTree | None = None,
    center: ArrayLike | PyTree | None = None,
    nonneg: bool = False,
) -> Penalty:
    """lam * number of nonzeros: each costs lam, whatever its size; the prox cuts hard.

    Its gradient is 0 wherever it exists, so it acts through `proximal` alone. To fix the count
    instead of its price use `cardinality`.

    Args:
      lam: price of a nonzero, >= 0: a scalar, a prefix pytree (per layer) or arrays (per
        coordinate). Entries up to sqrt(2 * step * lam) become 0.
      weights: factors >= 0 on lam.
      center: what entries must equal to be free, 0 by default; a prefix of the parameters.
      nonneg: whether theta must be >= 0 as well: the value is inf outside, the prox one-sided.

    Raises:
      ValueError: a strength is negative or NaN.

    Source: Blumensath & Davies (2008), section 2. Cost: one pass.
    >>> import jaxreg as jr
    >>> jr.l0(0.5).prox(jnp.array([3.0, -0.9, 1.1]), 1.0).tolist()
    [3.0, 0.0, 1.1...]
    """
    return _power(L0, lam, weights, center, nonneg)


def l1_minus_l2(lam: ArrayLike | PyTree, l2_ratio: ArrayLike | PyTree = 1.0) -> Penalty:
    """lam * (|theta|_1 - l2_ratio * |theta|_2) of each leaf: 0 exactly where one entry is left.

    For sparse solutions when the inputs are strongly correlated, where the lasso spreads out. Scale
    free at l2_ratio 1 in that a 1-sparse leaf costs nothing, however large.

    Args:
      lam: strength >= 0: a scalar or a prefix pytree with one number per leaf.
      l2_ratio: from 0 (the lasso) to 1, in the same forms; a leaf that can be swept.

    Raises:
      ValueError: a strength is negative or NaN, `l2_ratio` exceeds 1, or, at the first call, a
        strength differs inside a leaf; in `prox`, `step` does (the prox needs one step per leaf).

    Source: Yin, Lou, He & Xin (2015); prox: Lou & Yan (2018), lemma 1. Cost: two passes.
    >>> import jaxreg as jr
    >>> jr.l1_minus_l2(1.0).prox(jnp.array([0.4, -0.5]), 1.0).tolist()
    [0.0, -0.5]
    """
    ratio = share("l1_minus_l2", "l2_ratio", l2_ratio, "0 (the lasso) and 1 (free at one entry)")
    return L1MinusL2(strength("l1_minus_l2", "lam", lam), ratio)
