"""Every score is the user's own function of the fold's rows, or it is refused."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.linear_model import Ridge
from sklearn.model_selection import KFold, LeaveOneGroupOut, RepeatedKFold, TimeSeriesSplit

import jaxreg as jr
from jaxreg.fit import judge
from jaxreg.fit.batches import BatchStream, normalized
from jaxreg.fit.judge import find_ways
from jaxreg.fit.splits import make_splits
from jaxreg.fit.trainer import takes_weights

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
N, D = 40, 4
X = RNG.normal(size=(N, D)).astype("f")
Y = (X @ np.array([2, -1, 0.5, 0]) + RNG.normal(size=N)).astype("f")
B = (Y > 0.3).astype("f")
W = RNG.random(N).astype("f")
GROUPS = RNG.integers(0, 5, N)


def mse(p, x, y):
    return 0.5 * jnp.mean((x @ p - y) ** 2)


def made(loss, metrics=None, lr=0.1, **kwargs):
    def trainer(reg):
        tx = optax.chain(jr.add_penalty_gradient(reg), optax.sgd(lr))
        return jr.Trainer(lambda key: jnp.zeros(D), loss, tx, metrics or {}, **kwargs)

    return trainer


# --- what kind of function it is --------------------------------------------------------------------


def logistic(p, x, y):
    return optax.sigmoid_binary_cross_entropy(x @ p, y).mean()


def f1(p, x, y):
    told = x @ p > 0
    return 2 * jnp.sum(told * y) / jnp.maximum(jnp.sum(told) + jnp.sum(y), 1)


def pairwise(p, x, y):
    margin = (x @ p)[:, None] - (x @ p)[None]
    return jnp.sum((margin > 0) * (y[:, None] > y[None])) / jnp.sum(y[:, None] > y[None])


KINDS = {
    "mean of squares": (mse, (X, Y), "rows"),
    "mean of logistic losses": (logistic, (X, B), "rows"),
    "mean(w l)": (lambda p, x, y, w: jnp.mean(w * (x @ p - y) ** 2), (X, Y, W), "rows"),
    "accuracy": (lambda p, x, y: jnp.mean((x @ p > 0) == (y > 0)), (X, B), "rows"),
    "a norm of the parameters": (lambda p, x, y: jnp.sum(p**2), (X, Y), "whole"),
    "root": (lambda p, x, y: jnp.sqrt(jnp.mean((x @ p - y) ** 2)), (X, Y), "whole"),
    "root of signs": (lambda p, x, y: jnp.sqrt(jnp.mean((x @ p - y) ** 2)), (X, 2 * B - 1), "whole"),
    "sum(w l) / sum(w)": (
        lambda p, x, y, w: jnp.sum(w * (x @ p - y) ** 2) / jnp.sum(w), (X, Y, W), "whole"
    ),
    "mean(w l) / mean(w)": (
        lambda p, x, y, w: jnp.mean(w * (x @ p - y) ** 2) / jnp.mean(w), (X, Y, W), "whole"
    ),
    "mean(w l) / mean(w), w [n, 1]": (
        lambda p, x, y, w: jnp.mean(w[:, 0] * (x @ p - y) ** 2) / jnp.mean(w), (X, Y, W[:, None]), "whole"
    ),
    "a ratio of means": (lambda p, x, y: jnp.mean(x @ p) / jnp.mean(y), (X, Y), "whole"),
    "a ratio of labels": (lambda p, x, y: jnp.std(y) / jnp.mean(y), (X, Y), "whole"),
    "columns": (lambda p, x, y: jnp.sqrt(jnp.mean((x @ p[:, None] - y) ** 2)), (X, Y[:, None]), "whole"),
    "one weight differs": (
        lambda p, x, y, w: jnp.sum(w * (x @ p - y) ** 2) / jnp.sum(w),
        (X, Y, np.where(np.arange(N) == 17, 9.0, 1.0).astype("f")),
        "whole",
    ),
    "R2": (
        lambda p, x, y: 1 - jnp.sum((x @ p - y) ** 2) / jnp.sum((y - y.mean()) ** 2), (X, Y), "whole"
    ),
    "F1": (f1, (X, B), "whole"),
    "F1 of rare positives": (f1, (X, (np.arange(N) == 3).astype("f")), "whole"),
    "pairwise": (pairwise, (X, Y), "whole"),
    "median": (lambda p, x, y: jnp.median(jnp.abs(x @ p - y)), (X, Y), "whole"),
    "largest": (lambda p, x, y: jnp.max(jnp.abs(x @ p - y)), (X, Y), "whole"),
    "perplexity": (lambda p, x, y: jnp.exp(logistic(p, x, y)), (X, B), "whole"),
    "needs two rows": (lambda p, x, y: jnp.mean((x @ p - y)[1:]), (X, Y), "whole"),
    "takes weights": (jr.metrics.r2.of(lambda p, x: x @ p), (X, Y), "weights"),
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_the_kind_of_a_function_is_found(name):
    fn, data, way = KINDS[name]
    loss = lambda p, x, *rest: jnp.mean((x @ p - rest[0].ravel()) ** 2)
    ways = dict(find_ways("sweep", made(loss, {"m": fn}), jr.l2(0.1), data, KEY))
    assert ways == {"loss": "rows", "m": way}


@pytest.mark.parametrize("name", [k for k, v in KINDS.items() if k != "takes weights"])
def test_slices_and_weightings_of_a_mean_are_the_function_itself(name, monkeypatch):
    fn, data, way = KINDS[name]
    loss = lambda p, x, *rest: jnp.mean((x @ p - rest[0].ravel()) ** 2)
    trainer = made(loss, {"m": fn})(jr.l2(0.1))
    state = trainer.start(KEY)._replace(params=jnp.array([1.0, -0.5, 0.2, 0.1]))
    monkeypatch.setattr(judge, "_SLICE", 7)
    rows = np.arange(N) % 3 == 0
    ways = (("m", way),)
    split = np.stack([rows, ~rows], 1).astype("f")
    if way == "rows":
        got = judge.by_weights(trainer, state, jax.tree.map(jnp.asarray, data), split, ways)["m"]
    else:
        parts = [[a[r] for a in data] for r in (rows, ~rows)]
        got = judge.of_rows(trainer, state, parts, ways)["m"]
    want = [fn(state.params, *(a[r] for a in data)) for r in (rows, ~rows)]
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_a_row_of_weight_zero_silences_nan():
    trainer = made(mse)(jr.l2(0.1))
    bad = X.copy()
    bad[0] = np.nan
    w = (np.arange(N) > 0).astype("f")
    state = trainer.start(KEY)
    got = judge.by_weights(trainer, state, (bad, Y), w[:, None], (("loss", "rows"),))["loss"]
    np.testing.assert_allclose(got, [mse(state.params, X[1:], Y[1:])], rtol=1e-5)


# --- what is refused --------------------------------------------------------------------------------


REFUSED = {
    "a sum": (
        lambda p, x, y: jnp.sum((x @ p - y) ** 2), (X, Y),
        r"the loss is a sum over the rows .* jnp.mean\(...\) where it has jnp.sum",
    ),
    "a weighted sum": (lambda p, x, y, w: jnp.sum(w * (x @ p - y) ** 2), (X, Y, W), "is a sum"),
    "labels [n, 1]": (
        mse, (X, Y[:, None]),
        r"the loss broadcasts data\[1\] of shape \[n, 1\] against predictions of shape \[n\].*data\[1\]\[:, 0\]",
    ),
    "labels [n]": (
        lambda p, x, y: jnp.mean((x @ p[:, None] - y) ** 2), (X, Y),
        r"data\[1\] of shape \[n\] against predictions of shape \[n, 1\].*data\[1\]\[:, None\]",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_losses_that_are_no_mean_by_mistake_are_named(name):
    loss, data, match = REFUSED[name]
    with pytest.raises(ValueError, match="fit: .*" + match):
        jr.fit(made(loss), jr.l2(0.1), data, steps=2, key=KEY)
    with pytest.raises(ValueError, match="sweep: .*" + match):
        sweep(made(loss), data)


BROADCAST = {
    "root": lambda p, x, y: jnp.sqrt(jnp.mean((x @ p - y) ** 2)),
    "R2": lambda p, x, y: 1 - jnp.mean((x @ p - y) ** 2) / jnp.var(y),
    "median": lambda p, x, y: jnp.median(jnp.abs(x @ p - y)),
    "accuracy": lambda p, x, y: jnp.mean((x @ p > 0) == (y > 0)),
}


@pytest.mark.parametrize("name", BROADCAST)
def test_a_metric_that_broadcasts_is_named_though_the_loss_does_not(name):
    loss = lambda p, x, y: jnp.mean((x @ p - y[:, 0]) ** 2)
    with pytest.raises(ValueError, match=r"the metric 'm' broadcasts data\[1\] of shape \[n, 1\]"):
        sweep(made(loss, {"m": BROADCAST[name]}), (X, Y[:, None]))


def test_a_training_loss_beside_another_one_for_evaluation_is_probed_too():
    trainer = made(lambda p, x, y: jnp.sum((x @ p - y) ** 2), eval_loss=mse)
    with pytest.raises(ValueError, match="the loss is a sum over the rows"):
        sweep(trainer, (X, Y))


@pytest.mark.parametrize(
    ("loss", "error", "match"),
    [
        (lambda p, x, y: (mse(p, x, y), x), TypeError, "the loss must return a scalar, got a tuple of 2"),
        (lambda p, x, y: (x @ p - y) ** 2, ValueError, r"the loss must return a scalar, got shape \[32\]"),
    ],
)  # fmt: skip
def test_a_loss_that_is_no_number_is_named(loss, error, match):
    with pytest.raises(error, match=match):
        sweep(made(loss), (X, Y))


# --- sweeps -----------------------------------------------------------------------------------------


def sweep(trainer, data, lams=(0.001, 0.3), folds=5, steps=30, **kwargs):
    grid = jr.grid(jr.l2, lam=list(lams))
    return jr.sweep(
        trainer, grid, data, folds=folds, steps=steps, key=KEY, progress=False, evals=1, **kwargs
    )


def rmse(p, x, y):
    return jnp.sqrt(jnp.mean((x @ p - y) ** 2))


def ratio(p, x, y, w):
    return jnp.sum(w * 0.5 * (x @ p - y) ** 2) / jnp.sum(w)


LOSSES = {"mse": (mse, 2), "weighted": (ratio, 3), "root": (rmse, 2)}
METRICS = {
    "rmse": rmse,
    "mae": lambda p, x, y: jnp.mean(jnp.abs(x @ p - y)),
    "largest": lambda p, x, y: jnp.max(jnp.abs(x @ p - y)),
    "pairwise": pairwise,
    "r2": jr.metrics.r2.of(lambda p, x: x @ p),
    "weighted": lambda p, x, y, sample_weight: (
        jnp.sum(sample_weight * jnp.abs(x @ p - y)) / jnp.sum(sample_weight)
    ),
}
FOLDS = {
    "three": 3,
    "unequal": np.arange(N) % 7 // 3,
    "groups": list(LeaveOneGroupOut().split(X, Y, GROUPS)),
    "in time": list(TimeSeriesSplit(3).split(X)),
    "repeated": list(RepeatedKFold(n_splits=4, n_repeats=2, random_state=0).split(X)),
}


@pytest.mark.parametrize("case", range(40))
def test_a_score_is_the_users_function_of_the_folds_rows_or_refused(case):
    rng = np.random.default_rng(case)
    pick = lambda options: list(options)[rng.integers(len(options))]
    loss, n_arrays = LOSSES[pick(LOSSES)]
    metric = METRICS[pick(METRICS)]
    plain = n_arrays == 2
    metrics = {"m": metric if plain else _of_four(metric)}
    folds = FOLDS[pick(FOLDS)]
    weights = pick([None, None, W, np.where(W > 0.3, W, 0)])
    batch_size = pick([None, 8])
    data = (X, Y, W)[:n_arrays]
    try:
        result = sweep(
            made(loss, metrics), data, folds=folds, sample_weight=weights, batch_size=batch_size
        )
    except ValueError as error:
        refused = str(error)
    else:
        refused = ""
    cannot = (loss is not mse and (weights is not None or batch_size is None)) or (
        weights is not None and metric in (METRICS["rmse"], METRICS["largest"], pairwise)
    )
    if refused:
        assert cannot
        assert "an argument `sample_weight`" in refused
        return
    for k in range(2):
        for f, (_, valid) in enumerate(_pairs(folds)):
            params = result.lane(k, f)
            rows = [a[valid] for a in data]
            w = None if weights is None else weights[valid]
            for name, fn in {"loss": loss, **metrics}.items():
                want = _by_hand(fn, params, rows, w)
                got = result.valid[name][k, f, 0, -1]
                np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def _of_four(metric):
    """The same with a column of weights in the data, which it does not use."""
    if takes_weights(metric):
        return lambda p, x, y, w, sample_weight: metric(p, x, y, sample_weight=sample_weight)
    return lambda p, x, y, w: metric(p, x, y)


def _pairs(folds):
    table = make_splits(folds, N, 0, KEY).table
    return [
        (table.rows[f][:c], np.flatnonzero(table.times[f, :, 1])) for f, c in enumerate(table.count)
    ]


def _by_hand(fn, params, rows, w):
    """The function itself where rows count alike; else the weighted mean of its values for single rows."""
    if takes_weights(fn):
        ones = np.ones(len(rows[0])) if w is None else w
        return fn(params, *rows, sample_weight=jnp.asarray(ones / ones.mean()))
    if w is None:
        return fn(params, *rows)
    each = [fn(params, *(a[i : i + 1] for a in rows)) for i in range(len(rows[0]))]
    return np.average(each, weights=w)


def test_weights_of_a_loss_choose_what_the_weighted_score_chooses():
    """The case in which a loss that was judged unweighted took λ = 1 where 0.001 is best."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(240, 4)).astype("f")
    g = rng.random(240) < 0.25
    y = np.where(g, 3 * x[:, 1], 3 * x[:, 0]).astype("f") + rng.normal(size=240).astype("f") * 0.3
    w = np.where(g, 9.0, 0.5).astype("f")
    folds = np.arange(240) % 4
    by_loss = sweep(made(ratio, lr=0.05), (x, y, w), (0.001, 0.1, 1.0), folds, steps=300)
    outside = sweep(made(mse, lr=0.05), (x, y), (0.001, 0.1, 1.0), folds, 300, sample_weight=w)
    assert by_loss.best().coords == outside.best().coords == {"lam": pytest.approx(0.001)}
    np.testing.assert_allclose(by_loss.valid["loss"], outside.valid["loss"], rtol=1e-4)
    for k in range(3):
        for f in range(4):
            rows = folds == f
            want = ratio(by_loss.lane(k, f), x[rows], y[rows], w[rows])
            np.testing.assert_allclose(by_loss.valid["loss"][k, f, 0, -1], want, rtol=1e-5)


