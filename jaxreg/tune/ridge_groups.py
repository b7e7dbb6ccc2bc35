"""One strength for each group of columns of a ridge regression, and whether that is worth it.

    J(w, b) = 1/(2n) |X w + b - y|^2 + sum_g λ_g/2 |w_g|^2

All λ_g together minimise one criterion, exact leave-one-out or the evidence with the noise learnt, by its
gradient in log λ_g; see `jaxreg.tune._ridge_groups` for the formulas. Where groups of columns differ in how
much they tell, one λ for all shrinks the telling ones too much and the others too little. But several λ fit
any criterion better than one does, whether groups differ or not, and with one λ for each column it is worth
nothing. So the choice is repeated on folds: λ_g and the best single λ are both chosen on the rows of the
other folds, and the difference of their losses on the rows held out says what was gained.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Iterator
from typing import Any

import numpy as np

from jaxreg._check import flag
from jaxreg.choice import Choice
from jaxreg.penalties import l2
from jaxreg.report.table import Column, Table
from jaxreg.tune._ridge_groups import Found, Grouped, minimised
from jaxreg.tune._ridge_rows import RowFolds, as_regression, as_row_folds

__all__ = ["RidgeGroups", "ridge_groups"]

_OWNER = "ridge_groups"
_CRITERIA = {"loo": "leave-one-out loss", "evidence": "negative log evidence per row"}
_SURE = 2.0  # standard errors of the difference
_FEW, _MANY_FEW = 3, 3  # columns of a small group, and how many such groups are too many
_FLATTERED = 1.5


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class RidgeGroups:
    """One λ for each of G groups of columns, beside the best single one; its repr is a table.

    Attributes:
      choice: λ of all groups; its point is the penalty of a kernel, [p] or, of several responses, [p, m].
      single: the best λ for all columns, by the same criterion.
      lam: group -> λ.
      dof: group -> effective degrees of freedom, of as many as it has columns.
      columns: group -> how many columns it has.
      held_out: the mean loss on held-out rows, half the mean square, with λ by group and with one λ, both
        chosen without these rows; NaN without folds.
      gain: by how much less the loss with λ by group is, and the standard error of that, over rows in
        pairs; NaN without folds.
    """

    choice: Choice
    single: Choice
    lam: dict[Hashable, float]
    dof: dict[Hashable, float]
    columns: dict[Hashable, int]
    held_out: tuple[float, float]
    gain: tuple[float, float]
    _coef: tuple[np.ndarray, np.ndarray]

    @property
    def real(self) -> bool:
        """Whether held-out rows show a gain of at least two standard errors."""
        return _is_real(self.gain)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What to know before relying on it."""
        return self.choice.warnings

    def coef(self) -> tuple[np.ndarray, np.ndarray]:
        """The weights [p, m] and intercepts [m] of all rows."""
        return self._coef

    def table(self) -> Table:
        """λ and degrees of freedom of each group, both scores, and what held-out rows say."""
        rows = tuple(
            {"group": g, "columns": self.columns[g], "lam": self.lam[g], "dof": self.dof[g]}
            for g in self.lam
        )
        cells = tuple(
            (str(r["group"]), str(r["columns"]), f"{r['lam']:.4g}", f"{r['dof']:.1f}") for r in rows
        )
        title = f"ridge, one λ for each of {len(rows)} groups, by {self.choice.metric}"
        one = f"with one λ, {self.single.coords['lam']:.4g}, {self.single.mean:.4g}"
        notes = (f"{self.choice.metric}: {self.choice.mean:.4g}; {one}", self.choice.why)
        columns = (Column("group", "left"), *map(Column, ("columns", "λ", "dof")))
        return Table(title, columns, rows, cells, notes, self.warnings)

    def __repr__(self) -> str:
        return str(self.table())

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()


