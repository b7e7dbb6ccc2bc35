"""A frontier holds what the result does, and its optimal points are those of the definition."""

import dataclasses

import jax
import matplotlib as mpl
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_rgba

import jaxreg as jr
from jaxreg.results.frontier import Frontier, FrontierDisplay

mpl.use("Agg")
import matplotlib.pyplot as plt

pytestmark = pytest.mark.usefixtures("no_warnings_and_figures_closed")

LAMS = [0.0, 0.1, 1.0, 10.0, 100.0]
GRID = jr.grid(jr.terms.kl, lam=LAMS)
FOLDS = np.array([-1.0, 0.0, 1.0])  # whose standard error is 1 / sqrt(3)
LOSS = np.array([1.0, 1.5, 2.0, 3.0, 4.0])
RATE = np.array([20.0, 9.0, 10.0, 2.0, 2.5])  # at λ = 1 and 100 there is a better one
OPTIMAL = [0, 1, 3]


def make(loss=LOSS, rate=RATE, grid=GRID, spread=(0.3, 3.0), **of):
    rows = [np.asarray(m)[:, None] + s * FOLDS for m, s in zip((loss, rate), spread)]
    return jr.SweepResult.of(grid, {"loss": rows[0], "rate": rows[1]}, **of)


def brute(points, larger=(False, False)):
    """The definition, one pair of points after another."""
    found = []
    for k, mine in enumerate(points):
        beaten = False
        for other in points:
            as_good = [o >= m if up else o <= m for o, m, up in zip(other, mine, larger)]
            better = [o > m if up else o < m for o, m, up in zip(other, mine, larger)]
            beaten |= all(np.isfinite(other)) and all(as_good) and any(better)
        if all(np.isfinite(mine)) and not beaten:
            found.append(k)
    return found


def test_means_and_standard_errors_are_those_of_the_result():
    result = make()
    found = result.frontier("rate")
    assert isinstance(found, Frontier)
    assert found.names == ("rate", "loss")
    np.testing.assert_allclose(found.x, RATE)
    np.testing.assert_allclose(found.y, LOSS)
    np.testing.assert_allclose(found.x_stderr, 3 / np.sqrt(3))
    np.testing.assert_allclose(found.y_stderr, 0.3 / np.sqrt(3))
    np.testing.assert_array_equal(found.y_stderr, result.stderr("loss"))
    assert np.flatnonzero(found.optimal).tolist() == OPTIMAL
    turned = result.frontier("loss", "rate")
    np.testing.assert_array_equal(turned.x, found.y)
    np.testing.assert_array_equal(turned.optimal, found.optimal)
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.x = RATE


def test_seeds_repeats_and_the_last_evaluation():
    draws = np.random.default_rng(0).normal(5, 1, (2, 5, 4, 3, 2))
    result = jr.SweepResult.of(GRID, {"loss": draws[0], "rate": draws[1]})
    result = dataclasses.replace(result, repeats=2)
    found = result.frontier("rate")
    folds = draws[1, ..., -1].mean(2)
    np.testing.assert_allclose(found.x, folds.mean(1))
    each = folds.reshape(5, 2, 2)
    np.testing.assert_allclose(found.x_stderr, np.sqrt((each.var(2, ddof=1) / 2).mean(1)))
    assert "± standard error over 2 folds, the mean of 2 repeats (each the mean of 3" in repr(found)


values = st.lists(
    st.tuples(*[st.sampled_from([0.0, 1.0, 2.0, 3.0, 4.0, np.nan, np.inf])] * 2),
    min_size=1,
    max_size=12,
)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(points=values, larger=st.tuples(st.booleans(), st.booleans()))
def test_the_optimal_points_are_those_of_the_definition(points, larger):
    grid = jr.points(jr.l2, lam=np.arange(1.0, len(points) + 1))
    loss, one, two = (np.array(v) for v in ([1.0] * len(points), *zip(*points)))
    result = jr.SweepResult.of(grid, {"loss": loss, "one": one, "two": two})
    ways = {n: "larger" if up else "smaller" for n, up in zip(("one", "two"), larger)}
    found = dataclasses.replace(result, directions=ways).frontier("one", "two")
    assert found.larger == larger
    assert np.flatnonzero(found.optimal).tolist() == brute(points, larger)


