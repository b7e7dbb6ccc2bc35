"""Neighbours alike: total variation and the fused lasso along an axis, exact and linear.

To pick where the order of the coefficients means something (time, position, frequency, the levels of an
ordered category) and they should be constant on stretches. Images and trends are in
`jaxreg.penalties.smooth`.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from jaxreg import prox
from jaxreg._check import strength
from jaxreg._tree import PyTree, accumulator, safe_abs
from jaxreg.penalties._common import optional, share
from jaxreg.penalties._weighted import Weighted, one_step, short
from jaxreg.penalty import Penalty
from jaxreg.value import snake_name, static_field

__all__ = ["FusedLasso", "TotalVariation", "fused_lasso"]


class TotalVariation(Weighted):
    """lam * sum_i weights_i * |theta_{i+1} - theta_i| along an axis."""

    axis: int = static_field(default=-1)
    smooth, convex = False, True

    def check_leaf(self, path: str, x: Any) -> None:
        ndim = jnp.ndim(x)
        if not -ndim <= self.axis < ndim:
            raise ValueError(
                f"{snake_name(type(self))}: `axis` {self.axis} is out of range for the leaf {path!r} of "
                f"shape {jnp.shape(x)}. Take another, or select other leaves with .on(...)."
            )

    def edges(self, x: Array) -> Array:
        """The strength of each difference, broadcastable to the differences of `x`."""
        lam = short(snake_name(type(self)), jnp.asarray(self.lam), (self.axis,))
        return lam if self.weights is None else lam * jnp.asarray(self.weights)

    def leaf_value(self, x: Array) -> Array:
        return _least_norm_value(self, x)

    def plain_value(self, x: Array) -> Array:
        """The value, with the derivative 0 of |.| at 0: a subgradient, and not the least one."""
        return jnp.sum(self.edges(x) * safe_abs(jnp.diff(x, axis=self.axis)))

    def at_kink(self, x: Array) -> Array:
        """Whether `x` is where the value has no gradient."""
        return jnp.any(jnp.diff(x, axis=self.axis) == 0)

    def leaf_prox(self, x: Array, step: Array) -> Array:
        if step.ndim == 0 or step.shape[self.axis] == 1:
            return prox.total_variation(x, step * self.edges(x), self.axis)
        return prox.total_variation(x, self.edges(x), self.axis, step=step)

    def leaf_subgradient(self, x: Array, grad: Array) -> Array:
        # Where neighbours differ the slope is fixed; where not, the best one is the dual of a prox.
        jumps, edges = jnp.diff(x, axis=self.axis), self.edges(x)
        fixed = grad + self._adjoint(edges * jnp.sign(jumps))
        return prox.total_variation(fixed, jnp.where(jumps == 0, edges, 0), self.axis)

    def leaf_lambda_max(self, grad: Array) -> Array:
        if grad.shape[self.axis] == 0:
            return jnp.zeros((), grad.dtype)
        sums = jnp.cumsum(grad, self.axis)
        rest, inner = jnp.split(jnp.flip(sums, self.axis), [1], self.axis)
        size = jnp.sum(jnp.abs(grad), self.axis, keepdims=True)
        # A constant costs nothing, so a gradient that does not sum to 0 cannot be held at 0.
        held = jnp.abs(rest) <= 8 * jnp.finfo(grad.dtype).eps * size
        edges = jnp.flip(jnp.broadcast_to(self.edges(grad), inner.shape), self.axis)
        return jnp.where(jnp.all(held), largest_need(inner, edges), jnp.inf)

    def fit_weights(self, weights: Any, x: Any, path: str) -> Array:
        weights, shape = jnp.asarray(weights, accumulator(x)), jnp.shape(x)
        axis = self.axis % len(shape)
        edges = (*shape[:axis], max(shape[axis] - 1, 0), *shape[axis + 1 :])
        if weights.ndim == 1 and weights.shape[0] == edges[axis]:
            return jnp.expand_dims(weights, tuple(a for a in range(len(shape)) if a != axis))
        fits = weights.ndim == len(shape) and all(a in (1, b) for a, b in zip(weights.shape, edges))
        if weights.ndim and not fits:
            raise ValueError(
                f"{snake_name(type(self))}: `weights` has shape {weights.shape} on the leaf {path!r} of "
                f"shape {shape}; give one per pair of neighbours, {edges[axis]} of them."
            )
        return weights

    def _adjoint(self, u: Array) -> Array:
        """D'u for differences D along the axis: one entry longer than u."""
        first = jnp.zeros_like(lax.slice_in_dim(u, 0, 1, axis=self.axis % u.ndim))
        return -jnp.diff(jnp.concatenate([first, u, first], self.axis), axis=self.axis)


@jax.custom_jvp
def _least_norm_value(penalty: TotalVariation, x: Array) -> Array:
    return penalty.plain_value(x)


