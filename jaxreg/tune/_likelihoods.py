"""The likelihoods by which models are judged without folds, as functions of the outputs of a row."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

__all__ = ["LIKELIHOODS", "Likelihood"]


class Likelihood(NamedTuple):
    """The negative log likelihood of a row's outputs f [m], without what is the same for all f.

    Attributes:
      loss: (f, y) -> a number.
      root: f -> S [m, m], with S S' the Hessian of `loss` by f.
      rest: y [n, ...] -> what `loss` leaves out, the mean over rows.
      targets: what `y` must be, in words.
      fits: (y, m) -> whether it is that, of m outputs.
    """

    loss: Callable[[Array, Array], Array]
    root: Callable[[Array], Array]
    rest: Callable[[np.ndarray], float]
    targets: str
    fits: Callable[[np.ndarray, int], bool]


def _categorical_root(f: Array) -> Array:
    """diag(√p) - p √p', whose square is diag(p) - p p'."""
    p = jax.nn.softmax(f)
    return jnp.diag(jnp.sqrt(p)) - p[:, None] * jnp.sqrt(p)


def _bernoulli_root(f: Array) -> Array:
    return jnp.diag(jnp.sqrt(jax.nn.sigmoid(f) * jax.nn.sigmoid(-f)))


def _log_factorials(y: np.ndarray) -> float:
    from scipy.special import gammaln  # half a second, if at every start

    return float(gammaln(y.reshape(len(y), -1) + 1.0).sum(1).mean())


LIKELIHOODS: dict[str, Likelihood] = {
    "categorical": Likelihood(
        optax.losses.softmax_cross_entropy_with_integer_labels,
        _categorical_root,
        lambda y: 0.0,
        "integers from 0 to the number of outputs less 1",
        lambda y, m: y.dtype.kind in "iu" and y.ndim == 1 and m > 1 and y.min() >= 0 and y.max() < m,
    ),
    "gaussian": Likelihood(
        lambda f, y: 0.5 * jnp.sum((f - y) ** 2),
        lambda f: jnp.eye(f.shape[0], dtype=f.dtype),
        lambda y: 0.0,
        "numbers of the shape of the outputs",
        lambda y, m: y[0].size == m,
    ),
    "bernoulli": Likelihood(
        lambda f, y: jnp.sum(optax.losses.sigmoid_binary_cross_entropy(f, y)),
        _bernoulli_root,
        lambda y: 0.0,
        "numbers between 0 and 1 of the shape of the outputs, which are logits",
        lambda y, m: bool(y[0].size == m and y.min() >= 0 and y.max() <= 1),
    ),
    "poisson": Likelihood(
        lambda f, y: jnp.sum(jnp.exp(f) - y * f),
        lambda f: jnp.diag(jnp.exp(f / 2)),
        _log_factorials,
        "counts of at least 0 of the shape of the outputs, which are logarithms of rates",
        lambda y, m: bool(y[0].size == m and y.min() >= 0),
    ),
}  # fmt: skip
