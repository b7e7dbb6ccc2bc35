"""Penalties on the singular values of weight matrices: low rank, bounded gain, orthogonality.

A penalty of the singular values is to a matrix what a penalty of the entries is to a vector: the
nuclear norm is their l1 norm and makes the rank small, the spectral norm is their maximum and bounds
the layer's gain. A leaf is read as matrices by its last axes, all others being a batch of which each
matrix counts alone: `columns` last axes are the columns, `rows` before them the rows, so

    dense [in, out]: as it is           convolution [kh, kw, in, out]: rows=3
    attention [d, heads, head]: columns=2      stacked layers [layers, in, out]: as it is

Every value, prox and certificate costs one SVD per matrix, O(m n min(m, n)). A singular value that
is 0 up to rounding counts as 0, where the derivative is the least-norm subgradient. There is no
closed prox in a diagonal metric, where singular vectors would turn; a step per matrix is exact.
"""

from __future__ import annotations

import abc
import dataclasses

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from jaxreg import prox
from jaxreg._check import above, strength
from jaxreg._tree import PyTree
from jaxreg.penalties._matrices import (
    OfMatrices,
    axes,
    inside_ball,
    largest,
    largest_ratio,
    off_range,
    on_face,
    to_matrix,
    to_values,
)
from jaxreg.penalty import Penalty
from jaxreg.prox._spectral import positive, rounding, singular_values, svd, times
from jaxreg.value import static_field

__all__ = ["log_det", "nuclear", "orthogonal", "spectral_norm"]


class RankSurrogate(OfMatrices):
    """lam * sum rho(s), rho rising from 0 with a kink there, and concave: zeros among the values."""

    lam: ArrayLike | PyTree

    @abc.abstractmethod
    def rho(self, s: Array) -> Array:
        """The penalty of singular values [..., k] at lam = 1."""

    @abc.abstractmethod
    def kink(self) -> Array:
        """The slope of rho just right of 0, as [..., 1, 1] or a scalar."""

    @abc.abstractmethod
    def shrink(self, w: Array, threshold: Array) -> Array:
        """The prox of rho at each matrix w [..., m, n]."""

    def leaf_value(self, x: Array) -> Array:
        s = singular_values(self.matrices(x))
        return jnp.sum(to_values(self.field("lam")) * self.rho(s))

    def leaf_prox(self, x: Array, step: Array) -> Array:
        threshold = self.per_matrix("step", step) * self.field("lam")
        return self.shrink(self.matrices(x), threshold).reshape(x.shape)

    def leaf_subgradient(self, x: Array, grad: Array) -> Array:
        """On the range the derivative; off it the ball of radius kink absorbs what it can."""
        if x.size == 0:
            return grad
        w, g, lam = self.matrices(x), self.matrices(grad), self.field("lam")
        u, s, vt = svd(w)
        keep = positive(s, w)
        slope = jax.grad(lambda s: jnp.sum(self.rho(s)))(s)
        moving = times(u * jnp.where(keep, slope, 0)[..., None, :], vt)
        free = off_range(g, u, vt, keep)
        rest = g + lam * moving - free + prox.nuclear(free, lam * self.kink())
        return rest.reshape(x.shape)

    def leaf_lambda_max(self, grad: Array) -> Array:
        reach = self.field("lam") * self.kink()
        return largest_ratio(largest(self.matrices(grad)), reach)


class Nuclear(RankSurrogate):
    """lam * sum of singular values."""

    smooth, convex = False, True

    def rho(self, s: Array) -> Array:
        return s

    def kink(self) -> Array:
        return jnp.ones(())

    def shrink(self, w: Array, threshold: Array) -> Array:
        return prox.nuclear(w, threshold)

    def leaf_conjugate(self, dual: Array) -> Array:
        return inside_ball(largest(self.matrices(dual)), self.field("lam"))


class LogDet(RankSurrogate):
    """lam * sum log(1 + s / epsilon)."""

    epsilon: ArrayLike | PyTree = dataclasses.field(default=1.0)
    smooth, convex = False, False

    def rho(self, s: Array) -> Array:
        return jnp.log1p(s / to_values(self.field("epsilon")))

    def kink(self) -> Array:
        return 1 / self.field("epsilon")

    def shrink(self, w: Array, threshold: Array) -> Array:
        return prox.log_det(w, threshold, self.field("epsilon"))


