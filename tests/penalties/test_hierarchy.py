"""The hierarchy of a skip layer and a hidden one, against a grid of sizes and least squares."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import nnls
from support.programs import solve

import jaxreg as jr

pytestmark = pytest.mark.formulas

close = np.testing.assert_allclose
POINTS = np.random.default_rng(3).normal(size=(2, 12))
LAM, STEP = 0.6, 0.7
STEPS = np.random.default_rng(4).uniform(0.2, 2, 12)


@pytest.fixture(autouse=True)
def _double_precision():
    with jax.enable_x64(True):
        yield


NET = {"layer": POINTS.reshape(4, 6)[:, :3] * 2, "skip": POINTS.reshape(4, 6)[:, 4:]}
GRID = np.linspace(0, 8, 80001)


def by_grid(v, u, lam, M, steps):
    """The best size of one feature's skip weights, and the two leaves that go with it."""
    size = np.linalg.norm(v)
    cut = np.clip(u[:, None], -M * GRID, M * GRID) - u[:, None]
    cost = lam * GRID + (GRID - size) ** 2 / (2 * steps[0])
    best = GRID[np.argmin(cost + np.sum(cut**2 / (2 * steps[1][:, None]), 0))]
    return v / size * best, np.clip(u, -M * best, M * best)


@pytest.mark.parametrize("M", [0.0, 0.5, 10.0])
def test_the_hierarchy_is_solved_as_a_grid_of_sizes_solves_it(M):
    reg = jr.hierarchical(0.8, M, skip="skip", layer="layer")
    params = jax.tree.map(jnp.asarray, NET)
    ones = np.ones((4, 3))
    uneven = {"layer": 0.3 + ones * STEPS[:3], "skip": STEPS[:4, None]}
    for step in (0.7, uneven):
        near = reg.prox(params, step)
        pairs = (
            (0.7 * np.ones((4, 1)), 0.7 * ones) if step == 0.7 else (step["skip"], step["layer"])
        )
        for j in range(4):
            steps = pairs[0][j, 0], pairs[1][j]
            skip, layer = by_grid(NET["skip"][j], NET["layer"][j], 0.8, M, steps)
            close(near["skip"][j], skip, atol=3e-4)
            close(near["layer"][j], layer, atol=3e-4 * max(M, 1))


def test_the_hierarchy_charges_the_skip_weights_and_forbids_layers_beyond_them():
    reg = jr.hierarchical(0.8, 2.0, skip="skip", layer="layer")
    skip = np.linalg.norm(NET["skip"], axis=1)
    layer = 2 * skip[:, None] * np.array([1.0, -1.0, 0.3])
    inside = {"skip": jnp.asarray(NET["skip"]), "layer": jnp.asarray(layer)}
    close(reg(inside), 0.8 * skip.sum(), rtol=1e-12)
    outside = inside | {"layer": inside["layer"].at[2, 1].mul(1.01)}
    assert reg(outside) == np.inf
    slope = jax.grad(reg)(inside)
    close(slope["skip"], 0.8 * NET["skip"] / skip[:, None], rtol=1e-9)
    assert (slope["layer"] == 0).all()


def test_a_feature_leaves_both_leaves_together_and_others_are_untouched():
    reg = jr.hierarchical(2.0, 0.5, skip="skip", layer="layer")
    params = jax.tree.map(jnp.asarray, NET) | {"bias": jnp.ones(3)}
    near = reg.prox(params, 1.5)
    gone = np.asarray(near["skip"] == 0).all(1)
    assert 0 < gone.sum() < 4
    assert (gone == np.asarray(near["layer"] == 0).all(1)).all()
    assert near["bias"] is params["bias"]
    assert reg.support(params) == [False, True, True]


def nearest_slope(skip, layer, pull, lam, M):
    """grad + slope of least norm at one feature, as a nonnegative least-squares problem."""
    n, k = len(skip), len(layer)
    if (skip == 0).all():  # an oblique cone over the ball: a by SLSQP, c split in two signs

        def goal(z):
            off = np.append(z[:n], z[n : n + k] - z[n + k :]) + pull
            return 0.5 * off @ off, np.concatenate([off, -off[n:]])

        slope = np.append(np.zeros(n), np.full(2 * k, -M))

        def left(z):
            return lam - M * z[n:].sum() - np.linalg.norm(z[:n])

        def fall(z):
            return slope - np.append(z[:n] / max(np.linalg.norm(z[:n]), 1e-300), np.zeros(2 * k))

        sides = [(None, None)] * n + [(0, None)] * (2 * k)
        z = solve(goal, np.append(1e-3 * pull[:n], np.zeros(2 * k)), [(left, fall)], sides)
        return np.append(z[:n], z[n : n + k] - z[n + k :]) + pull
    size = np.linalg.norm(skip)
    held = [i for i in range(k) if np.isclose(abs(layer[i]), M * size)]
    free = pull + lam * np.append(skip / size, np.zeros(k))
    normals = [
        np.append(-M * skip / size, sign * np.eye(k)[i])
        for i in held
        for sign in ([np.sign(layer[i])] if M > 0 else [1, -1])
    ]
    if not normals:
        return free
    return free + np.transpose(normals) @ nnls(np.transpose(normals), -free)[0]