def test_many_points_are_those_of_the_definition():
    a, b = np.random.default_rng(1).normal(size=(2, 300))
    grid = jr.points(jr.l2, lam=np.arange(300.0))
    found = jr.SweepResult.of(grid, {"loss": b, "rate": a}).frontier("rate")
    assert np.flatnonzero(found.optimal).tolist() == brute(list(zip(a, b)))


def test_equals_are_all_optimal_and_a_diverged_point_is_none():
    found = make(loss=[1.0, 1.0, 2.0, np.nan, 0.5], rate=[3.0, 3.0, 3.0, 1.0, np.inf]).frontier(
        "rate"
    )
    assert np.flatnonzero(found.optimal).tolist() == [0, 1]
    assert found.finite.tolist() == [True, True, True, False, False]
    assert np.isnan(found.x[3]), "a rate of a diverged lane means nothing"


def test_what_was_given_up_is_no_rival():
    result = make()
    status = np.array(result.status)
    status[3] = jr.Status.GIVEN_UP
    found = dataclasses.replace(result, status=status).frontier("rate")
    assert np.flatnonzero(found.optimal).tolist() == [0, 1, 4]
    assert found.finite.all()
    assert "5 points, 1 given up" in repr(found)
    shown = found.plot()
    assert to_rgba("#6E6E6E") == tuple(shown.points_.get_edgecolors()[3])


def test_the_repr_lists_the_optimal_points_from_left_to_right():
    result = dataclasses.replace(make(loss=[*LOSS[:4], np.nan]), directions={"rate": "larger"})
    assert repr(result.frontier("rate")).splitlines() == [
        "Frontier: loss (smaller is better) against rate (larger is better), 5 x kl",
        "  1 Pareto-optimal of 4 finite points; ± standard error over 3 folds",
        "  lam=0  rate 20.0 ± 1.7  loss 1.00 ± 0.17",
    ]
    lines = repr(make().frontier("rate")).splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["lam=10", "lam=0.1", "lam=0"]
    assert len({len(line) for line in lines[2:]}) == 1, "they are aligned"
    line = jr.points(jr.l2, lam=np.arange(1.0, 21.0))
    many = make(np.arange(20.0), -np.arange(20.0), line).frontier("rate")
    assert repr(many).splitlines()[-1] == "  … and 8 more"


# --- what is refused ------------------------------------------------------------------------------


def test_a_term_is_no_rate():
    def trainer(point):
        def loss(params, x):
            return ((x - params) ** 2).mean(), {"kl": point["kl"](params[None], params[None])}

        rate = lambda params, x: jr.terms.kl()(params[None], params[None])
        return jr.Trainer(lambda key: np.ones(2), loss, optax.sgd(0.1), {"rate": rate})

    result = jr.sweep(
        trainer,
        jr.grid(lambda lam: {"kl": jr.terms.kl(lam)}, lam=[0.5, 2.0]),
        (np.zeros((6, 2), np.float32),),
        folds=2,
        steps=3,
        key=jax.random.key(0),
        progress=False,
    )
    np.testing.assert_allclose(result.frontier("rate").x * [0.5, 2], result.mean("kl"), rtol=1e-5)
    text = (
        "frontier: `x` must be the name of a measure, and 'kl' is a term, which is recorded times its "
        "strength: .* metrics={'rate': lambda params, x: jaxreg.terms.kl.*mean, log_var"
    )
    with pytest.raises(ValueError, match=text):
        result.frontier("kl")
    with pytest.raises(ValueError, match="frontier: `y` must .*'kl' is a term"):
        result.frontier("rate", "kl")
    with pytest.raises(ValueError, match=r"one of \['loss', 'rate'\], got 'nats'"):
        result.frontier("nats")


def test_a_term_of_a_penalty_is_none_either():
    with pytest.raises(ValueError, match="'l2' is a term"):
        make(terms={"l2": np.ones((5, 3))}).frontier("l2")


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        (("nats",), r"frontier: `x` must be a measure .* one of \['loss', 'rate'\], got 'nats'"),
        (("rate", 3), r"frontier: `y` must be a measure .* one of \['loss', 'rate'\], got 3"),
        (("rate", ["loss"]), r"`y` must be a measure .* got \['loss'\]"),
        (("loss",), r"frontier: `x` and `y` must be two measures, got 'loss' for both\. A metric"),
        (("rate", "rate"), "two measures, got 'rate' for both"),
    ],
)
def test_what_is_no_pair_of_measures(asked, text):
    with pytest.raises(ValueError, match=text):
        make().frontier(*asked)


# --- the picture ----------------------------------------------------------------------------------


