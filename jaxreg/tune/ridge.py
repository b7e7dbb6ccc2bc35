"""Ridge regression for every λ at once, without training: leave-one-out, GCV, AIC, BIC and the evidence.

One eigendecomposition serves all λ and all responses. In our convention the objective is

    J(w, b) = 1/(2n) |X w + b - y|^2 + λ/2 |w|^2,    solved by  (X'X + κ I) w = X'y,  κ = n λ

of centred columns. With the eigenvalues s_j and eigenvectors u_j of X X', the leverages
h_i = sum_j u_ij^2 s_j / (s_j + κ) and the residuals e:

- leave-one-out: 1/(2n) sum_i (e_i / (1 - h_i - 1/n))^2 at κ = (n-1) λ, since n-1 rows make a mean loss of
  n-1; the 1/n is the intercept's (Allen 1974; Golub, Heath & Wahba 1979, eq. 2.1).
- generalised cross-validation: n |e|^2 / (2 (n - dof)^2), dof = 1 + sum_i h_i (Golub, Heath & Wahba 1979).
- AIC, BIC: n log(|e|^2/n) + 2 dof, + log(n) dof (Akaike 1974; Schwarz 1978).
- evidence: of w ~ N(0, 1/α) and y ~ N(X w + b, 1/β), the logarithm of the marginal likelihood
  (MacKay 1992), with κ = α/β and with the β that is best at each κ,
  -n/2 (1 + log(2π q/n)) - 1/2 sum_j log(1 + s_j/κ),  q = y'(I + X X'/κ)^-1 y = n/β.

Everything is numpy in float64 on the host.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from jax import Array

from jaxreg._check import flag
from jaxreg.choice import Choice
from jaxreg.fit.intake import as_rows
from jaxreg.penalties import l2

__all__ = ["RidgePath", "ridge_path"]

# How far from the largest eigenvalue a maximum of the evidence is looked for, in log κ.
_MOST_NUMBERS = 2e7  # residuals held at a time
_WIDE = 60.0


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class RidgePath:
    """Ridge regression at K strengths, judged without training again; see the module for the formulas.

    Attributes:
      lam: [K], rising.
      loo: [K, m], the leave-one-out loss of each of m responses, half the mean square.
      loo_stderr: [K], of the mean over responses, over rows.
      gcv, aic, bic: [K, m].
      evidence: [K, m], the log marginal likelihood.
      dof: [K], effective degrees of freedom, the intercept's included.
    """

    lam: np.ndarray
    loo: np.ndarray
    loo_stderr: np.ndarray
    gcv: np.ndarray
    aic: np.ndarray
    bic: np.ndarray
    evidence: np.ndarray
    dof: np.ndarray
    _solved: _Solved

    def best(self, by: str = "loo") -> Choice:
        """The λ of the best mean over responses: of the grid, or, by the evidence, of all λ.

        Raises:
          ValueError: no such criterion, or the evidence has no maximum.

        >>> x = np.random.default_rng(0).normal(size=(40, 3))
        >>> y = x[:, 0] + 0.3 * np.random.default_rng(1).normal(size=40)
        >>> ridge_path((x, y), [0.01, 0.1, 1.0]).best()
        loo: lam=0.01
          leave-one-out loss: 0.04446 ± 0.01
          why: the best of 3 λ
          warning: lam=0.01 is the smallest of the grid; a smaller one may be better.
        """
        if by not in _CRITERIA:
            raise ValueError(f"ridge_path: `by` must be one of {sorted(_CRITERIA)}, got {by!r}.")
        if by == "evidence":
            return self._by_evidence()
        score = getattr(self, by).mean(1)
        k = int(np.argmin(score))
        error = float(self.loo_stderr[k]) if by == "loo" else float("nan")
        return self._choice(
            by, float(self.lam[k]), float(score[k]), error, k, f"the best of {len(self.lam)} λ"
        )

    def coef(self, lam: float) -> tuple[np.ndarray, np.ndarray]:
        """The weights [p, m] and intercepts [m] of all rows at a strength."""
        return self._solved.coef(float(lam) * self._solved.n)

    def _by_evidence(self) -> Choice:
        kappa, odd = _maximum(self._solved)
        noise = np.sqrt(self._solved.q(kappa) / self._solved.n)
        score = -self._solved.evidence(kappa).sum() / self._solved.n
        why = f"the maximum of the evidence, with a noise of {noise.mean():.4g}"
        return self._choice(
            "evidence", kappa / self._solved.n, float(score), float("nan"), None, why, odd
        )

    def _choice(
        self,
        by: str,
        lam: float,
        score: float,
        error: float,
        index: int | None,
        why: str,
        odd: str = "",
    ) -> Choice:
        warnings = [odd] * bool(odd)
        if index in (0, len(self.lam) - 1) and len(self.lam) > 1 and lam > 0:
            end, beyond = ("smallest", "smaller") if index == 0 else ("largest", "larger")
            warnings = [f"lam={lam:.4g} is the {end} of the grid; a {beyond} one may be better."]
        return Choice(
            by, l2(lam), {"lam": lam}, score, error, _CRITERIA[by], index, why, 0, tuple(warnings)
        )

    def __repr__(self) -> str:
        rows, columns, responses = self._solved.n, self._solved.p, self.loo.shape[1]
        many = f", {responses} responses" if responses > 1 else ""
        return (
            f"RidgePath: {len(self.lam)} λ from {self.lam[0]:.4g} to {self.lam[-1]:.4g}, {rows} rows x "
            f"{columns} columns{many}; leave-one-out is best at {self.best().coords['lam']:.4g}"
        )


_CRITERIA = {
    "loo": "leave-one-out loss",
    "gcv": "generalised cross-validation",
    "aic": "AIC",
    "bic": "BIC",
    "evidence": "negative log evidence per row",
}


def ridge_path(data: tuple, lam: Any = None, *, intercept: bool = True) -> RidgePath:
    """Ridge regression at every strength of a grid, judged without training.

    Args:
      data: (X, y), of [n, p] and [n], or [n, m] of m responses, which share λ.
      lam: strengths >= 0, by default 100 from 1e-6 to 1e2 times the largest eigenvalue of X'X/n.
      intercept: whether there is an unpenalised intercept.

    Returns:
      A `RidgePath`. With the columns scaled alike it is `jaxreg.l2(lam)` on the weights of a linear model.

    Raises:
      ValueError: shapes that do not fit, numbers that are not finite, fewer than three rows, or a strength
        below 0. TypeError: no numbers.

    >>> x = np.random.default_rng(0).normal(size=(40, 3))
    >>> y = x[:, 0] + 0.3 * np.random.default_rng(1).normal(size=40)
    >>> path = ridge_path((x, y))
    >>> path
    RidgePath: 100 λ from 1.283e-06 to 128.3, 40 rows x 3 columns; leave-one-out is best at 0.01169
    >>> path.best("evidence").point
    l2(0.00595123)
    """
    arrays, n = as_rows("ridge_path", data)
    if len(arrays) != 2 or not all(isinstance(a, (np.ndarray, Array)) for a in arrays):
        raise ValueError(
            f"ridge_path: `data` must be a pair of arrays, (X, y), got {len(arrays)} parts."
        )
    x, targets = arrays
    x, targets = np.asarray(x, np.float64), np.asarray(targets, np.float64)
    if x.ndim != 2 or targets.ndim not in (1, 2) or not x.shape[1]:
        raise ValueError(
            "ridge_path: `data` must be (X, y) of [rows, columns] and [rows] or [rows, responses], got "
            f"{list(x.shape)} and {list(targets.shape)}."
        )
    if n < 3:
        raise ValueError(f"ridge_path: `data` must have at least 3 rows, got {n}.")
    solved = _Solved.of(x, targets.reshape(n, -1), flag("ridge_path", "intercept", intercept))
    lams = _strengths(lam, solved)
    # As many strengths at a time as keep the residuals of all responses in memory.
    some = max(1, int(_MOST_NUMBERS // targets.size))
    parts = [_judged(solved, lams[i : i + some]) for i in range(0, len(lams), some)]
    judged = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return RidgePath(lams, **judged, _solved=solved)


def _strengths(lam: Any, solved: _Solved) -> np.ndarray:
    if lam is None:
        return np.geomspace(1e-6, 1e2, 100) * solved.s.max(initial=1e-300) / solved.n
    try:
        lams = np.sort(np.atleast_1d(np.asarray(lam, np.float64)))
    except (TypeError, ValueError):
        raise TypeError(f"ridge_path: `lam` must be numbers, got {lam!r:.60}.") from None
    if lams.ndim != 1 or not lams.size or not np.isfinite(lams).all() or (lams < 0).any():
        raise ValueError(
            f"ridge_path: `lam` must be strengths, finite and at least 0, got {lam!r:.60}."
        )
    return lams


@dataclasses.dataclass(frozen=True, eq=False)
class _Solved:
    """X X' = U diag(s) U' on the rows less their mean, with b = U'y and what of y lies outside of U."""

    n: int
    p: int
    s: np.ndarray  # [r]
    u: np.ndarray  # [n, r]
    b: np.ndarray  # [r, m]
    outside: np.ndarray  # [n, m]
    x: np.ndarray
    middle: tuple[np.ndarray, np.ndarray]  # of X [p] and of y [m]
    free: int  # 1 for an intercept

    @classmethod
    def of(cls, x: np.ndarray, y: np.ndarray, intercept: bool) -> _Solved:
        n, p = x.shape
        middle = (x.mean(0), y.mean(0)) if intercept else (np.zeros(p), np.zeros(y.shape[1]))
        x, y = x - middle[0], y - middle[1]
        if n > p:
            s, v = np.linalg.eigh(x.T @ x)
            kept = s > max(n, p) * np.finfo(float).eps * max(s.max(initial=0), 1e-300)
            s, v = s[kept], v[:, kept]
            u = x @ (v / np.sqrt(s))
        else:
            q = _centred(n) if intercept else np.eye(n)
            s, w = np.linalg.eigh(q.T @ (x @ x.T) @ q)
            s, u = np.maximum(s, 0), q @ w
        b = u.T @ y
        return cls(n, p, s, u, b, y - u @ b, x, middle, int(intercept))

    def shares(self, kappa: Any) -> np.ndarray:
        """κ / (s + κ) [..., r], what of each direction is left in the residual; 0 where both are 0."""
        kappa = np.asarray(kappa, float)[..., None]
        return np.divide(
            kappa, self.s + kappa, out=np.zeros(np.broadcast_shapes(kappa.shape, self.s.shape)),
            where=self.s + kappa > 0,
        )  # fmt: skip

    def residuals(self, kappa: np.ndarray) -> np.ndarray:
        """[n, K, m] at K strengths."""
        left = self.shares(kappa)[:, :, None] * self.b  # [K, r, m]
        flat = self.u @ left.transpose(1, 0, 2).reshape(len(self.s), -1)
        return self.outside[:, None] + flat.reshape(self.n, len(kappa), -1)

    def unexplained(self, kappa: np.ndarray) -> np.ndarray:
        """1 - h_i - 1/n of every row, [n, K]."""
        inside = self.u**2
        rest = 1 - self.free / self.n - inside.sum(1)  # outside of U, where nothing is explained
        return np.where(np.abs(rest) < 1e-10, 0, rest)[:, None] + inside @ self.shares(kappa).T

    def q(self, kappa: Any) -> np.ndarray:
        """[..., m]."""
        return (self.outside**2).sum(0) + self.shares(kappa) @ self.b**2

    def evidence(self, kappa: Any) -> np.ndarray:
        """[..., m]; minus infinity at κ = 0."""
        with np.errstate(divide="ignore", invalid="ignore"):
            scatter = np.log(2 * np.pi * self.q(kappa) / self.n)
            size = np.log1p(self.s / np.asarray(kappa, float)[..., None]).sum(-1)[..., None]
            return np.nan_to_num(
                -0.5 * self.n * (1 + scatter) - 0.5 * size,
                nan=-np.inf,
                posinf=-np.inf,
                neginf=-np.inf,
            )

    def coef(self, kappa: float) -> tuple[np.ndarray, np.ndarray]:
        over = np.divide(1, self.s + kappa, out=np.zeros_like(self.s), where=self.s > 0)
        w = self.x.T @ (self.u @ (over[:, None] * self.b))
        return w, self.middle[1] - self.middle[0] @ w


