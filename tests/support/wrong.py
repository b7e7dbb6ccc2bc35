"""Bad inputs, made of the signatures: every public function x each of its arguments x a table of wrong values.

A function that is new must be given a good call here, by its arguments' names, and is attacked from then on.
"""

import dataclasses
import inspect
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optuna

import jaxreg as jr

NAN = float("nan")


class Odd:
    """Something that no argument takes."""

    def __repr__(self):
        return "<odd>"


ODD = Odd()
W = jnp.ones((4, 3))
PARAMS = {"kernel": W, "bias": jnp.ones(3)}
X, Y = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32), np.ones(12, np.float32)
LABELS = np.arange(12) % 3


def loss(w, x, y):
    return 0.5 * jnp.mean((x @ w - y) ** 2)


def trainer(reg):
    tx = optax.chain(jr.add_penalty_gradient(reg), optax.sgd(0.1))
    return jr.Trainer(lambda key: jnp.zeros(3), loss, tx)


GRID = jr.grid(jr.l2, lam=[0.1, 1.0])

# Kind -> what is wrong for all arguments of that kind.
KINDS: dict[str, list] = {
    "strength": [-1.0, NAN, "text", True, ODD, [0.1, "b"], 1j],
    "optional strength": [-1.0, NAN, "text", True, ODD, 1j],
    "above 0": [-1.0, NAN, "text", True, ODD, 0.0, None],
    "share": [-0.1, 1.5, NAN, "text", True, ODD],
    "number": [NAN, "text", True, ODD, 1j],
    "axis": [1.5, "rows", True, ODD, (0, "x"), [0, 0]],
    "one axis": [1.5, "rows", True, ODD, None, (0, 0, 0)],
    "axes of a matrix": [0, -1, 1.5, "x", True, None, ODD],
    "count": [0, -1, 1.5, "3", True, NAN, None, ODD, 2**31],
    "optional count": [0, -1, 1.5, "3", True, NAN, ODD],
    "number of a thing": [-1, 1.5, "3", True, NAN, None, ODD],
    "flag": ["no", 2, 0.5, ODD, [True]],
    "function": [3, "f", None, ODD],
    "optional function": [3, "f", ODD],
    "functions by name": [3, "f", ODD, {"m": 3}, {3: loss}, [loss]],
    "optimizer": [None, 0.1, "adam", optax.adam, ODD],
    "penalty": [None, 0.1, "l2", jr.l2, ODD, {"reg": 0.1}],
    "rate": [None, "0.1", True, ODD, -0.1, NAN],
    "between 0 and 1": [-1.0, 2.0, "x", True, NAN, ODD],
    "selector": [None, 3, ODD, ["kernel"]],
    "pattern": [None, 3, ODD, ""],
    "key": [None, 0, "key", 1.5, ODD, np.ones(2), jax.random.split(jax.random.key(0))],
    "trainer": [
        None,
        "t",
        3,
        ODD,
        jr.l2(0.1),
        optax.sgd(0.1),
        jr.Trainer(lambda k: W, loss, optax.sgd(1)),
        lambda: 1,
        lambda p: p,
    ],
    "grid": [None, 3, [0.1], ODD, jr.l2(0.1), {"lam": [0.1]}],
    "rows": [
        None,
        3,
        "data",
        ODD,
        (),
        (X[:5], Y),
        (X, np.array(["a"] * 12)),
        (X * NAN, Y),
        (X, None),
    ],
    "folds": [0, 1, -3, 99, "x", 2.5, ODD, True, [0, 1], NAN],
    "weights of rows": ["x", -np.ones(12), np.ones(5), ODD, np.zeros(12), np.full(12, NAN), 3],
    "callbacks": [3, "x", [3], ODD, [jr.Callback]],
    "directory": ["", 3, ODD, "gs://bucket/x"],
    "seconds": [-1, "x", None, NAN, ODD, True],
    "machine": ["gpu", 3, ODD, {"chunk": 3}],
    "halving": [0.5, "x", 3, ODD, True],
    "name": [None, 3, "nothing of that name", ODD, ["loss"]],
}

