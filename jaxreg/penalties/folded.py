"""MCP and SCAD: penalties folded flat, sparse like the lasso and without bias on large entries.

Both have slope lam at 0, which falls to 0 linearly and stays there from gamma * lam on. They are
not linear in lam: lam sets the slope and, with gamma, the width. Not convex, but weakly so: with a
step below the bound in gamma the objective of the prox is convex, and the prox is continuous.
"""

from __future__ import annotations

import abc
import dataclasses

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxreg import prox
from jaxreg._check import above, strength
from jaxreg._tree import PyTree, is_concrete, safe_abs
from jaxreg.leaf import Elementwise
from jaxreg.penalties._common import optional, placed
from jaxreg.penalty import Penalty

__all__ = ["mcp", "scad"]


class Folded(Elementwise):
    """sum weights * rho(theta; lam): lam bends the curve and is no factor; weights are.

    Its prox is single-valued while step * weights stays below the bound of `bend`.
    """

    gamma: ArrayLike | PyTree = dataclasses.field(default=3.0)
    smooth, convex = False, False
    even = True

    @abc.abstractmethod
    def bend(self) -> tuple[Array, str]:
        """The bound on step * weights, and its formula."""

    def coefficient(self) -> Array:
        """The weights alone; rho has lam inside."""
        return jnp.ones(()) if self.weights is None else jnp.asarray(self.weights)

    def kink(self) -> ArrayLike:
        return self.lam

    def leaf_prox(self, x: Array, step: Array) -> Array:
        scale = step * self.coefficient()
        bound, formula = self.bend()
        if is_concrete(scale) and is_concrete(bound):
            self._refuse_a_jump(np.asarray(scale), np.asarray(bound), formula)
        return self.prox_rho(x, scale)

    def _refuse_a_jump(self, scale: np.ndarray, bound: np.ndarray, formula: str) -> None:
        if (scale >= bound).any():
            raise ValueError(
                f"{self.label}: step * weights is {float(scale.max()):g} and must be below {formula} = "
                f"{float(bound.min()):g}, else the prox is no longer single-valued. Take a smaller step "
                "or a larger `gamma`. (Under jit, where this cannot be seen, the prox is a global "
                "minimiser, and jumps.)"
            )


class MCP(Folded):
    """sum m(theta): m has slope lam at 0 that falls to 0 linearly, at gamma * lam."""

    def rho(self, x: Array) -> Array:
        lam, gamma = jnp.asarray(self.lam), jnp.asarray(self.gamma)
        size = jnp.minimum(safe_abs(x), gamma * lam)
        return size * (lam - (0.5 / gamma) * size)

    def prox_rho(self, x: Array, threshold: Array) -> Array:
        return prox.mcp(x, threshold, self.lam, self.gamma)

    def bend(self) -> tuple[Array, str]:
        return jnp.asarray(self.gamma), "gamma"


class SCAD(Folded):
    """sum s(theta): s has slope lam up to lam, which then falls to 0 linearly, at gamma * lam."""

    def rho(self, x: Array) -> Array:
        lam, gamma = jnp.asarray(self.lam), jnp.asarray(self.gamma)
        size = jnp.minimum(safe_abs(x), gamma * lam)
        bent, line = size - lam, lam * size
        # The choice comes last: XLA:CPU then makes one pass of it, and not one of each operation.
        return jnp.where(bent > 0, line - (0.5 / (gamma - 1)) * bent * bent, line)

    def prox_rho(self, x: Array, threshold: Array) -> Array:
        return prox.scad(x, threshold, self.lam, self.gamma)

    def bend(self) -> tuple[Array, str]:
        return jnp.asarray(self.gamma) - 1, "gamma - 1"


def mcp(
    lam: ArrayLike | PyTree,
    gamma: ArrayLike | PyTree = 3.0,
    *,
    weights: ArrayLike | PyTree | None = None,
    center: ArrayLike | PyTree | None = None,
    nonneg: bool = False,
) -> Penalty:
    """Minimax concave penalty: lam |x| - x^2 / (2 gamma) up to gamma * lam, then flat.

    Zeros like the lasso's, and entries beyond gamma * lam without any bias. Of all penalties with
    this slope at 0 that are flat there it is the least concave. gamma to inf gives l1, gamma to 1
    (at unit step) hard thresholding.

    Args:
      lam: slope at 0, >= 0: a scalar, a prefix pytree (per layer) or arrays (per coordinate). Not a
        factor: mcp(2 lam) is not 2 * mcp(lam); both scale the slope, the first the width as well.
      gamma: > 0, in any of the same forms. The prox needs step * weights < gamma.
      weights: factors >= 0 on the whole curve of a coordinate.
      center: what the parameters are pulled to, 0 by default; a prefix of the parameters.
      nonneg: whether theta must be >= 0 as well: the value is inf outside, the prox one-sided.

    Raises:
      ValueError: a strength is negative or NaN, or `gamma` is not > 0; in `prox`, step * weights
        reaches gamma (the prox is then no longer single-valued).

    Source: Zhang (2010), eq. 2.1; prox: Breheny & Huang (2011), section 2. Cost: one pass.
    >>> import jaxreg as jr
    >>> jr.mcp(1.0, gamma=2.0).prox(jnp.array([0.5, 1.5, 3.0]), 1.0).tolist()
    [0.0, 1.0, 3.0]
    """
    checked = MCP(
        strength("mcp", "lam", lam),
        above("mcp", "gamma", gamma, 0),
        weights=optional("mcp", "weights", weights),
    )
    return placed("mcp", checked, center, nonneg)


def scad(
    lam: ArrayLike | PyTree,
    gamma: ArrayLike | PyTree = 3.7,
    *,
    weights: ArrayLike | PyTree | None = None,
    center: ArrayLike | PyTree | None = None,
    nonneg: bool = False,
) -> Penalty:
    """Smoothly clipped absolute deviation: the lasso up to lam, flat beyond gamma * lam.

    As MCP it leaves large entries without bias; entries up to lam cost what they cost the lasso.

    Args:
      lam: slope at 0 and width, >= 0: a scalar, a prefix pytree (per layer) or arrays (per
        coordinate). Not a factor, as with `mcp`.
      gamma: > 1, in any of the same forms; 3.7 is the authors' choice. The prox needs step * weights
        < gamma - 1, so gamma > 2 at unit step.
      weights: factors >= 0 on the whole curve of a coordinate.
      center: what the parameters are pulled to, 0 by default; a prefix of the parameters.
      nonneg: whether theta must be >= 0 as well: the value is inf outside, the prox one-sided.

    Raises:
      ValueError: a strength is negative or NaN, or `gamma` is not > 1; in `prox`, step * weights
        reaches gamma - 1 (the prox is then no longer single-valued).

    Source: Fan & Li (2001), eq. 2.7; prox: Gong et al. (2013), appendix. Cost: one pass.
    >>> import jaxreg as jr
    >>> jr.scad(1.0, gamma=3.0).prox(jnp.array([0.5, 1.5, 2.5, 4.0]), 1.0).tolist()
    [0.0, 0.5, 2.0, 4.0]
    """
    checked = SCAD(
        strength("scad", "lam", lam),
        above("scad", "gamma", gamma, 1),
        weights=optional("scad", "weights", weights),
    )
    return placed("scad", checked, center, nonneg)