def at_the_edge(M, seed, outputs=2):
    """Features that are 0, inside their bounds, at one of them, and at all; with gradients."""
    rng = np.random.default_rng(seed)
    skip = rng.normal(size=(5, outputs)) * np.array([0, 0, 1, 1, 1])[:, None]
    share = rng.uniform(-0.9, 0.9, (5, 3))
    share[3, 1] = -1
    share[4] = rng.choice([-1.0, 1.0], 3)
    layer = M * np.linalg.norm(skip, axis=1, keepdims=True) * share
    pull = {"layer": rng.normal(size=(5, 3)), "skip": rng.normal(size=(5, outputs))}
    pull["skip"][0] *= 0.05  # the layer alone pulls, and so it stays or goes by M
    return {"layer": layer, "skip": skip}, pull


@pytest.mark.parametrize("M", [0.0, 0.4, 3.0])
def test_the_slope_left_of_the_hierarchy_is_a_least_squares_problem(M):
    found = jax.jit(jr.hierarchical(0.8, M, skip="skip", layer="layer").min_norm_subgradient)
    for seed in range(4):
        params, pull = at_the_edge(M, seed)
        rest = found(params, pull)
        for j in range(5):
            both = np.append(pull["skip"][j], pull["layer"][j])
            expected = nearest_slope(params["skip"][j], params["layer"][j], both, 0.8, M)
            # SLSQP is good to 1e-6.
            atol = 1e-5 if (params["skip"][j] == 0).all() else 1e-9
            close(np.append(rest["skip"][j], rest["layer"][j]), expected, atol=atol)


def test_no_way_out_falls_faster_than_the_slope_left_of_the_hierarchy():
    """-grad + rest is a slope: along no curve in the set does L + R fall by more than rest allows."""
    lam, M, h = 0.8, 1.5, 1e-6
    reg, rng = jr.hierarchical(lam, M, skip="skip", layer="layer"), np.random.default_rng(8)
    params, pull = at_the_edge(M, 1)
    rest = reg.min_norm_subgradient(params, pull)
    slope = jax.tree.map(lambda r, g: np.asarray(r - g), rest, pull)
    start = float(reg(params))
    for _ in range(200):
        way = jax.tree.map(lambda x: rng.normal(size=x.shape), params)
        skip = params["skip"] + h * way["skip"]
        reach = M * np.linalg.norm(skip, axis=1, keepdims=True)
        layer = np.clip(params["layer"] + 3 * h * way["layer"], -reach, reach)
        moved = {"layer": layer, "skip": skip}
        first = sum(np.sum(slope[n] * (moved[n] - params[n])) for n in moved)
        rise = lam * np.linalg.norm(skip, axis=1).sum() - start
        assert rise - first >= -1e-4 * h


@pytest.mark.parametrize(("dtype", "size"), [(np.float64, 1e-9), (np.float32, 1e-5)])
def test_the_certificate_of_the_hierarchy_is_zero_at_the_prox_and_not_beside_it(dtype, size):
    reg = jr.hierarchical(0.8, 1.5, skip="skip", layer="layer")
    distance = jax.jit(reg.subdiff_distance)
    weak = np.array([[1], [0.1], [1], [0.1]])
    x = {name: jnp.asarray(weak * leaf, dtype) for name, leaf in NET.items()}
    near = reg.prox(x, STEP)
    assert 0 < np.asarray(near["skip"] == 0).all(1).sum() < 4
    pull = jax.tree.map(lambda z, v: (z - v) / STEP, near, x)
    assert distance(near, pull) <= size
    aside = jax.tree.map(lambda z: 1.05 * z, near)
    assert distance(aside, jax.tree.map(lambda z, v: (z - v) / STEP, aside, x)) > 0.01
    outside = near | {"layer": near["layer"] + 5.0}
    gone = {"layer": jnp.full((4, 3), 0.1), "skip": jnp.zeros((4, 2))}
    assert distance(outside, pull) == distance(gone, pull) == np.inf


