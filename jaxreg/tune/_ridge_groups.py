"""One criterion of ridge as a function of log λ of each group of columns, with its gradient.

With centred X and y, κ_j the strength of column j times the rows, S = X'X + diag(κ), w = S^-1 X'y,
e = y - X w, Z = X S^-1 and M = I - X Z':

- leave-one-out: 1/(2n) sum_i (e_i / (M_ii - 1/n))^2 at κ = (n-1) λ. Since M X_g = κ_g Z_g,
  de / d log κ_g = κ_g Z_g w_g  and  dM_ii / d log κ_g = κ_g sum_{j in g} Z_ij^2.
- evidence: -n/2 (1 + log(2π q/n)) - 1/2 log|I + X diag(κ)^-1 X'| with q = |e|^2 + sum_j κ_j w_j^2, at
  κ = n λ. Its derivative by log κ_g is dof_g / 2 - n/2 κ_g |w_g|^2 / q, with
  dof_g = |g| - κ_g tr (S^-1)_gg (MacKay 1992).

One inverse for each evaluation, of S or, with as many columns as rows, of I + X diag(κ)^-1 X'.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple

import numpy as np

from jaxreg.tune._eigen import Solved, no_peak, peak, remainder

__all__ = ["Found", "Grouped", "minimised"]

_OWNER = "ridge_groups"
# λ_g is looked for from 1e-8 to 1e4 times the largest eigenvalue of X_g'X_g / n.
_WEAKEST, _STRONGEST = 1e-8, 1e4
_FLAT = 1e-6  # relative to the criterion, what counts as no change
_SINGULAR = 1e-3  # of the residual's degrees of freedom, below which an evidence has left its peak


class Fitted(NamedTuple):
    """The regression at one λ for each group."""

    score: float
    gradient: np.ndarray  # [G], by log λ
    w: np.ndarray  # [p, m]
    b: np.ndarray  # [m]
    dof: np.ndarray  # [G]
    stderr: float


class Found(NamedTuple):
    """The best λ of each group and, by the same criterion, the best single one."""

    lam: np.ndarray  # [G]
    fitted: Fitted
    single_lam: float
    single: Fitted
    ends: np.ndarray  # [G]: 1 where λ ran to infinity, -1 where it ran to 0
    unbounded: bool  # the evidence, as λ goes to 0


@dataclasses.dataclass(frozen=True, eq=False)
class Grouped:
    """Rows, responses, and the group of each column."""

    x: np.ndarray  # [n, p], less its mean
    y: np.ndarray  # [n, m]
    middle: tuple[np.ndarray, np.ndarray]
    group: np.ndarray  # [p], of 0 … G - 1
    by: str
    free: int  # 1 for an intercept

    @classmethod
    def of(
        cls, x: np.ndarray, y: np.ndarray, group: np.ndarray, by: str, intercept: bool
    ) -> Grouped:
        p, m = x.shape[1], y.shape[1]
        middle = (x.mean(0), y.mean(0)) if intercept else (np.zeros(p), np.zeros(m))
        return cls(x - middle[0], y - middle[1], middle, group, by, int(intercept))

    @property
    def n(self) -> int:
        return len(self.x)

    @property
    def rows(self) -> int:
        """That a mean loss is over, where λ counts against it."""
        return self.n - (self.by == "loo")

    @property
    def tall(self) -> bool:
        return self.x.shape[1] < self.n - self.free

    @functools.cached_property
    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """X'X and X'y."""
        return self.x.T @ self.x, self.x.T @ self.y

    @functools.cached_property
    def contrasts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Q, Q'X and Q'y, of an orthonormal basis of what the intercept leaves."""
        q = remainder(self.n) if self.free else np.eye(self.n)
        return q, q.T @ self.x, q.T @ self.y

    @functools.cached_property
    def size(self) -> np.ndarray:
        """The largest eigenvalue of X_g'X_g / n, [G]; that of a group without any is as small as can be."""
        found = np.array(
            [np.linalg.norm(self.x[:, self.group == g], 2) for g in range(self.group.max() + 1)]
        )
        return np.maximum(found**2 / self.n, 1e-300 + 1e-12 * found.max() ** 2 / self.n)

    def at(self, theta: np.ndarray) -> Fitted:
        """At log λ of each group."""
        kappa = self.rows * np.exp(theta)[self.group]
        return self._tall(kappa) if self.tall else self._wide(kappa)

    def trained(self, theta: np.ndarray) -> Fitted:
        """The same, with the weights and degrees of freedom of training on all rows at these λ."""
        every = self.at(theta + np.log(self.n / self.rows))
        return self.at(theta)._replace(w=every.w, b=every.b, dof=every.dof)

    def _tall(self, kappa: np.ndarray) -> Fitted:
        xx, xy = self.moments
        inverse, size = _inverse(xx + np.diag(kappa))
        w = inverse @ xy
        size -= np.log(kappa).sum()
        dof = 1 - kappa * np.diag(inverse)
        if self.by == "evidence":
            return self._evidence(kappa, w, self.y - self.x @ w, size, dof)
        z = self.x @ inverse
        left = 1 - self.free / self.n - (z * self.x).sum(1)
        return self._loo(kappa, w, self.y - self.x @ w, left, z, dof)

    def _wide(self, kappa: np.ndarray) -> Fitted:
        q, x, y = self.contrasts
        inverse, size = _inverse(np.eye(len(x)) + (x / kappa) @ x.T)
        e = inverse @ y
        w = (x.T @ e) / kappa[:, None]
        z = inverse @ x / kappa
        dof = (x * z).sum(0)
        if self.by == "evidence":
            return self._evidence(kappa, w, q @ e, size, dof)
        return self._loo(kappa, w, q @ e, ((q @ inverse) * q).sum(1), q @ z, dof)

    def _loo(
        self, kappa: np.ndarray, w: np.ndarray, e: np.ndarray, left: np.ndarray, z: np.ndarray,
        dof: np.ndarray,
    ) -> Fitted:  # fmt: skip
        rest = e / left[:, None]
        rows = 0.5 * (rest**2).mean(1)
        by_e = kappa * ((z.T @ (rest / left[:, None])) * w).sum(1)
        by_left = kappa * ((rest**2).sum(1) / left @ z**2)
        slope = (by_e - by_left) / e.size
        return self._fitted(rows.mean(), slope, w, dof, rows.std(ddof=1) / np.sqrt(self.n))

    def _evidence(
        self, kappa: np.ndarray, w: np.ndarray, e: np.ndarray, size: float, dof: np.ndarray
    ) -> Fitted:
        n, m = e.shape
        q = (e**2).sum(0) + kappa @ w**2
        score = 0.5 * (1 + np.log(2 * np.pi * q / n)).sum() + 0.5 * m * size / n
        slope = 0.5 * kappa * (w**2 / q).sum(1) - 0.5 * m * dof / n
        return self._fitted(score, slope, w, dof, np.nan)

    def _fitted(
        self, score: float, slope: np.ndarray, w: np.ndarray, dof: np.ndarray, error: float
    ) -> Fitted:
        total = lambda each: np.bincount(self.group, each)
        b = self.middle[1] - self.middle[0] @ w
        return Fitted(float(score), total(slope), w, b, total(dof), float(error))


