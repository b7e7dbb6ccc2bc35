"""The group lasso over leaves: one group is several leaves, or one unit's slices of them.

Value and prox see the same group, however many leaves it spans: the norm is taken over all of them,
and all of them shrink by one factor.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import operator
from collections.abc import Iterator
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxreg import _tree, prox
from jaxreg._check import check_step, fitted, kind, shown, upcast
from jaxreg._tree import PyTree
from jaxreg.penalty import Penalty
from jaxreg.prox._norm import scaled_norm
from jaxreg.select import Selector, as_selector
from jaxreg.value import static_field

__all__ = ["LeafGroups", "leaf_groups_of", "names_leaves"]

Entry: TypeAlias = tuple[Selector, int | None]


def names_leaves(groups: Any) -> bool:
    """Whether `groups` are selectors, globs, or lists of them, and not indices."""
    while isinstance(groups, (list, tuple)) and len(groups):
        groups = groups[0]
    return isinstance(groups, (str, Selector))


def leaf_groups_of(owner: str, groups: Any) -> tuple[tuple[Entry, ...], ...]:
    """Each group as a tuple of (selector, axis), axis None for whole leaves.

    Raises:
      TypeError: an entry is no selector, glob or pair. ValueError: a group mixes units and leaves.
    """
    made = []
    for g, group in enumerate([groups] if _is_entry(groups) else groups):
        entries = tuple(_entry(owner, g, e) for e in ([group] if _is_entry(group) else group))
        if len({axis is None for _, axis in entries}) != 1:
            raise ValueError(
                f"{owner}: `groups`[{g}] is {group!r}, some with an axis and some without; a group is "
                "either of whole leaves, or one per index along an axis of each."
            )
        made.append(entries)
    return tuple(made)


def _is_entry(group: Any) -> bool:
    return isinstance(group, (str, Selector)) or _is_pair(group)


def _is_pair(entry: Any) -> bool:
    return (
        isinstance(entry, tuple)
        and len(entry) == 2
        and isinstance(entry[0], (str, Selector))
        and isinstance(entry[1], int)
    )


def _entry(owner: str, g: int, entry: Any) -> Entry:
    rule, axis = entry if _is_pair(entry) else (entry, None)
    if not isinstance(rule, (str, Selector)):
        raise TypeError(
            f"{owner}: `groups`[{g}] has {entry!r}, and it must be of selectors, globs such as "
            "'enc/*', or pairs (selector, axis)."
        )
    return as_selector(rule), axis


class _Member(NamedTuple):
    """A leaf of a group: its number among the leaves, its path, and the axis that numbers units."""

    at: int
    path: str
    axis: int | None

    def inside(self, x: Array) -> tuple[int, ...]:
        """The axes of the leaf that one group has all of."""
        return tuple(a for a in range(x.ndim) if self.axis is None or a != self.axis % x.ndim)

    def norms(self, x: Array) -> Array:
        """Norms of the leaf's parts [units, 1]; they neither over- nor underflow."""
        return scaled_norm(x, self.inside(x)).reshape(-1, 1)

    def rows(self, x: Array) -> Array:
        """The leaf's parts as rows [units, m]."""
        return x.reshape(1, -1) if self.axis is None else _units_first(x, self.axis)

    def back(self, rows: Array, x: Array) -> Array:
        """The inverse of `rows`."""
        if self.axis is None:
            return rows.reshape(x.shape)
        first = jnp.moveaxis(x, self.axis, 0).shape
        return jnp.moveaxis(rows.reshape(first), 0, self.axis)

    def spread(self, per_unit: Array, x: Array) -> Array:
        """Numbers [units, 1], or one for all, as an array that broadcasts against the leaf."""
        return jnp.expand_dims(per_unit.reshape(-1), self.inside(x)) if self.axis is not None else (
            per_unit.reshape((1,) * x.ndim)
        )  # fmt: skip


def _units_first(x: Array, axis: int) -> Array:
    return jnp.moveaxis(x, axis, 0).reshape(x.shape[axis], -1)