def legend(shown):
    return [text.get_text() for text in shown.ax_.get_legend().get_texts()]


def test_points_bars_and_the_line_are_what_it_holds():
    found = make().frontier("rate")
    shown = found.plot()
    assert isinstance(shown, FrontierDisplay)
    assert repr(shown) == "FrontierDisplay: kl"
    np.testing.assert_allclose(shown.points_.get_offsets(), np.stack([RATE, LOSS], 1))
    np.testing.assert_allclose(shown.front_.get_xydata(), [[2.0, 3.0], [9.0, 1.5], [20.0, 1.0]])
    across, upwards = (bars.get_segments() for bars in shown.bars_.lines[2])
    for k in range(5):
        x, y = found.x_stderr[k], found.y_stderr[k]
        np.testing.assert_allclose(across[k][:, 0], [RATE[k] - x, RATE[k] + x])
        np.testing.assert_allclose(upwards[k][:, 1], [LOSS[k] - y, LOSS[k] + y])
    assert (shown.ax_.get_xlabel(), shown.ax_.get_ylabel()) == ("rate", "loss")
    assert legend(shown) == ["Pareto-optimal", "λ = 0", "± standard error over 3 folds"]
    filled = (shown.points_.get_facecolors() == shown.points_.get_edgecolors()).all(1)
    assert np.flatnonzero(filled).tolist() == OPTIMAL
    shown.figure_.canvas.draw()


def test_one_axis_is_coloured_by_its_logarithm():
    shown = make().frontier("rate").plot()
    norm = shown.colorbar_.mappable.norm
    assert isinstance(norm, mpl.colors.LogNorm)
    assert (norm.vmin, norm.vmax) == (pytest.approx(0.1), 100)
    assert shown.colorbar_.ax.get_ylabel() == "λ"
    colors = shown.points_.get_edgecolors()
    assert tuple(colors[0]) == to_rgba("black"), "0 has no place on the scale"
    for lam, color in zip(LAMS[1:], colors[1:]):
        np.testing.assert_allclose(color, shown.colorbar_.mappable.to_rgba(lam), atol=0.01)
    plain = make(grid=jr.grid(lambda rate: {"rate": rate}, rate=[0.1, 0.2, 0.3, 0.4, 0.5]))
    assert not isinstance(plain.frontier("rate").plot().colorbar_.mappable.norm, mpl.colors.LogNorm)


def test_several_axes_names_and_a_colour_of_ones_own_are_plain():
    pairs = jr.points(
        lambda lam, lr: {"kl": jr.terms.kl(lam), "lr": lr}, lam=LAMS, lr=[1.0, 2.0, 3.0, 4.0, 5.0]
    )
    assert make(grid=pairs).frontier("rate").plot().colorbar_ is None
    both = jr.SweepResult.join({"a": make(), "b": make(LOSS + 1)})
    assert both.frontier("rate").plot().colorbar_ is None
    figure, ax = plt.subplots()
    first = make().frontier("rate").plot(ax, color="C0", label="first")
    second = make(LOSS + 1).frontier("rate").plot(ax, color="C1", label="second")
    assert first.ax_ is second.ax_ is ax
    assert second.colorbar_ is None
    assert {tuple(c) for c in second.points_.get_edgecolors()} == {to_rgba("C1")}
    assert second.front_.get_color() == "C1"
    assert legend(second) == ["first", "second"]
    figure.canvas.draw()


def test_what_is_not_finite_is_counted_and_not_drawn():
    shown = make(loss=[np.nan, *LOSS[1:]]).frontier("rate").plot()
    assert len(shown.points_.get_offsets()) == 4
    assert shown.ax_.get_legend().get_title().get_text() == "5 x kl, 1 not finite"
    nothing = make(loss=np.full(5, np.nan)).frontier("rate")
    assert "0 Pareto-optimal of 0 finite points" in repr(nothing)
    nothing.plot().figure_.canvas.draw()


def test_a_single_lane_has_no_bars():
    one = jr.SweepResult.of(GRID, {"loss": LOSS, "rate": RATE}).frontier("rate")
    shown = one.plot()
    assert shown.bars_ is None
    assert "standard error" not in repr(one)
    assert legend(shown) == ["Pareto-optimal", "λ = 0"]


def test_axes_of_another_kind_are_refused():
    with pytest.raises(TypeError, match="`ax` must be axes of matplotlib"):
        make().frontier("rate").plot("axes")
