"""Linear models under penalties at their minima, solved to the last digits, as results of sweeps."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

import jaxreg as jr

N, P = 40, 12


def rows(n=N, p=P, seed=0, noise=0.5):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, p))
    x[:, 1] += 0.7 * x[:, 0]
    w = np.repeat([1.0, 0.0, -1.0, 0.5], p // 4)
    return x, x @ w + 1.0 + noise * rng.normal(size=n)


X, Y = rows()


def linear(params, x):
    return x @ params["kernel"] + params["bias"]


def half_square(params, x, y):
    return 0.5 * jnp.mean(jnp.sum(jnp.reshape(linear(params, x) - y, (len(y), -1)) ** 2, 1))


def logistic(params, x, y):
    return jnp.mean(jnp.logaddexp(0, linear(params, x)) - y * linear(params, x))


def softmax(params, x, y):
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(linear(params, x)), y[:, None], 1))


def poisson(params, x, y):
    return jnp.mean(jnp.exp(linear(params, x)) - y * linear(params, x))


def zeros(p=P, m=None):
    shape = (p,) if m is None else (p, m)
    return {"kernel": jnp.zeros(shape), "bias": jnp.zeros(shape[1:])}


def minimum(loss, reg, x, y, start, rate, steps=1500):
    """Accelerated proximal gradient steps, restarted where they overshoot."""
    slope = jax.grad(lambda w: loss(w, x, y))
    dot = lambda a, b: sum(map(jnp.vdot, jax.tree.leaves(a), jax.tree.leaves(b)))
    less = lambda a, b: jax.tree.map(jnp.subtract, a, b)

    def step(state, _):
        w, z, t = state
        new = reg.prox(jax.tree.map(lambda z, g: z - rate * g, z, slope(z)), rate)
        t = jnp.where(dot(less(z, new), less(new, w)) > 0, 1.0, t)
        later = (1 + jnp.sqrt(1 + 4 * t**2)) / 2
        ahead = jax.tree.map(lambda new, w: new + (t - 1) / later * (new - w), new, w)
        return (new, ahead, later), None

    return jax.lax.scan(step, (start, start, 1.0), None, length=steps)[0][0]


@functools.cache
def solver(loss, make, m=None, rate=0.2):
    solve = lambda lam, x, y: minimum(loss, make(lam), x, y, zeros(x.shape[1], m), rate)
    return jax.jit(solve), jax.jit(jax.vmap(solve, (None, None, 0)))


def solved(loss, make, lams, x=X, y=Y, m=None, rate=0.2):
    """A result of minima in float64."""
    with jax.enable_x64(True):
        found = [solver(loss, make, m, rate)[0](lam, x, y) for lam in lams]
        told = [float(loss(w, x, y)) for w in found]
        params = jax.tree.map(
            lambda *v: np.stack([np.asarray(x) for x in v])[:, None, None], *found
        )
    return jr.SweepResult.of(jr.grid(make, lam=lams), told, train=told, params=params)


on = lambda make: lambda lam: make(lam).on(jr.kernels)
PENALTIES = {
    "l1": on(jr.l1),
    "l2": on(jr.l2),
    "elastic net": on(lambda lam: jr.elastic_net(lam, 0.5)),
    "group lasso": on(lambda lam: jr.group_lasso(lam, groups=np.arange(P) // 3)),
    "sparse group lasso": on(lambda lam: jr.sparse_group_lasso(lam, groups=np.arange(P) // 3)),
    "fused lasso": on(jr.fused_lasso),
    "total variation": on(jr.total_variation),
    "l1 + l2": on(lambda lam: jr.l1(lam) + jr.l2(0.1)),
    "linf": on(lambda lam: jr.linf(3 * lam)),
    "weighted l1": on(lambda lam: jr.l1(lam * jnp.linspace(0.2, 2, P))),
}


LABELS = {
    "bernoulli": (Y > 1).astype(float),
    "categorical": np.digitize(Y, [0.0, 2.0]),
    "poisson": np.round(np.exp(np.clip(Y / 3, -1, 1.5))),
}
LOSSES = {"bernoulli": logistic, "categorical": softmax, "poisson": poisson}
