"""Noise: means, exact ends, keys, and rates that are swept without compiling anew."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxreg import noise

KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(1), (64, 20, 30)) + 2
IMAGES = jax.random.uniform(jax.random.key(2), (40, 12, 10, 2)) + 1
LABELS = jax.nn.one_hot(jnp.arange(40) % 3, 3)

DROPS = {
    "drop": lambda rate, key: noise.drop(X, rate, key),
    "drop shared": lambda rate, key: noise.drop(X, rate, key, shared=(1,)),
    "drop_weights": lambda rate, key: noise.drop_weights({"kernel": X}, rate, key)["kernel"],
    "drop_path": lambda rate, key: noise.drop_path(X, rate, key),
}


@pytest.mark.parametrize("name", DROPS)
def test_what_drops_keeps_the_mean_and_is_exact_at_both_ends(name):
    call = DROPS[name]
    np.testing.assert_array_equal(call(0.0, KEY), X)
    np.testing.assert_array_equal(call(1.0, KEY), 0 * X)
    some = jax.jit(call)(0.25, KEY)
    kept = some != 0
    np.testing.assert_allclose(some[kept], (X / 0.75)[kept], rtol=1e-6)
    draws = jax.vmap(lambda k: call(0.25, k))(jax.random.split(KEY, 200))
    np.testing.assert_allclose(draws.mean(), X.mean(), rtol=0.02)
    assert np.abs((draws == 0).mean() - 0.25) < 0.02
    np.testing.assert_array_equal(call(0.25, KEY), call(0.25, KEY))
    assert (call(0.25, KEY) != call(0.25, jax.random.key(5))).any()


def test_what_is_shared_is_dropped_together():
    alike = lambda x, axis: (x.any(axis, keepdims=True) == x).all()
    locked = noise.drop(X, 0.5, KEY, shared=(1,)) != 0
    assert alike(locked, 1)
    assert not alike(locked, 2)
    assert alike(noise.drop(X, 0.5, KEY, shared=(-2,)) != 0, 1)
    rows = noise.drop_path(X, 0.5, KEY) != 0
    assert alike(rows, (1, 2))
    assert rows.any()
    assert not rows.all()


def test_a_rate_is_swept_and_differentiated_without_a_branch():
    traces = []

    @jax.jit
    def call(rate):
        traces.append(1)
        return noise.drop(X, rate, KEY)

    for rate in (0.0, 0.3, 1.0):
        call(rate)
    assert len(traces) == 1
    lanes = jax.vmap(call)(jnp.array([0.0, 0.3, 1.0]))
    np.testing.assert_array_equal(lanes[0], X)
    np.testing.assert_array_equal(lanes[2], 0 * X)
    # The same key: what a lower rate drops a higher one drops too.
    assert ((lanes[1] == 0) <= (noise.drop(X, 0.6, KEY) == 0)).all()
    assert np.isfinite(
        jax.vmap(jax.grad(lambda r: noise.drop(X, r, KEY).sum()))(jnp.array([0.0, 1.0]))
    ).all()


def test_leaves_are_selected_and_draw_apart():
    params = {
        "a": {"kernel": jnp.ones((30, 30)), "bias": jnp.ones(30)},
        "b": {"kernel": jnp.ones((30, 30))},
    }
    dropped = noise.drop_weights(params, 0.5, KEY)
    assert (dropped["a"]["bias"] == 1).all()
    assert (dropped["a"]["kernel"] != dropped["b"]["kernel"]).any()
    only = noise.add_normal(params, 0.1, KEY, where="a/bias")
    assert (only["a"]["kernel"] == 1).all()
    assert (only["a"]["bias"] != 1).all()


def test_normal_noise_has_the_width():
    assert (noise.add_normal(X, 0.0, KEY) == X).all()
    np.testing.assert_allclose((noise.add_normal(X, 0.5, KEY) - X).std(), 0.5, rtol=0.02)
    narrow = noise.add_normal(X.astype(jnp.bfloat16), 0.5, KEY)
    assert narrow.dtype == jnp.bfloat16


def test_zoneout_keeps_units_of_the_old_state_and_its_mean_without_a_key():
    new, old = X, X + 10
    some = noise.zoneout(new, old, 0.25, KEY)
    assert ((some == new) | (some == old)).all()
    assert np.abs((some == old).mean() - 0.25) < 0.02
    np.testing.assert_allclose(noise.zoneout(new, old, 0.25), 0.75 * new + 0.25 * old, rtol=1e-6)
    np.testing.assert_array_equal(noise.zoneout(new, old, 0.0, KEY), new)
    np.testing.assert_array_equal(noise.zoneout(new, old, 1.0, KEY), old)


def test_mixing_nothing_changes_no_bit_whatever_the_other_row_holds():
    x = jnp.array([[0.1, jnp.inf], [1e3, 0.3], [-jnp.inf, 7.7]])
    for key in jax.random.split(KEY, 8):
        for got in noise.mixup(x, x, 0.0, key):
            np.testing.assert_array_equal(got, x)
        images = x[:, None, :, None]
        np.testing.assert_array_equal(noise.cut_mix(images, x, 0.0, key)[1], x)


def test_mixup_is_a_combination_of_rows_and_of_their_targets_alike():
    x, y = IMAGES.reshape(40, -1), LABELS
    whole = jnp.concatenate([x, y], 1)
    mixed = jnp.concatenate(noise.mixup(x, y, 1.0, KEY), 1)
    order = jax.random.permutation(jax.random.split(KEY)[0], 40)
    apart = whole - whole[order]
    share = ((mixed - whole[order]) * apart).sum() / (apart**2).sum()
    assert 0 < share < 1
    np.testing.assert_allclose(mixed, share * whole + (1 - share) * whole[order], atol=1e-5)
    for got, was in zip(noise.mixup(x, y, 0.0, KEY), (x, y)):
        np.testing.assert_array_equal(got, was)
    shares = jax.vmap(lambda k: noise._share(jnp.asarray(0.4), k))(jax.random.split(KEY, 4000))
    np.testing.assert_allclose(shares.var(), 1 / (4 * 1.8), rtol=0.05)  # of Beta(0.4, 0.4)


def test_cut_mix_pastes_a_box_and_mixes_targets_by_its_area():
    images, targets = noise.cut_mix(IMAGES, LABELS, 1.0, jax.random.key(4))
    order = jax.random.permutation(jax.random.split(jax.random.key(4), 3)[0], 40)
    moved = order != jnp.arange(40)
    pasted = (images != IMAGES).any((0, 3))
    rows, columns = pasted.any(1), pasted.any(0)
    np.testing.assert_array_equal(pasted, rows[:, None] & columns[None], "a box")
    np.testing.assert_array_equal(images[:, pasted], IMAGES[order][:, pasted])
    area = pasted.mean()
    assert 0 < area < 1
    np.testing.assert_allclose(targets, (1 - area) * LABELS + area * LABELS[order], atol=1e-6)
    assert moved.any()
    for got, was in zip(noise.cut_mix(IMAGES, LABELS, 0.0, KEY), (IMAGES, LABELS)):
        np.testing.assert_array_equal(got, was)


def test_cut_out_blanks_a_box_in_another_place_of_each_image():
    cut = noise.cut_out(IMAGES, 0.5, KEY) == 0
    for box in cut.all(-1):
        np.testing.assert_array_equal(box, box.any(1)[:, None] & box.any(0)[None])
        assert 0 < box.sum() <= 30  # 6 x 5, or less at a border
    assert len({box.tobytes() for box in np.asarray(cut)}) > 10
    np.testing.assert_array_equal(noise.cut_out(IMAGES, 0.0, KEY), IMAGES)


BAD = [
    (lambda: noise.drop(X, 1.5, KEY), ValueError, "drop: `rate` must be a share from 0 to 1, got 1.5"),
    (lambda: noise.drop(X, -0.5, KEY), ValueError, "drop: `rate` must be >= 0"),
    (lambda: noise.drop(X, "half", KEY), TypeError, "drop: `rate` must be a number"),
    (lambda: noise.drop(X, jnp.ones(2), KEY), ValueError, "drop: `rate` must be one number"),
    (lambda: noise.drop(X, 0.5, None), TypeError, "(?s)drop: `key` must be one PRNG key.*stochastic=True"),
    (lambda: noise.drop(X, 0.5, KEY, shared=(3,)), ValueError, r"`shared` must be a tuple of axes.*got \(3,\)"),
    (lambda: noise.drop(X, 0.5, KEY, shared=1), ValueError, "`shared` must be a tuple of axes"),
    (lambda: noise.drop(jnp.arange(3), 0.5, KEY), TypeError, "drop: `x` must be a floating array, got int32.3."),
    (lambda: noise.drop_weights({"bias": X}, 0.5, KEY), ValueError, "matches none"),
    (lambda: noise.add_normal({"a": jnp.arange(2)}, 0.5, KEY), TypeError, "add_normal: `tree` must be floating arrays, got {'a'"),
    (lambda: noise.add_normal(X, -1.0, KEY), ValueError, "`width` must be >= 0"),
    (lambda: noise.zoneout(X, X[0], 0.5), ValueError, "`old` must have the shape of `new`"),
    (lambda: noise.mixup(X, jnp.arange(64), 1.0, KEY), TypeError, "`targets` must be floating.*one_hot"),
    (lambda: noise.mixup(X, LABELS, 1.0, KEY), TypeError, r"with the rows of the inputs \(64\)"),
    (lambda: noise.cut_mix(X, LABELS, 1.0, KEY), ValueError, "`images` must be .rows, height, width, channels"),
    (lambda: noise.cut_out(IMAGES, 2.0, KEY), ValueError, "`share` must be a share from 0 to 1, got 2"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "match"), BAD)
def test_what_is_refused(call, error, match):
    with pytest.raises(error, match=match):
        call()