class SpectralNorm(OfMatrices):
    """lam * largest singular value."""

    lam: ArrayLike | PyTree
    smooth, convex = False, True

    def leaf_value(self, x: Array) -> Array:
        top = jnp.max(singular_values(self.matrices(x)), -1, initial=0)
        return jnp.sum(to_matrix(self.field("lam")) * top)

    def leaf_prox(self, x: Array, step: Array) -> Array:
        threshold = self.per_matrix("step", step) * self.field("lam")
        return prox.spectral_norm(self.matrices(x), threshold).reshape(x.shape)

    def leaf_subgradient(self, x: Array, grad: Array) -> Array:
        """lam * U1 M V1^T with M of trace 1, the singular vectors being those of the top."""
        if x.size == 0:
            return grad
        w, g = self.matrices(x), self.matrices(grad)
        lam = jnp.broadcast_to(self.field("lam"), (*w.shape[:-2], 1, 1))
        u, s, vt = svd(w)
        top = s >= (1 - rounding(w)) * s[..., :1]
        pull = on_face(g, u, vt, top, lambda v: prox.simplex(v, lam[..., 0], axis=-1), lam)
        rest = jnp.where(s[..., :1, None] > 0, g + pull, prox.spectral_norm(g, lam))
        return rest.reshape(x.shape)

    def leaf_lambda_max(self, grad: Array) -> Array:
        size = jnp.sum(singular_values(self.matrices(grad)), -1)[..., None, None]
        return largest_ratio(size, self.field("lam"))

    def leaf_conjugate(self, dual: Array) -> Array:
        size = jnp.sum(singular_values(self.matrices(dual)), -1)[..., None, None]
        return inside_ball(size, self.field("lam"))


class Orthogonal(OfMatrices):
    """lam/2 * |W^T W - I|_F^2, on the shorter side; doubled, and up by a constant, for both."""

    lam: ArrayLike | PyTree
    double_sided: bool = static_field(default=False, kw_only=True)
    smooth, convex = True, False

    def leaf_value(self, x: Array) -> Array:
        # Squares of what is very large overflow to inf and -inf, whose sum is NaN: then in other units.
        top = lax.stop_gradient(jnp.max(jnp.abs(x), initial=0))
        unit = jnp.where(top > 1e9, top, 1)
        w = self.matrices(x) / unit
        m, n = w.shape[-2:]
        wt = jnp.swapaxes(w, -1, -2)
        gram = times(wt, w) if n <= m else times(w, wt)
        square = unit * unit
        off = gram - jnp.eye(min(m, n), dtype=x.dtype) / square
        one = jnp.sum(jnp.square(off), (-2, -1)) * square * square
        size = 2 * one + abs(m - n) if self.double_sided else one
        return jnp.sum(0.5 * to_matrix(self.field("lam")) * size)

    def leaf_prox(self, x: Array, step: Array) -> Array:
        threshold = self.per_matrix("step", step) * self.field("lam")
        sides = 2 if self.double_sided else 1
        return prox.orthogonal(self.matrices(x), sides * threshold).reshape(x.shape)


def nuclear(lam: ArrayLike | PyTree, *, rows: int = 1, columns: int = 1) -> Penalty:
    """lam * sum of singular values: the lasso of matrices; its prox makes the rank small.

    The largest convex function below the rank on the spectral ball. Pick it to compress layers by
    factorising them, to complete matrices, for multi-task weights that share a subspace.

    Args:
      lam: strength >= 0: a scalar, a prefix pytree (per layer), or arrays with one number per matrix.
        Units of the loss per unit of the parameters.
      rows: how many axes, just before the columns, are the rows; 3 for convolutions.
      columns: how many last axes are the columns.

    Raises:
      ValueError: `lam` is negative or NaN; at the first call, a leaf has too few axes; in `prox`, the
        step differs inside a matrix. TypeError: `lam` is no number, `rows` or `columns` no count.

    Source: Fazel (2002), chapter 5; prox: Cai, Candes & Shen (2010), theorem 2.1. Cost: one SVD.
    >>> import jaxreg as jr
    >>> w = jnp.diag(jnp.array([3.0, 0.5]))
    >>> jr.nuclear(2.0)(w).item()
    7.0
    >>> jnp.linalg.matrix_rank(jr.nuclear(1.0).prox(w, 1.0)).item()
    1
    """
    return Nuclear(strength("nuclear", "lam", lam), **axes("nuclear", rows, columns))


