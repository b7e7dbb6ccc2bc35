"""What the first call of a small sweep costs: CPU seconds of a new process, beside the same by hand.

3 λ x 3 folds of a small net for 100 steps take no time at all; compiling and asking do. Each candidate
runs in a process of its own, its import aside; once more with a warm persistent compilation cache.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from _common import Row, arguments, bound, emit, show, show_bounds

TARGET = 1.5
CANDIDATES = ("sweep", "by hand")


def main() -> None:
    parser = arguments(__doc__ or "", rounds=5)
    parser.add_argument("--one", choices=CANDIDATES, help="one candidate, in this process")
    args = parser.parse_args()
    if args.one:
        print(json.dumps({"cpu": {"sweep": sweep, "by hand": by_hand}[args.one]()}))
        return
    rounds = 1 if args.smoke else args.rounds
    with tempfile.TemporaryDirectory() as cache:
        # In turns: a machine that slows down slows both.
        turns = [{name: _process(name) for name in CANDIDATES} for _ in range(rounds)]
        _process("sweep", cache)
        warm = [_process("sweep", cache) for _ in range(rounds)]
    cpu = {name: float(np.median([turn[name] for turn in turns])) for name in CANDIDATES}
    over = {n: float(np.median([turn[n] / turn["by hand"] for turn in turns])) for n in CANDIDATES}
    rows: list[Row] = [
        {"candidate": name, "cpu": cpu[name], "over": over[name]} for name in CANDIDATES
    ]
    on_disk = float(np.median(warm))
    named = {"candidate": "sweep, programs on disk"}
    rows.append(named | {"cpu": on_disk, "over": on_disk / cpu["by hand"]})
    emit("first_call", rows)
    if not args.json:
        cells = [[r["candidate"], f"{r['cpu']:.2f} s", f"{r['over']:.2f}"] for r in rows]
        show(
            "first call, CPU seconds of a new process", ["candidate", "CPU", "over by hand"], cells
        )
        show_bounds([bound("sweep over by hand", rows[0]["over"], most=TARGET)])


def _process(name: str, cache: str | None = None) -> float:
    """CPU seconds of one candidate in a process of its own."""
    env = {
        k: v
        for k, v in os.environ.items()
        if not k.startswith(("JAX_COMPILATION", "JAX_PERSISTENT"))
    }
    if cache is not None:
        env |= {
            "JAX_COMPILATION_CACHE_DIR": cache,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        env |= {"JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}
    child = [sys.executable, str(Path(__file__)), "--one", name]
    run = subprocess.run(child, env=env, capture_output=True, text=True, check=True)
    return json.loads(run.stdout.splitlines()[-1])["cpu"]


def _problem() -> tuple:
    import jax
    import jax.numpy as jnp

    rng = np.random.default_rng(0)
    X = rng.normal(size=(100, 20)).astype("f")

    def init(key):
        a, b = jax.random.split(key)
        first = {"kernel": jax.random.normal(a, (20, 16)), "bias": jnp.zeros(16)}
        return {"a": first, "b": {"kernel": jax.random.normal(b, (16, 1))}}

    def loss(p, x, y):
        hidden = jnp.tanh(x @ p["a"]["kernel"] + p["a"]["bias"])
        return jnp.mean(((hidden @ p["b"]["kernel"])[:, 0] - y) ** 2)

    return init, loss, X, X[:, 0].copy()


def sweep() -> float:
    import jax
    import optax

    import jaxreg as jr

    init, loss, X, y = _problem()
    began = time.process_time()

    def trainer(reg):
        return jr.Trainer(init, loss, optax.chain(jr.add_penalty_gradient(reg), optax.adam(1e-2)))

    grid = jr.grid(lambda lam: jr.l2(lam).on(jr.kernels), lam=[1e-3, 1e-2, 1e-1])
    jr.sweep(
        trainer,
        grid,
        (X, y),
        folds=3,
        steps=100,
        batch_size=20,
        key=jax.random.key(0),
        progress=False,
    )
    return time.process_time() - began


def by_hand() -> float:
    import jax
    import jax.numpy as jnp
    import optax

    init, loss, X, y = _problem()
    began = time.process_time()

    def fit(lam, train, valid, key):
        tx, params = optax.chain(optax.add_decayed_weights(lam), optax.adam(1e-2)), init(key)

        def step(carry, key):
            params, state = carry
            rows = jax.random.choice(key, train, (20,), False)
            grads = jax.grad(loss)(params, X[rows], y[rows])
            updates, state = tx.update(grads, state, params)
            return (optax.apply_updates(params, updates), state), None

        keys = jax.random.split(key, 100)
        (params, _), _ = jax.lax.scan(step, (params, tx.init(params)), keys)
        return loss(params, X[valid], y[valid])

    X, y = jnp.asarray(X), jnp.asarray(y)
    valid = np.random.default_rng(0).permutation(99).reshape(3, 33)
    train = jnp.array([np.setdiff1d(np.arange(99), f) for f in valid])
    folds = jax.vmap(fit, (None, 0, 0, None))
    every = jax.jit(jax.vmap(folds, (0, None, None, None)))
    lams = jnp.array([1e-3, 1e-2, 1e-1])
    every(lams, train, jnp.asarray(valid), jax.random.key(0)).block_until_ready()
    return time.process_time() - began


if __name__ == "__main__":
    main()
