"""What a sweep found: learning curves of every lane, the choice of a point, and its uncertainty.

A lane is one (point, fold, seed). The score of a point is the mean over its lanes at the last
step; how far to trust it is its standard error, taken over the folds,

    mean = (1/F) sum_f m_f,   SE = sd(m_1, …, m_F) / sqrt(F),   m_f = mean over the seeds of fold f,

since the lanes of one fold share its validation rows and are no independent draws. With one fold it
is taken over the seeds, and then says nothing of the validation rows that were drawn. Folds share
training rows, so it is somewhat too small in any case (Bengio & Grandvalet 2004): a guide for a
choice and no confidence interval.

Which point a rule takes is in `jaxreg.choice`.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax import Array
from jax.tree_util import GetAttrKey

from jaxreg import _tree, choice
from jaxreg._check import flag
from jaxreg._tree import PyTree, is_concrete
from jaxreg.choice import Choice
from jaxreg.expected import ExpectedError, of_folds
from jaxreg.grid import Grid
from jaxreg.report.table import Table
from jaxreg.results import build, stored, summary
from jaxreg.results.build import DATA_FIELDS, Parts, between, pick
from jaxreg.results.status import Status
from jaxreg.scores import Scores, mean, simplicity, stderr
from jaxreg.stationarity import Stationarity

if TYPE_CHECKING:
    from jaxreg.results.frontier import Frontier

__all__ = ["SweepResult"]


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class SweepResult:
    """K points x F folds x S seeds, evaluated at T times; a pytree.

    Attributes:
      coords: name -> [K], the coordinates of each point.
      points: the stacked point, leaves [K, ...].
      time: int [T], the step counts at which the lanes were evaluated; the last is the end.
      train: metric -> [K, F, S, T] on the training rows. "loss" is the data loss, never with a
        penalty in it.
      valid: the same on the validation rows.
      terms: name -> [K, F, S, T], the value of each term of the penalties in the points.
      params: final parameters, leaves [K, F, S, ...]; None when they were not kept.
      status: int [K, F, S] of `Status`.
      stop: int [K, F, S], which of the T evaluations counts for each lane, and is that of its
        parameters: the last it was trained to, or its best with early stopping; None is the last
        for all. The curves of a lane that ended before the others go on with NaN.
      strengths: the names of the coordinates that are strengths of penalties: larger is simpler.
      directions: of the metrics that know it, whether "larger" or "smaller" is better.
      repeats: how often the folds split the same rows anew; F is a multiple of it.
      overlap: validation over training rows, where folds overlap in another way; else 0.
      made_by: JSON text of what made it.
      certificate: how far each lane ended from stationarity, [K, F, S], or None; see `stationarity`.

    Methods that look at numbers return float64 numpy arrays and work outside `jit` only.

    >>> import jaxreg as jr
    >>> curves = {"loss": np.array([[1.0, 3.0], [1.0, 2.0], [9.0, 9.0]]).reshape(3, 2, 1, 1)}
    >>> result = SweepResult(
    ...     coords={"lam": np.array([0.01, 0.1, 1.0])},
    ...     points=jax.vmap(jr.l2)(np.array([0.01, 0.1, 1.0])),
    ...     time=np.array([500]),
    ...     train=curves,
    ...     valid=curves,
    ...     terms={"l2": np.zeros((3, 2, 1, 1))},
    ...     params=None,
    ...     status=np.zeros((3, 2, 1), int),
    ...     strengths=("lam",),
    ... )
    >>> result
    SweepResult: 3 x l2, 2 folds, 500 steps
      lam       0.01 … 1
      min       lam=0.1: valid loss 1.50 ± 0.50
      paired    lam=0.1: valid loss 1.50 ± 0.50
      status    6 of 6 lanes finished, 0 diverged
      data      loss at 1 time; params not kept
    >>> result.best("min").point
    l2(0.1)
    """

    coords: dict[str, Any]
    points: PyTree
    time: Any
    train: dict[str, Any]
    valid: dict[str, Any]
    terms: dict[str, Any]
    params: PyTree
    status: Any
    stop: Any = None
    strengths: tuple[str, ...] = ()
    directions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    repeats: int = 1
    overlap: float = 0.0
    made_by: str = "{}"
    certificate: Stationarity | None = None

    @property
    def axes(self) -> tuple[str, str, str, str]:
        """Names of the axes of every curve."""
        return ("point", "fold", "seed", "time")

    @property
    def penalty_value(self) -> np.ndarray:
        """R(params) [K, F, S, T], the sum of the terms."""
        zeros = np.zeros((*np.shape(self.status), np.size(self.time)), np.float32)
        return sum((np.asarray(v) for v in self.terms.values()), start=zeros)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of what was measured, the loss first."""
        return ("loss", *sorted(set(self.valid) - {"loss"}))

    def mean(self, metric: str = "loss", split: str = "valid") -> np.ndarray:
        """Mean over folds and seeds at the evaluation that counts, [K]; NaN where any lane diverged.

        Every fold counts alike, whatever its number of rows. That of a point that was given up is
        of the rung where it was.

        Raises:
          ValueError: no such metric or split.
        """
        return mean(self._final(metric, split))

    def stderr(self, metric: str = "loss", split: str = "valid") -> np.ndarray:
        """Standard error of `mean`, [K]: over folds, or over seeds if there is one fold.

        Over F >= 2 folds it is sd / sqrt(F) of the F means over seeds, sd with F - 1 below the line;
        with one fold, the same over its S seeds. R repeats of k folds judge on the same rows: its square
        is then the mean over the repeats of sd_r^2 / k. Where folds overlap otherwise it is
        sd sqrt(1/F + overlap) (Nadeau & Bengio 2003, section 4). NaN for a single lane, which has no
        spread, and where any lane diverged.

        Raises:
          ValueError: no such metric or split.
        """
        return stderr(self._final(metric, split), self.repeats, self.overlap)

    def difference(
        self, metric: str = "loss", than: int | None = None, *, corrected: bool = True
    ) -> tuple[np.ndarray, np.ndarray]:
        """How much a validation metric of each point differs from that of another, in pairs of lanes.

        All points share folds and seeds, so a difference is known far better than either level.

        Args:
          metric: "loss", or one of the trainer's metrics.
          than: the index of the other point; by default the one of the best mean.
          corrected: whether the standard error allows for the training rows that k folds share: over the
            folds' differences it is sd sqrt(1/k + 1/(k-1)) (Nadeau & Bengio 2003, section 4), else
            sd/sqrt(k).
            A lone fold shares none: then it is over its seeds.

        Returns:
          The mean differences [K] and their standard errors [K], 0 at the other point itself.

        Raises:
          ValueError: no such metric, or there is no best point. IndexError: no such point.
        """
        other = self.best("min", metric).index if than is None else than
        k = _check_index("difference", "than", other, len(self.status))
        found = Scores(self._candidates(metric), repeats=self.repeats, overlap=self.overlap)
        return found.differences(k, flag("difference", "corrected", corrected))

    def best(
        self,
        rule: str = "min",
        metric: str = "loss",
        *,
        maximize: bool | None = None,
        simplest: Mapping[str, str] | None = None,
        within: float | None = None,
    ) -> Choice:
        """The point to use, by its validation score; one that diverged or was given up never is.

        Args:
          rule: one of `jaxreg.choice`: "min", the best mean; "parabola", between the points, where a
            quadratic in log λ through the best and its neighbours is lowest; "paired", the simplest on the
            way from the best whose difference from it is within one standard error of that difference;
            "nadeau-bengio", the same with an error that allows for training rows which folds share;
            "percent", the simplest on the way within one percent of the best mean; "1se", the simplest
            within one standard error of the level of the best.
          metric: "loss", or one of the trainer's metrics.
          maximize: whether larger is better; must be given for a metric that does not know it.
          simplest: which end of which coordinate is the simpler model, as {"width": "smallest"}; several
            compare in their order. By default the largest λ, where one coordinate is a strength.
          within: how many standard errors, or percent; 1 by default.

        Returns:
          A `Choice`: the point, its score, why it was taken, and warnings, as of an end of the grid.

        Raises:
          ValueError: every point diverged or was given up, unknown rule, metric or coordinate,
            `maximize` or `simplest` missing, or the rule needs a standard error where there is a single
            lane.
        """
        lanes = self._candidates(metric)
        if larger := summary.direction(self, metric, maximize):
            lanes = -lanes
        order, simple = simplicity(self.coords, self.strengths, simplest)
        found = Scores(lanes, self.coords, order, simple, self.repeats, self.overlap)
        if not found.finite.any():
            raise ValueError(f"best: {summary.without_scores(self, metric)}")
        pick_ = choice.choose(rule, found, within)
        middle, error = choice.score_at(found, pick_)
        coords, point = self._point(pick_.index), pick(self.points, pick_.index)
        if pick_.place is not None:
            coords |= {pick_.place.coordinate: float(f"{pick_.place.position:.7g}")}
            point = between(self.points, pick_.place)
        return Choice(
            rule, point, coords, -middle if larger else middle, error, f"valid {metric}", pick_.index,
            pick_.why, summary.lane_steps(self), pick_.warnings,
        )  # fmt: skip

    def expected_error(
        self, rule: str = "min", metric: str = "loss", **options: Any
    ) -> ExpectedError:
        """The score to expect of a choice on new rows, as far as the folds of this sweep tell; it is free.

        Its interval covers less than it says; `jaxreg.expected_error` trains what an honest one needs.

        Args:
          rule: as of `best`, as is `metric`.
          options: further ones of `best`.

        Raises:
          ValueError: as `best`.
        """
        return of_folds(self.best(rule, metric, **options), metric)

    def scores(self, metric: str = "loss", split: str = "valid") -> np.ndarray:
        """The metric at the evaluation that counts, of every lane: [K, F, S].

        Raises:
          ValueError: no such metric or split.
        """
        table = summary.chosen("split", split, {"train": self.train, "valid": self.valid})
        values = np.asarray(summary.chosen("metric", metric, table))
        if self.stop is None:
            return values[..., -1].astype(np.float64)
        final = np.take_along_axis(values, np.asarray(self.stop)[..., None], -1)[..., 0]
        return final.astype(np.float64)

    def lane(self, k: int, fold: int = 0, seed: int = 0) -> PyTree:
        """Final parameters of one lane.

        Raises:
          ValueError: the parameters were not kept. IndexError: no such lane.
        """
        if self.params is None:
            raise ValueError("lane: no parameters were kept. Run the sweep with keep_params=True.")
        index = {"k": k, "fold": fold, "seed": seed}
        for (name, i), size in zip(index.items(), self.status.shape):
            _check_index("lane", name, i, size)
        return _tree.released(pick(self.params, k % len(self.status), fold, seed))

    def stationarity(self) -> Stationarity:
        """How far every lane ended from a stationary point of its training loss and its penalties.

        Returns:
          A `Stationarity` of arrays [K, F, S]: the norm of the least element of grad L + dR on the lane's
          training rows, the same over the norm of grad L, and the part of each leaf. It is of the
          parameters that the result keeps: averaged ones, or those of the best evaluation.

        Raises:
          ValueError: it was not asked for.
        """
        if self.certificate is None:
            raise ValueError(
                "stationarity: it was not asked for. Run the sweep to its end with stationarity=True, or "
                "call jaxreg.stationarity(loss, result.lane(k), penalty, *rows) for a lane."
            )
        return self.certificate

    def table(self, by: str | None = None, metric: str = "loss") -> Table:
        """Each point's losses and metrics at the last step, mean ± standard error, and the choices.

        With `by`, the name of a coordinate, there is one line for each of its values: the best of the
        other coordinates.

        The choices are by the validation `metric`; a warning says when the best lies at an end of the
        grid. `rows` hold the numbers: every coordinate, "train loss", "train loss se", and so on.

        Raises:
          ValueError: no such coordinate or metric, or the metric does not know whether larger is better.
        """
        return summary.table(self, by, metric)

    def to_pandas(self) -> Any:
        """All curves in tidy long form: coordinates, fold, seed, time, split, metric, value.

        Returns:
          A `pandas.DataFrame` with one row per number.

        Raises:
          ImportError: pandas is not installed.
        """
        return summary.to_pandas(self)

    def plot(self, ax: Any = None, metric: str = "loss", along: str | None = None) -> Any:
        """The validation metric over the points, with the choices marked.

        Over one coordinate it is the validation curve with standard errors, over two a heat map, and over
        more a curve for each of them, of the best of the others. With `along`, the name of a coordinate,
        it is the curve against that one: a line for each value of the others or, where these are many, of
        the best of them.

        Returns:
          A `ValidationCurveDisplay`, `HeatMapDisplay` or `ProfilesDisplay`, which keep their matplotlib
          artists.

        Raises:
          ImportError: matplotlib is not installed. ValueError: no such metric or coordinate.
        """
        from jaxreg.results.curves import ValidationCurveDisplay
        from jaxreg.results.profiles import ProfilesDisplay
        from jaxreg.results.surface import HeatMapDisplay

        varying = [summary.column(self.coords[n]) for n in summary.varying(self)]
        if along is None and len(varying) == 2 and all(v.dtype != object for v in varying):
            return HeatMapDisplay.from_result(self, ax=ax, metric=metric)
        if along is None and len(varying) > 2 and ax is None:
            return ProfilesDisplay.from_result(self, metric=metric)
        return ValidationCurveDisplay.from_result(self, ax=ax, metric=metric, along=along)

    def plot_parallel(self, ax: Any = None, metric: str = "loss") -> Any:
        """Parallel coordinates: a line for each point through an axis for each coordinate and the score.

        Returns:
          A `ParallelDisplay`, which keeps its matplotlib artists.

        Raises:
          ImportError: matplotlib is not installed. ValueError: no such metric.
        """
        from jaxreg.results.surface import ParallelDisplay

        return ParallelDisplay.from_result(self, ax=ax, metric=metric)

    def plot_learning_curves(
        self, ax: Any = None, metric: str = "loss", split: str = "valid"
    ) -> Any:
        """The metric against the step, one line per point, averaged over folds and seeds.

        Returns:
          A `LearningCurvesDisplay`, which keeps its matplotlib artists.

        Raises:
          ImportError: matplotlib is not installed. ValueError: no such metric or split.
        """
        from jaxreg.results.learning import LearningCurvesDisplay

        return LearningCurvesDisplay.from_result(self, ax=ax, metric=metric, split=split)

    def frontier(self, x: str, y: str = "loss") -> Frontier:
        """Two validation measures of every point against each other, and which points are Pareto-optimal.

        These are the points k that no other j is at least as good as in both and better in one: there is
        no j with x_j <= x_k and y_j <= y_k but for x_j = x_k and y_j = y_k. Larger is better where a metric
        says so (`directions`); what does not know its direction, as a rate or a number of active codes, is
        a cost. Given the rate of a variational autoencoder, it is the rate–distortion curve of the sweep.

        Args:
          x: "loss" or a metric of the trainer, drawn to the right.
          y: the same, drawn upwards.

        Returns:
          A `Frontier` of the means [K] over folds and seeds, at the evaluation that counts, their standard
          errors, and which are optimal; its `plot()` draws it. A point that diverged is not finite, and one
          that was given up is shown at its rung; neither is optimal.

        Raises:
          ValueError: a name was not recorded, both are the same, or it is that of a term, which is recorded
            times its strength; says how to record what it is without.

        >>> import jaxreg as jr
        >>> valid = {"loss": [20.0, 22.0, 26.0, 27.0], "rate": [15.0, 12.0, 4.0, 5.0]}
        >>> grid = jr.grid(jr.terms.kl, lam=[0.5, 1.0, 2.0, 4.0])
        >>> found = jr.SweepResult.of(grid, valid).frontier("rate")
        >>> found
        Frontier: loss (smaller is better) against rate (smaller is better), 4 x kl
          3 Pareto-optimal of 4 points
          lam=2    rate  4.00  loss 26.00
          lam=1    rate 12.00  loss 22.00
          lam=0.5  rate 15.00  loss 20.00
        >>> found.optimal.tolist()
        [True, True, True, False]
        """
        from jaxreg.results.frontier import Frontier

        return Frontier.from_result(self, x, y)

    @classmethod
    def of(
        cls,
        grid: Grid,
        valid: Any,
        *,
        train: Any = None,
        params: PyTree = None,
        time: Any = None,
        terms: Mapping[str, Any] | None = None,
    ) -> SweepResult:
        """A result from a loop of your own: then choices, tables, plots and files are those of a sweep.

        Args:
          grid: the points, in the order of the rows below.
          valid: the validation loss, [K], [K, folds], [K, folds, seeds] or [K, folds, seeds, times]; or a
            dict of such by metric, "loss" among them.
          train: the same on the training rows; NaN where it is not given.
          params: leaves [K, folds, seeds, ...].
          time: the steps of the evaluations, 1, 2, ... by default.
          terms: name -> value of a term of the penalty, shaped like the curves.

        Raises:
          TypeError: `grid` is none. ValueError: shapes do not fit; says which and what would.

        >>> import jaxreg as jr
        >>> grid = jr.grid(jr.l2, lam=[0.1, 1.0])
        >>> jr.SweepResult.of(grid, valid=[[0.5, 0.7], [0.4, 0.6]]).best().point
        l2(1)
        """
        return cls(**build.loop_fields(grid, valid, train, params, time, terms))

    @classmethod
    def join(
        cls, results: Sequence[SweepResult] | Mapping[str, SweepResult], **columns: Sequence
    ) -> SweepResult:
        """Several sweeps as one: one table, one plot, one choice.

        For what is another program: other widths or batch sizes, penalties of another structure. Give them
        the same folds (the same data, `folds` and `key`), so that scores compare fold by fold.

        Args:
          results: the results; in a dict their names become the coordinate "sweep".
          columns: name -> one value per result: a further coordinate.

        Returns:
          A result whose points are those of all; a coordinate that a sweep lacks is NaN there.

        Raises:
          TypeError: no results. ValueError: numbers of folds or seeds or the metrics differ, or a column
            does not fit.

        >>> import jaxreg as jr
        >>> ridge = jr.SweepResult.of(jr.grid(jr.l2, lam=[0.1, 1.0]), valid=[0.5, 0.4])
        >>> lasso = jr.SweepResult.of(jr.grid(jr.l1, lam=[0.1, 0.2]), valid=[0.3, 0.6])
        >>> jr.SweepResult.join({"l2": ridge, "l1": lasso}).best().point
        l1(0.1)
        """
        return cls(**build.joined_fields(cls, results, columns))

    @classmethod
    def merge(cls, results: Sequence[SweepResult]) -> SweepResult:
        """Sweeps of one trainer over different points as one result, its points in order.

        For sweeps that differ in their points alone: the same folds, seeds, steps and key.

        Raises:
          TypeError: no results. ValueError: they differ in more, or a point occurs twice.
        """
        return cls(**build.merged_fields(cls, results))

    def save(self, path: str | os.PathLike, *, overwrite: bool = False) -> Path:
        """Write everything to one `.npz` file, bit for bit and without pickle.

        Args:
          path: where; ".npz" is added if there is no ending, and missing folders are made.
          overwrite: whether a file that is there may be replaced. The new one appears whole or not
            at all.

        Returns:
          The path written.

        Raises:
          ValueError: the file is there already, or this is a joined result.
        """
        self._refuse_joined("save")
        trees = {name: getattr(self, name) for name in DATA_FIELDS}
        return stored.write(path, self, trees, summary.label(self.points), overwrite)

    def to_csv(self, path: str | os.PathLike, *, overwrite: bool = False) -> Path:
        """Write all curves as tidy CSV, as `to_pandas` has them; see `jaxreg.results.export.to_csv`."""
        from jaxreg.results import export

        return export.to_csv(self, path, overwrite=overwrite)

    def to_json(self, path: str | os.PathLike, *, overwrite: bool = False) -> Path:
        """Write all but the parameters as strict, self-describing JSON."""
        from jaxreg.results import export

        return export.to_json(self, path, overwrite=overwrite)

    def save_params(self, path: str | os.PathLike, *, overwrite: bool = False) -> Path:
        """Write the parameters of every lane to one file, with a hash of each leaf.

        Raises:
          ValueError: no parameters were kept, the file is there already, or this is a joined result.
        """
        from jaxreg.results import export

        self._refuse_joined("save_params")
        return export.save_params(self, path, overwrite=overwrite)

    @staticmethod
    def load_params(path: str | os.PathLike, like: PyTree = None) -> PyTree:
        """Read what `save_params` wrote, checked leaf by leaf; `like` gives the structure.

        Raises:
          FileNotFoundError: there is no such file. ValueError: it is damaged or holds other leaves.
        """
        from jaxreg.results import export

        return export.load_params(path, like)

    @classmethod
    def load(
        cls, path: str | os.PathLike, *, like: tuple[PyTree, PyTree] | None = None
    ) -> SweepResult:
        """Read what `save` wrote; arrays come back as numpy arrays of the same bits and dtypes.

        Args:
          path: the file.
          like: (point, params) of the structure to restore; the numbers in them do not matter, and
            either may be None. Without it `points` and `params` are nested dicts of arrays, and the
            point of a `Choice` is the dict of its numbers.

        Raises:
          FileNotFoundError: there is no such file. ValueError: it is damaged or of another kind, or
            `like` has another structure.
        """
        point, params = like or (None, None)
        return cls(**stored.read(path, point, _tree.held(params)))

    def __repr__(self) -> str:
        if not isinstance(self.status, (np.ndarray, Array)) or not is_concrete(self.status):
            return "SweepResult(...)"
        return summary.describe(self)

    def _repr_html_(self) -> str:
        """For a notebook: the table."""
        if "..." in (text := repr(self)) and "\n" not in text:
            return f"<code>{text}</code>"
        return self.table()._repr_html_()

    def _refuse_joined(self, owner: str) -> None:
        if isinstance(self.points, Parts):
            raise ValueError(
                f"{owner}: a joined result has no one structure; save its parts, and join them again."
            )

    def _point(self, k: int) -> dict[str, Any]:
        # The shortest decimal of the coordinate's own dtype: 0.001 and not 0.0010000000474974513.
        texts = {name: np.asarray(v)[k] for name, v in self.coords.items()}
        return {n: str(x) if isinstance(x, str) else float(str(x)) for n, x in texts.items()}

    def _any(self, status: Status) -> np.ndarray:
        """Which points [K] have a lane of this status."""
        return (np.asarray(self.status) == status).any((1, 2))

    def _final(self, metric: str, split: str) -> np.ndarray:
        """As `scores`, and NaN for every lane of a point that diverged in one."""
        diverged = self._any(Status.DIVERGED)[:, None, None]
        return np.where(diverged, np.nan, self.scores(metric, split))

    def _candidates(self, metric: str) -> np.ndarray:
        """Validation scores [K, F, S], NaN for every lane of a point that diverged or was given up."""
        out = self._any(Status.GIVEN_UP)[:, None, None]
        return np.where(out, np.nan, self._final(metric, "valid"))


