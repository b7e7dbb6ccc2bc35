"""A state to store, and whether two are the same to the bit."""

from collections import namedtuple

import jax
import jax.numpy as jnp
import numpy as np

State = namedtuple("State", "params count")


def raw(leaf):
    if jnp.issubdtype(getattr(leaf, "dtype", np.int64), jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    leaf = np.asarray(leaf)
    return leaf.dtype, leaf.shape, leaf.tobytes()


def assert_same(found, saved):
    assert jax.tree.structure(found) == jax.tree.structure(saved)
    for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(saved)):
        assert raw(x) == raw(y), path
