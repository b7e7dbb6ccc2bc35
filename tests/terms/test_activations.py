"""Terms on activations against loops in numpy over their papers' formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxreg import terms

RNG = np.random.default_rng(0)
H = RNG.normal(size=(5, 7, 3))  # rows, times, units
MASK = np.arange(7)[None] < RNG.integers(2, 8, size=5)[:, None]
ROWS = RNG.normal(size=(12, 4))
LABELS = RNG.integers(0, 3, size=12)
CENTERS = RNG.normal(size=(3, 4))
SHARES = 1 / (1 + np.exp(-ROWS))


def covariance_of(rows):
    n, d = rows.shape
    total = 0.0
    for i in range(d):
        for j in range(d):
            if i != j:
                a, b = rows[:, i] - rows[:, i].mean(), rows[:, j] - rows[:, j].mean()
                total += ((a * b).sum() / (n - 1)) ** 2
    return total / d


def kl_of(rows, rho):
    mean = rows.mean(0)
    return (rho * np.log(rho / mean) + (1 - rho) * np.log((1 - rho) / (1 - mean))).mean()


def changes(h, mask):
    found = [
        (h[b, t, u] - h[b, t - 1, u]) ** 2
        for b in range(h.shape[0])
        for t in range(1, h.shape[1])
        for u in range(h.shape[2])
        if mask[b, t] and mask[b, t - 1]
    ]
    return np.mean(found)


ALL = np.ones_like(MASK)
CASES = {
    "activity_l1": (terms.activity_l1(1.0), (H,), {}, np.abs(H).mean()),
    "activity_l1 masked": (terms.activity_l1(1.0), (H,), {"mask": MASK}, np.abs(H[MASK]).mean()),
    "activity_l2": (terms.activity_l2(1.0), (H,), {}, (H**2).mean()),
    "activity_l2 masked": (terms.activity_l2(1.0), (H,), {"mask": MASK}, (H[MASK] ** 2).mean()),
    "tar": (terms.tar(1.0, axis=1), (H,), {}, changes(H, ALL)),
    "tar masked": (terms.tar(1.0, axis=1), (H,), {"mask": MASK}, changes(H, MASK)),
    "tar, time first": (
        terms.tar(1.0, axis=0), (np.swapaxes(H, 0, 1),), {"mask": MASK.T}, changes(H, MASK),
    ),
    "tar, an axis from behind": (terms.tar(1.0, axis=-2), (H,), {}, changes(H, ALL)),
    "kl_sparsity": (terms.kl_sparsity(1.0, 0.1), (SHARES,), {}, kl_of(SHARES, 0.1)),
    "covariance": (terms.covariance(1.0), (ROWS,), {}, covariance_of(ROWS)),
    "covariance masked": (
        terms.covariance(1.0), (H,), {"mask": MASK}, covariance_of(H[MASK]),
    ),
    "variance": (
        terms.variance(1.0), (ROWS,), {},
        np.maximum(0, 1 - np.sqrt(ROWS.var(0, ddof=1) + 1e-4)).mean(),
    ),
    "variance masked": (
        terms.variance(1.0, level=2.0), (H,), {"mask": MASK},
        np.maximum(0, 2 - np.sqrt(H[MASK].var(0, ddof=1) + 1e-4)).mean(),
    ),
    "center": (
        terms.center(1.0), (ROWS, LABELS, CENTERS), {},
        np.mean([0.5 * ((h - CENTERS[c]) ** 2).sum() for h, c in zip(ROWS, LABELS)]),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_it_is_the_formula(name):
    term, given, more, expected = CASES[name]
    given, more = jax.tree.map(jnp.asarray, (given, more))
    assert expected > 1e-3
    np.testing.assert_allclose(term(*given, **more), expected, rtol=2e-5)
    # Under jit, as a lane of a sweep over strengths, and by the strength.
    stacked = jax.tree.map(lambda x: jnp.stack([0 * x, x, 3 * x]), term.lam)
    lanes = jax.vmap(lambda lam: jax.jit(lambda t: t(*given, **more))(lam * term))(stacked)
    np.testing.assert_allclose(lanes, [0, expected, 3 * expected], rtol=2e-5)
    by = jax.grad(lambda t: t(*given, **more))(term)
    np.testing.assert_allclose(by.lam, expected, rtol=2e-5)


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_differences(name):
    term, given, more, _ = CASES[name]
    with jax.enable_x64(True):
        first = jnp.asarray(given[0])
        value = lambda h: term(h, *map(jnp.asarray, given[1:]), **jax.tree.map(jnp.asarray, more))
        way = jnp.asarray(np.random.default_rng(1).normal(size=first.shape))
        got = jnp.sum(jax.grad(value)(first) * way)
        eps = 1e-6
        difference = (value(first + eps * way) - value(first - eps * way)) / (2 * eps)
        np.testing.assert_allclose(got, difference, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("name", ["activity_l1", "activity_l2", "tar", "kl_sparsity"])
def test_more_rows_and_longer_sequences_change_no_mean(name):
    term, (h,), _, _ = CASES[name]
    h = jnp.asarray(h)
    np.testing.assert_allclose(term(jnp.concatenate([h, h])), term(h), rtol=1e-5)
    padded = jnp.concatenate([h, jnp.full_like(h, jnp.nan)], 1) if h.ndim == 3 else None
    if padded is not None:
        mask = jnp.arange(14)[None] < 7 * jnp.ones((5, 1))
        np.testing.assert_allclose(term(padded, mask=mask), term(h), rtol=1e-5)


def test_narrow_activations_are_accumulated_wide():
    ones = jnp.full((300, 300), 1.0, jnp.bfloat16)
    assert terms.activity_l2(1.0)(ones).dtype == jnp.float32
    assert terms.activity_l2(1.0)(ones) == 1


def test_factors_scale_strengths_and_terms_are_printed():
    term = 2 * terms.tar(0.25, axis=1) * 2
    assert repr(term) == "tar(1, axis=1)"
    assert term.numbers() == {"lam": 1.0}
    assert repr(terms.kl_sparsity(1.0)) == "kl_sparsity(1, rate=0.05)"
    assert jax.tree.leaves(term) == [1.0]


def largest(codes, k):
    """Row by row, one maximum after another; the first of equals."""
    kept = np.zeros_like(codes)
    for at in np.ndindex(codes.shape[:-1]):
        left = codes[at].astype(float)
        for _ in range(min(k, len(left))):
            i = int(np.argmax(left))
            kept[(*at, i)], left[i] = codes[(*at, i)], -np.inf
    return kept


CODES = np.round(RNG.normal(size=(4, 5, 8)), 1).astype(np.float32)  # with entries that are equal
CODES[0, 0] = 0.3


@pytest.mark.parametrize("k", [0, 1, 3, 8, 9, np.int64(2), 2.0, jnp.asarray(5)])
def test_top_k_keeps_the_k_largest_and_of_equals_the_first(k):
    kept = terms.top_k(jnp.asarray(CODES), k)
    np.testing.assert_array_equal(kept, largest(CODES, int(k)))
    np.testing.assert_array_equal(jax.jit(terms.top_k)(jnp.asarray(CODES), k), kept)
    nonzero = terms.top_k(jnp.asarray(CODES) + 10, k) != 0
    assert (nonzero.sum(-1) == min(int(k), 8)).all(), "exactly k, where entries are equal too"


def test_a_k_that_is_swept_is_each_of_its_values():
    codes = jnp.asarray(CODES)
    for ks in (jnp.arange(10), jnp.arange(10.0)):
        lanes = jax.jit(jax.vmap(lambda k: terms.top_k(codes, k)))(ks)
        np.testing.assert_array_equal(lanes, [largest(CODES, k) for k in range(10)])
    near = jax.jit(terms.top_k)(codes, jnp.asarray(2.4))
    np.testing.assert_array_equal(near, largest(CODES, 2))


def test_only_what_is_kept_has_a_gradient():
    codes = jnp.asarray(CODES)
    weights = jnp.asarray(RNG.normal(size=CODES.shape), jnp.float32)
    slope = jax.jit(jax.grad(lambda c: jnp.sum(weights * terms.top_k(c, 3))))(codes)
    kept = largest(CODES + 10, 3) != 0
    np.testing.assert_array_equal(slope, np.where(kept, weights, 0))
    _, along = jax.jvp(lambda k: terms.top_k(codes, k), (3.0,), (1.0,))
    assert not along.any(), "a number of units has no derivative"


def test_narrow_codes_stay_narrow_and_a_nan_is_not_hidden():
    narrow = jnp.asarray(CODES, jnp.bfloat16)
    kept = terms.top_k(narrow, 3)
    assert kept.dtype == jnp.bfloat16
    np.testing.assert_array_equal(kept, largest(np.asarray(narrow), 3))
    broken = terms.top_k(jnp.array([1.0, jnp.nan, 2.0]), 1)
    assert np.isnan(broken[1])


NOTHING = jnp.zeros((5, 7))
BAD = [
    (lambda: terms.tar(1.0, axis=True), TypeError, "tar: `axis` must be the axis of time, an integer"),
    (lambda: terms.tar(1.0, axis=3)(jnp.asarray(H)), ValueError, r"tar: `axis` .*got 3 of shape \[5, 7, 3\]"),
    (lambda: terms.tar(1.0, axis=0)(jnp.ones((1, 3))), ValueError, "at least 2 steps, got 0"),
    (lambda: terms.activity_l1(-1.0), ValueError, "activity_l1: `lam` must be >= 0"),
    (lambda: terms.activity_l1([1.0, 2.0]), ValueError, "activity_l1: `lam` must be one number"),
    (lambda: terms.activity_l1(None), TypeError, "activity_l1: `lam` must be a number"),
    (lambda: terms.activity_l1(1.0)("h"), TypeError, "activity_l1: `h` must be an array.*got a str"),
    (lambda: terms.activity_l1(1.0)(jnp.zeros((0, 2))), ValueError, "with entries, got shape"),
    (lambda: terms.activity_l1(1.0)(jnp.asarray(H), mask=NOTHING), ValueError, "must keep something"),
    (lambda: terms.covariance(1.0)(jnp.asarray(H), mask=NOTHING), ValueError, "must keep something"),
    (lambda: terms.activity_l1(1.0)(jnp.asarray(H), mask=NOTHING.T), ValueError, "must be an array of the first"),
    (lambda: terms.activity_l1(1.0)(jnp.asarray(H), mask=[1, 0]), ValueError, "got a list"),
    (lambda: terms.covariance(1.0)(jnp.zeros((1, 3))), ValueError, "at least 2 rows"),
    (lambda: terms.kl_sparsity(1.0, 0.0), ValueError, "`rate` must be between 0 and 1"),
    (lambda: terms.variance(1.0, level=0.0), ValueError, "`level` must be > 0"),
    (lambda: terms.center(1.0)(jnp.asarray(ROWS), jnp.ones(12), jnp.asarray(CENTERS)), ValueError,
     r"`labels` must be integers of the rows.*got labels float32\[12\]"),
    (lambda: terms.top_k([1.0, 2.0], 1), TypeError, "top_k: `codes` must be a floating array.*got list"),
    (lambda: terms.top_k(jnp.arange(3), 1), TypeError, r"`codes` must be a floating.*got int32\[3\]"),
    (lambda: terms.top_k(jnp.float32(1), 1), ValueError, "`codes` must have an axis of units"),
    (lambda: terms.top_k(NOTHING, -1), ValueError, "top_k: `k` must be >= 0.*got -1"),
    (lambda: terms.top_k(NOTHING, 1.5), ValueError, "top_k: `k` must be a whole number, got 1.5"),
    (lambda: terms.top_k(NOTHING, True), TypeError, "top_k: `k` must be a number.*got True"),
    (lambda: terms.top_k(NOTHING, jnp.ones(2)), ValueError, "top_k: `k` must be one number"),
    (lambda: terms.activity_l1(1.0) * terms.activity_l2(1.0), TypeError, "unsupported operand"),
    (lambda: terms.activity_l1(1.0) * jnp.ones(2), ValueError, "`factor` must be one number"),
    (lambda: terms.activity_l1(lambda step: step), TypeError, r"got the function.*schedule\(step\) \* term"),
    (lambda: (lambda step: step) * terms.activity_l1(1.0), TypeError, r"`factor`.*schedule\(step\) \* term"),
    (lambda: terms.activity_l1(-1.0), ValueError, "got -1. For no term use 0"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "match"), BAD)
def test_what_is_refused(call, error, match):
    with pytest.raises(error, match=match):
        call()


def test_a_mask_that_is_not_known_and_removes_everything_gives_nothing():
    term = terms.activity_l1(1.0)
    assert jax.jit(lambda m: term(jnp.asarray(H), mask=m))(NOTHING) == 0