# Argument -> (a good value, its kind). Where one name means two things, below by function.
ARGUMENTS: dict[str, tuple[Any, str]] = {
    "lam": (0.5, "strength"),
    "radius": (1.0, "strength"),
    "scale": (1.0, "strength"),
    "k": (2, "strength"),
    "rank": (1, "strength"),
    "l1_ratio": (0.5, "share"),
    "l2_ratio": (0.5, "share"),
    "weights": (None, "optional strength"),
    "l1_weights": (None, "optional strength"),
    "beta": (None, "optional strength"),
    "center": (0.3, "number"),
    "epsilon": (0.1, "above 0"),
    "delta": (0.1, "above 0"),
    "gamma": (5.0, "above 0"),
    "M": (10.0, "strength"),
    "low": (-1.0, "number"),
    "high": (1.0, "number"),
    "q": (None, "share"),
    "axis": (0, "axis"),
    "rows": (1, "axes of a matrix"),
    "columns": (1, "axes of a matrix"),
    "order": (1, "count"),
    "nonneg": (False, "flag"),
    "sqrt_size": (True, "flag"),
    "isotropic": (False, "flag"),
    "double_sided": (False, "flag"),
    "tolerance": (1e-3, "above 0"),
    "max_steps": (10, "count"),
    "skip": ("kernel", "selector"),
    "layer": ("bias", "selector"),
    "fisher": (1.0, "strength"),
    "penalty": (jr.l2(0.1), "penalty"),
    "optimizer": (optax.sgd(0.1), "optimizer"),
    "direction": (optax.identity(), "optimizer"),
    "learning_rate": (0.1, "rate"),
    "decay": (0.9, "between 0 and 1"),
    "scale_by_lr": (True, "flag"),
    "support": (False, "flag"),
    "loss": (loss, "function"),
    "has_aux": (False, "flag"),
    "init": (lambda key: jnp.zeros(3), "function"),
    "metrics": ({}, "functions by name"),
    "eval_loss": (None, "optional function"),
    "eval_params": (None, "optional function"),
    "stateful": (False, "flag"),
    "stochastic": (False, "flag"),
    "pattern": ("kernel", "pattern"),
    "trainer": (trainer, "trainer"),
    "point": (jr.l2(0.1), "point"),
    "grid": (GRID, "grid"),
    "data": ((X, Y), "rows"),
    "steps": (2, "count"),
    "key": (jax.random.key(0), "key"),
    "batch_size": (None, "optional count"),
    "sample_weight": (None, "weights of rows"),
    "prepare": (None, "optional function"),
    "fold": (0, "number of a thing"),
    "seed": (0, "number of a thing"),
    "seeds": (1, "count"),
    "remat": (None, "optional count"),
    "folds": (LABELS, "folds"),
    "validation": (None, "validation"),
    "evals": (2, "count"),
    "halving": (None, "halving"),
    "patience": (None, "optional count"),
    "checkpoint": (None, "directory"),
    "checkpoint_every": (60.0, "seconds"),
    "callbacks": ((), "callbacks"),
    "machine": (None, "machine"),
    "keep_params": (True, "flag"),
    "stationarity": (False, "flag"),
    "progress": (False, "flag"),
    "chunk": (None, "optional count"),
    "mesh": (None, "mesh"),
    "shard_params": (None, "optional function"),
    "keep": (0.5, "between 0 and 1"),
    "rungs": (2, "count"),
    "method": ("dykstra", "name"),
    "tol": (1e-6, "strength"),
}

KINDS |= {
    "point": [None, "reg", ODD, lambda: 1, {"reg": "text"}, (jr.l2(0.1), None, "x")],
    "validation": [
        3,
        "x",
        ODD,
        (),
        (X[:2], Y),
        (X[:2, :1], Y[:2]),
        (X[:2], np.array(["a", "b"])),
        (X[:2] * NAN, Y[:2]),
    ],
    "mesh": ["cpu", 3, ODD, jax.devices()],
    "parameters": [None, "w", ODD, {"w": "text"}, {}],
    "gradients": ["w", ODD, {"w": "text"}, {"kernel": W}],
    "groups": ["a", 3, ODD, [0.5, 1.5], [[]], [0, 2]],
    "labels": ["a", 3, ODD, np.ones(5), [[0, 1]]],
    "steps of a prox": [-1.0, NAN, "text", ODD, None],
    "maker": [None, 3, ODD, "f", lambda: 1],
    "points": [None, 3, ODD, "f", [], [1, jr.l2(1)]],
    "column": [None, "text", ODD, [], ["a"], [NAN], [[1.0]]],
    "result": [None, "path.npz", 3, ODD, GRID],
    "strengths or none": ["x", -1.0, NAN, ODD, [], [[1.0]], [0.1, -1.0], np.inf],
    "rows in a tuple": [None, 3, "x", ODD, X],
    "space": [None, 3, "x", ODD, GRID, jr.l2],
    "range": [None, 3, "ab", ODD, [], (1.0,), (1.0, 0.1), (0.0, 1.0), (NAN, 1.0), (0.1, np.inf)],
    "one rule": [None, 3, "nothing of that name", ODD, [3], [], ["min", "1se"]],
    "rule": [None, 3, "nothing of that name", ODD, [3], []],
    "stream": [None, 3, ODD, "f"],
    "order of differences": [2, -1, 1.5, "x", True, None, ODD],
    "state": [None, 3, "x", ODD, optax.sgd(0.1).init(PARAMS)],
}


