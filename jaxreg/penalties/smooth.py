"""Total variation of lines and images, and trend filtering; which of them iterate, and how they say so.

Along one axis total variation is exact. For images and for trends the prox has no closed form: it is
iterated until a bound on its relative error is within `tolerance`. Their gradient at a kink is a
subgradient, and not the least one, which would take as long as a prox. Where `max_steps` end before that,
`prox` gives a RuntimeWarning at run time, inside jit as well; `prox_with_residual` returns the
bounds beside the values and warns of nothing.
"""

from __future__ import annotations

import abc
import functools
import warnings
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from jaxreg import _tree, prox
from jaxreg._check import check_step, fitted, flag, strength, upcast
from jaxreg._tree import PyTree, safe_abs
from jaxreg.leaf import LeafPenalty
from jaxreg.penalties._common import optional
from jaxreg.penalties._weighted import one_step, short
from jaxreg.penalties.fused import TotalVariation, largest_need, line_axis
from jaxreg.penalty import Penalty
from jaxreg.prox import Iterated
from jaxreg.value import snake_name, static_field

__all__ = ["IteratedPenalty", "total_variation", "trend_filter"]


class IteratedPenalty(LeafPenalty):
    """A penalty whose prox iterates. Write `leaf_value` and `leaf_iterated`."""

    lam: ArrayLike | PyTree
    tolerance: float = static_field(default=1e-3, kw_only=True)
    max_steps: int = static_field(default=1000, kw_only=True)
    smooth, convex = False, True

    @abc.abstractmethod
    def leaf_iterated(self, x: Array, step: Array) -> Iterated:
        """The prox of one leaf with its residual."""

    def leaf_prox(self, x: Array, step: Array) -> Array:
        return self._told(self.leaf_iterated(x, step))

    def _told(self, found: Iterated) -> Array:
        """The value, with a warning at run time where it missed the tolerance."""
        worst = lax.stop_gradient(jnp.max(found.residual, initial=0))
        complain = functools.partial(_complain, self.label, self.tolerance)
        # Only where it is needed: a callback costs more than a step. NaN parameters warn elsewhere.
        lax.cond(worst > self.tolerance, lambda: jax.debug.callback(complain, worst), lambda: None)
        return found.value

    def prox_with_residual(self, params: PyTree, step: ArrayLike | PyTree) -> tuple[PyTree, PyTree]:
        """The prox, and for each leaf the bounds on its relative error, one per line or image.

        The bound is on |z - prox|_2 / |x|_2 with `x` taken relative to what the penalty does not
        see, its mean or its regression line. It holds whether the tolerance was reached or not.
        """
        leaves, name = _tree.flatten(params), snake_name(type(self))
        steps = _tree.prefix_leaves(check_step(name, step), params, name, "step")
        found = [
            (x, leaf.leaf_iterated(upcast(x), fitted(s, x, name, "step", path)))
            for s, (path, x, leaf) in zip(steps, self.on_leaves(params))
        ]
        near = leaves.rebuild([f.value.astype(jnp.result_type(x)) for x, f in found])
        return near, leaves.rebuild([f.residual for _, f in found])


def _complain(label: str, tolerance: float, residual: Array) -> None:
    # A batch calls this for each of its members, met or not.
    if residual > tolerance:
        warnings.warn(
            f"{label}: the prox stopped with a relative error of up to {float(residual):.1e}, above "
            f"`tolerance` {tolerance:g}. Raise `max_steps` or `tolerance`, or enable x64.",
            RuntimeWarning,
            stacklevel=2,
        )


class ImageVariation(IteratedPenalty):
    """lam * the sum over pixels of |differences| along two axes."""

    axis: tuple[int, int] = static_field(default=(-2, -1))
    isotropic: bool = static_field(default=False)
    max_steps: int = static_field(default=2000, kw_only=True)

    @property
    def label(self) -> str:
        return "total_variation"

    def __repr__(self) -> str:
        return super().__repr__().replace("image_variation", "total_variation", 1)

    def check_leaf(self, path: str, x: Any) -> None:
        ndim = jnp.ndim(x)
        inside = all(-ndim <= a < ndim for a in self.axis)
        if not inside or self.axis[0] % ndim == self.axis[1] % ndim:
            raise ValueError(
                f"total_variation: `axis` {self.axis} is not two axes of the leaf {path!r} of shape "
                f"{jnp.shape(x)}. Take others, or select other leaves with .on(...)."
            )

    def leaf_value(self, x: Array) -> Array:
        lam = short(self.label, jnp.asarray(self.lam), self.axis)
        first, second = (_forward(x, a) for a in self.axis)
        if not self.isotropic:
            return jnp.sum(lam * (safe_abs(first) + safe_abs(second)))
        square = first**2 + second**2
        return jnp.sum(lam * jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0))

    def leaf_iterated(self, x: Array, step: Array) -> Iterated:
        step = one_step(self.label, step, self.axis)
        threshold = step * short(self.label, jnp.asarray(self.lam), self.axis)
        return prox.total_variation_2d(
            x, threshold, self.axis, isotropic=self.isotropic, tolerance=self.tolerance,
            max_steps=self.max_steps,
        )  # fmt: skip


