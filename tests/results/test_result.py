"""SweepResult: means, standard errors and choices against closed forms; tables and frames."""

import builtins
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.results import LAMS, PARAMS, VALUES, F, K, S, T, from_means, make

import jaxreg as jr

# --- means and standard errors --------------------------------------------------------------------


def test_mean_and_stderr_over_folds_of_means_over_seeds():
    result = make(VALUES)
    for k in range(K):
        m = [np.float64(VALUES[k, f]).sum() / S for f in range(F)]
        mean = sum(m) / F
        sd = np.sqrt(sum((x - mean) ** 2 for x in m) / (F - 1))
        np.testing.assert_allclose(result.mean()[k], mean, rtol=1e-12)
        np.testing.assert_allclose(result.stderr()[k], sd / np.sqrt(F), rtol=1e-12)


def test_the_spread_of_seeds_within_a_fold_does_not_count():
    """Seeds of a fold are no independent draws: more of them must not shrink the error."""
    folds = np.array([1.0, 2.0, 4.0])
    seeds = np.array([-5.0, 5.0])
    result = make(folds[None, :, None] + seeds[None, None, :] + np.zeros((K, 1, 1)))
    np.testing.assert_allclose(result.stderr(), np.std(folds, ddof=1) / np.sqrt(3), rtol=1e-6)
    many = make(np.repeat(folds[None, :, None], 8, -1) + np.zeros((K, 1, 1)))
    np.testing.assert_allclose(many.stderr(), result.stderr(), rtol=1e-6)


def test_one_fold_takes_the_error_over_seeds_and_one_lane_has_none():
    one_fold = make(VALUES.reshape(K, 1, F * S))
    draws = VALUES.reshape(K, -1).astype(float)
    np.testing.assert_allclose(one_fold.stderr(), draws.std(1, ddof=1) / np.sqrt(F * S))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(make(VALUES[:, :1, :1]).stderr()).all()


def test_metric_and_split_are_looked_up():
    result = make(VALUES, train=VALUES * 3, error=VALUES + 1)
    np.testing.assert_allclose(result.mean("loss", "train"), 3 * result.mean())
    np.testing.assert_allclose(result.mean("error"), result.mean() + 1, rtol=1e-6)
    assert result.metrics == ("loss", "error")
    assert result.axes == ("point", "fold", "seed", "time")


def test_a_diverged_lane_voids_its_lam_alone_without_numpy_warnings():
    values = VALUES.copy()
    values[2, 1, 0] = np.inf
    values[3, 0, 0], values[3, 1, 1] = np.nan, -np.inf
    status = np.zeros((K, F, S), int)
    status[2, 1, 0] = status[3, 0, 0] = jr.Status.DIVERGED
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = make(values, status=status)
        for name in ("mean", "stderr"):
            got, clean = getattr(result, name)(), getattr(make(VALUES), name)()
            assert np.isnan(got[2:]).all()
            np.testing.assert_array_equal(got[:2], clean[:2])
            assert np.isnan(getattr(result, name)("loss", "train")[2:]).all()
        str(result.table()), repr(result)
        result.to_pandas()


# --- choices --------------------------------------------------------------------------------------


def test_the_two_rules_by_hand():
    # Standard error 0.3 / sqrt(3) = 0.173: means up to 1.173 are within it.
    result = from_means([1.1, 1.0, 1.17, 1.18], 0.3)
    low, strong = result.best(), result.best("1se")
    assert (low.index, strong.index) == (1, 2)
    assert low.mean == pytest.approx(1.0)
    assert low.stderr == pytest.approx(0.3 / np.sqrt(3))
    assert strong.mean == pytest.approx(1.17)
    assert (low.rule, strong.rule) == ("min", "1se")
    # The shortest decimals, and not those of float32 0.1 in double precision.
    assert low.coords == {"lam": 0.1}
    assert repr(low.point) == "l2(0.1)"
    assert float(low.point(jnp.ones(2))) == pytest.approx(0.1)


def test_the_rule_orders_by_strength_and_not_by_position():
    result = from_means([1.17, 1.0, 1.1, 1.18], 0.3, lams=[10.0, 0.1, 0.01, 1.0])
    assert result.best("1se").coords["lam"] == 10.0


def test_the_rule_uses_the_error_of_the_best_and_not_of_the_candidate():
    middle, spread = np.array([[1.0], [1.2]]), np.array([[0.1], [2.0]])
    values = (middle + spread * np.array([1.0, -1.0]))[..., None]
    assert make(values, lams=[1.0, 2.0]).best("1se").index == 0


def test_among_equal_strengths_the_best_is_taken():
    result = from_means([1.3, 1.0, 1.15, 1.1], 0.3, lams=[0.1, 0.1, 1.0, 1.0])
    assert result.best("1se").index == 3


