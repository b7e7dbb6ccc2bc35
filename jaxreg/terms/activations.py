"""Terms on activations: their size, their change in time, how rarely and how differently units are active.

Every one is a mean, over rows, times and units alike, so that it depends neither on the size of a batch nor
on the length of a sequence; a `mask` of the first axes leaves padding out. h are activations, [rows, units]
or [rows, times, units].

| term | value |
|---|---|
| activity_l1 | mean |h| |
| activity_l2, AR | mean h² |
| TAR | mean (h_t − h_{t−1})² |
| kl_sparsity | mean over units of KL(ρ || ρ̂_j), ρ̂_j the mean activation of unit j |
| covariance | sum over pairs of different units of cov_ij², over the number of units |
| variance | mean over units of max(0, γ − sqrt(var_j + ε)) |
| center | mean over rows of ½ |h − c_y|² |

`top_k` is no term: it keeps the k largest activations of a row, and so sets outright what `activity_l1`
sets by its strength.

Sources: AR and TAR, Merity, McCann & Socher 2017 ("Revisiting activation regularization for language RNNs",
eqs. 1 and 2, with the L2 as the mean square, as in their code); sparsity, Ng 2011 ("Sparse autoencoder",
section 3); variance and covariance, Bardes, Ponce & LeCun 2022 (VICReg, eqs. 1 to 4), which without the
square root and over all pairs is DeCov's (Cogswell et al. 2016, up to a factor); center loss, Wen et al.
2016 (eq. 2, as a mean); the k largest, Makhzani & Frey 2014 (section 2), Gao et al. 2024 (section 2.3).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxreg._check import above, shown, strength, within
from jaxreg._tree import is_concrete, is_floating
from jaxreg.terms._base import Term, lam_of, mean_over, rows_of
from jaxreg.value import static_field

__all__ = [
    "ActivityL1", "ActivityL2", "Center", "Covariance", "KlSparsity", "Tar", "Variance", "activity_l1",
    "activity_l2", "center", "covariance", "kl_sparsity", "tar", "top_k", "variance",
]  # fmt: skip

_ANY = "of activations"


class ActivityL1(Term):
    """lam * mean |h|."""

    lam: Any

    def value(self, h: Array, mask: Any = None) -> Array:
        return mean_over(self, jnp.abs(rows_of(self, "h", h, 1, _ANY)), mask)


class ActivityL2(Term):
    """lam * mean h²."""

    lam: Any

    def value(self, h: Array, mask: Any = None) -> Array:
        return mean_over(self, jnp.square(rows_of(self, "h", h, 1, _ANY)), mask)


class Tar(Term):
    """lam * mean of the squared changes along the time axis."""

    lam: Any
    axis: int = static_field()

    def value(self, h: Array, mask: Any = None) -> Array:
        h = rows_of(self, "h", h, 2, "of activations with an axis of time")
        if not -h.ndim <= self.axis < h.ndim or h.shape[self.axis] < 2:
            raise ValueError(
                f"tar: `axis` must be the axis of time, of at least 2 steps, got {self.axis} of shape "
                f"{list(h.shape)}."
            )
        axis = self.axis % h.ndim
        if mask is not None and len(jnp.shape(mask)) > axis and hasattr(mask, "dtype"):
            # A change counts where both of its ends do.
            ends = [jnp.take(mask, jnp.arange(i, mask.shape[axis] - 1 + i), axis) for i in (0, 1)]
            mask = (ends[0] != 0) & (ends[1] != 0)
        return mean_over(self, jnp.square(jnp.diff(h, axis=axis)), mask)


class KlSparsity(Term):
    """lam * mean over units of KL(ρ || mean activation of the unit), activations between 0 and 1."""

    lam: Any
    rate: Any

    def value(self, h: Array, mask: Any = None) -> Array:
        rows, keep = _flat(self, h, mask, 1)
        tiny = jnp.finfo(rows.dtype).eps
        mean = jnp.clip(_mean_of_rows(rows, keep), tiny, 1 - tiny)
        rho = self.rate
        return jnp.mean(rho * jnp.log(rho / mean) + (1 - rho) * jnp.log((1 - rho) / (1 - mean)))


class Covariance(Term):
    """lam / units * sum over pairs of different units of their squared covariance over rows."""

    lam: Any

    def value(self, h: Array, mask: Any = None) -> Array:
        rows, keep = _flat(self, h, mask, 2)
        off = rows - _mean_of_rows(rows, keep)
        cov = (off * keep[:, None]).T @ off / jnp.maximum(jnp.sum(keep) - 1, 1)
        return (jnp.sum(jnp.square(cov)) - jnp.sum(jnp.square(jnp.diagonal(cov)))) / rows.shape[1]


class Variance(Term):
    """lam * mean over units of max(0, level - sqrt(variance over rows + eps))."""

    lam: Any
    level: Any
    eps: Any

    def value(self, h: Array, mask: Any = None) -> Array:
        rows, keep = _flat(self, h, mask, 2)
        squares = jnp.square(rows - _mean_of_rows(rows, keep)) * keep[:, None]
        variance = jnp.sum(squares, 0) / jnp.maximum(jnp.sum(keep) - 1, 1)
        return jnp.mean(jnp.maximum(self.level - jnp.sqrt(variance + self.eps), 0))


class Center(Term):
    """lam * mean over rows of half the squared distance from the centre of their class."""

    lam: Any

    def value(self, h: Array, labels: Array, centers: Array) -> Array:
        h = rows_of(self, "h", h, 2, "[rows, units]")
        centers = rows_of(self, "centers", centers, 2, "[classes, units]")
        whole = hasattr(labels, "dtype") and jnp.issubdtype(labels.dtype, jnp.integer)
        if not whole or labels.shape != h.shape[:-1] or centers.shape[1:] != h.shape[-1:]:
            raise ValueError(
                "center: `labels` must be integers of the rows of `h`, and `centers` [classes, units], got "
                f"labels {_kind(labels)}, h {list(h.shape)}, centers {list(centers.shape)}."
            )
        return 0.5 * jnp.mean(jnp.sum(jnp.square(h - centers[labels]), -1))


def _kind(x: Any) -> str:
    return f"{x.dtype}{list(x.shape)}" if hasattr(x, "dtype") else type(x).__name__


def _flat(term: Term, h: Any, mask: Any, fewest: int) -> tuple[Array, Array]:
    """Activations as [rows, units], and which rows count, 0 or 1."""
    h = rows_of(term, "h", h, 2, "[rows, units] or [rows, times, units]")
    mean_over(term, h, mask)  # whose errors are those of a mask
    keep = jnp.ones(h.shape[:-1]) if mask is None else jnp.asarray(mask != 0, h.dtype)
    if keep.ndim >= h.ndim:
        raise ValueError(
            f"{term.label}: `mask` must be one of rows, without units, got {list(keep.shape)}."
        )
    keep = jnp.broadcast_to(
        keep.reshape(*keep.shape, *[1] * (h.ndim - 1 - keep.ndim)), h.shape[:-1]
    )
    rows, keep = h.reshape(-1, h.shape[-1]), keep.reshape(-1).astype(h.dtype)
    if len(rows) < fewest:
        raise ValueError(
            f"{term.label}: `h` must have at least {fewest} rows, got shape {list(h.shape)}."
        )
    return jnp.where(keep[:, None] > 0, rows, 0), keep


def _mean_of_rows(rows: Array, keep: Array) -> Array:
    return jnp.sum(rows * keep[:, None], 0) / jnp.maximum(jnp.sum(keep), 1)


def top_k(codes: Array, k: ArrayLike) -> Array:
    """The k largest entries along the last axis, each as it is, and 0 elsewhere.

    Of equal entries the first are kept. Only what is kept has a gradient.

    Args:
      codes: [..., units], floating.
      k: how many are kept, a whole number >= 0; from the number of units on nothing changes. It may be
        swept: one that is not known while tracing is rounded.

    Raises:
      TypeError: `codes` is no floating array, or `k` no number. ValueError: `codes` has no axis, or `k` is
        negative, a fraction, or several.

    Source: Makhzani & Frey (2014), section 2; Gao et al. (2024), section 2.3. Cost: one sort.
    >>> top_k(jnp.array([0.5, 3.0, -1.0, 3.0]), 2).tolist()
    [0.0, 3.0, 0.0, 3.0]
    """
    if not is_floating(codes) or not hasattr(codes, "dtype"):
        raise TypeError(
            f"top_k: `codes` must be a floating array of activations, got {_kind(codes)}."
        )
    if not codes.shape:
        raise ValueError("top_k: `codes` must have an axis of units, got shape [].")
    if getattr(k, "dtype", None) == np.dtype(bool):
        raise TypeError(f"top_k: `k` must be a number of units, got {shown(k)}.")
    count = strength("top_k", "k", k)
    if not isinstance(count, Array) or count.ndim:
        raise ValueError(f"top_k: `k` must be one number, got {shown(k)}.")
    if is_concrete(count) and np.asarray(count) % 1:
        raise ValueError(f"top_k: `k` must be a whole number, got {shown(k)}.")
    if not codes.size:
        return codes
    # A NaN counts as the largest, so that it stays visible.
    held = jax.lax.stop_gradient(codes)
    held = jnp.where(jnp.isnan(held), jnp.inf, held)
    width = codes.shape[-1]
    count = jnp.clip(jnp.round(count), 0, width).astype(int)
    ascending = jnp.sort(held, axis=-1)
    least = jnp.take(ascending, jnp.clip(width - count, 0, width - 1), axis=-1)[..., None]
    above, equal = held > least, held == least
    first = jnp.cumsum(equal, -1) <= count - jnp.sum(above, -1, keepdims=True)
    kept = (above | equal & first) & (count > 0)
    return jnp.where(kept, codes, jnp.zeros((), codes.dtype))


# --- constructors ------------------------------------------------------------------------------------


def activity_l1(lam: ArrayLike) -> ActivityL1:
    """lam * mean |h|: sparse activations.

    Args:
      lam: strength >= 0.

    Raises:
      TypeError, ValueError: `lam` is no number >= 0.

    >>> activity_l1(0.5)(jnp.array([[1.0, -3.0]])).item()
    1.0
    """
    return ActivityL1(lam_of("activity_l1", lam))


def activity_l2(lam: ArrayLike) -> ActivityL2:
    """lam * mean h²: activation regularisation (AR) of recurrent nets, on the outputs after dropout.

    Args:
      lam: strength >= 0; α of Merity, McCann & Socher 2017.

    Raises:
      TypeError, ValueError: `lam` is no number >= 0.

    >>> term = activity_l2(0.5)
    >>> term(jnp.array([[1.0, -3.0]])).item()
    2.5
    >>> padded = jnp.array([[[1.0], [9.0]]])
    >>> term(padded, mask=jnp.array([[1, 0]])).item()
    0.5
    """
    return ActivityL2(lam_of("activity_l2", lam))


def tar(lam: ArrayLike, *, axis: int) -> Tar:
    """lam * mean (h_t − h_{t−1})²: temporal activation regularisation, on the outputs before dropout.

    Args:
      lam: strength >= 0; β of Merity, McCann & Socher 2017.
      axis: which axis of h is time; 1 of [rows, times, units], 0 of what `lax.scan` stacks.

    Raises:
      TypeError, ValueError: `lam` is no number >= 0, or `axis` no integer; when called, the axis has less
        than two steps.

    >>> tar(1.0, axis=1)(jnp.array([[[1.0], [2.0], [5.0]]])).item()  # (1 + 9) / 2
    5.0
    """
    if not isinstance(axis, int) or isinstance(axis, bool):
        raise TypeError(
            "tar: `axis` must be the axis of time, an integer such as 1 of [rows, times, units], got "
            f"{axis!r}."
        )
    return Tar(lam_of("tar", lam), axis)


def kl_sparsity(lam: ArrayLike, rate: ArrayLike = 0.05) -> KlSparsity:
    """lam * mean over units of KL(ρ || ρ̂_j): each unit active in a share ρ of the rows, on average.

    KL = ρ log(ρ/ρ̂) + (1 − ρ) log((1 − ρ)/(1 − ρ̂)), ρ̂ the mean of a unit over rows, in a sigmoid's range.

    Args:
      lam: strength >= 0.
      rate: ρ, between 0 and 1.

    Raises:
      TypeError, ValueError: `lam` is no number >= 0, or `rate` is outside of (0, 1).

    >>> kl_sparsity(1.0, 0.5)(jnp.array([[0.25], [0.75]])).item()
    0.0
    """
    within("kl_sparsity", "rate", rate, 0, 1)
    return KlSparsity(lam_of("kl_sparsity", lam), jnp.asarray(rate, float))


def covariance(lam: ArrayLike) -> Covariance:
    """lam / units * sum of squared covariances of different units: units that do not repeat each other.

    Args:
      lam: strength >= 0; ν of VICReg.

    Raises:
      TypeError, ValueError: `lam` is no number >= 0.

    >>> h = jnp.array([[1.0, 1.0], [-1.0, -1.0]])  # covariance 2, twice
    >>> covariance(1.0)(h).item()
    4.0
    """
    return Covariance(lam_of("covariance", lam))


def variance(lam: ArrayLike, level: ArrayLike = 1.0, eps: ArrayLike = 1e-4) -> Variance:
    """lam * mean over units of max(0, level − sqrt(var + eps)): no unit collapses to a constant.

    Args:
      lam: strength >= 0; μ of VICReg.
      level: γ > 0, the standard deviation below which it pulls.
      eps: > 0, added to the variance.

    Raises:
      TypeError, ValueError: `lam` is no number >= 0, or `level` or `eps` not above 0.

    >>> variance(1.0)(jnp.zeros((3, 2))).item()  # 1 - sqrt(1e-4)
    0.99...
    """
    level, eps = (above("variance", n, x, 0) for n, x in (("level", level), ("eps", eps)))
    return Variance(lam_of("variance", lam), level, eps)


def center(lam: ArrayLike) -> Center:
    """lam * mean over rows of ½ |h − c_y|²: features near their class's centre; term(h, labels, centers).

    Args:
      lam: strength >= 0.

    Raises:
      TypeError, ValueError: `lam` is no number >= 0.

    >>> centers = jnp.array([[0.0, 0.0], [3.0, 4.0]])
    >>> center(1.0)(jnp.zeros((1, 2)), jnp.array([1]), centers).item()
    12.5
    """
    return Center(lam_of("center", lam))
