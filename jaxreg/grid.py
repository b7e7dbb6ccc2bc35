"""Grids: many points of one structure, stacked into one point with a leading axis.

A point is what an experiment is tried at: any pytree of numbers, such as a penalty, a learning rate, or a
dictionary of both. Numbers are leaves, so a grid is just a point whose leaves have one axis more, and
training on all of it is `vmap` (or `lax.map`, in chunks) over that axis.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax
from jax.typing import ArrayLike

from jaxreg import _tree
from jaxreg._check import misfit
from jaxreg._convolution import canonical_convolutions
from jaxreg._quickly import moves
from jaxreg._tree import PyTree
from jaxreg.objective import penalties_in
from jaxreg.penalty import Penalty
from jaxreg.report.table import Column, Table
from jaxreg.terms import Term
from jaxreg.value import Value

__all__ = ["Grid", "grid", "map_grid", "points"]

_MANY = 2000  # points, from which on they are made by one call if that is the same
_COMPARED = 200  # points that are made one by one as well


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Grid:
    """K points of one structure, and the coordinates that made each; a pytree.

    `points` is the stacked point, leaves [K, ...]; `coords` maps each axis name to its K values;
    `strengths` names the axes along which the penalties in the points only become stronger.
    `len(grid)` is K, `grid[k]` the k-th point, and a grid can be iterated.
    """

    points: PyTree
    values: tuple[Any, ...]
    # Apart from the values: jax would sort the keys of a dict.
    names: tuple[str, ...] = dataclasses.field(metadata={"static": True})
    strengths: tuple[str, ...] = dataclasses.field(default=(), metadata={"static": True})

    @property
    def coords(self) -> dict[str, Any]:
        """Axis name -> its value at each of the K points, in the order the axes were given."""
        return dict(zip(self.names, self.values))

    def __len__(self) -> int:
        return len(self.values[0])

    def __getitem__(self, k: int) -> PyTree:
        if not -len(self) <= k < len(self):
            raise IndexError(f"grid index {k} is out of range for {len(self)} points.")
        return jax.tree.map(lambda x: _entry(x, k), self.points)

    def __iter__(self) -> Iterator[PyTree]:
        return (self[k] for k in range(len(self)))

    def _repr_html_(self) -> str:
        """For a notebook: the coordinates of every point, or of the first and the last."""
        shown = range(len(self)) if len(self) <= 12 else [*range(8), None, len(self) - 1]
        columns = [Column("point"), *map(Column, self.names)]
        cells = [
            ("…",) * len(columns) if k is None else
            (str(k), *(f"{float(np.asarray(v)[k]):.4g}" for v in self.values))
            for k in shown
        ]  # fmt: skip
        title = f"{len(self)} x {point_label(self.points)}"
        return Table(title, tuple(columns), (), tuple(cells))._repr_html_()

    def __repr__(self) -> str:
        spans = [f"{n}={float(min(v)):g} … {float(max(v)):g}" for n, v in self.coords.items()]
        return f"Grid({len(self)} x {point_label(self.points)}, {', '.join(spans)})"


def _entry(x: Any, k: int) -> Array:
    # By numpy where it can be: an index in jax is a program to compile.
    return _tree.placed(np.asarray(x)[k]) if _tree.is_concrete(x) else x[k]


def point_label(point: PyTree) -> str:
    """The name of a point without its numbers: that of its penalty, or of each part by its key."""
    if isinstance(point, Value):
        return point.label
    leaves, treedef = jax.tree.flatten(point, is_leaf=lambda x: isinstance(x, Value))
    paths, _ = jax.tree_util.tree_flatten_with_path(jax.tree.unflatten(treedef, range(len(leaves))))
    names = (jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in paths)
    parts = [f"{n}: {x.label}" if isinstance(x, Value) else n for n, x in zip(names, leaves)]
    return "{" + ", ".join(parts) + "}" if any(parts) else "number"


def values_in(point: PyTree) -> list[Value]:
    """Every penalty and every term in a point."""
    is_value = lambda x: isinstance(x, Value)
    return [x for x in jax.tree.leaves(point, is_leaf=is_value) if is_value(x)]


@moves
def grid(make: Callable[..., PyTree], **axes: ArrayLike) -> Grid:
    """Every point `make(**coordinates)` over the Cartesian product of the axes, the last one fastest.

    Args:
      make: builds a point from one number per axis: a penalty, or any pytree of penalties and numbers,
        such as `lambda lam, lr: {"reg": jr.l2(lam), "lr": lr}`. It is called once per point with
        concrete numbers, so every check of the constructors applies. Python numbers become floats.
      axes: name -> one-dimensional array of values.

    Raises:
      ValueError: no axis, an empty axis, a NaN, points whose structure differs, or an axis that changes
        no number of any point.
      TypeError: an axis is not one-dimensional or not numeric, `make` is no function of the axes, or it
        returns something else than numbers.

    >>> import jaxreg as jr
    >>> g = jr.grid(lambda lam: jr.l2(lam).on(jr.kernels), lam=[0.01, 0.1, 1.0])
    >>> g
    Grid(3 x l2.on(kernels), lam=0.01 … 1)
    >>> g[1]
    l2(0.1).on(kernels)
    >>> both = jr.grid(lambda lam, lr: {"reg": jr.l2(lam), "lr": lr}, lam=[0.1, 1], lr=[0.01, 0.1])
    >>> both
    Grid(4 x {lr, reg: l2}, lam=0.1 … 1, lr=0.01 … 0.1)
    """
    columns = _columns("grid", axes)
    rows = list(itertools.product(*columns.values()))
    return _built("grid", make, dict(zip(columns, zip(*rows))), columns)


@moves
def points(make: Callable[..., PyTree] | Sequence[PyTree], **columns: ArrayLike) -> Grid:
    """Points one by one instead of a product: for random, paired or hand-picked designs.

    Args:
      make: as for `grid`; or the points themselves, in a list.
      columns: name -> the coordinate of each point, all of one length. They may be left out for a list,
        whose points are then numbered by the coordinate "point".

    Raises:
      ValueError, TypeError: as `grid`; columns of different lengths.

    >>> import jaxreg as jr
    >>> rng = np.random.default_rng(0)
    >>> jr.points(
    ...     lambda lam, lr: {"reg": jr.l1(lam), "lr": lr},
    ...     lam=10 ** rng.uniform(-4, 0, 50),
    ...     lr=10 ** rng.uniform(-3, -1, 50),
    ... )
    Grid(50 x {lr, reg: l1}, lam=... … ..., lr=... … ...)
    >>> jr.points([jr.l1(0.1), jr.l1(0.3)])
    Grid(2 x l1, point=0 … 1)
    """
    listed = None
    if isinstance(make, Sequence) and not isinstance(make, str) and not hasattr(make, "_fields"):
        listed = list(make)
    if listed == []:
        raise ValueError("points: `make` must have at least one point, got an empty list.")
    if listed is not None and not columns:
        columns = {"point": np.arange(len(listed))}
    values = _columns("points", columns)
    sizes = {name: len(v) for name, v in values.items()}
    sizes |= {} if listed is None else {"make": len(listed)}
    if len(set(sizes.values())) > 1:
        raise ValueError(
            f"points: every column must have one value for each point, got the lengths {sizes}. For all "
            "combinations use grid."
        )
    if listed is not None:
        return _stacked("points", listed, values)
    return _built("points", make, {name: tuple(v) for name, v in values.items()}, values)


def _columns(owner: str, axes: dict[str, ArrayLike]) -> dict[str, np.ndarray]:
    if not axes:
        raise ValueError(
            f"{owner}: give at least one axis by name, such as lam=jnp.logspace(-6, 0, 32)."
        )
    return {name: _axis(owner, name, value) for name, value in axes.items()}


def _axis(owner: str, name: str, value: ArrayLike) -> np.ndarray:
    try:
        array = np.asarray(value)
        array = array if np.issubdtype(array.dtype, np.integer) else array.astype(float)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"{owner}: `{name}` must be numbers, got {value!r}. What is no number, such as a choice of "
            "optimizer, is another program: sweep once for each and join the results."
        ) from error
    if array.ndim != 1:
        raise TypeError(
            f"{owner}: `{name}` must be one-dimensional, got shape {array.shape}; "
            "give one number per point, such as jnp.logspace(-6, 0, 32)."
        )
    if not array.size:
        raise ValueError(f"{owner}: `{name}` is empty; give at least one value.")
    if np.isnan(array).any():
        raise ValueError(
            f"{owner}: `{name}` has NaN at position {int(np.isnan(array).argmax())}. Leave it out."
        )
    return array


def _built(owner: str, make: Any, rows: dict[str, tuple], columns: dict[str, np.ndarray]) -> Grid:
    """The grid of `make` at each row of coordinates."""
    _check_make(owner, make, tuple(rows))
    at = lambda row: make(**{name: v.item() for name, v in zip(rows, row)})
    every = list(zip(*rows.values()))
    coords = {n: np.array(v) for n, v in rows.items()}
    stacked = _at_once(owner, make, coords, lambda k: at(every[k]))
    if stacked is None:
        made = _stacked(owner, [at(row) for row in every], coords)
    else:
        made = _grid(stacked, coords)
    for name, values in columns.items():
        if not _is_alive(name, values, made, at, every):
            raise ValueError(
                f"{owner}: the axis `{name}` changes no number of any point: `make` ignores it, and the "
                f"result would name a `{name}` that nothing used. Return it as a part of the point, as "
                f'in lambda lam, {name if name != "lam" else "lr"}: {{"reg": jr.l2(lam), ...}}, and use '
                "it in the trainer; or leave the axis out."
            )
    return made


def _at_once(
    owner: str, make: Callable, coords: dict[str, np.ndarray], at: Callable[[int], PyTree]
) -> PyTree | None:
    """All points of a large grid by one call with arrays; None where that is another thing.

    A function that looks at a number fails with an array, and one that mixes the points, as by their
    maximum, shows at the points that are also made one by one.
    """
    n = len(next(iter(coords.values())))
    if n < _MANY:
        return None
    try:
        made = jax.tree.map(np.asarray, _checked(owner, make(**coords)))
    except Exception:
        return None
    some = np.unique([0, n - 1, *np.random.default_rng(0).integers(n, size=_COMPARED)])
    singles = [_checked(owner, at(int(k))) for k in some]
    if {_structure(p) for p in singles} != {_structure(singles[0])}:
        return None
    if hash(jax.tree.structure(made)) != hash(jax.tree.structure(singles[0])):
        return None
    leaves = []
    for x, *one in zip(*map(jax.tree.leaves, (made, *singles))):
        if x.shape == one[0].shape:
            x = np.broadcast_to(x, (n, *x.shape))
        x = x.astype(one[0].dtype)
        if x.shape != (n, *one[0].shape) or not np.array_equal(x[some], np.stack(one)):
            return None
        leaves.append(jnp.asarray(x))
    return jax.tree.unflatten(jax.tree.structure(singles[0]), leaves)


def _is_alive(name: str, values: np.ndarray, made: Grid, at: Callable, every: list[tuple]) -> bool:
    """Whether some point becomes another one when this coordinate alone is changed."""
    others = [v for n, v in made.coords.items() if n != name]
    groups: dict[tuple, list[int]] = {}
    for k, key in enumerate(zip(*map(np.asarray, others)) if others else [()] * len(made)):
        groups.setdefault(key, []).append(k)
    leaves = [np.asarray(x) for x in jax.tree.leaves(made.points)]
    if any((x[ks] != x[ks[:1]]).any() for ks in groups.values() for x in leaves):
        return True
    # No two points differ in this coordinate alone: make some that do.
    column = made.names.index(name)
    for k, row in enumerate(every):
        away = values[values != row[column]]
        other = away[0] if away.size else np.nan_to_num(row[column], posinf=0, neginf=0) * 2 + 1
        try:
            moved = jax.tree.leaves(at((*row[:column], np.asarray(other)[()], *row[column + 1 :])))
        except Exception:  # the value is ours and may be out of range
            return True
        if any((np.asarray(a) != x[k]).any() for a, x in zip(moved, leaves)):
            return True
    return False


def _check_make(owner: str, make: Any, names: tuple[str, ...]) -> None:
    if not callable(make) or isinstance(make, Penalty):
        raise TypeError(
            f"{owner}: `make` must be a function of {', '.join(names)} that returns a point, such as "
            f"lambda lam: jr.l2(lam), got {_kind(make)}."
        )
    if (why := misfit(make, **dict.fromkeys(names))) is not None:
        raise TypeError(f"{owner}: `make` must take the axes {', '.join(names)} by name: {why}.")


def _stacked(owner: str, made: list[PyTree], coords: dict[str, np.ndarray]) -> Grid:
    made = [_checked(owner, point) for point in made]
    first = {_structure(made[0])}
    odd = [p for p in made if _structure(p) not in first]
    if odd:
        raise ValueError(
            f"{owner}: the points of `make` have different structure; only numbers may depend on the axes, "
            "not selectors, the axes of a penalty, its number of terms or the shape of an array. Got "
            f"{made[0]!r} and {odd[0]!r}."
        )
    return _grid(jax.tree.map(lambda *xs: jnp.asarray(np.stack(xs)), *made), coords)


def _structure(point: PyTree) -> tuple:
    """What all points of a grid have in common; in sets, which look at the hash before they compare.

    jax calls the structures of two dataclasses with equal fields equal.
    """
    return jax.tree.structure(point), tuple(np.shape(x) for x in jax.tree.leaves(point))


def _grid(stacked: PyTree, coords: dict[str, np.ndarray]) -> Grid:
    values = tuple(jnp.asarray(c, float) for c in coords.values())
    return Grid(stacked, values, tuple(coords), _strengths(stacked, coords))


def _checked(owner: str, point: PyTree) -> PyTree:
    """The point with arrays as leaves; refuses what is no number."""
    if isinstance(point, optax.GradientTransformation):
        raise TypeError(
            f"{owner}: `make` must return numbers, got an optax transformation. Return what it is made "
            "of, such as the learning rate, and build it in the trainer, which is a function of the point."
        )
    leaves = _tree.flatten(point)
    if not leaves.values:
        raise TypeError(
            f"{owner}: `make` must return a penalty or a pytree of numbers, got {point!r}."
        )
    return leaves.rebuild([_number(owner, p, x) for p, x in zip(leaves.paths, leaves.values)])


def _number(owner: str, path: str, x: Any) -> np.ndarray:
    if isinstance(x, (int, float)) and not isinstance(x, bool):
        return np.asarray(x, jnp.result_type(float))
    dtype = getattr(x, "dtype", None)
    if not _tree.is_concrete(x):
        raise TypeError(f"{owner}: `make` returned a traced value; call {owner} outside of jit.")
    numeric = dtype is not None and jnp.issubdtype(dtype, np.number)
    if not numeric and dtype != np.bool_:
        where = f" at {path!r}" if path else ""
        raise TypeError(
            f"{owner}: `make` must return a penalty or a pytree of numbers, got {_kind(x)}{where}. Keep "
            "functions, trainers and flags out of the point; register a dataclass of your own by "
            "jax.tree_util.register_dataclass."
        )
    return np.asarray(x)


def _kind(x: Any) -> str:
    if isinstance(x, (str, bool, Penalty)):
        return repr(x)
    return f"a {type(x).__name__}"


def _strengths(stacked: PyTree, coords: dict[str, np.ndarray]) -> tuple[str, ...]:
    """The axes along which every strength of a penalty or a term that changes at all grows."""
    values = [part for penalty in penalties_in(stacked).values() for part in penalty.terms()]
    found = [part.strengths().get("lam") for part in values]
    found += [x.lam for x in values_in(stacked) if isinstance(x, Term)]
    count = len(next(iter(coords.values())))
    lams = [np.asarray(x).reshape(count, -1) for x in jax.tree.leaves(found)]
    return tuple(name for name in coords if lams and _grows(name, coords, np.concatenate(lams, 1)))


def _grows(name: str, coords: dict[str, np.ndarray], lams: np.ndarray) -> bool:
    others = [v for n, v in coords.items() if n != name]
    same: dict[tuple, list[int]] = {}
    for k, key in enumerate(zip(*others) if others else [()] * len(lams)):
        same.setdefault(key, []).append(k)
    groups = [np.array(ks) for ks in same.values() if len(ks) > 1] or [np.arange(len(lams))]
    ordered = [lams[ks[np.argsort(coords[name][ks], kind="stable")]] for ks in groups]
    up = np.concatenate([x[1:] > x[:-1] for x in ordered])
    down = np.concatenate([x[1:] < x[:-1] for x in ordered])
    return bool(up.any() and not down.any())


def map_grid(fit: Callable[..., Any], grid: Grid, *args: Any, chunk: int | None = None) -> PyTree:
    """`fit(point, *args)` of every point of the grid, in one compiled program; results lead with [K].

    Args:
      fit: any pure function (point, *args) -> pytree of arrays. Define it once and reuse it: it is what
        the compiled program is cached by.
      grid: a `Grid`.
      args: pytrees of arrays that all points share, such as data and a key.
      chunk: how many points are vmapped at a time; None is all of them. Less memory, and on a CPU often
        faster; 1 gives lanes that are bitwise those of a single run.

    Raises:
      TypeError: `grid` is no grid, or `fit` no function. ValueError: `chunk` is below 1.

    >>> import jaxreg as jr
    >>> g = jr.grid(jr.l2, lam=[0.0, 1.0, 3.0])
    >>> map_grid(lambda reg, x: reg.prox(x, 1.0), g, jnp.ones(2)).tolist()
    [[1.0, 1.0], [0.5, 0.5], [0.25, 0.25]]
    """
    if not callable(fit) or isinstance(fit, Penalty):
        raise TypeError(
            f"map_grid: `fit` must be a function (point, *args) -> arrays, got {_kind(fit)}."
        )
    if not isinstance(grid, Grid):
        raise TypeError(
            f"map_grid: `grid` must come from jaxreg.grid or jaxreg.points, got {_kind(grid)}."
        )
    if (why := misfit(fit, None, *args)) is not None:
        raise TypeError(
            f"map_grid: `fit` must take a point and {len(args)} more arguments, got {fit!r}: {why}."
        )
    if chunk is not None and (
        isinstance(chunk, bool) or not isinstance(chunk, (int, np.integer)) or chunk < 1
    ):
        raise ValueError(
            f"map_grid: `chunk` must be an integer of at least 1 or None, got {chunk!r}."
        )
    chunk = None if chunk is None else int(chunk)
    return _map(fit, grid.points, args, chunk)


@functools.partial(jax.jit, static_argnames=("fit", "chunk"))
def _map(fit, points, args, chunk):
    one = lambda point: fit(point, *args)
    # chunk=1 as a plain map: a vmap of width one could differ from a single run in rounding.
    width = None if chunk == 1 else chunk
    every = jax.vmap(one) if chunk is None else lambda p: lax.map(one, p, batch_size=width)
    return canonical_convolutions(every)(points)