def test_weighted_training_is_weighted_ridge():
    result = sweep(made(mse, lr=0.3), (X, Y), (0.1,), 4, 400, sample_weight=W)
    for f, (train, _) in enumerate(_pairs(4)):
        ridge = Ridge(0.1 * W[train].sum(), fit_intercept=False)
        ridge.fit(X[train], Y[train], sample_weight=W[train])
        np.testing.assert_allclose(result.lane(0, f), ridge.coef_, atol=1e-5)
    alone = jr.fit(
        made(mse, lr=0.3), jr.l2(0.1), (X, Y), steps=400, key=KEY, sample_weight=W, rows=_pairs(4)[0][0]
    )  # fmt: skip
    np.testing.assert_allclose(alone.params, result.lane(0, 0), atol=1e-6)


def test_minibatches_are_weighted_in_expectation():
    """Over all batches of an epoch the weighted batch losses average to the weighted mean."""
    rows = jnp.arange(N)
    w = normalized(jnp.asarray(W), rows, N)
    stream = BatchStream(rows, N, KEY, 8, 5, N, weights=w)
    batch_at = stream.batches((jnp.asarray(X), jnp.asarray(Y)), 0)
    trainer = made(mse)(jr.l2(0.1))
    state = trainer.start(KEY)._replace(params=jnp.ones(D))
    losses = [trainer.loss_of(state, *batch_at(i)[:1], weights=batch_at(i)[1]) for i in range(5)]
    got = np.mean([loss(state.params)[0] for loss in losses])
    want = np.average(0.5 * (X @ np.ones(D) - Y) ** 2, weights=W)
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_a_loss_that_takes_weights_gets_them():
    def weighted(p, x, y, sample_weight):
        return jnp.mean(sample_weight * 0.5 * (x @ p - y) ** 2)

    outside = sweep(made(mse), (X, Y), sample_weight=W, batch_size=8)
    inside = sweep(made(weighted), (X, Y), sample_weight=W, batch_size=8)
    for split in ("train", "valid"):
        a, b = getattr(inside, split)["loss"], getattr(outside, split)["loss"]
        np.testing.assert_allclose(a, b, rtol=1e-5)
    plain = sweep(made(weighted), (X, Y))
    np.testing.assert_allclose(
        plain.valid["loss"], sweep(made(mse), (X, Y)).valid["loss"], rtol=1e-5
    )


