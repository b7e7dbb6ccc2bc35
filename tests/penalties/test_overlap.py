"""Overlapping groups, trained as copies: the latent norm against its dual, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.programs import ball, sizes, solve

import jaxreg as jr

pytestmark = pytest.mark.formulas

close = np.testing.assert_allclose
POINTS = np.random.default_rng(3).normal(size=(2, 12))
LAM = 0.6


@pytest.fixture(autouse=True)
def _double_precision():
    with jax.enable_x64(True):
        yield


OVERLAP = [[0, 1, 2], [2, 3], [1, 3, 4]]


def latent_by_duality(x, groups, reach):
    """max <u, x> with |u_g|_2 <= reach_g: the latent norm is the support function of that set."""
    limits = [ball(len(x), g, r) for g, r in zip(groups, reach)]
    u = solve(lambda u: (-u @ x, -x), np.zeros(len(x)), limits)
    return u @ x


@pytest.mark.parametrize("weights", [None, np.array([1.0, 3.0, 0.4])])
def test_the_latent_norm_is_the_support_function_of_the_dual_ball(weights):
    reg = jr.overlapping_group_lasso(LAM, OVERLAP, weights=weights)
    reach = LAM * np.array(sizes(OVERLAP, weights))
    norm = jax.jit(lambda x: reg.latent_norm(x, tolerance=1e-7))
    for x in POINTS[:, :5]:
        found, exact = norm(jnp.asarray(x)), latent_by_duality(x, OVERLAP, reach)
        close(found.value, exact, rtol=1e-6)
        assert found.value - found.residual - 1e-7 <= exact <= found.value + 1e-7
        # Shared out evenly, the copies cost as much or more.
        assert reg(reg.expand(jnp.asarray(x))) >= exact - 1e-9


def test_the_latent_norm_stops_where_it_is_told_and_says_so():
    reg = jr.overlapping_group_lasso(LAM, OVERLAP)
    early = reg.latent_norm(jnp.asarray(POINTS[0, :5]), max_steps=1)
    exact = latent_by_duality(POINTS[0, :5], OVERLAP, LAM * np.array(sizes(OVERLAP)))
    assert early.residual > 1e-4 * early.value
    assert early.value - early.residual <= exact <= early.value
    zero = reg.latent_norm(jnp.zeros(5))
    assert (zero.value, zero.residual) == (0, 0)


def test_copies_contract_to_what_they_were_expanded_from():
    reg = jr.overlapping_group_lasso(LAM, OVERLAP, axis=-1)
    x = {"w": jnp.asarray(POINTS[:, :5]), "v": jnp.asarray(POINTS[0, :5], jnp.bfloat16)}
    copies = reg.expand(x)
    assert copies["w"].shape == (2, 8)
    assert copies["v"].dtype == jnp.bfloat16
    named = np.concatenate(OVERLAP)
    close(copies["w"], POINTS[:, :5][:, named] / np.bincount(named)[named])
    close(reg.contract(copies)["w"], x["w"], rtol=1e-12)
    assert reg.contract(copies)["v"].dtype == jnp.bfloat16


# --- refusals ---------------------------------------------------------------------------------------


def overlapping(groups, **kwargs):
    return jr.overlapping_group_lasso(1.0, groups, **kwargs)


REFUSALS = {
    "no lists": (lambda: overlapping(3), TypeError, "`groups` must be a list of index lists, got 3"),
    "nothing": (lambda: overlapping([]), TypeError, r"`groups` must be a list of index lists, got \[\]"),
    "a group is a number": (lambda: overlapping([0, [1]]), TypeError, r"overlapping_group_lasso: `groups`\[0\] is 0; give"),
    "an axis is a float": (lambda: overlapping([[0]], axis=0.0), TypeError, r"overlapping_group_lasso: `axis` must be an integer, got 0\.0"),
    "missing": (lambda: overlapping([[0], [0, 2]]), ValueError, "overlapping_group_lasso: index 1 is in no group"),
    "repeated": (lambda: overlapping([[0, 0]]), ValueError, r"overlapping_group_lasso: index 0 is repeated in `groups`\[0\]"),
    "features, not copies": (lambda: overlapping([[0, 1], [1, 2]])({"w": jnp.ones(3)}), ValueError, r"the leaf 'w' has shape \(3,\), and the penalty acts on the 4 copies of its 3 features along axis 0\. Train penalty\.expand"),
    "contract, not copies": (lambda: overlapping([[0, 1], [1, 2]]).contract(jnp.ones(3)), ValueError, r"acts on the 4 copies of its 3 features"),
    "copies, not features": (lambda: overlapping([[0, 1], [1, 2]]).expand({"w": jnp.ones(4)}), ValueError, r"`groups` name 3 features, and the leaf 'w' of shape \(4,\) does not have as many along axis 0"),
    "weights": (lambda: overlapping([[0, 1], [1, 2]], weights=jnp.ones(4))(jnp.ones(4)), ValueError, r"`weights` has shape \(4,\) .*one per group, shape \(2,\)"),
}  # fmt: skip


@pytest.mark.parametrize(("call", "error", "text"), REFUSALS.values(), ids=REFUSALS)
def test_bad_input_is_refused_with_a_remedy(call, error, text):
    with pytest.raises(error, match=text):
        call()
