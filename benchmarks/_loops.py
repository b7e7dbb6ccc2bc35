"""The sweep, ours and by hand in jax.

Each makes a function () -> losses [K, 2], of train and validation.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _models import RATE, Task, cross_entropy, l2_grid, layers, trainer
from jax import Array, lax

import jaxreg as jr


def library(task: Task, **options: Any) -> Callable[[], np.ndarray]:
    """`jaxreg.sweep` as a user calls it; `options` are further arguments of it."""
    run = result_of(task, **{"keep_params": False, "evals": 1} | options)
    return lambda: end_losses(run())


def result_of(task: Task, **options: Any) -> Callable[[], jr.SweepResult]:
    quiet = {"progress": False} | options

    def run():
        return jr.sweep(
            trainer(task.model), l2_grid(task.lams), task.train, validation=task.valid,
            steps=len(task.order), key=task.key, batch_size=task.model.batch, **quiet,
        )  # fmt: skip

    return run


def end_losses(result: jr.SweepResult) -> np.ndarray:
    """[K, 2], of the only fold and seed."""
    ends = result.train["loss"][:, 0, 0, -1], result.valid["loss"][:, 0, 0, -1]
    return np.stack([np.asarray(e) for e in ends], -1)


# --- by hand --------------------------------------------------------------------------------------


def losses(logits: Callable, params: Any, train: tuple, valid: tuple) -> Array:
    return jnp.stack([cross_entropy(logits, params, *rows) for rows in (train, valid)])


def _step(logits, params, state, lam, x, y):
    def objective(params):
        decay = sum(jnp.sum(layer["kernel"] ** 2) for layer in layers(params))
        return cross_entropy(logits, params, x, y) + lam / 2 * decay

    grads = jax.grad(objective)(params)
    updates, state = optax.adam(RATE).update(grads, state, params)
    return optax.apply_updates(params, updates), state


def _train(logits, lam, params, order, train):
    """The parameters of one lam from start to end."""
    x, y = train

    def body(carry, rows):
        return _step(logits, *carry, lam, x[rows], y[rows]), None

    return lax.scan(body, (params, optax.adam(RATE).init(params)), order)[0][0]


def _scan(logits, lam, params, order, train, valid):
    return losses(logits, _train(logits, lam, params, order, train), train, valid)


def _rest(task: Task) -> tuple:
    return task.params, jnp.asarray(task.order), task.train, task.valid


def vmap_by_hand(task: Task) -> Callable[[], Array]:
    one = functools.partial(_scan, task.model.logits)
    program = jax.jit(jax.vmap(one, in_axes=(0, None, None, None, None)))
    return lambda: program(jnp.asarray(task.lams), *_rest(task))


def map_by_hand(task: Task, batch_size: int) -> Callable[[], Array]:
    @jax.jit
    def program(lams, *rest):
        one = lambda lam: _scan(task.model.logits, lam, *rest)
        # A width of one would still be a vmap; a plain map runs the lanes bare.
        return lax.map(one, lams, batch_size=batch_size if batch_size > 1 else None)

    return lambda: program(jnp.asarray(task.lams), *_rest(task))


def loop_of_scans(task: Task) -> Callable[[], Array]:
    program = jax.jit(functools.partial(_scan, task.model.logits))
    rest = _rest(task)
    # Nothing waits inside the loop: whatever jax can overlap, it may.
    return lambda: jnp.stack([program(lam, *rest) for lam in task.lams])


def loop_tuned(task: Task) -> Callable[[], Array]:
    """One compiled step that gathers its own rows and takes over the state it is given."""

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state, lam, rows, x, y):
        return _step(task.model.logits, params, state, lam, x[rows], y[rows])

    return _loop(task, lambda carry, lam, rows: step(*carry, lam, rows, *task.train))


def loop_as_usual(task: Task) -> Callable[[], Array]:
    """One compiled step on a batch that was indexed outside, as most training loops are written."""
    step, (x, y) = jax.jit(functools.partial(_step, task.model.logits)), task.train
    return _loop(task, lambda carry, lam, rows: step(*carry, lam, x[rows], y[rows]))


def _loop(task: Task, step: Callable) -> Callable[[], Array]:
    look = jax.jit(functools.partial(losses, task.model.logits))

    def run():
        found = []
        for lam in task.lams:
            params = jax.tree.map(jnp.copy, task.params)  # a step may consume what it is given
            carry = params, optax.adam(RATE).init(params)
            for rows in task.order:
                carry = step(carry, lam, rows)
            found.append(look(carry[0], task.train, task.valid))
        return jnp.stack(found)

    return run


def accuracies(task: Task) -> np.ndarray:
    """Share of the validation rows that each lam gets right, [K]."""
    x, y = task.valid

    def one(lam):
        params = _train(task.model.logits, lam, task.params, jnp.asarray(task.order), task.train)
        return jnp.mean(task.model.logits(params, x).argmax(-1) == y)

    return np.asarray(jax.jit(functools.partial(lax.map, one))(jnp.asarray(task.lams)))