def test_ridge_over_groups_with_full_batches_is_scikit_learns():
    folds = list(LeaveOneGroupOut().split(X, Y, GROUPS))
    result = sweep(made(mse, lr=0.3), (X, Y), (0.1, 1.0), folds, 500)
    for k, lam in enumerate([0.1, 1.0]):
        for f, (train, valid) in enumerate(folds):
            ridge = Ridge(lam * len(train), fit_intercept=False).fit(X[train], Y[train])
            np.testing.assert_allclose(result.lane(k, f), ridge.coef_, atol=1e-5)
            want = 0.5 * np.mean((ridge.predict(X[valid]) - Y[valid]) ** 2)
            np.testing.assert_allclose(result.valid["loss"][k, f, 0, -1], want, rtol=1e-5)


# --- metrics that are undefined ---------------------------------------------------------------------


def test_a_metric_that_is_undefined_is_no_divergence():
    auc = {"auc": jr.metrics.roc_auc.of(lambda p, x: x @ p)}
    by_class = np.where(B > 0, 0, 1 + np.arange(N) % 2)  # the first fold has one class only
    result = sweep(made(logistic, auc), (X, B), folds=by_class)
    assert (result.status == jr.Status.FINISHED).all()
    with pytest.raises(
        ValueError, match=r"auc is undefined in 3 of 3 folds .* jaxreg.folds\(n, y="
    ):
        result.best(metric="auc")
    assert "auc is undefined in 3 of 3 folds (folds 0, 1, 2)" in str(result.table())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        good = sweep(made(logistic, auc), (X, B), folds=jr.folds(N, 4, y=B))
    best = good.best(metric="auc")
    assert best.mean == good.mean("auc").max(), "the metric knows that larger is better"