def _inverse(matrix: np.ndarray) -> tuple[np.ndarray, float]:
    """The inverse of a positive definite matrix, and log of its determinant; scaled to a diagonal of 1."""
    root = np.sqrt(np.diag(matrix))
    scale = np.outer(root, root)
    half = np.linalg.cholesky(matrix / scale)
    size = 2 * (np.log(root).sum() + np.log(np.diag(half)).sum())
    return np.linalg.inv(matrix / scale) / scale, float(size)


# --- the minimum --------------------------------------------------------------------------------------


def minimised(data: Grouped) -> Found:
    """The best λ of each group, from several starts, never worse than the best single one.

    Raises:
      ValueError: the evidence has no maximum.
    """
    single, unbounded = _single(data)
    low = np.minimum(np.log(_WEAKEST * data.size), single)
    high = np.maximum(np.log(_STRONGEST * data.size), single)
    tied = np.full(len(low), single)
    at = data.at(tied)
    best, fitted = tied, at
    unit = at.score if data.by == "loo" and at.score > 0 else 1.0
    for start in _starts(data, tied, at, low, high):
        theta = _descended(data, start, low, high, unit)
        there = data.at(theta)
        if there.score < fitted.score and not _singular(data, there):
            best, fitted = theta, there
    best, ends = _to_ends(data, best, fitted, low, high)
    both = data.trained(best), data.trained(tied)
    return Found(np.exp(best), both[0], float(np.exp(single)), both[1], ends, unbounded)


