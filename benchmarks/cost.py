"""What the abstraction costs: nothing. XLA's own count of a penalized step, ours against by hand.

Both programs are compiled and XLA is asked what they will execute: floating-point operations, bytes
read and written, transcendental functions. Nothing is timed, so there is no noise: the counts must be
**equal**, or the script ends with status 1. The net is an MLP 64-128-128-10 on a batch of 64; the
penalty acts on its kernels and must leave the biases beside them alone. Strengths are arguments of
both programs. Two couplings are compared:

    objective  value and gradient of `penalized(loss)`, then SGD
    chain      gradient of the loss, `add_penalty_gradient(penalty)`, then Adam

By hand is what one would write without a library: the formula in plain jax and `jax.grad` of it, with
the derivative of |x| at 0 taken as 0 and norms whose gradient is finite at 0. It also carries the
count of steps that a schedule of the strength needs. The column "by formula" is the chain once more
with the gradient itself written out by hand, which saves the factor 2 that comes from differentiating
a square where XLA does not fold it; there the bytes must be equal, and the flops are for information.

The same is counted where the parameters are an equinox module, which also holds a function, and where they
are an nnx module.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from _common import Row, arguments, cross_entropy, emit, machine, mlp, refuse, show
from flax import nnx
from jax import Array

import jaxreg as jr

SIZES, BATCH = (64, 128, 128, 10), 64
COUNTS = ("flops", "bytes accessed", "transcendentals")


# --- the penalties by hand ------------------------------------------------------------------------


@jax.custom_jvp
def absolute(x):
    """|x| with the derivative 0 at 0, where jax's own has 1."""
    return jnp.abs(x)


absolute.defjvps(lambda dx, out, x: jnp.sign(x) * dx)


def l2(w, lam):
    return lam / 2 * jnp.sum(w**2)


def l1(w, lam):
    return lam * jnp.sum(absolute(w))


def elastic_net(w, lam, r):
    return lam * jnp.sum(r * absolute(w) + (1 - r) / 2 * w**2)


def group_lasso(w, lam):
    """One group per unit, its incoming weights: lam * sqrt(inputs) * sum of the columns' norms."""
    square = jnp.sum(w**2, axis=0)
    norms = jnp.where(square == 0, 0, jnp.sqrt(jnp.where(square == 0, 1, square)))
    return lam * math.sqrt(w.shape[0]) * jnp.sum(norms)


def group_lasso_gradient(w, lam):
    square = jnp.sum(w**2, axis=0)
    inverse = jnp.where(square == 0, 0, 1 / jnp.sqrt(jnp.where(square == 0, 1, square)))
    return lam * math.sqrt(w.shape[0]) * inverse * w


class Pair(NamedTuple):
    """A penalty of ours, and by hand its strengths, its value and its gradient on one kernel."""

    penalty: jr.Penalty
    strengths: tuple[float, ...]
    value: Callable[..., Array]
    gradient: Callable[..., Array]


PAIRS = {
    "l2": Pair(jr.l2(1e-3), (1e-3,), l2, lambda w, lam: lam * w),
    "l1": Pair(jr.l1(1e-3), (1e-3,), l1, lambda w, lam: lam * jnp.sign(w)),
    "elastic_net": Pair(
        jr.elastic_net(1e-3, l1_ratio=0.5),
        (1e-3, 0.5),
        elastic_net,
        lambda w, lam, r: lam * r * jnp.sign(w) + lam * (1 - r) * w,
    ),
    "group_lasso": Pair(jr.group_lasso(1e-3, axis=-1), (1e-3,), group_lasso, group_lasso_gradient),
}


# --- the parameters as they are held --------------------------------------------------------------


class EqxLayer(eqx.Module):
    kernel: Array
    bias: Array
    activation: Callable = jax.nn.relu


class EqxNet(eqx.Module):
    layers: list[EqxLayer]


class NnxLayer(nnx.Module):
    def __init__(self, kernel: Array, bias: Array):
        self.kernel, self.bias = nnx.Param(kernel), nnx.Param(bias)


class NnxNet(nnx.Module):
    def __init__(self, layers: dict):
        self.layers = nnx.List([NnxLayer(**layer) for layer in layers.values()])


HELD: dict[str, Callable[[dict], Any]] = {
    "dict": lambda params: params,
    "equinox": lambda params: eqx.filter(
        EqxNet([EqxLayer(**layer) for layer in params.values()]), eqx.is_inexact_array
    ),
    "nnx": NnxNet,
}


def plain(params: Any) -> dict:
    """The layers as a dict of arrays, however they are held."""
    if isinstance(params, dict):
        return params
    layers = dict(enumerate(params.layers))
    value = lambda x: x[...] if isinstance(x, nnx.Variable) else x
    return {i: {"kernel": value(x.kernel), "bias": value(x.bias)} for i, x in layers.items()}


def loss(params: Any, x: Array, y: Array) -> Array:
    return cross_entropy(plain(params), x, y)


# --- the step, ours and by hand: each takes (penalty or strengths, params, state, x, y) -----------


def by_hand(value, params, strengths):
    return sum(value(layer["kernel"], *strengths) for layer in plain(params).values())


