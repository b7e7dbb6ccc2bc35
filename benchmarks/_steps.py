"""A jitted training step with a term beside the plain one: models, losses, what is checked and timed."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _common import Row, bound, figures, first_calls, mlp, refuse, timed_rounds

import jaxreg as jr

RATE, CLASSES, PLAIN = 0.05, 10, "plain"
CLOSE = 1e-5  # of the update: a strength of 0 is another program, in float32
Loss = Callable[..., Any]  # (strength, params, x, y, key) -> data loss, or (it, terms)


class Size(NamedTuple):
    mlp: tuple[int, ...]
    times: int
    units: int
    rows: int
    steps: int  # of a timed call


FULL = Size((784, 512, 512, CLASSES), times=32, units=64, rows=128, steps=5)
SMALL = Size((20, 16, 16, CLASSES), times=4, units=8, rows=16, steps=1)


class Case(NamedTuple):
    """A loss with a term, the strength it is timed at, and how much a step may take at most."""

    model: str
    strength: float
    most: float
    loss: Loss


# --- the models ---------------------------------------------------------------------------------------


def hidden(params: dict, x: jax.Array, change: Callable = lambda h, i: h) -> list[jax.Array]:
    """The activations of the hidden layers of the MLP, each changed by (h, its number)."""
    found = []
    for i, layer in enumerate(list(params.values())[:-1]):
        x = change(jax.nn.relu(x @ layer["kernel"] + layer["bias"]), i)
        found.append(x)
    return found


def logits(params: dict, x: jax.Array, change: Callable = lambda h, i: h) -> jax.Array:
    last = list(params.values())[-1]
    return hidden(params, x, change)[-1] @ last["kernel"] + last["bias"]


def nll(out: jax.Array, y: jax.Array) -> jax.Array:
    return optax.softmax_cross_entropy_with_integer_labels(out, y).mean()


def gru(key: jax.Array, units: int) -> dict:
    a, b, c = (jax.random.normal(k, (units, n)) for k, n in zip(
        jax.random.split(key, 3), (3 * units, 3 * units, CLASSES)))  # fmt: skip
    scale = units**-0.5
    return {"input": scale * a, "recurrent": scale * b, "head": scale * c}


def outputs(params: dict, x: jax.Array) -> jax.Array:
    """The states of a GRU, [times, rows, units], of inputs [rows, times, units]."""
    first = jnp.swapaxes(x, 0, 1) @ params["input"]

    def cell(h, ahead):
        update, reset, new = jnp.split(ahead, 3, -1)
        u, r, n = jnp.split(h @ params["recurrent"], 3, -1)
        update, reset = jax.nn.sigmoid(update + u), jax.nn.sigmoid(reset + r)
        h = update * h + (1 - update) * jnp.tanh(new + reset * n)
        return h, h

    return jax.lax.scan(cell, jnp.zeros((len(x), x.shape[-1])), first)[1]


# --- the losses ---------------------------------------------------------------------------------------


def plain(strength, params, x, y, key):
    del strength, key
    return nll(logits(params, x), y)


def activity(strength, params, x, y, key):
    del key
    found = hidden(params, x)
    term = jr.terms.activity_l1(strength)
    last = params[f"dense_{len(found)}"]
    return nll(found[-1] @ last["kernel"] + last["bias"], y), {"activity": sum(map(term, found))}


def jacobian(strength, params, x, y, key):
    term = jr.terms.jacobian(strength)(lambda x: logits(params, x), x, key)
    return nll(logits(params, x), y), {"jacobian": term}


def adversarial(strength, params, x, y, key):
    term = jr.terms.adversarial(strength, radius=1.0)(lambda x: logits(params, x), x, key)
    return nll(logits(params, x), y), {"adversarial": term}


def dropout(strength, params, x, y, key):
    keys = jax.random.split(key, len(params))
    return nll(logits(params, x, lambda h, i: jr.noise.drop(h, strength, keys[i])), y)


def mixup(strength, params, x, y, key):
    x, shares = jr.noise.mixup(x, jax.nn.one_hot(y, CLASSES), strength, key)
    return optax.softmax_cross_entropy(logits(params, x), shares).mean()


def recurrent(strength, params, x, y, key):
    del strength, key
    return nll(outputs(params, x) @ params["head"], y.T)


def ar_and_tar(strength, params, x, y, key):
    del key
    h = outputs(params, x)
    terms = {"ar": jr.terms.activity_l2(strength)(h), "tar": jr.terms.tar(strength, axis=0)(h)}
    return nll(h @ params["head"], y.T), terms


PLAINS = {"mlp": plain, "gru": recurrent}
CASES = {
    "activity_l1": Case("mlp", 1.0, 1.05, activity),
    "AR and TAR": Case("gru", 2.0, 1.05, ar_and_tar),
    "jacobian, 1 probe": Case("mlp", 0.1, 3.0, jacobian),
    "sam": Case("mlp", 0.05, 2.1, plain),
    "adversarial, 1 power step": Case("mlp", 1.0, 3.2, adversarial),
    "drop": Case("mlp", 0.5, 1.1, dropout),
    "mixup": Case("mlp", 0.4, 1.1, mixup),
}


# --- overhead -----------------------------------------------------------------------------------------


def stepped(name: str, loss: Loss) -> Callable:
    """(strength, state, batch, key) -> the state after a step, compiled."""

    def trainer(strength):
        return jr.Trainer(
            lambda key: {}, functools.partial(loss, strength), optax.sgd(RATE), stochastic=True,
            eval_loss=functools.partial(loss, strength),
            value_and_grad=functools.partial(jr.sam, rho=strength) if name == "sam" else jax.value_and_grad,
        )  # fmt: skip

    return jax.jit(lambda strength, *given: trainer(strength).step(*given)[0])


def start(model: str, size: Size) -> tuple[Any, tuple]:
    """The state before the first step, and a batch."""

    def made(key):
        of_params, of_x, of_y = jax.random.split(key, 3)
        if model == "mlp":
            params, shape = mlp(of_params, size.mlp), (size.rows, size.mlp[0])
        else:
            params, shape = gru(of_params, size.units), (size.rows, size.times, size.units)
        y = jax.random.randint(of_y, shape[:-1], 0, CLASSES)
        return params, (jax.random.normal(of_x, shape), y)

    params, batch = jax.jit(made)(jax.random.key(0))
    trainer = jr.Trainer(lambda key: params, lambda params, x, y: jnp.zeros(()), optax.sgd(RATE))
    return trainer.start(jax.random.key(0)), batch


def far(a: Any, b: Any) -> float:
    """The largest difference of parameters."""
    return max(
        float(np.abs(np.asarray(x) - np.asarray(y)).max())
        for x, y in zip(*map(jax.tree.leaves, (a, b)))
    )


def check(name: str, before: Any, plain: Any, on: Any, off: Any) -> float:
    """Stop unless a step moves, differs from the plain one, and is the plain one at a strength of 0.

    Args:
      name: of the case.
      before: parameters; those after a plain step, with the term, and with a strength of 0 follow.

    Returns:
      The largest difference of the last from the plain step, over the largest plain update.
    """
    update = far(plain, before)
    if not all(np.isfinite(x).all() for x in jax.tree.leaves(on)):
        refuse(f"{name}: a step gives parameters that are not finite.")
    if not (far(on, before) > 0 and far(on, plain) > CLOSE * update):
        refuse(
            f"{name}: a step does not move the parameters, or moves them as the plain step does."
        )
    apart = far(off, plain) / update
    if not apart <= CLOSE:
        refuse(f"{name}: at a strength of 0 the update differs by {apart:.1e} from the plain one.")
    return apart


def overhead(smoke: bool, rounds: int) -> tuple[list[Row], list[Row]]:
    size = SMALL if smoke else FULL
    rows = [row for model in PLAINS for row in of_model(model, size, rounds)]
    return rows, [
        bound(f"{row['model']}: step with {row['candidate']} / plain", row["ratio"], most=row["at_most"])
        for row in rows if "at_most" in row
    ]  # fmt: skip


def of_model(model: str, size: Size, rounds: int) -> list[Row]:
    """The rows of the plain step and of all cases of a model."""
    state, batch = start(model, size)
    key, cases = jax.random.key(1), {n: c for n, c in CASES.items() if c.model == model}
    timed = {PLAIN: Case(model, 0.0, 1.0, PLAINS[model]), **cases}
    steps = {name: stepped(name, case.loss) for name, case in timed.items()}

    def call(name):
        now = state
        for _ in range(size.steps):
            now = steps[name](timed[name].strength, now, batch, key)
        return now.params

    calls = {name: functools.partial(call, name) for name in steps}
    first, _ = first_calls(calls)
    once = lambda name, strength: steps[name](strength, state, batch, key).params
    right = once(PLAIN, 0.0)
    apart = {
        name: check(name, state.params, right, once(name, case.strength), once(name, 0.0))
        for name, case in cases.items()
    }
    timings = timed_rounds(calls, first, rounds)
    rows = []
    for name, timing in timings.items():
        row = {"model": model, "candidate": name, "rows": size.rows, "steps": size.steps}
        row |= figures(timing, timings[PLAIN])
        if name in cases:
            most = cases[name].most
            row |= {"at_zero": apart[name], "at_most": most, "kept": row["ratio"] <= most}
        rows.append(row)
    return rows
