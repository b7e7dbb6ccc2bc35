"""Random access into a shuffle: a bijection, close to uniform, and the same wherever it is asked."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxreg.fit.shuffle import shuffled

pytestmark = pytest.mark.formulas


def orders(n, keys):
    data = jax.vmap(lambda i: jax.random.key_data(jax.random.fold_in(jax.random.key(0), i)))(
        jnp.arange(keys)
    )
    return np.asarray(jax.jit(jax.vmap(lambda k: shuffled(jnp.arange(n), k, n)))(data))


@pytest.mark.parametrize("n", [1, 2, 3, 7, 64, 65, 1297])
def test_every_row_stands_once_in_an_order(n):
    for order in orders(n, 20):
        assert sorted(order) == list(range(n))


def test_every_order_of_five_rows_is_equally_likely():
    """Chi-square over the 120 orders; a fair shuffle exceeds 180 once in 4,000 times."""
    drawn, per_order = orders(5, 120 * 100), 100
    _, counts = np.unique(drawn @ 10 ** np.arange(5), return_counts=True)
    assert len(counts) == math.factorial(5)
    assert ((counts - per_order) ** 2 / per_order).sum() < 180


def test_places_and_pairs_are_as_in_a_fair_shuffle():
    n, size, keys = 50, 10, 8000
    drawn = orders(n, keys)
    counts = np.stack([np.bincount(drawn[:, place], minlength=n) for place in range(n)])
    expected = keys / n
    dof = n * (n - 1)
    assert ((counts - expected) ** 2 / expected).sum() < dof + 5 * np.sqrt(2 * dof)
    # How often two rows share a batch, for neighbours and for distant rows: hypergeometric.
    batch = np.argsort(drawn, axis=1) // size
    share = (size - 1) / (n - 1)
    error = np.sqrt(share * (1 - share) / keys)
    for a, b in [(0, 1), (0, 7), (3, 44), (48, 49)]:
        assert abs((batch[:, a] == batch[:, b]).mean() - share) < 4.5 * error


def test_a_traced_number_of_rows_and_any_part_of_the_order():
    key = jnp.array([3, 4], jnp.uint32)
    whole = shuffled(jnp.arange(23), key, 23)
    part = jax.jit(shuffled)(jnp.array([[5, 1], [22, 0]]), key, 23)
    np.testing.assert_array_equal(part, whole[np.array([[5, 1], [22, 0]])])
