"""Normalised weights against numpy's singular values, flax, closed forms and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen

import jaxreg as jr
from jaxreg import reparametrize as rp
from jaxreg import terms

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
PARAMS = {
    "conv": {
        "kernel": jnp.asarray(RNG.normal(size=(3, 3, 2, 4)), jnp.float32),
        "bias": jnp.ones(4),
    },
    "dense": {"kernel": jnp.asarray(RNG.normal(size=(6, 5)), jnp.float32), "bias": jnp.ones(5)},
}


def top(w):
    """The largest singular value of [prod(others), out]."""
    w = np.asarray(w, np.float64)
    return np.linalg.svd(w.reshape(-1, w.shape[-1]), compute_uv=False)[0]


def differences(fun, x, step=1e-2):
    """Central differences of a function of an array, entry by entry."""
    slope = np.zeros(x.shape)
    for at in np.ndindex(x.shape):
        slope[at] = (fun(x.at[at].add(step)) - fun(x.at[at].add(-step))) / (2 * step)
    return slope


# --- weight normalisation ----------------------------------------------------------------------------


def test_a_round_trip_is_exact_to_rounding_and_touches_kernels_alone():
    made = rp.to_weight_norm(PARAMS)
    assert made["conv"]["kernel"]["scale"].shape == (4,)
    assert made["dense"]["bias"] is PARAMS["dense"]["bias"]
    flat = np.asarray(PARAMS["conv"]["kernel"]).reshape(-1, 4)
    np.testing.assert_allclose(
        made["conv"]["kernel"]["scale"], np.linalg.norm(flat, axis=0), rtol=1e-6
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=3e-7), rp.from_weight_norm(made), PARAMS
    )
    one = rp.to_weight_norm(PARAMS, where="dense/*")
    assert one["conv"]["kernel"] is PARAMS["conv"]["kernel"]
    assert set(one["dense"]["kernel"]) == {"direction", "scale"}


def test_weights_are_those_of_the_formula_and_of_flax():
    """W = g v / |v|, as torch.nn.utils.parametrizations.weight_norm over all but the outputs."""
    v, g = RNG.normal(size=(3, 3, 2, 4)), RNG.normal(size=4)
    by_hand = g * v / np.sqrt((v**2).sum((0, 1, 2), keepdims=True))
    pair = {"direction": jnp.asarray(v), "scale": jnp.asarray(g)}
    np.testing.assert_allclose(rp.from_weight_norm({"w": pair})["w"], by_hand, rtol=1e-6)

    x = jnp.asarray(RNG.normal(size=(7, 6)), jnp.float32)
    layer = linen.WeightNorm(linen.Dense(5))
    held = layer.init(KEY, x)
    g = jnp.asarray(RNG.normal(size=5), jnp.float32)
    (name,) = (k for k in held["params"] if k.startswith("WeightNorm") or "scale" in str(k))
    held["params"][name] = jax.tree.map(lambda _: g, held["params"][name])
    (dense,) = (p for k, p in held["params"].items() if k != name)
    ours = rp.from_weight_norm({"kernel": {"direction": dense["kernel"], "scale": g}})["kernel"]
    np.testing.assert_allclose(x @ ours + dense["bias"], layer.apply(held, x), rtol=1e-4, atol=1e-5)


def test_directions_and_scales_get_their_derivatives():
    x = jnp.asarray(RNG.normal(size=(4, 6)), jnp.float32)
    loss = lambda p: jnp.mean(jnp.sin(x @ rp.from_weight_norm(p)["w"]))
    made = rp.to_weight_norm({"w": PARAMS["dense"]["kernel"]})
    slope = jax.jit(jax.grad(loss))(made)
    for part in ("direction", "scale"):
        along = lambda a, part=part: loss({"w": made["w"] | {part: a}})
        np.testing.assert_allclose(
            slope["w"][part], differences(along, made["w"][part]), rtol=0.02, atol=2e-4
        )
    radial = jnp.sum(slope["w"]["direction"] * made["w"]["direction"], 0)
    np.testing.assert_allclose(radial, 0, atol=1e-6)


def test_zero_columns_and_narrow_and_many():
    w = PARAMS["dense"]["kernel"].at[:, 2].set(0)
    made = rp.to_weight_norm({"w": w})
    slope = jax.grad(lambda p: jnp.sum(rp.from_weight_norm(p)["w"]))(made)
    assert all(np.isfinite(s).all() for s in jax.tree.leaves(slope))
    assert not rp.from_weight_norm(made)["w"][:, 2].any()
    narrow = rp.to_weight_norm({"w": w.astype(jnp.bfloat16)})
    back = rp.from_weight_norm(narrow)["w"]
    assert back.dtype == narrow["w"]["scale"].dtype == jnp.bfloat16
    np.testing.assert_allclose(
        back.astype(jnp.float32), w.astype(jnp.bfloat16).astype(float), rtol=0.01
    )
    nets = {"w": jnp.stack([w, 2 * w])}
    trip = jax.vmap(lambda p: rp.from_weight_norm(rp.to_weight_norm(p)))(nets)
    np.testing.assert_allclose(trip["w"], nets["w"], rtol=3e-7)


# --- spectral normalisation --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def vectors():
    return rp.spectral_vectors(PARAMS, KEY)


def test_vectors_are_unit_and_of_the_selected(vectors):
    lengths = jax.tree.map(jnp.linalg.norm, vectors)
    assert lengths["conv"]["bias"] is None
    np.testing.assert_allclose([lengths[k]["kernel"] for k in ("conv", "dense")], 1, rtol=1e-6)
    one = rp.spectral_vectors(PARAMS, KEY, "dense/*")
    assert one["conv"] == {"kernel": None, "bias": None}


def test_norms_are_the_largest_singular_values(vectors):
    few, _ = rp.power_iteration(PARAMS, vectors)
    sigmas, turned = rp.power_iteration(PARAMS, vectors, steps=200)
    for name, p in PARAMS.items():
        np.testing.assert_allclose(sigmas[name]["kernel"], top(p["kernel"]), rtol=1e-5)
        assert few[name]["kernel"] < sigmas[name]["kernel"], "from below"
    compiled, _ = jax.jit(rp.power_iteration, static_argnums=2)(PARAMS, turned, 1)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), compiled, sigmas)
    made = rp.spectral_normalized(PARAMS, turned, bound=2.5)
    for name in PARAMS:
        np.testing.assert_allclose(top(made[name]["kernel"]), 2.5, rtol=1e-4)
        assert made[name]["bias"] is PARAMS[name]["bias"]
    small = jax.tree.map(lambda x: 0.01 * x, PARAMS)
    grown = rp.spectral_normalized(small, turned)["dense"]["kernel"]
    np.testing.assert_allclose(top(grown), 1, rtol=1e-4), "always divided, as in the paper"


def test_the_derivative_is_that_of_the_singular_value(vectors):
    _, turned = rp.power_iteration(PARAMS, vectors, steps=200)
    w, u = PARAMS["dense"]["kernel"], turned["dense"]["kernel"]
    given = lambda w: {"conv": PARAMS["conv"], "dense": {"kernel": w, "bias": jnp.ones(5)}}
    sigma = lambda w: rp.power_iteration(given(w), turned)[0]["dense"]["kernel"]
    slope = jax.grad(sigma)(w)
    v = w @ u / jnp.linalg.norm(w @ u)
    np.testing.assert_allclose(slope, jnp.outer(v, u), atol=2e-5)
    np.testing.assert_allclose(slope, differences(top, w), atol=2e-3)

    weights = jnp.asarray(RNG.normal(size=w.shape), jnp.float32)
    total = lambda w: jnp.sum(weights * rp.spectral_normalized(given(w), turned)["dense"]["kernel"])
    exact = lambda w: float(np.sum(np.asarray(weights) * np.asarray(w, float) / top(w)))
    np.testing.assert_allclose(jax.grad(total)(w), differences(exact, w), atol=3e-3)


def test_one_step_at_a_time_is_as_many_at_once_and_goes_through_scan(vectors):
    at_once, _ = rp.power_iteration(PARAMS, vectors, steps=50)

    def one(vectors, _):
        sigmas, vectors = rp.power_iteration(PARAMS, vectors)
        return vectors, sigmas

    _, along = jax.lax.scan(one, vectors, length=50)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[-1], b, rtol=1e-5), along, at_once)
    path = along["dense"]["kernel"]
    assert (jnp.diff(path) > -1e-5).all(), "it never falls"


def test_many_nets_are_each_of_them():
    nets = jax.tree.map(lambda x: jnp.stack([x, 0.5 * x[..., ::-1]]), PARAMS)
    keys = jax.random.split(KEY)

    def norms(net, key, bound):
        sigmas, vectors = rp.power_iteration(net, rp.spectral_vectors(net, key), 100)
        return sigmas, rp.spectral_normalized(net, vectors, bound)

    bounds = jnp.array([1.0, 3.0])
    sigmas, made = jax.jit(jax.vmap(norms))(nets, keys, bounds)
    for i in (0, 1):
        net = jax.tree.map(lambda x, i=i: x[i], nets)
        np.testing.assert_allclose(
            sigmas["dense"]["kernel"][i], top(net["dense"]["kernel"]), rtol=1e-4
        )
        alone = norms(net, keys[i], bounds[i])[1]
        np.testing.assert_allclose(
            made["conv"]["kernel"][i], alone["conv"]["kernel"], rtol=1e-4, atol=1e-6
        )


def test_narrow_weights_are_accumulated_in_float32(vectors):
    narrow = jax.tree.map(lambda x: x.astype(jnp.bfloat16), PARAMS)
    start = rp.spectral_vectors(narrow, KEY)
    sigmas, turned = rp.power_iteration(narrow, start, 200)
    for tree in (start, sigmas, turned):
        assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(tree))
    np.testing.assert_allclose(
        sigmas["conv"]["kernel"], top(narrow["conv"]["kernel"].astype(jnp.float32)), rtol=1e-5
    )
    assert rp.spectral_normalized(narrow, turned)["conv"]["kernel"].dtype == jnp.bfloat16


@pytest.mark.parametrize("size", [0.0, 1e-15, 1e15])
def test_kernels_of_zeros_and_of_any_size_stay_finite(size):
    params = {"kernel": size * PARAMS["dense"]["kernel"]}
    start = rp.spectral_vectors(params, KEY)
    sigmas, turned = rp.power_iteration(params, start, 200)
    np.testing.assert_allclose(
        sigmas["kernel"] / (size or 1), top(params["kernel"]) / (size or 1), rtol=1e-4
    )
    made, slope = jax.value_and_grad(
        lambda p: jnp.sum(rp.spectral_normalized(p, turned)["kernel"])
    )(params)
    assert np.isfinite(made)
    assert np.isfinite(slope["kernel"]).all()
    if size == 0:
        np.testing.assert_array_equal(turned["kernel"], start["kernel"])
        assert not rp.spectral_normalized(params, turned)["kernel"].any()
    empty = {"u": jnp.zeros((0, 3)), "w": jnp.zeros((3, 0))}
    none, _ = rp.power_iteration(empty, rp.spectral_vectors(empty, KEY))
    assert jax.tree.map(float, none) == {"u": 0.0, "w": 0.0}


def test_a_trainer_keeps_the_vectors_as_its_model_state():
    x = jnp.asarray(RNG.normal(size=(40, 6)), jnp.float32)
    y = jnp.sin(x[:, 0]) + x[:, 1]

    def init(key):
        a, b, c = jax.random.split(key, 3)
        params = {
            "hidden": {"kernel": jax.random.normal(a, (6, 16)), "bias": jnp.zeros(16)},
            "head": {"kernel": jax.random.normal(b, (16, 1))},
        }
        return params, rp.spectral_vectors(params, c)

    def mse(params, vectors, x, y):
        p = rp.spectral_normalized(params, vectors)
        h = jnp.tanh(x @ p["hidden"]["kernel"] + p["hidden"]["bias"])
        return jnp.mean((h @ p["head"]["kernel"] - y[:, None]) ** 2)

    def make(term):
        def loss(params, vectors, x, y):
            sigmas, vectors = rp.power_iteration(params, vectors)
            return (mse(params, vectors, x, y), {"lipschitz": term(sigmas)}), vectors

        def judged(params, vectors, x, y):
            sigmas, _ = rp.power_iteration(params, vectors)
            return mse(params, vectors, x, y), {"lipschitz": term(sigmas)}

        return jr.Trainer(init, loss, optax.adam(1e-2), eval_loss=judged, stateful=True)

    term = terms.lipschitz(0.01)
    start = mse(*init(KEY), x, y)
    state = jr.fit(make, term, (x, y), steps=300, key=KEY)
    made = rp.spectral_normalized(state.params, state.model_state)
    for name in ("hidden", "head"):
        np.testing.assert_allclose(top(made[name]["kernel"]), 1, rtol=2e-3)
    assert mse(state.params, state.model_state, x, y) < 0.5 * start
    told = make(term).evaluate(state, (x, y))["lipschitz"]
    product = top(state.params["hidden"]["kernel"]) * top(state.params["head"]["kernel"])
    np.testing.assert_allclose(told, 0.01 * product, rtol=2e-3)


VECTORS = rp.spectral_vectors(PARAMS, KEY)
OTHER = {"dense": {"kernel": jnp.ones(9)}}
BAD = [
    (lambda: rp.to_weight_norm(PARAMS, "*/nothing"), ValueError, "to_weight_norm: `where` must select.*got none"),
    (lambda: rp.to_weight_norm(PARAMS, "*/bias"), ValueError, r"`where` must select a leaf of at least 2 axes, got path\('\*/bias'\)"),
    (lambda: rp.to_weight_norm(rp.to_weight_norm(PARAMS)), ValueError, "to_weight_norm: `params` must be plain.*Call from_weight_norm"),
    (lambda: rp.to_weight_norm({"a": jnp.ones(2), "w": jnp.ones((2, 2), int)}, "*"), TypeError, r"`params` must be floating where.*got others at \['w'\]"),
    (lambda: rp.from_weight_norm(PARAMS), ValueError, "from_weight_norm: `params` must hold.*got the leaves.*to_weight_norm"),
    (lambda: rp.from_weight_norm({"w": {"direction": jnp.ones((3, 2)), "scale": jnp.ones(3)}}), ValueError, r"scale for each output.*got directions of shape \[3, 2\] and scales of shape \[3\]"),
    (lambda: rp.spectral_vectors(PARAMS, KEY, "*/bias"), ValueError, "spectral_vectors: `where` must select"),
    (lambda: rp.spectral_vectors(PARAMS, 3), TypeError, "spectral_vectors: `key` must be one PRNG key.*got 3"),
    (lambda: rp.power_iteration(PARAMS, OTHER), ValueError, r"power_iteration: `vectors` must be those of.*got shape \[9\] at 'dense/kernel'.*\[6, 5\].*spectral_vectors"),
    (lambda: rp.power_iteration(PARAMS, {"x": jnp.ones(3)}), ValueError, "got shape .* at 'x', where the parameters have no such leaf"),
    (lambda: rp.power_iteration(PARAMS, {}), ValueError, "`vectors` must hold unit vectors, got {}"),
    (lambda: rp.power_iteration(PARAMS, VECTORS, 0), ValueError, "power_iteration: `steps` must be an integer of at least 1, got 0"),
    (lambda: rp.spectral_normalized(PARAMS, OTHER), ValueError, "spectral_normalized: `vectors` must be those"),
    (lambda: rp.spectral_normalized(PARAMS, VECTORS, 0.0), ValueError, "spectral_normalized: `bound` must be > 0, got 0"),
    (lambda: rp.spectral_normalized(PARAMS, VECTORS, jnp.ones(2)), ValueError, "`bound` must be one number"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "match"), BAD)
def test_what_is_refused(call, error, match):
    with pytest.raises(error, match=match):
        call()
