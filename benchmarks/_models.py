"""What is trained: five models on the digits or on made data, and the work that every candidate gets.

A model is two plain functions, `init` (key -> parameters) and `logits` (parameters, rows -> scores of
the ten classes); its twins in PyTorch and scikit-learn are in _rivals.py. Parameters are dictionaries
of layers with a "kernel" and a "bias". A task fixes the rest: data, initial parameters, minibatches
and values of lam, all of them what `jaxreg.sweep` itself uses for the task's key.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from _common import mlp
from jax import Array, lax

import jaxreg as jr
from jaxreg.grid import Grid

RATE = 1e-3
N_TRAIN, N_VALID = 640, 128
WIDTH = 128  # of the GRU's state


class Model(NamedTuple):
    """A model, and at which size it is swept unless asked otherwise."""

    title: str
    init: Callable[[Array], Any]
    logits: Callable[[Any, Array], Array]
    data: Callable[[], tuple[np.ndarray, np.ndarray]]
    batch: int
    lams: int
    steps: int
    sizes: tuple[int, ...] | None = None  # of the dense layers, where there is nothing else


class Task(NamedTuple):
    """What every candidate gets; `order` [steps, batch] are the rows of each minibatch."""

    model: Model
    lams: np.ndarray
    train: tuple[Array, Array]
    valid: tuple[Array, Array]
    params: Any
    order: np.ndarray
    key: Array


# --- models ---------------------------------------------------------------------------------------


def layers(params: Any) -> list[dict[str, Array]]:
    """The layers in the order they are applied, which is that of their names."""
    return [layer for _, layer in sorted(params.get("params", params).items())]


def mlp_logits(params: dict, x: Array) -> Array:
    *hidden, last = layers(params)
    for layer in hidden:
        x = jax.nn.relu(x @ layer["kernel"] + layer["bias"])
    return x @ last["kernel"] + last["bias"]


class CNN(nn.Module):
    """Two 3 x 3 convolutions, each with ReLU and 2 x 2 mean pooling, and a dense layer."""

    @nn.compact
    def __call__(self, x):
        x = x.reshape(-1, 8, 8, 1)
        for width in (16, 32):
            x = nn.avg_pool(nn.relu(nn.Conv(width, (3, 3))(x)), (2, 2), (2, 2))
        return nn.Dense(10)(x.reshape(x.shape[0], -1))


def cnn(key: Array) -> dict:
    return CNN().init(key, jnp.zeros((1, 64)))


def gru(key: Array) -> dict:
    """A GRU over the eight rows of a digit, and a dense layer on its last state."""
    # Alphabetical names: cell_input, cell_state, head. Gates are reset, update, candidate.
    shapes = {"cell_input": (8, 3 * WIDTH), "cell_state": (WIDTH, 3 * WIDTH), "head": (WIDTH, 10)}
    keys = jax.random.split(key, len(shapes))
    return {
        name: {"kernel": jax.random.normal(k, s) * s[0] ** -0.5, "bias": jnp.zeros(s[1])}
        for k, (name, s) in zip(keys, shapes.items())
    }


def gru_logits(params: dict, x: Array) -> Array:
    """Cho et al. (2014), in PyTorch's and cuDNN's form: the reset gate acts after the product."""
    cell, state, head = layers(params)
    rows = x.reshape(-1, 8, 8) @ cell["kernel"] + cell["bias"]

    def step(h, row):
        mine = jnp.split(h @ state["kernel"] + state["bias"], 3, axis=-1)
        reset, update, new = jnp.split(row, 3, axis=-1)
        reset, update = jax.nn.sigmoid(reset + mine[0]), jax.nn.sigmoid(update + mine[1])
        new = jnp.tanh(new + reset * mine[2])
        return (1 - update) * new + update * h, None

    h, _ = lax.scan(step, jnp.zeros((len(x), WIDTH), x.dtype), rows.swapaxes(0, 1))
    return h @ head["kernel"] + head["bias"]


# --- data -----------------------------------------------------------------------------------------


def digits() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    rows = np.random.default_rng(0).permutation(len(x))
    return x[rows] / 16, y[rows]


def made() -> tuple[np.ndarray, np.ndarray]:
    """784 features of ten classes that overlap."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 10, N_TRAIN + N_VALID)
    return 0.15 * rng.normal(size=(10, 784))[y] + rng.normal(size=(len(y), 784)), y


