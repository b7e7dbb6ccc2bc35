"""The modes of jax in which people look for their mistakes, and those of other numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxreg as jr

RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 3)).astype(np.float32)
Y = (X @ np.array([1.0, 0.0, -1.0])).astype(np.float32)
M = RNG.normal(size=(4, 3)).astype(np.float32)

MODES = {
    "debug_nans": lambda: jax.debug_nans(True),
    "debug_infs": lambda: jax.debug_infs(True),
    "rank promotion": lambda: jax.numpy_rank_promotion("raise"),
    "strict promotion": lambda: jax.numpy_dtype_promotion("strict"),
    "checks": lambda: jax.enable_checks(True),
    "leaks": lambda: jax.checking_leaks(),
    "no jit": lambda: jax.disable_jit(),
    "no implicit transfers": lambda: jax.transfer_guard("disallow"),
    "no transfers": lambda: jax.transfer_guard("disallow_explicit"),
    "x64": lambda: jax.enable_x64(True),
    "reuse of keys": lambda: jax.debug_key_reuse(True),
}
KEY = jax.random.key(0)  # jax itself moves a seed to the device


def loss(w, x, y):
    return 0.5 * jnp.mean((x @ w - y) ** 2)


def made():
    def trainer(reg):
        tx = jr.proximal(optax.trace(0.5), reg, 0.1)
        return jr.Trainer(lambda key: jnp.zeros(3), loss, tx)

    return trainer


SWEEPS = {
    "full": {"folds": 3},
    "batches": {"folds": 3, "batch_size": 4, "seeds": 2},
    "unequal, weighted, certified": {
        "folds": np.repeat([0, 1, 2], [10, 8, 6]), "sample_weight": np.linspace(0.5, 2, 24),
        "stationarity": True,
    },
    "given up": {"folds": 3, "halving": jr.Halving(0.6, 1), "patience": 2},
}  # fmt: skip


def sweep(name, **options):
    grid = jr.grid(jr.l1, lam=[0.01, 0.1, 1.0])
    given = {"steps": 12, "evals": 4, "key": KEY} | SWEEPS[name]
    return jr.sweep(made(), grid, (X, Y), **given | options)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", SWEEPS)
def test_a_sweep_in_every_mode_has_the_same_numbers(mode, name):
    want = sweep(name)
    with MODES[mode]():
        got = sweep(name)
    np.testing.assert_allclose(got.valid["loss"], want.valid["loss"], rtol=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_a_fit_in_every_mode_has_the_same_numbers(mode):
    want = jr.fit(made(), jr.l1(0.1), (X, Y), steps=5, key=KEY).params
    point = jr.l1(0.1)
    with MODES[mode]():
        got = jr.fit(made(), point, (X, Y), steps=5, key=KEY).params
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_random_numbers_of_another_kind_are_used_throughout():
    """Other batches and other folds, and the same again."""
    once, again = (sweep("batches", key=jax.random.key(0, impl="rbg")) for _ in range(2))
    np.testing.assert_array_equal(once.valid["loss"], again.valid["loss"])
    assert (once.valid["loss"] != sweep("batches").valid["loss"]).any()


PENALTIES = {
    "l1": jr.l1(0.1),
    "trend_filter": jr.trend_filter(0.1, axis=0),
    "low_rank": jr.low_rank(1),
    "cardinality": jr.cardinality(2),
    "group_lasso": jr.group_lasso(0.1, axis=0),
    "exclusive_lasso": jr.exclusive_lasso(0.1),
    "fused_lasso": jr.fused_lasso(0.1),
    "a sum": jr.l1(0.1) + jr.l2(0.1),
}


@pytest.mark.parametrize("mode", ["rank promotion", "strict promotion", "debug_nans"])
@pytest.mark.parametrize("name", PENALTIES)
def test_values_and_proxes_in_modes_that_refuse_to_promote(mode, name):
    reg, x = PENALTIES[name], jnp.asarray(M)
    want = reg.prox(x, 0.5), reg(x)
    with MODES[mode]():
        got = reg.prox(x, 0.5), reg(x)
    np.testing.assert_allclose(got[0], want[0], rtol=1e-6)
    np.testing.assert_allclose(got[1], want[1], rtol=1e-6)


def test_a_lane_that_diverges_is_data_where_nans_are_looked_for():
    grid = jr.grid(lambda lr: {"lr": lr}, lr=[0.1, 1e9])

    def trainer(point):
        return jr.Trainer(lambda key: jnp.ones(3), loss, optax.sgd(point["lr"]))

    with jax.debug_nans(True):
        result = jr.sweep(trainer, grid, (X, Y), folds=2, steps=30, key=jax.random.key(0))
    status = np.asarray(result.status)
    assert (status[0] == jr.Status.FINISHED).all()
    assert (status[1] == jr.Status.DIVERGED).all()
