"""What is swept is a point: λ, a learning rate and a dropout rate in one program; yesterday's numbers."""

import os
import subprocess
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support.compilations import compilations
from support.paths import TESTS

import jaxreg as jr
from jaxreg.fit.splits import make_splits

KEY = jax.random.key(4)
RNG = np.random.default_rng(0)
N, D = 24, 5
X = RNG.normal(size=(N, D)).astype(np.float32)
Y = (X[:, 0] - X[:, 1]).astype(np.float32)


def loss(w, x, y):
    return 0.5 * jnp.mean((x @ w - y) ** 2)


def trainer(p):
    """Everything depends on the point: start, loss, metric and optimizer."""

    def noisy(w, x, y, key):
        kept = jax.random.bernoulli(key, 1 - p["rate"], w.shape)
        return loss(jnp.where(kept, w / jnp.maximum(1 - p["rate"], 1e-6), 0), x, y)

    return jr.Trainer(
        lambda key: jax.random.normal(key, (D,)) * p["lr"],
        noisy,
        optax.chain(jr.add_penalty_gradient(p["reg"]), optax.adam(p["lr"])),
        metrics={"scaled": lambda w, x, y: loss(w, x, y) * p["lr"]},
        eval_loss=loss,
        stochastic=True,
    )


def grid(lams=(0.0, 0.1), rates=(0.0, 0.5), lrs=(0.01, 0.1)):
    make = lambda lam, lr, rate: {"reg": jr.l2(lam), "lr": lr, "rate": rate}
    return jr.grid(make, lam=lams, lr=lrs, rate=rates)


def run(g, trainer=trainer, **kwargs):
    given = {"folds": 3, "seeds": 2, "steps": 12, "batch_size": 6, "evals": 3, "key": KEY}
    return jr.sweep(trainer, g, (X, Y), progress=False, **{**given, **kwargs})


@pytest.mark.parametrize("chunk", [None, 1, 3])
def test_a_lane_is_the_fit_of_its_point(chunk):
    g = grid()
    got = run(g, machine=jr.Machine(chunk=chunk))
    rows = make_splits(3, N, 0, KEY).table.rows[2]
    for k in (0, 3, 6, 7):
        alone = jr.fit(
            trainer, g[k], (X, Y), steps=12, batch_size=6, key=KEY, rows=rows, fold=2, seed=1
        ).params
        if chunk == 1:
            np.testing.assert_array_equal(got.lane(k, 2, 1), alone)
        np.testing.assert_allclose(got.lane(k, 2, 1), alone, atol=2e-6)
    np.testing.assert_allclose(
        got.valid["scaled"], got.valid["loss"] * np.asarray(g.coords["lr"])[:, None, None, None], rtol=1e-5
    )  # fmt: skip


def test_another_grid_of_the_size_compiles_nothing():
    run(grid())
    with compilations() as compiled:
        run(grid(lams=(0.2, 0.3), rates=(0.1, 0.9), lrs=(0.02, 0.03)))
    assert compiled == []


def test_three_and_four_points_of_a_small_sweep_are_one_program():
    plain = lambda reg: jr.Trainer(
        lambda key: jnp.zeros(D), loss, optax.chain(jr.add_penalty_gradient(reg), optax.sgd(0.1))
    )
    sizes = [jr.grid(jr.l2, lam=np.geomspace(0.1, 1, n)) for n in (3, 4)]
    three = run(sizes[0], plain)
    with compilations() as compiled:
        run(sizes[1], plain)
    assert [name for name in compiled if "call" in name or "start" in name] == []
    alone = run(sizes[0], plain, machine=jr.Machine(chunk=1))
    np.testing.assert_allclose(three.valid["loss"], alone.valid["loss"], atol=2e-6)