def log_det(
    lam: ArrayLike | PyTree,
    epsilon: ArrayLike | PyTree = 1.0,
    *,
    rows: int = 1,
    columns: int = 1,
) -> Penalty:
    """lam * sum log(1 + s_i / epsilon): nearer to the rank than the nuclear norm, and not convex.

    For a symmetric W >= 0 it is lam * log det(I + W / epsilon). Large singular values are hardly
    shrunk, by lam / (epsilon + s). Pick it where the nuclear norm's bias hurts.

    Args:
      lam: strength >= 0: a scalar, a prefix pytree (per layer), or arrays with one number per matrix.
        Units of the loss.
      epsilon: > 0, in any of the same forms: the size below which a singular value counts nearly
        linearly. Units of the parameters. The prox is single-valued for step * lam <= epsilon^2;
        beyond, values jump to 0, and the prox is a global minimiser.
      rows: how many axes, just before the columns, are the rows; 3 for convolutions.
      columns: how many last axes are the columns.

    Raises:
      ValueError: `lam` is negative or NaN, `epsilon` is not > 0; at the first call, a leaf has too few
        axes; in `prox`, the step differs inside a matrix. TypeError: an argument is of the wrong kind.

    Source: Fazel, Hindi & Boyd (2003), on singular values; prox: Lu et al. (2015), theorem 1.
    Cost: one SVD.
    >>> import jaxreg as jr
    >>> w = jnp.diag(jnp.array([3.0, 0.0]))
    >>> jr.log_det(1.0)(w).item(), jnp.linalg.slogdet(jnp.eye(2) + w)[1].item()
    (1.386..., 1.386...)
    """
    checked = strength("log_det", "lam", lam), above("log_det", "epsilon", epsilon, 0)
    return LogDet(*checked, **axes("log_det", rows, columns))


def spectral_norm(lam: ArrayLike | PyTree, *, rows: int = 1, columns: int = 1) -> Penalty:
    """lam * largest singular value: bounds how much a layer can amplify; zeroes nothing but all.

    Its gradient is that of the top singular pair, shared equally among exact ties, and 0 at 0. For a
    bound in place of a price see `spectral_ball`. (The square of it, as some papers penalize, is
    another penalty.)

    Args:
      lam: strength >= 0: a scalar, a prefix pytree (per layer), or arrays with one number per matrix.
        Units of the loss per unit of the parameters.
      rows: how many axes, just before the columns, are the rows; 3 for convolutions. The norm is that
        of this matrix, not of the convolution as an operator on images.
      columns: how many last axes are the columns.

    Raises:
      ValueError: `lam` is negative or NaN; at the first call, a leaf has too few axes; in `prox`, the
        step differs inside a matrix. TypeError: `lam` is no number, `rows` or `columns` no count.

    Source: Yoshida & Miyato (2017), without their square; prox: Parikh & Boyd (2014), section 6.7.2.
    Cost: one SVD.
    >>> import jaxreg as jr
    >>> jr.spectral_norm(2.0)(jnp.diag(jnp.array([3.0, 0.5]))).item()
    6.0
    """
    checked = strength("spectral_norm", "lam", lam)
    return SpectralNorm(checked, **axes("spectral_norm", rows, columns))


def orthogonal(
    lam: ArrayLike | PyTree, *, double_sided: bool = False, rows: int = 1, columns: int = 1
) -> Penalty:
    """lam/2 * |W^T W - I|_F^2: pulls all singular values to 1. Mind the half.

    Columns become orthonormal, or rows where W is wide (W W^T - I): the side that can. The value is 0
    there and only there. Its gradient is 2 lam W (W^T W - I). Pick it to keep signals and gradients
    from vanishing in deep nets. Smooth, not convex; and it has an exact prox.

    Args:
      lam: strength >= 0: a scalar, a prefix pytree (per layer), or arrays with one number per matrix.
        Units of the loss.
      double_sided: whether to add the other side, lam/2 * |W W^T - I|_F^2. Both have the same nonzero
        eigenvalues, so for an m x n matrix this is twice the penalty plus lam/2 * |m - n|, a constant:
        another name for 2 lam, and never 0 unless m = n.
      rows: how many axes, just before the columns, are the rows; 3 for convolutions, whose filters
        then become orthonormal.
      columns: how many last axes are the columns.

    Raises:
      ValueError: `lam` is negative or NaN; at the first call, a leaf has too few axes; in `prox`, the
        step differs inside a matrix. TypeError: an argument is of the wrong kind.

    Source: Bansal, Chen & Wang (2018), section 3, without a half there. Cost: two products; the prox
    one SVD.
    >>> import jaxreg as jr
    >>> jr.orthogonal(1.0)(jnp.array([[2.0, 0.0], [0.0, 1.0], [0.0, 0.0]])).item()
    4.5
    """
    if not isinstance(double_sided, bool):
        raise TypeError(f"orthogonal: `double_sided` must be True or False, got {double_sided!r}.")
    checked = strength("orthogonal", "lam", lam)
    return Orthogonal(checked, double_sided=double_sided, **axes("orthogonal", rows, columns))
