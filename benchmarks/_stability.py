"""Which variables are taken, by λ for prediction or by stability: eight are true of two hundred correlated.

Each data set has 150 rows of an autoregressive design (0.6 between neighbours) and coefficients ±1/2 at 25
columns' distance. Rules choose λ of a lasso by five folds and are fitted to all rows; stability selection
takes 50 complementary pairs of halves.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _common import Row, bound

import jaxreg as jr
from jaxreg.choice import choose
from jaxreg.scores import Scores

ROWS, COLUMNS, TRUE, NOISE = 150, 200, 8, 1.0
RULES = ("min", "paired", "1se")
THRESHOLDS = (0.6, 0.75, 0.9)
MANY = 20.0  # variables of a half that are let through, where the bound is no one


def loss(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
    return 0.5 * jnp.mean((x @ params["kernel"] - y) ** 2)


def init(key: jax.Array) -> dict[str, jax.Array]:
    del key
    return {"kernel": jnp.zeros(COLUMNS)}


def lasso(reg: Any) -> jr.Trainer:
    return jr.Trainer(init, loss, jr.proximal(optax.trace(0.9, nesterov=True), reg, 0.02))


def data_set(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows to choose with, and as many to be judged on."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(2 * ROWS, COLUMNS))
    for j in range(1, COLUMNS):
        x[:, j] = 0.6 * x[:, j - 1] + 0.8 * x[:, j]
    y = x @ truth() + NOISE * rng.normal(size=len(x))
    return x.astype(np.float32), y.astype(np.float32)


def truth() -> np.ndarray:
    w = np.zeros(COLUMNS)
    w[:: COLUMNS // TRUE] = 0.5 * (-1.0) ** np.arange(TRUE)
    return w


def variables(count: int, smoke: bool) -> tuple[list[Row], list[Row]]:
    """Of each method the true variables that it finds and the false ones that it takes, on average."""
    found: dict[str, list[tuple[float, float, float]]] = {}
    for seed in range(2 if smoke else count):
        data = data_set(seed)
        for name, taken, told in (*_by_rules(data, smoke), *_stable(data, smoke)):
            true = truth() != 0
            found.setdefault(name, []).append((taken[true].sum(), taken[~true].sum(), told))
    mean = {name: np.mean(values, 0) for name, values in found.items()}
    rows = [
        {"method": name, "true found": float(t), "false taken": float(f),
         "bound of false": "" if np.isnan(told) else float(told)}
        for name, (t, f, told) in mean.items()
    ]  # fmt: skip
    single, many = mean[_named(0.75, None)], mean[_named(0.6, MANY)]
    share = float(many[1] / mean["min"][1])
    return rows, [
        bound("false taken by stability at 0.75, its bound 1", float(single[1]), most=1.0),
        bound("false taken by stability at 0.6, q ≤ 20, over those of min", share, most=0.1),
        bound("true found by it, of eight", float(many[0]), least=5.0),
    ]


def _by_rules(
    data: tuple[np.ndarray, np.ndarray], smoke: bool
) -> Iterator[tuple[str, np.ndarray, float]]:
    """Five folds of the rows, and all of them, are folds of one sweep."""
    rows, rest = np.arange(ROWS), np.arange(ROWS, 2 * ROWS)
    parts = np.array_split(np.random.default_rng(0).permutation(ROWS), 5)
    pairs = [(np.setdiff1d(rows, part), part) for part in parts] + [(rows, rest)]
    lams = np.geomspace(0.01, 0.6, 6 if smoke else 20)
    result = jr.sweep(
        lasso, jr.grid(jr.l1, lam=lams), data, folds=pairs, steps=20 if smoke else 600, evals=1,
        key=jax.random.key(0), progress=False,
    )  # fmt: skip
    scores = Scores(result.scores()[:, :5], {"lam": lams}, ("lam",), lams[:, None])
    weights = np.asarray(result.params["kernel"])[:, 5, 0]
    for rule in RULES:
        yield rule, weights[choose(rule, scores).index] != 0, np.nan


def _stable(
    data: tuple[np.ndarray, np.ndarray], smoke: bool
) -> Iterator[tuple[str, np.ndarray, float]]:
    lams = np.geomspace(0.1, 0.6, 3 if smoke else 20)
    half = tuple(a[:ROWS] for a in data)
    found = jr.stability(
        lasso, jr.grid(jr.l1, lam=lams), half, steps=20 if smoke else 400, pairs=2 if smoke else 50,
        key=jax.random.key(1), progress=False,
    )  # fmt: skip
    for most in (None, MANY):
        for threshold in THRESHOLDS:
            taken = found.selected(threshold, most)["kernel"]
            yield _named(threshold, most), taken, found.bound(threshold, most)


def _named(threshold: float, most: float | None) -> str:
    return f"stability, τ = {threshold:g}, " + ("bound 1" if most is None else f"q ≤ {most:g}")