def _centred(n: int) -> np.ndarray:
    """An orthonormal basis [n, n-1] of what sums to zero: a reflection that takes e_1 to the constant."""
    v = np.full(n, 1 / np.sqrt(n))
    v[0] += 1
    return (np.eye(n) - np.outer(v, v) / v[0])[:, 1:]


def _judged(solved: _Solved, lams: np.ndarray) -> dict[str, np.ndarray]:
    """All criteria at some strengths."""
    n = solved.n
    kept_out = (n - 1) * lams
    with np.errstate(divide="ignore", invalid="ignore"):
        left = solved.residuals(kept_out) / solved.unexplained(kept_out)[..., None]
    rows = 0.5 * left**2
    dof = solved.free + len(solved.s) - solved.shares(n * lams).sum(1)
    squares = (solved.outside**2).sum(0) + solved.shares(n * lams) ** 2 @ solved.b**2
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = n * np.log(squares / n)
        return {
            "loo": rows.mean(0),
            "loo_stderr": rows.mean(2).std(0, ddof=1) / np.sqrt(n),
            "gcv": n * squares / (2 * (n - dof[:, None]) ** 2),
            "aic": spread + 2 * dof[:, None],
            "bic": spread + np.log(n) * dof[:, None],
            "evidence": solved.evidence(n * lams),
            "dof": dof,
        }