def _forward(x: Array, axis: int) -> Array:
    """Differences to the next entry, 0 at the last."""
    steps = jnp.diff(x, axis=axis)
    return jnp.pad(steps, [(0, int(a == axis % x.ndim)) for a in range(x.ndim)])


class TrendFilter(IteratedPenalty):
    """lam * sum |theta_{i+1} - 2 theta_i + theta_{i-1}| along an axis."""

    axis: int = static_field(default=-1)

    def check_leaf(self, path: str, x: Any) -> None:
        TotalVariation.check_leaf(self, path, x)  # pyright: ignore[reportArgumentType]

    def leaf_value(self, x: Array) -> Array:
        lam = short("trend_filter", jnp.asarray(self.lam), (self.axis,))
        return jnp.sum(lam * safe_abs(jnp.diff(x, 2, self.axis)))

    def leaf_subgradient(self, x: Array, grad: Array) -> Array:
        """Where `x` bends the slope is fixed; where not, the best one is the dual of a prox.

        That prox iterates, to `tolerance` times the norm of grad + the fixed slopes. A bend within 8
        roundings of the largest entry of its line is none; bf16 leaves are taken as they are rounded.
        """
        lam, axis = short("trend_filter", jnp.asarray(self.lam), (self.axis,)), self.axis % x.ndim
        bends = jnp.diff(x, 2, axis)
        size = jnp.max(jnp.abs(x), axis, keepdims=True, initial=0)
        free = jnp.abs(bends) > 8 * jnp.finfo(x.dtype).eps * size
        fixed = jnp.where(free, lam * jnp.sign(bends), 0)
        ends = [(2 * (a == axis), 2 * (a == axis)) for a in range(x.ndim)]
        fixed = grad + jnp.diff(jnp.pad(fixed, ends), 2, axis) if bends.size else grad
        limits = {"tolerance": self.tolerance, "max_steps": self.max_steps}
        return self._told(prox.trend_filter(fixed, lam, axis, free=free, **limits))

    def leaf_lambda_max(self, grad: Array) -> Array:
        """max |u| where D'u = -grad can be solved, D the second differences; inf elsewhere.

        It can be where `grad` sums to 0 and against a ramp, too: the last two of its double sums are
        taken as 0 if they are so up to 8 roundings of the double sums of |grad|.
        """
        lam = short("trend_filter", jnp.asarray(self.lam), (self.axis,))
        inner, rest = self._double_sums(grad)
        _, size = self._double_sums(jnp.abs(grad))
        held = jnp.all(jnp.abs(rest) <= 8 * jnp.finfo(grad.dtype).eps * size)
        return jnp.where(held, largest_need(inner, lam), jnp.inf)

    def _double_sums(self, grad: Array) -> tuple[Array, Array]:
        """The cumulative sums of the cumulative sums, split before the last two."""
        sums = jnp.cumsum(jnp.cumsum(grad, self.axis), self.axis)
        inner, rest = jnp.split(sums, [max(grad.shape[self.axis] - 2, 0)], self.axis)
        return inner, rest

    def leaf_iterated(self, x: Array, step: Array) -> Iterated:
        step = one_step("trend_filter", step, (self.axis,))
        threshold = step * short("trend_filter", jnp.asarray(self.lam), (self.axis,))
        return prox.trend_filter(
            x, threshold, self.axis, tolerance=self.tolerance, max_steps=self.max_steps
        )