@_least_norm_value.defjvp
def _least_norm_slope(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    (penalty, x), (strengths, direction) = primals, tangents
    value, along = jax.jvp(lambda p: p.plain_value(x), (penalty,), (strengths,))
    return value, along + jnp.sum(_least_norm_gradient(penalty, x) * direction)


@jax.jit
def _least_norm_gradient(penalty: TotalVariation, x: Array) -> Array:
    """It couples neighbours that are equal; where none are, it is the gradient."""
    return lax.cond(
        penalty.at_kink(x),
        lambda: penalty.leaf_subgradient(x, jnp.zeros_like(x)),
        lambda: jax.grad(penalty.plain_value)(x),
    )


class FusedLasso(TotalVariation):
    """lam * (r * sum |theta_i| + (1 - r) * sum_i weights_i * |theta_{i+1} - theta_i|)."""

    l1_ratio: ArrayLike | PyTree = dataclasses.field(default=0.5, kw_only=True)

    def entries(self) -> Array:
        """The strength of each |theta|, equal along the axis."""
        lam = short("fused_lasso", jnp.asarray(self.lam), (self.axis,))
        return lam * self._ratio()

    def edges(self, x: Array) -> Array:
        return (1 - self._ratio()) * super().edges(x)

    def plain_value(self, x: Array) -> Array:
        return super().plain_value(x) + jnp.sum(self.entries() * safe_abs(x))

    def at_kink(self, x: Array) -> Array:
        return super().at_kink(x) | jnp.any(x == 0)

    def leaf_prox(self, x: Array, step: Array) -> Array:
        step = one_step("fused_lasso", step, (self.axis,))
        near = prox.total_variation(x, step * self.edges(x), self.axis)
        return prox.soft_threshold(near, step * self.entries())

    def leaf_subgradient(self, x: Array, grad: Array) -> Array:
        # On a stretch of zeros both are free, and the two proxes compose; elsewhere |.| is smooth.
        fixed = super().leaf_subgradient(x, grad + self.entries() * jnp.sign(x))
        return jnp.where(x == 0, prox.soft_threshold(fixed, self.entries()), fixed)

    def leaf_lambda_max(self, grad: Array) -> Array:
        """The root of max |tv_prox(g, lam * (1 - r))| = lam * r, by bisection."""
        unit, size = self.entries(), jnp.abs(grad)
        held = jnp.where(unit > 0, size / jnp.where(unit > 0, unit, 1), jnp.inf)
        high = jnp.max(jnp.where(size > 0, held, 0), initial=0.0)
        finite = jnp.where(jnp.isfinite(high), high, 0)

        def halve(_, ends: tuple[Array, Array]) -> tuple[Array, Array]:
            middle = 0.5 * (ends[0] + ends[1])
            near = prox.total_variation(grad, middle * self.edges(grad), self.axis)
            good = jnp.all(jnp.abs(near) <= middle * unit)
            return jnp.where(good, ends[0], middle), jnp.where(good, middle, ends[1])

        _, root = lax.fori_loop(0, 64, halve, (jnp.zeros_like(finite), finite))
        return jnp.where(jnp.isfinite(high), root, super().leaf_lambda_max(grad))

    def leaf_conjugate(self, dual: Array) -> Array:
        near = prox.total_variation(dual, self.edges(dual), self.axis)
        return jnp.where(jnp.all(jnp.abs(near) <= self.entries()), 0.0, jnp.inf)

    def _ratio(self) -> Array:
        ratio = jnp.asarray(self.l1_ratio)
        if ratio.ndim:
            raise ValueError(
                f"fused_lasso: `l1_ratio` has shape {ratio.shape}; give one number per leaf."
            )
        return ratio


def fused_lasso(
    lam: ArrayLike | PyTree,
    l1_ratio: ArrayLike | PyTree = 0.5,
    *,
    axis: int = -1,
    weights: ArrayLike | PyTree | None = None,
) -> Penalty:
    """lam * (r * sum |theta_i| + (1 - r) * sum |theta_{i+1} - theta_i|), with r = `l1_ratio`.

    Constant on stretches, and 0 on most of them. To pick where ordered coefficients should be both:
    copy numbers along a genome, a filter over time.

    Args:
      lam: strength >= 0: a scalar, a prefix pytree (per layer), or an array of size 1 on `axis` (one
        strength per line).
      l1_ratio: the share r of the l1 part, 0 (total variation) to 1 (lasso); one number, or one per
        leaf. It is a leaf: it can be swept and differentiated like lam.
      axis: the axis that neighbours are taken along.
      weights: factors >= 0 on the differences, one per pair of neighbours [n - 1].

    Raises:
      ValueError: a strength is negative or NaN, or `l1_ratio` exceeds 1; at the first call, `axis` or
        `weights` do not fit a leaf. In a metric that differs along the axis the prox has no closed
        form (for total variation alone it has).
      TypeError: `axis` is no integer.

    Source: Tibshirani et al., Sparsity and smoothness via the fused lasso (2005); prox: Friedman et
    al. (2007) and Johnson (2013). Linear in the number of entries.
    >>> import jaxreg as jr
    >>> jr.fused_lasso(2.0, 0.5).prox(jnp.array([0.0, 0.5, 3.0, 5.0]), 0.5).tolist()
    [0.0, 0.0, 2.5, 4.0]
    """
    return FusedLasso(
        strength("fused_lasso", "lam", lam),
        optional("fused_lasso", "weights", weights),
        line_axis("fused_lasso", axis),
        l1_ratio=share("fused_lasso", "l1_ratio", l1_ratio, "0 (total variation) and 1 (lasso)"),
    )


def largest_need(pull: Array, strength: Array) -> Array:
    """max |pull| / strength: what `lam` must be at least; inf where no strength meets a pull."""
    size = jnp.abs(pull)
    needed = jnp.where(strength > 0, size / jnp.where(strength > 0, strength, 1), jnp.inf)
    return jnp.max(jnp.where(size > 0, needed, 0), initial=0.0)


def line_axis(owner: str, axis: Any) -> int:
    """`axis` itself; refuses what is no integer."""
    if not isinstance(axis, int) or isinstance(axis, bool):
        raise TypeError(f"{owner}: `axis` must be an integer, got {axis!r}.")
    return axis
