"""Leaves that cannot be penalised are refused by every penalty of the catalogue, by path."""

import jax.numpy as jnp
import pytest
from test_catalogue import CATALOGUE, OPTIONS

import jaxreg as jr

LEAF = jnp.ones((4, 3))


def parameters(name, first):
    """What suits the penalty, its first leaf made `first`."""
    given = OPTIONS.get(name, {}).get("params", {"bias": LEAF, "kernel": LEAF})
    path = min(given)
    return path, given | {path: first.reshape(-1)[: given[path].size].reshape(given[path].shape)}


@pytest.mark.parametrize(
    ("first", "kind"),
    [(jnp.arange(12).reshape(4, 3), "int32"), (jnp.ones((4, 3), jnp.complex64), "complex64")],
    ids=["integer", "complex"],
)
@pytest.mark.parametrize("name", CATALOGUE)
def test_integer_and_complex_leaves_are_refused(name, first, kind):
    penalty = CATALOGUE[name]()
    path, params = parameters(name, first)
    expected = rf"{name}: the leaf '{path}' is of dtype {kind}, and only real floating arrays"
    for call in (penalty, lambda p: penalty.prox(p, 1.0)):
        with pytest.raises(TypeError, match=expected):
            call(params)


def test_so_are_leaves_of_a_group_of_leaves():
    penalty = jr.group_lasso(0.5, groups=[["bias", "kernel"]])
    with pytest.raises(TypeError, match=r"group_lasso: the leaf 'bias' is of dtype int32"):
        penalty(parameters("l1", jnp.arange(12))[1])


@pytest.mark.parametrize(
    "make",
    [jr.l1, jr.l2, jr.elastic_net, lambda c, **k: jr.huber(c, 0.5, **k), jr.mcp, jr.scad,
     jr.log_sum, jr.l_half, jr.l_two_thirds, jr.l0],
    ids=["l1", "l2", "elastic_net", "huber", "mcp", "scad", "log_sum", "l_half", "l_two_thirds",
         "l0"],
)  # fmt: skip
def test_weights_of_another_shape_are_refused(make):
    with pytest.raises(ValueError, match=r"`weights` has shape \(3,\) on the leaf 'kernel' of"):
        make(0.5, weights={"bias": 1.0, "kernel": jnp.ones(3)})({"bias": LEAF, "kernel": LEAF})
    with pytest.raises(ValueError, match="`weights` must be >= 0 and not NaN"):
        make(0.5, weights=-LEAF)