def test_too_many_sizes_of_folds_are_refused_where_each_would_be_compiled():
    cuts = np.cumsum(np.arange(1, 36))
    folds = np.searchsorted(cuts, np.arange(cuts[-1]), side="right")
    x, y = np.tile(X, (16, 1))[: cuts[-1]], np.tile(Y, 16)[: cuts[-1]]
    with pytest.raises(ValueError, match="the metric 'rmse' is no mean .* 35 different sizes"):
        sweep(made(mse, {"rmse": rmse}), (x, y), folds=folds, batch_size=8)


def test_unequal_full_batches_need_a_loss_that_can_be_weighted():
    with pytest.raises(ValueError, match="folds of different sizes .* or a batch_size"):
        sweep(made(rmse), (X, Y), folds=list(KFold(3).split(X)))
    noisy = made(lambda p, x, y, key: mse(p, x, y), eval_loss=mse, stochastic=True)
    with pytest.raises(ValueError, match="the loss is stochastic, so it cannot be weighted"):
        sweep(noisy, (X, Y), sample_weight=W)


def test_separate_validation_rows_have_weights_of_their_own():
    got = sweep(made(mse), (X[:30], Y[:30]), folds=None, validation=(X[30:], Y[30:]), sample_weight=(W[:30], W[30:]))  # fmt: skip
    w = np.asarray(got.lane(0))
    want = np.average(0.5 * (X[30:] @ w - Y[30:]) ** 2, weights=W[30:])
    np.testing.assert_allclose(got.valid["loss"][0, 0, 0, -1], want, rtol=1e-5)
    with pytest.raises(ValueError, match="`sample_weight` must be a pair"):
        sweep(made(mse), (X, Y), folds=None, validation=(X[:5] + 1, Y[:5]), sample_weight=W)