def total_variation(
    lam: ArrayLike | PyTree,
    *,
    axis: int | tuple[int, int] = -1,
    weights: ArrayLike | PyTree | None = None,
    isotropic: bool = False,
    tolerance: float = 1e-3,
    max_steps: int = 2000,
) -> Penalty:
    """lam * sum |theta_{i+1} - theta_i| along an axis; along two of them, total variation of images.

    Its prox makes lines piecewise constant, and images flat with sharp edges. To pick where
    neighbours should be equal save at a few jumps: a baseline over time, spatial weights, filters.

    Along one axis the prox is exact, linear in the number of entries, in a diagonal metric too.
    Along two it iterates until a bound on its relative error is within `tolerance`; where it is not
    after `max_steps`, `prox` gives a RuntimeWarning. `penalty.prox_with_residual(params, step)`
    returns the bounds beside the values.

    Args:
      lam: strength >= 0: a scalar, a prefix pytree (per layer), or an array of size 1 on `axis` (one
        strength per line or image).
      axis: the axis that neighbours are taken along, or the two axes of an image.
      weights: for one axis, factors >= 0 on the differences, one per pair of neighbours [n - 1].
      isotropic: for images, whether a pixel pays the Euclidean norm of its two differences instead
        of the sum of their sizes.
      tolerance: for images, how exact the prox is.
      max_steps: for images, when to stop in any case.

    Raises:
      ValueError: a strength is negative or NaN; `weights` for an image; at the first call, `axis` or
        `weights` do not fit a leaf. For images a metric that differs from pixel to pixel is refused.
      TypeError: `axis` is neither an integer nor two.

    Source: Rudin, Osher & Fatemi (1992); one axis: Johnson (2013); images: Beck & Teboulle (2009).
    >>> import jaxreg as jr
    >>> jr.total_variation(0.5).prox(jnp.array([0.0, 0.0, 3.0, 3.0]), 1.0).tolist()
    [0.25, 0.25, 2.75, 2.75]
    >>> reg = jr.total_variation(0.5, axis=(0, 1), isotropic=True)
    >>> near, residual = reg.prox_with_residual(jnp.array([[0.0, 0.0], [0.0, 4.0]]), 1.0)
    >>> bool(residual < 1e-3)
    True
    """
    lam, weights = strength(_TV, "lam", lam), optional(_TV, "weights", weights)
    flag(_TV, "isotropic", isotropic)
    limits = _limits(_TV, tolerance, max_steps)
    if not isinstance(axis, tuple):
        return TotalVariation(lam, weights, line_axis(_TV, axis))
    if len(axis) != 2:
        raise TypeError(f"{_TV}: `axis` must be an integer or two of them, got {axis!r}.")
    if weights is not None:
        raise ValueError(f"{_TV}: `weights` are for one axis, and `axis` {axis} has two.")
    axis = (line_axis(_TV, axis[0]), line_axis(_TV, axis[1]))
    return ImageVariation(lam, axis, isotropic, **limits)


def trend_filter(
    lam: ArrayLike | PyTree,
    order: int = 1,
    *,
    axis: int = -1,
    tolerance: float = 1e-3,
    max_steps: int = 1000,
) -> Penalty:
    """lam * sum |second differences| along an axis: piecewise linear, with few kinks.

    To pick where ordered coefficients should follow straight lines: trends over time, calibration
    curves, position weights. Lines themselves cost nothing.

    The prox iterates until a bound on its relative error is within `tolerance`; where it is not
    after `max_steps`, `prox` gives a RuntimeWarning. `penalty.prox_with_residual(params, step)`
    returns the bounds beside the values. `subdiff_distance` iterates likewise, to `tolerance` times
    the norm of the gradient plus the slopes that the kinks fix.

    Args:
      lam: strength >= 0: a scalar, a prefix pytree (per layer), or an array of size 1 on `axis` (one
        strength per line).
      order: 1 for piecewise linear; 0 is `total_variation`, piecewise constant, which is exact.
      axis: the axis that neighbours are taken along.
      tolerance: how exact the prox is. In float32 ask for no less than 1e-4.
      max_steps: when to stop in any case.

    Raises:
      ValueError: a strength is negative or NaN, or `order` is neither 0 nor 1; at the first call,
        `axis` does not fit a leaf. A metric that differs along the axis is refused.
      TypeError: `axis` is no integer.

    Source: Kim, Koh, Boyd & Gorinevsky, l1 trend filtering (2009); Ramdas & Tibshirani (2016).
    >>> import jaxreg as jr
    >>> reg = jr.trend_filter(0.1)
    >>> reg(jnp.array([0.0, 1.0, 2.0, 1.0, 0.0])).item()  # one kink, by 2
    0.2...
    """
    lam = strength("trend_filter", "lam", lam)
    if isinstance(order, bool) or order not in (0, 1):
        raise ValueError(
            f"trend_filter: `order` must be 0 (piecewise constant) or 1 (piecewise linear), got {order!r}."
        )
    limits = _limits("trend_filter", tolerance, max_steps)
    if order == 0:
        return TotalVariation(lam, None, line_axis("trend_filter", axis))
    return TrendFilter(lam, line_axis("trend_filter", axis), **limits)


_TV = "total_variation"


def _limits(owner: str, tolerance: Any, max_steps: Any) -> dict[str, Any]:
    is_number = isinstance(tolerance, (int, float)) and not isinstance(tolerance, bool)
    if not is_number or not tolerance > 0:
        raise ValueError(f"{owner}: `tolerance` must be a number > 0, got {tolerance!r}.")
    is_count = isinstance(max_steps, int) and not isinstance(max_steps, bool)
    if not is_count or not 1 <= max_steps < 2**31:
        raise ValueError(
            f"{owner}: `max_steps` must be an integer between 1 and 2**31, got {max_steps!r}."
        )
    return {"tolerance": float(tolerance), "max_steps": max_steps}
