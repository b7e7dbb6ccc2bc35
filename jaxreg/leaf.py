"""Penalties that act leaf by leaf: the two classes that the catalogue and your own subclass.

`LeafPenalty` does pytrees, per-layer and per-coordinate strengths, dtypes and error messages;
`Elementwise` adds what every separable penalty shares, so that a new one is two formulas.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
import operator
from collections.abc import Iterator
from typing import Any, cast

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxreg import _tree, prox
from jaxreg._check import check_step, fitted, kind, upcast
from jaxreg._tree import PyTree
from jaxreg.penalty import Penalty
from jaxreg.value import snake_name

__all__ = ["Elementwise", "LeafPenalty"]


class LeafPenalty(Penalty):
    """A sum over leaves: R(params) = sum_leaf r(leaf). Write `leaf_value` and `leaf_prox`.

    Inside both, every field that is a strength is already the one of this leaf, an array in the
    dtype sums are taken in (float32 at least); `x` has that dtype too, and the prox is cast back.
    """

    @abc.abstractmethod
    def leaf_value(self, x: Array) -> Array:
        """R of one leaf, a scalar."""

    @abc.abstractmethod
    def leaf_prox(self, x: Array, step: Array) -> Array:
        """argmin_z r(z) + |z - x|^2 / (2 step); `step` is a scalar or an array of the rank of `x`."""

    def check_leaf(self, path: str, x: Any) -> None:
        """Raise here if a leaf does not suit the structure (an axis out of range, say)."""

    def __call__(self, params: PyTree) -> Array:
        values = [leaf.leaf_value(upcast(x)) for _, x, leaf in self.on_leaves(params)]
        return functools.reduce(operator.add, values) if values else jnp.zeros(())

    def prox(self, params: PyTree, step: ArrayLike | PyTree) -> PyTree:
        leaves = _tree.flatten(params)
        name = snake_name(type(self))
        steps = _tree.prefix_leaves(check_step(name, step), params, name, "step")
        moved = [
            leaf.leaf_prox(upcast(x), fitted(s, x, name, "step", path)).astype(jnp.result_type(x))
            for s, (path, x, leaf) in zip(steps, self.on_leaves(params))
        ]
        return leaves.rebuild(moved)

    def leaf_subgradient(self, x: Array, grad: Array) -> Array:
        """Least-norm element of grad + dr(x) on one leaf; by default for a smooth r."""
        if not self.smooth:
            raise ValueError(f"{self.label}: the subdifferential has no closed form here.")
        return grad + jax.grad(self.leaf_value)(x)

    def leaf_lambda_max(self, grad: Array) -> Array:
        """The smallest lam for which 0 is stationary on one leaf; by default inf for a smooth r."""
        if not self.smooth:
            raise ValueError(f"{self.label}: lambda_max has no closed form here.")
        return jnp.where(jnp.any(grad != 0), jnp.inf, 0.0)

    def leaf_conjugate(self, dual: Array) -> Array:
        """r*(dual) of one leaf, a scalar."""
        del dual
        raise ValueError(f"{self.label}: the conjugate has no closed form here.")

    def min_norm_subgradient(self, params: PyTree, grad: PyTree) -> PyTree:
        leaves = _tree.flatten(params)
        found = [
            leaf.leaf_subgradient(upcast(x), upcast(g)).astype(g.dtype)
            for (_, x, leaf), g in zip(self.on_leaves(params), jax.tree.leaves(grad))
        ]
        return leaves.rebuild(found)

    def lambda_max(self, grad_at_zero: PyTree) -> Array:
        # Only ratios of strengths count, so a scalar lam is set to one.
        scalar = [jnp.ndim(x) for x in jax.tree.leaves(self.strengths().get("lam"))] == [0]
        unit = cast(LeafPenalty, self.map_field("lam", lambda _: 1.0)) if scalar else self
        found = [leaf.leaf_lambda_max(upcast(g)) for _, g, leaf in unit.on_leaves(grad_at_zero)]
        return functools.reduce(jnp.maximum, found)

    def conjugate(self, dual: PyTree) -> Array:
        found = [leaf.leaf_conjugate(upcast(d)) for _, d, leaf in self.on_leaves(dual)]
        return functools.reduce(operator.add, found)

    def strengths(self, leaf: PyTree | None = None) -> dict[str, Any]:
        if leaf is None:
            return super().strengths()
        ((_, _, here),) = self.on_leaves(leaf)
        return here.strengths()

    def on_leaves(self, params: PyTree) -> Iterator[tuple[str, Any, Any]]:
        """Every leaf with its path and this penalty as it is on that leaf."""
        leaves, owner = _tree.flatten(params), snake_name(type(self))
        _tree.refuse_count(owner, params)
        fields = {
            f.name: _tree.prefix_leaves(getattr(self, f.name), params, owner, f.name)
            for f in dataclasses.fields(self)  # pyright: ignore[reportArgumentType]
            if not f.metadata.get("static") and getattr(self, f.name) is not None
        }
        for i, (path, x) in enumerate(zip(leaves.paths, leaves.values)):
            if leaves.settings[i] or not _tree.is_floating(x):
                raise TypeError(
                    f"{owner}: the leaf {path!r} is {kind(x)}, and only real floating arrays can "
                    f"be penalized. Select others with .on(...), for instance .on(~path({path!r}))."
                )
            self.check_leaf(path, x)
            mine = {k: fitted(v[i], x, owner, k, path) for k, v in fields.items()}
            yield path, x, dataclasses.replace(self, **mine)  # pyright: ignore[reportArgumentType]


class Elementwise(LeafPenalty):
    """A separable penalty R = lam * sum_i weights_i * rho(x_i). Write `rho` and `prox_rho`.

    `lam` and `weights` may be scalars, prefix pytrees (per layer) or arrays (per coordinate). The
    prox is exact in any diagonal metric. A penalty of your own is this short:

    >>> class Squared(Elementwise):
    ...     smooth, convex = True, True
    ...     def rho(self, x):
    ...         return x**2
    ...     def prox_rho(self, x, threshold):
    ...         return x / (1 + 2 * threshold)
    >>> Squared(0.5)(jnp.array([1.0, 2.0])).item()
    2.5
    >>> Squared(0.5).prox(jnp.array([1.0, 2.0]), 1.0).tolist()
    [0.5, 1.0]
    """

    lam: ArrayLike | PyTree
    weights: ArrayLike | PyTree = dataclasses.field(default=None, kw_only=True)

    @abc.abstractmethod
    def rho(self, x: Array) -> Array:
        """The penalty of each coordinate at lam = 1, shape of `x`."""

    @abc.abstractmethod
    def prox_rho(self, x: Array, threshold: Array) -> Array:
        """argmin_z threshold * rho(z) + (z - x)^2 / 2, coordinate by coordinate."""

    def kink(self) -> ArrayLike:
        """The slope of rho just right of 0: 0 where rho is smooth, inf where 0 is always stationary."""
        if self.smooth:
            return 0.0
        raise ValueError(f"{self.label}: `kink` is not defined, so its subdifferential is unknown.")

    def leaf_subgradient(self, x: Array, grad: Array) -> Array:
        if self.smooth:
            return super().leaf_subgradient(x, grad)
        scale, kink = self.coefficient(), jnp.asarray(self.kink(), x.dtype)
        slope = jax.grad(lambda x: jnp.sum(self.rho(x)))(jnp.where(x == 0, 1, x))
        reach = jnp.where(scale > 0, scale * kink, 0)
        return jnp.where(x == 0, prox.soft_threshold(grad, reach), grad + scale * slope)

    def leaf_lambda_max(self, grad: Array) -> Array:
        reach = self.coefficient() * jnp.asarray(self.kink(), grad.dtype)
        # A coordinate at rest asks for nothing; an unpenalized one that moves cannot be held at 0.
        size = jnp.abs(grad)
        needed = jnp.where(reach > 0, size / jnp.where(reach > 0, reach, 1), jnp.inf)
        return jnp.max(jnp.where(size > 0, needed, 0), initial=0.0)

    def coefficient(self) -> Array:
        """lam times weights, on one leaf."""
        lam = jnp.asarray(self.lam)
        return lam if self.weights is None else lam * jnp.asarray(self.weights)

    def leaf_value(self, x: Array) -> Array:
        scale = self.coefficient()
        # A scalar stays outside the sum: one multiplication instead of one per coordinate.
        return scale * jnp.sum(self.rho(x)) if scale.ndim == 0 else jnp.sum(scale * self.rho(x))

    def leaf_prox(self, x: Array, step: Array) -> Array:
        return self.prox_rho(x, step * self.coefficient())