class LeafGroups(Penalty):
    """lam * sum_g sqrt|g| * weights_g * |theta_g|_2 with groups that span leaves."""

    lam: ArrayLike
    weights: ArrayLike | None = None
    groups: tuple[tuple[Entry, ...], ...] = static_field(default=())
    sqrt_size: bool = static_field(default=True)
    smooth, convex = False, True

    @property
    def label(self) -> str:
        return "group_lasso"

    def __repr__(self) -> str:
        groups = ", ".join("[" + ", ".join(_shown(e) for e in group) + "]" for group in self.groups)
        weights = "" if self.weights is None else f", weights={shown(self.weights)}"
        return f"group_lasso({shown(self.lam)}{weights}, groups=[{groups}])"

    def __call__(self, params: PyTree) -> Array:
        values = [
            jnp.sum(reach * _norm(members, leaves))
            for members, leaves, reach in self._groups(params)
        ]
        return functools.reduce(operator.add, values)

    def prox(self, params: PyTree, step: ArrayLike | PyTree) -> PyTree:
        tree = _tree.flatten(params)
        steps = _tree.prefix_leaves(check_step(self.label, step), params, self.label, "step")
        moved = list(tree.values)
        for members, leaves, reach in self._groups(params):
            mine = [steps[m.at] for m in members]
            if all(s is mine[0] for s in mine) and jnp.ndim(mine[0]) == 0:
                mine = mine[:1]
            fit = [
                fitted(s, x, self.label, "step", m.path) for s, m, x in zip(mine, members, leaves)
            ]
            shrink = _shrink if all(s.ndim == 0 for s in fit) else _shrink_in_metric
            for m, z in zip(members, shrink(members, leaves, fit, reach)):
                moved[m.at] = z.astype(jnp.result_type(tree.values[m.at]))
        return tree.rebuild(moved)

    def min_norm_subgradient(self, params: PyTree, grad: PyTree) -> PyTree:
        tree = _tree.flatten(grad)
        moved = list(tree.values)
        for members, leaves, reach in self._groups(params):
            grads = [upcast(tree.values[m.at]) for m in members]
            norm = _norm(members, leaves)
            at_rest = _shrink(members, grads, [jnp.ones(())], reach)
            for m, x, g, z in zip(members, leaves, grads, at_rest):
                pull = m.spread(jnp.where(norm > 0, reach / jnp.where(norm > 0, norm, 1), 0), x)
                found = jnp.where(m.spread(norm, x) > 0, g + pull * x, z)
                moved[m.at] = found.astype(tree.values[m.at].dtype)
        return tree.rebuild(moved)

    def lambda_max(self, grad_at_zero: PyTree) -> Array:
        found = []
        for members, leaves, reach in dataclasses.replace(self, lam=1.0)._groups(grad_at_zero):
            norm = _norm(members, leaves)
            needed = jnp.where(reach > 0, norm / jnp.where(reach > 0, reach, 1), jnp.inf)
            found.append(jnp.max(jnp.where(norm > 0, needed, 0), initial=0.0))
        return functools.reduce(jnp.maximum, found)

    def conjugate(self, dual: PyTree) -> Array:
        inside = [jnp.all(_norm(m, leaves) <= reach) for m, leaves, reach in self._groups(dual)]
        # What R does not see it lets go to infinity at no cost.
        inside += [
            jnp.all(jnp.asarray(d) == 0)
            for d, hit in zip(jax.tree.leaves(dual), self.support(dual))
            if not hit
        ]
        return jnp.where(functools.reduce(operator.and_, inside), 0.0, jnp.inf)

    def support(self, params: PyTree) -> list[bool]:
        hit = {m.at for group in self._members(params) for m in group}
        return [i in hit for i in range(len(jax.tree.leaves(params)))]

    def _groups(self, params: PyTree) -> Iterator[tuple[list[_Member], list[Array], Array]]:
        """Each group: its members, their values, and its strength [units, 1]."""
        values = jax.tree.leaves(params)
        weights = jnp.asarray(1.0 if self.weights is None else self.weights)
        if jnp.ndim(self.lam) or weights.shape not in ((), (len(self.groups),)):
            raise ValueError(
                f"group_lasso: with leaves as `groups`, `lam` is one number and `weights` one per group, "
                f"shape ({len(self.groups)},); got shapes {jnp.shape(self.lam)} and {weights.shape}."
            )
        for g, members in enumerate(self._members(params)):
            leaves = [upcast(values[m.at]) for m in members]
            size = sum(m.rows(x).shape[1] for m, x in zip(members, leaves))
            lam = jnp.asarray(self.lam, jnp.result_type(*leaves))
            weight = (weights[g] if weights.ndim else weights).astype(lam.dtype)
            yield members, leaves, lam * weight * (math.sqrt(size) if self.sqrt_size else 1)

    def _members(self, params: PyTree) -> list[list[_Member]]:
        """The leaves of each group.

        Raises:
          ValueError: a selector matches no leaf, two groups share one, or units do not agree.
        """
        tree = _tree.flatten(params)
        found, owner = [], {}
        for g, entries in enumerate(self.groups):
            members = []
            for rule, axis in entries:
                hits = [i for i, hit in enumerate(_mask(rule, params)) if hit]
                for i in hits:
                    path, x = tree.paths[i], tree.values[i]
                    _check_leaf(path, x, axis)
                    if owner.setdefault(i, (g, rule)) != (g, rule):
                        raise ValueError(
                            f"group_lasso: the leaf {path!r} is in `groups`[{owner[i][0]}] by "
                            f"{owner[i][1]!r} and in `groups`[{g}] by {rule!r}; name it once."
                        )
                    members.append(_Member(i, path, axis))
            _check_units(g, members, tree.values)
            found.append(members)
        return found


