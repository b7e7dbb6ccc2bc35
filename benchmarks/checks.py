"""What locks, traces and checks take of the main job: seconds inside of them over seconds of the sweep.

The sweep of the main job, in its first call in this process and with a checkpoint directory: an MLP
64-128-128-10 on 100 digits, 16 λ x 5 folds x 3 seeds of 1,000 steps. Timed from within is what a sweep does
beside training so that nothing goes wrong: traces of the user's functions and what is judged on them, the
fingerprint of the experiment, the lock, the claim, and the look into the directory. It is a share of one
run, so other work on the machine moves both of its parts.
"""

from __future__ import annotations

import contextlib
import importlib
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _common import Row, arguments, bound, cross_entropy, emit, machine, mlp, show, show_bounds

import jaxreg as jr

MOST = 0.01
TIMED = {
    "traces of the user's functions": "check",
    "fingerprint": "fingerprint",
    "look into the directory": "experiment_in",
    "lock": "exclusive",
    "claim": "CheckpointStore",
}


@contextlib.contextmanager
def timed(seconds: dict[str, float]) -> Iterator[None]:
    """Functions that the sweep calls, with their seconds added up."""
    module = importlib.import_module("jaxreg.sweeps.sweep")
    before = {name: getattr(module, name) for name in TIMED.values()}

    def around(what: str, function: Callable) -> Callable:
        def call(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                seconds[what] = seconds.get(what, 0.0) + time.perf_counter() - began

        return call

    for what, name in TIMED.items():
        setattr(module, name, around(what, before[name]))
    try:
        yield
    finally:
        for name, function in before.items():
            setattr(module, name, function)


def main() -> None:
    args = arguments(__doc__ or "", rounds=1).parse_args()
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    rows = np.random.default_rng(0).permutation(len(X))[:100]
    data = jnp.asarray(X[rows] / 16, jnp.float32), jnp.asarray(y[rows], jnp.int32)

    def trainer(reg: Any) -> jr.Trainer:
        tx = optax.chain(jr.add_penalty_gradient(reg), optax.adam(1e-3))
        return jr.Trainer(lambda key: mlp(key, (64, 128, 128, 10)), cross_entropy, tx)

    grid = jr.grid(lambda lam: jr.l2(lam).on(jr.kernels), lam=np.geomspace(1e-5, 1e-1, 16))
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder, timed(seconds):
        began = time.perf_counter()
        jr.sweep(
            trainer, grid, data, folds=5, seeds=3, steps=20 if args.smoke else 1000, batch_size=64,
            key=jax.random.key(0), checkpoint=folder, progress=False,
        )  # fmt: skip
        whole = time.perf_counter() - began
    found: list[Row] = [
        {"part": what, "seconds": round(s, 4), "share": round(s / whole, 5)}
        for what, s in [
            *seconds.items(),
            ("all of them", sum(seconds.values())),
            ("the sweep", whole),
        ]
    ]
    emit("checks", found)
    if not args.json:
        cells = [
            [str(r["part"]), f"{r['seconds']:.3f} s", f"{100 * r['share']:.2f} %"] for r in found
        ]
        show(f"the main job's sweep, first call\n{machine()}", ["part", "time", "share"], cells)
        if not args.smoke:
            share = sum(seconds.values()) / whole
            show_bounds([bound("share of the sweep", share, most=MOST)])


if __name__ == "__main__":
    main()
