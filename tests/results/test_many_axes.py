"""Results over any axes: choices, tables and pictures."""

import matplotlib as mpl
import numpy as np
import pytest

import jaxreg as jr
from jaxreg.results.axes import place
from jaxreg.results.profiles import ProfilesDisplay
from jaxreg.results.surface import HeatMapDisplay

mpl.use("Agg")
import matplotlib.pyplot as plt

LAMS, RATES = [0.0, 0.1, 1.0], [0.01, 0.03, 0.1, 0.3]
TWO = jr.grid(lambda lam, lr: {"reg": jr.l2(lam), "lr": lr}, lam=LAMS, lr=RATES)
BUILD = lambda lam, lr, rate=0.0: {"reg": jr.l2(lam), "lr": lr, "rate": rate}
THREE = jr.grid(BUILD, lam=LAMS, lr=RATES, rate=[0.0, 0.5])
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


# --- which is simpler -----------------------------------------------------------------------------


def test_the_simpler_model_has_the_larger_strength_unless_told(result):
    assert result.best("1se").coords == {"lam": 0.1, "lr": 0.03}
    wide = jr.SweepResult.of(TWO, valid=scores(MEANS, 0.2))  # everything within 0.115 is alike
    assert wide.best("1se").coords == {"lam": 1.0, "lr": 0.03}
    slow = wide.best("1se", simplest={"lr": "smallest", "lam": "smallest"})
    assert slow.coords == {"lam": 0.1, "lr": 0.03}
    assert wide.best("1se", simplest={"lr": "largest"}).coords == {"lam": 0.1, "lr": 0.1}


@pytest.mark.parametrize(
    ("simplest", "error", "match"),
    [
        (
            {"width": "smallest"},
            ValueError,
            r"map coordinates \(lam, lr\).*got 'width': 'smallest'",
        ),
        ({"lr": "small"}, ValueError, "to 'largest' or 'smallest'.*got 'lr': 'small'"),
        ("lam", TypeError, "`simplest` must say of a coordinate.*got 'lam'"),
    ],
)
def test_what_says_not_which_is_simpler(result, simplest, error, match):
    with pytest.raises(error, match=match):
        result.best("1se", simplest=simplest)


def test_without_a_strength_it_must_be_said():
    rates = jr.grid(lambda lr: {"lr": lr}, lr=RATES)
    got = jr.SweepResult.of(rates, valid=scores(np.array([0.4, 0.1, 0.11, 0.5])))
    with pytest.raises(ValueError, match="no single axis of this grid is the strength.*simplest="):
        got.best("1se")
    assert got.best("1se", simplest={"lr": "largest"}).coords == {"lr": 0.1}
    assert "paired" not in str(got.table())


def test_a_loaded_result_keeps_its_strengths(tmp_path):
    wide = jr.SweepResult.of(TWO, valid=scores(MEANS, 0.2))
    back = jr.SweepResult.load(wide.save(tmp_path / "wide"))
    assert back.strengths == ("lam",)
    assert back.best("1se").coords == wide.best("1se").coords == {"lam": 1.0, "lr": 0.03}


def test_of_two_strengths_the_order_must_be_said():
    build = lambda a, b: jr.l1(a) + jr.l2(b)
    grid = jr.grid(build, a=[0.1, 1.0], b=[0.1, 1.0])
    assert grid.strengths == ("a", "b")
    got = jr.SweepResult.of(grid, valid=scores(np.array([0.1, 0.11, 0.115, 9.0])))
    with pytest.raises(ValueError, match="no single axis of this grid is the strength"):
        got.best("1se")
    assert got.best("1se", simplest={"a": "largest", "b": "largest"}).coords == {"a": 1, "b": 0.1}
    assert got.best("1se", simplest={"b": "largest", "a": "largest"}).coords == {"a": 0.1, "b": 1}


# --- tables and pictures --------------------------------------------------------------------------


