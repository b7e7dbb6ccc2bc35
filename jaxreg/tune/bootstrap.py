"""The bootstrap: the same training on rows drawn again and again, and how far its coefficients scatter.

A draw takes n of the n rows with replacement, (1 - 1/n)^n or about 37 % of the rows staying out of it, and
those judge it. All draws and all points are lanes of one sweep, whose training rows repeat.

    frequency_j   the share of the draws in which w_j is not 0
    interval_j    from the (1 - level)/2 to the (1 + level)/2 quantile of w_j over the draws
    sign_j        of the draws in which w_j is not 0, the share with the commoner sign
    error         the mean over the draws of the loss on the rows that stayed out

What an interval of a penalised fit does not promise. It is centred at the penalised coefficient, which is
shrunken, and knows nothing of that bias. And for the lasso the bootstrap is inconsistent wherever a true
coefficient is 0: its distribution does not tend to that of the estimate, however many rows and draws there
are (Chatterjee & Lahiri 2010, "Asymptotic properties of the residual bootstrap for Lasso estimators"; for
resampled rows Camponovo 2015, "On the validity of the pairs bootstrap for lasso estimators"). So an
interval says how far the fit moves with the rows, and is no confidence interval of the truth; that it
leaves out 0 is no test. Which variables matter is the question of `jaxreg.stability`.

The error is that of a model of 63 % of the distinct rows, so rather too high than too low (Efron &
Tibshirani 1997, "Improvements on cross-validation: the .632+ bootstrap method").
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
from jax import Array

from jaxreg._check import check_key, count, within
from jaxreg._tree import PyTree
from jaxreg.choice import coords_text
from jaxreg.fit.check import trainer_at
from jaxreg.fit.intake import as_rows
from jaxreg.fit.trainer import MakeTrainer
from jaxreg.grid import Grid, points
from jaxreg.report.table import Column, Table
from jaxreg.results import SweepResult
from jaxreg.select import as_selector, kernels
from jaxreg.sweeps.sweep import sweep
from jaxreg.tune._lanes import numpy_rng, refuse_diverged
from jaxreg.tune._variables import check_options, chosen

__all__ = ["Bootstrap", "bootstrap"]

_LISTED = 0.5  # the least share of draws for a row in the table


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Bootstrap:
    """The coefficients of B draws at each of K points; its repr is a table of the best point.

    Attributes:
      coords: name -> [K], the coordinates of the points.
      draws: leaf path -> [K, B, *shape], the coefficients.
      errors: [K, B], the loss of each draw on the rows that stayed out of it.
      result: the sweep behind it, its folds the draws.
    """

    coords: dict[str, np.ndarray]
    draws: dict[str, np.ndarray]
    errors: np.ndarray
    result: SweepResult

    def frequency(self) -> dict[str, np.ndarray]:
        """Leaf path -> [K, *shape], the share of the draws in which a coefficient is not 0."""
        return {path: (w != 0).mean(1) for path, w in self.draws.items()}

    def sign(self) -> dict[str, np.ndarray]:
        """Leaf path -> [K, *shape], of the draws that select it the share with its commoner sign.

        NaN where no draw does.
        """
        with np.errstate(invalid="ignore"):
            return {p: _commoner(w) / (w != 0).sum(1) for p, w in self.draws.items()}

    def interval(self, level: float = 0.9) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Leaf path -> (low, high), each [K, *shape]: percentiles of the draws, see the module.

        Raises:
          ValueError: `level` is not between 0 and 1, or the draws are too few for its ends.
        """
        ends = self._ends(level)
        return {path: tuple(np.quantile(w, ends, 1)) for path, w in self.draws.items()}  # pyright: ignore[reportReturnType]

    def error(self) -> tuple[np.ndarray, np.ndarray]:
        """[K] and [K]: the mean out-of-bag loss of each point, and its standard deviation over draws."""
        return self.errors.mean(1), self.errors.std(1, ddof=1)

    def table(self, k: int | None = None, level: float = 0.9) -> Table:
        """The coefficients that at least half of the draws select, at one point.

        Args:
          k: its number; by default that of the lowest out-of-bag loss.
          level: of the intervals.

        Raises:
          ValueError: as `interval`, or there is no such point.
        """
        k, (low_end, high_end) = self._point(k), self._ends(level)
        rows: list[tuple] = []
        frequency, sign, ends = self.frequency(), self.sign(), self.interval(level)
        for path, w in self.draws.items():
            middle, (low, high) = np.median(w[k], 0), ends[path]
            kept = zip(*np.nonzero(frequency[path][k] >= _LISTED))
            columns = frequency[path][k], sign[path][k], middle, low[k], high[k]
            for i in sorted(kept, key=lambda i: -abs(middle[i])):
                rows.append((path, ", ".join(map(str, i)), *(float(c[i]) for c in columns)))
        names = "leaf", "variable", "share", "sign", "median", "low", "high"
        heads = (*names[:5], f"{low_end:.3g}", f"{high_end:.3g}")
        cells = [
            (*r[:2], *(f"{x:.2f}" for x in r[2:4]), *(f"{x:.3g}" for x in r[4:])) for r in rows
        ]
        columns = tuple(Column(name, "left" if name == "leaf" else "right") for name in heads)
        size = sum(w[k, 0].size for w in self.draws.values())
        title = (
            f"{len(rows)} of {size} coefficients in at least half of {self.errors.shape[1]} bootstrap "
            f"draws at {self._text(k)}"
        )
        notes = (
            self._told(k),
            "percentiles of the fit over rows, no confidence intervals of the truth",
        )
        values: tuple[dict[str, Any], ...] = tuple(dict(zip(names, row)) for row in rows)
        return Table(title, columns, values, tuple(cells), notes)

    def plot(self, ax: Any = None, k: int | None = None, level: float = 0.9) -> Any:
        """The interval and the median of every coefficient at one point; returns the axes.

        Those that fewer than half of the draws select are grey.

        Raises:
          ImportError: matplotlib is not installed. ValueError: as `table`.
        """
        from jaxreg.results.axes import axes_for

        k, ends = self._point(k), self._ends(level)
        ax = axes_for(ax)
        flat = lambda of: np.concatenate([np.ravel(x) for x in of.values()])
        low, middle, high = (
            flat({p: np.quantile(w[k], q, 0) for p, w in self.draws.items()})
            for q in (ends[0], 0.5, ends[1])
        )
        kept = flat({p: f[k] for p, f in self.frequency().items()}) >= _LISTED
        for at, colour in ((kept, "#0072B2"), (~kept, "#BBBBBB")):
            place = np.flatnonzero(at)
            ax.vlines(place, low[at], high[at], color=colour, lw=1.4)
            ax.plot(place, middle[at], "o", color=colour, ms=3)
        ax.axhline(0, color="black", lw=0.8)
        ax.set(xlabel="coefficient", ylabel=f"median, {ends[0]:.3g} to {ends[1]:.3g} quantile")
        ax.set_title(f"blue: in at least half of the draws, at {self._text(k)}")
        return ax

    def __repr__(self) -> str:
        return str(self.table(level=min(0.9, 1 - 2 / self.errors.shape[1])))

    def _ends(self, level: Any) -> tuple[float, float]:
        within("bootstrap", "level", level, 0, 1)
        b, tail = self.errors.shape[1], (1 - float(level)) / 2
        if b * tail < 1 - 1e-6:
            raise ValueError(
                f"bootstrap: `level` must leave a draw on either side of the {b} there are, at most "
                f"{1 - 2 / b:.4g}, got {level!r}. Give more `draws`."
            )
        return tail, 1 - tail

    def _point(self, k: Any) -> int:
        if k is None:
            return int(self.errors.mean(1).argmin())
        number = count("bootstrap", "k", k, 0)
        if number >= len(self.errors):
            raise ValueError(
                f"bootstrap: `k` must be the number of a point, at most {len(self.errors) - 1}, got {k}."
            )
        return number

    def _text(self, k: int) -> str:
        if list(self.coords) == ["point"]:
            return repr(jax.tree.map(lambda x: x[k], self.result.points))
        return coords_text({name: np.asarray(v)[k].item() for name, v in self.coords.items()})

    def _told(self, k: int) -> str:
        mean, spread = (x[k] for x in self.error())
        return f"out-of-bag loss {mean:.4g}, over the draws ± {spread:.2g}"