def sparse(reg):
    return jr.Trainer(
        lambda key: jnp.zeros(3), loss, jr.proximal(optax.identity(), jr.l1(1e6 * reg.lam), 0.1)
    )


def _result():
    return jr.sweep(
        trainer, GRID, (X, Y), steps=2, key=jax.random.key(0), folds=LABELS, progress=False
    )


RESULT = _result()
MEASURED = dataclasses.replace(
    RESULT,
    **{s: {"error": getattr(RESULT, s)["loss"]} | getattr(RESULT, s) for s in ("train", "valid")},
)
AVERAGED = jr.averaged(optax.sgd(0.1), 0.9)


def outputs(w, x):
    return x @ w


def _all_rows():
    """A sweep over all rows of ridge regressions, by their normal equations."""
    lams = [0.1, 1.0]
    w = np.stack([np.linalg.solve(X.T @ X + len(X) * lam * np.eye(3), X.T @ Y) for lam in lams])
    told = [float(np.mean((X @ v - Y) ** 2) / 2) for v in w]
    grid = jr.grid(jr.l2, lam=lams)
    return jr.SweepResult.of(grid, told, train=told, params=w[:, None, None])


LINEAR = {
    "outputs": (outputs, "function"), "result": (_all_rows(), "result"), "data": ((X, Y), "rows"),
    "likelihood": ("gaussian", "likelihood"), "penalty": (None, "function of the point"),
    "tol": (0.1, "above 0"),
}  # fmt: skip


