"""The group lasso and the sparse group lasso: whole rows, columns, channels or leaves become zero."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

from jaxreg import prox
from jaxreg._check import flag, strength
from jaxreg._tree import PyTree, safe_abs
from jaxreg.penalties._common import optional, share
from jaxreg.penalties._groups import Grouped, group_norm, structure
from jaxreg.penalties.leaf_groups import LeafGroups, leaf_groups_of, names_leaves
from jaxreg.penalty import Penalty
from jaxreg.prox._groups import Labels, largest, spread
from jaxreg.value import static_field

__all__ = ["group_lasso", "sparse_group_lasso"]


class GroupLasso(Grouped):
    """lam * sum_g sqrt|g| * weights_g * |theta_g|_2."""

    sqrt_size: bool = static_field(default=True)
    smooth, convex = False, True

    def reach(self, x: Array) -> Array:
        """The strength of each group's norm, its size counted in."""
        inside = self.members(x)
        if not self.sqrt_size:
            return self.group_lam(x)
        if isinstance(inside, Labels):
            return self.group_lam(x) * jnp.asarray(inside.size_in(x.shape) ** 0.5, x.dtype)
        return self.group_lam(x) * math.sqrt(math.prod(x.shape[a] for a in inside))

    def entries(self) -> Array | None:
        """The strength of each entry's |theta|, if it has one."""
        return None

    def leaf_value(self, x: Array) -> Array:
        return self.per_group(group_norm(x, self.members(x)), self.reach(x))

    def leaf_prox(self, x: Array, step: Array) -> Array:
        inside, entries = self.members(x), self.entries()
        entries = None if entries is None else step * entries
        # A step that is one number per group leaves the closed form intact.
        whole = not isinstance(inside, Labels) and all(
            step.shape[a] == 1 for a in inside[: step.ndim]
        )
        if step.ndim == 0 or whole:
            return prox.group_soft_threshold(x, step * self.reach(x), inside, entries=entries)
        x = x if entries is None else prox.soft_threshold(x, entries)
        return prox.group_soft_threshold_metric(x, step, self.reach(x), inside)

    def leaf_subgradient(self, x: Array, grad: Array) -> Array:
        inside, reach = self.members(x), self.reach(x)
        norm = spread(group_norm(x, inside), inside, x)
        moving = grad + spread(reach, inside, x) * x / jnp.where(norm > 0, norm, 1)
        return jnp.where(norm > 0, moving, prox.group_soft_threshold(grad, reach, inside))

    def leaf_lambda_max(self, grad: Array) -> Array:
        return self.ratio(group_norm(grad, self.members(grad)), self.reach(grad))

    def leaf_conjugate(self, dual: Array) -> Array:
        norms = group_norm(dual, self.members(dual))
        return jnp.where(jnp.all(norms <= self.reach(dual)), 0.0, jnp.inf)


