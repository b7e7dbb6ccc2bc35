"""What the certificate of every lane costs: 48 lanes of an MLP on the digits, against their gradients.

An MLP 64-128-128-10 on 1,437 digits with an L1 penalty on its kernels. The reference is one gradient of
the loss over the training rows of every lane, vmapped and jitted; the certificate takes the same gradient,
the least element of grad L + dR, and its norms. Its distance must be that of the gradients by hand before
anything is timed.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
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

MOST = 1.2
LANES = 48


def by_hand(params: dict, grads: dict, lam: float) -> float:
    """The distance in float64, leaf by leaf."""
    total = 0.0
    for layer, leaves in grads.items():
        kernel = np.asarray(leaves["kernel"], float)
        at = np.asarray(params[layer]["kernel"])
        least = np.where(at != 0, kernel + lam * np.sign(at), np.maximum(np.abs(kernel) - lam, 0))
        total += (least**2).sum() + (np.asarray(leaves["bias"], float) ** 2).sum()
    return total**0.5


def main() -> None:
    args = arguments(__doc__ or "").parse_args()
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    data = jnp.asarray(X[:1437] / 16, jnp.float32), jnp.asarray(y[:1437], jnp.int32)
    lanes = 4 if args.smoke else LANES
    params = jax.vmap(lambda key: mlp(key, (64, 128, 128, 10)))(
        jax.random.split(jax.random.key(0), lanes)
    )
    lams = jnp.geomspace(1e-5, 1e-2, lanes)
    slope = jax.jit(jax.vmap(lambda p: jax.grad(cross_entropy)(p, *data)))
    certificate = jax.jit(
        jax.vmap(lambda p, lam: jr.stationarity(cross_entropy, p, jr.l1(lam).on(jr.kernels), *data))
    )
    candidates = {
        "gradient": lambda: slope(params),
        "certificate": lambda: certificate(params, lams),
    }
    first, answers = first_calls(candidates)
    at = lambda tree, k: jax.tree.map(lambda x: x[k], tree)
    for k in range(lanes):
        want = by_hand(at(params, k), at(answers["gradient"], k), float(lams[k]))
        if not np.isclose(answers["certificate"].distance[k], want, rtol=1e-4):
            refuse(f"the certificate of lane {k} is not that of its gradient.")
    times = timed_rounds(candidates, first, 2 if args.smoke else args.rounds)
    found: list[Row] = [
        {"candidate": name, **figures(times[name], times["gradient"])} for name in candidates
    ]
    emit("stationarity", found)
    if not args.json:
        cells = [[str(r["candidate"]), f"{r['seconds']:.3f} s", f"{r['ratio']:.3f}"] for r in found]
        title = f"{lanes} lanes over 1,437 rows\n{machine()}"
        show(title, ["", "time", "over the gradient"], cells)
        if not args.smoke:
            ratio = float(found[1]["ratio"])
            show_bounds([bound("certificate over gradient", ratio, most=MOST)])


if __name__ == "__main__":
    main()
