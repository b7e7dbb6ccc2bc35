"""Pictures of a sweep: the validation curve over lam, and the learning curves.

Each picture is a display: a dataclass that holds the numbers it shows, draws them with `plot(ax)`,
and keeps its matplotlib artists in attributes that end in an underscore, to be restyled by you. Get
one from a result, by `result.plot()` or `result.plot_learning_curves()`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from jaxreg.results import summary
from jaxreg.results.axes import (
    Axis,
    add_legend,
    dress_strengths,
    dress_values,
    new_axes,
    place,
    pyplot,
)
from jaxreg.results.status import Status

__all__ = ["LearningCurvesDisplay", "ValidationCurveDisplay", "learning_curves"]

# Okabe & Ito's palette, which colour-blind readers can tell apart.
_BLUE, _ORANGE, _GREY, _RED = "#0072B2", "#E69F00", "#6E6E6E", "#C1272D"
_GROUPS = (_BLUE, "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#F0E442", "#000000")


@dataclasses.dataclass
class Curve:
    """Means and standard errors of one split for the penalties `index`, in the order of lam."""

    label: str
    index: np.ndarray
    mean: np.ndarray
    stderr: np.ndarray
    color: str
    dashed: bool


@dataclasses.dataclass
class ValidationCurveDisplay:
    """Training and validation means against lam, with ± one standard error and both choices.

    Fields hold the numbers; `plot` makes the artists: `ax_`, `figure_`, `lines_`, `bands_` and
    `points_` by the label of the curve, `choices_` by rule, `diverged_` and `given_up_`. The points of
    a penalty that was given up are of the rung where it was: rings, apart from the lines.
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
    diverged_: Any = dataclasses.field(default=None, init=False, repr=False)
    given_up_: Any = dataclasses.field(default=None, init=False, repr=False)

    @classmethod
    def from_result(
        cls, result: Any, ax: Any = None, metric: str = "loss"
    ) -> ValidationCurveDisplay:
        """Draw the last step of a `SweepResult`.

        Args:
          result: the sweep's result.
          ax: matplotlib axes to draw in; a new figure by default.
          metric: "loss", or one of the trainer's metrics. The choices shown are those by the loss.

        Raises:
          ImportError: matplotlib is not installed. ValueError: no such metric.
        """
        coords = _coords(result)
        display = cls(
            coords=coords,
            metric=metric,
            title=summary.label(result.points),
            curves=list(_curves(result, metric, coords)),
            diverged=_some(result, Status.DIVERGED),
            given_up=_some(result, Status.GIVEN_UP),
            choices=_choices(result),
        )
        return display.plot(ax)

    def plot(self, ax: Any = None) -> ValidationCurveDisplay:
        """Draw into `ax`, or a new figure; returns the display itself."""
        self.ax_ = ax if ax is not None else new_axes()
        self.figure_ = self.ax_.figure
        name, lam = next(iter(self.coords.items()))
        axis = place(lam)
        for curve in self.curves:
            self._draw_curve(curve, axis)
        for rule, k in self.choices.items():
            self._draw_choice(rule, k, axis)
        self._draw_diverged(axis)
        self._draw_given_up(axis)
        dress_strengths(self.ax_, axis)
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
            x, y - band, y + band, color=curve.color, alpha=0.18, linewidth=0
        )
        if not scaled.all():
            ends = [v[~scaled] for v in (x, mean, band)]
            self.points_[curve.label] = self.ax_.errorbar(
                *ends, linestyle="none", capsize=3, **look
            )

    def _draw_choice(self, rule: str, k: int, axis: Axis) -> None:
        color, style = {"min": ("black", "--"), "1se": (_ORANGE, "-.")}[rule]
        words = {"min": "lowest loss", "1se": "1-SE rule"}[rule]
        label = f"{words}: {_point(self.coords, k)}"
        self.choices_[rule] = self.ax_.axvline(
            axis.position[k], color=color, linestyle=style, linewidth=1.4, label=label, zorder=1
        )

    def _draw_given_up(self, axis: Axis) -> None:
        """Rings at the validation means that are of a rung and not of the end."""
        curve = next(c for c in self.curves if not c.dashed)
        ringed = self.given_up[curve.index] & np.isfinite(curve.mean)
        if ringed.any():
            (self.given_up_,) = self.ax_.plot(
                axis.position[curve.index][ringed], curve.mean[ringed], "o", color=_GREY,
                markerfacecolor="none", markersize=8, label="given up at a rung", zorder=4,
            )  # fmt: skip

    def _draw_diverged(self, axis: Axis) -> None:
        if not self.diverged.any():
            return
        x = axis.position[self.diverged]
        (self.diverged_,) = self.ax_.plot(
            x, np.full(len(x), 0.97), "x", color=_RED, markersize=7, markeredgewidth=1.8,
            transform=self.ax_.get_xaxis_transform(), label="diverged", zorder=4,
        )  # fmt: skip


def _coords(result: Any) -> dict[str, np.ndarray]:
    """The coordinates as they are written in a picture, the strength first."""
    return {"λ" if n == "lam" else n: np.asarray(v, float) for n, v in result.coords.items()}


def _point(coords: dict[str, np.ndarray], k: int) -> str:
    return ", ".join(f"{name} = {values[k]:.3g}" for name, values in coords.items())


