"""The evidence of nets beside cross-validation, and what cheaper curvatures make of it.

Of each draw the λ where the evidence is largest, of the trainings on all its rows, against the `min`
rule of five folds. `full` is `jaxreg`'s, with a curvature for every pair of parameters; `last layer`
integrates over the last kernel alone, the others its fixed features; `Kronecker` has a product of two
matrices for each layer (Martens & Grosse 2015), summed over rows apart; `diagonal` has the diagonal.
`MacKay` trains one net and sets n λ = γ / |θ|² twenty times on the way, γ at the full curvature of the
moment (MacKay 1992; Immer et al. 2021); its test loss is that of its net.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from _common import Row, bound
from _resampled import FOLDS, Task, net

import jaxreg as jr
from jaxreg.choice import choose
from jaxreg.scores import Scores
from jaxreg.tune.evidence import evidence as evidence_of

ROUNDS = 20  # of MacKay's fixed point
NARROWER = ("last layer", "Kronecker", "diagonal")


def evidence(count: int, smoke: bool) -> tuple[list[Row], list[Row]]:
    """Test loss of each choice less that of cross-validation's, and the trainings that each took."""
    rows, bounds = [], []
    for name, task in _tasks(smoke):
        every = [_judged(task, draw) for draw in _draws(task, count)]
        points = len(task.grid)
        trainings = {"cross-validation, min": FOLDS * points + 1, "MacKay": 1}
        for method in every[0]:
            cost = [of[method].test - of["cross-validation, min"].test for of in every]
            rows.append({
                "task": name, "chosen by": method, "test loss - min": _mean(cost),
                "lam (geometric mean)": float(np.exp(np.mean([np.log(of[method].lam) for of in every]))),
                "at an end": int(sum(of[method].end for of in every)),
                "trainings": trainings.get(method, points), "draws": len(every),
            })  # fmt: skip
        full = next(
            row for row in rows if row["task"] == name and row["chosen by"] == "evidence, full"
        )
        bounds.append(bound(f"{name}: test loss of the evidence's choice less that of min",
                            full["test loss - min"][0], most=0.01))  # fmt: skip
    return rows, bounds


def _tasks(smoke: bool) -> list[tuple[str, Task]]:
    lams = lambda low, high: np.geomspace(low, high, 4 if smoke else 16)
    if smoke:
        return [("digits, 16-16", net("digits", 40, lams(1e-4, 0.1), hidden=16, steps=20))]
    return [
        ("breast_cancer, 32-32", net("breast_cancer", 100, lams(1e-3, 1), hidden=32)),
        ("digits, 64-64", net("digits", 100, lams(1e-5, 0.1))),
        ("digits, 128-128", net("digits", 100, lams(1e-5, 0.1), hidden=128)),
    ]


def _mean(values: Sequence[float]) -> list[float]:
    """Mean and standard error over draws."""
    array = np.asarray(values, float)
    return [float(array.mean()), float(array.std(ddof=1) / np.sqrt(len(array)))]


# --- draws -------------------------------------------------------------------------------------------


class _Draw(NamedTuple):
    """Scores of the folds, and the trainings on all rows of the draw with the test rows judging."""

    scores: Scores
    result: jr.SweepResult
    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]


class _Pick(NamedTuple):
    lam: float
    test: float
    end: bool


def _draws(task: Task, count: int) -> list[_Draw]:
    """Folds and all rows of every draw as folds of one sweep."""
    n, pairs, parts = len(task.data[0]), [], []
    for r in range(count):
        order = np.random.default_rng(r).permutation(n)
        rows, test = order[: task.rows], order[task.rows :]
        pairs += [(np.setdiff1d(rows, part), part) for part in np.array_split(rows, FOLDS)]
        pairs.append((rows, test))
        parts.append([tuple(a[some] for a in task.data) for some in (rows, test)])
    result = jr.sweep(
        task.trainer, task.grid, task.data, folds=pairs, steps=task.steps, evals=1, key=jax.random.key(0),
        progress=None,
    )  # fmt: skip
    loss, coords = result.scores(), {"lam": np.asarray(result.coords["lam"])}
    at = lambda r: slice((FOLDS + 1) * r, (FOLDS + 1) * (r + 1) - 1)
    return [
        _Draw(Scores(loss[:, at(r)], coords), _of_fold(result, at(r).stop), *parts[r])
        for r in range(count)
    ]


def _of_fold(result: jr.SweepResult, f: int) -> jr.SweepResult:
    """One fold of a sweep as a sweep of its own."""
    cut = lambda tree: jax.tree.map(lambda a: np.asarray(a)[:, f : f + 1], tree)
    names = ("train", "valid", "terms", "params", "status")
    stop = None if result.stop is None else cut(result.stop)
    return dataclasses.replace(
        result, stop=stop, **{name: cut(getattr(result, name)) for name in names}
    )


def _judged(task: Task, draw: _Draw) -> dict[str, _Pick]:
    """What each method takes of a draw."""
    lams, test = np.asarray(draw.result.coords["lam"], float), draw.result.scores()[:, 0, 0]

    def pick(k: int) -> _Pick:
        return _Pick(float(lams[k]), float(test[k]), k in (0, len(lams) - 1))

    found = {"cross-validation, min": pick(choose("min", draw.scores).index)}
    full = evidence_of(logits, draw.result, draw.train)
    found["evidence, full"] = pick(int(full.log_evidence[:, 0].argmax()))
    narrow = np.array(
        [_narrower(draw.result.lane(k), lam, draw.train) for k, lam in enumerate(lams)]
    )
    found |= {name: pick(int(narrow[:, i].argmax())) for i, name in enumerate(NARROWER)}
    found["MacKay"] = _fixed_point(task, draw)
    found["the best in hindsight"] = pick(int(test.argmin()))
    return found


