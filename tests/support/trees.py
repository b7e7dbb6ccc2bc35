"""A small tree of parameters, a few penalties that fit it, and how trees are compared."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxreg as jr

close = np.testing.assert_allclose
RNG = np.random.default_rng(0)
PARAMS = {
    "dense": {
        "kernel": jnp.asarray(RNG.normal(size=(3, 2)), jnp.float32),
        "bias": jnp.asarray(RNG.normal(size=2), jnp.float32),
    },
    "head": {"kernel": jnp.asarray(RNG.normal(size=(2, 1)), jnp.float32)},
}
KERNEL, BIAS, HEAD = (np.asarray(x, np.float64) for x in (
    PARAMS["dense"]["kernel"], PARAMS["dense"]["bias"], PARAMS["head"]["kernel"]
))  # fmt: skip
FACTORIES = {
    "l1": jr.l1,
    "l2": jr.l2,
    "elastic_net": lambda lam: jr.elastic_net(lam, 0.3),
    "group_lasso": lambda lam: jr.group_lasso(lam, axis=0),
}
each = pytest.mark.parametrize("make", FACTORIES.values(), ids=FACTORIES)


def leaves(tree):
    return [np.asarray(x, np.float64) for x in jax.tree.leaves(tree)]


def assert_trees_close(a, b, **kwargs):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(leaves(a), leaves(b)):
        close(x, y, **kwargs)