def _curves(result: Any, metric: str, coords: dict[str, np.ndarray]) -> Iterator[Curve]:
    """Training and validation curve, for each combination of further coordinates apart."""
    lam, *_ = coords.values()
    for i, (name, index) in enumerate(_groups(coords).items()):
        index = index[np.argsort(lam[index], kind="stable")]
        color = _GROUPS[i % len(_GROUPS)]
        for split in ("train", "valid"):
            word = "training" if split == "train" else "validation"
            yield Curve(
                label=f"{word}, {name}" if name else word,
                index=index,
                mean=result.mean(metric, split)[index],
                stderr=result.stderr(metric, split)[index],
                color=_GREY if split == "train" and not name else color,
                dashed=split == "train",
            )


def _groups(coords: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Penalties that differ by the first coordinate alone, by the values of the others."""
    (_, lam), *others = coords.items()
    names = [_point(dict(others), k) for k in range(len(lam))]
    return {name: np.flatnonzero([n == name for n in names]) for name in dict.fromkeys(names)}


def _choices(result: Any) -> dict[str, int]:
    """The index of each rule's choice, where one can be made."""
    found = {}
    for rule in ("min", "1se"):
        try:
            found[rule] = result.best(rule).index
        except ValueError:
            continue
    return found


@dataclasses.dataclass
class LearningCurvesDisplay:
    """A metric against the step, one line per lam, coloured by log lam.

    Fields hold the numbers, `curves` [K, T] averaged over folds and seeds; `plot` makes the artists:
    `ax_`, `figure_`, `lines_` (one per penalty) and `colorbar_`.
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
        """Draw the curves of a `SweepResult`; see `learning_curves`."""
        result.mean(metric, split)  # the same errors for unknown names
        values = _carried(result, getattr(result, split)[metric])
        with np.errstate(all="ignore"):
            loss = _carried(result, getattr(result, split)["loss"]).mean((1, 2))
            # An accuracy of NaN outputs is a number, and means nothing.
            curves = np.where(np.isfinite(loss), values.mean((1, 2)), np.nan)
        display = cls(
            coords=_coords(result),
            label=f"{'training' if split == 'train' else 'validation'} {metric}",
            title=summary.label(result.points),
            time=np.asarray(result.time),
            curves=curves,
            diverged=_some(result, Status.DIVERGED),
            choices=_choices(result),
        )
        return display.plot(ax)

    def plot(self, ax: Any = None) -> LearningCurvesDisplay:
        """Draw into `ax`, or a new figure; returns the display itself."""
        self.ax_ = ax if ax is not None else new_axes()
        self.figure_ = self.ax_.figure
        name, lam = next(iter(self.coords.items()))
        scale, self.lines_ = self._scale(lam), []
        for k, curve in enumerate(self.curves):
            (line,) = self.ax_.plot(self.time, curve, **self._look(k, lam, scale))
            self.lines_.append(line)
        self._draw_ends()
        if scale is not None:
            self.colorbar_ = self.figure_.colorbar(scale, ax=self.ax_, label=name)
        self._dress()
        return self

    def _scale(self, lam: np.ndarray) -> Any:
        """Colours over the strength; None if there are not two strengths to tell apart."""
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import ListedColormap, LogNorm, Normalize

        inside = place(lam).inside
        shown = np.asarray(inside) if inside else lam[np.isfinite(lam)]
        if not shown.size or not np.ptp(shown):
            return None
        norm = (LogNorm if inside else Normalize)(shown.min(), shown.max())
        # Without the palest yellow, which vanishes on white.
        colors = pyplot().get_cmap("viridis")(np.linspace(0, 0.9, 256))
        return ScalarMappable(norm, ListedColormap(colors))

    def _look(self, k: int, lam: np.ndarray, scale: Any) -> dict[str, Any]:
        chosen = self.choices.get("min") == k
        look: dict[str, Any] = {"color": _BLUE, "linewidth": 2.4 if chosen else 1.1}
        zero = lam[k] == 0 and place(lam).inside is not None
        if zero:
            look |= {"color": "black", "linestyle": "--", "zorder": 4}
        elif np.isinf(lam[k]):
            look |= {"color": _GREY, "linestyle": "--"}
        elif scale is not None:
            look["color"] = scale.to_rgba(lam[k])
        if chosen:
            look = {"zorder": 3, **look, "label": f"lowest loss: {_point(self.coords, k)}"}
        elif zero and 0 not in lam[:k]:
            look["label"] = f"{next(iter(self.coords))} = 0"
        return look

    def _draw_ends(self) -> None:
        """A cross where the mean of a diverged penalty stops being finite."""
        ends = [
            (self.time[i], self.curves[k, i])
            for k in np.flatnonzero(self.diverged)
            for i in np.flatnonzero(np.isfinite(self.curves[k]))[-1:]
        ]
        if ends:
            x, y = zip(*ends)
            self.ax_.plot(x, y, "x", color=_RED, markeredgewidth=1.8, label="diverged", zorder=4)

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


def _some(result: Any, status: Status) -> np.ndarray:
    """Which penalties [K] have a lane of this status."""
    return (np.asarray(result.status) == status).any((1, 2))


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


def learning_curves(
    result: Any, ax: Any = None, metric: str = "loss", split: str = "valid"
) -> LearningCurvesDisplay:
    """Draw a metric against the step, one line per lam, averaged over folds and seeds.

    Args:
      result: a `SweepResult`.
      ax: matplotlib axes to draw in; a new figure by default.
      metric: "loss", or one of the trainer's metrics.
      split: "valid" or "train".

    Raises:
      ImportError: matplotlib is not installed. ValueError: no such metric or split.
    """
    return LearningCurvesDisplay.from_result(result, ax, metric, split)
