"""Information criteria against their formulas, and what is no candidate or refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import gammaln
from support.compilations import compilations
from support.minima import PENALTIES, N, P, X, Y, half_square, linear, on, rows, solved, zeros

import jaxreg as jr
from jaxreg.tune.criteria import criteria

KEY = jax.random.key(0)


def test_criteria_are_their_formulas():
    result = solved(half_square, PENALTIES["l1"], [0.02, 0.15])
    found = criteria(linear, result, (X, Y), gamma=1.0)
    w, b = result.params["kernel"][:, 0, 0], result.params["bias"][:, 0, 0]
    squares = ((X @ w.T + b - Y[:, None]) ** 2).sum(0)
    k = (w != 0).sum(1)
    dof = k + 1
    choose = gammaln(P + 1) - gammaln(k + 1) - gammaln(P - k + 1)
    np.testing.assert_allclose(found.aic[:, 0], N * np.log(squares / N) + 2 * dof, rtol=1e-6)
    np.testing.assert_allclose(found.ebic[:, 0], found.bic[:, 0] + 2 * choose, rtol=1e-6)
    noise = np.sqrt(squares[0] / (N - dof[0]))
    assert found.noise == pytest.approx(noise, rel=1e-6), (
        "of the model of the most degrees of freedom"
    )
    np.testing.assert_allclose(
        found.cp[:, 0], squares / noise**2 - N + 2 * dof, rtol=1e-6, atol=1e-6
    )
    given = criteria(linear, result, (X, Y), noise=0.7)
    np.testing.assert_allclose(given.aic[:, 0], squares / 0.49 + 2 * dof, rtol=1e-6)
    np.testing.assert_allclose(given.cp[:, 0], squares / 0.49 - N + 2 * dof, rtol=1e-6, atol=1e-6)


def test_the_loss_may_be_the_square_or_its_mean_over_outputs():
    y = np.stack([Y, -2 * Y + X[:, 0]], 1)
    half = solved(half_square, PENALTIES["l2"], [0.1], y=y, m=2)
    mean = lambda p, x, y: jnp.mean((linear(p, x) - y) ** 2)
    square = lambda p, x, y: 2 * half_square(p, x, y)
    found = criteria(linear, half, (X, y))
    for loss, scale in ((square, 2.0), (mean, 1.0)):
        make = on(lambda lam, scale=scale: jr.l2(scale * lam))
        other = criteria(linear, solved(loss, make, [0.1], y=y, m=2, rate=0.1), (X, y))
        np.testing.assert_allclose(other.dof, found.dof, rtol=1e-6)
        np.testing.assert_allclose(other.bic, found.bic, rtol=1e-6)


def test_a_model_that_fits_its_own_noise_is_no_candidate():
    x, y = rows(n=20)
    result = solved(half_square, PENALTIES["l2"], [1e-3, 0.1, 3.0], x, y)
    found = criteria(linear, result, (x, y))
    assert np.isnan(found.bic[0, 0])
    assert found.dof[0, 0] > 10
    assert "fits its noise" in found.odd[0, 0]
    assert found.best("aic").index != 0
    assert np.isfinite(criteria(linear, result, (x, y), noise=0.5).bic).all(), (
        "where the noise is known"
    )
    wide = criteria(
        linear,
        solved(half_square, PENALTIES["l2"], [1e-3, 0.1, 3.0], x[:14], y[:14]),
        (x[:14], y[:14]),
    )
    with pytest.raises(ValueError, match=r"`by` must be 'aic', 'bic' or 'ebic'.*got 'cp'.*noise="):
        wide.best("cp")


def test_the_choice_and_the_table_read_well():
    lams = [0.02, 0.15, 0.4]
    found = criteria(linear, solved(half_square, PENALTIES["l1"], lams), (X, Y))
    choice = found.best()
    assert (choice.rule, choice.metric) == ("bic", "BIC")
    assert choice.index == int(np.argmin(found.bic[:, 0]))
    assert choice.coords == {"lam": lams[choice.index]}
    assert choice.mean == pytest.approx(found.bic.min())
    assert np.isnan(choice.stderr)
    assert f"{found.dof[choice.index, 0]:.4g} degrees of freedom" in choice.why
    assert any("is the smallest of the grid" in w for w in found.best("aic").warnings)
    text = repr(found)
    assert all(
        word in text for word in ("dof", "AIC", "EBIC", "Cp", f"BIC: lam={lams[choice.index]}")
    )


def test_penalties_of_several_kinds_are_judged_together():
    parts = {
        name: solved(half_square, PENALTIES[name], [0.1, 0.3]) for name in ("l1", "fused lasso")
    }
    joined = criteria(linear, jr.SweepResult.join(parts), (X, Y))
    alone = np.concatenate([criteria(linear, r, (X, Y)).bic for r in parts.values()])
    np.testing.assert_array_equal(joined.bic, alone)
    assert joined.best().coords["sweep"] in parts


# --- trainings ----------------------------------------------------------------------------------------------


X32, Y32 = (a.astype(np.float32) for a in rows(60))
DATA, OTHER = (X32[:40], Y32[:40]), (X32[40:], Y32[40:])


def trainer(point):
    tx = jr.proximal(optax.trace(0.9), point["reg"].on(jr.kernels), point["rate"])
    return jr.Trainer(lambda key: zeros(), half_square, tx)


def by_adam(point):
    tx = optax.chain(
        jr.add_penalty_gradient(point["reg"].on(jr.kernels)), optax.adam(point["rate"])
    )
    return jr.Trainer(lambda key: zeros(), half_square, tx)


GRID = jr.grid(
    lambda lam, rate: {"reg": jr.l1(lam), "rate": rate}, lam=[0.03, 0.1, 0.3], rate=[0.05]
)


def swept(trainer=trainer, grid=GRID, steps=800, **options):
    given = {
        "validation": OTHER,
        "evals": 1,
        "key": KEY,
        "progress": False,
        "keep_params": True,
    } | options
    return jr.sweep(trainer, grid, DATA, steps=steps, **given)


def of(point):
    return point["reg"].on(jr.kernels)


@functools.cache
def trained():
    return swept(seeds=2)


def test_a_sweep_in_float32_ends_where_the_minimum_is():
    found = criteria(linear, trained(), DATA, penalty=of)
    exact = solved(half_square, PENALTIES["l1"], [0.03, 0.1, 0.3], *DATA)
    told = criteria(linear, exact, DATA)
    np.testing.assert_allclose(found.dof, np.repeat(told.dof, 2, 1), rtol=1e-5)
    np.testing.assert_allclose(found.bic, np.repeat(told.bic, 2, 1), rtol=1e-4)
    assert found.best().lane_steps == 3 * 2 * 800


def test_lanes_that_are_no_minimum_are_no_candidates():
    short = swept(steps=8)
    with pytest.raises(
        ValueError,
        match=r"criteria: `result` must have lanes.*none.*from a minimum.*[Tt]rain longer",
    ):
        criteria(linear, short, DATA, penalty=of)
    loose = criteria(linear, short, DATA, penalty=of, tol=1e6)
    assert np.isfinite(loose.bic).all()
    with pytest.raises(
        ValueError, match="from a minimum"
    ):  # its entries come near 0 and never to it
        criteria(linear, swept(by_adam), DATA, penalty=of)
    grid = jr.grid(
        lambda lam, rate: {"reg": jr.l1(lam), "rate": rate}, lam=[0.1], rate=[0.05, 50.0]
    )
    half = criteria(linear, swept(grid=grid), DATA, penalty=of)
    assert np.isfinite(half.bic[:, 0]).tolist() == [True, False]
    assert half.best().warnings == ("1 of 2 lanes are no candidates: point 1, as it diverged.",)


def test_entries_that_are_not_yet_there_are_no_minimum():
    """All at 0, where the loss pulls harder than the penalty holds."""
    start = jax.tree.map(lambda x: np.zeros((1, 1, 1, *x.shape)), zeros())
    start["bias"][:] = Y.mean()
    told = [float(half_square(jax.tree.map(lambda x: x[0, 0, 0], start), X, Y))]
    result = jr.SweepResult.of(jr.grid(PENALTIES["l1"], lam=[0.05]), told, train=told, params=start)
    with pytest.raises(ValueError, match="from a minimum"):
        criteria(linear, result, (X, Y))


def test_another_strength_compiles_nothing():
    results = [solved(half_square, PENALTIES["l1"], [lam]) for lam in (0.05, 0.2)]
    criteria(linear, results[0], (X, Y))
    with compilations() as compiled:
        criteria(linear, results[1], (X, Y))
    assert not compiled


# --- what is refused ------------------------------------------------------------------------------------------


SOLVED = functools.partial(solved, half_square, PENALTIES["l1"], [0.1])
BAD = {
    "outputs": ({"outputs": 3}, TypeError, r"`outputs` must be a function \(params, X\).*got 3"),
    "outputs as a penalty": ({"outputs": jr.l2(0.1)}, TypeError, "`outputs` must be a function.*got"),
    "outputs of one": ({"outputs": lambda p: p}, TypeError, "`outputs` must be a function.*positional"),
    "outputs of no rows": ({"outputs": lambda p, x: p["bias"]}, ValueError, r"each of the 40 rows, got float32\[\]"),
    "not linear": ({"outputs": lambda p, x: linear(p, x) + 0.1 * jnp.sin(p["bias"])}, ValueError,
                   "`outputs` must be linear in the parameters.*sweep with folds"),
    "another model": ({"outputs": lambda p, x: 2 * linear(p, x)}, ValueError, "must give the loss that was trained"),
    "other rows": ({"data": (X[:30], Y[:30])}, ValueError, "must give the loss.*got from `result`"),
    "X alone": ({"data": (X,)}, ValueError, r"`data` must be a pair, \(X, y\).*got 1 parts"),
    "no rows": ({"data": 3}, TypeError, "criteria: `data` must be a tuple"),
    "result": ({"result": "path"}, TypeError, "`result` must be a SweepResult.*got str"),
    "likelihood": ({"likelihood": "normal"}, ValueError, r"`likelihood` must be one of \['bernoulli', .*got 'normal'"),
    "targets": ({"likelihood": "bernoulli"}, ValueError, "'bernoulli' and 1 outputs.*`data` must be"),
    "penalty": ({"penalty": jr.l1(0.1)}, TypeError, "`penalty` must be a function point -> penalty.*got l1"),
    "no penalty": ({"penalty": lambda p: 3}, TypeError, "`penalty` must return a penalty.*got int"),
    "another penalty": ({"penalty": lambda p: jr.l1(0.3).on(jr.kernels)}, ValueError, "from a minimum"),
    "noise": ({"noise": 0.0}, ValueError, "`noise` must be a standard deviation above 0, got 0"),
    "noise in words": ({"noise": "low"}, TypeError, "`noise` must be .*got 'low'"),
    "gamma": ({"gamma": 2}, ValueError, "`gamma` must be a number from 0 to 1, got 2"),
    "tol": ({"tol": True}, TypeError, "`tol` must be a number above 0.*got True"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name):
    more, error, match = BAD[name]
    given = {"outputs": linear, "result": SOLVED(), "data": (X, Y)} | more
    with pytest.raises(error, match=match):
        criteria(**given)


def test_what_else_is_no_result_of_all_rows():
    folds = swept(validation=None, folds=2, steps=2)
    with pytest.raises(ValueError, match="trained on all rows of `data`, and got 2 folds"):
        criteria(linear, folds, DATA)
    with pytest.raises(ValueError, match="must hold parameters, got none.*keep_params=True"):
        criteria(linear, swept(steps=2, keep_params=False), DATA)
    rates = jr.grid(lambda rate: {"rate": rate}, rate=[0.1])
    bare = jr.SweepResult.of(rates, [0.1], train=[0.1], params=SOLVED().params)
    with pytest.raises(ValueError, match="`penalty` must say which penalty.*got None"):
        criteria(linear, bare, (X, Y))
    with pytest.raises(ValueError, match="`noise`.*'gaussian', got 0.1 with 'poisson'"):
        criteria(linear, SOLVED(), (X, Y), likelihood="poisson", noise=0.1)
    with pytest.raises(ValueError, match=r"`by` must be one of \['aic'.*got 'cv'"):
        criteria(linear, SOLVED(), (X, Y)).best("cv")


def test_a_constraint_has_no_known_degrees_of_freedom():
    with pytest.raises(ValueError, match="infinite beside the parameters"):
        criteria(linear, SOLVED(), (X, Y), penalty=lambda reg: reg + jr.nonneg().on(jr.kernels))