def update(optimizer, params, grads, state):
    updates, state = optimizer.update(grads, state, params)
    return optax.apply_updates(params, updates), state


def objective_ours(penalty, params, state, x, y):
    value, grads = jax.value_and_grad(jr.penalized(loss))(params, penalty, x, y)
    return update(optax.sgd(0.1), params, grads, state), value


def objective_by_hand(pair, strengths, params, state, x, y):
    def objective(params):
        return loss(params, x, y) + by_hand(pair.value, params, strengths)

    value, grads = jax.value_and_grad(objective)(params)
    return update(optax.sgd(0.1), params, grads, state), value


def chain_ours(penalty, params, state, x, y):
    grads = jax.grad(loss)(params, x, y)
    tx = optax.chain(jr.add_penalty_gradient(penalty), optax.adam(1e-3))
    return update(tx, params, grads, state)


def chain_by_hand(pair, strengths, params, state, x, y):
    grads = jax.grad(loss)(params, x, y)
    more = jax.grad(lambda p: by_hand(pair.value, p, strengths))(params)
    return _counted_adam(params, jax.tree.map(jnp.add, grads, more), state)


def chain_by_formula(pair, strengths, params, state, x, y):
    grads = jax.grad(loss)(params, x, y)
    for name, layer in params.items():
        grads[name]["kernel"] += pair.gradient(layer["kernel"], *strengths)
    return _counted_adam(params, grads, state)


def _counted_adam(params, grads, state):
    count, inner = state
    count = jax.tree.map(optax.safe_increment, count)
    params, inner = update(optax.adam(1e-3), params, grads, inner)
    return params, (count, inner)


# --- counting -------------------------------------------------------------------------------------


def counts(analysis: Mapping[str, Any] | list | None) -> dict[str, int]:
    """The counts of interest from `Compiled.cost_analysis()`: a dict, or in older jax a list of one.

    A count that XLA leaves out is 0; no analysis at all is an error, since 0 = 0 would prove nothing.
    """
    found = analysis[0] if isinstance(analysis, (list, tuple)) and analysis else analysis
    if not found or "flops" not in found:
        raise RuntimeError(f"XLA gave no cost analysis on this backend, but {analysis!r}.")
    return {name: int(found.get(name, 0)) for name in COUNTS}


def cost(step: Callable, *args: Any) -> dict[str, int]:
    return counts(jax.jit(step).lower(*args).compile().cost_analysis())


def compare(name: str, coupling: str, sizes=SIZES, batch: int = BATCH, held: str = "dict") -> Row:
    """One row: the counts of ours and of by hand, and whether they are equal."""
    pair, params = PAIRS[name], HELD[held](mlp(jax.random.key(0), sizes))
    penalty = pair.penalty.on(jr.kernels)
    batch_of = jnp.ones((batch, sizes[0])), jnp.zeros(batch, jnp.int32)
    chain = optax.chain(jr.add_penalty_gradient(penalty), optax.adam(1e-3))
    optimizer = chain if coupling == "chain" else optax.sgd(0.1)
    rest = (params, optimizer.init(params), *batch_of)
    our_step, hand_step = (
        (chain_ours, chain_by_hand) if coupling == "chain" else (objective_ours, objective_by_hand)
    )
    ours = cost(our_step, penalty, *rest)
    hand = cost(functools.partial(hand_step, pair), pair.strengths, *rest)
    row = {
        "penalty": name,
        "coupling": coupling,
        "held": held,
        "ours": ours,
        "by_hand": hand,
        "equal": ours == hand,
    }
    if coupling == "chain" and held == "dict":
        row["by_formula"] = cost(functools.partial(chain_by_formula, pair), pair.strengths, *rest)
        row["equal"] &= ours["bytes accessed"] == row["by_formula"]["bytes accessed"]
    return row


def main() -> None:
    options = arguments(__doc__ or "").parse_args()
    sizes, batch = ((8, 6, 6, 3), 4) if options.smoke else (SIZES, BATCH)
    couplings = ("objective", "chain")
    rows = [compare(n, c, sizes, batch, held) for held in HELD for c in couplings for n in PAIRS]
    if not options.json:
        _table(rows)
    emit("cost", rows)
    unequal = [f"{r['penalty']} ({r['coupling']}, {r['held']})" for r in rows if not r["equal"]]
    if unequal:
        refuse(f"XLA counts more or less than by hand for {', '.join(unequal)}.")


def _table(rows: list[Row]) -> None:
    def line(row: Row) -> list[str]:
        ours, hand, formula = row["ours"], row["by_hand"], row.get("by_formula")
        pairs = [f"{ours[c]:,} / {hand[c]:,}" for c in COUNTS]
        share = ours["flops"] / formula["flops"] - 1 if formula else None
        last = "-" if share is None else f"{share:+.2%}"
        return [
            f"{row['penalty']}, {row['coupling']}, {row['held']}",
            *pairs,
            "yes" if row["equal"] else "NO",
            last,
        ]

    columns = ["step", *(f"{c}, ours / by hand" for c in COUNTS), "equal", "flops by formula"]
    show("XLA's cost analysis of a penalized step", columns, [line(row) for row in rows])
    print(machine())


if __name__ == "__main__":
    main()
