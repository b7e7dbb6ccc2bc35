"""What a sweep trades for what: two measures of each point against each other, and which are worth having.

A point is **Pareto-optimal** where no other is at least as good in both measures and better in one,

    not exists j: a_j <= a_k, b_j <= b_k, (a_j, b_j) != (a_k, b_k),

with the sign turned where larger is better. Of a variational autoencoder, with the rate to the right and
the data loss upwards, these are the rate–distortion curve that its sweep over β has found; of a sparse one,
with the number of active codes, what describing a row by so many of them costs.

Source: Alemi et al. 2018 ("Fixing a broken ELBO", section 3), for rate and distortion.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from jaxreg.choice import coords_text
from jaxreg.results import summary
from jaxreg.results._pictures import BLUE, GREY, Display, some
from jaxreg.results.axes import add_legend, axes_for, color_scale, dress_values, place
from jaxreg.results.status import Status

__all__ = ["Frontier", "FrontierDisplay"]

_SHOWN = 12  # points of a repr


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Frontier:
    """Two validation measures of K points, and which points are Pareto-optimal; see `SweepResult.frontier`.

    Attributes:
      names: of the measures, that to the right first.
      coords: name -> [K], the coordinates of each point.
      x, y: [K], the means over folds and seeds at the evaluation that counts; NaN where a lane diverged.
      x_stderr, y_stderr: [K], their standard errors, as `SweepResult.stderr` has them.
      larger: of both measures, whether larger is better.
      finite: bool [K], where both means are numbers.
      given_up: bool [K], which points were given up: their means are of a rung, and none is optimal.
      optimal: bool [K], which points are Pareto-optimal.
      title: the name of the points.
      spread: what the standard errors are taken over, in words; "" where there is nothing.

    >>> import jaxreg as jr
    >>> grid = jr.grid(jr.terms.activity_l1, lam=[0.1, 1.0, 10.0])
    >>> loss = [[1.0, 1.2], [1.5, 1.7], [1.7, 1.9]]  # of two folds
    >>> valid = {"loss": loss, "codes": [[9.0, 9.0], [3.0, 5.0], [5.0, 5.0]]}
    >>> jr.SweepResult.of(grid, valid).frontier("codes")
    Frontier: loss (smaller is better) against codes (smaller is better), 3 x activity_l1
      2 Pareto-optimal of 3 points; ± standard error over 2 folds
      lam=1    codes 4.0 ± 1.0  loss 1.60 ± 0.10
      lam=0.1  codes 9.0 ± 0.0  loss 1.10 ± 0.10
    """

    names: tuple[str, str]
    coords: dict[str, np.ndarray]
    x: np.ndarray
    y: np.ndarray
    x_stderr: np.ndarray
    y_stderr: np.ndarray
    larger: tuple[bool, bool]
    finite: np.ndarray
    given_up: np.ndarray
    optimal: np.ndarray
    title: str
    spread: str

    @classmethod
    def from_result(cls, result: Any, x: str, y: str = "loss") -> Frontier:
        """The numbers of a `SweepResult`.

        Raises:
          ValueError: as `SweepResult.frontier`.
        """
        _check_names(result, x, y)
        mean_x, mean_y = means = [result.mean(n) for n in (x, y)]
        larger = result.directions.get(x) == "larger", result.directions.get(y) == "larger"
        finite = np.isfinite(mean_x) & np.isfinite(mean_y)
        given_up = some(result, Status.GIVEN_UP)
        optimal = finite & ~given_up
        optimal[optimal] = _optimal(*(np.where(up, -m, m)[optimal] for up, m in zip(larger, means)))
        return cls(
            names=(x, y),
            coords={n: summary.column(v) for n, v in result.coords.items()},
            x=mean_x,
            y=mean_y,
            x_stderr=result.stderr(x),
            y_stderr=result.stderr(y),
            larger=larger,
            finite=finite,
            given_up=given_up,
            optimal=optimal,
            title=summary.label(result.points),
            spread=summary.spread(result),
        )

    def plot(
        self, ax: Any = None, *, color: Any = None, label: str | None = None
    ) -> FrontierDisplay:
        """Draw into `ax`, or a new figure: points with error bars, the optimal ones filled and joined.

        Args:
          ax: matplotlib axes to draw in; a new figure by default.
          color: one for all points, as where several frontiers stand on the same axes. By default points
            are coloured by the coordinate, where it is one that varies, on a log scale where that is
            spaced by factors.
          label: of the line; "Pareto-optimal" by default.

        Returns:
          A `FrontierDisplay`, which keeps its matplotlib artists.

        Raises:
          ImportError: matplotlib is not installed. TypeError: `ax` is something else than axes.
        """
        return FrontierDisplay(self, color, label).plot(ax)

    def __repr__(self) -> str:
        ways = ["larger" if up else "smaller" for up in self.larger]
        x, y = (f"{name} ({way} is better)" for name, way in zip(self.names, ways))
        n, spread = len(self.x), f"; ± standard error over {self.spread}" if self.spread else ""
        finite = f"{self.finite.sum()} finite points" if not self.finite.all() else f"{n} points"
        gone = self.given_up.sum()
        finite += f", {gone} given up" if gone else ""
        head = f"Frontier: {y} against {x}, {n} x {self.title}"
        return "\n".join(
            [head, f"  {self.optimal.sum()} Pareto-optimal of {finite}{spread}", *self._lines()]
        )

    def _lines(self) -> Iterator[str]:
        """The optimal points from left to right."""
        shown = np.flatnonzero(self.optimal)
        shown = shown[np.argsort(self.x[shown], kind="stable")]
        left, middle = shown[:_SHOWN], len(shown) - _SHOWN
        values = {name: v.tolist() for name, v in self.coords.items()}
        where = [coords_text({n: v[k] for n, v in values.items()}) for k in left]
        columns = [
            where,
            summary.plus_minus(self.x[left], self.x_stderr[left]),
            summary.plus_minus(self.y[left], self.y_stderr[left]),
        ]
        widths = [max(map(len, column), default=0) for column in columns]
        for at, *texts in zip(*columns):
            both = (f"{n} {t:>{w}}" for n, t, w in zip(self.names, texts, widths[1:]))
            yield f"  {at:<{widths[0]}}  {'  '.join(both)}"
        if middle > 0:
            yield f"  … and {middle} more"


@dataclasses.dataclass(repr=False)
class FrontierDisplay(Display):
    """Two measures against each other: points, their standard errors both ways, the optimal ones joined.

    Filled points are Pareto-optimal; those that were given up are grey. `plot` makes the artists: `ax_`,
    `figure_`, `points_` (of all finite points, in their order), `bars_`, `front_` (the line), and
    `colorbar_` where points are coloured by a coordinate.
    """

    frontier: Frontier
    color: Any = None
    label: str | None = None
    ax_: Any = dataclasses.field(default=None, init=False, repr=False)
    figure_: Any = dataclasses.field(default=None, init=False, repr=False)
    points_: Any = dataclasses.field(default=None, init=False, repr=False)
    bars_: Any = dataclasses.field(default=None, init=False, repr=False)
    front_: Any = dataclasses.field(default=None, init=False, repr=False)
    colorbar_: Any = dataclasses.field(default=None, init=False, repr=False)

    @property
    def title(self) -> str:
        """The name of the points."""
        return self.frontier.title

    def plot(self, ax: Any = None) -> FrontierDisplay:
        """Draw into `ax`, or a new figure; returns the display itself."""
        f = self.frontier
        self.ax_ = axes_for(ax)
        self.figure_ = self.ax_.figure
        colors, scale = self._colors()
        self._draw_front("0.45" if scale is not None else self.color or BLUE)
        self._draw_points(colors)
        if scale is not None:
            name = next(iter(_varying(f.coords)))
            self.colorbar_ = self.figure_.colorbar(scale, ax=self.ax_, label=_written(name))
            if (colors == (0, 0, 0, 1)).all(1).any():
                self.ax_.plot(
                    [], [], "o", color="black", markersize=5, label=f"{_written(name)} = 0"
                )
        dress_values(self.ax_, f.y[f.finite])
        self.ax_.grid(True, color="0.9", linewidth=0.8)
        self.ax_.set(xlabel=f.names[0], ylabel=f.names[1])
        lost = len(f.x) - int(f.finite.sum())
        gone = f", {lost} not finite" if lost else ""
        add_legend(self.ax_, f"{len(f.x)} x {f.title}{gone}" if self.label is None else "")
        return self

    def _draw_front(self, color: Any) -> None:
        f = self.frontier
        at = np.flatnonzero(f.optimal)
        at = at[np.argsort(f.x[at], kind="stable")]
        label = "Pareto-optimal" if self.label is None else self.label
        (self.front_,) = self.ax_.plot(
            f.x[at], f.y[at], color=color, linewidth=1.4, label=label, zorder=2
        )

    def _draw_points(self, colors: np.ndarray) -> None:
        f = self.frontier
        at = np.flatnonzero(f.finite)
        x, y = f.x[at], f.y[at]
        errors = [np.nan_to_num(e[at]) for e in (f.x_stderr, f.y_stderr)]
        if any(e.any() for e in errors):
            words = f"± standard error over {f.spread}" if self.label is None else None
            self.bars_ = self.ax_.errorbar(
                x, y, errors[1], errors[0], fmt="none", ecolor=colors[at], elinewidth=1.0, label=words,
                zorder=2.5,
            )  # fmt: skip
        faces = np.where(f.optimal[:, None], colors, 1.0)
        self.points_ = self.ax_.scatter(
            x, y, s=26, facecolors=faces[at], edgecolors=colors[at], linewidths=1.1, zorder=3
        )

    def _colors(self) -> tuple[np.ndarray, Any]:
        """Of each point [K, 4], and the scale that they are of, or None."""
        from matplotlib.colors import to_rgba

        f = self.frontier
        varying = _varying(f.coords)
        values = next(iter(varying.values()), np.zeros(0))
        colors = np.tile(to_rgba(self.color or BLUE), (len(f.x), 1))
        alone = self.color is None and len(varying) == 1 and values.dtype != object
        scale = color_scale(values) if alone else None
        if scale is not None:
            apart = ~np.isfinite(values) | ((values == 0) & (place(values).inside is not None))
            colors = scale.to_rgba(np.where(apart, np.nanmax(values[~apart]), values))
            colors[apart & (values == 0)] = to_rgba("black")
            colors[~np.isfinite(values)] = to_rgba(GREY)
        colors[f.given_up] = to_rgba(GREY)
        return colors, scale


def _varying(coords: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {n: v for n, v in coords.items() if len(set(v.tolist())) > 1}


def _written(name: str) -> str:
    return "λ" if name == "lam" else name


def _optimal(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Which of the points (a, b), smaller is better, no other is at least as good as and better than.

    Such a point has the least b of its own a, and a lesser one than all of a smaller a.
    """
    _, group = np.unique(a, return_inverse=True)
    least = np.full(group.max(initial=-1) + 2, np.inf)
    np.minimum.at(least, group + 1, b)
    before = np.minimum.accumulate(least)
    return (b == least[group + 1]) & (b < before[group])


def _check_names(result: Any, x: Any, y: Any) -> None:
    """Refuse what is no measure, with the remedy."""
    for argument, name in (("x", x), ("y", y)):
        if isinstance(name, str) and name in result.terms:
            raise ValueError(
                f"frontier: `{argument}` must be the name of a measure, and {name!r} is a term, which is "
                "recorded times its strength: no rate where that is swept. Give the trainer a metric of "
                "another name, with the term at a strength of 1, such as metrics={'rate': lambda params, "
                "x: jaxreg.terms.kl()(mean, log_var)} with what your encoder makes of x."
            )
        if not isinstance(name, str) or name not in result.metrics:
            known = [n for n in result.metrics if n not in result.terms]
            raise ValueError(
                f"frontier: `{argument}` must be a measure that was recorded, one of {known}, got {name!r}."
            )
    if x == y:
        raise ValueError(
            f"frontier: `x` and `y` must be two measures, got {x!r} for both. A metric is recorded "
            "alongside the loss by Trainer(metrics={name: function})."
        )
