"""A CNN trained inside one compiled program, with and without the rewrite of its convolutions.

XLA's CPU backend brings convolutions into the layout of its fast kernels outside loops only;
`jaxreg.map_grid` and `jaxreg.sweep` do it inside (jaxreg/_convolution.py). The candidates train
the same small CNN by the same full-batch steps for 8 λ: sweep (on all cores, as always), map_grid
(one program, one lane after another), a hand-written vmap of the same loop, and the Python loop of
jitted steps. Two checks come before any time. The gradient of the loss, in values, inside a compiled
loop with and without the rewrite: equal to 1e-6 of its largest entry. And the trained parameters: equal
to 1e-4, since rounding grows from step to step. Bound: the loop of jitted steps takes 1.3 times as long
as the sweep, on a CPU; elsewhere the rewrite does nothing and the same table is for information. A
candidate that takes longer than 6 s runs in the first round only.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _common import (
    arguments,
    bound,
    emit,
    figures,
    first_calls,
    machine,
    refuse,
    show,
    show_bounds,
    timed_rounds,
)
from _models import MODELS, cross_entropy

import jaxreg as jr

BATCH, RATE, N_LAMS = 64, 1e-2, 8
EQUAL, TRAINED = 1e-6, 1e-4  # of a gradient over its largest entry; of parameters after training
LEAST = 1.3
SWEEP, LOOP = "jaxreg.sweep", "loop of jitted steps"

Candidates = dict[str, Callable[[], Any]]


def made() -> tuple[Any, tuple[jax.Array, jax.Array]]:
    """Initial parameters, and a batch."""
    x = jax.random.normal(jax.random.key(0), (BATCH, 64))
    return MODELS["cnn"].init(jax.random.key(1)), (x, jnp.arange(BATCH) % 10)


def loss(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
    return cross_entropy(MODELS["cnn"].logits, params, x, y)


def step(params: Any, reg: jr.Penalty, batch: tuple) -> Any:
    grads = jax.grad(jr.penalized(loss))(params, reg, *batch)
    return jax.tree.map(lambda p, g: p - RATE * g, params, grads)


def candidates(steps: int, n_lams: int = N_LAMS) -> Candidates:
    """By name; each returns the parameters of every λ, with a leading axis."""
    start, batch = made()
    other = batch[0] + 1, batch[1]  # to be judged by: no rows to train on
    grid = jr.grid(jr.l2, lam=[0.0, *np.logspace(-3, -1, n_lams - 1)])
    jitted = jax.jit(step)
    trainer = lambda reg: jr.Trainer(
        init=lambda key: start,
        loss=loss,
        optimizer=optax.chain(jr.add_penalty_gradient(reg), optax.sgd(RATE)),
    )

    def fit(reg):
        return jax.lax.fori_loop(0, steps, lambda i, p: step(p, reg, batch), start)

    def swept():
        result = jr.sweep(
            trainer, grid, batch, validation=other, steps=steps, evals=1, progress=False,
            key=jax.random.key(0),
        )  # fmt: skip
        return jax.tree.map(lambda x: x[:, 0, 0], result.params)

    def loop():
        runs = [start] * n_lams
        for k, reg in enumerate(grid):
            for _ in range(steps):
                runs[k] = jitted(runs[k], reg, batch)
        return jax.tree.map(lambda *xs: jnp.stack(xs), *runs)

    vmapped = jax.jit(jax.vmap(fit))
    return {
        SWEEP: swept,
        "jaxreg.map_grid": lambda: jr.map_grid(fit, grid, chunk=1),
        "vmap by hand": lambda: vmapped(grid.points),
        LOOP: loop,
    }


def gap(a: Any, b: Any) -> float:
    """Largest difference of two pytrees."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return max(float(np.abs(np.asarray(x) - y).max()) for x, y in pairs)


def gradient_gap() -> float:
    """The loss's gradients at 4 points, in a compiled loop with and without the rewrite."""
    start, batch = made()

    def gradient(reg):
        # The penalty only moves the point, so that every lane has another one.
        at = jax.tree.map(lambda p: (1 - reg(start) / 1e3) * p, start)
        return jax.grad(loss)(at, *batch)

    grid = jr.grid(jr.l2, lam=[0.0, 0.1, 0.2, 0.4])
    plain = jax.jit(functools.partial(jax.lax.map, gradient))(grid.points)
    ours = jr.map_grid(gradient, grid, chunk=1)
    largest = max(float(np.abs(x).max()) for x in jax.tree.leaves(plain))
    return gap(ours, plain) / largest


def check(gradients: float, answers: dict[str, Any]) -> dict[str, float]:
    """Differences of the parameters from the loop's; stops the script if they are too large."""
    if not gradients <= EQUAL:
        refuse(f"the rewritten gradient differs by {gradients:.1e} of its largest entry")
    gaps = {name: gap(answer, answers[LOOP]) for name, answer in answers.items()}
    for name, far in gaps.items():
        if not far <= TRAINED:
            refuse(f"{name}: parameters differ by {far:.1e} from the {LOOP}")
    return gaps


def main() -> None:
    options = arguments(__doc__ or "").parse_args()
    steps, n_lams, rounds = (2, 2, 2) if options.smoke else (100, N_LAMS, options.rounds)
    calls = candidates(steps, n_lams)
    first, answers = first_calls(calls)
    gradients = gradient_gap()
    gaps = check(gradients, answers)
    timings = timed_rounds(calls, first, rounds, budget=60.0, slow=6.0)
    rows = [
        {"candidate": n, "lams": n_lams, "steps": steps, **figures(t, timings[SWEEP]),
         "parameters_differ": gaps[n], "gradients_differ": gradients}
        for n, t in timings.items()
    ]  # fmt: skip
    reached = []
    if not options.smoke and jax.default_backend() == "cpu":
        by_name = {row["candidate"]: row["ratio"] for row in rows}
        reached = [bound(f"CNN: {LOOP} / {SWEEP}", by_name[LOOP], least=LEAST)]
    if not options.json:
        cells = [
            (r["candidate"], f"{r['ratio']:.2f}", "{:.2f} - {:.2f}".format(*r["ratio_iqr"]),
             f"{1e3 * r['seconds'] / steps / n_lams:.2f}", f"{r['parameters_differ']:.0e}")
            for r in rows
        ]  # fmt: skip
        columns = (
            "candidate",
            "time / jaxreg.sweep",
            "quartiles",
            "ms per λ and step",
            "params differ",
        )
        title = f"A small CNN, {n_lams} λ; gradients with and without the rewrite: {gradients:.0e}"
        show(title, columns, cells)
    emit("convolution", [*rows, *reached])
    if not options.json:
        show_bounds(reached)
        print(machine())


if __name__ == "__main__":
    main()