def _descended(
    data: Grouped, start: np.ndarray, low: np.ndarray, high: np.ndarray, unit: float
) -> np.ndarray:
    """From log λ of each group down to a minimum within its bounds."""
    from scipy.optimize import minimize  # not at every start

    def scaled(theta: np.ndarray) -> tuple[float, np.ndarray]:
        fitted = data.at(theta)
        return fitted.score / unit, fitted.gradient / unit

    found = minimize(
        scaled, start, jac=True, method="L-BFGS-B", bounds=np.stack([low, high], 1),
        options={"ftol": 1e-14, "gtol": 1e-8},
    )  # fmt: skip
    return np.clip(found.x, low, high)


def _single(data: Grouped) -> tuple[float, bool]:
    """log λ of the best single one."""
    solved = Solved.of(data.x, data.y, bool(data.free))
    low, high = np.log([_WEAKEST, _STRONGEST]) + np.log(data.size.max())
    if data.by == "evidence":
        kappa, unbounded = peak(solved)
        if kappa == 0:
            raise no_peak(_OWNER, solved, kappa)
        return float(np.clip(np.log(kappa) - np.log(data.n), low, high)), unbounded
    score = lambda t: float(np.mean(_left_out(solved, np.exp(t)) ** 2))
    at = np.linspace(low, high, 100)
    while at[-1] - at[0] > 1e-5:
        k = int(np.argmin([score(t) for t in at]))
        at = np.linspace(at[max(k - 1, 0)], at[min(k + 1, len(at) - 1)], 7)
    return float(at[3]), False


def _left_out(solved: Solved, lam: float) -> np.ndarray:
    kappa = np.array([(solved.n - 1) * lam])
    return solved.residuals(kappa)[0] / solved.unexplained(kappa)[0][:, None]


def _starts(
    data: Grouped, tied: np.ndarray, at: Fitted, low: np.ndarray, high: np.ndarray
) -> list[np.ndarray]:
    """The best single one, a step of MacKay's fixed point from it, and the best with one group moved."""
    strength = np.bincount(data.group, np.exp(tied[0]) * (at.w**2).mean(1)) + 1e-300
    noise = strength.sum() / max(at.dof.sum(), 1e-12)
    step = np.log(np.maximum(at.dof, 1e-12) * np.exp(tied) * noise / strength)
    moved = [
        tied + d * unit for unit in np.eye(len(tied))[: 8 if len(tied) <= 8 else 0] for d in (-5, 5)
    ]
    clipped = [np.clip(start, low, high) for start in (step, *moved)]
    return [tied, clipped[0], *sorted(clipped[1:], key=lambda t: data.at(t).score)[:2]]


def _singular(data: Grouped, fitted: Fitted) -> bool:
    """Whether an evidence has run to where the columns fit the rows without noise."""
    free = data.n - data.free
    return data.by == "evidence" and not data.tall and free - fitted.dof.sum() < _SINGULAR * free


def _to_ends(
    data: Grouped, theta: np.ndarray, fitted: Fitted, low: np.ndarray, high: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """λ moved to an end of its range where the criterion does not mind, and which were."""
    ends = np.zeros(len(theta), int)
    most = fitted.score + _FLAT * abs(fitted.score)
    for way, bound, towards in ((1, high, 1e1), (-1, low, 1e-4)):
        beyond = way * (theta - np.log(towards * data.size)) > 0
        for g in np.flatnonzero(beyond):
            moved = np.where(np.arange(len(theta)) == g, bound, theta)
            there = data.at(moved)
            if there.score <= most and not _singular(data, there):
                theta, ends[g] = moved, way
    return theta, ends
