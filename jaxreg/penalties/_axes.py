"""The axes that number groups: what they may be, and which axes a group then extends over."""

from __future__ import annotations

from typing import Any, TypeAlias

import jax.numpy as jnp

__all__ = ["Axis", "across", "check_across", "inside"]

Axis: TypeAlias = int | tuple[int, ...] | None


def across(axis: Axis) -> tuple[int, ...]:
    """The axes that number the groups; none where the whole leaf is one group."""
    return () if axis is None else (axis,) if isinstance(axis, int) else axis


def inside(axis: Axis, ndim: int) -> tuple[int, ...]:
    """The axes that a group extends over: all but those that number the groups."""
    numbering = {a % ndim for a in across(axis)}
    return tuple(a for a in range(ndim) if a not in numbering)


def check_across(owner: str, axis: Axis, path: str, x: Any) -> None:
    """Refuse an axis that the leaf has not.

    Raises:
      ValueError: with the axes that it has.
    """
    ndim = jnp.ndim(x)
    bad = [a for a in across(axis) if not -ndim <= a < ndim]
    if bad:
        between = f"Take an axis from {-ndim} to {ndim - 1}, " if ndim else "Take "
        raise ValueError(
            f"{owner}: `axis` {bad[0]} is out of range for the leaf {path!r} of shape {jnp.shape(x)}. "
            f"{between}None for the whole leaf as one group, or select other leaves with .on(...)."
        )
