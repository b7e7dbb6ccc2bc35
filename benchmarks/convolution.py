"""A CNN trained inside one compiled program, with and without the rewrite of its convolutions.

XLA's CPU backend brings convolutions into the layout of its fast kernels outside loops only;
`jaxreg.map_penalties` and `jaxreg.sweep` do it inside (jaxreg/_convolution.py). The candidates train
the same small CNN by the same steps for 4 λ: map_penalties, a hand-written vmap of the same loop, and
the Python loop of jitted steps. Their parameters must agree, or the script stops before any time.
"""

from __future__ import annotations

import functools
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from _common import arguments, emit, figures, first_calls, machine, refuse, show, timed_rounds

import jaxreg as jr

BATCH, RATE, TOLERANCE = 64, 1e-2, 1e-4
LAMS = (0.0, 1e-3, 1e-2, 1e-1)


class CNN(nn.Module):
    @nn.compact
    def __call__(self, x):
        for width in (16, 32):
            x = nn.avg_pool(nn.relu(nn.Conv(width, (3, 3))(x)), (2, 2), (2, 2))
        return nn.Dense(10)(x.reshape(x.shape[0], -1))


X = jax.random.normal(jax.random.key(0), (BATCH, 8, 8, 1))
Y = jnp.arange(BATCH) % 10
START = CNN().init(jax.random.key(1), X)


def loss(params, x, y):
    return optax.softmax_cross_entropy_with_integer_labels(CNN().apply(params, x), y).mean()


def step(params, reg):
    grads = jax.grad(jr.penalized(loss))(params, reg, X, Y)
    return jax.tree.map(lambda p, g: p - RATE * g, params, grads)


def fit(reg, steps):
    return jax.lax.fori_loop(0, steps, lambda i, p: step(p, reg), START)


def main() -> int:
    args = arguments(__doc__, rounds=5).parse_args()
    steps, rounds = (2, 2) if args.smoke else (50, args.rounds)
    grid = jr.grid(jr.l2, lam=LAMS)
    trained, jitted = functools.partial(fit, steps=steps), jax.jit(step)
    vmapped = jax.jit(jax.vmap(trained))

    def loop():
        runs = []
        for reg in grid:
            params = START
            for _ in range(steps):
                params = jitted(params, reg)
            runs.append(params)
        return jax.tree.map(lambda *xs: jnp.stack(xs), *runs)

    candidates = {
        "jaxreg.map_penalties": lambda: jr.map_penalties(trained, grid, batch_size=1),
        "vmap by hand": lambda: vmapped(grid.penalty),
        "loop of jitted steps": loop,
    }
    first, answers = first_calls(candidates)
    for name, answer in answers.items():
        pairs = zip(jax.tree.leaves(answer), jax.tree.leaves(answers["loop of jitted steps"]))
        gap = max(float(np.abs(a - b).max()) for a, b in pairs)
        if not gap <= TOLERANCE:
            refuse(f"{name}: parameters differ by {gap:.1e} from the loop of jitted steps")
    timings = timed_rounds(candidates, first, rounds)
    ours = timings["jaxreg.map_penalties"]
    rows = [{"candidate": n, "steps": steps, **figures(t, ours)} for n, t in timings.items()]
    if not args.json:
        cells = [
            (n, f"{t.median / ours.median:.2f}", f"{1e3 * t.median / steps / len(LAMS):.2f}")
            for n, t in timings.items()
        ]
        show("A small CNN", ("candidate", "time / jaxreg", "ms per λ and step"), cells)
    emit("convolution", rows)
    if not args.json:
        print(machine())
    return 0


if __name__ == "__main__":
    sys.exit(main())
