"""Axes of plots: a log scale with a place for 0, infinity and what is missing, and a common look."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

__all__ = [
    "Axis",
    "add_legend",
    "axes_for",
    "color_scale",
    "dress",
    "dress_values",
    "place",
    "pyplot",
]

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


def axes_for(ax: Any) -> Any:
    """The axes that were given, or those of a figure of their own.

    Raises:
      TypeError: `ax` is something else.
    """
    if ax is not None:
        if not hasattr(ax, "figure"):
            raise TypeError(
                f"plot: `ax` must be axes of matplotlib, or None for new ones, got {ax!r}."
            )
        return ax
    return pyplot().subplots(figsize=(7, 4.5), layout="constrained")[1]


class Axis(NamedTuple):
    """Where the values of a coordinate stand: those of no scale get a place of their own."""

    position: np.ndarray
    special: dict[float, str]  # position -> tick label
    inside: tuple[float, float] | None  # the range that is to scale; None for a linear axis


def place(lam: np.ndarray) -> Axis:
    """Positions of strengths and what else is spaced by factors on a log axis, of texts in a row.

    On a log axis 0, infinity and what is missing, NaN, stand apart at its ends.
    """
    if lam.dtype == object:
        names, position = np.unique(lam.astype(str), return_inverse=True)
        return Axis(position.astype(float), dict(enumerate(names.tolist())), None)
    positive = lam[(lam > 0) & np.isfinite(lam)]
    if not positive.size or (lam < 0).any() or (np.isfinite(lam).all() and not _is_log(positive)):
        return Axis(np.where(np.isfinite(lam), lam, 1.0), {}, None)
    low, high = float(positive.min()), float(positive.max())
    gap = max(1.5, (high / low) ** 0.12)
    position = np.where(lam == 0, low / gap, np.where(np.isinf(lam), high * gap, lam))
    special = {low / gap: "0"} if (lam == 0).any() else {}
    if np.isnan(lam).any():
        missing = low / gap ** (1 + len(special))
        position, special = np.where(np.isnan(lam), missing, position), {missing: "-"} | special
    special |= {high * gap: "∞"} if np.isinf(lam).any() else {}
    return Axis(position, special, (low, high))


def _is_log(positive: np.ndarray) -> bool:
    """Whether values are rather spaced by factors: their middle is nearer to the geometric one."""
    values = np.unique(positive)
    low, high = values[0], values[-1]
    if high < 9.9 * low:
        return False
    middle = np.sqrt(np.sqrt(low * high) * (low + high) / 2)
    return len(values) == 2 or bool(np.median(values) < middle)


def dress(ax: Any, axis: Axis, which: str = "x") -> None:
    """Scale and ticks of the x or y axis; on a log scale a break before what stands apart."""
    set_ticks, lines = getattr(ax, f"set_{which}ticks"), getattr(ax, f"{which}axis")
    if axis.inside is None:
        if axis.special:
            set_ticks(list(axis.special), list(axis.special.values()))
            ax.margins(0.1)
        return
    from matplotlib.ticker import FixedLocator

    getattr(ax, f"set_{which}scale")("log")
    if not axis.special:
        return
    low, high = axis.inside
    locator, formatter = lines.get_major_locator(), lines.get_major_formatter()
    ticks = [float(t) for t in locator.tick_values(low, high) if low <= t <= high]
    minor = lines.get_minor_locator().tick_values(low, high)
    set_ticks([*ticks, *axis.special], [*formatter.format_ticks(ticks), *axis.special.values()])
    lines.set_minor_locator(FixedLocator([t for t in minor if low <= t <= high]))
    transform = getattr(ax, f"get_{which}axis_transform")()
    below = max((p for p in axis.special if p < low), default=low)
    for a, b in ((below, low), (high, max(axis.special))):
        if a < b:
            at = (np.sqrt(a * b), 0)
            ax.text(
                *(at if which == "x" else at[::-1]), "//", transform=transform, ha="center",
                va="center", fontsize="small", rotation=0 if which == "x" else 90,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
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
    labels = ax.get_legend_handles_labels()[1]
    if labels:
        # As many columns as the figure is wide: a wider legend would squeeze the axes.
        columns = int(np.clip(110 // (5 + max(map(len, labels))), 1, 3))
        ax.legend(
            title=title, loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, frameon=False,
            fontsize="small", alignment="left", borderaxespad=0.2,
        )  # fmt: skip


def color_scale(values: np.ndarray) -> Any:
    """Colours over a coordinate, by logarithm where it is spaced by factors; None of fewer than two."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, LogNorm, Normalize

    inside = place(values).inside
    shown = np.asarray(inside) if inside else values[np.isfinite(values)]
    if not shown.size or not np.ptp(shown):
        return None
    norm = (LogNorm if inside else Normalize)(shown.min(), shown.max())
    # Without the palest yellow, which vanishes on white.
    colors = pyplot().get_cmap("viridis")(np.linspace(0, 0.9, 256))
    return ScalarMappable(norm, ListedColormap(colors))