# --- narrower curvatures ------------------------------------------------------------------------------


def logits(params: dict, x: jax.Array) -> jax.Array:
    """Of the net of `_common.cross_entropy`."""
    return _layers(params, x)[-1]


def _layers(params: dict, x: jax.Array) -> list[jax.Array]:
    """The inputs of each layer, and the logits."""
    *hidden, last = params.values()
    inputs = [x]
    for layer in hidden:
        inputs.append(jax.nn.relu(inputs[-1] @ layer["kernel"] + layer["bias"]))
    return [*inputs, inputs[-1] @ last["kernel"] + last["bias"]]


@jax.jit
def _roots(params: dict, x: jax.Array) -> dict:
    """S'J by leaf, [rows x outputs, *shape], S S' = diag(p) - p p'."""

    def of_row(row: jax.Array) -> dict:
        f = lambda params: logits(params, row[None])[0]
        p = jax.nn.softmax(f(params))
        root = jnp.diag(jnp.sqrt(p)) - p[:, None] * jnp.sqrt(p)
        return jax.tree.map(lambda j: jnp.tensordot(root.T, j, 1), jax.jacrev(f)(params))

    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), jax.vmap(of_row)(x))


def _narrower(params: dict, lam: float, data: tuple) -> tuple[float, float, float]:
    """Log evidence with the curvatures of `NARROWER`, in their order."""
    x, y = data
    n, roots = len(x), _roots(params, x)
    *inputs, f = map(np.asarray, _layers(params, x))
    fit = float(
        np.sum(np.log(np.exp(f - f.max(1, keepdims=True)).sum(1)) + f.max(1) - f[np.arange(n), y])
    )
    kernels = [np.asarray(layer["kernel"]) for layer in params.values()]
    square = [0.5 * n * lam * float((k**2).sum()) for k in kernels]
    flat = [
        np.asarray(r["kernel"], np.float64).reshape(len(r["kernel"]), -1) for r in roots.values()
    ]
    slopes = [np.asarray(r["bias"], np.float64) for r in roots.values()]
    last = np.linalg.slogdet(np.eye(flat[-1].shape[1]) + flat[-1].T @ flat[-1] / (n * lam))[1]
    factored = sum(_factored(a.astype(np.float64), d, n * lam) for a, d in zip(inputs, slopes))
    diagonal = sum(float(np.log1p((a**2).sum(0) / (n * lam)).sum()) for a in flat)
    whole = fit + sum(square)
    return -fit - square[-1] - 0.5 * last, -whole - 0.5 * factored, -whole - 0.5 * diagonal


def _factored(inputs: np.ndarray, slopes: np.ndarray, precision: float) -> float:
    """log det(I + mean(a a') ⊗ sum(d d') / precision), by the eigenvalues of the factors."""
    a = np.linalg.eigvalsh(inputs.T @ inputs / len(inputs)).clip(0)
    d = np.linalg.eigvalsh(slopes.T @ slopes).clip(0)
    return float(np.log1p(np.outer(a, d) / precision).sum())


# --- MacKay's fixed point ----------------------------------------------------------------------------


@functools.cache
def _stretch(task_trainer: Callable, steps: int) -> Callable:
    """The compiled function (state, λ, batch) -> state after so many steps."""

    def run(params: Any, state: Any, lam: jax.Array, batch: tuple) -> tuple[Any, Any]:
        made = task_trainer(jr.l2(lam).on(jr.kernels))

        def step(_: Any, carry: tuple) -> tuple:
            params, state = carry
            grads = jax.grad(made.loss)(params, *batch)
            updates, state = made.optimizer.update(grads, state, params)
            return jax.tree.map(jnp.add, params, updates), state

        return jax.lax.fori_loop(0, steps, step, (params, state))

    return jax.jit(run)


def _fixed_point(task: Task, draw: _Draw) -> _Pick:
    """One training whose λ follows n λ = γ / |θ|²."""
    made = task.trainer(jr.l2(0.0).on(jr.kernels))
    params = made.init(jax.random.key(0))
    state, n, lam = made.optimizer.init(params), len(draw.train[0]), 1e-3
    run = _stretch(task.trainer, max(task.steps // ROUNDS, 1))
    for _ in range(ROUNDS):
        params, state = run(params, state, jnp.float32(lam), draw.train)
        roots = [
            np.asarray(r["kernel"], np.float64) for r in _roots(params, draw.train[0]).values()
        ]
        s = np.linalg.eigvalsh(_gram([r.reshape(len(r), -1) for r in roots])).clip(0)
        size = sum(float((np.asarray(layer["kernel"]) ** 2).sum()) for layer in params.values())
        lam = float((s / (s + n * lam)).sum() / size / n)
    return _Pick(lam, float(made.loss(params, *draw.test)), False)


def _gram(parts: list[np.ndarray]) -> np.ndarray:
    """On the smaller side."""
    whole = np.concatenate(parts, 1)
    return whole @ whole.T if len(whole) < whole.shape[1] else whole.T @ whole