# Function -> argument -> (a good value, its kind), where the table by names does not say it.
SPECIAL: dict[str, dict[str, tuple[Any, str]]] = {
    "average_of": {"state": (AVERAGED.init(PARAMS), "state")},
    "check_coupling": {
        "optimizer": (optax.chain(jr.add_penalty_gradient(jr.l2(0.1)), optax.sgd(0.1)), "optimizer"),
        "params": (PARAMS, "parameters"),
    },
    "folds": {
        "n": (12, "count"), "k": (3, "count"), "y": (None, "labels"), "groups": (None, "labels"),
        "times": (None, "labels"), "blocks": (False, "flag"), "repeats": (1, "count"),
        "gap": (0, "number of a thing"),
    },
    "grid": {"make": (jr.l2, "maker"), "lam": ([0.1, 1.0], "column")},
    "points": {"make": (jr.l2, "points"), "lam": ([0.1, 1.0], "column")},
    "map_grid": {"fit": (lambda reg: reg(W), "maker")},
    "overlapping_group_lasso": {"groups": ([[0, 1], [1, 2]], "groups"), "axis": (0, "one axis")},
    "prox_of_sum": {
        "penalty": (jr.l1(0.1) + jr.linf(0.1), "penalty"), "params": (W, "parameters"),
        "step": (1.0, "steps of a prox"),
    },
    "expected_error": {
        "result": (RESULT, "result"), "rule": ("min", "one rule"), "folds": (3, "count"),
        "repeats": (1, "count"), "choosing": (False, "flag"),
    },
    "hypergradient": {
        "params": (jnp.linalg.solve(X.T @ X / len(X) + 0.1 * jnp.eye(3), X.T @ Y / len(X)), "parameters"),
        "penalty": (jr.l2(0.1), "penalty"), "train": ((X, Y), "rows in a tuple"),
        "valid": ((X, Y), "rows in a tuple"), "valid_loss": (None, "optional function"),
        "damping": (0.0, "strength"), "tol": (1.0, "strength"), "steps": (10, "count"),
    },
    "search": {
        "space": (jr.space(jr.l2, lam=(0.1, 1.0)), "space"), "budget": (5, "count"),
        "metric": ("loss", "metric"), "checkpoint": (None, "directory"),
        "nested": (0, "number of a thing"),
    },
    "space": {"make": (jr.l2, "maker"), "lam": ((0.1, 1.0), "range")},
    "stability": {"trainer": (sparse, "trainer"), "pairs": (2, "count"), "where": (jr.select.everything, "selector"), "rows": (False, "flag")},
    "bootstrap": {
        "trainer": (sparse, "trainer"), "point": (jr.l1(0.1), "point or grid"), "draws": (10, "count"),
        "where": (jr.select.everything, "selector"),
    },
    "evidence": {
        **{n: LINEAR[n] for n in ("outputs", "result", "data", "likelihood", "penalty")},
        "noise": (None, "optional size"),
    },
    "continuation": {"then": (1, "count")},
    "ask_and_tell": {
        "study": (optuna.create_study(), "study"), "space": (jr.space(jr.l2, lam=(0.1, 1.0)), "space"),
        "batch": (2, "count"), "budget": (2, "count"), "metric": ("loss", "metric"),
    },
    "criteria": LINEAR | {"noise": (None, "optional size"), "gamma": (0.5, "share")},
    "leave_one_out": LINEAR,
    "sure": {
        "fit": (lambda y: 0.5 * y, "a function of y"), "y": (Y, "measurements"), "noise": (1.0, "above 0"),
        "key": (None, "optional key"), "probes": (None, "optional count"),
    },
    "ridge_path": {"lam": (None, "strengths or none"), "folds": (3, "folds"),
                   "intercept": (True, "flag")},
    "ridge_groups": {
        "groups": (np.array(["a", "b", "b"]), "labels"), "by": ("loo", "name"), "folds": (3, "folds"),
        "intercept": (True, "flag"),
    },
    "unrolled_hypergradient": {
        "train": ((X, Y), "rows"), "valid": ((X, Y), "rows"), "measure": (True, "flag"),
    },
    "refit": {"result": (RESULT, "result"), "rule": ("min", "rule"), "test": (None, "validation")},
    "stationarity": {"params": (jnp.zeros(3), "parameters")},
    "stream": {"make": (lambda epoch: iter([(X, Y)]), "stream")},
    "tabulate": {"params": (PARAMS, "parameters"), "grads": (None, "gradients")},
    "fused_lasso": {"axis": (-1, "one axis")},
    "trend_filter": {"axis": (-1, "one axis"), "order": (1, "order of differences")},
    "l2_sp": {"center": (0.3, "number")},
    "fit": {"steps": (2, "number of a thing"), "rows": (None, "labels")},
    "sweep": {"folds": (LABELS, "folds")},
}  # fmt: skip
for _name in ("exclusive_lasso", "group_lasso", "l1_linf", "sparse_group_lasso"):
    SPECIAL[_name] = {"groups": (None, "groups")}

CLASSES = ("Trainer", "Machine", "Halving")
MODULES = ("metrics", "convert", "select", "terms", "noise", "reparametrize")
# Methods that take arguments, on the object they are called on.
OBJECTS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "SweepResult": (
        MEASURED,
        (
            "mean",
            "stderr",
            "best",
            "difference",
            "scores",
            "lane",
            "table",
            "plot_learning_curves",
            "frontier",
            "save",
            "to_csv",
        ),
    ),
    "Penalty": (jr.l2(0.1), ("prox", "on", "around", "of", "map_field", "moreau_envelope")),
}

