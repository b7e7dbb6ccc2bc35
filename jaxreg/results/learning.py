"""The way there: a metric against the step, one line per point."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from jaxreg.results import summary
from jaxreg.results._pictures import (
    BLUE,
    GREY,
    RED,
    Display,
    choice_indices,
    ordered,
    point_text,
    some,
)
from jaxreg.results.axes import add_legend, axes_for, color_scale, dress_values, place
from jaxreg.results.status import Status

__all__ = ["LearningCurvesDisplay"]


@dataclasses.dataclass(repr=False)
class LearningCurvesDisplay(Display):
    """A metric against the step, one line per point, coloured by the first strength.

    Fields hold the numbers, `curves` [K, T] averaged over folds and seeds; `plot` makes the artists:
    `ax_`, `figure_`, `lines_` (one per point) and `colorbar_`.
    """

    coords: dict[str, np.ndarray]
    label: str
    title: str
    time: np.ndarray
    curves: np.ndarray
    diverged: np.ndarray
    choices: dict[str, int]
    ax_: Any = dataclasses.field(default=None, init=False, repr=False)
    figure_: Any = dataclasses.field(default=None, init=False, repr=False)
    lines_: list[Any] = dataclasses.field(default_factory=list, init=False, repr=False)
    colorbar_: Any = dataclasses.field(default=None, init=False, repr=False)

    @classmethod
    def from_result(
        cls, result: Any, ax: Any = None, metric: str = "loss", split: str = "valid"
    ) -> LearningCurvesDisplay:
        """Draw the curves of a `SweepResult`; `split` is "valid" or "train".

        Raises:
          ImportError: matplotlib is not installed. ValueError: no such metric or split.
        """
        result.mean(metric, split)  # the same errors for unknown names
        values = _carried(result, getattr(result, split)[metric])
        with np.errstate(all="ignore"):
            loss = _carried(result, getattr(result, split)["loss"]).mean((1, 2))
            # An accuracy of NaN outputs is a number, and means nothing.
            curves = np.where(np.isfinite(loss), values.mean((1, 2)), np.nan)
        coords = {n: v for n, v in ordered(result).items() if v.dtype != object}
        display = cls(
            coords=coords or {"point": np.arange(len(curves), dtype=float)},
            label=f"{'training' if split == 'train' else 'validation'} {metric}",
            title=summary.label(result.points),
            time=np.asarray(result.time),
            curves=curves,
            diverged=some(result, Status.DIVERGED),
            choices=choice_indices(result, metric),
        )
        return display.plot(ax)

    def plot(self, ax: Any = None) -> LearningCurvesDisplay:
        """Draw into `ax`, or a new figure; returns the display itself."""
        self.ax_ = axes_for(ax)
        self.figure_ = self.ax_.figure
        name, lam = next(iter(self.coords.items()))
        scale, self.lines_ = color_scale(lam), []
        for k, curve in enumerate(self.curves):
            (line,) = self.ax_.plot(self.time, curve, **self._look(k, lam, scale))
            self.lines_.append(line)
        self._draw_ends()
        if scale is not None:
            self.colorbar_ = self.figure_.colorbar(scale, ax=self.ax_, label=name)
        self._dress()
        return self

    def _look(self, k: int, lam: np.ndarray, scale: Any) -> dict[str, Any]:
        chosen = self.choices.get("min") == k
        look: dict[str, Any] = {"color": BLUE, "linewidth": 2.4 if chosen else 1.1}
        look |= {"marker": "o"} if len(self.time) == 1 else {}
        zero = lam[k] == 0 and place(lam).inside is not None
        if zero:
            look |= {"color": "black", "linestyle": "--", "zorder": 4}
        elif not np.isfinite(lam[k]):
            look |= {"color": GREY, "linestyle": "--"}
        elif scale is not None:
            look["color"] = scale.to_rgba(lam[k])
        if chosen:
            look = {"zorder": 3, **look, "label": f"best mean: {point_text(self.coords, k)}"}
        elif zero and 0 not in lam[:k]:
            look["label"] = f"{next(iter(self.coords))} = 0"
        return look

    def _draw_ends(self) -> None:
        """A cross where the mean of a diverged point stops being finite."""
        ends = [
            (self.time[i], self.curves[k, i])
            for k in np.flatnonzero(self.diverged)
            for i in np.flatnonzero(np.isfinite(self.curves[k]))[-1:]
        ]
        if ends:
            x, y = zip(*ends)
            self.ax_.plot(x, y, "x", color=RED, markeredgewidth=1.8, label="diverged", zorder=4)

    def _dress(self) -> None:
        shown = self.curves[~self.diverged] if not self.diverged.all() else self.curves
        finite = shown[np.isfinite(shown)]
        dress_values(self.ax_, finite)
        if finite.size and self.ax_.get_yscale() == "linear":
            # A lane on its way to infinity must not squash the others.
            margin = 0.05 * (np.ptp(finite) or 1.0)
            self.ax_.set_ylim(finite.min() - margin, finite.max() + margin)
        self.ax_.set(xlabel="step", ylabel=self.label)
        add_legend(self.ax_, self.title)


def _carried(result: Any, curves: Any) -> np.ndarray:
    """Curves [K, F, S, T] in which a lane that was stopped early keeps the value that counts.

    Else the mean over lanes would end, or jump, where the first of them stops.
    """
    curves, status = np.asarray(curves, float), np.asarray(result.status)
    if result.stop is None:
        return curves
    at = np.asarray(result.stop)[..., None]
    kept = np.take_along_axis(curves, at, -1)
    ended = (status == Status.STOPPED)[..., None] & (np.arange(curves.shape[-1]) > at)
    return np.where(ended, kept, curves)