def ridge_groups(
    data: tuple, groups: Any, *, by: str = "loo", folds: Any = 5, intercept: bool = True
) -> RidgeGroups:
    """Choose one λ for each group of columns of a ridge regression.

    Args:
      data: (X, y), of [n, p] and [n], or [n, m] of m responses, which share the λ.
      groups: the group of each column, [p] integers or names.
      by: "loo", exact leave-one-out, or "evidence", the marginal likelihood with the noise learnt.
      folds: rows to judge the gain on, as `jaxreg.ridge_path` takes them; None: it is not judged.
      intercept: whether there is an unpenalised intercept.

    Returns:
      A `RidgeGroups`. Its criterion is never worse than that of the best single λ; whether new rows agree
      is `real`, and in the warnings where they do not.

    Raises:
      ValueError: shapes that do not fit, numbers that are not finite, fewer than two groups, no column that
        varies, or an evidence without a maximum. TypeError: no numbers, no labels, no folds.

    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(80, 50))
    >>> y = x @ np.r_[rng.normal(size=10), 0.1 * rng.normal(size=40)] + rng.normal(size=80)
    >>> ridge_groups((x, y), ["strong"] * 10 + ["weak"] * 40)
    ridge, one λ for each of 2 groups, by leave-one-out loss
    group    columns         λ    dof
    ─────────────────────────────────
    strong        10   0.01547    9.8
    weak          40    0.6953   18.8
    leave-one-out loss: 0.6122; with one λ, 0.04319, 0.8769
    the least leave-one-out loss; on held-out rows the loss is less by 0.454 ± 0.14, a real
    gain
    """
    x, targets = as_regression(_OWNER, data)
    names, group = _labelled(groups, x.shape[1])
    if not isinstance(by, str) or by not in _CRITERIA:
        raise ValueError(f"{_OWNER}: `by` must be one of {sorted(_CRITERIA)}, got {by!r}.")
    intercept = flag(_OWNER, "intercept", intercept)
    split = None if folds is None else as_row_folds(_OWNER, folds, len(x))
    y = targets.reshape(len(x), -1)
    data_of = lambda rows: Grouped.of(x[rows], y[rows], group, by, intercept)
    every = data_of(slice(None))
    if not np.ptp(x, axis=0).any():
        raise ValueError(
            f"{_OWNER}: `data` must have a column that varies, got {x.shape[1]} constant ones."
        )
    found = minimised(every)
    losses = np.full((1, 2), np.nan) if split is None else _held_out(data_of, x, y, split)
    return _told(found, names, group, losses, every, targets.ndim == 1)


def _labelled(groups: Any, p: int) -> tuple[list, np.ndarray]:
    """The names of the groups, and the number of the group of each column."""
    remedy = f"Give one integer or name for each of the {p} columns."
    try:
        labels = np.asarray(groups)
    except ValueError:
        labels = np.array(None)  # of unequal lengths
    if labels.dtype == object and labels.ndim == 1 and all(isinstance(g, str) for g in labels):
        labels = labels.astype(str)
    if labels.ndim != 1 or labels.dtype.kind not in "biuUS":
        raise TypeError(
            f"{_OWNER}: `groups` must be labels of the columns, integers or texts, got "
            f"{groups!r:.60}. {remedy}"
        )
    if len(labels) != p:
        raise ValueError(f"{_OWNER}: `groups` must have {p} labels, got {len(labels)}. {remedy}")
    names, group = np.unique(labels, return_inverse=True)
    if len(names) < 2:
        raise ValueError(
            f"{_OWNER}: `groups` must name at least two groups, got {names[0]!s} alone. For one λ take "
            "jaxreg.ridge_path."
        )
    return names.tolist(), group


# --- the gain --------------------------------------------------------------------------------------------


def _held_out(data_of: Any, x: np.ndarray, y: np.ndarray, folds: RowFolds) -> np.ndarray:
    """The loss of each held-out row, [rows, 2], with λ by group and with one, mean over responses."""
    sums, counts = np.zeros((len(x), 2)), np.zeros(len(x))
    for train, valid in folds.pairs:
        found = minimised(data_of(train))
        for i, fitted in enumerate((found.fitted, found.single)):
            rest = y[valid] - x[valid] @ fitted.w - fitted.b
            np.add.at(sums[:, i], valid, 0.5 * (rest**2).mean(1))
        np.add.at(counts, valid, 1)
    seen = counts > 0
    return sums[seen] / counts[seen, None]


def _is_real(gain: tuple[float, float]) -> bool:
    return bool(gain[0] > _SURE * gain[1])


# --- in words --------------------------------------------------------------------------------------------


