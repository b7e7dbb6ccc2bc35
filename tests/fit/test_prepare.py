"""What a fold learns of its training rows beforehand, it learns of them alone."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.linear_model import Ridge
from sklearn.model_selection import KFold
from sklearn.preprocessing import StandardScaler

import jaxreg as jr

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
N = 31
X = (RNG.normal(size=(N, 3)) * [1, 5, 0.2] + [3, -10, 1]).astype("f")
Y = (X @ np.array([1, 0.2, 3.0]) + RNG.normal(size=N)).astype("f")
FOLDS = list(KFold(4).split(X))


def loss(w, x, y):
    return 0.5 * jnp.mean((x @ w - y) ** 2)


def trainer(reg):
    tx = optax.chain(jr.add_penalty_gradient(reg), optax.sgd(0.3))
    return jr.Trainer(lambda key: jnp.zeros(3), loss, tx)


def standardized(x, y):
    mean, scale, level = x.mean(0), x.std(0), y.mean()
    return lambda x, y: ((x - mean) / scale, y - level)


def numbers(x, y):
    return {"mean": x.mean(0), "scale": x.std(0), "level": y.mean()}


def with_numbers(reg):
    """The same by numbers instead of a function on rows."""
    tx = optax.chain(jr.add_penalty_gradient(reg), optax.sgd(0.3))
    moved = lambda n, x, y: ((x - n["mean"]) / n["scale"], y - n["level"])
    error = lambda w, n, x, y: jnp.mean(jnp.abs(moved(n, x, y)[0] @ w - moved(n, x, y)[1]))
    root = lambda w, n, x, y: jnp.sqrt(2 * loss(w, *moved(n, x, y)))
    return jr.Trainer(
        lambda key, n: jnp.zeros(3) * n["level"],
        lambda w, n, x, y: loss(w, *moved(n, x, y)),
        tx,
        {"mae": error, "rmse": root},
    )


def sweep(trainer, prepare, **kwargs):
    options = {"folds": FOLDS, "steps": 400, "evals": 1, "key": KEY, "progress": False} | kwargs
    return jr.sweep(trainer, jr.grid(jr.l2, lam=[0.1, 1.0]), (X, Y), prepare=prepare, **options)


@pytest.fixture(scope="module")
def by_rows():
    return sweep(trainer, standardized)


def test_every_fold_is_ridge_on_rows_scaled_by_its_training_rows(by_rows):
    for f, (train, valid) in enumerate(FOLDS):
        scaler = StandardScaler().fit(X[train])
        level = Y[train].mean()
        for k, lam in enumerate([0.1, 1.0]):
            ridge = Ridge(lam * len(train), fit_intercept=False)
            ridge.fit(scaler.transform(X[train]), Y[train] - level)
            np.testing.assert_allclose(by_rows.lane(k, f), ridge.coef_, atol=2e-5)
            for rows, split in ((train, "train"), (valid, "valid")):
                told = ridge.predict(scaler.transform(X[rows]))
                want = 0.5 * np.mean((told - (Y[rows] - level)) ** 2)
                got = getattr(by_rows, split)["loss"][k, f, 0, -1]
                np.testing.assert_allclose(got, want, rtol=1e-4)


@pytest.mark.parametrize("batch_size", [None, 8])
def test_numbers_are_the_same_as_the_function_on_rows(batch_size):
    a = sweep(trainer, standardized, batch_size=batch_size, steps=30)
    b = sweep(with_numbers, numbers, batch_size=batch_size, steps=30)
    np.testing.assert_allclose(a.valid["loss"], b.valid["loss"], rtol=1e-4)
    np.testing.assert_allclose(a.params, b.params, atol=1e-5)
    np.testing.assert_allclose(
        b.valid["rmse"][..., -1], np.sqrt(2 * b.valid["loss"][..., -1]), rtol=1e-5
    )


@pytest.mark.parametrize(("make", "prepare"), [(trainer, standardized), (with_numbers, numbers)])
def test_a_lane_is_the_fit_with_the_same_preparation(make, prepare):
    swept = sweep(make, prepare, batch_size=8, steps=20, machine=jr.Machine(chunk=1))
    alone = jr.fit(
        make, jr.l2(1.0), (X, Y), steps=20, batch_size=8, key=KEY, rows=FOLDS[2][0], fold=2,
        prepare=prepare,
    )  # fmt: skip
    np.testing.assert_allclose(swept.lane(1, 2), alone.params, atol=1e-6)


def test_separate_validation_rows_are_prepared_by_the_training_rows():
    got = sweep(trainer, standardized, folds=None, validation=(X[:5] + 1, Y[:5]))
    w = np.asarray(got.lane(0))
    x = (X[:5] + 1 - X.mean(0)) / X.std(0)
    np.testing.assert_allclose(
        got.valid["loss"][0, 0, 0, -1], 0.5 * np.mean((x @ w - (Y[:5] - Y.mean())) ** 2), rtol=1e-4
    )


def test_a_refit_prepares_too(by_rows):
    got = jr.refit(trainer, by_rows, (X, Y), seeds=1, key=KEY, prepare=standardized)
    ridge = Ridge(0.1 * N, fit_intercept=False).fit((X - X.mean(0)) / X.std(0), Y - Y.mean())
    np.testing.assert_allclose(got.params("chosen by min"), ridge.coef_, atol=2e-5)
    with pytest.raises(ValueError, match="`result` is of a sweep with `prepare`"):
        jr.refit(trainer, by_rows, (X, Y), key=KEY)


@pytest.mark.parametrize(
    ("prepare", "error", "match"),
    [
        (3, TypeError, "`prepare` must be a function of the training rows.* got a int"),
        (lambda x, y: None, TypeError, "in fold 0 it returned None"),
        (lambda x, y: {"a": "text"}, TypeError, "in fold 0 it returned a dict with something else"),
        (lambda x, y: lambda x, y: (x[:3], y[:3]), ValueError, "makes 3 rows of 31 in fold 0"),
        (lambda x, y: lambda x, y: x, TypeError, "fold 0 of `prepare`: `rows` must be a tuple"),
        (lambda x, y: lambda x, y: (x / 0, y), ValueError, "fold 0 of `prepare`: `rows.0.` has"),
        (
            lambda x, y: x,
            ValueError,
            r"numbers of the shapes .*\[24, 3\].* in fold 3 and .*Pad them",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:.*divide by zero")
def test_preparations_that_make_no_rows_are_refused(prepare, error, match):
    with pytest.raises(error, match=match):
        sweep(trainer, prepare)


# --- rows that are no numbers yet --------------------------------------------------------------------


def test_missing_numbers_are_filled_by_the_training_rows_of_each_fold():
    gaps = np.where(RNG.random(X.shape) < 0.2, np.nan, X).astype("f")

    def filled(x, y):
        mean = np.nanmean(x, 0)
        scale = np.where(np.isnan(x), mean, x).std(0)
        return lambda x, y: ((np.where(np.isnan(x), mean, x) - mean) / scale, y - y.mean())

    result = jr.sweep(
        trainer, jr.grid(jr.l2, lam=[0.1, 1.0]), (gaps, Y), prepare=filled, folds=FOLDS, steps=400,
        evals=1, key=KEY, progress=False,
    )  # fmt: skip
    rows, valid = FOLDS[1]
    x = filled(gaps[rows], Y[rows])(gaps, Y)[0]
    ridge = Ridge(0.1 * len(rows)).fit(x[rows], (Y - Y.mean())[rows])
    w = np.linalg.solve(
        x[rows].T @ x[rows] / len(rows) + 0.1 * np.eye(3),
        x[rows].T @ (Y - Y.mean())[rows] / len(rows),
    )
    np.testing.assert_allclose(w, ridge.coef_, atol=0.1)
    error = 0.5 * np.mean((x[valid] @ w - (Y - Y.mean())[valid]) ** 2)
    np.testing.assert_allclose(result.valid["loss"][0, 1, 0, -1], error, rtol=1e-4)


def test_a_vocabulary_is_that_of_the_training_rows():
    words = np.array(["a b", "b c", "a a", "c d", "b b", "d a", "a c", "b d"])
    y = np.array([1, 0, 1, 0, 0, 1, 1, 0], "f")
    seen = []

    def counted(texts, y):
        known = sorted({word for text in texts for word in text.split()})
        seen.append(known)
        count = lambda texts: np.array([[t.split().count(w) for w in "abcd"] for t in texts], "f")
        return lambda texts, y: (count(texts)[:, :3], y)

    result = jr.sweep(
        trainer, jr.grid(jr.l2, lam=[0.1]), (words, y), prepare=counted, folds=2, steps=3, key=KEY,
        progress=False,
    )  # fmt: skip
    assert len(seen) == 2
    assert np.isfinite(result.valid["loss"]).all()


@pytest.mark.parametrize(
    "learn", [lambda x, y: {"level": y.mean()}, lambda x, y: lambda x, y: (x, y)]
)
def test_rows_that_nothing_has_made_ready_are_refused(learn):
    gaps = np.where(np.arange(N)[:, None] == 4, np.nan, X).astype("f")
    with pytest.raises(ValueError, match="has NaN in 1 of 31 rows, the first is row 4"):
        jr.sweep(
            with_numbers, jr.grid(jr.l2, lam=[0.1]), (gaps, Y), prepare=learn, folds=FOLDS, steps=3,
            key=KEY, progress=False,
        )  # fmt: skip