def test_a_table_by_one_axis_has_the_best_of_the_others(result):
    rows = result.table(by="lr").rows
    assert [row["lr"] for row in rows] == pytest.approx(RATES)
    assert [row["lam"] for row in rows] == pytest.approx([0.1] * 4)
    np.testing.assert_allclose([row["valid loss"] for row in rows], MEANS.reshape(3, 4).min(0))
    assert "the best for each lam" in str(result.table(by="lam"))
    with pytest.raises(ValueError, match=r"`by` must be one of \['lam', 'lr'\], got 'width'"):
        result.table(by="width")


def test_the_repr_of_two_axes_and_the_ends_of_each(result):
    assert repr(result).splitlines() == [
        "SweepResult: 12 x {lr, reg: l2}, 3 folds, 1 step",
        "  lam       0 … 1",
        "  lr        0.01 … 0.3",
        "  min       lam=0.1, lr=0.03: valid loss 0.100 ± 0.017",
        "  paired    lam=0.1, lr=0.03: valid loss 0.100 ± 0.017",
        "  status    36 of 36 lanes finished, 0 diverged",
        "  data      loss at 1 time; params not kept",
    ]
    assert result.table().warnings == ()
    ends = jr.SweepResult.of(TWO, valid=scores(np.where(np.arange(12) == 7, 0.0, MEANS)))
    (found,) = ends.table().warnings
    assert found == "min: lr=0.3 is the largest of the grid; a larger one may be better."
    of_two = jr.SweepResult.of(THREE, valid=np.add.outer(MEANS, [0.1, 0.0]).ravel())
    assert of_two.best().coords["rate"] == 0.5
    assert of_two.table().warnings == (), "of two values, one is always an end"


def test_two_axes_make_a_heat_map_with_the_choice_marked(result):
    shown = result.plot()
    assert isinstance(shown, HeatMapDisplay)
    np.testing.assert_allclose(shown.map_.get_array(), MEANS.reshape(3, 4).T)
    assert shown.choices_["min"].get_xydata().tolist() == [[1, 1]]
    assert [t.get_text() for t in shown.ax_.get_xticklabels()] == ["0", "0.1", "1"]
    assert (shown.ax_.get_xlabel(), shown.ax_.get_ylabel()) == ("λ", "lr")


def test_slices_are_a_curve_for_each_value_of_the_other(result):
    shown = result.plot(along="lam")
    line = shown.lines_["lr = 0.03"]
    np.testing.assert_allclose(shown.curves[1].mean, MEANS.reshape(3, 4)[:, 1])
    assert np.isnan(line.get_ydata()[0]), "0 stands apart"
    assert list(shown.lines_) == [f"lr = {lr}" for lr in RATES]
    assert len({line.get_color() for line in shown.lines_.values()}) == 4
    assert result.plot(along="lr").ax_.get_xlabel() == "lr"
    with pytest.raises(ValueError, match="`along` must be one of"):
        result.plot(along="width")


def test_many_values_of_the_others_are_one_curve_of_the_best():
    rates = np.linspace(0.1, 0.9, 9)
    grid = jr.grid(lambda lam, lr: {"reg": jr.l2(lam), "lr": lr}, lam=LAMS, lr=rates)
    means = np.random.default_rng(0).uniform(size=27)
    shown = jr.SweepResult.of(grid, valid=means).plot(along="lam")
    (curve,) = shown.curves  # there are no training scores to draw
    np.testing.assert_allclose(curve.mean, means.reshape(3, 9).min(1))
    assert curve.label == "validation, best lr"


def test_three_axes_are_a_curve_for_each_of_the_best_of_the_others():
    means = np.add.outer(MEANS, [0.0, 0.05]).ravel()
    got = jr.SweepResult.of(THREE, valid=scores(means), train=scores(means / 2))
    shown = got.plot()
    assert isinstance(shown, ProfilesDisplay)
    assert list(shown.axes_) == ["lam", "lr", "rate"]
    for axis, name in enumerate(shown.axes_):
        others = tuple({0, 1, 2} - {axis})
        trained, validated = shown.displays[name].curves
        np.testing.assert_allclose(validated.mean, means.reshape(3, 4, 2).min(others))
        np.testing.assert_allclose(trained.mean, validated.mean / 2)
    lines = {n: d.choices_["min"].get_xdata()[0] for n, d in shown.displays.items()}
    assert lines == pytest.approx(got.best().coords)
    assert [a.get_xlabel() for a in shown.axes_.values()] == ["λ", "lr", "rate"]
    assert all(a.get_legend() is None for a in shown.axes_.values())
    (legend,) = shown.figure_.legends
    assert [t.get_text() for t in legend.get_texts()][:2] == ["training", "validation"]
    figure, ax = plt.subplots()
    assert got.plot(ax=ax, along="rate").ax_ is ax
    assert got.plot(ax=ax).figure_ is figure


