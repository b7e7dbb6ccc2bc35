"""The validation curve: a metric against a coordinate, one line for each value of another.

Each picture of a result is a display: a dataclass that holds the numbers it shows, draws them with
`plot(ax)`, and keeps its matplotlib artists in attributes that end in an underscore, to be restyled by
you. Get one by `result.plot()`, `result.plot_learning_curves()` or `result.plot_parallel()`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from jaxreg.results import summary
from jaxreg.results._pictures import (
    BLUE,
    GREY,
    RED,
    RULES,
    Display,
    choice_indices,
    coordinates,
    ordered,
    point_text,
    some,
)  # fmt: skip
from jaxreg.results.axes import Axis, add_legend, axes_for, dress, dress_values, place
from jaxreg.results.status import Status

__all__ = ["ValidationCurveDisplay"]

_GROUPS = (BLUE, "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#000000", "#F0E442")


@dataclasses.dataclass
class Curve:
    """Means and standard errors of one split for the points `index`, in the order of the coordinate.

    `apart` are the standard errors of the differences from the best point, in pairs of lanes.
    """

    label: str
    index: np.ndarray
    mean: np.ndarray
    stderr: np.ndarray
    apart: np.ndarray
    color: str
    dashed: bool


@dataclasses.dataclass(repr=False)
class ValidationCurveDisplay(Display):
    """Training and validation means against a coordinate, with ± one standard error and both choices.

    The inner, darker band of a lone validation curve is ± one standard error of the difference from the
    best point: where it reaches down to the dotted line, the two cannot be told apart.

    Fields hold the numbers; `plot` makes the artists: `ax_`, `figure_`, `lines_`, `bands_` and
    `points_` by the label of the curve, `apart_` (the inner band), `level_` (the dotted line),
    `choices_` by rule, `diverged_` and `given_up_`. What was given
    up is of the rung where it was: rings, apart from the lines.
    """

    coords: dict[str, np.ndarray]
    metric: str
    title: str
    curves: list[Curve]
    diverged: np.ndarray
    given_up: np.ndarray
    choices: dict[str, int]
    ax_: Any = dataclasses.field(default=None, init=False, repr=False)
    figure_: Any = dataclasses.field(default=None, init=False, repr=False)
    lines_: dict[str, Any] = dataclasses.field(default_factory=dict, init=False, repr=False)
    bands_: dict[str, Any] = dataclasses.field(default_factory=dict, init=False, repr=False)
    points_: dict[str, Any] = dataclasses.field(default_factory=dict, init=False, repr=False)
    choices_: dict[str, Any] = dataclasses.field(default_factory=dict, init=False, repr=False)
    apart_: Any = dataclasses.field(default=None, init=False, repr=False)
    level_: Any = dataclasses.field(default=None, init=False, repr=False)
    diverged_: Any = dataclasses.field(default=None, init=False, repr=False)
    given_up_: Any = dataclasses.field(default=None, init=False, repr=False)

    @classmethod
    def from_result(
        cls,
        result: Any,
        ax: Any = None,
        metric: str = "loss",
        along: str | None = None,
        best: bool = False,
    ) -> ValidationCurveDisplay:
        """Draw the last step of a `SweepResult`.

        Args:
          result: the sweep's result.
          ax: matplotlib axes to draw in; a new figure by default.
          metric: "loss", or one of the trainer's metrics. The choices shown are those by it, or by
            the loss if it does not know its direction.
          along: the coordinate to draw against; the first strength by default. There is a curve for each
            value of the others, or, where these are many, one of the best of them.
          best: the curve of the best of the others in any case.

        Raises:
          ImportError: matplotlib is not installed. ValueError: no such metric or coordinate.
        """
        return cls.of_result(result, metric, along, best).plot(ax)

    @classmethod
    def of_result(
        cls, result: Any, metric: str = "loss", along: str | None = None, best: bool = False
    ) -> ValidationCurveDisplay:
        """The numbers of `from_result`, not drawn yet."""
        coords = ordered(result, along)
        return cls(
            coords=coords,
            metric=metric,
            title=summary.label(result.points),
            curves=list(_curves(result, metric, coords, best)),
            diverged=some(result, Status.DIVERGED),
            given_up=some(result, Status.GIVEN_UP),
            choices=choice_indices(result, metric),
        )

    def plot(self, ax: Any = None) -> ValidationCurveDisplay:
        """Draw into `ax`, or a new figure; returns the display itself."""
        self.ax_ = axes_for(ax)
        self.figure_ = self.ax_.figure
        name, lam = next(iter(self.coords.items()))
        axis = place(lam)
        for curve in self.curves:
            self._draw_curve(curve, axis)
        for rule, k in self.choices.items():
            self._draw_choice(rule, k, axis)
        self._draw_diverged(axis)
        self._draw_given_up(axis)
        dress(self.ax_, axis)
        # Scaled for the validation curves: a training loss near 0 would flatten their valley.
        dress_values(self.ax_, np.concatenate([c.mean for c in self.curves if not c.dashed]))
        known = any(np.isfinite(c.stderr).any() for c in self.curves)
        label = f"{self.metric} (mean ± standard error)" if known else self.metric
        self.ax_.set(xlabel=name, ylabel=label)
        add_legend(self.ax_, self.title)
        return self

    def _draw_curve(self, curve: Curve, axis: Axis) -> None:
        # What was given up is of another step: its points stand alone, and no line leads through them.
        went_on = ~self.given_up[curve.index]
        x, mean, stderr = (
            v[went_on] for v in (axis.position[curve.index], curve.mean, curve.stderr)
        )
        style = "--" if curve.dashed else "-"
        band = np.where(np.isfinite(stderr), stderr, 0)
        # 0 and infinity are not to scale, so no line leads there.
        scaled = ~np.isin(x, list(axis.special))
        look = {"color": curve.color, "marker": "o", "markersize": 3.5}
        y = np.where(scaled, mean, np.nan)
        (line,) = self.ax_.plot(x, y, style, label=curve.label, linewidth=1.6, **look)
        self.lines_[curve.label] = line
        self.bands_[curve.label] = self.ax_.fill_between(
            x, y - band, y + band, color=curve.color, linewidth=0, alpha=self._alpha()
        )
        alone = sum(not c.dashed for c in self.curves) == 1
        if alone and not curve.dashed and "min" in self.choices:
            self._draw_apart(x, y, curve.apart[went_on], curve)
        if not scaled.all():
            ends = [v[~scaled] for v in (x, mean, band)]
            self.points_[curve.label] = self.ax_.errorbar(
                *ends, linestyle="none", capsize=3, **look
            )

    def _draw_apart(self, x: np.ndarray, y: np.ndarray, apart: np.ndarray, curve: Curve) -> None:
        """How well differences from the best are known, and the level that they are taken from."""
        best = np.flatnonzero(curve.index == self.choices["min"])
        if not best.size or not np.isfinite(apart).any():
            return
        band = np.where(np.isfinite(apart), apart, 0)
        self.apart_ = self.ax_.fill_between(
            x, y - band, y + band, color=curve.color, linewidth=0, alpha=0.35,
            label="± SE of the difference from the best",
        )  # fmt: skip
        self.level_ = self.ax_.axhline(
            curve.mean[best[0]], color=curve.color, linestyle=":", linewidth=1.2, zorder=1
        )

    def _alpha(self) -> float:
        """Bands of many curves lie upon each other: the fainter the more."""
        return 0.25 / (1 + sum(not c.dashed for c in self.curves))

    def _draw_choice(self, rule: str, k: int, axis: Axis) -> None:
        color, style, words = RULES[rule]
        label = f"{words}: {point_text(self.coords, k)}"
        self.choices_[rule] = self.ax_.axvline(
            axis.position[k], color=color, linestyle=style, linewidth=1.4, label=label, zorder=1
        )

    def _draw_given_up(self, axis: Axis) -> None:
        """Rings at the validation means that are of a rung and not of the end."""
        curve = next(c for c in self.curves if not c.dashed)
        ringed = self.given_up[curve.index] & np.isfinite(curve.mean)
        if ringed.any():
            (self.given_up_,) = self.ax_.plot(
                axis.position[curve.index][ringed], curve.mean[ringed], "o", color=GREY,
                markerfacecolor="none", markersize=8, label="given up at a rung", zorder=4,
            )  # fmt: skip

    def _draw_diverged(self, axis: Axis) -> None:
        if not self.diverged.any():
            return
        x = axis.position[self.diverged]
        (self.diverged_,) = self.ax_.plot(
            x, np.full(len(x), 0.97), "x", color=RED, markersize=7, markeredgewidth=1.8,
            transform=self.ax_.get_xaxis_transform(), label="diverged", zorder=4,
        )  # fmt: skip


def _curves(result: Any, metric: str, coords: dict[str, np.ndarray], best: bool) -> Iterator[Curve]:
    """Training and validation curve; of several groups of points that of validation alone."""
    along, *_ = coords.values()
    groups = _groups(result, coords, best or along.dtype == object)
    alone = len(groups) == 1
    apart = _errors_of_differences(result, metric)
    for i, (name, index) in enumerate(groups.items()):
        index = index[np.argsort(place(along).position[index], kind="stable")]
        trained = alone and np.isfinite(result.mean(metric, "train")).any()
        for split in ("train", "valid") if trained else ("valid",):
            word = "training" if split == "train" else "validation"
            yield Curve(
                label=name if not alone else f"{word}, {name}" if name else word,
                index=index,
                mean=result.mean(metric, split)[index],
                stderr=result.stderr(metric, split)[index],
                apart=apart[index],
                color=GREY if split == "train" else _GROUPS[i % len(_GROUPS)],
                dashed=split == "train",
            )


def _errors_of_differences(result: Any, metric: str) -> np.ndarray:
    """Standard errors [K] of the paired rule's differences; NaN where there is no best to differ from."""
    if "min" not in choice_indices(result, metric):
        return np.full(len(result.status), np.nan)
    return result.difference(metric, corrected=False)[1]


def _groups(result: Any, coords: dict[str, np.ndarray], best: bool) -> dict[str, np.ndarray]:
    """Points that differ by the first coordinate alone, by the values of the others.

    Where that would be more curves than can be told apart, the best of the others at each value.
    """
    (first, along), *_ = coords.items()
    others = {n: v for n, v in coordinates(result, summary.varying(result)).items() if n != first}
    names = [point_text(others, k) for k in range(len(along))]
    groups = {name: np.flatnonzero([n == name for n in names]) for name in dict.fromkeys(names)}
    if len(groups) <= (1 if best else len(_GROUPS)):
        return groups
    return {f"best {', '.join(others)}": summary.best_of_each(result, along)}
