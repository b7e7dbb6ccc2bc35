"""Ridge regression for every λ at once, without training: folds, leave-one-out, GCV, AIC, BIC, evidence.

One eigendecomposition serves all λ and all responses. In our convention the objective is

    J(w, b) = 1/(2n) |X w + b - y|^2 + λ/2 |w|^2,    solved by  (X'X + κ I) w = X'y,  κ = n λ

of centred columns. With the eigenvalues s_j and eigenvectors u_j of X X', the leverages
h_i = sum_j u_ij^2 s_j / (s_j + κ) and the residuals e:

- leave-one-out: 1/(2n) sum_i (e_i / (1 - h_i - 1/n))^2 at κ = (n-1) λ, since n-1 rows make a mean loss of
  n-1; the 1/n is the intercept's (Allen 1974; Golub, Heath & Wahba 1979, eq. 2.1).
- folds: half the mean square on held-out rows, at κ = n_train λ, one eigendecomposition a fold.
- generalised cross-validation: n |e|^2 / (2 (n - dof)^2), dof = 1 + sum_i h_i (Golub, Heath & Wahba 1979).
- AIC, BIC: n log(|e|^2/n) + 2 dof, + log(n) dof (Akaike 1974; Schwarz 1978).
- evidence: of w ~ N(0, 1/α) and y ~ N(X w + b, 1/β), the logarithm of the marginal likelihood
  (MacKay 1992), with κ = α/β and with the β that is best at each κ,
  -n/2 (1 + log(2π q/n)) - 1/2 sum_j log(1 + s_j/κ),  q = y'(I + X X'/κ)^-1 y = n/β.

Everything is numpy in float64 on the host. A criterion is computed when it is first asked for.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np

from jaxreg._check import flag
from jaxreg.choice import Choice, choose, score_at
from jaxreg.penalties import l2
from jaxreg.scores import Scores
from jaxreg.tune._eigen import Solved, no_peak, peak
from jaxreg.tune._ridge_folds import held_out
from jaxreg.tune._ridge_rows import as_grid, as_regression, as_row_folds, as_strengths

__all__ = ["RidgePath", "ridge_path"]

_MOST_NUMBERS = 2e7  # residuals held at a time

_CRITERIA = {
    "loo": "leave-one-out loss",
    "gcv": "generalised cross-validation",
    "aic": "AIC",
    "bic": "BIC",
    "evidence": "negative log evidence per row",
    "cv": "valid loss",
}


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class RidgePath:
    """Ridge regression at K strengths and of m responses, judged without training; see the module.

    Attributes:
      lam: [K], rising.
      by_fold: [K, F, m], the loss on the held-out rows of each fold, half the mean square; None without
        folds.
    """

    lam: np.ndarray
    by_fold: np.ndarray | None
    _solved: Solved
    _folds: tuple[int, float]  # repeats, and how far folds overlap otherwise

    @property
    def loo(self) -> np.ndarray:
        """[K, m], the leave-one-out loss of each response, half the mean square."""
        return self._judged["loo"]

    @property
    def loo_stderr(self) -> np.ndarray:
        """[K], of the mean over responses, over rows."""
        return self._judged["loo_stderr"]

    @property
    def gcv(self) -> np.ndarray:
        """[K, m]."""
        return self._judged["gcv"]

    @property
    def aic(self) -> np.ndarray:
        """[K, m]."""
        return self._judged["aic"]

    @property
    def bic(self) -> np.ndarray:
        """[K, m]."""
        return self._judged["bic"]

    @property
    def evidence(self) -> np.ndarray:
        """[K, m], the log marginal likelihood."""
        return self._solved.evidence(self._solved.n * self.lam)

    @property
    def dof(self) -> np.ndarray:
        """[K], effective degrees of freedom, the intercept's included."""
        s = self._solved
        return s.free + len(s.s) - s.shares(s.n * self.lam).sum(1)

    @property
    def cv(self) -> np.ndarray:
        """[K, m], the mean over folds of the loss on held-out rows.

        Raises:
          ValueError: there are no folds.
        """
        return self._held_out.mean(1)

    @property
    def cv_stderr(self) -> np.ndarray:
        """[K], of the mean over responses, over folds; as of a sweep.

        Raises:
          ValueError: there are no folds.
        """
        return self._scores.stderr

    def best(self, by: str = "loo", rule: str = "min") -> Choice:
        """The λ of the best mean over responses: of the grid, or, by the evidence, of all λ.

        Args:
          by: "loo", "gcv", "aic", "bic", "evidence" or, of folds, "cv".
          rule: of the folds' scores, any rule of `SweepResult.best`, such as "paired".

        Raises:
          ValueError: no such criterion or rule, or the evidence has no maximum.

        >>> x = np.random.default_rng(0).normal(size=(40, 3))
        >>> y = x[:, 0] + 0.3 * np.random.default_rng(1).normal(size=40)
        >>> ridge_path((x, y), [0.01, 0.1, 1.0]).best()
        loo: lam=0.01
          leave-one-out loss: 0.04446 ± 0.01
          why: the best of 3 λ
          warning: lam=0.01 is the smallest of the grid; a smaller one may be better.
        """
        _check_criterion(by)
        if by == "cv":
            return self._by_rule(rule)
        if rule != "min":
            raise ValueError(
                f"ridge_path: `rule` must be 'min' but for by='cv', which has folds to compare on, got "
                f"{rule!r}. Give `folds` to ridge_path, and take best('cv', rule='paired')."
            )
        if by == "evidence":
            return self._by_evidence()
        score = getattr(self, by).mean(1)
        pick = choose("min", Scores(score[:, None, None], {"lam": self.lam}))
        error = float(self.loo_stderr[pick.index]) if by == "loo" else float("nan")
        why, mean = f"the best of {len(self.lam)} λ", float(score[pick.index])
        return _choice(by, self.lam[pick.index], (mean, error), pick.index, why, pick.warnings, by)

    def per_response(self, by: str = "loo") -> np.ndarray:
        """The λ of the grid that is best for each response by itself, [m].

        `coef` takes them, and so does a kernel [p, m] under `jaxreg.l2(lam[None])`. They are fitted to more
        noise than one λ for all is; a response that has the largest of the grid may be noise alone.

        Args:
          by: a criterion of `best`.

        Raises:
          ValueError: no such criterion.

        >>> x = np.random.default_rng(0).normal(size=(40, 3))
        >>> noise = np.random.default_rng(1).normal(size=(40, 2))
        >>> ridge_path((x, x[:, :1] + [0.1, 2] * noise), [0.001, 0.1]).per_response().tolist()
        [0.001, 0.1]
        """
        _check_criterion(by)
        score = -self.evidence if by == "evidence" else getattr(self, by)
        return self.lam[np.argmin(score, 0)]

    def coef(self, lam: Any) -> tuple[np.ndarray, np.ndarray]:
        """The weights [p, m] and intercepts [m] of all rows at a strength, or at one for each response.

        Raises:
          ValueError, TypeError: no strengths, or of another shape.
        """
        found = as_strengths("coef", lam)
        responses = self._solved.b.shape[1]
        if found.shape not in ((), (responses,)):
            raise ValueError(
                f"coef: `lam` must be a number, or one for each of {responses} responses, got shape "
                f"{list(found.shape)}."
            )
        return self._solved.coef(found * self._solved.n)

    @functools.cached_property
    def _judged(self) -> dict[str, np.ndarray]:
        # As many strengths at a time as keep the residuals of all responses in memory.
        some = max(1, int(_MOST_NUMBERS // self._solved.outside.size))
        parts = [
            _judged(self._solved, self.lam[i : i + some]) for i in range(0, len(self.lam), some)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    @property
    def _held_out(self) -> np.ndarray:
        if self.by_fold is None:
            raise ValueError(
                "ridge_path: the criterion 'cv' needs folds, got none. Give `folds`, such as folds=5."
            )
        return self.by_fold

    @functools.cached_property
    def _scores(self) -> Scores:
        lanes = self._held_out.mean(2)[:, :, None]
        coords = {"lam": self.lam}
        return Scores(lanes, coords, ("lam",), self.lam[:, None], *self._folds)

    def _by_rule(self, rule: str) -> Choice:
        pick = choose(rule, self._scores)
        lam = self.lam[pick.index] if pick.place is None else pick.place.position
        score = score_at(self._scores, pick)
        return _choice(rule, lam, score, pick.index, pick.why, pick.warnings, "cv")

    def _by_evidence(self) -> Choice:
        kappa, unbounded = peak(self._solved)
        if not 0 < kappa < np.inf:
            raise no_peak("ridge_path", self._solved, kappa)
        noise = np.sqrt(self._solved.q(kappa) / self._solved.n)
        score = -self._solved.evidence(kappa).sum() / self._solved.n
        why = f"the maximum of the evidence, with a noise of {noise.mean():.4g}"
        odd = (
            "the evidence rises without bound as λ goes to 0, where the columns fit the rows without "
            "noise; this is its highest peak before that. Compare best('loo').",
        )
        return _choice(
            "evidence", kappa / self._solved.n, (float(score), float("nan")), None, why,
            odd * unbounded, "evidence",
        )  # fmt: skip

    def __repr__(self) -> str:
        rows, columns, responses = self._solved.n, self._solved.p, self._solved.b.shape[1]
        many = f", {responses} responses" if responses > 1 else ""
        by = "loo" if self.by_fold is None else "cv"
        means = {"loo": "leave-one-out is", "cv": f"cross-validation on {self._count} folds is"}
        return (
            f"RidgePath: {len(self.lam)} λ from {self.lam[0]:.4g} to {self.lam[-1]:.4g}, {rows} rows x "
            f"{columns} columns{many}; {means[by]} best at {self.best(by).coords['lam']:.4g}"
        )

    @property
    def _count(self) -> int:
        return 0 if self.by_fold is None else self.by_fold.shape[1]


def _choice(
    rule: str, lam: float, score: tuple[float, float], index: int | None, why: str,
    warnings: tuple[str, ...], by: str,
) -> Choice:  # fmt: skip
    lam = float(lam)
    return Choice(rule, l2(lam), {"lam": lam}, *score, _CRITERIA[by], index, why, 0, warnings)


def _check_criterion(by: Any) -> None:
    if not isinstance(by, str) or by not in _CRITERIA:
        raise ValueError(f"ridge_path: `by` must be one of {sorted(_CRITERIA)}, got {by!r}.")


def ridge_path(
    data: tuple, lam: Any = None, *, folds: Any = None, intercept: bool = True
) -> RidgePath:
    """Ridge regression at every strength of a grid, judged without training.

    Args:
      data: (X, y), of [n, p] and [n], or [n, m] of m responses, which share λ unless asked otherwise.
      lam: strengths >= 0, by default 100 from 1e-6 to 1e2 times the largest eigenvalue of X'X/n.
      folds: for the criterion "cv", as `jaxreg.sweep` takes them; an int is that many random folds, the
        same in every call. `jaxreg.folds` makes others.
      intercept: whether there is an unpenalised intercept.

    Returns:
      A `RidgePath`. With the columns scaled alike it is `jaxreg.l2(lam)` on the weights of a linear model.

    Raises:
      ValueError: shapes that do not fit, numbers that are not finite, fewer than three rows, a strength
        below 0, or folds that leave fewer than three rows to train on. TypeError: no numbers, no folds.

    >>> x = np.random.default_rng(0).normal(size=(40, 3))
    >>> y = x[:, 0] + 0.3 * np.random.default_rng(1).normal(size=40)
    >>> path = ridge_path((x, y))
    >>> path
    RidgePath: 100 λ from 1.283e-06 to 128.3, 40 rows x 3 columns; leave-one-out is best at 0.01169
    >>> path.best("evidence").point
    l2(0.00595123)
    >>> ridge_path((x, y), folds=5).best("cv", rule="paired").point
    l2(0.109005)
    """
    x, targets = as_regression("ridge_path", data)
    n, intercept = len(x), flag("ridge_path", "intercept", intercept)
    split = None if folds is None else as_row_folds("ridge_path", folds, n)
    targets = targets.reshape(n, -1)
    lams = None if lam is None else as_grid("ridge_path", lam)
    solved = Solved.of(x, targets, intercept)
    if lams is None:
        lams = np.geomspace(1e-6, 1e2, 100) * solved.s.max(initial=1e-300) / n
    if split is None:
        return RidgePath(lams, None, solved, (1, 0.0))
    by_fold = held_out(x, targets, lams, split, intercept)
    return RidgePath(lams, by_fold, solved, (split.repeats, split.overlap))


def _judged(solved: Solved, lams: np.ndarray) -> dict[str, np.ndarray]:
    """What takes the residuals, at some strengths."""
    n = solved.n
    kept_out = (n - 1) * lams
    with np.errstate(divide="ignore", invalid="ignore"):
        left = solved.residuals(kept_out)
        left /= solved.unexplained(kept_out)[..., None]
    rows = np.square(left, out=left)
    dof = solved.free + len(solved.s) - solved.shares(n * lams).sum(1)
    squares = (solved.outside**2).sum(0) + solved.shares(n * lams) ** 2 @ solved.b**2
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = n * np.log(squares / n)
        return {
            "loo": 0.5 * rows.mean(1),
            "loo_stderr": 0.5 * rows.mean(2).std(1, ddof=1) / np.sqrt(n),
            "gcv": n * squares / (2 * (n - dof[:, None]) ** 2),
            "aic": spread + 2 * dof[:, None],
            "bic": spread + np.log(n) * dof[:, None],
        }
