"""Many sweeps in one process: what is kept after the tenth is all that is ever kept.

    cd tests && python -m attacks.memory --sweeps 500

Each has new arrays, a grid and a selector made in the loop, as in a notebook whose cells run again and again;
every tenth has a trainer of its own, with an array of 16 MB that it closes over.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import os
import sys
import weakref
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxreg as jr


class Told(NamedTuple):
    """Bytes that the process held, the most with free ones, and closures that outlived their sweep."""

    tenth: int
    after: int
    most: int
    kept: int


def held() -> int:
    """Bytes in use, without free ones that the C library keeps for later.

    Freed arrays of 16 MB leave holes in its heap, which are no leak: their sum comes to rest.
    """
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return resident()


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def predict(w, x):
    return x @ w["kernel"] + w["bias"]


def trainer_with(array):
    def loss(w, x, y):
        return 0.5 * jnp.mean((predict(w, x) - y) ** 2) + 0.0 * jnp.sum(array[0, 0])

    def trainer(reg):
        tx = optax.chain(jr.add_penalty_gradient(reg), optax.sgd(0.1))
        start = {"kernel": jnp.zeros(3), "bias": jnp.zeros(())}
        return jr.Trainer(lambda key: start, loss, tx)

    return trainer


def one(trainer, i: int) -> None:
    rng = np.random.default_rng(i)
    data = rng.normal(size=(24, 3)).astype(np.float32), rng.normal(size=24).astype(np.float32)
    grid = jr.grid(lambda lam: jr.l2(lam).on("ker*"), lam=[0.01, 0.1])
    result = jr.sweep(
        trainer, grid, data, folds=3, steps=5, evals=1, key=jax.random.key(i), progress=False
    )
    result.best()


def attack(sweeps: int) -> Told:
    """So many sweeps."""
    shared, closures, tenth, most = trainer_with(np.zeros((1, 1), np.float32)), [], 0, 0
    for i in range(sweeps):
        if i % 10:
            one(shared, i)
        else:
            array = np.zeros((2000, 2000), np.float32)
            own = trainer_with(array)
            closures.append(weakref.ref(own))
            one(own, i)
            del own, array
        most = max(most, resident())
        if i == 10:
            tenth = held()
    after = held()
    return Told(tenth, after, most, sum(ref() is not None for ref in closures))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sweeps", type=int, default=500, help="default 500")
    args = parser.parse_args()
    told = attack(args.sweeps)
    print(
        f"{told.tenth / 1e6:.0f} MB after 10 sweeps, {told.after / 1e6:.0f} MB after {args.sweeps}: "
        f"{told.after / told.tenth:.3f}; {told.kept} trainers kept. "
        f"With what the allocator keeps free, at most {told.most / 1e6:.0f} MB"
    )
    return bool(told.kept) or told.after > 1.2 * told.tenth


if __name__ == "__main__":
    sys.exit(main())
