"""The chosen points once more, on all training rows: what a choice is worth on data it has not seen.

A sweep trains on parts of the training rows, to choose. What is used in the end is trained on all of them,
several times, beside the same model without its penalty; and test rows, which no choice has seen, judge.
"""

from __future__ import annotations

import dataclasses
import json
import warnings
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array

from jaxreg._tree import PyTree
from jaxreg.choice import Choice
from jaxreg.fit.intake import as_rows
from jaxreg.fit.overlap import Known, known, overlap, refuse_overlap
from jaxreg.fit.trainer import MakeTrainer
from jaxreg.grid import points, values_in
from jaxreg.objective import penalties_in
from jaxreg.penalty import Penalty
from jaxreg.report.table import Column, Table
from jaxreg.results import Status, SweepResult
from jaxreg.results.build import Parts
from jaxreg.results.summary import plus_minus
from jaxreg.sweeps.rows import check_alike
from jaxreg.sweeps.sweep import sweep
from jaxreg.terms import Term
from jaxreg.value import Value

__all__ = ["Refit", "choices_of", "options_of", "refit"]


@dataclasses.dataclass(frozen=True, repr=False)
class Refit:
    """What was refitted; its repr is the table.

    Attributes:
      names: what each is, such as "no penalty" and "chosen by min"; "no term" where points
        have terms alone.
      index: of each name, which of the points of `result` it is.
      result: the sweep behind it, points x one fold x seeds; "valid" are the test rows.
      steps: of each name, how long it was trained before it was judged.
      tested: whether there were test rows; if not, the scores are those on the training rows.
    """

    names: tuple[str, ...]
    index: tuple[int, ...]
    result: SweepResult
    steps: tuple[int, ...]
    tested: bool

    def scores(self, name: str) -> dict[str, tuple[float, float]]:
        """metric -> (mean, standard error) over the seeds.

        Raises:
          ValueError: no such name.
        """
        k = self._at(name)
        return {
            m: (float(self.result.mean(m)[k]), float(self.result.stderr(m)[k]))
            for m in self.result.metrics
        }

    def params(self, name: str, seed: int = 0) -> PyTree:
        """The parameters of one training, those that were judged.

        Raises:
          ValueError: no such name, no parameters were kept, or they were trained on after the step at
            which they were judged. IndexError: no such seed.
        """
        k, end = self._at(name), int(self.result.time[-1])
        judged = self.steps[self.names.index(name)]
        if judged < end:
            raise ValueError(
                f"refit: {name!r} was judged at step {judged}, and the parameters are those of step {end}. "
                f"For those that were judged refit with steps={judged}."
            )
        return self.result.lane(k, 0, seed)

    def table(self) -> Table:
        """Every name with its coordinates and scores, mean ± standard error over the seeds.

        How long each was trained is shown where they differ, as they may with early stopping. Without
        penalty, a coordinate that is not λ itself, such as its logarithm, is "-".
        """
        differ = len(set(self.steps)) > 1
        coords = {"λ" if n == "lam" else n: np.asarray(v) for n, v in self.result.coords.items()}
        judged = "test" if self.tested else "train"
        heads = ["refitted on all training data", *coords, *["steps"] * differ]
        heads += [f"{judged} {m}" for m in self.result.metrics]
        scores = [self.scores(name) for name in self.names]
        texts = zip(*(plus_minus(*np.array([s[m] for s in scores]).T) for m in self.result.metrics))
        cells = []
        for name, k, steps, text in zip(self.names, self.index, self.steps, texts):
            at = ["-" if np.isnan(v[k]) else f"{v[k]:.3g}" for v in coords.values()]
            at += [str(steps)] * differ
            cells.append((name, *at, *text))
        columns = tuple(Column(h, "right" if i else "left") for i, h in enumerate(heads))
        return Table("", columns, tuple(dict(zip(heads, row)) for row in cells), tuple(cells))

    def __repr__(self) -> str:
        return str(self.table())

    def _at(self, name: str) -> int:
        if name not in self.names:
            raise ValueError(f"refit: no {name!r}; choose from {sorted(self.names)}.")
        return self.index[self.names.index(name)]


