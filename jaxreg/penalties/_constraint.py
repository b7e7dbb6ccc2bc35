"""What constraints share: a value with a stated tolerance, groups by axis, and how they print."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxreg._check import shown, size
from jaxreg._tree import PyTree, is_concrete
from jaxreg.leaf import LeafPenalty
from jaxreg.penalties._axes import Axis, check_across, inside
from jaxreg.value import static_field

__all__ = ["Constraint", "GroupSet", "whole"]


class Constraint(LeafPenalty):
    """The indicator of a set of leaves. Write `holds`, `rest` and `leaf_prox`."""

    # The relative tolerance on the leaf at hand; only `on_leaves` sets it.
    slack: float | None = static_field(default=None, kw_only=True)
    smooth, convex = False, True

    @abc.abstractmethod
    def holds(self, x: Array) -> Array:
        """Whether `x` is in the set, up to `_slack`."""

    @abc.abstractmethod
    def rest(self, x: Array, grad: Array) -> Array:
        """`grad` less its part in minus the normal cone at `x`, for `x` in the set."""

    def leaf_value(self, x: Array) -> Array:
        return jnp.where(self.holds(x), 0.0, jnp.inf).astype(x.dtype)

    def leaf_subgradient(self, x: Array, grad: Array) -> Array:
        return jnp.where(self.holds(x), self.rest(x, grad), jnp.inf)

    def leaf_lambda_max(self, grad: Array) -> Array:
        # There is no strength to tune: 0 is stationary already or cannot be made so.
        rest = self.leaf_subgradient(jnp.zeros_like(grad), grad)
        return jnp.where(jnp.any(rest != 0), jnp.inf, 0.0)

    @property
    def _slack(self) -> float:
        return 0.0 if self.slack is None else self.slack

    def on_leaves(self, params: PyTree) -> Iterator[tuple[str, Any, Any]]:
        for path, x, leaf in super().on_leaves(params):
            own = jnp.result_type(x)
            sums = 512 * float(jnp.finfo(jnp.promote_types(own, jnp.float32)).eps)
            yield path, x, dataclasses.replace(leaf, slack=max(sums, 2 * float(jnp.finfo(own).eps)))


class GroupSet(Constraint):
    """A set for every group of entries; `axis` numbers the groups, None makes the leaf one group."""

    axis: Axis = static_field(default=None, kw_only=True)

    @abc.abstractmethod
    def project(self, x: Array, inside: tuple[int, ...], step: Array | None) -> Array:
        """The projection, in the metric of `step` if there is one."""

    def leaf_prox(self, x: Array, step: Array) -> Array:
        inside = self._inside(x)
        # Only ratios of steps within a group count.
        uniform = step.ndim == 0 or all(step.shape[a] == 1 for a in inside)
        return self.project(x, inside, None if uniform else step)

    def check_leaf(self, path: str, x: Any) -> None:
        check_across(self.label, self.axis, path, x)

    def _inside(self, x: Array) -> tuple[int, ...]:
        return inside(self.axis, x.ndim)

    def _per_group(self, name: str, x: Array) -> Array:
        """The field `name`: a scalar, or one number per group."""
        value = jnp.asarray(getattr(self, name))
        if value.ndim and any(value.shape[a] != 1 for a in self._inside(x)):
            raise ValueError(
                f"{self.label}: `{name}` has shape {value.shape} and differs inside a group; give a "
                f"scalar, or one per group: an array with size 1 on the axes {self._inside(x)}."
            )
        return value


def whole(owner: str, name: str, value: ArrayLike | PyTree) -> PyTree:
    """A count as float arrays, so that it is a leaf like any strength; refuses fractions."""
    checked = size(owner, name, value)
    for count in jax.tree.leaves(checked):
        if is_concrete(count) and bool(np.any(np.asarray(count) % 1 != 0)):
            raise ValueError(f"{owner}: `{name}` must be a whole number, got {shown(value)}.")
    return checked