KEY = jax.random.key(0)
VECTORS = jr.reparametrize.spectral_vectors(PARAMS, KEY)
NOISE = {"rate": (0.5, "noise rate"), "key": (KEY, "key")}
MIX = {
    "targets": (jnp.ones((len(W), 2)), "targets"),
    "alpha": (0.4, "strength"),
    "key": (KEY, "key"),
}
KINDS |= {
    "measured": ["x", ODD, np.ones((2, 2, 2, 2)), np.array(["a", "b", "c"])],
    "divisor": [0.0, -1.0, NAN, "x", True, ODD, None],
    "variant": [None, 3, "nothing of that name", ODD],
    "parameters of a prox": ["w", ODD, {"w": "text"}],
    "mask": [None, "x", ODD, {"kernel": "yes"}],
    "metric": [None, 3, "nothing of that name", ODD],
    "split": [None, 3, "test", ODD],
    "point number": [99, -99, 1.5, "x", True, None, ODD],
    "place number": [99, 1.5, "x", True, None, ODD],
    "file": [3, ODD, None, "", "/"],
    "field": [3, None, ODD, ["lam"]],
    "by": [3, "nothing of that name", ODD],
}
_STRENGTHS = (
    "weight_decay", "lam", "factor", "knot", "alpha", "l1", "l2",
)  # fmt: skip
ARGUMENTS |= dict.fromkeys(_STRENGTHS, (0.5, "strength"))
ARGUMENTS |= {
    "y": (np.array([0.0, 1.0, 1.0]), "measured"),
    "predicted": (np.array([0.2, 0.7, 0.9]), "measured"),
    "n": (10, "divisor"),
    "C": (1.0, "divisor"),
    "x_std": (1.0, "divisor"),
    "y_std": (1.0, "divisor"),
    "variant": ("scaled", "variant"),
    "mask": ({"kernel": True, "bias": False}, "mask"),
    "predicate": (lambda path, leaf: True, "function"),
    "metric": ("loss", "metric"),
    "split": ("valid", "split"),
    "by": (None, "by"),
    "path": ("RESULT.npz", "file"),
    "where": (jr.kernels, "selector"),
    "function": (lambda x: x, "function"),
    "name": ("lam", "field"),
    "params": (PARAMS, "parameters of a prox"),
    "step": (1.0, "steps of a prox"),
}
for _name in sorted({*jr.metrics.__all__} - {"Metric", "directed"}):
    SPECIAL[f"metrics.{_name}"] = {"sample_weight": (None, "weights of 3 rows")}
