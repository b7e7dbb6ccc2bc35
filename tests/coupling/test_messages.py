"""What couplings are given by mistake is answered with the owner, the cause and the remedy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxreg as jr

ADAM, P = optax.scale_by_adam(), {"w": jnp.ones(2)}
INJECT = optax.inject_hyperparams
COMPLEX = {"w": jnp.ones(2, complex)}
MIXED = {"w": jnp.ones(2), "n": jnp.zeros((), jnp.int32)}

CASES = {
    "a penalty taken for a schedule": (
        lambda: INJECT(jr.add_penalty_gradient)(penalty=jr.l2(0.1)).init(P),
        TypeError,
        r'single integer in place of the parameters.*static_args=\("penalty",\)',
    ),
    "with a selector": (
        lambda: INJECT(jr.proximal)(ADAM, penalty=jr.l1(0.1).on(jr.kernels), learning_rate=0.1).init(P),
        TypeError,
        "selector kernels: got a single integer in place of the parameters",
    ),
    "fast parameters": (
        lambda: jr.proximal(optax.lookahead(ADAM, 5, 0.5), jr.l1(0.1), 0.1).init(P),
        ValueError,
        r"keeps a LookaheadState.*Put it outside: optax.lookahead\(jaxreg.proximal",
    ),
    "lookahead's parameters": (
        lambda: jr.proximal(optax.lookahead(ADAM, 5, 0.5), jr.l1(0.1), 0.1).init(
            optax.LookaheadParams.init_synced(P)
        ),
        ValueError,
        r"Put it outside: optax.lookahead\(jaxreg.proximal",
    ),
    "complex, proximal": (
        lambda: jr.proximal(optax.identity(), jr.l1(1.0), 0.1).init(COMPLEX),
        TypeError,
        "the leaf 'w' is of dtype complex64, and only real floating",
    ),
    "complex, added": (
        lambda: jr.add_penalty_gradient(jr.l2(1.0)).init(COMPLEX),
        TypeError,
        "the leaf 'w' is of dtype complex64",
    ),
    "an integer leaf": (
        lambda: jr.decoupled(ADAM, jr.l2(1.0), 0.1).init(MIXED),
        TypeError,
        "the leaf 'n' is of dtype int32.*Select others with .on",
    ),
    "nothing that is selected": (
        lambda: jr.add_penalty_gradient(jr.l2(1.0).on("v")).init(P),
        ValueError,
        "matches none of the 1 leaves",
    ),
    "a function in place of a direction": (
        lambda: jr.proximal(optax.adam, jr.l1(0.1), 0.1),
        TypeError,
        "`direction` must be an optax transformation such as optax.scale_by_adam",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_mistake_is_answered_before_anything_trains(name):
    call, error, match = CASES[name]
    with pytest.raises(error, match=match):
        call()


@pytest.mark.parametrize(
    "tx",
    [
        optax.chain(jr.add_penalty_gradient(jr.l2(0.1)), optax.adam(0.1)),
        jr.decoupled(ADAM, jr.l2(0.1).on("w"), 0.1),
        jr.proximal(ADAM, jr.l1(0.1).on("w"), 0.1),
        jr.averaged(jr.proximal(ADAM, jr.l1(0.1), 0.1)),
    ],
)
def test_optax_finds_the_parameters_in_a_state(tx):
    """As sharding helpers do: `tree_map_params` asks for the structure by a stand-in."""
    doubled = optax.tree_utils.tree_map_params(tx, lambda x: x + 2.0, tx.init(P))
    changed = [x for x in jax.tree.leaves(doubled) if np.shape(x) == (2,)]
    assert changed
    for x in changed:
        assert (x >= 2).all()
