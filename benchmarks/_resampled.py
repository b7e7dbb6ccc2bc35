"""Data sets drawn again and again, and everything about each draw trained in one sweep.

A draw takes some rows to choose λ with and leaves the others to test. Its folds and the training on all its
rows are folds of one sweep over the whole data set, so that twenty draws are one compiled program.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _common import cross_entropy, mlp

import jaxreg as jr
from jaxreg.scores import Scores

FOLDS = 5


class Task(NamedTuple):
    """A data set and a model: rows to choose with, λ, the trainer at a penalty."""

    name: str
    data: tuple[np.ndarray, np.ndarray]
    rows: int
    grid: jr.Grid
    trainer: Callable[[Any], jr.Trainer]
    steps: int


class Draw(NamedTuple):
    """What one draw found: validation scores, and test loss and share of nonzeros, [K], of all its rows."""

    scores: Scores
    test: np.ndarray
    nonzero: np.ndarray


@functools.cache
def loaded(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Features and targets, standardised (digits in [0, 1])."""
    from sklearn import datasets

    X, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    if name == "digits":
        return (X / 16).astype(np.float32), y.astype(np.int32)
    X = ((X - X.mean(0)) / X.std(0)).astype(np.float32)
    if name == "diabetes":
        return X, ((y - y.mean()) / y.std()).astype(np.float32)
    return X, y.astype(np.int32)


def linear(name: str, rows: int, lams: np.ndarray, steps: int = 600) -> Task:
    """L1 with exact zeros, by proximal gradient steps with momentum."""
    X, y = loaded(name)
    width = 1 if y.dtype == np.float32 else int(y.max()) + 1

    def trainer(reg: Any) -> jr.Trainer:
        rate = 0.2 if name == "diabetes" else 0.5
        tx = jr.proximal(optax.trace(0.9, nesterov=True), reg, 0.3 * rate)
        init = lambda key: mlp(key, (X.shape[1], width))
        return jr.Trainer(init, _loss(width), tx, {"nonzero": _nonzero})

    grid = jr.grid(lambda lam: jr.l1(lam).on(jr.kernels), lam=lams)
    return Task(f"{name}, linear L1", (X, y), rows, grid, trainer, steps)


def net(name: str, rows: int, lams: np.ndarray, hidden: int = 64, steps: int = 500) -> Task:
    """An MLP with two hidden layers and L2, by Adam."""
    X, y = loaded(name)
    width = 1 if y.dtype == np.float32 else int(y.max()) + 1

    def trainer(reg: Any) -> jr.Trainer:
        tx = optax.chain(jr.add_penalty_gradient(reg), optax.adam(2e-3))
        init = lambda key: mlp(key, (X.shape[1], hidden, hidden, width))
        return jr.Trainer(init, _loss(width), tx, {"nonzero": _nonzero})

    grid = jr.grid(lambda lam: jr.l2(lam).on(jr.kernels), lam=lams)
    return Task(f"{name}, MLP L2", (X, y), rows, grid, trainer, steps)


def _loss(width: int) -> Callable:
    if width > 1:
        return cross_entropy

    def half_square(params: dict, x: jax.Array, y: jax.Array) -> jax.Array:
        *hidden, last = params.values()
        for layer in hidden:
            x = jax.nn.relu(x @ layer["kernel"] + layer["bias"])
        return 0.5 * jnp.mean(((x @ last["kernel"] + last["bias"])[:, 0] - y) ** 2)

    return half_square


def _nonzero(params: dict, x: jax.Array, y: jax.Array) -> jax.Array:
    del x, y
    return jnp.mean(params["dense_0"]["kernel"] != 0)


def draws(task: Task, count: int, seeds: int = 3) -> list[Draw]:
    """So many draws: cross-validation of every λ, and the test of every λ trained on all rows of a draw."""
    n, pairs = len(task.data[0]), []
    for r in range(count):
        order = np.random.default_rng(r).permutation(n)
        rows, test = order[: task.rows], order[task.rows :]
        parts = np.array_split(rows, FOLDS)
        pairs += [(np.setdiff1d(rows, part), part) for part in parts] + [(rows, test)]
    result = jr.sweep(
        task.trainer, task.grid, task.data, folds=pairs, seeds=seeds, steps=task.steps, evals=1,
        key=jax.random.key(0), keep_params=False, progress=None,
    )  # fmt: skip
    every = np.split(np.arange(len(pairs)), count)
    loss, zeros = result.scores(), result.scores("nonzero")
    coords = {"lam": np.asarray(result.coords["lam"])}
    order = ("lam",), coords["lam"][:, None]
    return [
        Draw(
            Scores(loss[:, at[:-1]], coords, *order),
            loss[:, at[-1]].mean(-1),
            zeros[:, at[-1]].mean(-1),
        )
        for at in every
    ]
