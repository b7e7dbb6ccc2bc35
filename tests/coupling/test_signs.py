"""Weights that would grow are found before training, and nothing else is stopped."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxreg as jr
from jaxreg.coupling import check_coupling

SHAPES = jax.eval_shape(lambda: {"b": jnp.zeros(4), "w": jnp.zeros((3, 4))})
WARMUP = optax.warmup_cosine_decay_schedule(0.0, 0.1, 100, 1000)
REG = jr.l2(0.1).on(jr.kernels)
ARRAY = jr.l2({"b": 1.0, "w": np.full((3, 4), 0.1, np.float32)})


def after(optimizer, penalty):
    return optax.chain(optimizer, jr.add_penalty_gradient(penalty)), penalty


def before(optimizer, penalty):
    return optax.chain(jr.add_penalty_gradient(penalty), optimizer), penalty


WRONG = {
    "after adam": after(optax.adam(1e-3), jr.l2(0.1)),
    "optax's decay after adam": (
        optax.chain(optax.adam(1e-3), optax.add_decayed_weights(0.1)),
        jr.Zero(),
    ),
    "selected, after a warm-up": after(optax.sgd(WARMUP), REG),
    "l1": after(optax.adam(1e-3), jr.l1(0.1)),
    "tiny": after(optax.adam(1e-3), jr.l2(1e-9)),
    "groups": after(optax.adam(1e-3), jr.group_lasso(0.1, axis=0).on("w")),
    "around a centre": after(optax.adam(1e-3), jr.l2(0.1, center=3.0)),
    "arrays of strengths": after(optax.adam(1e-3), ARRAY),
    "uphill": before(optax.chain(optax.scale_by_adam(), optax.scale(1e-3)), jr.l2(0.1)),
}
RIGHT = {
    "coupled": before(optax.adam(1e-3), REG),
    "coupled, warm-up": before(optax.sgd(WARMUP), REG),
    "decoupled": (jr.decoupled(optax.scale_by_adam(), REG, WARMUP), REG),
    "decoupled, no rate": (
        jr.decoupled(optax.scale_by_adam(), REG, 1e-3, scale_by_lr=False),
        REG,
    ),
    "proximal": (jr.proximal(optax.scale_by_adam(), jr.l1(0.1), 1e-3), jr.l1(0.1)),
    "adamw": (optax.adamw(1e-3), REG),
    "a centre outside": before(optax.sgd(1.0), jr.l2(0.1, center=100.0)),
    "a centre inside": before(optax.adam(1e-3), jr.l1(0.1, center=0.7)),
    "prox to a centre": (
        jr.proximal(optax.scale_by_adam(), jr.l1(0.1, center=3.0), 1e-3),
        jr.l1(0.1, center=3.0),
    ),
    "noise": before(optax.noisy_sgd(1.0, key=jax.random.key(0)), jr.l2(1e-9)),
    "noise, normalised": before(
        optax.chain(
            optax.add_noise(1.0, 0.5, key=jax.random.key(0)),
            optax.normalize_by_update_norm(),
            optax.sgd(0.3),
        ),
        jr.l2(1e-3),
    ),
    "trust ratios": (optax.lamb(1e-3, weight_decay=0.1), REG),
    "projection": (optax.chain(optax.adam(1e-3), optax.keep_params_nonnegative()), REG),
    "unit length": (
        optax.stateless(lambda updates, params: jax.tree.map(lambda p: jnp.sign(p) - p, params)),
        jr.Zero(),
    ),
    "still": (optax.set_to_zero(), REG),
    "needs more arguments": (optax.polyak_sgd(), REG),
    "arrays of strengths": before(optax.adam(1e-3), ARRAY),
    "nothing fits": before(optax.adam(1e-3), jr.l2(np.ones((7, 7), np.float32))),
}


@pytest.mark.parametrize("name", WRONG)
def test_growth_is_refused(name):
    with pytest.raises(ValueError, match=r"wrong sign.*would grow.*Write optax\.chain"):
        check_coupling(*WRONG[name], SHAPES)


@pytest.mark.parametrize("name", RIGHT)
def test_no_false_alarm(name):
    check_coupling(*RIGHT[name], SHAPES)


def test_pushing_weights_apart_is_no_growth():
    class Sphere(jr.LeafPenalty):
        """Pulls every entry to +1 or -1, so small ones grow, rightly."""

        lam: float
        smooth, convex = True, False

        def leaf_value(self, x):
            return self.lam * jnp.sum((x**2 - 1) ** 2)

        def leaf_prox(self, x, step):
            raise NotImplementedError

    check_coupling(*before(optax.adam(1e-3), Sphere(0.1)), SHAPES)
    with pytest.raises(ValueError, match="wrong sign"):
        check_coupling(*after(optax.sgd(1e-3), Sphere(0.1)), SHAPES)


def test_traced_strengths_pass():
    @jax.jit
    def fit(lam):
        check_coupling(*after(optax.adam(1e-3), jr.l2(lam)), SHAPES)
        return lam

    assert fit(0.5) == 0.5


def test_the_leaf_is_named():
    with pytest.raises(ValueError, match="the leaf 'w' has the wrong sign"):
        check_coupling(*after(optax.adam(1e-3), jr.l2(0.1).on("w")), SHAPES)


@pytest.mark.parametrize(
    "optimizer", [optax.adam(1e-3), optax.sgd(0.1, 0.9), optax.lion(1e-3), optax.adamw(WARMUP)]
)
def test_a_complete_optimizer_is_no_direction(optimizer):
    tx = jr.decoupled(optimizer, jr.l2(0.1), 1e-3)
    match = r"`direction` must not have the minus sign.*'b' points against.*scale_by_adam\(\)"
    with pytest.raises(ValueError, match=match):
        tx.init({"b": jnp.zeros(4), "w": jnp.zeros((3, 4))})


@pytest.mark.parametrize(
    "direction",
    [
        optax.scale_by_adam(),
        optax.trace(0.9),
        optax.scale_by_lion(),
        optax.identity(),
        optax.set_to_zero(),
        optax.chain(optax.clip(1.0), optax.scale_by_rms()),
        optax.add_noise(1.0, 0.5, key=jax.random.key(0)),
    ],
)
def test_directions_pass(direction):
    jr.decoupled(direction, jr.l2(0.1), 1e-3).init({"w": jnp.zeros((3, 4))})
