"""Results of a loop of one's own, and of several sweeps as one; results as pytrees and pickles."""

import copy
import pickle

import jax
import matplotlib as mpl
import numpy as np
import pytest

import jaxreg as jr

mpl.use("Agg")
import matplotlib.pyplot as plt

LAMS, RATES = [0.0, 0.1, 1.0], [0.01, 0.03, 0.1, 0.3]
TWO = jr.grid(lambda lam, lr: {"reg": jr.l2(lam), "lr": lr}, lam=LAMS, lr=RATES)
MEANS = np.add.outer([0.3, 0.1, 0.2], [0.4, 0.0, 0.02, 0.5]).ravel()  # best: lam 0.1, lr 0.03
FOLDS = np.array([-1.0, 0.0, 1.0])


def scores(means, spread=0.03):
    return means[:, None] + spread * FOLDS


@pytest.fixture
def result():
    return jr.SweepResult.of(TWO, valid=scores(MEANS))


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


# --- a loop of one's own --------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(12,), (12, 3), (12, 3, 2), (12, 3, 2, 4)])
def test_a_loop_of_ones_own_becomes_a_result(shape):
    values = np.random.default_rng(0).uniform(1, 2, shape)
    got = jr.SweepResult.of(TWO, valid={"loss": values, "auc": 1 - values})
    last = values[..., -1] if len(shape) == 4 else values
    np.testing.assert_allclose(got.mean(), last.reshape(12, -1).mean(1))
    best = got.best()
    assert best.index == np.argmin(got.mean())
    assert float(best.point["lr"]) == np.float32(RATES[best.index % 4])
    assert got.best(metric="auc", maximize=True).index == best.index
    assert str(got.table()).count("finished") == 12


def test_a_point_that_is_not_finite_diverged():
    values = scores(MEANS)
    values[5, 1] = np.nan
    got = jr.SweepResult.of(TWO, valid=values)
    assert (got.status[5, :, 0] == [0, 1, 0]).all()
    assert got.best().index == 6


@pytest.mark.parametrize(
    ("kwargs", "error", "match"),
    [
        ({"valid": np.ones(11)}, ValueError, r"one row for each of the 12 points.*float64\[11\]"),
        ({"valid": {"auc": np.ones(12)}}, ValueError, "must have 'loss', got ..auc"),
        ({"valid": ["a"] * 12}, ValueError, "must be numbers"),
        ({"valid": np.ones(12), "train": np.ones((12, 3))}, ValueError, "in `train`"),
        ({"valid": np.ones(12), "time": [1, 2]}, ValueError, "`time` must be 1 rising steps"),
        (
            {"valid": np.ones(12), "params": {"w": np.ones(12)}},
            ValueError,
            r"lead with .*\[12, 1, 1\]",
        ),
        ({"grid": [1], "valid": np.ones(1)}, TypeError, "`grid` must be a Grid, got list"),
    ],
)
def test_what_is_no_result_of_a_loop(kwargs, error, match):
    with pytest.raises(error, match=match):
        jr.SweepResult.of(**{"grid": TWO, **kwargs})


# --- several sweeps as one ------------------------------------------------------------------------


def of(make, lams, means, **kwargs):
    return jr.SweepResult.of(jr.grid(make, lam=lams), valid=scores(np.array(means)), **kwargs)


def test_joined_sweeps_are_one_table_one_plot_and_one_choice():
    one, two = of(jr.l2, [0.1, 1.0], [0.5, 0.4]), of(jr.l1, [0.01, 0.02, 0.1], [0.9, 0.3, 0.6])
    both = jr.SweepResult.join({"l2": one, "l1": two})
    assert both.status.shape == (5, 3, 1)
    assert both.best().coords == {"sweep": "l1", "lam": 0.02}
    assert repr(both.best().point) == "l1(0.02)"
    np.testing.assert_allclose(both.mean(), [0.5, 0.4, 0.9, 0.3, 0.6])
    assert str(both.table()).count("l1 ") >= 3
    assert both.plot().ax_.get_xlabel() == "λ"
    with pytest.raises(ValueError, match="no single axis"):
        both.best("1se")  # a λ of l1 is not one of l2


