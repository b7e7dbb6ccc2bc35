"""Data and numbers as people bring them give the sweep over plain arrays, or an error that names them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
import pytest
import scipy.sparse

import jaxreg as jr
from jaxreg.fit.intake import as_rows

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 3)).astype("f")
Y = X[:, 0].copy()
FRAME = pd.DataFrame(X, columns=["a", "b", "c"])


def trainer(reg):
    tx = optax.chain(jr.add_penalty_gradient(reg), optax.sgd(0.1))
    return jr.Trainer(lambda k: jnp.zeros(3), lambda w, x, y: 0.5 * jnp.mean((x @ w - y) ** 2), tx)


def sweep(data=(X, Y), **kwargs):
    kwargs = {"folds": 3, "steps": 4, "key": KEY, "progress": False} | kwargs
    return jr.sweep(trainer, jr.grid(jr.l2, lam=[0.1, 1.0]), data, **kwargs)


def fit(data=(X, Y), **kwargs):
    return jr.fit(trainer, jr.l2(0.1), data, **({"steps": 4, "key": KEY} | kwargs))


# --- data -------------------------------------------------------------------------------------------


class Tensor:
    """As torch's, for a machine without it."""

    __module__ = "torch"

    def __init__(self, values):
        self.values, self.dtype = values, values.dtype

    def detach(self):
        return self

    def cpu(self):
        return self

    def __array__(self, dtype=None, copy=None):
        return self.values


SAME = {
    "a frame and a series": (FRAME, pd.Series(Y)),
    "float64": (X.astype(float), Y.astype(float)),
    "lists": (X, Y.tolist()),
    "nullable numbers": (FRAME.astype("Float64"), pd.Series(Y).astype("Float32")),
    "another index": (FRAME.set_index(np.arange(24)[::-1]), pd.Series(Y, index=np.arange(24)[::-1])),
    "tensors": (Tensor(X), Tensor(Y)),
    "jax arrays": (jnp.asarray(X), jnp.asarray(Y)),
    "a list for a tuple": [X, Y],
}  # fmt: skip


@pytest.mark.parametrize("name", SAME)
def test_data_in_any_container_are_the_same_sweep(name):
    want, got = sweep(), sweep(SAME[name])
    np.testing.assert_array_equal(got.valid["loss"], want.valid["loss"])
    np.testing.assert_array_equal(fit(SAME[name]).params, fit().params)


def test_kinds_of_numbers_are_kept():
    frame = pd.DataFrame({"a": [1, 2], "b": [3, 4]})
    (x, y, b), n = as_rows("sweep", (frame, pd.Series([True, False]), frame.assign(c=0.5)))
    assert (x.dtype.kind, y.dtype, b.dtype, n) == ("i", bool, np.float64, 2)


def put(row, value):
    x = X.astype(float).copy()
    x[row, 1] = value
    return x


BAD = {
    "text": (FRAME.assign(s="x", t="y"), TypeError, r"of its columns 's', 't' \(text .*get_dummies"),
    "categories": (FRAME.assign(s=pd.Categorical(["u", "v"] * 12)), TypeError, r"'s' \(categories\)"),
    "dates": (FRAME.assign(d=pd.date_range("2020", periods=24)), TypeError, r"'d' \(dates\)"),
    "missing": (
        FRAME.assign(n=pd.array([1, None] * 12, dtype="Int64")), TypeError, r"'n' \(missing in 12 rows\)",
    ),
    "NaN in a frame": (FRAME.assign(a=np.where(Y > 0, np.nan, 1)), ValueError, r"data\[0\]` has NaN in"),
    "NaN": (put(3, np.nan), ValueError, r"`data\[0\]` has NaN in 1 of 24 rows, the first is row 3"),
    "inf": (put(5, np.inf), ValueError, r"has ±inf, .* in 1 of 24 rows, the first is row 5"),
    "too large for float32": (put(6, 1e300), ValueError, "numbers that float32 does not hold, in 1 of"),
    "large integers": (
        np.arange(72).reshape(24, 3) * 2**31, ValueError, "integers up to 152471339008, which int32 does",
    ),
    "sparse": (scipy.sparse.eye(24).tocsr(), TypeError, r"sparse matrix of shape \[24, 24\].*toarray"),
    "an array of text": (np.full((24, 1), "a"), TypeError, "must hold numbers, got dtype <U1"),
    "objects": (np.full((24, 1), None), TypeError, "must hold numbers, got dtype object"),
    "a series of text": (pd.Series(["a"] * 24, name="s"), TypeError, r"'s' \(text"),
}  # fmt: skip


def test_differences_that_float32_rounds_away_are_refused_or_prepared():
    """Seconds since 1970: 24 different times would be two."""
    seconds = np.stack([X[:, 0].astype(float), 1.7e9 + 13 * np.arange(24)], 1)
    small = np.stack([X[:, 0].astype(float), 2000 + np.arange(24) / 24], 1)

    def of_two(reg):
        tx = optax.chain(jr.add_penalty_gradient(reg), optax.sgd(1e-9))
        loss = lambda w, x, y: 0.5 * jnp.mean((x @ w - y) ** 2)
        return jr.Trainer(lambda key: jnp.zeros(2), loss, tx)

    fit = lambda x, **kwargs: jr.fit(of_two, jr.l2(0.1), (x, Y), steps=1, key=KEY, **kwargs)
    with pytest.raises(
        ValueError, match=r"column 1 of `data\[0\]` lies between 1700000000 and 1700000299"
    ):
        fit(seconds)
    with pytest.raises(ValueError, match=r"`data\[1\]` lies between .* has too few digits"):
        sweep((X, 1e9 + Y.astype(float)))
    with pytest.raises(ValueError, match=r"column 1 of .* between 1700000000 and 1700000299"):
        fit(seconds.astype(int))
    fit(np.stack([np.arange(24), RNG.integers(0, 2**31 - 1, 24)], 1))  # hashes lie far apart
    fit(small)
    fit(seconds.astype(np.float32))  # whoever says float32 has chosen it
    fit(seconds, prepare=lambda x, y: lambda x, y: (x - seconds.mean(0), y))


