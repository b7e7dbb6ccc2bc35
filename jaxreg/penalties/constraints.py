"""Constraints as penalties: the indicator of a set, whose prox is the projection, whatever the step.

The value is 0 inside the set and inf outside, where inside allows for rounding: bounds may be missed
by 512 eps of the dtype that sums are taken in (6e-5 in float32), or by 2 eps of the parameters' own
if that is more (2 % in bfloat16). The gradient is 0 everywhere and says nothing, so constraints act
through `proximal` only. `min_norm_subgradient` projects on the set's normal cone: it is 0 where -grad
points straight out of the set, inf outside of the set.

Where a set is given for groups, `axis` numbers them, as in `group_lasso`: on a kernel [..., out],
axis=-1 makes a group of each unit's incoming weights. (Keras names the axes to sum over instead:
its axis=0 on a dense kernel, [0, 1, 2] on a convolution, is axis=-1 here.) All sets in this file have
an exact projection in a diagonal metric too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxreg import prox
from jaxreg._check import size
from jaxreg._tree import PyTree
from jaxreg.penalties._axes import Axis
from jaxreg.penalties._constraint import GroupSet, whole
from jaxreg.penalties._groups import checked_axis
from jaxreg.penalties.bounds import Interval
from jaxreg.penalty import Penalty
from jaxreg.prox._norm import scaled_norm
from jaxreg.prox._waterline import waterline
from jaxreg.value import static_field

__all__ = ["cardinality", "l1_ball", "l2_ball", "linf_ball", "max_norm", "simplex", "unit_norm"]


class L2Ball(GroupSet):
    """|theta_g|_2 <= radius."""

    radius: ArrayLike | PyTree

    def holds(self, x: Array) -> Array:
        norm = scaled_norm(x, self._inside(x))
        return jnp.all(norm <= (1 + self._slack) * self._per_group("radius", x))

    def project(self, x: Array, inside: tuple[int, ...], step: Array | None) -> Array:
        return prox.l2_ball(x, self._per_group("radius", x), inside, step=step)

    def rest(self, x: Array, grad: Array) -> Array:
        inside, radius = self._inside(x), self._per_group("radius", x)
        norm = scaled_norm(x, inside)
        unit = x / jnp.where(norm > 0, norm, 1)
        outward = jnp.maximum(-jnp.sum(grad * unit, inside, keepdims=True), 0)
        bound = jnp.where(norm >= (1 - self._slack) * radius, grad + outward * unit, grad)
        return jnp.where(radius > 0, bound, 0)

    def leaf_conjugate(self, dual: Array) -> Array:
        norm = scaled_norm(dual, self._inside(dual))
        return jnp.sum(_product(self._per_group("radius", dual), norm))


class L1Ball(GroupSet):
    """|theta_g|_1 <= radius."""

    radius: ArrayLike | PyTree

    def holds(self, x: Array) -> Array:
        size = jnp.sum(jnp.abs(x), self._inside(x), keepdims=True)
        return jnp.all(size <= (1 + self._slack) * self._per_group("radius", x))

    def project(self, x: Array, inside: tuple[int, ...], step: Array | None) -> Array:
        return prox.l1_ball(x, self._per_group("radius", x), inside, step=step)

    def rest(self, x: Array, grad: Array) -> Array:
        """Normals are c * d|x|_1; c balances what is left on the support against the rest."""
        inside, radius, sign = self._inside(x), self._per_group("radius", x), jnp.sign(x)
        size = jnp.sum(jnp.abs(x), inside, keepdims=True)
        off = jnp.where(x != 0, -jnp.inf, jnp.abs(grad))
        pull = jnp.sum(sign * grad, inside, keepdims=True)
        c = waterline(off, 1.0, pull, jnp.sum(jnp.abs(sign), inside, keepdims=True), inside)
        held = jnp.where(x != 0, grad + c * sign, prox.soft_threshold(grad, c))
        bound = jnp.where(size >= (1 - self._slack) * radius, held, grad)
        return jnp.where(radius > 0, bound, 0)

    def leaf_conjugate(self, dual: Array) -> Array:
        top = jnp.max(jnp.abs(dual), self._inside(dual), keepdims=True, initial=0)
        return jnp.sum(_product(self._per_group("radius", dual), top))


class LinfBall(Interval):
    """|theta_i| <= radius."""

    radius: ArrayLike | PyTree

    def bounds(self) -> tuple[ArrayLike, ArrayLike]:
        radius = jnp.asarray(self.radius)
        return -radius, radius

    def leaf_prox(self, x: Array, step: Array) -> Array:
        del step
        return prox.linf_ball(x, self.radius)

    def on_leaves(self, params: PyTree) -> Iterator[tuple[str, Any, Any]]:
        # The bound is what the leaf's dtype makes of it, or a projected entry would lie outside.
        for path, x, leaf in super().on_leaves(params):
            radius = jnp.asarray(leaf.radius, jnp.result_type(x)).astype(leaf.radius.dtype)
            yield path, x, dataclasses.replace(leaf, radius=radius)


class Simplex(GroupSet):
    """theta_g >= 0 with sum `scale`."""

    scale: ArrayLike | PyTree

    def holds(self, x: Array) -> Array:
        inside, scale = self._inside(x), self._per_group("scale", x)
        if x.size == 0:
            return jnp.asarray(True)
        off = jnp.abs(jnp.sum(x, inside, keepdims=True) - scale)
        return jnp.all(off <= self._slack * scale) & jnp.all(x >= -self._slack * scale)

    def project(self, x: Array, inside: tuple[int, ...], step: Array | None) -> Array:
        return prox.simplex(x, self._per_group("scale", x), inside, step=step)

    def rest(self, x: Array, grad: Array) -> Array:
        """Normals are one number on the support and at most that number off it."""
        inside, on = self._inside(x), x > 0
        off = jnp.where(on, -jnp.inf, -grad)
        pull = jnp.sum(jnp.where(on, grad, 0), inside, keepdims=True)
        count = jnp.sum(on, inside, keepdims=True).astype(x.dtype)
        c = waterline(off, 1.0, pull, count, inside, floor=-jnp.inf)
        held = jnp.where(on, grad + c, jnp.minimum(grad + c, 0))
        return jnp.where(self._per_group("scale", x) > 0, held, 0)

    def leaf_conjugate(self, dual: Array) -> Array:
        if dual.size == 0:
            return jnp.zeros((), dual.dtype)
        top = jnp.max(dual, self._inside(dual), keepdims=True)
        return jnp.sum(_product(self._per_group("scale", dual), top))


class UnitNorm(GroupSet):
    """|theta_g|_2 = 1."""

    axis: Axis = static_field(default=-1, kw_only=True)
    smooth, convex = False, False

    def holds(self, x: Array) -> Array:
        if x.size == 0:
            return jnp.asarray(True)
        return jnp.all(jnp.abs(scaled_norm(x, self._inside(x)) - 1) <= self._slack)

    def project(self, x: Array, inside: tuple[int, ...], step: Array | None) -> Array:
        return prox.unit_norm(x, inside, step=step)

    def rest(self, x: Array, grad: Array) -> Array:
        return grad - jnp.sum(grad * x, self._inside(x), keepdims=True) * x

    def leaf_conjugate(self, dual: Array) -> Array:
        return jnp.sum(scaled_norm(dual, self._inside(dual)))


class Cardinality(GroupSet):
    """At most k entries of theta_g are not 0."""

    k: ArrayLike | PyTree
    smooth, convex = False, False

    def holds(self, x: Array) -> Array:
        count = jnp.sum(x != 0, self._inside(x), keepdims=True)
        k = self._per_group("k", x)
        return jnp.all(count.astype(k.dtype) <= k)

    def project(self, x: Array, inside: tuple[int, ...], step: Array | None) -> Array:
        return prox.cardinality(x, self._per_group("k", x), inside, step=step)

    def rest(self, x: Array, grad: Array) -> Array:
        """Limiting normals vanish on a superset of the support that has k entries."""
        inside = self._inside(x)
        n = np.prod([x.shape[a] for a in inside], dtype=int)
        k = self._per_group("k", x)
        return grad - prox.cardinality(jnp.where(x != 0, 0, grad), n - k, inside)

    def leaf_conjugate(self, dual: Array) -> Array:
        # The set is a cone that holds every axis, unless k is 0.
        moving = jnp.any((dual != 0) & (self._per_group("k", dual) > 0))
        return jnp.where(moving, jnp.inf, 0.0)


def _product(bound: Array, size: Array) -> Array:
    """bound * size, where inf * 0 is 0."""
    return jnp.where(size == 0, 0, bound * jnp.where(size == 0, 1, size))


def l1_ball(radius: ArrayLike | PyTree, *, axis: Axis = None) -> Penalty:
    """The constraint sum |theta_i| <= radius: the lasso with a budget in place of a strength.

    Its prox soft-thresholds by as much as the budget asks for, so there are exact zeros. Pick it when
    the size of the solution is known rather than the price of a coefficient.

    Args:
      radius: >= 0: a scalar, a prefix pytree (per layer), or arrays with one number per group. Units
        of the parameters.
      axis: the axis (or axes) that numbers the groups; None makes every leaf one group.

    Raises:
      ValueError: `radius` is negative or NaN; at the first call, `axis` is out of range for a leaf.
      TypeError: `radius` is no number, `axis` no integer.

    Source: Tibshirani (1996), section 1; projection: Duchi et al. (2008), section 4. Cost: a few passes.
    >>> import jaxreg as jr
    >>> jr.l1_ball(1.0).prox(jnp.array([1.25, -0.75]), 0.1).tolist()
    [0.75, -0.25]
    """
    return L1Ball(size("l1_ball", "radius", radius), axis=checked_axis("l1_ball", axis))


def l2_ball(radius: ArrayLike | PyTree, *, axis: Axis = None) -> Penalty:
    """The constraint |theta|_2 <= radius: ridge with a budget in place of a strength.

    Pick it to keep a layer from growing without shrinking it while it is small.

    Args:
      radius: >= 0: a scalar, a prefix pytree (per layer), or arrays with one number per group. Units
        of the parameters.
      axis: the axis (or axes) that numbers the groups; None makes every leaf one group.

    Raises:
      ValueError: `radius` is negative or NaN; at the first call, `axis` is out of range for a leaf.
      TypeError: `radius` is no number, `axis` no integer.

    Source: Parikh & Boyd (2014), section 6.5.1. Cost: two passes.
    >>> import jaxreg as jr
    >>> jr.l2_ball(2.5).prox(jnp.array([3.0, 4.0]), 0.1).tolist()
    [1.5, 2.0]
    """
    return L2Ball(size("l2_ball", "radius", radius), axis=checked_axis("l2_ball", axis))


def max_norm(radius: ArrayLike | PyTree, *, axis: Axis = -1) -> Penalty:
    """The constraint |theta_g|_2 <= radius on every unit's incoming weights, as Keras's MaxNorm.

    It is `l2_ball` with a group per unit. Pick it with large learning rates or dropout: no unit can
    run away, and units that are small are not shrunk.

    Args:
      radius: >= 0: a scalar, a prefix pytree (per layer), or arrays with one number per group. Units
        of the parameters; Keras's default is 2, Srivastava et al. take 3 to 4.
      axis: the axis (or axes) that numbers the groups: -1 for kernels [..., out]; (0, 1) for
        attention kernels stacked as [layers, heads, ...].

    Raises:
      ValueError: `radius` is negative or NaN; at the first call, `axis` is out of range for a leaf.
      TypeError: `radius` is no number, `axis` no integer.

    Source: Srebro & Shraibman (2005); Srivastava et al. (2014), section 5.1. Cost: two passes.
    >>> import jaxreg as jr
    >>> jr.max_norm(2.5).prox(jnp.array([[3.0, 0.3], [4.0, 0.4]]), 0.1).tolist()
    [[1.5..., 0.3...], [2.0, 0.4...]]
    """
    return L2Ball(size("max_norm", "radius", radius), axis=checked_axis("max_norm", axis))


def linf_ball(radius: ArrayLike | PyTree) -> Penalty:
    """The constraint |theta_i| <= radius on every entry: weight clipping; `box` with equal sides.

    Args:
      radius: >= 0: a scalar, a prefix pytree (per layer) or arrays (per coordinate). Units of the
        parameters; it counts as rounded to their dtype.

    Raises:
      ValueError: `radius` is negative or NaN. TypeError: it is no number.

    Source: Parikh & Boyd (2014), section 6.2. Cost: one pass. The projection is optax's.
    >>> import jaxreg as jr
    >>> jr.linf_ball(1.0).prox(jnp.array([3.0, -0.5]), 0.1).tolist()
    [1.0, -0.5]
    """
    return LinfBall(size("linf_ball", "radius", radius))


def simplex(scale: ArrayLike | PyTree = 1.0, *, axis: Axis = None) -> Penalty:
    """The constraint theta_g >= 0 with sum `scale`: weights of a mixture, with exact zeros.

    Args:
      scale: the sum, >= 0: a scalar, a prefix pytree (per layer), or arrays with one number per
        group. Units of the parameters.
      axis: the axis (or axes) that numbers the groups: 0 for a matrix whose rows are distributions.
        None makes every leaf one group.

    Raises:
      ValueError: `scale` is negative or NaN; at the first call, `axis` is out of range for a leaf.
      TypeError: `scale` is no number, `axis` no integer.

    Source: Held, Wolfe & Crowder (1974); Duchi et al. (2008), section 3. Cost: a few passes.
    >>> import jaxreg as jr
    >>> jr.simplex().prox(jnp.array([1.0, 0.5, -2.0]), 0.1).tolist()
    [0.75, 0.25, 0.0]
    """
    return Simplex(size("simplex", "scale", scale), axis=checked_axis("simplex", axis))


def unit_norm(*, axis: Axis = -1) -> Penalty:
    """The constraint |theta_g|_2 = 1 on every unit's incoming weights. Not convex.

    Pick it where only directions matter, as in cosine classifiers and normalised transformers. A
    group of zeros has no nearest unit vector; it becomes constant (Keras's UnitNorm leaves it 0).

    Args:
      axis: the axis (or axes) that numbers the groups: -1 for kernels [..., out]; 0 for embeddings
        [words, features]; None makes every leaf one group.

    Raises:
      ValueError: at the first call, `axis` is out of range for a leaf. TypeError: it is no integer.

    Source: Salimans & Kingma (2016), with the length fixed. Cost: two passes.
    >>> import jaxreg as jr
    >>> jr.unit_norm(axis=None).prox(jnp.array([3.0, 4.0]), 0.1).round(3)
    Array([0.6, 0.8], dtype=float32)
    """
    return UnitNorm(axis=checked_axis("unit_norm", axis))


def cardinality(k: ArrayLike | PyTree, *, axis: Axis = None) -> Penalty:
    """The constraint that at most k entries of each group are not 0: best subset, pruning to a budget.

    Its prox keeps the k largest, of equally large ones the first. Not convex, and the certificate is
    the limiting one: the gradient vanishes on some k entries, those that are not 0 among them.

    Args:
      k: how many, >= 0: a scalar, a prefix pytree (per layer), or arrays with one number per group.
        A leaf like any strength: it may be swept. Counts above 2^24 are rounded to float32.
      axis: the axis (or axes) that numbers the groups; None makes every leaf one group.

    Raises:
      ValueError: `k` is negative, NaN or no whole number; at the first call, `axis` is out of range
        for a leaf. TypeError: `k` is no number, `axis` no integer.

    Source: Blumensath & Davies (2009), iterative hard thresholding. Cost: one pass for
    each bit of the dtype, 31 in float32.
    >>> import jaxreg as jr
    >>> jr.cardinality(2).prox(jnp.array([3.0, -4.0, 0.5]), 0.1).tolist()
    [3.0, -4.0, 0.0]
    """
    return Cardinality(whole("cardinality", "k", k), axis=checked_axis("cardinality", axis))