def test_sweeps_of_one_structure_keep_their_strengths_and_get_a_column():
    wide = jr.SweepResult.join(
        [of(jr.l2, LAMS, [0.5, 0.4, 0.6]), of(jr.l2, LAMS, [0.5, 0.39, 0.6])], width=[64, 128]
    )
    assert wide.strengths == ("lam",)
    chosen = wide.best("1se", simplest={"width": "smallest", "lam": "largest"})
    assert chosen.coords == {"width": 64.0, "lam": 0.1}


def test_times_and_coordinates_may_differ():
    rates = jr.grid(lambda lr: {"lr": lr}, lr=[0.1, 0.2])
    early = jr.SweepResult.of(rates, valid=np.ones((2, 1, 1, 2)), time=[10, 20])
    late = jr.SweepResult.of(
        jr.grid(jr.l2, lam=[0.1, 1.0]), valid=np.full((2, 1, 1, 2), 0.5), time=[20, 40], terms={"l2": np.ones((2, 1, 1, 2))}
    )  # fmt: skip
    both = jr.SweepResult.join([early, late], batch=[8, 16])
    assert both.time.tolist() == [10, 20, 40]
    assert both.stop[:, 0, 0].tolist() == [1, 1, 2, 2]
    np.testing.assert_allclose(both.mean(), [1, 1, 0.5, 0.5])
    assert np.isnan(both.coords["lam"][:2]).all()
    np.testing.assert_allclose(both.penalty_value[:, 0, 0, 1], [0, 0, 1, 1])
    assert " - " in str(both.table())


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda r: jr.SweepResult.join([]), TypeError, "give results in a list"),
        (lambda r: jr.SweepResult.join([r, 3]), TypeError, "got .*'int'"),
        (lambda r: jr.SweepResult.join([r, r], width=[1]), ValueError, "for each of the 2 results"),
        (lambda r: jr.SweepResult.join([r, r], lr=[1, 2]), ValueError, "coordinate 'lr' already"),
        (
            lambda r: jr.SweepResult.join([r, jr.SweepResult.of(TWO, valid=np.ones(12))]),
            ValueError,
            "fold by fold.*the same numbers of both",
        ),
        (lambda r: jr.SweepResult.join({"a": r, "b": r}).save("x"), ValueError, "save its parts"),
    ],
)
def test_what_cannot_be_joined(result, call, error, match):
    with pytest.raises(error, match=match):
        call(result)


def joined():
    """Penalties and parameters of two structures, and coordinates that the other does not have."""
    rng = np.random.default_rng(1)
    one = of(jr.l2, [0.1, 1.0], [0.5, 0.4], params={"w": rng.normal(size=(2, 3, 1, 4))})
    rates = jr.grid(lambda lr: {"lr": lr}, lr=[0.1, 0.2, 0.3])
    params = [rng.normal(size=(3, 3, 1, 2)), rng.normal(size=(3, 3, 1))]
    two = jr.SweepResult.of(rates, valid=scores(np.array([0.9, 0.3, 0.6])), params=params)
    return one, two, jr.SweepResult.join({"l2": one, "none": two})


def test_each_point_and_its_parameters_are_of_their_own_sweep():
    one, two, both = joined()
    chosen = both.best()
    assert chosen.index == 3
    assert chosen.coords["sweep"] == "none"
    assert np.isnan(chosen.coords["lam"])
    assert list(chosen.point) == ["lr"]
    np.testing.assert_array_equal(both.lane(1, 2)["w"], one.lane(1, 2)["w"])
    for k in (4, -1):
        for a, b in zip(both.lane(k, -1), two.lane(2, 2)):
            np.testing.assert_array_equal(a, b)
    with pytest.raises(IndexError, match="`k` must be an integer between -5 and 4, got 5"):
        both.lane(5)
    again = jr.SweepResult.join([both, both], batch=[8, 16])
    assert list(again.best().point) == ["lr"]
    np.testing.assert_array_equal(again.lane(6)["w"], one.lane(1)["w"])


def test_tables_by_a_coordinate_have_one_line_for_those_that_lack_it():
    *_, both = joined()
    column = lambda by, name: [row[name] for row in both.table(by=by).rows]
    assert column("lam", "sweep") == ["l2", "l2", "none"]
    assert column("lr", "sweep") == ["none", "none", "none", "l2"]
    assert column("sweep", "valid loss") == pytest.approx([0.4, 0.3])


