"""Results over several axes: a map of two, parallel lines through many."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from jaxreg.results import summary
from jaxreg.results._pictures import (
    GREY,
    RED,
    RULES,
    Display,
    choice_indices,
    coordinates,
    short,
    some,
)  # fmt: skip
from jaxreg.results.axes import add_legend, axes_for, dress, place, pyplot
from jaxreg.results.status import Status

__all__ = ["HeatMapDisplay", "ParallelDisplay"]

_MARKS = {"min": ("*", "white", 17), "paired": ("o", "none", 13)}


@dataclasses.dataclass(repr=False)
class HeatMapDisplay(Display):
    """A metric over two coordinates: cells where the points are a product, dots where they are not.

    Fields hold the numbers; `plot` makes the artists: `ax_`, `figure_`, `map_`, `colorbar_`, `choices_`
    by rule and `diverged_`.
    """

    coords: dict[str, np.ndarray]  # the first is drawn to the right, the second upwards
    label: str
    title: str
    score: np.ndarray
    diverged: np.ndarray
    choices: dict[str, int]
    ax_: Any = dataclasses.field(default=None, init=False, repr=False)
    figure_: Any = dataclasses.field(default=None, init=False, repr=False)
    map_: Any = dataclasses.field(default=None, init=False, repr=False)
    colorbar_: Any = dataclasses.field(default=None, init=False, repr=False)
    choices_: dict[str, Any] = dataclasses.field(default_factory=dict, init=False, repr=False)
    diverged_: Any = dataclasses.field(default=None, init=False, repr=False)

    @classmethod
    def from_result(cls, result: Any, ax: Any = None, metric: str = "loss") -> HeatMapDisplay:
        """Draw the validation means of a `SweepResult` over its two coordinates that vary.

        Raises:
          ImportError: matplotlib is not installed. ValueError: no such metric.
        """
        varying = [n for n, _ in zip(summary.varying(result), range(2))]
        display = cls(
            coords=coordinates(result, varying),
            label=f"validation {metric}",
            title=summary.label(result.points),
            score=result.mean(metric),
            diverged=some(result, Status.DIVERGED),
            choices=choice_indices(result, metric),
        )
        return display.plot(ax)

    def plot(self, ax: Any = None) -> HeatMapDisplay:
        """Draw into `ax`, or a new figure; returns the display itself."""
        self.ax_ = axes_for(ax)
        self.figure_ = self.ax_.figure
        self.ax_.grid(False)
        (x_name, x), (y_name, y) = self.coords.items()
        columns, rows = (np.unique(v) for v in (x, y))
        product = len(x) == len(columns) * len(rows) and len({*zip(x, y)}) == len(x)
        at = self._draw_cells(x, y, columns, rows) if product else self._draw_dots(x, y)
        for rule, k in self.choices.items():
            (marker, face, size), (edge, _, words) = _MARKS[rule], RULES[rule]
            (self.choices_[rule],) = self.ax_.plot(
                *at[k], marker, color=edge, markerfacecolor=face, markeredgecolor=edge,
                markersize=size, markeredgewidth=1.6, label=words, linestyle="none", zorder=4,
            )  # fmt: skip
        if self.diverged.any():
            (self.diverged_,) = self.ax_.plot(
                *zip(*(at[k] for k in np.flatnonzero(self.diverged))), "x", color=RED,
                markeredgewidth=1.8, label="diverged", zorder=3,
            )  # fmt: skip
        self.colorbar_ = self.figure_.colorbar(
            self.map_, ax=self.ax_, label=self.label, extend="max"
        )
        self.ax_.set(xlabel=x_name, ylabel=y_name)
        add_legend(self.ax_, self.title)
        return self

    def _draw_cells(self, x: Any, y: Any, columns: Any, rows: Any) -> list[tuple[float, float]]:
        """Cells of one size, labelled by their values: a grid is seldom evenly spaced."""
        i, j = np.searchsorted(columns, x), np.searchsorted(rows, y)
        cells = np.full((len(rows), len(columns)), np.nan)
        cells[j, i] = self.score
        norm = _norm(self.score)
        self.map_ = self.ax_.imshow(cells, origin="lower", aspect="auto", cmap=_colors(), norm=norm)
        for axis, values in (("x", columns), ("y", rows)):
            ticks = np.arange(0, len(values), -(-len(values) // 10))
            self.ax_.tick_params(axis, labelsize="small" if len(ticks) > 6 else "medium")
            getattr(self.ax_, f"set_{axis}ticks")(ticks, [short(values[t]) for t in ticks])
        return list(zip(i.astype(float), j.astype(float)))

    def _draw_dots(self, x: Any, y: Any) -> list[tuple[float, float]]:
        at = [place(v) for v in (x, y)]
        self.map_ = self.ax_.scatter(
            at[0].position, at[1].position, c=self.score, cmap=_colors(), norm=_norm(self.score), s=45,
            edgecolors=GREY, linewidths=0.5,
        )  # fmt: skip
        for which, axis in zip("xy", at):
            dress(self.ax_, axis, which)
        return list(zip(at[0].position, at[1].position))


@dataclasses.dataclass(repr=False)
class ParallelDisplay(Display):
    """One line per point through an axis for each coordinate and the score, coloured by the score.

    Fields hold the numbers; `plot` makes the artists: `ax_`, `figure_`, `lines_` (one per point, None
    where the score is not finite) and `choices_` by rule.
    """

    coords: dict[str, np.ndarray]
    label: str
    title: str
    score: np.ndarray
    choices: dict[str, int]
    ax_: Any = dataclasses.field(default=None, init=False, repr=False)
    figure_: Any = dataclasses.field(default=None, init=False, repr=False)
    lines_: list[Any] = dataclasses.field(default_factory=list, init=False, repr=False)
    choices_: dict[str, Any] = dataclasses.field(default_factory=dict, init=False, repr=False)

    @classmethod
    def from_result(cls, result: Any, ax: Any = None, metric: str = "loss") -> ParallelDisplay:
        """Draw the validation means of a `SweepResult`.

        Raises:
          ImportError: matplotlib is not installed. ValueError: no such metric.
        """
        display = cls(
            coordinates(result), f"validation {metric}", summary.label(result.points),
            result.mean(metric), choice_indices(result, metric),
        )  # fmt: skip
        return display.plot(ax)

    def plot(self, ax: Any = None) -> ParallelDisplay:
        """Draw into `ax`, or a new figure; returns the display itself."""
        self.ax_ = axes_for(ax)
        self.figure_ = self.ax_.figure
        finite = np.isfinite(self.score)
        columns = {**self.coords, self.label: self.score}
        heights = np.full((len(self.score), len(columns)), np.nan)
        heights[finite] = np.stack([_height(v[finite]) for v in columns.values()], 1)
        norm, colors = _norm(self.score), _colors()
        self.lines_ = [None] * len(heights)
        # The best on top.
        for k in sorted(np.flatnonzero(finite), key=lambda k: -self.score[k]):
            look = {"color": colors(norm(self.score[k])), "linewidth": 1.0, "alpha": 0.7}
            (self.lines_[k],) = self.ax_.plot(heights[k], **look)
        for rule, k in self.choices.items():
            color, style, words = RULES[rule]
            (self.choices_[rule],) = self.ax_.plot(
                heights[k], style, color=color, linewidth=2.6, label=words, zorder=4
            )
        for i, values in enumerate(columns.values()):
            self._draw_axis(i, values[finite], heights[finite, i])
        self.ax_.set_xlim(-0.3, len(columns) - 0.55)
        self.ax_.set_ylim(-0.06, 1.06)
        self.ax_.set_xticks(range(len(columns)), columns)
        self.ax_.set_yticks([])
        self.ax_.spines[:].set_visible(False)
        add_legend(self.ax_, self.title)
        return self

    def _draw_axis(self, i: int, values: np.ndarray, heights: np.ndarray) -> None:
        self.ax_.axvline(i, color=GREY, linewidth=1.0, zorder=1)
        _, shown = np.unique(values, return_index=True)
        if len(shown) > 6:
            shown = shown[np.linspace(0, len(shown) - 1, 6).astype(int)]
        box = {"facecolor": "white", "alpha": 0.8, "lw": 0, "pad": 0.6}
        for k in shown:
            self.ax_.annotate(
                short(values.tolist()[k]), (i, heights[k]), (4, 0), textcoords="offset points",
                va="center", fontsize="small", bbox=box, zorder=5,
            )  # fmt: skip


def _height(values: np.ndarray) -> np.ndarray:
    """Values on a scale from 0 to 1, by logarithm where all are positive or 0; texts in a row."""
    axis = place(values)
    at = np.log(axis.position) if axis.inside else axis.position
    span = np.ptp(at) if at.size else 0.0
    return (at - at.min()) / span if span else np.full(len(at), 0.5)


def _norm(score: np.ndarray) -> Any:
    """Colours that show the valley: beyond twice the range of the better half all are alike."""
    from matplotlib.colors import Normalize

    finite = np.sort(score[np.isfinite(score)])
    if not finite.size:
        return Normalize(0, 1)
    low, middle = finite[0], finite[len(finite) // 2]
    return Normalize(low, max(min(finite[-1], low + 2 * (middle - low)), low + 1e-12), clip=True)


def _colors() -> Any:
    return pyplot().get_cmap("viridis_r")
