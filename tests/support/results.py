"""Results of sweeps that never ran, made of the numbers that a test wants."""

import jax
import jax.numpy as jnp
import numpy as np

import jaxreg as jr

LAMS = np.array([0.01, 0.1, 1.0, 10.0], np.float32)
K, F, S, T = 4, 3, 2, 5
RNG = np.random.default_rng(0)


def make(valid, train=None, status=None, lams=LAMS, params=None, points=None, **extra):
    """A result from the values at the last step, [K, F, S]; earlier steps hold large decoys."""
    valid = np.asarray(valid, np.float32)
    curve = lambda end: np.concatenate([np.full((*end.shape, T - 1), 99.0), end[..., None]], -1)
    train = valid / 2 if train is None else np.asarray(train, np.float32)
    metrics = {name: np.asarray(v, np.float32) for name, v in extra.items()}
    lams = np.asarray(lams, np.float32)
    return jr.SweepResult(
        coords={"lam": lams},
        points=jax.vmap(jr.l2)(lams) if points is None else points,
        time=np.arange(T) * 10,
        train={"loss": curve(train)} | {n: curve(v / 2) for n, v in metrics.items()},
        valid={"loss": curve(valid)} | {n: curve(v) for n, v in metrics.items()},
        terms={"l2": np.ones((*valid.shape, T), np.float32)},
        params=params,
        status=np.zeros(valid.shape, int) if status is None else np.asarray(status),
        strengths=("lam",),
        made_by='{"steps": 40}',
    )


def from_means(means, spread, apart=0.0, **kwargs):
    """Four folds at mean ± spread: their standard error is spread / sqrt(3).

    The difference of two points, of which one has `apart` = a and the other 0, has an error of a / sqrt(3).
    """
    folds, others = np.array([1.0, 1.0, -1.0, -1.0]), np.array([1.0, -1.0, 1.0, -1.0])
    apart = np.broadcast_to(apart, np.shape(means))[:, None, None]
    values = np.asarray(means)[:, None, None] + (spread * folds + apart[..., 0] * others)[..., None]
    return make(values, **kwargs)


VALUES = RNG.normal(5, 1, (K, F, S)).astype(np.float32)
PARAMS = {
    "dense": {"kernel": jnp.arange(K * F * S * 2.0).reshape(K, F, S, 2)},
    "list": [jnp.zeros((K, F, S)), jnp.ones((K, F, S), jnp.bfloat16) / 3],
}
