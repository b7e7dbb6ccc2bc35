"""What a coupling adds to a step of Adam on many parameters, timed in turns.

One leaf, parameters and state donated. The prox reads Adam's second moments in the pass that Adam makes
in any case, so it must cost hardly more. The other rows say what they are compared with: an added gradient
with the same by hand, a clip inside of the prox with the same clip before Adam alone.
"""

from __future__ import annotations

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _common import Row, arguments, bound, emit, machine, show, show_bounds

import jaxreg as jr

MOST = 1.10
LR, LAM = 1e-3, 1e-3


def by_hand() -> optax.GradientTransformation:
    """The gradient of lam |w| in a chain, as one would write it."""
    return optax.stateless(
        lambda grads, params: jax.tree.map(lambda g, p: g + LAM * jnp.sign(p), grads, params)
    )


def candidates() -> dict[str, tuple[Any, str]]:
    """name -> what it does, and the name of what it is compared with."""
    adam, clip = optax.scale_by_adam(), optax.clip_by_global_norm(1.0)
    reg = jr.l1(LAM)
    return {
        "adam": (optax.adam(LR), "adam"),
        "proximal": (jr.proximal(adam, reg, LR), "adam"),
        "l1 added by hand": (optax.chain(by_hand(), optax.adam(LR)), "adam"),
        "add_penalty_gradient": (
            optax.chain(jr.add_penalty_gradient(reg), optax.adam(LR)),
            "l1 added by hand",
        ),
        "clip, adam": (optax.chain(clip, optax.adam(LR)), "adam"),
        "proximal of clip, adam": (jr.proximal(optax.chain(clip, adam), reg, LR), "clip, adam"),
    }


def main() -> None:
    args = arguments(__doc__ or "", rounds=25).parse_args()
    rows, rounds = (10, 2) if args.smoke else (10_000, args.rounds)
    grads = {"kernel": 0.01 * jnp.ones((rows, 1000))}
    running = {name: prepared(tx, rows, grads) for name, (tx, _) in candidates().items()}
    seconds: dict[str, list[float]] = {name: [] for name in running}
    for _ in range(rounds):
        for name, (step, carry) in running.items():
            began = time.perf_counter()
            carry = jax.block_until_ready(step(*carry, grads))
            seconds[name].append(time.perf_counter() - began)
            running[name] = step, carry
    found: list[Row] = []
    for name, (_, other) in candidates().items():
        ratio = np.median(np.array(seconds[name]) / np.array(seconds[other]))
        found.append(
            {
                "candidate": name,
                "ms": 1e3 * float(np.median(seconds[name])),
                "ratio": float(ratio),
                "over": other,
            }
        )
    emit("coupling", found)
    if not args.json:
        cells = [
            [r["candidate"], f"{r['ms']:.1f} ms", f"{r['ratio']:.2f}", str(r["over"])]
            for r in found
        ]
        show(
            f"a step on {rows * 1000:,} parameters\n{machine()}",
            ["candidate", "time", "ratio", "over"],
            cells,
        )
        if not args.smoke:
            show_bounds([bound("proximal over Adam", float(found[1]["ratio"]), most=MOST)])


def prepared(tx: Any, rows: int, grads: dict) -> tuple[Any, tuple]:
    params = {"kernel": 0.1 * jnp.ones((rows, 1000))}

    def step(params: dict, state: Any, grads: dict) -> tuple:
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    compiled = jax.jit(step, donate_argnums=(0, 1))
    return compiled, jax.block_until_ready(compiled(params, tx.init(params), grads))


if __name__ == "__main__":
    main()