SPECIAL["metrics.directed"] = {"fn": (loss, "function"), "better": ("larger", "name")}
KINDS["weights of 3 rows"] = ["x", -np.ones(3), np.ones(5), ODD, np.zeros(3), np.full(3, NAN)]
SPECIAL |= {
    "convert.from_sklearn_mlp": {"batch_size": (10, "divisor")},
    "convert.to_sklearn_mlp": {"batch_size": (10, "divisor")},
    "convert.from_adamw": {"learning_rate": (None, "optional strength")},
    "convert.to_adamw": {"learning_rate": (None, "optional strength")},
    "sam": {
        "fun": (loss, "function"), "rho": (0.1, "rho"), "adaptive": (False, "flag"), "has_aux": (False, "flag"),
    },
    "Trainer": {"value_and_grad": (jax.value_and_grad, "function")},
    "terms.tar": {"axis": (1, "time axis")},
    "terms.top_k": {"codes": (W, "activations"), "k": (2, "units kept")},
    "terms.kl_ar": {"alpha": (0.5, "correlation")},
    "terms.committed_rate": {"alpha": (0.5, "correlation"), "times": (3, "count")},
    "terms.kl_sparsity": {"rate": (0.1, "between 0 and 1")},
    "terms.variance": {"level": (1.0, "above 0"), "eps": (1e-4, "above 0")},
    "terms.free_bits": {"bits": (0.1, "strength")},
    "terms.capacity": {"target": (1.0, "strength")},
    "terms.total_correlation": {"rows": (10, "above 0")},
    "terms.gradient_penalty": {"target": (1.0, "strength")},
    "terms.jacobian": {"probes": (1, "pixels")},
    "terms.curvature": {"probes": (1, "pixels")},
    "terms.adversarial": {"radius": (0.1, "above 0"), "steps": (1, "pixels")},
    "terms.between": {"real": (W, "old state"), "made": (W, "old state"), "key": (KEY, "key")},
    "terms.mmd": {"scale": (1.0, "above 0")},
    "terms.effective_beta": {"pixels": (64, "pixels")},
    "terms.kl_normal": dict.fromkeys(
        ("mean", "log_var", "prior_mean", "prior_log_var"), (jnp.ones(2), "numbers")
    ),
    "terms.kl_categorical": {"logits": (jnp.ones(2), "numbers"), "prior_logits": (None, "numbers or none")},
    "terms.kl_bernoulli": {"logit": (jnp.ones(2), "numbers"), "prior": (0.5, "between 0 and 1")},
    "reparametrize.from_weight_norm": {
        "params": (jr.reparametrize.to_weight_norm(PARAMS), "normalised parameters"),
    },
    "reparametrize.power_iteration": {"vectors": (VECTORS, "vectors"), "steps": (1, "count")},
    "reparametrize.spectral_normalized": {"vectors": (VECTORS, "vectors"), "bound": (1.0, "above 0")},
    "noise.drop": NOISE | {"x": (W, "activations"), "shared": ((), "shared axes")},
    "noise.drop_weights": NOISE | {"params": (PARAMS, "parameters of a prox"), "where": (jr.kernels, "selector")},
    "noise.drop_path": NOISE | {"branch": (W, "activations")},
    "noise.zoneout": {
        "new": (W, "activations"), "old": (W, "old state"), "rate": (0.5, "noise rate"),
        "key": (None, "optional key"),
    },
    "noise.add_normal": {
        "tree": (PARAMS, "parameters of a prox"), "width": (0.1, "strength"), "key": (KEY, "key"),
        "where": (jr.kernels, "selector"),
    },
    "noise.mixup": MIX | {"x": (W, "activations")},
    "noise.cut_mix": MIX | {"images": (jnp.ones((len(W), 2, 2, 1)), "activations")},
    "noise.cut_out": {
        "images": (jnp.ones((2, 2, 2, 1)), "activations"), "share": (0.5, "noise rate"), "key": (KEY, "key"),
    },
    "convert.from_glmnet": {"alpha": (0.5, "share")},
    "SweepResult.best": {
        "rule": ("min", "metric"), "maximize": (None, "flag"), "simplest": (None, "simplest"),
        "within": (None, "no tolerance"),
    },
    "SweepResult.difference": {"than": (None, "other point"), "corrected": (True, "flag")},
    "SweepResult.lane": {
        "k": (0, "point number"), "fold": (0, "place number"), "seed": (0, "place number"),
    },
    "SweepResult.frontier": {"x": ("error", "metric"), "y": ("loss", "metric")},
    "SweepResult.plot_learning_curves": {"ax": (None, "axes")},
    "SweepResult.save": {"overwrite": (True, "flag")},
    "SweepResult.to_csv": {"overwrite": (True, "flag")},
}  # fmt: skip
KINDS |= {
    "likelihood": [None, 3, "nothing of that name", ODD, ["gaussian"]],
    "function of the point": [3, "f", ODD, jr.l2(0.1)],
    "optional size": [0.0, -1.0, NAN, "text", True, ODD],
    "measurements": [None, "text", 3j, ODD, (), np.array([NAN]), np.array(["a"])],
    "optional key": [0, "key", 1.5, ODD, np.ones(2)],
    "a function of y": [3, "f", None, ODD, jr.l2(0.1), lambda: 1],
    "study": [
        None,
        3,
        "x",
        ODD,
        optuna.create_study(direction="maximize"),
        optuna.create_study(directions=["minimize"] * 2),
    ],
    "numbers": [None, "x", True, ODD, NAN],
    "numbers or none": ["x", True, ODD, NAN],
    "rho": [-0.1, NAN, "x", None, True, ODD, np.ones(2)],
    "units kept": [-1, 1.5, NAN, "x", None, True, np.True_, ODD, np.ones(2)],
    "normalised parameters": [None, "w", ODD, {"w": "text"}, PARAMS],
    "vectors": [
        None,
        "x",
        3,
        ODD,
        {"kernel": "x"},
        {"other": jnp.ones(3)},
        {"kernel": jnp.ones(7)},
    ],
    "correlation": [1.0, -1.0, 2.0, NAN, "x", None, True, ODD, 1j],
    "time axis": [None, "x", 1.5, True, ODD],
    "noise rate": [1.5, -0.1, NAN, "x", None, True, ODD, np.ones(2)],
    "activations": [None, "x", 3, ODD, np.arange(3)],
    "old state": [None, "x", ODD, np.ones(7)],
    "shared axes": [None, 3, "x", (9,), ODD],
    "pixels": [0, -1, 1.5, True, None, "x", ODD],
    "targets": [None, "x", 3, ODD, np.arange(len(W))],
    "point or grid": [None, "x", True, [], (), ODD],
    "simplest": [3, {}, {"lam": "up"}, {"nothing": "largest"}, ODD, ["lam"]],
    "axes": [3, "x", ODD],
    "no tolerance": ["x", NAN, -1.0, ODD, True, 1.0],
    "other point": ["x", 1.5, True, 99, ODD],
}