def _mask(rule: Selector, params: PyTree) -> list[bool]:
    try:
        return rule.mask(params)
    except ValueError as error:
        raise ValueError(f"group_lasso: `groups`: {error}") from error


def _check_leaf(path: str, x: Any, axis: int | None) -> None:
    if not _tree.is_floating(x):
        raise TypeError(
            f"group_lasso: the leaf {path!r} is {kind(x)}, and only real floating arrays can be "
            "penalized. Leave it out of `groups`."
        )
    ndim = jnp.ndim(x)
    if axis is not None and not -ndim <= axis < ndim:
        raise ValueError(
            f"group_lasso: `groups` gives the leaf {path!r} of shape {jnp.shape(x)} the axis {axis}, "
            "which it has not."
        )


def _check_units(g: int, members: list[_Member], values: list[Any]) -> None:
    shapes = {m.path: jnp.shape(values[m.at]) for m in members}
    sizes = {m.path: shapes[m.path][m.axis] for m in members if m.axis is not None}
    if len(set(sizes.values())) > 1:
        raise ValueError(
            f"group_lasso: `groups`[{g}] makes a group per index along an axis, and the leaves have "
            f"different numbers of them: {sizes}."
        )


def _norm(members: list[_Member], leaves: list[Array]) -> Array:
    """Norms of a group over all its leaves, [units, 1]."""
    return scaled_norm(jnp.concatenate([m.norms(x) for m, x in zip(members, leaves)], 1), 1)


def _shrink(
    members: list[_Member], leaves: list[Array], steps: list[Array], reach: Array
) -> list[Array]:
    """The prox of a group with one step per leaf, or one for all: only the leaves' norms matter."""
    norms = jnp.concatenate([m.norms(x) for m, x in zip(members, leaves)], 1)
    if len(steps) == 1:
        near = prox.group_soft_threshold(norms, steps[0] * reach, 1)
    else:
        near = prox.group_soft_threshold_metric(norms, jnp.stack(steps), reach, 1)
    factors = near / jnp.where(norms > 0, norms, 1)
    return [x * m.spread(factors[:, i], x) for i, (m, x) in enumerate(zip(members, leaves))]


def _shrink_in_metric(
    members: list[_Member], leaves: list[Array], steps: list[Array], reach: Array
) -> list[Array]:
    """The prox of a group with one step per coordinate."""
    full = [m.rows(jnp.broadcast_to(s, x.shape)) for m, s, x in zip(members, steps, leaves)]
    rows = [m.rows(x) for m, x in zip(members, leaves)]
    joined = jnp.concatenate(rows, 1), jnp.concatenate(full, 1)
    near = prox.group_soft_threshold_metric(*joined, reach, 1)
    ends = itertools.accumulate((r.shape[1] for r in rows), initial=0)
    parts = [near[:, a:b] for a, b in itertools.pairwise(ends)]
    return [m.back(part, x) for m, part, x in zip(members, parts, leaves)]


def _shown(entry: Entry) -> str:
    rule, axis = entry
    return repr(rule) if axis is None else f"({rule!r}, {axis})"
