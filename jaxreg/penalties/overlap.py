"""Groups that overlap, by latent copies: each group has its own copy of the features it names.

    norm(theta) = min { sum_g sqrt|g| * weights_g * |v_g|_2  :  sum_g v_g = theta,  v_g = 0 outside g }

The parameters you train are the copies v, all groups' one after another; the model sees their sum,
`contract(v)`. On the copies the groups are disjoint, so value, prox and certificates are exactly those
of the group lasso, and a minimum over v is a minimum over theta = contract(v) of the norm above:
what is zero in the answer is a union of groups, and the support is a union of the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

from jaxreg import _tree, prox
from jaxreg._check import flag, strength, upcast
from jaxreg._tree import PyTree
from jaxreg.penalties._axes import across
from jaxreg.penalties._common import optional
from jaxreg.penalties._groups import group_norm, index_lists, refuse_missing
from jaxreg.penalties.group import GroupLasso
from jaxreg.prox._groups import Labels, spread
from jaxreg.value import static_field

__all__ = ["LatentNorm", "overlapping_group_lasso"]


class LatentNorm(NamedTuple):
    """The latent norm of parameters: an upper bound, and how far the norm may lie below it."""

    value: Array
    residual: Array


class OverlappingGroupLasso(GroupLasso):
    """lam * sum_g sqrt|g| * weights_g * |v_g|_2 on copies v, one of each feature per group."""

    features: Labels = static_field(default=Labels(np.zeros(1)))

    def contract(self, copies: PyTree) -> PyTree:
        """The parameters that the copies stand for: each feature is the sum of its copies."""
        for path, v in zip(_tree.flatten(copies).paths, jax.tree.leaves(copies)):
            self.check_leaf(path, v)
        axis = across(self._axis)[0]

        def one(v: Array) -> Array:
            first = _sum(jnp.moveaxis(upcast(v), axis, 0), self.features)
            return jnp.moveaxis(first, 0, axis).astype(v.dtype)

        return jax.tree.map(one, copies)

    def expand(self, params: PyTree) -> PyTree:
        """Copies of `params` that contract to them: each feature is shared out evenly."""
        for path, x in zip(_tree.flatten(params).paths, jax.tree.leaves(params)):
            self._check_features(path, jnp.shape(x))
        axis = across(self._axis)[0]

        def one(x: Array) -> Array:
            first = _share(jnp.moveaxis(upcast(x), axis, 0), self.features)
            return jnp.moveaxis(first, 0, axis).astype(x.dtype)

        return jax.tree.map(one, params)

    def latent_norm(
        self, params: PyTree, *, tolerance: float = 1e-4, max_steps: int = 2000
    ) -> LatentNorm:
        """The least value of the penalty over all copies that contract to `params`, iterated.

        Douglas-Rachford between the group lasso of the copies and the condition on their sum. It
        stops when the duality gap is within `tolerance` of the value, or after `max_steps`.

        Returns:
          `LatentNorm`: value, an upper bound, and residual, the gap: the norm, with lam counted in,
          lies between value - residual and value.
        """
        axis, value, gap = across(self._axis)[0], jnp.zeros(()), jnp.zeros(())
        for (_, v, leaf), x in zip(self.on_leaves(self.expand(params)), jax.tree.leaves(params)):
            reach = jnp.broadcast_to(leaf.reach(upcast(v)), (leaf.groups.count,))
            copies = Labels(leaf.groups.values, 0)
            first = jnp.moveaxis(upcast(x), axis, 0)
            args = first, copies, self.features, reach, tolerance, max_steps
            mine = _latent_norm(*args)
            value, gap = value + mine[0], gap + mine[1]
        return LatentNorm(value, gap)

    def check_leaf(self, path: str, x: Any) -> None:
        shape, axis, count = jnp.shape(x), across(self._axis)[0], len(self.features.values)
        if -len(shape) <= axis < len(shape) and shape[axis] == count:
            return
        raise ValueError(
            f"overlapping_group_lasso: the leaf {path!r} has shape {shape}, and the penalty acts on the "
            f"{count} copies of its {self.features.count} features along axis {axis}. Train "
            "penalty.expand(params), and give the model penalty.contract(copies)."
        )

    def _check_features(self, path: str, shape: tuple[int, ...]) -> None:
        axis, count = across(self._axis)[0], self.features.count
        if not -len(shape) <= axis < len(shape) or shape[axis] != count:
            raise ValueError(
                f"overlapping_group_lasso: `groups` name {count} features, and the leaf {path!r} of "
                f"shape {shape} does not have as many along axis {axis}."
            )


def _sum(v: Array, features: Labels) -> Array:
    """The sum of the copies of each feature, along the first axis."""
    return jax.ops.segment_sum(v, features.values, features.count)


def _share(x: Array, features: Labels) -> Array:
    """Each feature in equal parts to its copies, along the first axis."""
    sizes = jnp.asarray(features.sizes, x.dtype).reshape((-1,) + (1,) * (x.ndim - 1))
    return (x / sizes)[features.values]


def _latent_norm(
    x: Array, copies: Labels, features: Labels, reach: Array, tolerance: float, max_steps: int
) -> tuple[Array, Array]:
    """Value and gap for one leaf, its features along the first axis."""
    scale = jnp.max(jnp.abs(x), initial=0)
    scale = jnp.where(scale > 0, scale, 1)
    target, step = x / scale, 1 / jnp.maximum(jnp.mean(reach), jnp.finfo(x.dtype).tiny)
    # A group that costs nothing lets no dual point be other than 0 on its features.
    free = _sum(spread(reach <= 0, copies, jnp.zeros(len(copies.values))).astype(int), features) > 0
    free = free.reshape((-1,) + (1,) * (x.ndim - 1))

    def feasible(v: Array) -> Array:
        return v + _share(target - _sum(v, features), features)

    def advance(state: Array) -> Array:
        near = prox.group_soft_threshold(state, step * reach, copies)
        return state + feasible(2 * near - state) - near

    def measure(state: Array) -> tuple[Array, Array]:
        near = prox.group_soft_threshold(state, step * reach, copies)
        value = jnp.sum(reach * group_norm(feasible(near), copies))
        mean = _sum((state - near) / step, features) / _sum(jnp.ones_like(state), features)
        dual = jnp.where(free, 0, mean)
        norms = group_norm(dual[features.values], copies)
        shrink = jnp.min(jnp.where(norms > reach, reach / jnp.where(norms > 0, norms, 1), 1))
        return value, value - shrink * jnp.sum(dual * target)

    def unfinished(carry: tuple) -> Array:
        _, (value, gap), n = carry
        return (gap > tolerance * value) & (n < max_steps)

    def body(carry: tuple) -> tuple:
        state = advance(carry[0])
        return state, measure(state), carry[2] + 1

    start = _share(target, features)
    _, (value, gap), _ = lax.while_loop(unfinished, body, (start, measure(start), 0))
    return scale * value, scale * jnp.maximum(gap, 0)


def overlapping_group_lasso(
    lam: ArrayLike | PyTree,
    groups: Sequence[Any],
    *,
    axis: int = 0,
    weights: ArrayLike | PyTree | None = None,
    sqrt_size: bool = True,
) -> OverlappingGroupLasso:
    """The group lasso for groups that share features, on latent copies of them.

    To pick where features belong to several groups (genes in pathways, neighbourhoods in a graph or
    an image) and the support should be a union of a few groups. You train `reg.expand(params)`, and
    give the model `reg.contract(copies)`. Value, prox (in a diagonal metric too) and certificates
    are exact on the copies, where the groups are disjoint. Of the parameters themselves the penalty
    is the latent norm, which has no closed form: `reg.latent_norm(params)` iterates and reports
    the gap.

    Args:
      lam: strength >= 0: a scalar, or a prefix pytree (per layer).
      groups: a list of index lists along `axis`; they may overlap, and together must name every
        index from 0 to the largest.
      axis: the axis of a leaf that the features are on; a group has all of the other axes.
      weights: factors >= 0 on lam, one per group.
      sqrt_size: whether each group counts sqrt|g| times, |g| its number of coordinates.

    Raises:
      ValueError: a strength is negative or NaN; an index is in no group, or twice in one; at the
        first call, a leaf does not hold the copies (or, for `expand`, the features).
      TypeError: `groups` is no list of index lists.

    Source: Jacob, Obozinski & Vert, Group lasso with overlap and graph lasso (2009). As
    many passes as the group lasso, over the copies.
    >>> import jaxreg as jr
    >>> reg = jr.overlapping_group_lasso(1.0, [[0, 1], [1, 2]], sqrt_size=False)
    >>> copies = reg.expand(jnp.array([0.0, 2.0, 2.0]))
    >>> copies.tolist(), reg.contract(reg.prox(copies, 0.1)).round(3).tolist()
    ([0.0, 1.0, 1.0, 2.0], [0.0, 1.85..., 1.9...])
    >>> norm = reg.latent_norm(jnp.array([0.0, 2.0, 2.0]))  # the second group explains all of it
    >>> round(norm.value.item(), 2), norm.residual.item() < 1e-3
    (2.83, True)
    """
    owner = "overlapping_group_lasso"
    flag(owner, "sqrt_size", sqrt_size)
    if not isinstance(groups, (list, tuple)) or not len(groups):
        raise TypeError(f"{owner}: `groups` must be a list of index lists, got {groups!r}.")
    if not isinstance(axis, int) or isinstance(axis, bool):
        raise TypeError(f"{owner}: `axis` must be an integer, got {axis!r}.")
    lists = index_lists(owner, groups)
    members = np.concatenate(lists)
    named = np.full(1 + members.max(), -1)
    named[members] = 0
    refuse_missing(owner, named)
    return OverlappingGroupLasso(
        strength(owner, "lam", lam),
        optional(owner, "weights", weights),
        None,
        Labels(np.repeat(np.arange(len(lists)), [len(indices) for indices in lists]), axis),
        sqrt_size,
        Labels(members, axis),
    )