class SparseGroupLasso(GroupLasso):
    """lam * (r * sum_i |theta_i| + (1 - r) * sum_g sqrt|g| * weights_g * |theta_g|_2)."""

    l1_ratio: ArrayLike | PyTree = dataclasses.field(default=0.5, kw_only=True)
    l1_weights: ArrayLike | PyTree = dataclasses.field(default=None, kw_only=True)

    def entries(self) -> Array:
        scale = jnp.asarray(self.lam) * self._ratio()
        return scale if self.l1_weights is None else scale * jnp.asarray(self.l1_weights)

    def reach(self, x: Array) -> Array:
        return (1 - self._ratio()) * super().reach(x)

    def leaf_value(self, x: Array) -> Array:
        norms = group_norm(x, self.members(x))
        reach = jnp.broadcast_to(self.reach(x), norms.shape)
        return self.per_group(norms, reach) + jnp.sum(self.entries() * safe_abs(x))

    def leaf_subgradient(self, x: Array, grad: Array) -> Array:
        # First the |.| of the entries at 0, then the norms of the groups at 0: as in the prox.
        small = prox.soft_threshold(grad, self.entries())
        moved = jnp.where(x == 0, small, grad + self.entries() * jnp.sign(x))
        return super().leaf_subgradient(x, moved)

    def leaf_lambda_max(self, grad: Array) -> Array:
        """The largest root over groups of |soft(g, lam * a)|_2 = lam * b, by bisection."""
        inside, b = self.members(grad), self.reach(grad)
        size, a = jnp.abs(grad), jnp.broadcast_to(self.entries(), grad.shape)

        def enough(lam: Array) -> Array:
            left = prox.soft_threshold(size, spread(lam, inside, grad) * a)
            return group_norm(left, inside) <= lam * b

        norm = group_norm(grad, inside)
        by_group = jnp.where(b > 0, norm / jnp.where(b > 0, b, 1), jnp.inf)
        held = jnp.where(a > 0, size / jnp.where(a > 0, a, 1), jnp.where(size > 0, jnp.inf, 0))
        high = jnp.minimum(by_group, largest(held, inside))
        finite = jnp.where(jnp.isfinite(high), high, 0)

        def halve(_, ends: tuple[Array, Array]) -> tuple[Array, Array]:
            middle = 0.5 * (ends[0] + ends[1])
            good = enough(middle)
            return jnp.where(good, ends[0], middle), jnp.where(good, middle, ends[1])

        _, root = lax.fori_loop(0, 64, halve, (jnp.zeros_like(finite), finite))
        needed = jnp.where(jnp.isfinite(high), root, jnp.inf)
        return jnp.max(jnp.where(norm > 0, needed, 0), initial=0.0)

    def leaf_conjugate(self, dual: Array) -> Array:
        return super().leaf_conjugate(prox.soft_threshold(dual, self.entries()))

    def _ratio(self) -> Array:
        ratio = jnp.asarray(self.l1_ratio)
        if ratio.ndim:
            raise ValueError(
                f"sparse_group_lasso: `l1_ratio` has shape {ratio.shape}; give one number per leaf. "
                "Factors per entry are `l1_weights`, factors per group `weights`."
            )
        return ratio


def group_lasso(
    lam: ArrayLike | PyTree,
    *,
    axis: int | tuple[int, ...] | None = None,
    groups: Any = None,
    weights: ArrayLike | PyTree | None = None,
    sqrt_size: bool = True,
) -> Penalty:
    """lam * sum_g sqrt|g| * weights_g * |theta_g|_2 over groups; its prox zeroes whole groups.

    To pick where coefficients live or die together: the inputs of a net, its units or channels, the
    levels of a categorical feature, everything that belongs to one unit across leaves.

    Args:
      lam: strength >= 0: a scalar, a prefix pytree (per layer), or arrays with one strength per group.
      axis: the axis (or axes) that numbers the groups. On a kernel [in, out], axis=0 makes a group
        of each input's outgoing weights, axis=-1 of each unit's incoming ones; None makes every leaf
        one group.
      groups: another partition, in one of three forms.
        Integer labels, an array: a label per coordinate of the flattened leaf, or per index along
        `axis`, a group then having all slices of its indices.
        A list of index lists, over the same indices; they must name each index once.
        Leaves: a selector or glob makes all leaves it matches one group, a list of them (or of lists
        of them) several groups. With (selector, axis) instead of a selector there is a group for each
        index along that axis, shared by the leaves: [[("a/kernel", -1), ("a/bias", 0)]] makes a
        group of each unit's weights and bias. Leaves in no group are not penalized.
      weights: factors >= 0 on lam, one per group: in the shape that `axis` has in the leaf, or [G].
      sqrt_size: whether each group counts sqrt|g| times, so that large and small groups are alike.

    Raises:
      ValueError: a strength is negative or NaN; an index is in two groups or none; at the first call,
        `axis` or `groups` do not fit a leaf, a path names no leaf, a leaf is in two groups.
      TypeError: `axis` is no integer, or `groups` none of the forms.

    Source: Yuan & Lin (2006), eq. 2.1; prox: Parikh & Boyd (2014), section 6.5.4, two passes over the
    parameters. In a diagonal metric (after Adam) it solves its one-dimensional secular equation to
    rounding.
    >>> import jaxreg as jr
    >>> w = jnp.array([[3.0, 4.0], [0.3, 0.4]])
    >>> jr.group_lasso(1.0, axis=0, sqrt_size=False).prox(w, 1.0).tolist()
    [[2.4..., 3.2...], [0.0, 0.0]]
    >>> jr.group_lasso(1.0, groups=[[0, 2], [1]], sqrt_size=False)(jnp.array([3.0, 1.0, 4.0])).item()
    6.0
    """
    flag("group_lasso", "sqrt_size", sqrt_size)
    if names_leaves(groups):
        if axis is not None:
            raise ValueError(
                f"group_lasso: with leaves as `groups`, `axis` {axis!r} does not say whose it is. "
                'Give it with the leaf: groups=[[("a/kernel", -1), ("a/bias", 0)]].'
            )
        # One number per group, and no pytree: a list of numbers is an array here.
        by_group = (
            None if weights is None else strength("group_lasso", "weights", np.asarray(weights))
        )
        return LeafGroups(
            strength("group_lasso", "lam", lam),
            by_group,
            leaf_groups_of("group_lasso", groups),
            sqrt_size,
        )
    axis, labels = structure("group_lasso", axis, groups)
    strengths = strength("group_lasso", "lam", lam), optional("group_lasso", "weights", weights)
    return GroupLasso(*strengths, axis, labels, sqrt_size)