def test_a_refit_is_weighted_as_the_sweep_was():
    swept = sweep(made(mse, lr=0.3), (X, Y), (0.1, 1.0), 4, 200, sample_weight=W)
    with pytest.raises(ValueError, match="of a sweep with `sample_weight`; give it here too"):
        jr.refit(made(mse, lr=0.3), swept, (X, Y), key=KEY)
    test = (X[:9] + 1, Y[:9])
    got = jr.refit(
        made(mse, lr=0.3), swept, (X, Y), test=test, key=KEY, sample_weight=(W, W[:9]), seeds=1
    )
    lam = float(swept.best().coords["lam"])
    ridge = Ridge(lam * W.sum(), fit_intercept=False).fit(X, Y, sample_weight=W)
    np.testing.assert_allclose(got.params("chosen by min"), ridge.coef_, atol=1e-4)
    score, _ = got.scores("chosen by min")["loss"]
    want = np.average(0.5 * (ridge.predict(test[0]) - Y[:9]) ** 2, weights=W[:9])
    np.testing.assert_allclose(score, want, rtol=1e-3)


@pytest.mark.parametrize(
    ("weights", "error", "match"),
    [
        (W[:5], ValueError, r"one number for each of the 40 rows, got shape \[5\]"),
        (-W, ValueError, "must be finite and at least 0, got -"),
        (np.where(W > 0.5, W, np.nan), ValueError, "must be finite and at least 0, got nan in row"),
        (["a"] * N, TypeError, "`sample_weight` must hold numbers"),
        (np.arange(N) % 5 > 0, ValueError, "is 0 for all validation rows of fold 0"),
    ],
)
def test_weights_that_make_no_mean_are_refused(weights, error, match):
    with pytest.raises(error, match=match):
        sweep(made(mse), (X, Y), folds=np.arange(N) % 5, sample_weight=weights)
