"""Steps that rounding loses are told of, and those that it keeps are not."""

import warnings

import jax
import jax.numpy as jnp
import optax
import pytest

import jaxreg as jr

DATA = (jnp.ones((8, 4), jnp.bfloat16),)
KEY = jax.random.key(0)


def made(chain, dtype=jnp.bfloat16):
    init = lambda key: {"kernel": jnp.ones((4, 2), dtype), "zeros": jnp.zeros(2, dtype)}
    loss = lambda p, x: jnp.mean((x @ p["kernel"] + p["zeros"]).astype(jnp.float32) ** 2)
    return lambda reg: jr.Trainer(init, loss, chain(reg))


LOST = {
    "decoupled": lambda reg: jr.decoupled(optax.scale_by_adam(), reg, 1e-2),
    "proximal": lambda reg: jr.proximal(optax.identity(), reg, 1e-2),
    "added": lambda reg: optax.chain(jr.add_penalty_gradient(reg), optax.sgd(1e-2)),
    "clipped": lambda reg: optax.chain(
        jr.add_penalty_gradient(reg), optax.clip_by_global_norm(1.0), optax.adam(1e-3)
    ),
}
KEPT = {
    "compensated": lambda reg: jr.compensated(LOST["decoupled"](reg)),
    "inside of a chain": lambda reg: optax.chain(jr.compensated(LOST["proximal"](reg))),
    "large": lambda reg: jr.decoupled(optax.scale_by_adam(), reg, 1.0),
    "line search": lambda reg: optax.chain(jr.add_penalty_gradient(reg), optax.lbfgs()),
}


def told(chain, dtype=jnp.bfloat16, lams=(0.1, 0.05)):
    grid = jr.grid(jr.l2, lam=list(lams))
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        jr.sweep(made(chain, dtype), grid, DATA, folds=2, steps=1, key=KEY)
    return [str(w.message) for w in found if "rounding" in str(w.message)]


@pytest.mark.parametrize("name", LOST)
def test_a_penalty_that_never_happens_is_told_of(name):
    (text,) = told(LOST[name])
    assert (
        "sweep: the penalty's steps on 'kernel' are lost in the rounding of bfloat16 at 2 of 2"
        in text
    )
    assert "less than 0.002 of itself" in text
    assert "jaxreg.compensated(...)" in text


@pytest.mark.parametrize("name", KEPT)
def test_what_happens_is_not_told_of(name):
    assert not told(KEPT[name])


def test_in_float32_nothing_is_asked():
    assert not told(LOST["decoupled"], jnp.float32)


def test_only_the_points_that_lose_count():
    (text,) = told(LOST["decoupled"], lams=(0.0, 0.01, 100.0))
    assert "at 1 of 3 points" in text


def test_fit_tells_too():
    with pytest.warns(RuntimeWarning, match="fit: the penalty's steps on 'kernel' are lost"):
        jr.fit(made(LOST["proximal"]), jr.l1(0.1), DATA, steps=1, key=KEY)
