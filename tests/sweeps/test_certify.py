"""The certificate of every lane is the one that `jaxreg.stationarity` gives for it alone."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support.mutants import Kinked

import jaxreg as jr
from jaxreg.sweeps import certify

KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(1), (42, 5))
Y = X @ jnp.array([2.0, -1.0, 0.0, 0.5, 0.0]) + 0.1 * jax.random.normal(jax.random.key(2), (42,))
GRID = jr.grid(lambda lam: jr.l1(lam).on("w"), lam=[0.01, 0.1, 1.0])


def loss(p, x, y):
    return 0.5 * jnp.mean((x @ p["w"] + p["b"] - y) ** 2)


def root(p, x, y):
    return jnp.sqrt(loss(p, x, y))


def weighted(p, x, y, sample_weight):
    return 0.5 * jnp.sum(sample_weight * (x @ p["w"] + p["b"] - y) ** 2) / jnp.sum(sample_weight)


def made(loss, **options):
    def trainer(reg):
        tx = jr.proximal(optax.identity(), reg, 0.2)
        return jr.Trainer(lambda key: {"w": jnp.zeros(5), "b": jnp.zeros(())}, loss, tx, **options)

    return trainer


def rows_of(folds, n=42):
    """Training rows of each fold, from one label for each row."""
    return [np.flatnonzero(np.asarray(folds) != f) for f in range(max(folds) + 1)]


EQUAL = np.repeat(np.arange(3), 14)
UNEQUAL = np.array([0] * 22 + [1] * 14 + [2] * 6)


def alone(result, of, folds, weights=None):
    """[K, F], lane by lane in a loop."""
    out = np.zeros((3, 3))
    for k in range(3):
        for f, rows in enumerate(rows_of(folds)):
            extra = (jnp.asarray(weights[rows]),) if weights is not None else ()
            params = result.lane(k, f)
            out[k, f] = jr.stationarity(of, params, GRID[k], X[rows], Y[rows], *extra).distance
    return out


@pytest.mark.parametrize("folds", [EQUAL, UNEQUAL], ids=["equal", "unequal"])
@pytest.mark.parametrize("batch_size", [None, 5])
def test_every_lane_has_the_certificate_that_it_has_alone(folds, batch_size):
    options = {"folds": folds, "steps": 15, "key": KEY, "seeds": 2, "batch_size": batch_size}
    result = jr.sweep(made(loss), GRID, (X, Y), stationarity=True, **options)
    found = result.stationarity()
    assert found.distance.shape == (3, 3, 2)
    np.testing.assert_allclose(
        found.distance[..., 0], alone(result, loss, folds), rtol=1e-4, atol=1e-6
    )
    assert set(found.leaves) == {"w", "b"}
    whole = np.sqrt(found.leaves["w"] ** 2 + found.leaves["b"] ** 2)
    np.testing.assert_allclose(whole, found.distance, rtol=1e-5)
    plain = jr.sweep(made(loss), GRID, (X, Y), **options)
    np.testing.assert_array_equal(plain.params["w"], result.params["w"])


def test_at_the_optimum_it_is_zero_and_after_few_steps_it_is_not():
    run = lambda steps: jr.sweep(
        made(loss), GRID, (X, Y), folds=3, steps=steps, key=KEY, stationarity=True
    ).stationarity()
    assert run(400).relative.max() < 1e-4
    assert run(3).relative.min() > 0.01


def test_weights_of_rows_and_losses_that_are_no_means():
    weights = np.linspace(0.1, 3.0, 42).astype(np.float32)

    def of(p, x, y, w):
        return weighted(p, x, y, w)

    for kind in (loss, weighted):
        result = jr.sweep(
            made(kind), GRID, (X, Y), folds=EQUAL, steps=15, key=KEY, sample_weight=weights,
            stationarity=True,
        )  # fmt: skip
        found = result.stationarity().distance[..., 0]
        np.testing.assert_allclose(found, alone(result, of, EQUAL, weights), rtol=1e-4)
    result = jr.sweep(made(root), GRID, (X, Y), folds=EQUAL, steps=15, key=KEY, stationarity=True)
    found = result.stationarity().distance[..., 0]
    np.testing.assert_allclose(found, alone(result, root, EQUAL), rtol=1e-4)


def test_slices_of_rows_give_the_same(monkeypatch):
    options = {"folds": UNEQUAL, "steps": 15, "key": KEY, "stationarity": True}
    whole = jr.sweep(made(loss), GRID, (X, Y), **options).stationarity()
    monkeypatch.setattr(certify, "_SLICE", 8)
    sliced = jr.sweep(made(loss), GRID, (X, Y), **options).stationarity()
    np.testing.assert_allclose(sliced.distance, whole.distance, rtol=1e-4)


def test_the_training_loss_counts_and_the_parameters_that_are_kept():
    other = lambda p, x, y: 100 * loss(p, x, y)
    result = jr.sweep(
        made(loss, eval_loss=other), GRID, (X, Y), folds=EQUAL, steps=15, key=KEY, stationarity=True
    )
    np.testing.assert_allclose(
        result.stationarity().distance[..., 0], alone(result, loss, EQUAL), rtol=1e-4
    )
    early = jr.sweep(
        made(loss),
        GRID,
        (X, Y),
        folds=EQUAL,
        steps=60,
        key=KEY,
        patience=1,
        evals=30,
        stationarity=True,
    )
    assert (np.asarray(early.stop) < 29).any()
    np.testing.assert_allclose(
        early.stationarity().distance[..., 0], alone(early, loss, EQUAL), rtol=1e-4, atol=1e-6
    )


def test_lanes_that_were_given_up_and_lanes_that_diverged():
    halved = jr.sweep(
        made(loss), GRID, (X, Y), folds=EQUAL, steps=40, key=KEY, stationarity=True,
        halving=jr.Halving(keep=0.5, rungs=1),
    )  # fmt: skip
    assert (np.asarray(halved.status) == jr.Status.GIVEN_UP).any()
    np.testing.assert_allclose(
        halved.stationarity().distance[..., 0], alone(halved, loss, EQUAL), rtol=1e-3, atol=1e-6
    )

    def trainer(p):
        tx = jr.proximal(optax.identity(), p["reg"], p["lr"])
        return jr.Trainer(lambda key: {"w": jnp.zeros(5), "b": jnp.zeros(())}, loss, tx)

    grid = jr.grid(lambda lr: {"reg": jr.l1(0.1).on("w"), "lr": lr}, lr=[0.1, 1e6])
    result = jr.sweep(trainer, grid, (X, Y), folds=3, steps=30, key=KEY, stationarity=True)
    found = result.stationarity().distance
    assert np.isfinite(found[0]).all()
    assert not np.isfinite(found[1]).any()
    assert "stationarity" in str(result.table())


def test_it_is_saved_joined_shown_and_computed_again_from_a_checkpoint(tmp_path):
    run = lambda: jr.sweep(
        made(loss), GRID, (X, Y), folds=3, steps=5, key=KEY, stationarity=True,
        checkpoint=tmp_path / "run",
    )  # fmt: skip
    result = run()
    np.testing.assert_array_equal(run().stationarity().distance, result.stationarity().distance)
    result.save(tmp_path / "result")
    read = jr.SweepResult.load(tmp_path / "result.npz").stationarity()
    np.testing.assert_array_equal(read.distance, result.stationarity().distance)
    assert list(read.leaves) == list(result.stationarity().leaves)
    both = jr.SweepResult.join({"a": result, "b": result}).stationarity()
    assert both.relative.shape == (6, 3, 1)
    table = result.table()
    worst = result.stationarity().relative.max((1, 2))
    assert [row["stationarity"] for row in table.rows] == worst.tolist()
    assert "of the worst lane" in " ".join(str(table).split())
    assert f"({worst[0]:.1%})" in str(table)


@pytest.mark.parametrize("chunk", [1, 2, 3])
def test_however_the_lanes_lie(chunk):
    options = {"folds": 3, "steps": 5, "key": KEY, "stationarity": True}
    one = jr.sweep(made(loss), GRID, (X, Y), **options).stationarity()
    other = jr.sweep(made(loss), GRID, (X, Y), machine=jr.Machine(chunk=chunk), **options)
    np.testing.assert_allclose(other.stationarity().distance, one.distance, rtol=1e-5)


def noisy(p, x, y, key):
    return loss(p, x, y) + 0 * jax.random.normal(key)


REFUSED = {
    "stochastic": (
        made(noisy, stochastic=True, eval_loss=loss),
        GRID,
        {},
        "the loss is stochastic",
    ),
    "unequal": (made(root), GRID, {"folds": UNEQUAL, "batch_size": 4}, "no mean over rows"),
    "no closed form": (
        made(loss),
        jr.grid(Kinked, lam=[0.1]),
        {},
        "so its subdifferential is unknown",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_certificate_is_refused_before_anything_is_trained(name):
    trainer, grid, options, match = REFUSED[name]
    options = {"folds": 3, "steps": 5, "key": KEY} | options
    with pytest.raises(ValueError, match=match):
        jr.sweep(trainer, grid, (X, Y), stationarity=True, **options)


def test_without_asking_there_is_none():
    result = jr.sweep(made(loss), GRID, (X, Y), folds=3, steps=2, key=KEY)
    with pytest.raises(
        ValueError, match=r"not asked for. Run the sweep to its end with stationarity=True"
    ):
        result.stationarity()
    assert "stationarity" not in str(result.table())
