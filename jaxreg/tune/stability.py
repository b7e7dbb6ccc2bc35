"""Stability selection: variables that a sparse penalty takes again and again on halves of the rows.

Every pair of halves is complementary, two disjoint samples of n/2 rows (Shah & Samworth 2013). At a
strength that selects q of p variables on average, those taken in a share of at least τ of the halves are
stable, and

    E[false ones] <= q^2 / ((2 τ - 1) p),  1/2 < τ <= 1

(Meinshausen & Bühlmann 2010, theorem 1, where noise variables are exchangeable and selection is no worse
than guessing). Of several strengths q counts what any of them selects on a half. The proof adds up over
variables, so the same holds within a family of p_f variables of which q_f are selected, where the noise of
that family is exchangeable and selection within it no worse than guessing. And with no assumption at all it
bounds the stable variables that a half selects with a probability of at most q/p (Shah & Samworth 2013,
theorem 1). All halves and all strengths are lanes of one sweep.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
from jax import Array

from jaxreg._check import check_key, count, flag
from jaxreg.fit.check import trainer_at
from jaxreg.fit.intake import as_rows
from jaxreg.fit.trainer import MakeTrainer
from jaxreg.grid import Grid
from jaxreg.report.table import Column, Table
from jaxreg.results import SweepResult
from jaxreg.select import Selector, as_selector, kernels
from jaxreg.sweeps.sweep import sweep
from jaxreg.tune._lanes import numpy_rng, refuse_diverged
from jaxreg.tune._variables import check_options, chosen, families_of, flat

__all__ = ["Stability", "stability"]


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Stability:
    """How often each variable was selected, at each of K strengths; its repr is a table.

    Attributes:
      coords: name -> [K], the coordinates of the points.
      probability: leaf path -> [K, *shape], the share of the halves in which an entry was not 0. With
        `rows`, entries are rows of a leaf, which count as one variable.
      ever: leaf path -> [K, *shape], the share in which it was not 0 at this strength or at one that
        selects fewer.
      count: [K], how many were selected on average.
      size: how many variables there are, p.
      result: the sweep behind it, its folds the halves.
    """

    coords: dict[str, np.ndarray]
    probability: dict[str, np.ndarray]
    ever: dict[str, np.ndarray]
    count: np.ndarray
    size: int
    result: SweepResult

    @property
    def q(self) -> np.ndarray:
        """[K], how many are selected on average at this strength or at any that selects fewer."""
        return sum(flat(x).sum(1) for x in self.ever.values())  # pyright: ignore[reportReturnType]

    def selected(self, threshold: float = 0.75, most: float | None = None) -> dict[str, np.ndarray]:
        """Leaf path -> which variables are stable, at the strengths that select `most` together or fewer.

        Args:
          threshold: τ, the share of halves, above 1/2.
          most: the largest q; by default the one whose bound is one false variable, √((2τ - 1) p).

        Raises:
          ValueError: `threshold` is no share above a half, or every strength selects more than `most`.
        """
        allowed = self._allowed(threshold, most)
        stable = lambda p: np.asarray((p[allowed] >= threshold).any(0))
        return {path: stable(p) for path, p in self.probability.items()}

    def bound(self, threshold: float = 0.75, most: float | None = None) -> float:
        """The most false variables to expect among those selected.

        Raises:
          ValueError: as `selected`.
        """
        q = self.q[self._allowed(threshold, most)].max()
        return float(q**2 / ((2 * threshold - 1) * self.size))

    def families(
        self, labels: Any = None, threshold: float = 0.75, most: float | None = None
    ) -> Table:
        """For each family of variables how many are stable, and the most false ones to expect among them.

        The bound is q_f^2 / ((2τ - 1) p_f), of the q_f of the p_f variables of the family that are selected
        on average. It takes noise to be exchangeable within a family alone, so families may differ in scale
        or number; the bounds of all families together are no less than `bound`.

        Args:
          labels: the family of each variable, numbers or names: an array in the shape of the leaf, or with
            one label for each of its rows; of several leaves leaf path -> such an array. By default each
            leaf is a family.
          threshold: as for `selected`.
          most: as for `selected`, over all families.

        Returns:
          A `Table`, with a row for each family.

        Raises:
          ValueError: `labels` do not fit the variables, or as `selected`. TypeError: they are no labels.
        """
        names = families_of({path: p.shape[1:] for path, p in self.probability.items()}, labels)
        allowed, kept = self._allowed(threshold, most), self.selected(threshold, most)
        last = np.flatnonzero(allowed)[self.q[allowed].argmax()]
        stable = np.concatenate([x.ravel() for x in kept.values()])
        ever = np.concatenate([flat(x)[last] for x in self.ever.values()])
        rows = []
        for family in dict.fromkeys(names.tolist()):
            mine = names == family
            q, p = float(ever[mine].sum()), int(mine.sum())
            bound = q**2 / ((2 * threshold - 1) * p)
            rows.append({"family": family, "variables": p, "selected": int(stable[mine].sum()),
                         "on a half": q, "false at most": bound})  # fmt: skip
        text = lambda v: f"{v:.2g}" if isinstance(v, float) else str(v)
        cells = tuple(tuple(map(text, row.values())) for row in rows)
        columns = tuple(Column(n, "left" if n == "family" else "right") for n in rows[0])
        note = (
            "false ones are to be expected up to that number where the noise of a family is exchangeable "
            "and selection within it is no worse than guessing"
        )
        title = f"families of variables, stable in at least {threshold:g} of the halves"
        return Table(title, columns, tuple(rows), cells, (note,))

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
        if (many := axis.position[~self._allowed(threshold, None)]).size:
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
        allowed = self._allowed(threshold, None)
        for path, kept in self.selected(threshold).items():
            share = self.probability[path][allowed].max(0)
            for index in sorted(zip(*np.nonzero(kept)), key=lambda i: -share[i]):
                rows.append((path, ", ".join(map(str, index)), f"{share[index]:.2f}"))
        columns = (Column("leaf", "left"), Column("variable"), Column("share"))
        title = f"{len(rows)} of {self.size} variables in at least {threshold:g} of the halves"
        note = (
            f"at strengths that select {self.q[allowed].max():.1f} on average together; at most "
            f"{self.bound(threshold):.2g} false ones are to be expected"
        )
        values = tuple({"leaf": a, "variable": b, "share": c} for a, b, c in rows)
        return Table(title, columns, values, tuple(rows), (note,))

    def __repr__(self) -> str:
        return str(self.table())

    def _allowed(self, threshold: float, most: float | None) -> np.ndarray:
        """[K], which strengths are looked at: all that select few, so that their q is that of the last."""
        share = isinstance(threshold, (int, float, np.floating)) and type(threshold) is not bool
        if not share or not 0.5 < threshold <= 1:
            raise ValueError(
                f"stability: `threshold` must be a share above 0.5 and at most 1, got {threshold!r}."
            )
        if most is None:
            most = float(np.sqrt((2 * threshold - 1) * self.size))
        elif isinstance(most, (bool, str)) or np.ndim(most) != 0 or not float(most) >= 0:
            raise ValueError(
                f"stability: `most` must be a number of variables of at least 0, got {most!r}."
            )
        allowed = self.q <= most * (1 + 1e-9)  # a rounded root
        if not allowed.any():
            raise ValueError(
                f"stability: every strength selects more than `most` variables, {self.q.min():.3g} at "
                f"least, got {most:.3g}. Give stronger penalties, or a larger `most`."
            )
        return allowed


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
    check_options("stability", options, "the halves of the rows")
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
    taken = _nonzero(found, selector, rows)
    probability = {path: x.mean(1) for path, x in taken.items()}
    each = np.concatenate([flat(x) for x in probability.values()], 1)
    selected, size = each.sum(1), each.shape[1]
    if (selected >= size).all():
        raise ValueError(
            f"stability: none of the {size} variables is ever exactly 0, so every one is selected every "
            "time. Couple a penalty that has exact zeros by jaxreg.proximal, or make it stronger."
        )
    coords = {name: np.asarray(v) for name, v in found.coords.items()}
    ever = {path: _ever(x, np.argsort(selected, kind="stable")) for path, x in taken.items()}
    return Stability(coords, probability, ever, selected, size, found)


def _halves(rng: np.random.Generator, n: int, pairs: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of each pair each half to train on, and the other one to look at."""
    found = []
    for _ in range(pairs):
        order = rng.permutation(n)
        first, second = order[: n // 2], order[n // 2 : 2 * (n // 2)]
        found += [(first, second), (second, first)]
    return found


def _nonzero(found: SweepResult, selector: Selector, rows: bool) -> dict[str, np.ndarray]:
    """Leaf path -> [K, lanes, *variables], which are not 0."""
    taken = {path: x != 0 for path, x in chosen(found, selector).items()}
    if not rows:
        return taken
    return {path: x.any(tuple(range(3, x.ndim))) for path, x in taken.items()}


def _ever(taken: np.ndarray, order: np.ndarray) -> np.ndarray:
    """The share of lanes in which something is taken at a point, or at one before it in an order."""
    share = np.empty((len(taken), *taken.shape[2:]))
    share[order] = np.logical_or.accumulate(taken[order], 0).mean(1)
    return share