def test_a_metric_that_is_better_when_larger():
    score = np.array([0.9, 0.95, 0.94, 0.5])[:, None, None] + 0.02 * np.array([1.0, -1.0])[:, None]
    result = make(VALUES[:, :2], accuracy=np.repeat(score, S, -1))
    # The standard error of ± 0.02 in two folds is 0.02.
    assert result.best(metric="accuracy", maximize=True).index == 1
    assert result.best("1se", metric="accuracy", maximize=True).index == 2
    assert result.best(metric="accuracy", maximize=False).index == 3


@pytest.mark.parametrize("rule", ["min", "1se"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 0.0])
def test_a_diverged_point_is_never_chosen(rule, value):
    values = np.full((K, F, S), 1.0)
    values[:, 0] += 0.5
    values[3] = value
    status = np.zeros((K, F, S), int)
    status[3, 2, 1] = jr.Status.DIVERGED
    assert make(values, status=status).best(rule).index != 3


@pytest.mark.parametrize("rule", ["min", "1se"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_mean_that_is_not_finite_is_never_chosen_whatever_the_status(rule, value):
    values = VALUES.copy()
    values[3] = value
    assert make(values).best(rule).index != 3


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda r: r.best("max"), r"`rule` must be one of \['1se', 'min', .*\], got 'max'"),
        (
            lambda r: r.best(metric="f1"),
            r"`metric` must be one of \['accuracy', 'loss'\], got 'f1'",
        ),
        (lambda r: r.best(metric="accuracy"), "is a larger 'accuracy' better"),
        (
            lambda r: r.mean(split="test"),
            r"`split` must be one of \['train', 'valid'\], got 'test'",
        ),
        (lambda r: r.lane(0), "no parameters were kept.*keep_params=True"),
    ],
)
def test_bad_questions(call, match):
    with pytest.raises(ValueError, match=match):
        call(make(VALUES, accuracy=VALUES))


def test_all_diverged_says_so():
    result = make(np.full((K, F, S), np.nan), status=np.ones((K, F, S), int))
    for rule in ("min", "1se"):
        with pytest.raises(ValueError, match="all 4 points diverged"):
            result.best(rule)
    assert "every point diverged" in str(result.table())
    assert "24 diverged" in repr(result)


def test_one_lane_has_no_one_standard_error_rule():
    result = make(VALUES[:, :1, :1])
    assert result.best().index == VALUES[:, 0, 0].argmin()
    with pytest.raises(ValueError, match="'1se' needs a standard error"):
        result.best("1se")
    assert "no standard error" in str(result.table())


def test_status_messages():
    assert jr.Status(0).message == "finished all steps"
    assert "NaN or infinite" in jr.Status(1).message
    assert all(s.message for s in jr.Status)


# --- lanes and the pytree -------------------------------------------------------------------------


def test_lane_is_the_slice():
    result = make(VALUES, params=PARAMS)
    assert result.lane(2, fold=1, seed=1)["dense"]["kernel"].tolist() == [30.0, 31.0]
    assert result.lane(-1)["dense"]["kernel"].tolist() == [36.0, 37.0]
    for call, name in [((4,), "k"), ((0, 3), "fold"), ((0, 0, -3), "seed")]:
        with pytest.raises(
            IndexError, match=f"`{name}` must be an integer between -[0-9] and [0-9], got"
        ):
            result.lane(*call)


def test_it_is_a_pytree_whose_coordinates_keep_their_order():
    result = make(VALUES, params=PARAMS)
    two = jr.SweepResult(**{**vars(result), "coords": {"z": LAMS, "a": 1 - LAMS}})
    back = jax.tree.map(lambda x: x, two)
    assert list(back.coords) == ["z", "a"], "the first orders by strength"
    jitted = jax.jit(lambda r: r)(two)
    assert list(jitted.coords) == ["z", "a"]
    assert jitted.made_by == result.made_by
    paths = [jax.tree_util.keystr(p) for p, _ in jax.tree_util.tree_flatten_with_path(two)[0]]
    assert ".coords['z']" in paths
    assert ".params['dense']['kernel']" in paths
    assert repr(jax.tree.map(lambda x: None, two)) == "SweepResult(...)"
    jax.jit(lambda r: repr(r) and r.status)(two)


def test_repr_is_worth_reading():
    result = from_means([1.1, 1.0, 1.17, 1.18], 0.3, apart=[0, 0, 0.4, 0])
    assert repr(result).splitlines() == [
        "SweepResult: 4 x l2, 4 folds, 40 steps",
        "  lam       0.01 … 10",
        "  min       lam=0.1: valid loss 1.00 ± 0.17",
        "  paired    lam=1: valid loss 1.17 ± 0.29",
        "  status    16 of 16 lanes finished, 0 diverged",
        "  data      loss at 5 times; params not kept",
    ]