def _maximum(solved: _Solved) -> tuple[float, str]:
    """The κ of the highest peak of the evidence, summed over responses, and what is odd about it.

    Where as many columns as rows fit without noise, it rises without bound as κ goes to 0, beside a peak or
    without one.

    Raises:
      ValueError: there is no peak.
    """
    slope = _slope(solved)
    at = np.log(solved.s.max(initial=1e-300)) + np.linspace(-_WIDE, _WIDE, 481)
    steep = np.array([slope(t) for t in at])
    peaks = np.flatnonzero((steep[:-1] > 0) & (steep[1:] <= 0))
    found = [_crossing(slope, at[k], at[k + 1]) for k in peaks]
    heights = [solved.evidence(np.exp(t)).sum() for t in found]
    nothing = solved.evidence(np.exp(at[-1])).sum()  # without any column
    if not found or max(heights) < nothing:
        if steep[0] < 0 and not found:
            raise ValueError(
                f"ridge_path: the evidence has no maximum: it rises as λ goes to 0, where {solved.p} "
                f"columns fit {solved.n} rows without any noise. Take best('loo'), or fewer columns."
            )
        raise ValueError(
            "ridge_path: the evidence has no maximum: it rises with λ to infinity, which leaves nothing "
            "but the intercept. The columns tell nothing of `y`; compare best('loo')."
        )
    beyond = (
        "the evidence rises without bound as λ goes to 0, where the columns fit the rows without noise; "
        "this is its highest peak before that. Compare best('loo')."
    )
    return float(np.exp(found[int(np.argmax(heights))])), beyond * bool(steep[0] < 0)


def _crossing(slope: Callable[[float], float], left: float, right: float) -> float:
    """Where a slope that falls crosses 0, to the last digit."""
    while left < (middle := 0.5 * (left + right)) < right:
        left, right = (middle, right) if slope(middle) > 0 else (left, middle)
    return middle


def _slope(solved: _Solved) -> Callable[[float], float]:
    """The derivative of the evidence by log κ."""

    def slope(t: float) -> float:
        kappa = np.exp(t)
        share, explained = solved.shares(kappa), solved.s / (solved.s + kappa)
        gain = (share * explained) @ solved.b**2
        return float((-0.5 * solved.n * gain / solved.q(kappa) + 0.5 * explained.sum()).sum())

    return slope
