"""Linear models trained by sweeps, whose evidence is known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxreg as jr

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
LAMS = [1e-4, 5e-3, 0.3]
X = RNG.normal(size=(30, 4)).astype(np.float32)
Y = (X @ [1.0, -2.0, 0.0, 0.5] + 0.4 * RNG.normal(size=30)).astype(np.float32)


def linear(w, x):
    return x @ w


def half_square(w, x, y):
    return 0.5 * jnp.mean((x @ w - y) ** 2)


def swept(grid, steps, data, loss, init, rate=0.3, **options):
    def trainer(point):
        reg = point["reg"] if isinstance(point, dict) else point
        return jr.Trainer(init, loss, optax.chain(jr.add_penalty_gradient(reg), optax.sgd(rate)))

    options = {
        "validation": (data[0][:2] + 1, data[1][:2]),
        "steps": steps,
        "evals": 1,
        "key": KEY,
        "progress": False,
    } | options
    return jr.sweep(trainer, grid, data, **options)


def ridge(steps=300, x=X, y=Y, loss=half_square, lams=LAMS, rate=0.3, **options):
    init = lambda key: jnp.zeros(x.shape[1])
    return swept(jr.grid(jr.l2, lam=lams), steps, (x, y), loss, init, rate, **options)


@functools.cache
def solved():
    """Ridge regression at LAMS, trained to its end."""
    return ridge()