def test_an_axis_of_one_value_is_no_axis_of_a_picture():
    grid = jr.points(BUILD, lam=[0.1, 1.0, 10.0], lr=[0.1] * 3)
    shown = jr.SweepResult.of(grid, valid=[3.0, 1.0, 2.0]).plot()
    assert shown.lines_["validation"].get_ydata().tolist() == [3, 1, 2]


def test_names_of_sweeps_stand_in_a_row():
    part = lambda means: jr.SweepResult.of(jr.grid(jr.l2, lam=[0.1, 1.0]), valid=scores(means))
    both = jr.SweepResult.join(
        {"wide": part(np.array([0.4, 0.5])), "deep": part(np.array([0.6, 0.3]))}
    )
    shown = both.plot(along="sweep")
    assert [t.get_text() for t in shown.ax_.get_xticklabels()] == ["deep", "wide"]
    (curve,) = shown.curves
    np.testing.assert_allclose(curve.mean, [0.3, 0.4])
    assert shown.choices_["min"].get_xdata()[0] == 0
    assert np.isnan(shown.lines_["validation, best λ"].get_ydata()).all(), "no line between names"
    assert list(both.plot().lines_) == ["sweep = wide", "sweep = deep"]


def test_a_point_without_the_coordinate_stands_apart():
    rates = jr.SweepResult.of(jr.grid(lambda lr: {"lr": lr}, lr=RATES), valid=MEANS[:4])
    both = jr.SweepResult.join([rates, jr.SweepResult.of(TWO, valid=MEANS)])
    shown = both.plot()
    assert [t.get_text() for t in shown.ax_.get_yticklabels()] == ["0", "0.1", "1", "-"]
    np.testing.assert_allclose(shown.map_.get_array()[3], MEANS[:4])
    lines = both.plot(along="lam")
    assert next(iter(place(both_lam(both)).special.values())) == "-"
    lines.figure_.canvas.draw()
    assert [t.get_text() for t in lines.ax_.get_xticklabels()][-2:] == ["-", "0"]


def both_lam(result):
    return np.asarray(result.coords["lam"], float)


def test_learning_curves_are_coloured_by_a_strength_and_one_time_is_a_dot():
    swapped = jr.grid(lambda lr, lam: BUILD(lam, lr), lr=RATES, lam=LAMS)
    got = jr.SweepResult.of(swapped, valid=MEANS)
    shown = got.plot_learning_curves()
    assert next(iter(shown.coords)) == "λ"
    assert shown.colorbar_.ax.get_ylabel() == "λ"
    assert shown.lines_[0].get_marker() == "o"


def test_a_random_design_is_dots_and_many_axes_are_parallel():
    rng = np.random.default_rng(0)
    axes = {"lam": 10 ** rng.uniform(-3, 0, 20), "lr": rng.uniform(0.1, 1, 20)}
    dots = jr.SweepResult.of(jr.points(BUILD, **axes), valid=rng.uniform(size=20)).plot()
    np.testing.assert_allclose(dots.map_.get_offsets()[:, 0], axes["lam"], rtol=1e-5)
    assert dots.ax_.get_xscale() == "log"
    three = jr.points(BUILD, **axes, rate=rng.uniform(size=20))
    scored = rng.uniform(size=20)
    scored[3] = np.nan
    shown = jr.SweepResult.of(three, valid=scored).plot_parallel()
    assert [t.get_text() for t in shown.ax_.get_xticklabels()][-1] == "validation loss"
    assert shown.lines_[3] is None
    best = int(np.nanargmin(scored))
    np.testing.assert_allclose(
        shown.choices_["min"].get_ydata(), shown.lines_[best].get_ydata(), rtol=1e-6
    )
