"""Stability selection: variables that a sparse penalty takes again and again on halves of the rows.

Every pair of halves is complementary, two disjoint samples of n/2 rows (Shah & Samworth 2013). At a
strength that selects q of p variables on average, those taken in a share of at least τ of the halves are
stable, and

    E[false ones] <= q^2 / ((2 τ - 1) p),  1/2 < τ <= 1

(Meinshausen & Bühlmann 2010, theorem 1, where noise variables are exchangeable and selection is no worse
than guessing). All halves and all strengths are lanes of one sweep.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
from jax import Array

from jaxreg import _tree
from jaxreg._check import flag
from jaxreg.fit.check import trainer_at
from jaxreg.fit.intake import as_rows, check_key, count
from jaxreg.fit.trainer import MakeTrainer
from jaxreg.grid import Grid
from jaxreg.report.table import Column, Table
from jaxreg.results import SweepResult
from jaxreg.select import Selector, as_selector, kernels
from jaxreg.sweeps.sweep import sweep
from jaxreg.tune._lanes import numpy_rng, refuse_diverged

__all__ = ["Stability", "stability"]


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Stability:
    """How often each variable was selected, at each of K strengths; its repr is a table.

    Attributes:
      coords: name -> [K], the coordinates of the points.
      probability: leaf path -> [K, *shape], the share of the halves in which an entry was not 0. With
        `rows`, entries are rows of a leaf, which count as one variable.
      count: [K], how many were selected on average, q.
      size: how many variables there are, p.
      result: the sweep behind it, its folds the halves.
    """

    coords: dict[str, np.ndarray]
    probability: dict[str, np.ndarray]
    count: np.ndarray
    size: int
    result: SweepResult

    def selected(self, threshold: float = 0.75, most: float | None = None) -> dict[str, np.ndarray]:
        """Leaf path -> which variables are stable, at the strengths that select `most` on average or fewer.

        Args:
          threshold: τ, the share of halves, above 1/2.
          most: the largest q; by default the one whose bound is one false variable, √((2τ - 1) p).

        Raises:
          ValueError: `threshold` is no share above a half, or every strength selects more than `most`.
        """
        allowed = self.count <= self._most(threshold, most)
        stable = lambda p: np.asarray((p[allowed] >= threshold).any(0))
        return {path: stable(p) for path, p in self.probability.items()}

    def bound(self, threshold: float = 0.75, most: float | None = None) -> float:
        """The most false variables to expect among those selected.

        Raises:
          ValueError: as `selected`.
        """
        most = self._most(threshold, most)
        q = self.count[self.count <= most].max()
        return float(q**2 / ((2 * threshold - 1) * self.size))

    def plot(self, ax: Any = None, threshold: float = 0.75) -> Any:
        """The stability path: the share of each variable against the first coordinate; returns the axes.

        Strengths that select more variables on average than `selected` looks at are shaded.

        Raises:
          ImportError: matplotlib is not installed. ValueError: as `selected`.
        """
        from jaxreg.results.axes import axes_for, dress, place

        ax = axes_for(ax)
        name, values = next(iter(self.coords.items()))
        axis = place(np.asarray(values, float))
        order = np.argsort(axis.position)
        kept = self.selected(threshold)
        for path, share in self.probability.items():
            lines = share.reshape(len(values), -1)
            for j, line in enumerate(lines.T):
                stable = kept[path].ravel()[j]
                look = (
                    {"color": "#0072B2", "lw": 1.4} if stable else {"color": "#BBBBBB", "lw": 0.6}
                )
                ax.plot(axis.position[order], line[order], zorder=2 + stable, **look)
        ax.axhline(threshold, color="black", ls="--", lw=1)
        if (many := axis.position[self.count > self._most(threshold, None)]).size:
            ax.axvspan(
                many.min(), many.max(), color="#F2F2F2", zorder=0, label="selects too many to count"
            )
            ax.legend(loc="center right", frameon=False)
        dress(ax, axis)
        ax.set(xlabel="λ" if name == "lam" else name, ylabel="share of halves", ylim=(-0.02, 1.02))
        ax.set_title(
            f"blue: stable at {threshold:g}, at most {self.bound(threshold):.2g} false expected"
        )
        return ax

    def table(self, threshold: float = 0.75) -> Table:
        """The stable variables of each leaf, their largest share, and how many there are."""
        rows = []
        allowed = self.count <= self._most(threshold, None)
        for path, kept in self.selected(threshold).items():
            share = self.probability[path][allowed].max(0)
            for index in sorted(zip(*np.nonzero(kept)), key=lambda i: -share[i]):
                rows.append((path, ", ".join(map(str, index)), f"{share[index]:.2f}"))
        columns = (Column("leaf", "left"), Column("variable"), Column("share"))
        title = f"{len(rows)} of {self.size} variables in at least {threshold:g} of the halves"
        note = (
            f"at strengths that select {self.count[allowed].max():.1f} on average or fewer; at most "
            f"{self.bound(threshold):.2g} false ones are to be expected"
        )
        values = tuple({"leaf": a, "variable": b, "share": c} for a, b, c in rows)
        return Table(title, columns, values, tuple(rows), (note,))

    def __repr__(self) -> str:
        return str(self.table())

    def _most(self, threshold: float, most: float | None) -> float:
        share = isinstance(threshold, (int, float, np.floating)) and type(threshold) is not bool
        if not share or not 0.5 < threshold <= 1:
            raise ValueError(
                f"stability: `threshold` must be a share above 0.5 and at most 1, got {threshold!r}."
            )
        if most is None:
            most = float(np.sqrt((2 * threshold - 1) * self.size))
        most *= 1 + 1e-9  # a rounded root
        if not (self.count <= most).any():
            raise ValueError(
                f"stability: every strength selects more than `most` variables, {self.count.min():.3g} at "
                f"least, got {most:.3g}. Give stronger penalties, or a larger `most`."
            )
        return most


def stability(
    trainer: MakeTrainer,
    grid: Grid,
    data: tuple,
    *,
    steps: int,
    key: Array,
    pairs: int = 50,
    where: Any = kernels,
    rows: bool = False,
    **options: Any,
) -> Stability:
    """Train every point on `pairs` complementary pairs of halves, and count what is selected.

    Args:
      trainer: the function point -> `Trainer` of a sweep, with exact zeros, as from `jaxreg.proximal`.
      grid: the strengths.
      data: all training rows.
      steps: updates of each training.
      key: PRNG key of halves, parameters and batches.
      pairs: how many pairs; 50 are usual.
      where: a selector of the leaves whose entries are the variables.
      rows: whether the rows of a leaf, its entries along the first axis, are the variables: the inputs of a
        layer, or groups.
      options: of `jaxreg.sweep`.

    Returns:
      A `Stability`.

    Raises:
      ValueError: fewer than four rows, a selector that hits nothing, a training that diverged, or weights
        of which none is exactly 0.

    >>> import jax.numpy as jnp, optax, jaxreg as jr
    >>> x = jax.random.normal(jax.random.key(1), (60, 20))
    >>> y = 2 * x[:, 3] - x[:, 7] + 0.5 * jax.random.normal(jax.random.key(2), (60,))
    >>> def trainer(reg):
    ...     loss = lambda p, x, y: 0.5 * jnp.mean((x @ p["kernel"] - y) ** 2)
    ...     init = lambda key: {"kernel": jnp.zeros(20)}
    ...     return jr.Trainer(init, loss, jr.proximal(optax.identity(), reg, 0.1))
    >>> grid = jr.grid(jr.l1, lam=[0.2, 0.3, 0.5])
    >>> found = jr.stability(trainer, grid, (x, y), steps=100, pairs=20, key=jax.random.key(0))
    >>> np.flatnonzero(found.selected()["kernel"]).tolist()
    [3, 7]
    """
    if not isinstance(grid, Grid):
        raise TypeError(
            f"stability: `grid` must come from jaxreg.grid or jaxreg.points, got {type(grid).__name__}."
        )
    trainer_at("stability", trainer, grid[0])
    check_key("stability", key)
    pairs, rows = count("stability", "pairs", pairs), flag("stability", "rows", rows)
    selector = as_selector(where, "stability", "where")
    n = as_rows("stability", data, ready=options.get("prepare") is None)[1]
    if n < 4:
        raise ValueError(f"stability: `data` must have at least 4 rows to halve, got {n}.")
    split, train = jax.random.split(key)
    found = sweep(
        trainer, grid, data, folds=_halves(numpy_rng(split), n, pairs), steps=steps, key=train,
        **({"evals": 1} | options | {"keep_params": True}),
    )  # fmt: skip
    refuse_diverged("stability", found)
    probability = _shares(found, selector, rows)
    every = np.concatenate([share.reshape(len(share), -1) for share in probability.values()], 1)
    q, size = every.sum(1), every.shape[1]
    if (q >= size).all():
        raise ValueError(
            f"stability: none of the {size} variables is ever exactly 0, so every one is selected every "
            "time. Couple a penalty that has exact zeros by jaxreg.proximal, or make it stronger."
        )
    coords = {name: np.asarray(v) for name, v in found.coords.items()}
    return Stability(coords, probability, q, size, found)


def _halves(rng: np.random.Generator, n: int, pairs: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of each pair each half to train on, and the other one to look at."""
    found = []
    for _ in range(pairs):
        order = rng.permutation(n)
        first, second = order[: n // 2], order[n // 2 : 2 * (n // 2)]
        found += [(first, second), (second, first)]
    return found


def _shares(found: SweepResult, selector: Selector, rows: bool) -> dict[str, np.ndarray]:
    """Leaf path -> the share of the lanes of each point in which an entry is not 0."""
    leaves = _tree.flatten(found.params)
    chosen = selector.mask(_tree.held(found.lane(0)))
    shares = {}
    for path, leaf, taken in zip(leaves.paths, leaves.values, chosen):
        if taken:
            nonzero = np.asarray(leaf) != 0
            if rows and nonzero.ndim > 4:
                nonzero = nonzero.any(tuple(range(4, nonzero.ndim)))
            shares[path] = nonzero.mean((1, 2))
    return shares
