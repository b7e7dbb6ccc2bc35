"""What it costs to judge a fold by its own rows: the digits sweep with a metric that is no mean over rows.

The sweep of the main job: an MLP 64-128-128-10 on 100 digits, 16 λ x 5 folds x 3 seeds, evaluated every
100 steps. The share of wrong answers is asked for in two ways: as a mean over rows, of which one pass over
the data serves all folds, and as its root, which is no mean and is called with the rows of each fold. One
must be the square of the other before anything is timed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _common import (
    Row,
    arguments,
    bound,
    cross_entropy,
    emit,
    figures,
    first_calls,
    machine,
    mlp,
    refuse,
    show,
    show_bounds,
    timed_rounds,
)

import jaxreg as jr

MOST = 1.03


def wrong(params: dict, x: jax.Array, y: jax.Array) -> jax.Array:
    *hidden, last = params.values()
    for layer in hidden:
        x = jax.nn.relu(x @ layer["kernel"] + layer["bias"])
    return jnp.mean((x @ last["kernel"] + last["bias"]).argmax(-1) != y)


def rooted(params: dict, x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.sqrt(wrong(params, x, y))


def swept(metric: dict[str, Callable], data: tuple, steps: int) -> Callable[[], Any]:
    def trainer(reg: Any) -> jr.Trainer:
        tx = optax.chain(jr.add_penalty_gradient(reg), optax.adam(1e-3))
        init = lambda key: mlp(key, (64, 128, 128, 10))
        return jr.Trainer(init, cross_entropy, tx, metric)

    grid = jr.grid(lambda lam: jr.l2(lam).on(jr.kernels), lam=np.geomspace(1e-5, 1e-1, 16))
    return lambda: jr.sweep(
        trainer, grid, data, folds=5, seeds=3, steps=steps, evals=5, batch_size=64, key=jax.random.key(0),
        progress=False,
    )  # fmt: skip


def main() -> None:
    args = arguments(__doc__ or "", rounds=5).parse_args()
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    rows = np.random.default_rng(0).permutation(len(X))[:100]
    data = jnp.asarray(X[rows] / 16, jnp.float32), jnp.asarray(y[rows], jnp.int32)
    steps = 20 if args.smoke else 500
    candidates = {
        "no metric": swept({}, data, steps),
        "by rows": swept({"wrong": wrong}, data, steps),
        "by the rows of each fold": swept({"wrong": rooted}, data, steps),
    }
    first, answers = first_calls(candidates)
    a, b = (np.asarray(answers[n].valid["wrong"]) for n in list(candidates)[1:])
    if not np.allclose(a, b**2, atol=1e-6):
        refuse("the metric is another number when it is called with the rows of each fold.")
    times = timed_rounds(candidates, first, 2 if args.smoke else args.rounds)
    found: list[Row] = [
        {"candidate": name, **figures(times[name], times["by rows"])} for name in candidates
    ]
    emit("judging", found)
    if not args.json:
        cells = [[str(r["candidate"]), f"{r['seconds']:.2f} s", f"{r['ratio']:.3f}"] for r in found]
        show(f"the digits sweep\n{machine()}", ["metric", "time", "over by rows"], cells)
        if not args.smoke:
            show_bounds([bound("whole folds over rows", float(found[2]["ratio"]), most=MOST)])


if __name__ == "__main__":
    main()
