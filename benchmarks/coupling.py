"""What a coupling adds to a step of Adam on many parameters, timed in turns.

One leaf, parameters and state donated. The prox reads Adam's second moments in the pass that Adam makes
in any case, so it must cost hardly more. The other rows say what they are compared with: an added gradient
with the same by hand, a clip inside of the prox with the same clip before Adam alone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from _common import (
    Row,
    arguments,
    bound,
    emit,
    figures,
    first_calls,
    machine,
    show,
    show_bounds,
    timed_rounds,
)

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
    made = candidates()
    steps = {name: stepping(tx, rows) for name, (tx, _) in made.items()}
    first, _ = first_calls(steps)
    times = timed_rounds(steps, first, rounds)
    found: list[Row] = [
        {"candidate": name, "over": other, **figures(times[name], times[other])}
        for name, (_, other) in made.items()
    ]
    emit("coupling", found)
    if not args.json:
        cells = [
            [
                str(r["candidate"]),
                f"{1e3 * r['seconds']:.1f} ms",
                f"{r['ratio']:.2f}",
                str(r["over"]),
            ]
            for r in found
        ]
        title = f"a step on {rows * 1000:,} parameters\n{machine()}"
        show(title, ["candidate", "time", "ratio", "over"], cells)
        if not args.smoke:
            show_bounds([bound("proximal over Adam", found[1]["ratio"], most=MOST)])


def stepping(tx: Any, rows: int) -> Callable[[], Any]:
    """One step more at every call, on parameters and a state of its own."""
    grads = {"kernel": 0.01 * jnp.ones((rows, 1000))}
    params = {"kernel": 0.1 * jnp.ones((rows, 1000))}
    carry = [params, tx.init(params)]

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params: dict, state: Any, grads: dict) -> tuple:
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    def call() -> Any:
        carry[:] = step(*carry, grads)
        return carry

    return call


if __name__ == "__main__":
    main()