def test_texts_are_static_and_every_array_passes_through_jit():
    *_, both = joined()
    back = jax.jit(lambda r: jax.tree.map(lambda x: x + 0, r))(both)
    assert list(back.coords) == ["sweep", "lam", "lr"]
    assert back.coords["sweep"].tolist() == ["l2"] * 2 + ["none"] * 3
    assert jax.tree.structure(back) == jax.tree.structure(both)
    assert back.best().coords["sweep"] == "none"
    assert all(isinstance(x, np.ndarray | jax.Array) for x in jax.tree.leaves(both))
    other = jr.SweepResult.join(dict(zip(["a", "b"], joined()[:2])))
    assert jax.tree.structure(other) != jax.tree.structure(both)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_numbers_keep_their_dtype_and_so_their_shortest_decimals(tmp_path, dtype):
    values = np.array([0.1, 0.7], dtype)
    one = jr.SweepResult.of(jr.grid(jr.l2, lam=[0.1, 0.3]), valid=values)
    rates = jr.SweepResult.of(jr.grid(lambda lr: {"lr": lr}, lr=[0.1, 0.2]), valid=values)
    both = jr.SweepResult.join({"l2": one, "none": rates})
    assert one.valid["loss"].dtype == both.valid["loss"].dtype == dtype
    assert both.best().coords["lam"] == 0.1
    lines = both.to_csv(tmp_path / "both.csv").read_text().splitlines()
    assert lines[0] == "sweep,lam,lr,fold,seed,time,split,metric,value"
    assert lines[-4] == "l2,0.1,NaN,0,0,1,valid,loss,0.1"
    assert lines[-1] == "none,NaN,0.2,0,0,1,valid,loss,0.7"
    assert both.to_pandas()["sweep"].tolist() == ["l2", "l2", "none", "none"] * 2
    assert '"none"' in both.to_json(tmp_path / "both.json").read_text()


def test_a_joined_result_is_not_saved_as_one():
    *_, both = joined()
    for write in (both.save, both.save_params):
        with pytest.raises(
            ValueError, match=f"{write.__name__}: a joined result has no one struct"
        ):
            write("nowhere")


def test_points_of_two_results_must_be_told_apart(result):
    with pytest.raises(ValueError, match="two results have a point {'lam': '0.0', 'lr': '0.01'}"):
        jr.SweepResult.join([result, result])
    finer = jr.SweepResult.join([of(jr.l2, [0.1, 1.0], [2, 1]), of(jr.l2, [0.5, 2.0], [0.5, 3])])
    assert finer.best().coords == {"lam": 0.5}
    assert finer.best("1se").index == 2


def test_a_text_that_one_of_them_lacks_is_a_dash(result):
    named = jr.SweepResult.join({"a": result})
    both = jr.SweepResult.join([named, result], width=[1, 2])
    assert both.coords["sweep"].tolist() == ["a"] * 12 + ["-"] * 12


# --- pickle ---------------------------------------------------------------------------------------


def same_leaves(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        x, y = np.asarray(x), np.asarray(y)
        assert (x.dtype, x.shape, x.tobytes()) == (y.dtype, y.shape, y.tobytes())


@pytest.mark.parametrize("again", [lambda x: pickle.loads(pickle.dumps(x)), copy.deepcopy])
def test_results_choices_and_grids_are_pickled_and_copied(result, again):
    selected = jr.grid(lambda lam: jr.l2(lam).on(jr.kernels) + jr.l1(lam), lam=[0.1, 1.0])
    odd = np.array([[0.5, np.nan, -0.0], [1e-42, np.inf, 1.0]], np.float32)
    of_selected = jr.SweepResult.of(selected, valid=odd, terms={"b": odd, "a": odd})
    for one in (result, joined()[-1], of_selected):
        same_leaves(again(one), one)
        assert repr(again(one)) == repr(one)
    chosen = result.best("1se")
    same_leaves(again(chosen).point, chosen.point)
    assert repr(again(chosen)) == repr(chosen)
    assert again(chosen).coords == chosen.coords
    same_leaves(again(selected), selected)
    assert repr(again(selected)[1]) == repr(selected[1])


def test_joblib_takes_them_to_a_worker(result):
    joblib = pytest.importorskip("joblib")
    (got,) = joblib.Parallel(n_jobs=2)([joblib.delayed(_best)(joined()[-1])])
    assert got == 3


def _best(result):
    return result.best().index