def refit(
    trainer: MakeTrainer,
    result: SweepResult,
    data: tuple,
    *,
    key: Array,
    rule: str | Choice | Sequence[str | Choice] = "min",
    test: tuple | None = None,
    seeds: int = 10,
    **options: Any,
) -> Refit:
    """Train what a sweep chose on all rows of `data`, beside the same without penalty, and test it.

    How long is never read off the test rows. With early stopping it is the mean over the lanes of the
    sweep that had this point, to the nearest evaluation; without penalty, that of the weakest penalty
    that was trained to its end.

    Args:
      trainer: the function point -> `Trainer` of the sweep.
      result: what `jaxreg.sweep` returned.
      data: all training rows.
      key: PRNG key of parameters and batches.
      rule: which choices: rules of `SweepResult.best`, or what it returned; one or several.
      test: rows that nothing has seen, in arrays like those of `data`. Without them the scores are those on
        the training rows, and say so.
      seeds: how many trainings of each.
      options: for `jaxreg.sweep`. `steps` and `batch_size` are those of the sweep by default.

    Returns:
      A `Refit`.

    Raises:
      ValueError: a rule that cannot be applied, a result that does not tell its steps, or test rows most of
        which are rows of `data`.
      TypeError: `result` is none, or its points were read back without their structure.

    >>> import jax.numpy as jnp, optax, jaxreg as jr
    >>> x = jax.random.normal(jax.random.key(1), (60, 3))
    >>> y = x[:, 0] + 0.5 * jax.random.normal(jax.random.key(2), (60,))
    >>> def trainer(reg):
    ...     loss = lambda w, x, y: 0.5 * jnp.mean((x @ w - y) ** 2)
    ...     tx = optax.chain(jr.add_penalty_gradient(reg), optax.sgd(0.3))
    ...     return jr.Trainer(lambda key: jnp.zeros(3), loss, tx)
    >>> g = jr.grid(jr.l2, lam=[0.01, 1.0])
    >>> train, test = (x[:40], y[:40]), (x[40:], y[40:])
    >>> result = jr.sweep(trainer, g, train, folds=4, steps=50, key=jax.random.key(0))
    >>> jr.refit(trainer, result, train, test=test, seeds=2, key=jax.random.key(1))
    refitted on all training data      λ         test loss
    ──────────────────────────────────────────────────────
    no penalty                         0   0.1016 ± 0.0000
    chosen by min                   0.01   0.1027 ± 0.0000
    """
    chosen = choices_of("refit", result, rule)
    if test is not None:
        ready = options.get("prepare") is None
        given = (data, "data"), (test, "test")
        train, others = (as_rows("refit", x, name, ready=ready)[0] for x, name in given)
        check_alike("refit", train, others, "test")
        if not isinstance(test, Known):
            for text in refuse_overlap("refit", "`test`", overlap(train, others)):
                warnings.warn(f"refit: {text}", RuntimeWarning, stacklevel=2)
    given = options_of("refit", result, options)
    given.setdefault("evals", 20 if json.loads(result.made_by).get("patience") else 1)
    rows = _rows(result, chosen, given["steps"])
    # Equal points once, in the order of their coordinates; of equal ones the last, whose are all known.
    lanes = {_bits(row.point): row for row in rows}
    order = sorted(lanes, key=lambda bits: np.nan_to_num(lanes[bits].coords, nan=-np.inf).tolist())
    columns = np.array([lanes[bits].coords for bits in order]).T
    coords = {n: c.astype(np.asarray(v).dtype) for (n, v), c in zip(result.coords.items(), columns)}
    again = sweep(
        trainer,
        points(
            [lanes[bits].point for bits in order], **({} if np.isnan(columns).any() else coords)
        ),
        data,
        validation=known(data if test is None else test),
        seeds=seeds,
        key=key,
        **given,
    )
    index = tuple(order.index(_bits(row.point)) for row in rows)
    stop = np.full(len(order), len(again.time) - 1)
    for k, row in zip(index, rows):
        stop[k] = np.abs(again.time - row.length).argmin()
    again = dataclasses.replace(
        again,
        coords=coords,
        strengths=result.strengths,
        stop=np.broadcast_to(stop[:, None, None], np.shape(again.status)),
    )
    steps = tuple(int(again.time[stop[k]]) for k in index)
    return Refit(tuple(row.name for row in rows), index, again, steps, test is not None)


def options_of(owner: str, result: SweepResult, options: dict[str, Any]) -> dict[str, Any]:
    """Options of a sweep that trains as the one of `result` did, with those that are given.

    Raises:
      ValueError: `result` does not tell how long it was trained, or was prepared or weighted as nothing
        given here is.
    """
    made_by = json.loads(result.made_by)
    if "steps" not in made_by and "steps" not in options:
        raise ValueError(f"{owner}: `result` does not tell how long it was trained; give `steps`.")
    given = {"steps": made_by.get("steps"), "batch_size": made_by.get("batch_size")} | options
    for name in ("prepare", "sample_weight"):
        if made_by.get(name) and given.get(name) is None:
            raise ValueError(
                f"{owner}: `result` is of a sweep with `{name}`; give it here too, or the trainings differ."
            )
    return given