class Attack(NamedTuple):
    """One wrong value for one argument of one function."""

    owner: str
    argument: str
    wrong: Any
    call: Any


def public() -> Iterator[str]:
    """Public functions, also of public modules, the classes that users make, and methods."""
    for name in jr.__all__:
        if inspect.isfunction(getattr(jr, name)) or name in CLASSES:
            yield name
    for module in MODULES:
        for name in getattr(jr, module).__all__:
            thing = getattr(getattr(jr, module), name)
            if not inspect.isclass(thing) and not isinstance(thing, jr.select.Selector):
                yield f"{module}.{name}"
    for owner, (_, methods) in OBJECTS.items():
        yield from (f"{owner}.{method}" for method in methods)


def function(name: str) -> Any:
    """What a name of `public` stands for."""
    owner, _, rest = name.rpartition(".")
    if owner in OBJECTS:
        return getattr(OBJECTS[owner][0], rest)
    return getattr(getattr(jr, owner) if owner else jr, rest)


def arguments(name: str) -> dict[str, tuple[Any, str]]:
    """Argument -> (a good value, its kind); a KeyError is a function that nobody attacks."""
    own = SPECIAL.get(name, {})
    taken = inspect.signature(function(name)).parameters.values()
    named = [p.name for p in taken if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    return {a: own.get(a) or ARGUMENTS[a] for a in named} | own


def attacks(name: str) -> Iterator[Attack]:
    """Every attack on a function: its good call, with one argument wrong."""
    known = arguments(name)
    good = {argument: value for argument, (value, _) in known.items()}
    for argument, (_, kind) in known.items():
        for wrong in KINDS[kind]:
            yield Attack(name, argument, wrong, good | {argument: wrong})


def called(name: str, given: dict[str, Any], folder: Any) -> Any:
    """The function, with positional arguments where it has no names for them."""
    given = {
        k: folder / v if isinstance(v, str) and v == "RESULT.npz" else v for k, v in given.items()
    }
    if name == "map_grid":
        return jr.map_grid(given["fit"], given["grid"], chunk=given["chunk"])
    if name == "stationarity":
        return jr.stationarity(given["loss"], given["params"], given["penalty"], X, Y)
    if name.startswith("metrics.") and name != "metrics.directed":
        return function(name)(given["y"], given["predicted"], sample_weight=given["sample_weight"])
    return function(name)(**given)


WORDS_OF_REMEDY = re.compile(
    r"must|[Gg]ive|[Uu]se |[Tt]ake |[Ll]eave|[Pp]ut |[Ww]rite|[Mm]ake|such as|between|needs|[Dd]rop|[Ee]ncode"
    r"|[Tt]rain with|[Ss]elect|[Cc]all it|[Cc]ompare"
)
WORDS_OF_WHAT_IT_GOT = re.compile(
    r"got|returned|has NaN|is empty|leaves label|holds|is the function|is 0|is no iterable|is a |have \["
)


def shortcomings(attack: Attack, error: BaseException | None) -> list[str]:
    """What the answer to an attack lacks."""
    if error is None:
        return ["silent"]
    text = str(error)
    lacks = [] if isinstance(error, (TypeError, ValueError, IndexError)) else [type(error).__name__]
    # A function answers for what it is given on to: refit sweeps, sweep fits, parameters meet the penalty.
    owner = attack.owner.rpartition(".")[2]
    if not re.match(
        rf"(\w+\.)?{owner}\b|penalty|sweep|best|result|plot|l2:|add_penalty_gradient", text
    ):
        lacks.append("owner")
    if f"`{attack.argument}" not in text and "the leaf" not in text:
        lacks.append("argument")
    if not WORDS_OF_REMEDY.search(text):
        lacks.append("remedy")
    if not WORDS_OF_WHAT_IT_GOT.search(text) and repr(attack.wrong) not in text:
        lacks.append("got")
    return lacks
