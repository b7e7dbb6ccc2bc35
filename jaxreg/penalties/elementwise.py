"""Separable penalties: lam * sum_i weights_i * rho(theta_i), each with its prox beside it."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxreg import prox
from jaxreg._check import above, strength
from jaxreg._tree import PyTree, safe_abs
from jaxreg.leaf import Elementwise
from jaxreg.penalties._common import optional, placed, share
from jaxreg.penalty import Penalty, Quadratic

__all__ = ["elastic_net", "huber", "l1", "l2"]


class L1(Elementwise):
    """lam * sum |theta|."""

    smooth, convex = False, True
    even = True

    def kink(self) -> ArrayLike:
        return 1.0

    def leaf_conjugate(self, dual: Array) -> Array:
        return jnp.where(jnp.all(jnp.abs(dual) <= self.coefficient()), 0.0, jnp.inf)

    def rho(self, x: Array) -> Array:
        return safe_abs(x)

    def prox_rho(self, x: Array, threshold: Array) -> Array:
        return prox.soft_threshold(x, threshold)


class L2(Elementwise):
    """lam / 2 * sum theta^2."""

    smooth, convex = True, True
    even = True

    def rho(self, x: Array) -> Array:
        return 0.5 * jnp.square(x)

    def leaf_value(self, x: Array) -> Array:
        scale = self.coefficient()
        # The half goes to the strength: one multiplication instead of one per coordinate.
        if scale.ndim == 0:
            return 0.5 * scale * jnp.sum(jnp.square(x))
        return 0.5 * jnp.sum(scale * jnp.square(x))

    def prox_rho(self, x: Array, threshold: Array) -> Array:
        return prox.shrink(x, threshold)

    def leaf_conjugate(self, dual: Array) -> Array:
        scale = self.coefficient()
        ratio = jnp.where(scale > 0, jnp.square(dual) / jnp.where(scale > 0, scale, 1), jnp.inf)
        return 0.5 * jnp.sum(jnp.where(dual == 0, 0, ratio))

    def quadratic(self, params: PyTree) -> list[Quadratic]:
        return [
            Quadratic(leaf.coefficient(), jnp.zeros((), leaf.coefficient().dtype))
            for _, _, leaf in self.on_leaves(params)
        ]


class ElasticNet(Elementwise):
    """lam * sum (r |theta| + (1 - r)/2 theta^2)."""

    l1_ratio: ArrayLike | PyTree = dataclasses.field(default=0.5)
    smooth, convex = False, True
    even = True

    def rho(self, x: Array) -> Array:
        ratio = jnp.asarray(self.l1_ratio)
        return ratio * safe_abs(x) + 0.5 * (1 - ratio) * jnp.square(x)

    def prox_rho(self, x: Array, threshold: Array) -> Array:
        return prox.elastic_net(x, threshold * self.l1_ratio, threshold * (1 - self.l1_ratio))

    def kink(self) -> ArrayLike:
        return self.l1_ratio

    def leaf_conjugate(self, dual: Array) -> Array:
        lam = self.coefficient()
        ridge = lam * (1 - self.l1_ratio)
        over = prox.soft_threshold(dual, lam * self.l1_ratio)
        ratio = jnp.where(ridge > 0, over**2 / jnp.where(ridge > 0, ridge, 1), jnp.inf)
        return 0.5 * jnp.sum(jnp.where(over == 0, 0, ratio))


class Huber(Elementwise):
    """lam * sum h(theta): h(x) = x^2 / (2 delta) up to delta, |x| - delta / 2 beyond."""

    delta: ArrayLike | PyTree = dataclasses.field(default=1.0)
    smooth, convex = True, True
    even = True

    def rho(self, x: Array) -> Array:
        # Not by a clip: its derivative at |x| = delta would be halved.
        delta = jnp.asarray(self.delta)
        small = jnp.abs(x) <= delta
        inner = jnp.where(small, x, 0)
        return jnp.where(small, inner * (0.5 / delta) * inner, safe_abs(x) - 0.5 * delta)

    def prox_rho(self, x: Array, threshold: Array) -> Array:
        return prox.huber(x, threshold, self.delta)

    def leaf_conjugate(self, dual: Array) -> Array:
        scale = self.coefficient()
        ratio = jnp.square(dual) * jnp.asarray(self.delta) / jnp.where(scale > 0, scale, 1)
        return jnp.where(jnp.all(jnp.abs(dual) <= scale), 0.5 * jnp.sum(ratio), jnp.inf)


def l1(
    lam: ArrayLike | PyTree,
    *,
    weights: ArrayLike | PyTree | None = None,
    center: ArrayLike | PyTree | None = None,
    nonneg: bool = False,
) -> Penalty:
    """The lasso penalty lam * sum_i weights_i * |theta_i - center_i|; its prox gives exact zeros.

    The derivative at a zero is 0, the least-norm subgradient (jax's own |x| has 1 there). Plain
    gradient steps shrink entries but leave none exactly 0: for zeros use `proximal`.

    Args:
      lam: strength >= 0: a scalar, a prefix pytree (per layer) or arrays (per coordinate). Units of
        the loss per unit of the parameters.
      weights: factors >= 0 on lam, in any of the same forms (an adaptive or weighted lasso).
      center: what the parameters are pulled to, 0 by default; a prefix of the parameters.
      nonneg: whether theta must be >= 0 as well: the value is inf outside, the prox one-sided.

    Raises:
      ValueError: a strength is negative or NaN. TypeError: it is no number.

    Source: Tibshirani (1996); prox: Parikh & Boyd (2014), section 6.5.2.
    >>> import jaxreg as jr
    >>> reg = jr.l1(0.5)
    >>> reg({"w": jnp.array([3.0, -1.0])}).item()
    2.0
    >>> reg.prox({"w": jnp.array([3.0, -0.2])}, 1.0)["w"].tolist()
    [2.5, 0.0]
    >>> jr.l1(0.5, nonneg=True).prox(jnp.array([3.0, -3.0]), 1.0).tolist()
    [2.5, 0.0]
    """
    checked = L1(strength("l1", "lam", lam), weights=optional("l1", "weights", weights))
    return placed("l1", checked, center, nonneg)


def l2(
    lam: ArrayLike | PyTree,
    *,
    weights: ArrayLike | PyTree | None = None,
    center: ArrayLike | PyTree | None = None,
    nonneg: bool = False,
) -> Penalty:
    """The ridge penalty lam/2 * sum_i weights_i * (theta_i - center_i)^2. Mind the half.

    Its gradient is lam * theta, so under plain SGD it is exactly `optax.add_decayed_weights(lam)`.

    Args:
      lam: strength >= 0: a scalar, a prefix pytree (per layer) or arrays (per coordinate). Units of
        the loss per squared unit of the parameters.
      weights: factors >= 0 on lam, in any of the same forms (Fisher weights make it EWC).
      center: what the parameters are pulled to, 0 by default; a prefix of the parameters.
      nonneg: whether theta must be >= 0 as well: the value is inf outside, the prox one-sided.

    Raises:
      ValueError: a strength is negative or NaN. TypeError: it is no number.

    Source: Hoerl & Kennard (1970), with lam per parameter and the loss a mean.
    >>> import jax
    >>> import jaxreg as jr
    >>> w = jnp.array([3.0, -1.0])
    >>> jr.l2(0.5)(w).item(), jax.grad(lambda w: jr.l2(0.5)(w))(w).tolist()
    (2.5, [1.5, -0.5])
    """
    checked = L2(strength("l2", "lam", lam), weights=optional("l2", "weights", weights))
    return placed("l2", checked, center, nonneg)


def elastic_net(
    lam: ArrayLike | PyTree,
    l1_ratio: ArrayLike | PyTree = 0.5,
    *,
    weights: ArrayLike | PyTree | None = None,
    center: ArrayLike | PyTree | None = None,
    nonneg: bool = False,
) -> Penalty:
    """lam * sum_i weights_i * (r |theta_i| + (1 - r)/2 theta_i^2), with r = `l1_ratio`.

    Args:
      lam: strength >= 0: a scalar, a prefix pytree (per layer) or arrays (per coordinate).
      l1_ratio: the share r of the l1 part, 0 (ridge) to 1 (lasso), in any of the same forms. It is a
        leaf: it can be swept and differentiated like lam.
      weights: factors >= 0 on lam.
      center: what the parameters are pulled to, 0 by default.
      nonneg: whether theta must be >= 0 as well: the value is inf outside, the prox one-sided.

    Raises:
      ValueError: a strength is negative or NaN, or `l1_ratio` exceeds 1.

    Source: Zou & Hastie (2005), in the parametrisation of glmnet and scikit-learn.
    >>> import jaxreg as jr
    >>> jr.elastic_net(2.0, l1_ratio=0.5).prox(jnp.array([3.0, -0.5]), 1.0).tolist()
    [1.0, 0.0]
    """
    ratio = share("elastic_net", "l1_ratio", l1_ratio, "0 (ridge) and 1 (lasso)")
    checked = ElasticNet(
        strength("elastic_net", "lam", lam),
        ratio,
        weights=optional("elastic_net", "weights", weights),
    )
    return placed("elastic_net", checked, center, nonneg)


def huber(
    lam: ArrayLike | PyTree,
    delta: ArrayLike | PyTree,
    *,
    weights: ArrayLike | PyTree | None = None,
    center: ArrayLike | PyTree | None = None,
    nonneg: bool = False,
) -> Penalty:
    """lam * sum_i h(theta_i): h(x) = x^2 / (2 delta) for |x| <= delta, |x| - delta / 2 beyond.

    The lasso made smooth (its Moreau envelope with step delta): small entries decay as under l2,
    large ones lose lam per unit step as under l1, and nothing becomes exactly 0. This convention
    has slope 1 (torch's SmoothL1Loss with beta = delta); the other one, x^2 / 2 and delta * |x|
    (optax.huber_loss, torch's HuberLoss), is `huber(lam * delta, delta)`.

    Args:
      lam: strength >= 0: a scalar, a prefix pytree (per layer) or arrays (per coordinate).
      delta: where the parabola meets the line, > 0, in any of the same forms. Units of the
        parameters.
      weights: factors >= 0 on lam.
      center: what the parameters are pulled to, 0 by default.
      nonneg: whether theta must be >= 0 as well: the value is inf outside, the prox one-sided.

    Raises:
      ValueError: a strength is negative or NaN, or `delta` is not > 0.

    Source: Huber (1964); prox: Beck (2017), example 6.66. Cost: one pass.
    >>> import jaxreg as jr
    >>> jr.huber(1.0, delta=2.0)(jnp.array([1.0, -4.0])).item()
    3.25
    """
    checked = Huber(
        strength("huber", "lam", lam),
        above("huber", "delta", delta, 0, " For the limit delta = 0 use l1(lam)."),
        weights=optional("huber", "weights", weights),
    )
    return placed("huber", checked, center, nonneg)
