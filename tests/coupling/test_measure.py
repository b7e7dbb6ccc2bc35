"""The metric that a direction is asked for is the one it was made with, or it is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxreg as jr
from jaxreg.coupling.measure import measure

PARAMS = {"b": jnp.zeros(4), "w": jnp.ones((3, 4))}
MASK = {"b": False, "w": True}


def ask(direction, params=PARAMS):
    touched = [True] * len(jax.tree.leaves(params))
    direction = optax.with_extra_args_support(direction)
    return measure("proximal", direction, params, touched)


# direction -> gain, eps, root, 1 - decay
KNOWN = {
    "momentum": (optax.trace(0.9), 10, 0, 0, 1),
    "nesterov": (optax.trace(0.8, nesterov=True), 5, 0, 0, 1),
    "heavy": (optax.trace(0.99), 100, 0, 0, 1),
    "ema": (optax.ema(0.9), 1, 0, 0, 1),
    "adam": (optax.scale_by_adam(), 1, 1e-8, 0, 1e-3),
    "adam eps": (optax.scale_by_adam(b2=0.9, eps=1e-3), 1, 1e-3, 0, 0.1),
    "adam root": (optax.scale_by_adam(eps=1e-5, eps_root=1e-8), 1, 1e-5, 1e-8, 1e-3),
    "nadam": (optax.scale_by_adam(nesterov=True), 1, 1e-8, 0, 1e-3),
    "yogi": (optax.scale_by_yogi(), 1, 1e-3, 0, 1e-3),
    "amsgrad": (optax.scale_by_amsgrad(), 1, 1e-8, 0, 1),
    "rms": (optax.scale_by_rms(eps=1e-8), 1, 0, 1e-8, 1),
    "rms, momentum": (optax.chain(optax.scale_by_rms(eps=1e-8), optax.trace(0.9)), 10, 0, 1e-8, 1),
    "rms corrected": (
        optax.scale_by_rms(eps=1e-8, bias_correction=True, eps_in_sqrt=False), 1, 1e-8, 0, 0.1
    ),
    "rss": (optax.scale_by_rss(), 1, 0, 1e-7, 1),
    "injected": (optax.inject_hyperparams(optax.scale_by_adam)(b1=0.8), 1, 1e-8, 0, 1e-3),
}  # fmt: skip


@pytest.mark.parametrize("name", KNOWN)
def test_known_directions_are_recovered(name):
    direction, gain, eps, root, fresh = KNOWN[name]
    metric = ask(direction)
    np.testing.assert_allclose(metric.gain, [gain] * 2, rtol=1e-4)
    # What is missing is 0 beside the other, not to the last bit.
    np.testing.assert_allclose(metric.eps, [eps] * 2, rtol=1e-4, atol=1e-4 * root**0.5)
    np.testing.assert_allclose(metric.root, [root] * 2, rtol=1e-4, atol=1e-4 * eps**2)
    np.testing.assert_allclose(metric.fresh, [fresh] * 2, rtol=1e-4)


def test_momentum_kept_in_bfloat16_is_good_to_a_percent():
    metric = ask(optax.trace(0.9, accumulator_dtype=jnp.bfloat16))
    np.testing.assert_allclose(metric.gain, [10, 10], rtol=0.01)
    metric = ask(optax.scale_by_adam(mu_dtype=jnp.bfloat16))
    np.testing.assert_allclose(metric.gain, [1, 1], rtol=0.01)


def test_each_leaf_has_its_own_metric():
    parts = {"adam": optax.scale_by_adam(), "sgd": optax.trace(0.5), "still": optax.set_to_zero()}
    params = PARAMS | {"z": jnp.zeros(())}
    labels = {"b": "sgd", "w": "adam", "z": "still"}
    metric = ask(optax.partition(parts, labels), params)
    np.testing.assert_allclose(metric.gain, [2, 1, 0], rtol=1e-5)
    np.testing.assert_allclose(metric.eps, [0, 1e-8, 0], rtol=1e-4)


def test_strengths_of_the_parameters_shape_in_the_chain_are_met_on_real_shapes():
    reg = jr.l2({"b": 1.0, "w": jnp.ones((3, 4))})
    metric = ask(optax.chain(jr.add_penalty_gradient(reg), optax.scale_by_adam()))
    np.testing.assert_allclose(metric.gain, [1, 1], rtol=1e-5)


def test_traced_momentum_gives_a_traced_gain_and_numbers_elsewhere():
    def gain(decay):
        metric = ask(optax.trace(decay))
        assert not isinstance(metric.fresh, jax.core.Tracer)
        return metric.gain

    gains = jax.jit(jax.vmap(gain))(jnp.array([0.0, 0.5, 0.9]))
    np.testing.assert_allclose(gains, np.array([[1, 1], [2, 2], [10, 10]]), rtol=1e-3)


def test_it_is_asked_outside_of_the_program():
    jaxpr = jax.make_jaxpr(lambda x: ask(optax.scale_by_adam()).gain + x)(jnp.zeros(2))
    assert len(jaxpr.eqns) == 1


UNKNOWN = {
    "lion": (optax.scale_by_lion(), "ScaleByLionState"),
    "adamax": (optax.scale_by_adamax(), "ScaleByAdamState"),
    "radam": (optax.scale_by_radam(), "ScaleByAdamState"),
    "adafactor": (optax.scale_by_factored_rms(), "FactoredState"),
    "novograd": (optax.scale_by_novograd(), "ScaleByNovogradState"),
    "adabelief": (optax.scale_by_belief(), "ScaleByBeliefState"),
    "ademamix": (optax.contrib.scale_by_ademamix(), "ScaleByAdemamixState"),
    "centred": (optax.scale_by_stddev(), "ScaleByRStdDevState"),
    "clipped inside of a mask": (
        optax.masked(optax.chain(optax.clip(1.0), optax.trace(0.9)), {"b": True, "w": True}),
        "MaskedState, TraceState",
    ),
    "deaf to small ones": (
        optax.masked(
            optax.chain(
                optax.stateless_with_tree_map(lambda g, _: g * (abs(g) > 1e-8)), optax.trace(0.9)
            ),
            {"b": True, "w": True},
        ),
        "MaskedState, TraceState",
    ),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_unknown_directions_are_refused_by_name(name):
    direction, states = UNKNOWN[name]
    match = rf"metric of the direction is unknown on the leaf 'b' .*{states}.*Give one of optax's"
    with pytest.raises(ValueError, match=match):
        ask(direction)


def test_what_mixes_the_entries_of_a_leaf_is_noticed_though_each_alone_is_right():
    """A mean of one number is the number: leaves of one number would not show it."""

    def update(updates, state, params=None):
        of_leaf = lambda g, m: 0.9 * m + jnp.mean(g)
        new = jax.tree.map(of_leaf, updates, state)
        return new, new

    zeros = lambda params: jax.tree.map(jnp.zeros_like, params)
    with pytest.raises(ValueError, match="mixes the entries of the leaf 'b'"):
        ask(optax.GradientTransformation(zeros, update))


def test_another_size_at_later_steps_is_refused_where_it_cannot_be_read_off():
    late = optax.scale_by_schedule(optax.linear_schedule(1.0, 0.1, 1000))
    whole = optax.masked(optax.chain(optax.trace(0.5), late), {"b": True, "w": True})
    with pytest.raises(ValueError, match="another size at later steps.*Put the schedule into"):
        ask(whole)


def test_leaves_that_the_penalty_leaves_alone_may_move_as_they_like():
    inner = optax.partition(
        {"a": optax.scale_by_adam(), "b": optax.scale_by_lion()}, {"b": "b", "w": "a"}
    )
    jr.proximal(inner, jr.l1(0.1).on("w"), 0.1).init(PARAMS)
    with pytest.raises(ValueError, match="unknown on the leaf 'b'"):
        jr.proximal(inner, jr.l1(0.1), 0.1).init(PARAMS)
