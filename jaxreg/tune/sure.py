"""Stein's unbiased estimate of the risk, from the data that were fitted and the size of their noise.

Of y = μ + ε, with independent normal ε of standard deviation σ, and an estimator f, differentiable almost
everywhere, with the Jacobian J = df/dy and the degrees of freedom tr J,

    risk   = |y - f|^2 / n - σ^2 + 2 σ^2 tr J / n            has the mean of |f - μ|^2 / n
    stderr = sqrt(4 σ^2 |y - f|^2 + 4 σ^4 tr J^2 - 2 n σ^4) / n

(Stein 1981; for the second Bellec & Zhang 2021, "Second-order Stein: SURE for SURE and other applications
in high-dimensional inference", whose square has the mean of (risk - |f - μ|^2 / n)^2). The traces are
exact, or means over random signs z of z'Jz and z'J(Jz), by forward mode (Hutchinson 1990; Ramani, Blu &
Unser 2008).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxreg import _tree
from jaxreg._check import at_least_float, check_key, count, misfit, shown
from jaxreg.penalty import Penalty

__all__ = ["Sure", "sure"]


class Sure(NamedTuple):
    """An estimate of a risk, and how far to trust it.

    Attributes:
      risk: of the mean square of f - μ; below 0 it may be, as an unbiased estimate of something small.
      stderr: of `risk` about the mean square that these data have, over draws of the noise; NaN where the
        estimate of its square is below 0.
      dof: the degrees of freedom, tr J.
      dof_stderr: of `dof`, over the probes: 0 where it is exact, NaN of a single probe. It makes `risk`
        uncertain by 2 σ^2 / n times as much.
    """

    risk: Array
    stderr: Array
    dof: Array
    dof_stderr: Array


def sure(
    fit: Callable[[Array], Array],
    y: ArrayLike,
    noise: ArrayLike,
    *,
    key: Array | None = None,
    probes: int | None = None,
) -> Sure:
    """Stein's unbiased risk estimate of any differentiable estimator; see the module for the formulas.

    It is a pure function, for `jit`, and for `vmap` over strengths that `fit` closes over. Forward mode
    goes through loops of any length. What is estimated from y, as a λ by cross-validation, belongs
    into `fit`.

    Args:
      fit: y -> fitted values, of the shape of y.
      y: the observations, of any shape.
      noise: σ > 0, their standard deviation about what is estimated. Twice as large a σ makes the share of
        the degrees of freedom four times as large.
      key: PRNG key of the probes.
      probes: how many random directions; by default the traces are exact, for one derivative by each entry
        of y. One probe serves linear smoothers well, and selection wants some ten.

    Returns:
      A `Sure`.

    Raises:
      ValueError: a noise that is not above 0, fitted values of another shape, or probes without a key.
      TypeError: an argument of the wrong kind.

    >>> import jaxreg as jr
    >>> y = jnp.array([3.0, -0.5, 0.2, -2.0])
    >>> found = sure(lambda y: jr.l1(1.0).prox(y, 1.0), y, 1.0)  # soft-thresholding
    >>> found.dof.item(), round(found.risk.item(), 4)
    (2.0, 0.5725)
    """
    y, noise = _observations(y), _noise(noise)
    if not callable(fit) or isinstance(fit, Penalty) or misfit(fit, y) is not None:
        raise TypeError(
            f"sure: `fit` must be a function of the observations, y -> fitted values, got {shown(fit)}."
        )
    if probes is not None:
        probes = count("sure", "probes", probes)
    if probes is not None or key is not None:
        check_key("sure", key)
    _check_fit(fit, y)
    fitted, along = jax.linearize(fit, y)
    size, squares = y.size, jnp.sum((y - fitted) ** 2)
    dof, twice, error = _exact(along, y) if probes is None else _probed(along, y, key, probes)
    risk = squares / size - noise**2 + 2 * noise**2 * dof / size
    square = 4 * noise**2 * squares + 4 * noise**4 * twice - 2 * size * noise**4
    known = jnp.sqrt(jnp.where(square > 0, square, jnp.nan))
    return Sure(risk, known / size, dof, error)


def _exact(along: Callable[[Array], Array], y: Array) -> tuple[Array, Array, Array]:
    """tr J, tr J^2, and that nothing is uncertain about the first."""
    rows = jax.vmap(along)(jnp.eye(y.size, dtype=y.dtype).reshape(y.size, *y.shape))
    rows = rows.reshape(y.size, y.size)
    return jnp.trace(rows), jnp.sum(rows * rows.T), jnp.zeros((), y.dtype)


def _probed(
    along: Callable[[Array], Array], y: Array, key: Any, probes: int
) -> tuple[Array, Array, Array]:
    """The same by random signs, and the standard error of the first."""
    signs = jax.random.rademacher(key, (probes, *y.shape), y.dtype)
    once = jax.vmap(along)(signs)
    each = jnp.sum((signs * once).reshape(probes, -1), 1)
    twice = jnp.sum(signs * jax.vmap(along)(once)) / probes
    spread = jnp.std(each, ddof=1) if probes > 1 else jnp.asarray(jnp.nan, y.dtype)
    return jnp.mean(each), twice, spread / np.sqrt(probes)


def _observations(y: Any) -> Array:
    if isinstance(y, (list, tuple)):
        try:
            y = np.asarray(y)
        except ValueError:  # lists of different lengths
            y = None
    dtype = getattr(y, "dtype", None)
    if dtype is None or not any(jnp.issubdtype(dtype, k) for k in (jnp.floating, jnp.integer)):
        raise TypeError(f"sure: `y` must be an array of numbers, got {shown(y)}.")
    if not np.size(y) or (_tree.is_concrete(y) and not np.isfinite(np.asarray(y, float)).all()):
        what = "NaN or infinity in it" if np.size(y) else "no entry"
        raise ValueError(
            f"sure: `y` must be finite numbers, at least one, got an array with {what}."
        )
    return jnp.asarray(y, at_least_float(y))


def _noise(noise: Any) -> Any:
    wanted = "sure: `noise` must be one number above 0, the standard deviation of the noise"
    kind = getattr(getattr(noise, "dtype", None), "kind", "b")
    number = kind in "fiu" or (isinstance(noise, (int, float)) and type(noise) is not bool)
    if not number:
        raise TypeError(f"{wanted}, got {shown(noise)}.")
    if np.ndim(noise) or (_tree.is_concrete(noise) and not 0 < float(noise) < np.inf):
        raise ValueError(f"{wanted}, got {shown(noise)}.")
    return noise


def _check_fit(fit: Callable[[Array], Array], y: Array) -> None:
    made = jax.eval_shape(fit, y)
    shape = getattr(made, "shape", None)
    if shape != y.shape or not _tree.is_floating(made):
        what = f"{made.dtype}{list(shape)}" if shape is not None else f"a {type(made).__name__}"
        raise ValueError(
            f"sure: `fit` must return fitted values of the shape of `y`, {list(y.shape)}, and it returned "
            f"{what}. Give the predictions at the observations, and not the coefficients."
        )
