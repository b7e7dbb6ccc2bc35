"""Grids: many penalties of one structure, stacked into one penalty with a leading axis.

Because strengths are leaves, a grid is just a penalty whose leaves have one axis more, and training
on all of it is `vmap` (or `lax.map`, in chunks) over that axis.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

from jaxreg._convolution import canonical_convolutions
from jaxreg._tree import PyTree
from jaxreg.penalty import Penalty

__all__ = ["Grid", "grid", "map_penalties"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Grid:
    """K penalties of one structure, and the coordinates that made each; a pytree.

    `penalty` is the stacked penalty, leaves [K, ...]; `coords` maps each axis name to its K values.
    `len(grid)` is K, `grid[k]` the k-th penalty, and a grid can be iterated.
    """

    penalty: Penalty
    values: tuple[Array, ...]
    # Apart from the values: jax would sort the keys of a dict, and the first axis is the strength.
    names: tuple[str, ...] = dataclasses.field(metadata={"static": True})

    @property
    def coords(self) -> dict[str, Array]:
        """Axis name -> its value at each of the K penalties, in the order the axes were given."""
        return dict(zip(self.names, self.values))

    def __len__(self) -> int:
        return len(self.values[0])

    def __getitem__(self, k: int) -> Penalty:
        if not -len(self) <= k < len(self):
            raise IndexError(f"grid index {k} is out of range for {len(self)} penalties.")
        return jax.tree.map(lambda x: x[k], self.penalty)

    def __iter__(self) -> Iterator[Penalty]:
        return (self[k] for k in range(len(self)))

    def __repr__(self) -> str:
        spans = ", ".join(f"{n}={float(v[0]):g} … {float(v[-1]):g}" for n, v in self.coords.items())
        return f"Grid({len(self)} x {self.penalty.label}, {spans})"


def grid(make: Callable[..., Penalty], **axes: ArrayLike) -> Grid:
    """Every penalty `make(**point)` over the Cartesian product of the axes, the last one fastest.

    Name the strength first: rules that prefer the stronger of two penalties order by the first axis.

    Args:
      make: builds a penalty from one number per axis. It is called once per point with concrete
        numbers, so every check of the constructors applies.
      axes: name -> one-dimensional array of values.

    Raises:
      ValueError: no axis, an empty axis, a NaN, or penalties whose structure differs.
      TypeError: an axis is not one-dimensional or not numeric, or `make` returns no penalty.

    >>> import jaxreg as jr
    >>> g = jr.grid(lambda lam: jr.l2(lam).on(jr.kernels), lam=[0.01, 0.1, 1.0])
    >>> g
    Grid(3 x l2.on(kernels), lam=0.01 … 1)
    >>> g[1]
    l2(0.1).on(kernels)
    """
    values = {name: _axis(name, value) for name, value in axes.items()}
    if not values:
        raise ValueError(
            "grid: give at least one axis by name, such as lam=jnp.logspace(-6, 0, 32)."
        )
    points = list(itertools.product(*values.values()))
    penalties = [make(**dict(zip(values, (v.item() for v in point)))) for point in points]
    odd = [p for p in penalties if not isinstance(p, Penalty)]
    if odd:
        raise TypeError(f"grid: `make` must return a penalty, got {odd[0]!r}.")
    # By hash and not by `!=`: jax calls the structures of two dataclasses with equal fields equal.
    alike = {jax.tree.structure(penalties[0])}
    odd = [p for p in penalties if jax.tree.structure(p) not in alike]
    if odd:
        raise ValueError(
            "grid: `make` returned penalties of different structure; only strengths may depend on the "
            f"axes, not selectors, axes or the number of terms. Compare {penalties[0]!r} and {odd[0]!r}."
        )
    stacked = jax.tree.map(lambda *xs: jnp.stack(xs), *penalties)
    columns = tuple(jnp.asarray(c, float) for c in zip(*points))
    return Grid(stacked, columns, tuple(values))


def _axis(name: str, value: ArrayLike) -> np.ndarray:
    try:
        array = np.asarray(value, dtype=float)
    except (TypeError, ValueError) as error:
        raise TypeError(f"grid: `{name}` must be numbers, got {value!r}.") from error
    if array.ndim != 1:
        raise TypeError(
            f"grid: `{name}` must be one-dimensional, got shape {array.shape}; "
            "give one number per penalty, such as jnp.logspace(-6, 0, 32)."
        )
    if not array.size:
        raise ValueError(f"grid: `{name}` is empty; give at least one value.")
    if np.isnan(array).any():
        raise ValueError(f"grid: `{name}` has NaN at position {int(np.isnan(array).argmax())}.")
    return array


def map_penalties(
    fit: Callable[[Penalty], Any], grid: Grid | Penalty, batch_size: int | None = None
) -> PyTree:
    """`fit` of every penalty of the grid, in one compiled program; results get a leading axis [K].

    Args:
      fit: any pure function penalty -> pytree of arrays. Define it once and reuse it: it is what the
        compiled program is cached by.
      grid: a `Grid`, or any penalty whose leaves have a leading axis.
      batch_size: how many penalties are vmapped at a time; None is all of them. Less memory, and on a
        CPU often faster; 1 gives lanes that are bitwise those of a single run.

    Raises:
      TypeError: `grid` is neither. ValueError: `batch_size` is below 1.

    >>> import jaxreg as jr
    >>> g = jr.grid(jr.l2, lam=[0.0, 1.0, 3.0])
    >>> map_penalties(lambda reg: reg.prox(jnp.ones(2), 1.0), g).tolist()
    [[1.0, 1.0], [0.5, 0.5], [0.25, 0.25]]
    """
    penalty = grid.penalty if isinstance(grid, Grid) else grid
    if not isinstance(penalty, Penalty):
        raise TypeError(f"map_penalties: `grid` must come from jaxreg.grid, got {grid!r}.")
    if batch_size is not None and batch_size < 1:
        raise ValueError(
            f"map_penalties: `batch_size` must be at least 1 or None, got {batch_size}."
        )
    return _map(fit, penalty, batch_size)


@functools.partial(jax.jit, static_argnames=("fit", "batch_size"))
def _map(fit, penalty, batch_size):
    # batch_size=1 as a plain map: a vmap of width one could differ from a single run in rounding.
    width = None if batch_size == 1 else batch_size
    every = jax.vmap(fit) if batch_size is None else lambda p: lax.map(fit, p, batch_size=width)
    return canonical_convolutions(every)(penalty)