# --- table and frame ------------------------------------------------------------------------------


def test_table_shows_and_holds_the_numbers():
    status = np.zeros((4, 4, 1), int)
    status[3, 1] = 1
    table = from_means([1.1, 1.0, 1.17, 0.2], 0.3, status=status, apart=[0, 0, 0.4, 0]).table()
    lines = str(table).splitlines()
    assert lines[0] == "4 x l2, 4 folds, 40 steps"
    assert [c.header for c in table.columns] == [
        "lam",
        "train loss",
        "valid loss",
        "loss from best",
        "status",
        "choice",
    ]
    assert table.cells == (
        ("0.01", "0.550 ± 0.087", "1.10 ± 0.17", "+0.10 ± 0.00", "finished", ""),
        ("0.1", "0.500 ± 0.087", "1.00 ± 0.17", "best", "finished", "min"),
        ("1", "0.585 ± 0.144", "1.17 ± 0.29", "+0.17 ± 0.35", "finished", "paired"),
        ("10", "-", "-", "-", "diverged (1 of 4 lanes)", ""),
    )
    assert "±: standard error over 4 folds." in lines
    assert table.warnings == ("1 of 4 points diverged in some lane; none is chosen.",)
    row = table.rows[1]
    assert row["valid loss"] == pytest.approx(1.0)
    assert row["valid loss se"] == pytest.approx(0.3 / np.sqrt(3))
    assert row["train loss se"] == pytest.approx(0.15 / np.sqrt(3))
    assert [r["choice"] for r in table.rows] == [(), ("min",), ("paired",), ()]
    assert [r["difference"] for r in table.rows] == pytest.approx(
        [0.1, 0, 0.17, np.nan], nan_ok=True
    )
    corrected = 0.4 * 2 * np.sqrt(1 / 3) * np.sqrt(1 / 4 + 1 / 3)
    assert table.rows[2]["difference se"] == pytest.approx(corrected)
    assert [r["diverged"] for r in table.rows] == [0, 0, 0, 1]


def test_table_has_every_metric_and_says_what_the_error_is_over():
    text = str(make(VALUES, accuracy=VALUES / 10).table())
    assert "train accuracy" in text
    assert "valid accuracy" in text
    assert "over 3 folds (each the mean of 2 seeds)" in text
    assert "over 6 seeds, on the same validation rows" in str(make(VALUES.reshape(K, 1, 6)).table())


@pytest.mark.parametrize(
    ("means", "lams", "match"),
    [
        ([1.3, 1.2, 1.1, 1.0], LAMS, "min: lam=10 is the largest of the grid; a larger one"),
        ([1.0, 1.1, 1.2, 1.3], LAMS, "min: lam=0.01 is the smallest of the grid; a smaller"),
        ([1.0, 1.1, 1.2, 1.3], [0, 1, 2, 3], None),
        ([1.1, 1.0, 1.2, 1.3], LAMS, None),
        ([1.3, 1.2, 1.1, 1.0], [2, 2, 2, 2], None),
    ],
)
def test_a_best_at_the_end_of_the_grid_is_pointed_out(means, lams, match):
    found = from_means(means, 0.1, lams=lams).table().warnings
    assert found == () if match is None else match in found[0]


@pytest.mark.parametrize(
    ("means", "spread", "cells"),
    [
        ([1e-9, 2e-9], 1e-10, ["1e-09 ± 5.8e-11", "2e-09 ± 5.8e-11"]),
        ([3e8, 1.0], 1e7, ["3e+08 ± 5.8e+06", "1 ± 5773503"]),
        ([1.0, 2.0], 0.0, ["1.000 ± 0.000", "2.000 ± 0.000"]),
        ([0.0, 0.0], 0.0, ["0 ± 0"] * 2),
    ],
)
def test_odd_magnitudes_stay_readable(means, spread, cells):
    table = from_means(means, spread, lams=[1.0, 2.0]).table()
    assert [row[2] for row in table.cells] == cells


def test_to_pandas_is_tidy():
    frame = make(VALUES, accuracy=VALUES / 10).to_pandas()
    names = ["lam", "fold", "seed", "time", "split", "metric", "value"]
    assert list(frame.columns) == names
    assert len(frame) == K * F * S * T * 2 * 2
    assert not frame.duplicated(names[:-1]).any()
    one = frame.query("fold == 2 and seed == 1 and time == 40 and metric == 'accuracy'")
    got = one[one.split == "valid"].set_index("lam").value.reindex(LAMS)
    np.testing.assert_allclose(got, VALUES[:, 2, 1] / 10, rtol=1e-6)


def test_to_pandas_without_pandas(monkeypatch):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name == "pandas":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ImportError, match=r"pip install 'jaxreg\[data\]'"):
        make(VALUES).to_pandas()