@pytest.mark.parametrize("name", BAD)
def test_what_holds_no_numbers_is_named(name):
    x, error, match = BAD[name]
    for call in (sweep, fit):
        with pytest.raises(error, match=match) as told:
            call((x, Y))
        assert len(str(told.value)) < 400, "no whole array in a message"


@pytest.mark.parametrize(
    ("data", "error", "match"),
    [
        (X, TypeError, r"`data` must be a tuple .* got a ndarray of shape \[24, 3\]"),
        (FRAME, TypeError, r"got a DataFrame of shape \[24, 3\]"),
        ((), TypeError, "`data` must be a tuple"),
        ((X, Y[:5]), ValueError, r"same number of rows, at least 1, got {'data\[0\]': 24, 'data\[1\]': 5}"),
    ],
)  # fmt: skip
def test_what_is_no_tuple_of_rows_is_named(data, error, match):
    with pytest.raises(error, match=match):
        sweep(data)


def test_validation_data_are_not_cast():
    whole = np.arange(24) % 4
    with pytest.raises(
        TypeError, match="array 1 of `validation` is float32 and that of `data` is int"
    ):
        sweep((X, whole), folds=None, validation=(X[:6], np.full(6, 0.9, "f")))
    with pytest.raises(
        TypeError, match="array 0 of `validation` is float32 and that of `data` is int8"
    ):
        sweep((X.astype(np.int8), Y), folds=None, validation=(X[:6] + 300, Y[:6]))
    other = X[:6] + 1
    small = sweep(folds=None, validation=(other.astype(float), Y[:6].astype(float)))
    np.testing.assert_array_equal(
        small.valid["loss"], sweep(folds=None, validation=(other, Y[:6])).valid["loss"]
    )


# --- numbers ----------------------------------------------------------------------------------------


def test_integers_of_numpy_are_integers():
    options = {"steps": 4, "seeds": 2, "batch_size": 4, "patience": 2, "evals": 2}
    want = sweep(**options, machine=jr.Machine(chunk=2))
    numpys = {name: np.int64(value) for name, value in options.items()}
    got = sweep(**numpys, machine=jr.Machine(chunk=np.int32(2)))
    np.testing.assert_array_equal(got.valid["loss"], want.valid["loss"])
    np.testing.assert_array_equal(
        fit(steps=np.int64(4), batch_size=np.int8(4)).params, fit(batch_size=4).params
    )


@pytest.mark.parametrize(
    ("kwargs", "error", "match"),
    [
        ({"key": 0}, TypeError, r"`key` must be one PRNG key, such as jax.random.key\(0\), got 0"),
        (
            {"key": jax.random.split(KEY)},
            TypeError,
            r"one PRNG key.* got a PRNGKeyArray of shape \[2\]",
        ),
        (
            {"batch_size": "64"},
            ValueError,
            "`batch_size` must be an integer between 1 .*, got '64'",
        ),
        ({"batch_size": 8.0}, ValueError, "`batch_size` must be an integer between 1 .*, got 8.0"),
        ({"batch_size": 99}, ValueError, r"between 1 and the \d+ rows"),
        ({"steps": True}, ValueError, "`steps` must be an integer of at least .*, got True"),
        ({"steps": -5}, ValueError, "`steps` must be an integer of at least .*, got -5"),
    ],
)
def test_numbers_that_are_none_are_named(kwargs, error, match):
    for call in (sweep, fit):
        with pytest.raises(error, match=match):
            call(**kwargs)


@pytest.mark.parametrize(
    ("kwargs", "error", "match"),
    [
        ({"rows": np.array([0, 99])}, ValueError, "`rows` must lie between 0 and 23, got 0 … 99"),
        ({"rows": np.array([-1, 0])}, ValueError, "`rows` must lie between 0 and 23, got -1 … 0"),
        ({"rows": np.array([], int)}, ValueError, "`rows` must lie between 0 and 23, got none"),
        ({"rows": [0.5]}, TypeError, "`rows` must be row numbers"),
        ({"seed": 1.5}, ValueError, "`seed` must be an integer of at least 0, got 1.5"),
    ],
)
def test_arguments_of_fit_that_mean_nothing_are_named(kwargs, error, match):
    with pytest.raises(error, match=match):
        fit(**kwargs)


def test_a_mask_of_rows_means_those_rows():
    mask = np.arange(24) < 8
    np.testing.assert_array_equal(fit(rows=mask).params, fit(rows=np.arange(8)).params)


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    result = sweep(checkpoint="~/x")
    result.save("~/r.npz")
    assert (tmp_path / "x").is_dir()
    assert jr.SweepResult.load("~/r.npz").best().coords == result.best().coords
