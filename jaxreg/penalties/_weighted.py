"""A strength per leaf with factors that are not per coordinate: per group, rank or neighbour pair."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Iterator
from typing import Any

from jax import Array
from jax.typing import ArrayLike

from jaxreg import _tree
from jaxreg._tree import PyTree
from jaxreg.leaf import LeafPenalty
from jaxreg.value import snake_name

__all__ = ["Weighted", "one_step", "short"]


class Weighted(LeafPenalty):
    """A penalty linear in `lam`, with `weights` of a shape of its own."""

    lam: ArrayLike | PyTree
    weights: ArrayLike | PyTree = None

    @abc.abstractmethod
    def fit_weights(self, weights: Any, x: Any, path: str) -> Array:
        """`weights` in the shape the formulas take, or a ValueError that names the leaf."""

    def on_leaves(self, params: PyTree) -> Iterator[tuple[str, Any, Any]]:
        if self.weights is None:
            yield from super().on_leaves(params)
            return
        owner = snake_name(type(self))
        given = _tree.prefix_leaves(self.weights, params, owner, "weights")
        unweighted = dataclasses.replace(self, weights=None)
        for w, (path, x, leaf) in zip(given, LeafPenalty.on_leaves(unweighted, params)):
            yield path, x, dataclasses.replace(leaf, weights=self.fit_weights(w, x, path))


def short(owner: str, lam: Array, axes: tuple[int, ...]) -> Array:
    """`lam` itself, a scalar or an array of size 1 on `axes`.

    Raises:
      ValueError: it differs along them.
    """
    if lam.ndim and any(lam.shape[a] != 1 for a in axes):
        raise ValueError(
            f"{owner}: `lam` has shape {lam.shape} and differs along axis {axes[0]}; give one strength "
            "per leaf, or one per line (size 1 on that axis)."
        )
    return lam


def one_step(owner: str, step: Array, axes: tuple[int, ...]) -> Array:
    """`step` itself, a scalar or an array of size 1 on `axes`.

    Raises:
      ValueError: it differs along them, and the prox then has no closed form.
    """
    if step.ndim and any(step.shape[a] != 1 for a in axes):
        raise ValueError(
            f"{owner}: with one step per coordinate (as after Adam) the prox has no closed form. Give "
            "one step, as after optax.sgd, or couple it by add_penalty_gradient."
        )
    return step