def test_each_term_of_each_penalty_is_kept_apart():
    def two(p):
        tx = optax.chain(
            jr.add_penalty_gradient(p["a"]), jr.add_penalty_gradient(p["b"]), optax.sgd(0.05)
        )
        return jr.Trainer(lambda key: jnp.ones(D), loss, tx)

    g = jr.grid(lambda lam: {"a": jr.l2(lam) + jr.l1(0.1), "b": 2 * jr.l2(0.3)}, lam=[0.1, 1.0])
    got = run(g, two)
    assert list(got.terms) == ["a: l2", "a: l1", "b: l2"]
    w = got.params[1, 2, 1]
    np.testing.assert_allclose(got.terms["a: l2"][1, 2, 1, -1], 0.5 * (w**2).sum(), rtol=1e-5)
    np.testing.assert_allclose(got.terms["a: l1"][1, 2, 1, -1], 0.1 * np.abs(w).sum(), rtol=1e-5)
    np.testing.assert_allclose(got.terms["b: l2"][1, 2, 1, -1], 0.3 * (w**2).sum(), rtol=1e-5)
    np.testing.assert_allclose(got.penalty_value, sum(got.terms.values()), rtol=1e-6)


def test_a_forgotten_penalty_is_one_warning_of_the_sweep():
    forgets = lambda reg: jr.Trainer(lambda key: jnp.zeros(D), loss, optax.sgd(0.1))
    with pytest.warns(RuntimeWarning, match="sweep: no update depends on the penalty l2") as told:
        run(jr.grid(jr.l2, lam=[0.1, 1.0]), forgets)
    assert len(told) == 1
    assert told[0].filename == __file__, "it stands where the sweep was called"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(grid())


def test_points_without_a_penalty_are_swept_too():
    plain = lambda p: jr.Trainer(lambda key: jnp.zeros(D), loss, optax.sgd(p["lr"]))
    got = run(jr.grid(lambda lr: {"lr": lr}, lr=[0.001, 0.1]), plain)
    assert got.terms == {}
    assert (got.penalty_value == 0).all()
    assert got.best().coords == {"lr": 0.1}


def test_a_learning_rate_by_hand():
    """λ x learning rate against ten lines of numpy, every fold."""
    folds = np.arange(N) % 4
    make = lambda lam, lr: {"reg": jr.l2(lam), "lr": lr}
    plain = lambda p: jr.Trainer(
        lambda key: jnp.zeros(D),
        loss,
        optax.chain(jr.add_penalty_gradient(p["reg"]), optax.sgd(p["lr"])),
    )
    g = jr.grid(make, lam=[0.01, 1.0], lr=[0.001, 0.01, 0.1])
    got = run(g, plain, folds=folds, seeds=1, steps=20, batch_size=None)
    for k, (lam, lr) in enumerate((lam, lr) for lam in (0.01, 1.0) for lr in (0.001, 0.01, 0.1)):
        scores = []
        for f in range(4):
            x, y, w = X[folds != f], Y[folds != f], np.zeros(D)
            for _ in range(20):
                w = w - lr * (x.T @ (x @ w - y) / len(y) + lam * w)
            scores.append(0.5 * np.mean((X[folds == f] @ w - Y[folds == f]) ** 2))
        np.testing.assert_allclose(got.mean()[k], np.mean(scores), rtol=1e-4)


def test_a_penalty_grid_has_yesterdays_numbers(tmp_path):
    """Curves and parameters of the README's example, 20 steps, from the version before points.

    They were equal to the bit on the machine that wrote them; others round differently. A process of its
    own compiles them as users do.
    """
    child = [sys.executable, "-m", "support.children", "readme", str(tmp_path / "now.npz")]
    subprocess.run(child, cwd=TESTS, env={**os.environ, "XLA_FLAGS": ""}, check=True, timeout=300)
    now = np.load(tmp_path / "now.npz")
    with np.load(TESTS / "sweeps" / "data" / "yesterday.npz") as old:
        np.testing.assert_allclose(now["train"], old["train"], rtol=2e-4)
        np.testing.assert_allclose(now["valid"], old["valid"], rtol=2e-4)
        np.testing.assert_allclose(now["pen"], old["pen"], rtol=1e-4)
        np.testing.assert_allclose(now["squares"], old["squares"], rtol=1e-3)
        np.testing.assert_allclose(now["sums"], old["sums"], atol=2e-2)
