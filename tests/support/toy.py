"""A small sweep that several tests share: 5 λ x 3 folds x 2 seeds of a two-layer net on 24 rows."""

import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxreg as jr

N, D, H = 24, 4, 6
KEY_SEED = 3
RNG = np.random.default_rng(1)
X = RNG.normal(size=(N, D)).astype(np.float32)
Y = np.tanh(X @ np.array([1.0, -1.0, 0.0, 0.5], np.float32))
DATA = (X, Y)
LAMS = [0.0, 1e-3, 1e-2, 0.1, 1.0]
TRACES = []  # one entry each time the loss is traced


def init(key):
    k1, k2 = jax.random.split(key)
    return {
        "w1": jax.random.normal(k1, (D, H)) / 2,
        "b1": jnp.zeros(H),
        "w2": jax.random.normal(k2, (H,)) / 2,
    }


def predict(p, x):
    return jnp.tanh(x @ p["w1"] + p["b1"]) @ p["w2"]


def loss(p, x, y):
    TRACES.append(1)
    return 0.5 * jnp.mean((predict(p, x) - y) ** 2)


METRICS = {"mae": lambda p, x, y: jnp.abs(predict(p, x) - y).mean()}


def trainer(reg):
    tx = optax.chain(jr.add_penalty_gradient(reg), optax.adam(1e-2))
    return jr.Trainer(init, loss, tx, metrics=METRICS)


def make(lam):
    return jr.l2(lam).on(jr.kernels)


def endless(lams):
    """A grid of strengths that were put in past the constructor, which lets none be infinite."""
    grid = jr.grid(make, lam=np.arange(1.0, 1 + len(lams)))
    given = lambda _: jnp.asarray(lams, jnp.float32)
    return jax.tree.map(given, grid)


def run(grid=None, data=DATA, **kwargs):
    """The sweep; keywords replace its own."""
    given = {
        "folds": 3, "seeds": 2, "steps": 20, "batch_size": 8, "evals": 4,
        "key": jax.random.key(KEY_SEED),
    }  # fmt: skip
    grid = jr.grid(make, lam=LAMS) if grid is None else grid
    return jr.sweep(trainer, grid, data, **{**given, **kwargs})


class Press(jr.Callback):
    """Ctrl-C at a step."""

    def __init__(self, step):
        self.step = step

    def evaluated(self, evaluation):
        if evaluation.step == self.step:
            os.kill(os.getpid(), signal.SIGINT)


def numbers(result):
    return (
        result.train,
        result.valid,
        result.penalty_value,
        result.params,
        result.status,
        result.stop,
    )


def streamed(index=0, count=1, **kwargs):
    """A sweep over a stream of batches of 8 rows, of which the process `index` of `count` reads its part."""
    size = 8 // count

    def batches(epoch):
        order = np.random.default_rng(epoch).permutation(N).reshape(-1, 8)
        for rows in order[:, index * size : (index + 1) * size]:
            yield X[rows], Y[rows]

    given = {"folds": None, "batch_size": None, "validation": (X[:6] + 1, Y[:6]), "steps": 40}
    return run(data=jr.stream(batches), **given, **kwargs)


def assert_equal(a, b):
    """Every number of two results, bit for bit."""
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


def assert_close(a, b, atol=2e-6):
    """To rounding, for lanes that were vmapped in other widths."""
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, atol=atol)