def _told(
    found: Found, names: list, group: np.ndarray, losses: np.ndarray, data: Grouped, flat: bool
) -> RidgeGroups:
    by, metric, sizes = data.by, _CRITERIA[data.by], np.bincount(group)
    less = losses[:, 1] - losses[:, 0]
    error = less.std(ddof=1) / np.sqrt(len(less)) if len(less) > 1 else np.nan
    gain, means = (float(less.mean()), float(error)), tuple(losses.mean(0).tolist())
    lam = dict(zip(names, found.lam.tolist()))
    single = Choice(
        by, l2(found.single_lam), {"lam": found.single_lam}, found.single.score, found.single.stderr,
        metric, why="the best λ for all columns",
    )  # fmt: skip
    warnings = (
        *_ran(found, names),
        *_unbounded(found),
        *_too_many(data, sizes),
        *_flattering(found, means, by),
        *_no_gain(gain),
    )
    strengths = found.lam[group] if flat else found.lam[group][:, None]
    choice = Choice(
        by, l2(strengths), {f"lam[{g}]": v for g, v in lam.items()}, found.fitted.score,
        found.fitted.stderr, metric, None, _why(by, gain), 0, warnings,
    )  # fmt: skip
    dof = dict(zip(names, found.fitted.dof.tolist()))
    columns = dict(zip(names, sizes.tolist()))
    coef = found.fitted.w, found.fitted.b
    return RidgeGroups(choice, single, lam, dof, columns, means, gain, coef)


def _why(by: str, gain: tuple[float, float]) -> str:
    best = {"loo": "the least leave-one-out loss", "evidence": "the maximum of the evidence"}[by]
    if np.isnan(gain[0]):
        return f"{best}; whether new rows gain by it was not judged"
    verdict = "a real gain" if _is_real(gain) else "no gain that can be told from noise"
    return f"{best}; on held-out rows the loss is less by {gain[0]:.3g} ± {gain[1]:.2g}, {verdict}"


def _no_gain(gain: tuple[float, float]) -> Iterator[str]:
    if np.isnan(gain[0]) or _is_real(gain):
        return
    unsure = "Take `single`, unless the groups are known to differ"
    remedy = unsure if gain[0] > gain[1] else "Take `single`"
    yield (
        f"held-out rows do not show that several λ are better than one: their loss is less by "
        f"{gain[0]:.3g} ± {gain[1]:.2g}. {remedy}."
    )


def _ran(found: Found, names: list) -> Iterator[str]:
    texts = {
        1: "went to infinity and stands at the end of the range, which holds the weights at 0. Leave "
        "the columns out, or train by jaxreg.proximal; a gradient step would need a rate below 2/λ",
        -1: "went to 0 and stands at the end of the range: the columns are not shrunk at all",
    }
    for end, text in texts.items():
        which = [str(names[g]) for g in np.flatnonzero(found.ends == end)]
        if which:
            more = f" and {len(which) - 6} others" if len(which) > 6 else ""
            yield f"λ of {', '.join(which[:6])}{more} {text}."


def _unbounded(found: Found) -> Iterator[str]:
    if found.unbounded:
        yield (
            "the evidence rises without bound as λ goes to 0, where the columns fit the rows without "
            "noise; this is its highest peak before that. Compare by='loo'."
        )


def _too_many(data: Grouped, sizes: np.ndarray) -> Iterator[str]:
    few = int((sizes < _FEW).sum())
    if sizes.max() == 1:
        yield (
            f"there is a λ for each of {len(sizes)} columns; such a choice fits the criterion and not new "
            "rows. Give groups of many columns."
        )
    elif few >= _MANY_FEW:
        yield f"{few} groups have fewer than {_FEW} columns, whose λ fit noise. Give larger groups."
    if len(sizes) > data.n / 10:
        yield f"{len(sizes)} λ are many for {data.n} rows; the criterion is fitted to them."


def _flattering(found: Found, held_out: tuple[float, ...], by: str) -> Iterator[str]:
    """Leave-one-out further below the loss of held-out rows than that of one λ is."""
    if by != "loo" or np.isnan(held_out[0]):
        return
    ratio = held_out[0] * found.single.score / max(found.fitted.score * held_out[1], 1e-300)
    if ratio > _FLATTERED:
        yield (
            f"the leave-one-out loss, {found.fitted.score:.4g}, is fitted to the rows: held-out rows, by "
            f"which nothing was chosen, have {held_out[0]:.4g}."
        )