@pytest.mark.parametrize("M", [0.0, 0.5, 10.0])
def test_lambda_max_of_the_hierarchy_is_where_the_prox_of_a_step_from_zero_stays(M):
    make = functools.partial(jr.hierarchical, M=M, skip="skip", layer="layer")
    pull = jax.tree.map(jnp.asarray, NET) | {"bias": jnp.ones(3)}
    lam, zero = make(1.0).lambda_max(pull), jax.tree.map(jnp.zeros_like, pull)
    sizes = np.linalg.norm(NET["skip"], axis=1) + M * np.abs(NET["layer"]).sum(1)
    close(lam, sizes.max(), rtol=1e-12)
    for factor, stays in ((1.001, True), (0.999, False)):
        reg = make(factor * lam)
        moved = reg.prox(jax.tree.map(lambda g: -STEP * g, pull), STEP)
        assert bool((moved["skip"] == 0).all()) == stays
        rest = reg.min_norm_subgradient(zero, pull)
        assert bool(np.all(np.abs(rest["skip"]) < 1e-12)) == stays
        assert (rest["bias"] == 1).all(), "it is not the hierarchy's"


def test_bf16_leaves_of_the_hierarchy_are_rounded_once():
    params = {"skip": jnp.array([2.0], jnp.bfloat16), "layer": jnp.array([[3.0]], jnp.bfloat16)}
    near = jr.hierarchical(1.0, 1.0, skip="skip", layer="layer").prox(params, 1.0)
    assert {k: (v.dtype, v.ravel().tolist()) for k, v in near.items()} == {
        "skip": (jnp.bfloat16, [2.0]),
        "layer": (jnp.bfloat16, [2.0]),
    }


# --- refusals ---------------------------------------------------------------------------------------

PAIR = {"skip": jnp.ones((3, 2)), "layer": jnp.ones((3, 4))}


def layered(skip="skip", layer="layer", **kwargs):
    return jr.hierarchical(kwargs.pop("lam", 1.0), skip=skip, layer=layer, **kwargs)


REFUSALS = {
    "no leaf": (lambda: layered(skip="skp")(PAIR), ValueError, "hierarchical: `skip`: .*'skp'"),
    "several leaves": (lambda: layered(layer="*").prox(PAIR, 1.0), ValueError, r"hierarchical: `layer` path\('\*'\) must select one leaf, and it selects \['layer', 'skip'\]"),
    "no selector": (lambda: layered(skip=0), TypeError, "hierarchical: `skip` must be a selector or a glob, got 0"),
    "rows that differ": (lambda: layered()(PAIR | {"skip": jnp.ones(4)}), ValueError, r"`skip` 'skip' has shape \(4,\) and `layer` 'layer' has \(3, 4\); they must be \[features\]"),
    "a layer of rank 3": (lambda: layered()(PAIR | {"layer": jnp.ones((3, 4, 1))}), ValueError, r"has \(3, 4, 1\); they must be"),
    "integers": (lambda: layered()(PAIR | {"layer": jnp.ones((3, 4), int)}), TypeError, "hierarchical: the leaf 'layer' is of dtype int"),
    "complex": (lambda: layered()(PAIR | {"skip": jnp.ones(3, complex)}), TypeError, "the leaf 'skip' is of dtype complex"),
    "many lams": (lambda: layered(lam=jnp.ones(3)), TypeError, "hierarchical: `lam` must be one number, got"),
    "many bounds": (lambda: layered(M=jnp.ones(3)), TypeError, "hierarchical: `M` must be one number, got"),
    "a negative bound": (lambda: layered(M=-1.0), ValueError, "hierarchical: `M` must be >= 0"),
    "steps within a feature": (lambda: layered().prox(PAIR, jax.tree.map(jnp.ones_like, PAIR)), ValueError, "hierarchical: with one step per coordinate .* the prox has no closed form"),
    "no conjugate": (lambda: layered().conjugate(PAIR), ValueError, "hierarchical: the conjugate has no closed form"),
}  # fmt: skip


@pytest.mark.parametrize(("call", "error", "text"), REFUSALS.values(), ids=REFUSALS)
def test_bad_input_is_refused_with_a_remedy(call, error, text):
    with pytest.raises(error, match=text):
        call()
