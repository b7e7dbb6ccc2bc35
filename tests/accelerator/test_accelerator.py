"""What must hold on a GPU or TPU as on a CPU. Imports nothing beyond jax, optax, numpy and pytest."""

import contextlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxreg as jr
from jaxreg import _convolution
from jaxreg.sweeps import population

pytestmark = pytest.mark.accelerator
KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(48, 6)).astype(np.float32)
Y = np.tanh(X[:, 0]).astype(np.float32)
GRID = jr.grid(lambda lam: jr.l2(lam).on(jr.kernels), lam=[0.0, 1e-3, 1e-2, 0.1, 1.0])


def init(key, dtype=jnp.float32):
    a, b = jax.random.split(key)
    return {
        "a": {"kernel": jax.random.normal(a, (6, 16), dtype) / 2, "bias": jnp.zeros(16, dtype)},
        "b": {"kernel": jax.random.normal(b, (16,), dtype) / 4},
    }


def loss(p, x, y):
    hidden = jnp.tanh(x @ p["a"]["kernel"] + p["a"]["bias"])
    return 0.5 * jnp.mean((hidden @ p["b"]["kernel"] - y) ** 2)


def trainer(reg):
    return jr.Trainer(init, loss, optax.chain(jr.add_penalty_gradient(reg), optax.adam(1e-2)))


def run(grid=GRID, trainer=trainer, **kwargs):
    given = {"folds": 3, "seeds": 2, "steps": 24, "batch_size": 8, "evals": 4, "key": KEY}
    return jr.sweep(trainer, grid, (X, Y), progress=False, **{**given, **kwargs})


@pytest.fixture(scope="module")
def result():
    return run()


def test_lanes_equal_single_fits(result):
    from jaxreg.fit.splits import make_splits

    rows = make_splits(3, len(X), 0, KEY).table.rows[1]
    alone = jr.fit(
        trainer, GRID[3], (X, Y), steps=24, batch_size=8, key=KEY, rows=rows, fold=1, seed=1
    )
    for a, b in zip(jax.tree.leaves(result.lane(3, 1, 1)), jax.tree.leaves(alone.params)):
        np.testing.assert_allclose(a, b, atol=2e-3)  # products may be taken in TF32


def test_an_accelerator_trains_all_lanes_in_one_block(result):
    layout = json.loads(result.made_by)["layout"]
    one_device = jax.device_count() == 1 and jax.default_backend() != "cpu"
    assert ("all bundles of 5" in layout and "an accelerator" in layout) or not one_device


def test_halving_keeps_survivors_and_lays_powers_of_two(result):
    halved = run(halving=jr.Halving(keep=0.5, rungs=2))
    on = (halved.status == jr.Status.FINISHED).all((1, 2))
    assert on.sum() == 2
    np.testing.assert_allclose(
        halved.valid["loss"][on][..., -1], result.valid["loss"][on][..., -1], atol=2e-3
    )
    assert [population._rounded(n, 1, False) for n in (3, 5, 8, 9)] == [4, 8, 8, 16]
    assert population._rounded(5, 1, True) == 5


def test_bfloat16_parameters_stay_bfloat16():
    half = lambda reg: jr.Trainer(
        lambda key: init(key, jnp.bfloat16),
        lambda p, x, y: loss(jax.tree.map(lambda a: a.astype(jnp.float32), p), x, y),
        optax.chain(jr.add_penalty_gradient(reg), optax.sgd(0.1)),
    )
    kept = run(trainer=half, steps=4, evals=1)
    assert {x.dtype for x in jax.tree.leaves(kept.params)} == {np.dtype(jnp.bfloat16)}
    assert (kept.status == jr.Status.FINISHED).all()


def test_short_memory_narrows_or_says_what_fits(result, monkeypatch):
    """Less and less memory is said to be there: fewer lanes go together, and then none."""
    for power in range(22, 10, -2):
        monkeypatch.setattr(population, "memory_limit", lambda power=power: 2**power)
        with contextlib.suppress(ValueError):
            tight = run()
            np.testing.assert_allclose(tight.valid["loss"], result.valid["loss"], atol=2e-3)
    with pytest.raises(ValueError, match="the 30 lanes need .* enough for about"):
        run()


def test_convolutions_are_rewritten_on_a_cpu_only():
    assert _convolution.needs_rewrite() in (
        (True, False) if jax.default_backend() == "cpu" else (False,)
    )


def test_a_sweep_goes_on_from_its_checkpoint_to_the_same_bits(tmp_path):
    class Stop(jr.Callback):
        def evaluated(self, evaluation):
            if evaluation.step == 6:
                import signal

                signal.raise_signal(signal.SIGINT)

    whole = run(checkpoint=tmp_path / "whole")
    with pytest.raises(jr.Interrupted):
        run(checkpoint=tmp_path / "cut", callbacks=[Stop()], steps=24)
    again = run(checkpoint=tmp_path / "cut")
    for a, b in zip(jax.tree.leaves(whole.params), jax.tree.leaves(again.params)):
        np.testing.assert_array_equal(a, b)


def test_the_gradient_through_training_is_that_of_forward_mode():
    score = lambda reg: loss(jr.fit(trainer, reg, (X, Y), steps=6, key=KEY).params, X, Y)
    back = jax.grad(score)(jr.l2(0.1).on(jr.kernels)).penalty.lam
    ahead = jax.jvp(score, (jr.l2(0.1).on(jr.kernels),), (jr.l2(1.0).on(jr.kernels),))[1]
    np.testing.assert_allclose(back, ahead, rtol=2e-2)
