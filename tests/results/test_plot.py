"""Plots: what is drawn is what the result holds."""

import builtins
import dataclasses

import jax
import matplotlib as mpl
import numpy as np
import pytest

import jaxreg as jr
from jaxreg.results.axes import place
from jaxreg.results.curves import ValidationCurveDisplay
from jaxreg.results.learning import LearningCurvesDisplay

mpl.use("Agg")
import matplotlib.pyplot as plt

pytestmark = pytest.mark.usefixtures("no_warnings_and_figures_closed")

K, F, S, T = 5, 3, 2, 4
LAMS = np.array([0.0, 0.01, 0.1, 1.0, 10.0])
RNG = np.random.default_rng(2)
# At λ = 1 the folds differ enough from those of the best for the paired rule to take it.
CURVES = (
    np.array([2.0, 1.5, 1.0, 1.05, 3.0])[:, None, None, None]
    + np.array([-0.3, 0.0, 0.3])[:, None, None]
    + np.array([0.0, 0.0, 0.0, 0.2, 0.0])[:, None, None, None] * np.array([1, -2, 1])[:, None, None]
    + RNG.normal(0, 0.02, (K, F, S, T))
)


def make(coords=None, valid=CURVES, status=None, **extra):
    coords = {"lam": LAMS} if coords is None else coords
    return jr.SweepResult(
        coords=coords,
        points=jax.vmap(jr.l2)(next(iter(coords.values()))),
        time=np.array([0, 10, 20, 30]),
        train={"loss": valid / 2} | {n: v / 2 for n, v in extra.items()},
        valid={"loss": valid} | extra,
        terms={"l2": np.ones(valid.shape)},
        params=None,
        status=np.zeros(valid.shape[:3], int) if status is None else status,
        strengths=tuple({"lam"} & set(coords)),
    )


def diverged(*lams):
    status = np.zeros((K, F, S), int)
    status[list(lams), 0, 0] = 1
    return status


