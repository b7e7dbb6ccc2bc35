"""A direction stage by stage: whatever scales a gradient scales the prox as well."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxreg as jr
from jaxreg.coupling.stages import name_of, parts

ADAM, CLIP = optax.scale_by_adam(), optax.clip_by_global_norm(1.0)
TARGET = {"b": jnp.array([3.0, 0.2, -2.0]), "w": jnp.linspace(-3, 3, 12).reshape(3, 4)}
REG = jr.l1(0.5)
INJECT = optax.inject_hyperparams
SGD = INJECT(optax.trace)(decay=0.0)


def rest(tx, steps=3000, target=TARGET, state=None, params=None, **extra):
    """Where |params - target|^2 / 2 is minimised with the penalty."""

    def step(carry, _):
        params, state = carry
        grads = jax.tree.map(jnp.subtract, params, target)
        given = {name: make(grads) for name, make in extra.items()}
        updates, state = tx.update(grads, state, params, **given)
        return (optax.apply_updates(params, updates), state), None

    params = jax.tree.map(jnp.zeros_like, target) if params is None else params
    state = tx.init(params) if state is None else state
    return jax.lax.scan(step, (params, state), None, steps)[0]


def soft(x):
    return jnp.sign(x) * jnp.maximum(jnp.abs(x) - 0.5, 0)


def is_right(params, target=TARGET, atol=1e-4):
    for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(jax.tree.map(soft, target))):
        np.testing.assert_allclose(a, b, atol=atol)
        np.testing.assert_array_equal(a == 0, b == 0)


DIRECTIONS = {
    "clip": CLIP,
    "clip, adam": optax.chain(CLIP, ADAM),
    "adam, clip": optax.chain(ADAM, CLIP),
    "clip, momentum": optax.chain(CLIP, optax.trace(0.9)),
    "momentum, adam": optax.chain(optax.trace(0.9), ADAM),
    "a chain in a chain": optax.chain(optax.chain(CLIP, optax.identity()), optax.chain(ADAM)),
    "named": optax.named_chain(("clip", CLIP), ("adam", ADAM)),
    "entry by entry": optax.chain(optax.clip(0.1), ADAM),
    "block": optax.chain(optax.clip_by_block_rms(0.1), ADAM),
    "adaptive": optax.chain(optax.adaptive_grad_clip(0.1), ADAM),
    "masked clip": optax.chain(optax.masked(CLIP, {"b": False, "w": True}), ADAM),
    "sign": optax.scale_by_sign(),
    "constant": optax.chain(optax.scale(0.3), ADAM, optax.scale(2.0)),
    "schedule": optax.chain(ADAM, optax.scale_by_schedule(lambda count: 1 / (1 + count / 1000))),
    "trust ratio": optax.chain(ADAM, optax.scale_by_trust_ratio()),
    "nothing, then nothing more": optax.chain(
        optax.identity(), optax.zero_nans(), jr.add_penalty_gradient(jr.l2(0.0)), ADAM
    ),
    "nothing, then a penalty of weight": optax.chain(
        optax.identity(), jr.add_penalty_gradient(jr.l2(1e-9)), ADAM
    ),
    "zero nans": optax.chain(optax.zero_nans(), ADAM),
    "injected clip": optax.chain(INJECT(optax.clip_by_global_norm)(max_norm=1.0), ADAM),
    "injected momentum": INJECT(optax.trace)(decay=optax.linear_schedule(0.5, 0.9, 1000)),
    "injected eps": INJECT(optax.scale_by_adam)(eps=optax.linear_schedule(1e-2, 1e-8, 1000)),
}


@pytest.mark.parametrize("name", DIRECTIONS)
def test_every_factor_keeps_the_optimum(name):
    slow = {"sign": 12_000}.get(name, 3000)
    is_right(rest(jr.proximal(DIRECTIONS[name], REG, 0.02), slow)[0], atol=2e-4)


@pytest.mark.parametrize("norm", [0.01, 1.0, 100.0])
def test_forty_weights_end_at_two_and_a_half_however_they_are_clipped(norm):
    """At the optimum each gradient is 0.5, and their norm 3.2: clipped at 1, it ended at 0."""
    target = jnp.full(40, 3.0)
    direction = optax.chain(optax.clip_by_global_norm(norm), ADAM)
    params, _ = rest(jr.proximal(direction, REG, 0.02), 3000, target)
    np.testing.assert_allclose(params, 2.5, atol=1e-4)


def test_the_value_of_the_loss_is_passed_on():
    loss = lambda grads: sum(jnp.sum(g**2) for g in jax.tree.leaves(grads)) / 2
    direction = optax.scale_by_polyak(max_learning_rate=0.1)
    is_right(rest(jr.proximal(direction, REG, 1.0), value=loss)[0])


def test_a_group_lasso_under_a_clip():
    target = jnp.array([[3.0, 4.0], [0.3, 0.4], [-1.0, 0.0]])
    reg = jr.group_lasso(0.8, axis=0, sqrt_size=False)
    params, _ = rest(jr.proximal(optax.chain(CLIP, ADAM), reg, 0.02), 4000, target)
    norm = jnp.linalg.norm(target, axis=1, keepdims=True)
    expected = target * jnp.maximum(1 - 0.8 / norm, 0)
    np.testing.assert_allclose(params, expected, atol=1e-4)
    np.testing.assert_array_equal(params == 0, expected == 0)


def test_a_momentum_that_is_set_by_hand_reaches_the_prox():
    tx = jr.proximal(SGD, REG, 0.01)
    params, state = rest(tx, 50)
    hyper = dict(state.direction.hyperparams, decay=jnp.asarray(0.9))
    state = state._replace(direction=state.direction._replace(hyperparams=hyper))
    is_right(rest(tx, 3000, state=state, params=params)[0])


@pytest.mark.parametrize("where", ["inside of jit", "outside"])
def test_a_learning_rate_and_a_momentum_injected_from_outside_reach_both_parts(where):
    make = lambda lr, decay: jr.proximal(optax.trace(decay), REG, lr)
    tx = INJECT(make)(lr=0.1, decay=0.0)
    params, state = rest(tx, 50)
    state.hyperparams["lr"] = jnp.asarray(0.01)
    state.hyperparams["decay"] = jnp.asarray(0.9)
    if where == "outside":  # one step outside of all traces moves as the momentum that is set says
        params = {"b": jnp.array([1.0, 1.0, 1.0]), "w": jnp.ones((3, 4))}
        zero = jax.tree.map(jnp.zeros_like, params)
        state = state._replace(inner_state=tx.init(params).inner_state)
        updates, _ = tx.update(zero, state, params)
        np.testing.assert_allclose(updates["b"], -0.01 * 0.5 * 10, rtol=1e-3)
    else:
        is_right(rest(tx, 3000, state=state, params=params)[0])


def test_the_state_is_that_of_the_direction_and_a_restart_goes_on():
    direction = optax.named_chain(("clip", CLIP), ("adam", ADAM))
    tx = jr.proximal(direction, REG, 0.02)
    params, state = rest(tx, 7)
    like = direction.init(params)
    assert jax.tree.structure(state.direction) == jax.tree.structure(like)
    assert type(state.direction) is type(like)
    again = jr.proximal(optax.named_chain(("clip", CLIP), ("adam", ADAM)), REG, 0.02)
    for a, b in zip(
        jax.tree.leaves(rest(tx, 9)[0]),
        jax.tree.leaves(rest(again, 2, state=state, params=params)[0]),
    ):
        np.testing.assert_allclose(a, b, rtol=1e-5)


# --- what cannot be ----------------------------------------------------------------------------------

MULTI = lambda tx: optax.MultiSteps(tx, 4).gradient_transformation()
REFUSED = {
    "complete": (optax.adam(0.1), "it is a complete optimizer.*optax.scale_by_adam"),
    "complete sgd": (optax.sgd(0.1), "it is a complete optimizer.*optax.trace"),
    "masked complete": (optax.masked(optax.adam(0.1), {"b": True, "w": True}), "complete optimizer"),
    "adamw": (optax.chain(ADAM, optax.add_decayed_weights(0.1)), "adds something to gradients that were"),
    "decay after a clip": (optax.chain(CLIP, optax.add_decayed_weights(0.1)), "first in the chain"),
    "lion": (optax.scale_by_lion(), "metric of the direction is unknown on the leaf 'b'"),
    "centralize": (optax.centralize(), "mixes the entries of the leaf .w..*another sign"),
    "still": (optax.set_to_zero(), "moves none of the leaves that the penalty touches"),
    "accumulation": (MULTI(ADAM), r"Put it outside: optax.MultiSteps\(jaxreg.proximal\(...\), k\)"),
    "apply_every": (optax.chain(ADAM, optax.apply_every(4)), r"Put it outside: optax.MultiSteps"),
    "if finite": (optax.apply_if_finite(ADAM, 3), r"optax.apply_if_finite\(jaxreg.proximal\(...\), n\)"),
    "schedule free": (optax.contrib.schedule_free(ADAM, 0.1), "keeps a ScheduleFreeState"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_step_is_refused_with_what_to_do(name):
    direction, match = REFUSED[name]
    with pytest.raises(ValueError, match=match):
        jr.proximal(direction, REG, 0.02).init(TARGET)


@pytest.mark.parametrize(
    ("direction", "match"),
    [
        (MULTI(ADAM), r"Put it outside: optax.MultiSteps\(jaxreg.decoupled\(...\), k\)"),
        (
            optax.partition({"a": ADAM, "f": optax.set_to_zero()}, {"b": "f", "w": "a"}),
            r"does not move the leaf 'b'.*Leave it out of the penalty with .on\(...\)",
        ),
    ],
)
def test_a_decay_where_nothing_moves_is_refused(direction, match):
    with pytest.raises(ValueError, match=match):
        jr.decoupled(direction, jr.l2(0.1), 0.1).init(TARGET)


def test_accumulation_outside_decays_once():
    tx = MULTI(jr.decoupled(ADAM, jr.l2(0.1), 0.1))
    params, state = {"w": jnp.ones(2)}, tx.init({"w": jnp.ones(2)})
    for _ in range(4):
        updates, state = tx.update({"w": jnp.zeros(2)}, state, params)
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(params["w"], 0.99, rtol=1e-6)


def test_chains_are_taken_apart_and_known_by_name():
    assert [name_of(tx) for tx in parts(optax.chain(CLIP, ADAM))] == [
        "clip_by_global_norm",
        "scale_by_adam",
    ]
    assert [name_of(tx) for tx in parts(DIRECTIONS["named"])] == [
        "clip_by_global_norm",
        "scale_by_adam",
    ]
    assert parts(optax.with_extra_args_support(optax.chain(CLIP))) is not None
    assert parts(ADAM) is None
    assert name_of(jr.add_penalty_gradient(REG)) == ""
