"""What the families share: optional strengths, a centre, and one sign only."""

from __future__ import annotations

import functools
import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxreg._check import flag, number, shown, size, strength
from jaxreg._tree import PyTree, is_concrete
from jaxreg.penalty import Penalty
from jaxreg.penalty.combine import Wrapper
from jaxreg.penalty.sums import held_above_zero

__all__ = ["OneSided", "optional", "placed", "share"]


def optional(owner: str, name: str, value: ArrayLike | PyTree | None) -> PyTree | None:
    """A strength that may be left out."""
    return None if value is None else strength(owner, name, value)


def share(owner: str, name: str, value: ArrayLike | PyTree, ends: str) -> PyTree:
    """A strength from 0 to 1; `ends` says what these are."""
    checked = size(owner, name, value)
    for r in jax.tree.leaves(checked):
        if is_concrete(r) and bool(np.any(np.asarray(r) > 1)):
            raise ValueError(f"{owner}: `{name}` is a share between {ends}, got {shown(value)}.")
    return checked


def placed(
    owner: str, penalty: Penalty, center: ArrayLike | PyTree | None, nonneg: bool = False
) -> Penalty:
    """`penalty` around `center`, or with its negative side forbidden.

    Raises:
      ValueError: both are asked for; whose sign it would be is open.
    """
    flag(owner, "nonneg", nonneg)
    center = jax.tree.map(lambda c: number(owner, "center", c), center)  # None stays None
    if nonneg and center is not None:
        raise ValueError(
            f"{owner}: `nonneg` and `center` together leave open what must be >= 0. For params >= "
            f"center write {owner}(..., nonneg=True).around(center)."
        )
    if nonneg:
        return OneSided(penalty)
    return penalty if center is None else penalty.around(center)


class OneSided(Wrapper):
    """A separable penalty plus the constraint params >= 0: its value is inf outside.

    For rho even and rising in |x|, as all of the catalogue's are, negative entries go to 0 and the
    others do not feel the constraint: the prox is that of max(x, 0), in any diagonal metric.
    """

    penalty: Penalty

    @property
    def smooth(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return False

    def __call__(self, params: PyTree) -> Array:
        value = self.penalty(params)
        below = [jnp.any(x < 0) for x in jax.tree.leaves(params)]
        return jnp.where(functools.reduce(operator.or_, below, False), jnp.inf, value)

    def prox(self, params: PyTree, step: ArrayLike | PyTree) -> PyTree:
        return self.penalty.prox(jax.tree.map(_positive_part, params), step)

    def min_norm_subgradient(self, params: PyTree, grad: PyTree) -> PyTree:
        """At 0 the constraint absorbs any upward push; below 0 there is no subgradient, hence inf."""
        inner = self.penalty.min_norm_subgradient(params, grad)
        return jax.tree.map(held_above_zero, inner, params)

    def lambda_max(self, grad_at_zero: PyTree) -> Array:
        return self.penalty.lambda_max(jax.tree.map(lambda g: jnp.minimum(g, 0), grad_at_zero))

    def conjugate(self, dual: PyTree) -> Array:
        return self.penalty.conjugate(jax.tree.map(_positive_part, dual))

    @property
    def label(self) -> str:
        return f"{self.penalty.label}(nonneg)"

    def __repr__(self) -> str:
        return f"{repr(self.penalty)[:-1]}, nonneg=True)"


def _positive_part(x: Any) -> Array:
    return jnp.maximum(x, 0)