def _check_index(owner: str, name: str, i: Any, size: int) -> int:
    whole = isinstance(i, (int, np.integer)) and not isinstance(i, bool)
    if not whole or not -size <= i < size:
        raise (IndexError if whole else TypeError)(
            f"{owner}: `{name}` must be an integer between {-size} and {size - 1}, got {i!r}."
        )
    return int(i) % size


# The order of coordinates and terms has a meaning, and jax sorts a dict's keys: names are static.
def _flatten(result: SweepResult) -> tuple[list[Any], tuple]:
    # Texts are no arrays for jax: they are static too.
    is_text = lambda v: isinstance(v, np.ndarray) and v.dtype.kind == "U"
    texts = {n: tuple(v.tolist()) for n, v in result.coords.items() if is_text(v)}
    names = tuple((n, texts.get(n)) for n in result.coords), tuple(result.terms)
    fields = [getattr(result, n) for n in DATA_FIELDS]
    fields[0] = {n: v for n, v in result.coords.items() if n not in texts}
    kept = tuple(sorted(result.directions.items())), result.repeats, result.overlap
    return fields, (*names, result.strengths, kept, result.made_by)


def _flatten_with_keys(result: SweepResult) -> tuple[list[tuple[Any, Any]], tuple]:
    children, aux = _flatten(result)
    return [(GetAttrKey(n), child) for n, child in zip(DATA_FIELDS, children)], aux


def _unflatten(aux: tuple, children: Any) -> SweepResult:
    coords, terms, strengths, (directions, repeats, overlap), made_by = aux
    fields: dict[str, Any] = dict(zip(DATA_FIELDS, children))
    if isinstance(fields["coords"], dict):
        arrays = fields["coords"]
        fields["coords"] = {n: arrays[n] if t is None else np.array(t) for n, t in coords}
    if isinstance(fields["terms"], dict):
        fields["terms"] = {name: fields["terms"][name] for name in terms}
    return SweepResult(
        **fields, strengths=strengths, directions=dict(directions), repeats=repeats, overlap=overlap,
        made_by=made_by,
    )  # fmt: skip


jax.tree_util.register_pytree_with_keys(SweepResult, _flatten_with_keys, _unflatten, _flatten)
