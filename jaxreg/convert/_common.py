"""What the converters share: checks of numbers that then stay as they are."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from jaxreg._check import above, strength


class Strengths(NamedTuple):
    """The strengths of l1(l1) + l2(l2), each a number or an array."""

    l1: Any
    l2: Any


def given(owner: str, **values: Any) -> list[Any]:
    """The values as they are, lists as arrays; refuses negative ones and NaN."""
    for name, value in values.items():
        strength(owner, name, value)
    return [_array(v) for v in values.values()]


def positive(owner: str, **values: Any) -> list[Any]:
    """The values as they are, lists as arrays; refuses those that are not > 0."""
    for name, value in values.items():
        above(owner, name, value, 0)
    return [_array(v) for v in values.values()]


def _array(value: Any) -> Any:
    return np.asarray(value) if isinstance(value, (list, tuple)) else value
