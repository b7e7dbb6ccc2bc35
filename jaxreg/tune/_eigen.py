"""Ridge at every strength from one eigendecomposition, and the peak of its evidence.

With X X' = U diag(s) U' on the rows less their mean, ridge predicts U diag(s / (s + κ)) U'y at κ: another
strength costs a product of numbers, not another solve. The shares of all directions, as functions of κ,
span few dimensions (the singular values of a Cauchy matrix fall geometrically), so that the predictions at
many strengths are combinations of those at a few: see `compressed`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["Solved", "compressed", "no_peak", "peak", "remainder"]

# How far from the largest eigenvalue a maximum of the evidence is looked for, in log κ.
_WIDE = 60.0
_ROUNDING = 1e-15


@dataclasses.dataclass(frozen=True, eq=False)
class Solved:
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
    def of(cls, x: np.ndarray, y: np.ndarray, intercept: bool) -> Solved:
        n, p = x.shape
        middle = (x.mean(0), y.mean(0)) if intercept else (np.zeros(p), np.zeros(y.shape[1]))
        x, y = x - middle[0], y - middle[1]
        if n > p:
            s, v = np.linalg.eigh(x.T @ x)
            kept = s > negligible(s, n, p)
            s, v = s[kept], v[:, kept]
            u = x @ (v / np.sqrt(s))
        else:
            q = remainder(n) if intercept else np.eye(n)
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
        """[K, n, m] at K strengths."""
        left, right = compressed(self.shares(kappa))
        few = np.matmul(self.u, right[:, :, None] * self.b)  # [k, n, m]
        return self.outside + (left @ few.reshape(len(few), -1)).reshape(len(left), *few.shape[1:])

    def unexplained(self, kappa: np.ndarray) -> np.ndarray:
        """1 - h_i - 1/n of every row, [K, n]."""
        inside = self.u**2
        rest = 1 - self.free / self.n - inside.sum(1)  # outside of U, where nothing is explained
        return np.where(np.abs(rest) < 1e-10, 0, rest) + self.shares(kappa) @ inside.T

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

    def coef(self, kappa: Any) -> tuple[np.ndarray, np.ndarray]:
        """Weights [p, m] and intercepts [m] at one strength, or at one for each response."""
        away = self.s[:, None] + kappa
        over = np.divide(1, away, out=np.zeros_like(away), where=self.s[:, None] > 0)
        w = self.x.T @ (self.u @ (over * self.b))
        return w, self.middle[1] - self.middle[0] @ w


def negligible(s: np.ndarray, n: int, p: int) -> float:
    """Eigenvalues up to this are rounding."""
    return max(n, p) * np.finfo(float).eps * max(s.max(initial=0), 1e-300)


def remainder(n: int) -> np.ndarray:
    """An orthonormal basis [n, n-1] of what sums to zero: a reflection that takes e_1 to the constant."""
    v = np.full(n, 1 / np.sqrt(n))
    v[0] += 1
    return (np.eye(n) - np.outer(v, v) / v[0])[:, 1:]


def compressed(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[K, r] as a product [K, k] @ [k, r] with the smallest k that loses nothing but rounding.

    >>> s, kappa = np.linspace(1, 9, 200), np.geomspace(1e-4, 1e2, 30)[:, None]
    >>> left, right = compressed(kappa / (s + kappa))
    >>> left.shape, bool(np.allclose(left @ right, kappa / (s + kappa), rtol=1e-13))
    ((30, 17), True)
    """
    size = np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-300)
    u, singular, vt = np.linalg.svd(rows / size, full_matrices=False)
    kept = singular > _ROUNDING * singular.max(initial=0)
    return size * u[:, kept] * singular[kept], vt[kept]


# --- the evidence -----------------------------------------------------------------------------------


def peak(solved: Solved) -> tuple[float, bool]:
    """The κ of the highest peak of the evidence, summed over responses, and whether there is more beyond.

    0 where the evidence only rises as κ goes to 0, infinity where it only rises with κ. Where as many
    columns as rows fit without noise, it rises without bound as κ goes to 0, beside a peak or without one.
    """
    slope = _slope(solved)
    at = np.log(solved.s.max(initial=1e-300)) + np.linspace(-_WIDE, _WIDE, 481)
    steep = np.array([slope(t) for t in at])
    peaks = np.flatnonzero((steep[:-1] > 0) & (steep[1:] <= 0))
    found = [_crossing(slope, at[k], at[k + 1]) for k in peaks]
    heights = [solved.evidence(np.exp(t)).sum() for t in found]
    nothing = solved.evidence(np.exp(at[-1])).sum()  # without any column
    unbounded = bool(steep[0] < 0)
    if not found or max(heights) < nothing:
        return (0.0 if unbounded and not found else np.inf), unbounded
    return float(np.exp(found[int(np.argmax(heights))])), unbounded


def no_peak(owner: str, solved: Solved, kappa: float) -> ValueError:
    """Of an evidence that rises to an end."""
    if kappa == 0:
        return ValueError(
            f"{owner}: the evidence has no maximum: it rises as λ goes to 0, where {solved.p} "
            f"columns fit {solved.n} rows without any noise. Take 'loo', or fewer columns."
        )
    return ValueError(
        f"{owner}: the evidence has no maximum: it rises with λ to infinity, where nothing is left "
        "but the intercept. The columns tell nothing of `y`; compare 'loo'."
    )


def _crossing(slope: Callable[[float], float], left: float, right: float) -> float:
    """Where a slope that falls crosses 0, to the last digit."""
    while left < (middle := 0.5 * (left + right)) < right:
        left, right = (middle, right) if slope(middle) > 0 else (left, middle)
    return middle


def _slope(solved: Solved) -> Callable[[float], float]:
    """The derivative of the evidence by log κ."""

    def slope(t: float) -> float:
        kappa = np.exp(t)
        share, explained = solved.shares(kappa), solved.s / (solved.s + kappa)
        gain = (share * explained) @ solved.b**2
        return float((-0.5 * solved.n * gain / solved.q(kappa) + 0.5 * explained.sum()).sum())

    return slope