def bootstrap(
    trainer: MakeTrainer,
    point: Grid | PyTree,
    data: tuple,
    *,
    steps: int,
    key: Array,
    draws: int = 100,
    where: Any = kernels,
    **options: Any,
) -> Bootstrap:
    """Train a point on rows that are drawn with replacement, `draws` times, in one program.

    Rows must be drawn independently of each other: no groups, no time. What the intervals do not promise
    is said in the module `jaxreg.tune.bootstrap`.

    Args:
      trainer: the function point -> `Trainer` of a sweep.
      point: the point, such as `result.best().point`, or a grid of them.
      data: all training rows.
      steps: updates of each training.
      key: PRNG key of draws, parameters and batches.
      draws: B; percentiles far out need many, at least 2/(1 - level).
      where: a selector of the leaves whose entries are the coefficients.
      options: of `jaxreg.sweep`.

    Returns:
      A `Bootstrap`.

    Raises:
      ValueError: fewer than four rows or ten draws, a selector that hits nothing, or a training that
        diverged. TypeError: an argument of another kind.

    >>> import jax.numpy as jnp, optax, jaxreg as jr
    >>> x = jax.random.normal(jax.random.key(1), (60, 20))
    >>> y = 2 * x[:, 3] - x[:, 7] + 0.5 * jax.random.normal(jax.random.key(2), (60,))
    >>> def trainer(reg):
    ...     loss = lambda p, x, y: 0.5 * jnp.mean((x @ p["kernel"] - y) ** 2)
    ...     init = lambda key: {"kernel": jnp.zeros(20)}
    ...     return jr.Trainer(init, loss, jr.proximal(optax.identity(), reg, 0.1))
    >>> found = bootstrap(trainer, jr.l1(0.2), (x, y), steps=100, key=jax.random.key(0))
    >>> low, high = found.interval(0.9)["kernel"]
    >>> np.flatnonzero((low[0] > 0) | (high[0] < 0)).tolist()
    [3, 7]
    """
    grid = point if isinstance(point, Grid) else _alone(point)
    trainer_at("bootstrap", trainer, grid[0])
    check_key("bootstrap", key)
    check_options("bootstrap", options, "the rows to train and to judge on")
    draws = count("bootstrap", "draws", draws, 10)
    selector = as_selector(where, "bootstrap", "where")
    n = as_rows("bootstrap", data, ready=options.get("prepare") is None)[1]
    if n < 4:
        raise ValueError(
            f"bootstrap: `data` must have at least 4 rows, so that some stay out, got {n}."
        )
    split, train = jax.random.split(key)
    found = sweep(
        trainer, grid, data, folds=_drawn(numpy_rng(split), n, draws), steps=steps, key=train,
        **({"evals": 1} | options | {"keep_params": True}),
    )  # fmt: skip
    refuse_diverged("bootstrap", found)
    coords = {name: np.asarray(v) for name, v in found.coords.items()}
    errors = found.scores()
    return Bootstrap(coords, chosen(found, selector), errors.reshape(len(errors), -1), found)


def _alone(point: PyTree) -> Grid:
    try:
        return points([point])
    except (TypeError, ValueError) as error:
        raise type(error)(
            f"bootstrap: `point` must be a grid or a point, a penalty or a pytree of numbers, got "
            f"{point!r:.80}. ({error})"
        ) from error


def _drawn(rng: np.random.Generator, n: int, draws: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of each draw the rows to train on and those that stayed out; one that took all is drawn again."""
    found = []
    while len(found) < draws:
        rows = rng.integers(n, size=n)
        out = np.setdiff1d(np.arange(n), rows)
        found += [(rows, out)] * bool(out.size)
    return found


def _commoner(w: np.ndarray) -> np.ndarray:
    return np.maximum((w > 0).sum(1), (w < 0).sum(1))
