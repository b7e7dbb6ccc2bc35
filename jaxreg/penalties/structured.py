"""Penalties on groups of coordinates: whole rows, columns, channels or leaves become zero."""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxreg import prox
from jaxreg._check import strength
from jaxreg._tree import PyTree, safe_norm
from jaxreg.leaf import LeafPenalty
from jaxreg.penalty import Penalty, static_field

__all__ = ["group_lasso"]


class GroupLasso(LeafPenalty):
    """lam * sum_g sqrt|g| * |theta_g|_2."""

    lam: ArrayLike | PyTree
    axis: int | tuple[int, ...] | None = static_field(default=None)
    sqrt_size: bool = static_field(default=True)
    smooth, convex = False, True

    def check_leaf(self, path: str, x: Any) -> None:
        ndim = jnp.ndim(x)
        bad = [a for a in _axes(self.axis) if not -ndim <= a < ndim]
        if bad:
            between = f"Take an axis from {-ndim} to {ndim - 1}, " if ndim else "Take "
            raise ValueError(
                f"group_lasso: `axis` {bad[0]} is out of range for the leaf {path!r} of shape "
                f"{jnp.shape(x)}. {between}None for the whole leaf as one group, or select other leaves "
                "with .on(...)."
            )

    def leaf_value(self, x: Array) -> Array:
        inside = self._inside(x)
        norms, lam = safe_norm(x, inside), self._group_lam(x)
        if lam.ndim == 0:
            return self._scale(x) * lam * jnp.sum(norms)
        return self._scale(x) * jnp.sum(jnp.squeeze(lam, inside) * norms)

    def leaf_prox(self, x: Array, step: Array) -> Array:
        lam = self._scale(x) * self._group_lam(x)
        inside = self._inside(x)
        # A step that is one number per group leaves the closed form intact.
        if step.ndim == 0 or all(step.shape[a] == 1 for a in inside):
            return prox.group_soft_threshold(x, step * lam, inside)
        return prox.group_soft_threshold_metric(x, step, lam, inside)

    def leaf_subgradient(self, x: Array, grad: Array) -> Array:
        inside = self._inside(x)
        reach = self._scale(x) * self._group_lam(x)
        norm = jnp.expand_dims(safe_norm(x, inside), inside)
        moving = grad + reach * x / jnp.where(norm > 0, norm, 1)
        return jnp.where(norm > 0, moving, prox.group_soft_threshold(grad, reach, inside))

    def leaf_lambda_max(self, grad: Array) -> Array:
        norm = jnp.expand_dims(safe_norm(grad, self._inside(grad)), self._inside(grad))
        reach = jnp.broadcast_to(self._scale(grad) * self._group_lam(grad), norm.shape)
        needed = jnp.where(reach > 0, norm / jnp.where(reach > 0, reach, 1), jnp.inf)
        return jnp.max(jnp.where(norm > 0, needed, 0), initial=0.0)

    def leaf_conjugate(self, dual: Array) -> Array:
        norm = jnp.expand_dims(safe_norm(dual, self._inside(dual)), self._inside(dual))
        inside_ball = jnp.all(norm <= self._scale(dual) * self._group_lam(dual))
        return jnp.where(inside_ball, 0.0, jnp.inf)

    def _inside(self, x: Array) -> tuple[int, ...]:
        """The axes that a group extends over: all but those that number the groups."""
        across = {a % x.ndim for a in _axes(self.axis)}
        return tuple(a for a in range(x.ndim) if a not in across)

    def _scale(self, x: Array) -> float:
        size = math.prod(x.shape[a] for a in self._inside(x))
        return math.sqrt(size) if self.sqrt_size else 1.0

    def _group_lam(self, x: Array) -> Array:
        lam = jnp.asarray(self.lam)
        if lam.ndim and any(lam.shape[a] != 1 for a in self._inside(x)):
            raise ValueError(
                f"group_lasso: `lam` has shape {lam.shape} and differs inside a group; give one strength "
                f"per group, an array with size 1 on the axes {self._inside(x)}."
            )
        return lam


def _axes(axis: int | tuple[int, ...] | None) -> tuple[int, ...]:
    return () if axis is None else (axis,) if isinstance(axis, int) else axis


def group_lasso(
    lam: ArrayLike | PyTree,
    *,
    axis: int | tuple[int, ...] | None = None,
    sqrt_size: bool = True,
) -> Penalty:
    """lam * sum_g sqrt|g| * |theta_g|_2 over the groups of each leaf; its prox zeroes whole groups.

    Args:
      lam: strength >= 0: a scalar, a prefix pytree (per layer), or arrays with one strength per group.
      axis: the axis (or axes) that numbers the groups. On a kernel [in, out], axis=0 makes a group
        of each input's outgoing weights, axis=-1 of each unit's incoming ones; None makes every leaf
        one group.
      sqrt_size: whether each group counts sqrt|g| times, so that large and small groups are alike.

    Raises:
      ValueError: a strength is negative or NaN; at the first call, `axis` is out of range for a leaf.
      TypeError: `axis` is no integer.

    Source: Yuan & Lin (2006), eq. 2.1; prox: Parikh & Boyd (2014), section 6.5.4. In a diagonal
    metric (after Adam) the prox solves its one-dimensional secular equation to rounding.
    >>> import jaxreg as jr
    >>> w = jnp.array([[3.0, 4.0], [0.3, 0.4]])
    >>> jr.group_lasso(1.0, axis=0, sqrt_size=False).prox(w, 1.0).tolist()
    [[2.4..., 3.2...], [0.0, 0.0]]
    """
    # A list would be refused by jit's cache only, as unhashable, and far from here.
    given = axis if isinstance(axis, tuple) else () if axis is None else (axis,)
    if not all(isinstance(a, int) and not isinstance(a, bool) for a in given):
        raise TypeError(
            f"group_lasso: `axis` must be an integer, a tuple of them or None, got {axis!r}."
        )
    return GroupLasso(strength("group_lasso", "lam", lam), axis, sqrt_size)
