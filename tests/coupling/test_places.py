"""Everything that optax has, in every place: it ends at the optimum with exactly its zeros, or is refused."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support.paths import ROOT
from support.places import (
    AROUND,
    DIRECTIONS,
    ELSEWHERE,
    PARAMS,
    REG,
    TARGET,
    factories,
    rests,
    table,
)

import jaxreg as jr


def optimum():
    w, g = TARGET["w"], TARGET["g"]
    norm = jnp.linalg.norm(g, axis=1, keepdims=True)
    return {
        "w": jnp.sign(w) * jnp.maximum(jnp.abs(w) - 0.5, 0),
        "g": g * jnp.maximum(1 - 0.8 / norm, 0),
    }


def is_right(tx, steps):
    found, expected = rests(tx, steps), optimum()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=1e-4)
        np.testing.assert_array_equal(found[name] == 0, value == 0)


@pytest.mark.parametrize("name", DIRECTIONS)
def test_as_a_direction_it_is_right_or_refused(name):
    place = DIRECTIONS[name]
    if place.refused:
        with pytest.raises(ValueError, match=place.refused):
            jr.proximal(place.make(), REG, place.rate).init(PARAMS)
    else:
        tx = jr.proximal(place.make(), REG, place.rate)
        jr.check_coupling(tx, REG, PARAMS)
        is_right(tx, place.steps)


@pytest.mark.parametrize("name", AROUND)
def test_around_a_coupling_it_is_right_or_refused(name):
    place = AROUND[name]
    if place.refused:
        with pytest.raises(ValueError, match=place.refused):
            jr.check_coupling(place.make(), REG, PARAMS)
    else:
        jr.check_coupling(place.make(), REG, PARAMS)
        is_right(place.make(), place.steps)


def test_everything_that_optax_has_is_placed():
    """A new transformation fails here until it is tried and placed."""
    missing = set(factories()) - {*DIRECTIONS, *AROUND, *ELSEWHERE}
    assert not missing
    gone = {n for n in (*DIRECTIONS, *ELSEWHERE) if not hasattr(optax, n.split(".")[0])}
    assert not gone


def test_the_page_has_the_table():
    assert table() in (ROOT / "docs" / "couplings.md").read_text()


def test_a_clip_before_an_added_gradient_is_refused_and_after_it_is_right():
    clip, reg = optax.clip_by_global_norm(1.0), jr.l2(0.5)
    wrong = optax.chain(clip, jr.add_penalty_gradient(reg), optax.adam(0.05))
    with pytest.raises(
        ValueError, match="optax.clip_by_global_norm stands before jaxreg.add_penalty_grad"
    ):
        jr.check_coupling(wrong, reg, PARAMS)
    tx = optax.chain(jr.add_penalty_gradient(reg), clip, optax.adam(0.05))
    jr.check_coupling(tx, reg, PARAMS)
    found = rests(tx, 3000)
    np.testing.assert_allclose(found["w"], TARGET["w"] / 1.5, atol=1e-4)


def test_two_penalties_that_are_added_one_after_the_other_are_no_clip():
    for first in (jr.add_penalty_gradient(jr.l2(0.25)), optax.add_decayed_weights(0.25)):
        tx = optax.chain(first, jr.add_penalty_gradient(jr.l2(0.25)), optax.adam(0.05))
        jr.check_coupling(tx, jr.l2(0.5), PARAMS)
        np.testing.assert_allclose(rests(tx, 3000)["w"], TARGET["w"] / 1.5, atol=1e-4)