def choices_of(owner: str, result: Any, rule: Any) -> list[Choice]:
    """The choices that rules, or choices, stand for.

    Raises:
      ValueError: a rule that cannot be applied. TypeError: `result` or `rule` is none, or points were read
        back without their structure.
    """
    if not isinstance(result, SweepResult):
        raise TypeError(f"{owner}: `result` must be a SweepResult, got {type(result).__name__}.")
    if isinstance(result.points, Parts):
        raise TypeError(
            f"{owner}: a joined result has several trainers; give the sweep that the choice came from."
        )
    rules = [rule] if isinstance(rule, (str, Choice)) else rule
    if not isinstance(rules, (list, tuple)) or not all(isinstance(r, (str, Choice)) for r in rules):
        raise TypeError(
            f"{owner}: `rule` must be the name of a rule, such as 'min', a Choice, or a list of them, got "
            f"{rule!r}."
        )
    chosen = [r if isinstance(r, Choice) else result.best(r) for r in rules]
    if not chosen:
        raise ValueError(f"{owner}: `rule` must have at least one rule, such as 'min', got none.")
    # Terms of the loss are recorded as measures too, and need no penalty in the point.
    of_penalties = [name for name in result.terms if name not in result.valid]
    if of_penalties and not all(penalties_in(choice.point) for choice in chosen):
        raise TypeError(
            f"{owner}: the points of `result` are dicts of numbers, as read from a file. Read it with "
            "their structure: SweepResult.load(path, like=(point, params)), or like=(point, None)."
        )
    return chosen


class _Row(NamedTuple):
    """One line of the table; a coordinate that the point has not is NaN."""

    name: str
    coords: tuple[float, ...]
    point: PyTree
    length: float  # steps before it is judged


def _rows(result: SweepResult, chosen: list[Choice], steps: int) -> list[_Row]:
    """No penalty, if there is one to leave out, and every choice."""
    rows, times = [], Counter()
    bare = _without_strength(chosen[0].point)
    if bare is not None:
        coords, near = _coords_without_strength(result, chosen[0])
        name = "no penalty" if penalties_in(chosen[0].point) else "no term"
        rows.append(_Row(name, coords, bare, _length(result, near, steps)))
    for choice in chosen:
        times[choice.rule] += 1
        name = f"chosen by {choice.rule}" + f" #{times[choice.rule]}" * (times[choice.rule] > 1)
        length = _length(result, choice.index, steps)
        rows.append(_Row(name, tuple(choice.coords.values()), choice.point, length))
    return rows


def _bits(point: PyTree) -> tuple[bytes, ...]:
    return tuple(np.asarray(x).tobytes() for x in jax.tree.leaves(point))


def _without_strength(point: PyTree) -> PyTree | None:
    """The point with the λ of every penalty at 0, or of every term where there is no penalty; else None."""
    zero = lambda lam: jax.tree.map(lambda x: 0 * x, lam)
    if not _lams(point):
        return None
    terms_alone = not penalties_in(point)

    def free(x):
        if isinstance(x, Penalty):
            return x.map_field("lam", zero)
        return dataclasses.replace(x, lam=zero(x.lam)) if terms_alone and isinstance(x, Term) else x

    return jax.tree.map(free, point, is_leaf=lambda x: isinstance(x, Value))


def _lams(point: PyTree) -> list[np.ndarray]:
    """The λ of every penalty of a point, or of every term where there is no penalty."""
    found = values_in(point)
    penalties = [x for x in found if isinstance(x, Penalty)]
    given = [t.strengths().get("lam") for p in penalties for t in p.terms()]
    of_terms = [] if penalties else [x.lam for x in found if isinstance(x, Term)]
    return [np.asarray(x) for x in jax.tree.leaves([*given, *of_terms])]


def _coords_without_strength(result: SweepResult, choice: Choice) -> tuple[tuple[float, ...], int]:
    """Its coordinates beside a choice, and the weakest strength that was trained to its end."""
    lams = _lams(result.points)
    coords = {n: np.asarray(v) for n, v in result.coords.items()}
    is_lam = lambda v: any(x.shape == v.shape and np.allclose(x, v) for x in lams)
    at = {n: 0.0 if is_lam(v) else np.nan for n, v in coords.items() if n in result.strengths}
    status = np.asarray(result.status)
    ended = np.flatnonzero(((status == Status.FINISHED) | (status == Status.STOPPED)).all((1, 2)))

    def distance(k: int) -> tuple:
        apart = [abs(v[k] - choice.coords[n]) for n, v in coords.items() if n not in at]
        return (*apart, *(coords[n][k] for n in at))

    return tuple((choice.coords | at).values()), min(map(int, ended), key=distance)


def _length(result: SweepResult, k: int | None, steps: int) -> float:
    """Mean step at which the lanes of a point were judged; without a point, those of all."""
    if result.stop is None:
        return steps
    stop = np.asarray(result.stop)
    return float(np.asarray(result.time)[stop if k is None else stop[k]].mean())
