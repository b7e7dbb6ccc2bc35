"""The metric that an optimizer is asked for is the one it was made with, or it is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxreg as jr
from jaxreg.coupling.measure import measure

PARAMS = {"b": jnp.zeros(4), "w": jnp.ones((3, 4))}
COSINE = optax.cosine_decay_schedule(0.1, 1000)
WARMUP = optax.warmup_cosine_decay_schedule(0.0, 0.1, 100, 1000)
MASK = {"b": False, "w": True}


def ask(optimizer, learning_rate, params=PARAMS):
    touched = [True] * len(jax.tree.leaves(params))
    return measure("proximal", optimizer, params, learning_rate, touched)


# optimizer, learning rate -> gain, eps, root, 1 - decay
KNOWN = {
    "sgd": (optax.sgd(0.1), 0.1, 1, 0, 0, 1),
    "momentum": (optax.sgd(0.1, 0.9), 0.1, 10, 0, 0, 1),
    "nesterov": (optax.sgd(0.1, 0.8, nesterov=True), 0.1, 5, 0, 0, 1),
    "heavy": (optax.sgd(0.1, 0.99), 0.1, 100, 0, 0, 1),
    "ema": (optax.chain(optax.ema(0.9), optax.sgd(0.1)), 0.1, 1, 0, 0, 1),
    "adam": (optax.adam(1e-3), 1e-3, 1, 1e-8, 0, 1e-3),
    "adam eps": (optax.adam(1e-3, b2=0.9, eps=1e-3), 1e-3, 1, 1e-3, 0, 0.1),
    "adam root": (optax.adam(1e-3, eps=1e-5, eps_root=1e-8), 1e-3, 1, 1e-5, 1e-8, 1e-3),
    "adamw": (optax.adamw(1e-3, weight_decay=0.1), 1e-3, 1, 1e-8, 0, 1e-3),
    "nadam": (optax.nadam(1e-3), 1e-3, 1, 1e-8, 0, 1e-3),
    "yogi": (optax.yogi(1e-3), 1e-3, 1, 1e-3, 0, 1e-3),
    "amsgrad": (optax.amsgrad(1e-3), 1e-3, 1, 1e-8, 0, 1),
    "rmsprop": (optax.rmsprop(1e-3), 1e-3, 1, 0, 1e-8, 1),
    "rmsprop momentum": (optax.rmsprop(1e-3, momentum=0.9), 1e-3, 10, 0, 1e-8, 1),
    "rmsprop corrected": (
        optax.rmsprop(1e-3, bias_correction=True, eps_in_sqrt=False),
        *(1e-3, 1, 1e-8, 0, 0.1),
    ),
    "adagrad": (optax.adagrad(0.1), 0.1, 1, 0, 1e-7, 1),
    "cosine": (optax.adam(COSINE), COSINE, 1, 1e-8, 0, 1e-3),
    "warm-up": (optax.sgd(WARMUP, 0.9), WARMUP, 10, 0, 0, 1),
    "injected": (
        optax.inject_hyperparams(optax.adam)(learning_rate=WARMUP),
        *(WARMUP, 1, 1e-8, 0, 1e-3),
    ),
    "clipped": (
        optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.1)),
        0.1,
        1,
        1e-8,
        0,
        1e-3,
    ),
    "guarded": (optax.apply_if_finite(optax.adam(0.1), 3), 0.1, 1, 1e-8, 0, 1e-3),
    "coupled": (
        optax.chain(jr.add_penalty_gradient(jr.l2(0.3)), optax.adam(0.1)),
        *(0.1, 1, 1e-8, 0, 1e-3),
    ),
    # The rate given is not the optimizer's; that it moves ten times as far is measured.
    "another rate": (optax.adam(1e-2), 1e-3, 10, 1e-8, 0, 1e-3),
}


@pytest.mark.parametrize("name", KNOWN)
def test_known_optimizers_are_recovered(name):
    optimizer, rate, gain, eps, root, fresh = KNOWN[name]
    metric = ask(optimizer, rate)
    np.testing.assert_allclose(metric.gain, [gain] * 2, rtol=1e-4)
    # What is missing is 0 beside the other, not to the last bit.
    np.testing.assert_allclose(metric.eps, [eps] * 2, rtol=1e-4, atol=1e-4 * root**0.5)
    np.testing.assert_allclose(metric.root, [root] * 2, rtol=1e-4, atol=1e-4 * eps**2)
    np.testing.assert_allclose(metric.fresh, [fresh] * 2, rtol=1e-4)


def test_momentum_kept_in_bfloat16_is_good_to_a_percent():
    metric = ask(optax.sgd(0.1, 0.9, accumulator_dtype=jnp.bfloat16), 0.1)
    np.testing.assert_allclose(metric.gain, [10, 10], rtol=0.01)
    metric = ask(optax.adam(0.1, mu_dtype=jnp.bfloat16), 0.1)
    np.testing.assert_allclose(metric.gain, [1, 1], rtol=0.01)


def test_each_leaf_has_its_own_metric():
    parts = {"adam": optax.adam(0.1), "sgd": optax.sgd(0.2, 0.5), "still": optax.set_to_zero()}
    params = PARAMS | {"z": jnp.zeros(())}
    labels = {"b": "sgd", "w": "adam", "z": "still"}
    metric = ask(optax.partition(parts, labels), 0.1, params)
    np.testing.assert_allclose(metric.gain, [4, 1, 0], rtol=1e-5)
    np.testing.assert_allclose(metric.eps, [0, 1e-8, 0], rtol=1e-4)


def test_strengths_of_the_parameters_shape_in_the_chain_are_met_on_real_shapes():
    reg = jr.l2({"b": 1.0, "w": jnp.ones((3, 4))})
    metric = ask(optax.chain(jr.add_penalty_gradient(reg), optax.adam(0.1)), 0.1)
    np.testing.assert_allclose(metric.gain, [1, 1], rtol=1e-5)


def test_traced_rates_give_traced_gains_and_numbers_elsewhere():
    def gain(rate):
        metric = ask(optax.adam(rate), rate)
        assert not isinstance(metric.fresh, jax.core.Tracer)
        return metric.gain

    gains = jax.jit(jax.vmap(gain))(jnp.array([0.1, 1e-3, 1e-5]))
    np.testing.assert_allclose(gains, np.ones((3, 2)), rtol=1e-4)


def test_it_is_asked_outside_of_the_program():
    def constants(rate):
        jaxpr = jax.make_jaxpr(lambda x: ask(optax.adam(rate), rate).gain + x)(jnp.zeros(2))
        return len(jaxpr.eqns)

    assert constants(1e-3) == 1


UNKNOWN = {
    "lion": (optax.lion(1e-3), "ScaleByLionState"),
    "sign_sgd": (optax.sign_sgd(1e-3), "states: none"),
    "adamax": (optax.adamax(1e-3), "ScaleByAdamState"),
    "radam": (optax.radam(1e-3), "ScaleByAdamState"),
    "lamb": (optax.lamb(1e-3), "ScaleByAdamState"),
    "lars": (optax.lars(1e-3), "TraceState"),
    "fromage": (optax.fromage(1e-3), "states: none"),
    "adafactor": (optax.adafactor(1e-3), "FactoredState"),
    "novograd": (optax.novograd(1e-3), "ScaleByNovogradState"),
    "adabelief": (optax.adabelief(1e-3), "ScaleByBeliefState"),
    "ademamix": (optax.contrib.ademamix(1e-3), "ScaleByAdemamixState"),
    "centred": (optax.rmsprop(1e-3, centered=True), "ScaleByRStdDevState"),
    "noise": (
        optax.chain(optax.add_noise(1.0, 0.5, key=jax.random.key(0)), optax.sgd(1e-3)),
        "AddNoiseState",
    ),
    "block norm": (optax.chain(optax.scale_by_param_block_rms(), optax.sgd(1e-3)), "states: none"),
    "clipped update": (
        optax.chain(optax.scale_by_adam(), optax.clip(0.5), optax.scale(-1e-3)),
        "ScaleByAdamState",
    ),
    "deaf to small ones": (
        optax.chain(
            optax.stateless_with_tree_map(lambda g, _: g * (abs(g) > 1e-8)), optax.sgd(0.1)
        ),
        "states: none",
    ),
    "momentum twice": (optax.chain(optax.trace(0.9), optax.adam(1e-3)), "TraceState"),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_unknown_optimizers_are_refused_by_name(name):
    optimizer, states = UNKNOWN[name]
    match = (
        rf"metric of the optimizer is unknown on the leaf 'b' .*{states}.*Use one of optax's sgd"
    )
    with pytest.raises(ValueError, match=match):
        ask(optimizer, 1e-3)


@pytest.mark.parametrize(
    ("optimizer", "rate", "match"),
    [
        (optax.scale_by_adam(), 1.0, "'b' points along the gradient, uphill.*complete optimizer"),
        (optax.masked(optax.adam(0.1), MASK), 0.1, "'b' points along.*optax.partition"),
        (optax.adam(COSINE), 0.1, "not the one the optimizer follows"),
        (optax.adam(0.1), COSINE, "not the one the optimizer follows"),
        (optax.set_to_zero(), 0.1, "moves none of the leaves.*'b', 'w'"),
        (optax.sgd(0.0), 0.0, "`learning_rate` is 0 at every step"),
        (optax.polyak_sgd(), 1.0, "constant gradient it raised TypeError"),
        (
            optax.MultiSteps(optax.adam(0.1), 4).gradient_transformation(),
            0.1,
            r"MultiStepsState.*Put it outside: optax.MultiSteps\(jaxreg.proximal",
        ),
        (optax.contrib.schedule_free_sgd(0.1), 0.1, "keeps a ScheduleFreeState"),
    ],
)
def test_misuse_is_refused(optimizer, rate, match):
    with pytest.raises(ValueError, match=match):
        ask(optimizer, rate)


def test_leaves_that_the_penalty_leaves_alone_may_move_as_they_like():
    inner = optax.partition({"a": optax.adam(0.1), "b": optax.lion(0.1)}, {"b": "b", "w": "a"})
    jr.proximal(inner, jr.l1(0.1).on("w"), 0.1).init(PARAMS)
    with pytest.raises(ValueError, match="unknown on the leaf 'b'"):
        jr.proximal(inner, jr.l1(0.1), 0.1).init(PARAMS)
