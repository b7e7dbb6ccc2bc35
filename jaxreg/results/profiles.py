"""A result over many coordinates, by one picture for each."""

from __future__ import annotations

import dataclasses
from typing import Any

from jaxreg.results import summary
from jaxreg.results._pictures import Display
from jaxreg.results.axes import pyplot
from jaxreg.results.curves import ValidationCurveDisplay

__all__ = ["ProfilesDisplay"]


@dataclasses.dataclass(repr=False)
class ProfilesDisplay(Display):
    """For each coordinate that varies, the validation curve of the best of the others at each value.

    `displays` are `ValidationCurveDisplay`s by coordinate; `plot` draws them beside each other on one
    scale and makes `figure_` and `axes_` by coordinate.
    """

    displays: dict[str, ValidationCurveDisplay]
    figure_: Any = dataclasses.field(default=None, init=False, repr=False)
    axes_: dict[str, Any] = dataclasses.field(default_factory=dict, init=False, repr=False)

    @classmethod
    def from_result(cls, result: Any, metric: str = "loss") -> ProfilesDisplay:
        """Draw the last step of a `SweepResult`.

        Raises:
          ImportError: matplotlib is not installed. ValueError: no such metric.
        """
        made = ValidationCurveDisplay.of_result
        names = summary.varying(result)
        return cls({n: made(result, metric, along=n, best=True) for n in names}).plot()

    def plot(self) -> ProfilesDisplay:
        """Draw into a new figure; returns the display itself."""
        columns = min(len(self.displays), 3)
        rows = -(-len(self.displays) // columns)
        self.figure_, grid = pyplot().subplots(
            rows, columns, sharey=True, squeeze=False, layout="constrained",
            figsize=(1 + 3.6 * columns, 0.9 + 3.1 * rows),
        )  # fmt: skip
        for ax in grid.flat[len(self.displays) :]:
            ax.remove()
        for i, ((name, display), ax) in enumerate(zip(self.displays.items(), grid.flat)):
            self.axes_[name] = display.plot(ax).ax_
            ax.get_legend().remove()
            if i % columns:
                ax.set_ylabel("")
        handles, labels = grid.flat[0].get_legend_handles_labels()
        first = next(iter(self.displays.values()))
        labels = [text.split(", best ")[0] for text in labels]
        self.figure_.legend(
            handles, labels, loc="outside upper left", ncols=3, frameon=False, fontsize="small",
            title=f"{first.title}; the best of the other coordinates", alignment="left",
        )  # fmt: skip
        return self