def labels(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_lines_and_bands_are_means_and_standard_errors():
    result = make()
    shown = result.plot()
    for name, split in (("training", "train"), ("validation", "valid")):
        line = shown.lines_[name]
        np.testing.assert_allclose(line.get_xdata()[1:], LAMS[1:])
        np.testing.assert_allclose(line.get_ydata()[1:], result.mean("loss", split)[1:])
        points = shown.bands_[name].get_paths()[0].vertices
        mean, se = result.mean("loss", split)[2], result.stderr("loss", split)[2]
        at = np.sort(np.unique(points[np.isclose(points[:, 0], LAMS[2]), 1]))
        np.testing.assert_allclose(at, [mean - se, mean + se])


def test_zero_has_its_own_place_with_its_error_bar():
    result = make()
    shown = result.plot()
    assert np.isnan(shown.lines_["validation"].get_ydata()[0]), "no line leads to 0"
    point, _, (bar,) = shown.points_["validation"].lines
    np.testing.assert_allclose(point.get_ydata(), result.mean()[:1])
    ends = bar.get_segments()[0][:, 1]
    np.testing.assert_allclose(ends, result.mean()[0] + np.array([-1, 1]) * result.stderr()[0])
    (where,) = point.get_xdata()
    assert 0 < where < 0.01
    shown.figure_.canvas.draw()
    ticks = dict(zip(shown.ax_.get_xticks(), (t.get_text() for t in shown.ax_.get_xticklabels())))
    assert ticks[where] == "0"
    assert not any(where < t < 0.01 for t in ticks), "no number stands on the broken stretch"
    assert not any(where < t < 0.01 for t in shown.ax_.xaxis.get_minorticklocs())


def test_both_choices_are_marked_where_they_are():
    result = make()
    shown = result.plot()
    for rule in ("min", "paired"):
        lam = result.best(rule).coords["lam"]
        np.testing.assert_allclose(shown.choices_[rule].get_xdata(), lam)
    assert result.best("min").index != result.best("paired").index, "else the test is blind"
    assert labels(shown.ax_) == [
        "training",
        "validation",
        "± SE of the difference from the best",
        "best mean: λ = 0.1",
        "paired rule: λ = 1",
    ]


def test_the_inner_band_is_that_of_the_differences_from_the_dotted_line():
    result = make()
    shown = result.plot()
    means, (_, errors) = result.mean(), result.difference(corrected=False)
    low, high = shown.apart_.get_paths()[0].vertices[:, 1].min(), means[1:] + errors[1:]
    assert low == pytest.approx((means - errors)[1:].min())
    heights = shown.apart_.get_paths()[0].vertices[:, 1]
    assert all(np.isclose(heights, h).any() for h in high)
    np.testing.assert_allclose(shown.level_.get_ydata(), means[2])
    many = make({"lam": np.repeat(LAMS[:2], 2), "ratio": np.tile([0.0, 1], 2)}, CURVES[:4])
    assert many.plot(along="lam").apart_ is None, "of several curves it would be a thicket"
    assert make(valid=CURVES[:, :1, :1]).plot().apart_ is None


def test_another_metric_shows_the_choices_by_itself_or_none():
    result = make(accuracy=1 / CURVES)
    shown = result.plot(metric="accuracy")
    np.testing.assert_allclose(
        shown.lines_["validation"].get_ydata()[1:], result.mean("accuracy")[1:]
    )
    assert shown.ax_.get_ylabel() == "accuracy (mean ± standard error)"
    assert not shown.choices_, "who knows whether a larger one is better"
    shown = dataclasses.replace(result, directions={"accuracy": "smaller"}).plot(metric="accuracy")
    worst = result.coords["lam"][np.nanargmin(result.mean("accuracy"))]
    np.testing.assert_allclose(shown.choices_["min"].get_xdata(), worst)


def test_diverged_strengths_stand_at_the_top_edge():
    values = CURVES.copy()
    values[4] = np.inf
    shown = make(valid=values, status=diverged(0, 4)).plot()
    x, y = shown.diverged_.get_data()
    np.testing.assert_allclose(x, place(LAMS).position[[0, 4]])
    assert (y > 0.9).all()
    assert shown.diverged_.get_transform() == shown.ax_.get_xaxis_transform()
    assert np.isnan(shown.lines_["validation"].get_ydata()[4])
    assert "diverged" in labels(shown.ax_)
    assert shown.ax_.get_xlim()[1] > 10


def test_what_was_given_up_is_a_ring_at_its_rung_and_on_no_line():
    status = np.zeros((K, F, S), int)
    status[[1, 3]] = jr.Status.GIVEN_UP
    stop = np.full((K, F, S), T - 1)
    stop[[1, 3]] = 1
    result = dataclasses.replace(make(status=status), stop=stop)
    shown = result.plot()
    np.testing.assert_allclose(shown.given_up_.get_xdata(), LAMS[[1, 3]])
    np.testing.assert_allclose(shown.given_up_.get_ydata(), CURVES[[1, 3], ..., 1].mean((1, 2)))
    assert not set(LAMS[[1, 3]]) & set(shown.lines_["validation"].get_xdata())
    assert "given up at a rung" in labels(shown.ax_)


def test_a_lane_stopped_early_keeps_its_best_in_the_learning_curves():
    curves = CURVES.copy()
    curves[2, 0, 0, 2:] = np.nan
    status, stop = np.zeros((K, F, S), int), np.full((K, F, S), T - 1)
    status[2, 0, 0], stop[2, 0, 0] = jr.Status.STOPPED, 1
    shown = dataclasses.replace(make(valid=curves, status=status), stop=stop).plot_learning_curves()
    kept = CURVES.copy()
    kept[2, 0, 0, 2:] = CURVES[2, 0, 0, 1]
    np.testing.assert_allclose(shown.lines_[2].get_ydata(), kept[2].mean((0, 1)))


def test_everything_diverged_still_draws():
    shown = make(valid=np.full_like(CURVES, np.nan), status=np.ones((K, F, S), int)).plot()
    assert len(shown.diverged_.get_xdata()) == K
    assert shown.choices_ == {}
    assert make(
        valid=np.full_like(CURVES, np.nan), status=np.ones((K, F, S), int)
    ).plot_learning_curves()


def test_further_coordinates_get_a_curve_each():
    lam, ratio = np.repeat([0.1, 1.0, 10.0], 2), np.tile([0.0, 0.5], 3)
    values = RNG.random((6, F, S, T))
    result = make({"lam": lam, "ratio": ratio}, values)
    shown = result.plot(along="lam")
    line = shown.lines_["ratio = 0.5"]
    np.testing.assert_allclose(line.get_xdata(), [0.1, 1.0, 10.0])
    np.testing.assert_allclose(line.get_ydata(), result.mean()[1::2])
    best = result.best().coords
    want = f"best mean: λ = {best['lam']:g}, ratio = {best['ratio']:g}"
    assert want in labels(shown.ax_)


def test_an_unsorted_grid_is_drawn_from_left_to_right():
    order = [3, 1, 4, 2, 0]
    shown = make({"lam": LAMS[order]}, CURVES[order]).plot()
    np.testing.assert_allclose(shown.lines_["validation"].get_xdata()[1:], LAMS[1:])
    np.testing.assert_allclose(
        shown.lines_["validation"].get_ydata()[1:], CURVES[..., -1].mean((1, 2))[1:]
    )


def test_a_single_lane_has_no_error_to_name():
    shown = make(valid=CURVES[:, :1, :1]).plot()
    assert shown.ax_.get_ylabel() == "loss"
    assert list(shown.choices_) == ["min"]


def test_it_draws_where_it_is_told():
    figure, (left, right) = plt.subplots(1, 2)
    result = make()
    assert result.plot(ax=left).ax_ is left
    shown = result.plot_learning_curves(ax=right)
    assert shown.ax_ is right
    assert shown.figure_ is figure
    figure.canvas.draw()


def test_wide_losses_are_drawn_on_a_log_axis():
    assert make().plot().ax_.get_yscale() == "linear"
    wide = CURVES * 10.0 ** np.arange(K)[:, None, None, None]
    assert make(valid=wide).plot().ax_.get_yscale() == "log"


@pytest.mark.parametrize(
    ("lam", "inside", "special"),
    [
        ([0.1, 1.0], (0.1, 1.0), []),
        ([0.0, 0.1, np.inf], (0.1, 0.1), ["0", "∞"]),
        ([0.0], None, []),
        ([-2.0, 0.0, 2.0], None, []),
        ([0.0, 0.2, 0.5], None, []),
        ([1.0, 100.0], (1.0, 100.0), []),
        ([0.05, 0.3, 0.55, 0.8, 1.0], None, []),
        ([0.05, 0.1, 0.25, 0.5, 1.0], (0.05, 1.0), []),
        ([0.2, 0.5, np.inf], (0.2, 0.5), ["∞"]),
    ],
)
def test_places_on_the_axis(lam, inside, special):
    lam = np.array(lam)
    axis = place(lam)
    assert axis.inside == inside
    assert list(axis.special.values()) == special
    assert np.isfinite(axis.position).all()
    assert (np.diff(axis.position) > 0).all(), "the order is kept"
    plain = (lam > 0) & np.isfinite(lam)
    np.testing.assert_array_equal(axis.position[plain], lam[plain])


def test_what_is_missing_and_texts_have_places_too():
    axis = place(np.array([np.nan, 0.0, 0.1, 1.0, np.inf]))
    assert list(axis.special.values()) == ["-", "0", "∞"]
    assert (np.diff(axis.position) > 0).all()
    names = place(np.array(["b", "a", "b"], object))
    assert names.position.tolist() == [1, 0, 1]
    assert names.special == {0: "a", 1: "b"}


@pytest.mark.parametrize("lams", [[0.0, 0.1, np.inf], [-2.0, 0.0, 2.0], [0.0] * 3, [np.inf] * 3])
def test_odd_strengths_draw_without_a_warning(lams):
    result = make({"strength": np.array(lams)}, CURVES[:3])
    for shown in (result.plot(), result.plot_learning_curves()):
        shown.figure_.canvas.draw()
    assert result.plot().ax_.get_xlabel() == "strength"


# --- learning curves ------------------------------------------------------------------------------


def test_learning_curves_are_means_over_folds_and_seeds():
    result = make(error=CURVES + 1)
    shown = result.plot_learning_curves(metric="error", split="train")
    for k, line in enumerate(shown.lines_):
        np.testing.assert_array_equal(line.get_xdata(), result.time)
        np.testing.assert_allclose(line.get_ydata(), ((CURVES + 1) / 2)[k].mean((0, 1)))
    assert shown.ax_.get_ylabel() == "training error"
    assert shown.ax_.get_xlabel() == "step"
    assert isinstance(shown, LearningCurvesDisplay)


def test_lines_are_coloured_by_log_lam_and_the_best_is_thick():
    result = make()
    shown = result.plot_learning_curves()
    norm = shown.colorbar_.mappable.norm
    assert (norm.vmin, norm.vmax) == (0.01, 10)
    for lam, line in list(zip(LAMS, shown.lines_))[1:]:
        np.testing.assert_allclose(
            mpl.colors.to_rgba(line.get_color()), shown.colorbar_.mappable.to_rgba(lam)
        )
    assert shown.lines_[0].get_color() == "black"
    widths = [line.get_linewidth() for line in shown.lines_]
    assert int(np.argmax(widths)) == result.best().index
    assert labels(shown.ax_) == ["λ = 0", "best mean: λ = 0.1"]


def test_a_diverged_curve_ends_in_a_cross_and_squashes_no_other():
    values = CURVES.copy()
    values[4, ..., 1], values[4, ..., 2:] = 1e30, np.nan
    result = make(valid=values, status=diverged(4), accuracy=np.ones_like(values))
    ax = result.plot_learning_curves().ax_
    (cross,) = [line for line in ax.lines if line.get_label() == "diverged"]
    assert cross.get_xdata().tolist() == [10]
    assert ax.get_ylim()[1] < 10
    shown = result.plot_learning_curves(metric="accuracy")
    assert np.isnan(shown.lines_[4].get_ydata()[2:]).all(), "an accuracy of NaN means nothing"


@pytest.mark.parametrize("method", ["plot", "plot_learning_curves"])
def test_unknown_metrics(method):
    with pytest.raises(ValueError, match="`metric` must be one of .* got 'f1'"):
        getattr(make(), method)(metric="f1")
    with pytest.raises(ValueError, match="`split` must be one of .* got 'test'"):
        make().plot_learning_curves(split="test")


def test_without_matplotlib(monkeypatch):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    result = make()
    monkeypatch.setattr(builtins, "__import__", refuse)
    for draw in (result.plot, result.plot_learning_curves):
        with pytest.raises(ImportError, match=r"pip install 'jaxreg\[plots\]'"):
            draw()


def test_displays_can_be_drawn_again():
    shown = ValidationCurveDisplay.from_result(make())
    before = shown.lines_["validation"].get_ydata()
    np.testing.assert_array_equal(shown.plot().lines_["validation"].get_ydata(), before)
    curves = LearningCurvesDisplay.from_result(make())
    assert len(curves.plot().lines_) == K, "the artists are those of the last drawing"