def _dense(title: str, sizes: tuple[int, ...], data: Callable, **rest: int) -> Model:
    return Model(title, functools.partial(mlp, sizes=sizes), mlp_logits, data, sizes=sizes, **rest)


# Steps and lams are such that the slow candidates, too, end within minutes.
MODELS: dict[str, Model] = {
    "logistic": _dense("logistic regression 64-10", (64, 10), digits, batch=64, lams=32, steps=300),
    "mlp": _dense("MLP 64-128-128-10", (64, 128, 128, 10), digits, batch=64, lams=32, steps=200),
    "wide": _dense("MLP 784-256-10", (784, 256, 10), made, batch=128, lams=8, steps=60),
    "cnn": Model("CNN on 8 x 8 digits", cnn, CNN().apply, digits, batch=64, lams=8, steps=60),
    "gru": Model(
        "GRU of 128 on the rows of digits", gru, gru_logits, digits, batch=64, lams=8, steps=60
    ),
}


# --- tasks ----------------------------------------------------------------------------------------


def cross_entropy(logits: Callable, params: Any, x: Array, y: Array) -> Array:
    return optax.softmax_cross_entropy_with_integer_labels(logits(params, x), y).mean()


@functools.cache
def trainer(model: Model) -> Callable[[jr.Penalty], jr.Trainer]:
    """The library's trainer of a model: Adam, the penalty's gradient added to the loss's."""
    loss = functools.partial(cross_entropy, model.logits)

    def at(reg: jr.Penalty) -> jr.Trainer:
        return jr.Trainer(
            model.init, loss, optax.chain(jr.add_penalty_gradient(reg), optax.adam(RATE))
        )

    return at


def l2_grid(lams: np.ndarray) -> Grid:
    """One of lam; an infinite one is put in past the constructor, which lets none be, so as to diverge."""
    grid = jr.grid(lambda lam: jr.l2(lam).on(jr.kernels), lam=lams)
    return jax.tree.map(lambda _: jnp.asarray(lams, jnp.float32), grid)


def make_task(model: Model, n_lams: int, steps: int) -> Task:
    """A task with lam from 1e-6 to 1."""
    x, y = model.data()
    x, y = jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.int32)
    end, key = N_TRAIN + N_VALID, jax.random.key(0)
    train, valid = (x[:N_TRAIN], y[:N_TRAIN]), (x[N_TRAIN:end], y[N_TRAIN:end])
    # A fit of no steps shows the parameters that the library starts from.
    start = jr.fit(trainer(model), jr.l2(0.0), train, steps=0, key=key)
    lams = np.logspace(-6, 0, n_lams).astype(np.float32)
    return Task(model, lams, train, valid, start.params, batches(model.batch, steps, key), key)


def batches(batch: int, steps: int, key: Array) -> np.ndarray:
    """Rows [steps, batch] of the library's minibatches, noted by a model that learns nothing."""

    def loss(params, seen, rows):
        i, order = seen
        return 0.0 * params, (i + 1, order.at[i].set(rows))

    nothing_yet = (jnp.zeros((), jnp.int32), jnp.zeros((steps, batch), jnp.int32))
    noting = lambda reg: jr.Trainer(
        init=lambda key: (jnp.zeros(()), nothing_yet),
        loss=loss,
        eval_loss=lambda params, seen, rows: params,
        optimizer=optax.chain(jr.add_penalty_gradient(reg), optax.sgd(1.0)),
        stateful=True,
    )
    rows = (jnp.arange(N_TRAIN, dtype=jnp.int32),)
    state = jr.fit(noting, jr.l2(0.0), rows, steps=steps, key=key, batch_size=batch)
    return np.asarray(state.model_state[1])
