"""Constraints on singular values: a bound on a layer's gain, and on its rank.

Indicators as in `jaxreg.penalties.constraints`, on matrices as in `jaxreg.penalties.matrix`: there
stand the tolerance of the value, and how a leaf is read as matrices.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxreg import prox
from jaxreg._check import size
from jaxreg._tree import PyTree
from jaxreg.penalties._constraint import Constraint, whole
from jaxreg.penalties._matrices import (
    OfMatrices,
    axes,
    largest,
    off_range,
    on_face,
    to_matrix,
    to_values,
)
from jaxreg.penalty import Penalty
from jaxreg.prox._spectral import singular_values, svd

__all__ = ["low_rank", "spectral_ball"]


class SpectralBall(OfMatrices, Constraint):
    """Largest singular value <= radius."""

    radius: ArrayLike | PyTree
    smooth, convex = False, True

    def holds(self, x: Array) -> Array:
        return jnp.all(largest(self.matrices(x)) <= (1 + self._slack) * self.field("radius"))

    def leaf_prox(self, x: Array, step: Array) -> Array:
        self.per_matrix("step", step)
        return prox.spectral_ball(self.matrices(x), self.field("radius")).reshape(x.shape)

    def rest(self, x: Array, grad: Array) -> Array:
        if x.size == 0:
            return grad
        w, g, radius = self.matrices(x), self.matrices(grad), self.field("radius")
        u, s, vt = svd(w)
        top = s >= (1 - self._slack) * to_values(radius)
        pull = on_face(g, u, vt, top, lambda v: jnp.maximum(v, 0), jnp.zeros(()))
        return jnp.where(radius > 0, g + pull, 0).reshape(x.shape)

    def leaf_conjugate(self, dual: Array) -> Array:
        size = jnp.sum(singular_values(self.matrices(dual)), -1)
        radius = to_matrix(self.field("radius"))
        return jnp.sum(jnp.where(size == 0, 0, radius * jnp.where(size == 0, 1, size)))


class LowRank(OfMatrices, Constraint):
    """Rank at most `rank`."""

    rank: ArrayLike | PyTree
    smooth, convex = False, False

    def holds(self, x: Array) -> Array:
        most = jnp.asarray(self.field("rank"))
        return jnp.all(self._rank(singular_values(self.matrices(x))).astype(most.dtype) <= most)

    def leaf_prox(self, x: Array, step: Array) -> Array:
        self.per_matrix("step", step)
        return prox.low_rank(self.matrices(x), self.field("rank")).reshape(x.shape)

    def rest(self, x: Array, grad: Array) -> Array:
        """Limiting normals are orthogonal to a subspace of that rank which holds the range."""
        if x.size == 0:
            return grad
        g = self.matrices(grad)
        u, s, vt = svd(self.matrices(x))
        free = off_range(g, u, vt, self._is_positive(s))
        normal = prox.low_rank(free, s.shape[-1] - self.field("rank"))
        return (g - normal).reshape(x.shape)

    def leaf_conjugate(self, dual: Array) -> Array:
        # The set is a cone that holds every direction, unless the rank is 0.
        moving = jnp.any((self.matrices(dual) != 0) & (self.field("rank") > 0))
        return jnp.where(moving, jnp.inf, 0.0)

    def _is_positive(self, s: Array) -> Array:
        return s > self._slack * s[..., :1]

    def _rank(self, s: Array) -> Array:
        return jnp.sum(self._is_positive(s), -1)[..., None, None]


def spectral_ball(radius: ArrayLike | PyTree, *, rows: int = 1, columns: int = 1) -> Penalty:
    """The constraint that no singular value exceeds the radius: a layer that is Lipschitz with it.

    Its prox clips the singular values. Pick it for certified robustness, critics and stable recurrent
    layers; unlike spectral normalisation it does not touch a layer that is inside.

    Args:
      radius: >= 0: a scalar, a prefix pytree (per layer), or arrays with one number per matrix. Units
        of the parameters.
      rows: how many axes, just before the columns, are the rows; 3 for convolutions. The bound is on
        this matrix, not on the convolution as an operator on images.
      columns: how many last axes are the columns.

    Raises:
      ValueError: `radius` is negative or NaN; at the first call, a leaf has too few axes; in `prox`,
        the step differs inside a matrix. TypeError: an argument is of the wrong kind.

    Source: Parikh & Boyd (2014), section 6.7.2; for layers: Gouk et al. (2021). Cost: one SVD.
    >>> import jaxreg as jr
    >>> jnp.diag(jr.spectral_ball(1.0).prox(jnp.diag(jnp.array([3.0, 0.5])), 0.1)).round(3)
    Array([1. , 0.5], dtype=float32)
    """
    checked = size("spectral_ball", "radius", radius)
    return SpectralBall(checked, **axes("spectral_ball", rows, columns))


def low_rank(rank: ArrayLike | PyTree, *, rows: int = 1, columns: int = 1) -> Penalty:
    """The constraint that the rank is at most `rank`; its prox cuts the SVD off there. Not convex.

    Pick it to train factorised layers without factors. A singular value counts as 0 if it is below
    the tolerance times the largest. The certificate is the limiting one.

    Args:
      rank: >= 0: a scalar, a prefix pytree (per layer), or arrays with one number per matrix. A leaf
        like any strength: it may be swept.
      rows: how many axes, just before the columns, are the rows; 3 for convolutions.
      columns: how many last axes are the columns.

    Raises:
      ValueError: `rank` is negative, NaN or no whole number; at the first call, a leaf has too few
        axes; in `prox`, the step differs inside a matrix. TypeError: an argument is of the wrong kind.

    Source: Eckart & Young (1936); in descent: Jain, Meka & Dhillon (2010). Cost: one SVD.
    >>> import jaxreg as jr
    >>> jnp.diag(jr.low_rank(1).prox(jnp.diag(jnp.array([4.0, 2.0])), 0.1))
    Array([4., 0.], dtype=float32)
    """
    return LowRank(whole("low_rank", "rank", rank), **axes("low_rank", rows, columns))
