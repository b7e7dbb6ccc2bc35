"""The evidence of trained lanes: exact for ridge, and dense determinants of explicit Hessians for a net."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.linalg import block_diag
from scipy.special import gammaln, softmax
from support.evidences import KEY, LAMS, X, Y, half_square, linear, ridge, solved, swept

import jaxreg as jr
from jaxreg.tune import _laplace
from jaxreg.tune.evidence import evidence

RNG = np.random.default_rng(1)
LABELS = np.where(X[:, 0] > 0, 2, (X[:, 1] > 0) * 1)


# --- linear models, where it is exact ----------------------------------------------------------------


def test_of_a_linear_model_it_is_the_exact_one():
    found = evidence(linear, solved(), (X, Y), likelihood="gaussian")
    exact = jr.ridge_path((X, Y), LAMS, intercept=False)
    np.testing.assert_allclose(found.log_evidence, exact.evidence, rtol=1e-5)
    np.testing.assert_allclose(found.total[:, 0], exact.dof, rtol=1e-5)
    assert np.all(found.decrement < 1e-3)
    assert (found.parameters, found.held) == ({"": 4}, ())
    k = int(exact.evidence.argmax())
    choice = found.best()
    assert (choice.rule, choice.index, choice.point.lam) == ("evidence", k, pytest.approx(LAMS[k]))
    assert choice.mean == pytest.approx(-exact.evidence[k, 0] / 30, rel=1e-5)


def test_with_fewer_rows_than_columns_too():
    """The determinant is then of the side of the rows."""
    x = np.tile(X[:6], (1, 3)) + RNG.normal(size=(6, 12)).astype(np.float32)
    found = evidence(
        linear, ridge(2000, x, Y[:6], rate=0.05, lams=[0.1, 1.0]), (x, Y[:6]), likelihood="gaussian"
    )
    exact = jr.ridge_path((x, Y[:6]), [0.1, 1.0], intercept=False)
    np.testing.assert_allclose(found.log_evidence, exact.evidence, rtol=1e-4)
    np.testing.assert_allclose(found.total[:, 0], exact.dof, rtol=1e-4)


def test_what_training_left_is_told_by_the_decrement():
    """Of a quadratic it is exact, however short the training."""
    lams = [1e-3, 0.03, 1.0]
    found = evidence(linear, ridge(4, lams=lams), (X, Y), likelihood="gaussian")
    exact = jr.ridge_path((X, Y), lams, intercept=False).evidence
    assert np.all(exact - found.log_evidence > 0.01)
    np.testing.assert_allclose(found.log_evidence + found.decrement, exact, rtol=1e-4)
    assert (found.best().index, exact.argmax()) == (1, 0)
    assert (
        "trained on to its mode, lam=0.001 would have the larger evidence"
        in found.best().warnings[-1]
    )


def test_noise_that_is_given_is_that_of_the_normal_density_of_y():
    noise = 0.7
    found = evidence(linear, solved(), (X, Y), likelihood="gaussian", noise=noise)
    for k, lam in enumerate(LAMS):
        wide = noise**2 * (np.eye(30) + X @ X.T / (30 * lam)).astype(np.float64)
        expected = -0.5 * (
            30 * np.log(2 * np.pi) + np.linalg.slogdet(wide)[1] + Y @ np.linalg.solve(wide, Y)
        )
        assert found.log_evidence[k, 0] == pytest.approx(expected, rel=1e-4)
    np.testing.assert_allclose(np.asarray(found.noise), noise)
    learnt = evidence(linear, solved(), (X, Y), likelihood="gaussian")
    assert np.all(learnt.log_evidence > found.log_evidence)


@pytest.mark.parametrize(
    ("loss", "factor"),
    [
        (lambda w, x, y: jnp.mean((x @ w - y) ** 2), 1.0),
        (lambda w, x, y: jnp.mean((x @ w - y) ** 2) / (2 * 0.7**2), 0.5 / 0.7**2),
        (
            lambda w, x, y: jnp.mean((x @ w - y) ** 2 / 0.98 + 0.5 * jnp.log(2 * jnp.pi * 0.49)),
            0.5 / 0.7**2,
        ),
    ],
)
def test_the_unit_of_the_loss_is_found(loss, factor):
    """The same model at λ times 2 factor has the same evidence."""
    result = ridge(loss=loss, lams=[2 * factor * lam for lam in LAMS], rate=0.15 / factor)
    found = evidence(linear, result, (X, Y), likelihood="gaussian", noise=0.7)
    expected = evidence(linear, solved(), (X, Y), likelihood="gaussian", noise=0.7)
    np.testing.assert_allclose(found.log_evidence, expected.log_evidence, rtol=1e-4)


def test_several_outputs_and_a_centre():
    """Two responses are two ridges of one noise; around a centre it is the ridge of what is left."""
    y = np.stack([Y, Y[::-1]], 1)
    loss = lambda w, x, y: 0.5 * jnp.mean((x @ w - y) ** 2)  # the mean over outputs too
    center = RNG.normal(size=(4, 2)).astype(np.float32)
    grid = jr.grid(lambda lam: jr.l2_sp(lam, center), lam=LAMS)
    result = swept(grid, 300, (X, y), loss, lambda key: jnp.zeros((4, 2)), 0.5)
    found = evidence(linear, result, (X, y), likelihood="gaussian", noise=0.5)
    rest = (y - X @ center).astype(np.float64)
    for k, lam in enumerate(LAMS):
        wide = 0.25 * (np.eye(30) + X.astype(np.float64) @ X.T / (30 * 2 * lam))
        fit = sum(r @ np.linalg.solve(wide, r) for r in rest.T)
        expected = -0.5 * (60 * np.log(2 * np.pi) + 2 * np.linalg.slogdet(wide)[1] + fit)
        assert found.log_evidence[k, 0] == pytest.approx(expected, rel=1e-4)


# --- a net, by explicit matrices ---------------------------------------------------------------------


def net(p, x):
    return jnp.tanh(x @ p["in"]["kernel"] + p["in"]["bias"]) @ p["out"]["kernel"]


def start(key):
    a, b = jax.random.split(key)
    kernel = 0.5 * jax.random.normal(a, (4, 5))
    return {
        "in": {"kernel": kernel, "bias": jnp.zeros(5)},
        "out": {"kernel": 0.5 * jax.random.normal(b, (5, 3))},
    }


def entropy(p, x, y):
    return optax.softmax_cross_entropy_with_integer_labels(net(p, x), y).mean()


def by_layer(a, b):
    return jr.l2(a).on("in/kernel") + jr.l2(b).on("out/kernel")


@functools.cache
def classified(rows=30):
    grid = jr.points(by_layer, a=[1e-3, 0.01, 0.1], b=[0.01, 0.01, 0.2])
    return swept(grid, 200, (X[:rows], LABELS[:rows]), entropy, start, seeds=2)


def dense(result, k, s, rows):
    """Log evidence, effective numbers and decrement of `net` by hand, in numpy and float64."""
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), result.lane(k, 0, s))
    x, lam = X[:rows].astype(np.float64), [float(result.coords[name][k]) for name in "ab"]
    out, t = p["out"]["kernel"], np.tanh(x @ p["in"]["kernel"] + p["in"]["bias"])
    inner = np.einsum("ni,nh,hc->ncih", x, 1 - t**2, out).reshape(3 * rows, 20)
    outer = np.einsum("nh,cd->nchd", t, np.eye(3)).reshape(3 * rows, 15)
    j, f = np.concatenate([inner, outer], 1), t @ out
    share = softmax(f, 1)
    bend = block_diag(*(np.diag(q) - np.outer(q, q) for q in share))
    curve, prior = j.T @ bend @ j, rows * np.diag(np.repeat(lam, [20, 15]))
    kernels = np.concatenate([p["in"]["kernel"].ravel(), out.ravel()])
    grad = j.T @ (share - np.eye(3)[LABELS[:rows]]).ravel() + prior @ kernels
    whole = curve + prior
    value = np.log(share[np.arange(rows), LABELS[:rows]]).sum() - 0.5 * kernels @ prior @ kernels
    value -= 0.5 * (np.linalg.slogdet(whole)[1] - np.linalg.slogdet(prior)[1])
    effective = np.diag(np.linalg.solve(whole, curve))
    rest = 0.5 * grad @ np.linalg.solve(whole, grad)
    return value, effective[:20].sum(), effective[20:].sum(), rest


@pytest.mark.parametrize("rows", [30, 6])  # 90 and 18 outputs for 35 parameters
def test_of_a_net_it_is_that_of_explicit_matrices(rows):
    result = classified(rows)
    found = evidence(net, result, (X[:rows], LABELS[:rows]))
    assert found.log_evidence.shape == (3, 2)
    for k, s in np.ndindex(3, 2):
        value, inner, outer, rest = dense(result, k, s, rows)
        assert found.log_evidence[k, s] == pytest.approx(value, rel=1e-5)
        assert found.effective["in/kernel"][k, s] == pytest.approx(inner, rel=1e-4)
        assert found.effective["out/kernel"][k, s] == pytest.approx(outer, rel=1e-4)
        assert found.decrement[k, s] == pytest.approx(rest, rel=1e-3, abs=1e-5)
    np.testing.assert_allclose(
        found.total, found.effective["in/kernel"] + found.effective["out/kernel"]
    )
    assert found.parameters == {"in/kernel": 20, "out/kernel": 15}
    assert found.held == ("in/bias",)


@pytest.mark.parametrize("rows", [30, 6])
def test_parts_of_rows_and_of_leaves_make_the_same(rows, monkeypatch):
    whole = evidence(net, classified(rows), (X[:rows], LABELS[:rows]))
    monkeypatch.setattr(_laplace, "_NUMBERS", 1)  # a leaf at a time
    parts = evidence(net, classified(rows), (X[:rows], LABELS[:rows]), batch_size=4)
    np.testing.assert_allclose(parts.log_evidence, whole.log_evidence, rtol=1e-6)
    np.testing.assert_allclose(parts.total, whole.total, rtol=1e-6)
    np.testing.assert_allclose(parts.decrement, whole.decrement, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("likelihood", ["bernoulli", "poisson"])
def test_other_likelihoods_are_those_of_explicit_matrices(likelihood):
    y = ((Y > 0) if likelihood == "bernoulli" else np.arange(30) % 4).astype(np.float32)
    part = jax.nn.softplus if likelihood == "bernoulli" else jnp.exp
    loss = lambda w, x, y: jnp.mean(part(x @ w) - y * (x @ w))
    result = ridge(loss=loss, y=y, rate=0.1)
    found = evidence(lambda w, x: (x @ w)[:, None], result, (X, y), likelihood=likelihood)
    for k, lam in enumerate(LAMS):
        w = np.asarray(result.lane(k), np.float64)
        f = X @ w
        mean = 1 / (1 + np.exp(-f)) if likelihood == "bernoulli" else np.exp(f)
        bend = mean * (1 - mean) if likelihood == "bernoulli" else mean
        fit = float(loss(w, X, y)) * 30 + 0.5 * 30 * lam * w @ w
        fit += gammaln(y + 1).sum() if likelihood == "poisson" else 0
        det = np.linalg.slogdet(np.eye(4) + X.T @ (bend[:, None] * X) / (30 * lam))[1]
        assert found.log_evidence[k, 0] == pytest.approx(-fit - 0.5 * det, rel=1e-4)


# --- what it says ------------------------------------------------------------------------------------


def test_the_choice_says_why_and_warns_of_an_end():
    found = evidence(net, classified(), (X, LABELS))
    choice = found.best()
    assert "the maximum of the evidence over 3 points" in choice.why
    assert "of 35 parameters effective" in choice.why
    assert choice.lane_steps == 3 * 2 * 200
    short = evidence(linear, ridge(lams=[0.3, 1.0]), (X, Y), likelihood="gaussian").best()
    assert short.warnings == (
        "lam=0.3 is the smallest of the grid; a smaller one may be better.",
        "the evidence has no maximum inside of the grid; extend it.",
    )
    text = repr(found)
    for part in (
        "log evidence",
        "out/kernel",
        "without a prior: in/bias",
        "means over 2 seeds",
        "best: a=",
    ):
        assert part in text
    assert found.table().rows[1]["a"] == 0.01


def test_no_strength_is_no_evidence():
    """Its limit as λ goes to 0, which no point with a prior is below."""
    found = evidence(linear, ridge(lams=[0.0, 1e-3, 0.03]), (X, Y), likelihood="gaussian")
    assert np.isneginf(found.log_evidence[0]).all()
    exact = jr.ridge_path((X, Y), [1e-3, 0.03], intercept=False).evidence
    np.testing.assert_allclose(found.log_evidence[1:], exact, rtol=1e-5)
    assert "a strength is 0 at 1 of 3 points" in repr(found)
    with pytest.raises(ValueError, match="is 0 at every point, so there is no prior"):
        evidence(linear, ridge(lams=[0.0]), (X, Y), likelihood="gaussian")


def test_a_lane_that_diverged_is_no_candidate():
    grid = jr.grid(lambda lam, lr: {"reg": jr.l2(lam), "lr": lr}, lam=[0.01, 0.1], lr=[0.1, 1e3])

    def trainer(p):
        tx = optax.chain(jr.add_penalty_gradient(p["reg"]), optax.scale(-1.0 * p["lr"]))
        return jr.Trainer(lambda key: jnp.zeros(4), half_square, tx)

    options = {"validation": (X[:2] + 1, Y[:2]), "steps": 200, "key": KEY, "progress": False}
    result = jr.sweep(trainer, grid, (X, Y), **options)
    found = evidence(linear, result, (X, Y), likelihood="gaussian")
    assert np.isnan(found.log_evidence[:, 0]).tolist() == [False, True, False, True]
    assert found.best().coords["lr"] == pytest.approx(0.1)
    alone = evidence(linear, result, (X, Y), likelihood="gaussian", penalty=lambda p: p["reg"])
    np.testing.assert_array_equal(alone.log_evidence, found.log_evidence)


def test_it_compares_sweeps_of_other_widths():
    narrow = ridge(x=X[:, :2])
    both = jr.SweepResult.join([solved(), narrow], columns=[4, 2])
    outputs = lambda w, x: x[:, : len(w)] @ w
    found = evidence(outputs, both, (X, Y), likelihood="gaussian")
    parts = [jr.ridge_path((x, Y), LAMS, intercept=False).evidence for x in (X, X[:, :2])]
    np.testing.assert_allclose(found.log_evidence, np.concatenate(parts), rtol=1e-5)


def test_other_strengths_compile_nothing():
    from support.compilations import compilations

    data = (X, Y)
    evidence(linear, ridge(), data, likelihood="gaussian")
    other = ridge(lams=[0.002, 0.2, 2.0])
    with compilations() as compiled:
        evidence(linear, other, data, likelihood="gaussian")
    assert not list(compiled)
