"""Axes of plots: strengths on a log scale with a place for 0 and infinity, and a common look."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

__all__ = ["Axis", "add_legend", "dress_strengths", "dress_values", "new_axes", "place", "pyplot"]

# Means that span more than this factor are drawn on a log axis.
_WIDE = 30.0


def pyplot() -> Any:
    """matplotlib.pyplot, or an ImportError that says how to get it."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            "plots need matplotlib, which is not installed: pip install 'jaxreg[plots]'."
        ) from error
    return plt


def new_axes() -> Any:
    """Axes of a figure of their own."""
    return pyplot().subplots(figsize=(7, 4.5), layout="constrained")[1]


class Axis(NamedTuple):
    """Where strengths stand on a log axis: 0 and infinity get a place of their own at its ends."""

    position: np.ndarray
    special: dict[float, str]  # position -> tick label
    inside: tuple[float, float] | None  # the range that is to scale; None for a linear axis


def place(lam: np.ndarray) -> Axis:
    """Positions of strengths on a log axis; on a linear one if none is positive, or one negative."""
    positive = lam[(lam > 0) & np.isfinite(lam)]
    if not positive.size or (lam < 0).any():
        return Axis(np.where(np.isfinite(lam), lam, 1.0), {}, None)
    low, high = float(positive.min()), float(positive.max())
    gap = max(1.5, (high / low) ** 0.12)
    position = np.where(lam == 0, low / gap, np.where(np.isinf(lam), high * gap, lam))
    special = {low / gap: "0"} if (lam == 0).any() else {}
    special |= {high * gap: "∞"} if np.isinf(lam).any() else {}
    return Axis(position, special, (low, high))


def dress_strengths(ax: Any, axis: Axis) -> None:
    """A log axis whose ends may be 0 and infinity, with a break before them."""
    if axis.inside is None:
        return
    from matplotlib.ticker import FixedLocator

    ax.set_xscale("log")
    if not axis.special:
        return
    low, high = axis.inside
    locator, formatter = ax.xaxis.get_major_locator(), ax.xaxis.get_major_formatter()
    ticks = [float(t) for t in locator.tick_values(low, high) if low <= t <= high]
    minor = ax.xaxis.get_minor_locator().tick_values(low, high)
    ax.set_xticks([*ticks, *axis.special], [*formatter.format_ticks(ticks), *axis.special.values()])
    ax.xaxis.set_minor_locator(FixedLocator([t for t in minor if low <= t <= high]))
    for position in axis.special:
        between = np.sqrt(position * (low if position < low else high))
        ax.text(
            between, 0, "//", transform=ax.get_xaxis_transform(), ha="center", va="center",
            fontsize="small", bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
        )  # fmt: skip


def dress_values(ax: Any, values: np.ndarray) -> None:
    """The y axis: logarithmic where positive `values` span a wide range, with light grid lines."""
    finite = values[np.isfinite(values)]
    if finite.size and finite.min() > 0 and finite.max() / finite.min() > _WIDE:
        ax.set_yscale("log", nonpositive="clip")
    if not finite.size:
        ax.set_yticks([])
    ax.grid(True, axis="y", color="0.9", linewidth=0.8)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)


def add_legend(ax: Any, title: str) -> None:
    """Above the axes, where it hides no curve."""
    if ax.get_legend_handles_labels()[0]:
        ax.legend(
            title=title, loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False,
            fontsize="small", alignment="left", borderaxespad=0.2,
        )  # fmt: skip