def sparse_group_lasso(
    lam: ArrayLike | PyTree,
    l1_ratio: ArrayLike | PyTree = 0.5,
    *,
    axis: int | tuple[int, ...] | None = None,
    groups: Any = None,
    weights: ArrayLike | PyTree | None = None,
    l1_weights: ArrayLike | PyTree | None = None,
    sqrt_size: bool = True,
) -> Penalty:
    """lam * (r * sum |theta_i| + (1 - r) * sum_g sqrt|g| * |theta_g|_2), with r = `l1_ratio`.

    To pick where few groups matter, and in these few entries. Its prox soft-thresholds the entries
    and then the groups, which is exact, with weights of 0 and in a diagonal metric too.

    Args:
      lam: strength >= 0: a scalar, a prefix pytree (per layer), or arrays with one strength per group.
      l1_ratio: the share r of the l1 part, 0 (group lasso) to 1 (lasso); one number, or one per leaf.
        It is a leaf: it can be swept and differentiated like lam.
      axis: the axis (or axes) that numbers the groups, as for `group_lasso`.
      groups: integer labels, or a list of index lists, as for `group_lasso`.
      weights: factors >= 0 on the norms of the groups, one per group.
      l1_weights: factors >= 0 on the |theta_i|, one per coordinate.
      sqrt_size: whether each group's norm counts sqrt|g| times.

    Raises:
      ValueError: a strength is negative or NaN, `l1_ratio` exceeds 1, an index is in two groups or
        none; at the first call, `axis` or `groups` do not fit a leaf.
      TypeError: `axis` is no integer, or `groups` neither labels nor index lists.

    Source: Simon, Friedman, Hastie & Tibshirani, A sparse-group lasso (2013).
    Three passes over the parameters.
    >>> import jaxreg as jr
    >>> reg = jr.sparse_group_lasso(1.0, 0.5, axis=0, sqrt_size=False)
    >>> reg.prox(jnp.array([[3.5, 4.5, 0.2], [0.3, 0.4, 0.5]]), 1.0).round(2).tolist()
    [[2.7..., 3.5..., 0.0], [0.0, 0.0, 0.0]]
    """
    owner = "sparse_group_lasso"
    flag(owner, "sqrt_size", sqrt_size)
    if names_leaves(groups):
        raise TypeError(
            f"{owner}: `groups` of leaves are for group_lasso; add l1(lam) to the objective by "
            "add_penalty_gradient, or give labels or index lists here."
        )
    axis, labels = structure(owner, axis, groups)
    return SparseGroupLasso(
        strength(owner, "lam", lam),
        optional(owner, "weights", weights),
        axis,
        labels,
        sqrt_size,
        l1_ratio=share(owner, "l1_ratio", l1_ratio, "0 (group lasso) and 1 (lasso)"),
        l1_weights=optional(owner, "l1_weights", l1_weights),
    )
