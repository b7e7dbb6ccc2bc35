"""What every picture of a result needs: names, choices and states, as numbers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from jaxreg.results import summary
from jaxreg.results.status import Status

__all__ = [
    "BLUE",
    "Display",
    "GREY",
    "ORANGE",
    "RED",
    "RULES",
    "choice_indices",
    "coordinates",
    "ordered",
    "point_text",
    "short",
    "some",
]


class Display:
    """A picture that was drawn: its fields hold the numbers, its attributes the artists."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}: {getattr(self, 'title', '')}".rstrip(": ")


# Okabe & Ito's palette, which colour-blind readers can tell apart.
BLUE, ORANGE, GREY, RED = "#0072B2", "#E69F00", "#6E6E6E", "#C1272D"
# How a rule's choice is drawn, and called.
RULES = {
    "min": ("black", "--", "best mean"),
    "paired": (ORANGE, "-.", "paired rule"),
}


def coordinates(result: Any, names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
    """Coordinates, all by default, as they are written in a picture; texts stay texts."""
    chosen = result.coords if names is None else names
    return {"λ" if n == "lam" else n: summary.column(result.coords[n]) for n in chosen}


def ordered(result: Any, along: str | None = None) -> dict[str, np.ndarray]:
    """All coordinates, that to draw along first: by default a strength, or else the first number."""
    coords = coordinates(result)
    numbers = [n for n in result.coords if summary.column(result.coords[n]).dtype != object]
    asked = along or next(iter([*result.strengths, *numbers, *result.coords]))
    summary.chosen("along", asked, result.coords)
    first = "λ" if asked == "lam" else asked
    return {first: coords[first], **coords}


def point_text(coords: dict[str, np.ndarray], k: int) -> str:
    """The coordinates of a point in words."""
    return ", ".join(f"{name} = {short(values.tolist()[k])}" for name, values in coords.items())


def short(value: Any) -> str:
    """A coordinate in few digits; one that is missing is a dash."""
    return str(value) if isinstance(value, str) else "-" if np.isnan(value) else f"{value:.3g}"


def choice_indices(result: Any, metric: str) -> dict[str, int]:
    """The index of each rule's choice by the metric; none by one that does not know its direction."""
    if metric not in ("loss", *result.directions):
        return {}
    return {rule: choice.index for rule, choice in summary.choices(result, metric).items()}


def some(result: Any, status: Status) -> np.ndarray:
    """Which points [K] have a lane of this status."""
    return (np.asarray(result.status) == status).any((1, 2))
