"""Information criteria: λ from one training on all rows, for models that are linear in their parameters.

Of lanes that were trained to their minimum, with the degrees of freedom of their penalties, dof, as in
`jaxreg.tune._dof`, and N = n m numbers in n rows of m outputs:

- AIC = D + 2 dof (Akaike 1974), BIC = D + log(N) dof (Schwarz 1978); of classes N = n.
- EBIC = BIC + 2 γ log C(p, k), of k directions that are free among the p parameters the penalty holds
  (Chen & Chen 2008); of a penalty that selects nothing it is BIC.
- Cp = RSS/σ² - N + 2 dof (Mallows 1973), of Gaussian noise σ.

D is -2 log likelihood; of a Gaussian RSS/σ² where σ is given, and else N log(RSS/N), with the noise that is
best at each point. A model with more than half as many degrees of freedom as numbers fits its own noise
away, and is no candidate then. For likelihoods that are not Gaussian dof is that of the quadratic at the
minimum (Park & Hastie 2007).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import Array

from jaxreg import _tree
from jaxreg._check import shown
from jaxreg._tree import PyTree
from jaxreg.choice import Choice, choose, coordinate_text
from jaxreg.penalty import Penalty
from jaxreg.report.table import Column, Table
from jaxreg.results import SweepResult
from jaxreg.results.build import pick
from jaxreg.results.summary import lane_steps
from jaxreg.scores import Scores
from jaxreg.tune._linear import Lane, Lanes, lanes_of, odd_text

__all__ = ["Criteria", "criteria"]

_NAMES = {"aic": "AIC", "bic": "BIC", "ebic": "EBIC", "cp": "Cp"}
_LEFT = 0.2  # of the numbers that must be left to estimate a noise by


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Criteria:
    """Information criteria of K points and S seeds; its repr is a table. What is no candidate is NaN.

    Attributes:
      dof: [K, S], degrees of freedom, those of an intercept included.
      deviance: [K, S], D of the module.
      aic, bic, ebic: [K, S].
      cp: [K, S]; NaN of likelihoods that are not Gaussian and where the noise is not known.
      noise: the standard deviation in `cp`; NaN where it is not known.
      odd: [K, S], why a lane is no candidate; "" of one that is.
      result: the sweep.
    """

    dof: np.ndarray
    deviance: np.ndarray
    aic: np.ndarray
    bic: np.ndarray
    ebic: np.ndarray
    cp: np.ndarray
    noise: float
    odd: np.ndarray
    result: SweepResult

    def best(self, by: str = "bic") -> Choice:
        """The point of the least mean over seeds.

        AIC and Cp are made to predict; BIC to find which parameters there are, of few, and EBIC of many.

        Raises:
          ValueError: no such criterion, or it is not known.
        """
        if by not in _NAMES:
            raise ValueError(f"criteria: `by` must be one of {sorted(_NAMES)}, got {shown(by)}.")
        if by == "cp" and not np.isfinite(self.noise):
            raise ValueError(
                "criteria: `by` must be 'aic', 'bic' or 'ebic' where no noise is known, got 'cp'. It is of "
                "Gaussian noise, which the largest model tells only with a fifth of the degrees of freedom "
                "left; else give criteria(..., noise=...)."
            )
        result = self.result
        scores = Scores(getattr(self, by)[:, None], result.coords)
        taken = choose("min", scores)
        k = taken.index
        many = int(scores.finite.sum())
        why = f"the least of {many} points, with {self.dof[k].mean():.4g} degrees of freedom"
        told = (*taken.warnings, *([text] if (text := odd_text(self.odd)) else []))
        return Choice(
            by, pick(result.points, k), result._point(k), float(scores.mean[k]), float("nan"), _NAMES[by],
            k, why, lane_steps(result), told,
        )  # fmt: skip

    def table(self) -> Table:
        """Each point's degrees of freedom and criteria, means over seeds, and what each takes."""
        names = [n for n in _NAMES if n != "cp" or np.isfinite(self.noise)]
        coords = {n: np.asarray(v) for n, v in self.result.coords.items()}
        columns = {"dof": self.dof} | {_NAMES[n]: getattr(self, n) for n in names}
        means = {name: x.mean(1) for name, x in columns.items()}
        rows = tuple(
            {n: v[k].item() for n, v in coords.items()} | {n: float(x[k]) for n, x in means.items()}
            for k in range(len(self.dof))
        )
        show = lambda name, x: (
            coordinate_text(x) if name in coords else "-" if np.isnan(x) else f"{x:.2f}"
        )
        cells = tuple(tuple(show(name, x) for name, x in row.items()) for row in rows)
        chosen = [self.best(n) for n in names]
        notes = [f"{c.metric}: {_at(c)}" for c in chosen]
        warnings = dict.fromkeys(text for c in chosen for text in c.warnings)
        heads = tuple(Column(n) for n in [*coords, *means])
        return Table("", heads, rows, cells, tuple(notes), tuple(warnings))

    def __repr__(self) -> str:
        return str(self.table())


def _at(choice: Choice) -> str:
    return ", ".join(f"{n}={coordinate_text(v)}" for n, v in choice.coords.items())


def criteria(
    outputs: Callable[[PyTree, Any], Array],
    result: SweepResult,
    data: tuple,
    *,
    likelihood: str = "gaussian",
    penalty: Callable[[PyTree], Penalty] | None = None,
    noise: float | None = None,
    gamma: float = 0.5,
    tol: float = 0.1,
) -> Criteria:
    """AIC, BIC, EBIC and Cp of every lane of a sweep that was trained on all rows; it trains nothing.

    The model must be linear in its parameters: a linear or generalised linear one, with any features. The
    penalty may be any that is finite near the parameters: of entries, groups, neighbours, smooth ones, and
    their sums, on any selection. Exact zeros and exact ties are counted, so couple it by `jaxreg.proximal`.

    Args:
      outputs: (params, X) -> [n] or [n, m]: predictions, the logit of "bernoulli", the m logits of
        "categorical", the logarithm of the rate of "poisson".
      result: the sweep of that model, with its parameters, trained on all of `data`, judged on other rows.
      data: (X, y) that it was trained on.
      likelihood: of which the trained loss was the mean over rows: "gaussian" (the square or half of it),
        "bernoulli", "categorical" or "poisson". It is compared with the training loss of the result.
      penalty: point -> the penalty that was trained with; by default the sum of those in the point.
      noise: σ of a Gaussian. By default AIC and BIC take the one that is best at each point, and Cp that of
        the point of the most degrees of freedom, RSS/(N - dof), if it leaves a fifth of N.
      gamma: γ of EBIC, from 0 (BIC) to 1.
      tol: how far from its minimum a lane may be, in the log likelihood of all rows.

    Returns:
      A `Criteria`, whose `best()` is a `Choice`.

    Raises:
      ValueError: the model is not linear, folds, another loss or other rows, no lane that is a candidate.
      TypeError: an argument of the wrong kind.

    >>> import jax, jax.numpy as jnp, optax, jaxreg as jr
    >>> x = jax.random.normal(jax.random.key(1), (80, 10))
    >>> y = 2 * x[:, 3] - x[:, 7] + 0.5 * jax.random.normal(jax.random.key(2), (80,))
    >>> outputs = lambda w, x: x @ w
    >>> def trainer(reg):
    ...     loss = lambda w, x, y: 0.5 * jnp.mean((outputs(w, x) - y) ** 2)
    ...     return jr.Trainer(lambda key: jnp.zeros(10), loss, jr.proximal(optax.identity(), reg, 0.3))
    >>> g = jr.grid(jr.l1, lam=[0.01, 0.03, 0.1, 0.3])
    >>> result = jr.sweep(trainer, g, (x[:60], y[:60]), validation=(x[60:], y[60:]), steps=200,
    ...                   key=jax.random.key(0))
    >>> criteria(outputs, result, (x[:60], y[:60])).best("bic").point
    l1(0.1)
    """
    sigma = _noise(noise, likelihood)
    _share(gamma)
    lanes = lanes_of("criteria", outputs, result, data, penalty, likelihood, tol)
    dof, squares, extra, odd = _measured(lanes, gamma)
    size = int(np.prod(lanes.design.shape[: 1 if likelihood == "categorical" else 2]))
    told, deviance, cp = float("nan"), squares, np.full(lanes.shape, np.nan)
    if likelihood == "gaussian":
        told = _largest_model(dof, squares, size) if sigma is None else sigma
        cp = squares / told**2 - size + 2 * dof
        with np.errstate(divide="ignore"):
            deviance = size * np.log(squares / size) if sigma is None else squares / sigma**2
    if likelihood == "gaussian" and sigma is None:
        many = "it has more than half as many degrees of freedom as rows, and fits its noise"
        odd[dof > size / 2] = many
    out = odd != ""
    if out.all():
        raise ValueError(
            f"criteria: `result` must have lanes that are candidates, got none: {odd_text(odd)} Train "
            "longer, with penalties coupled by jaxreg.proximal."
        )
    aic, bic = deviance + 2 * dof, deviance + np.log(size) * dof
    kept = [np.where(out, np.nan, x) for x in (deviance, aic, bic, bic + extra, cp)]
    return Criteria(dof, *kept, noise=told, odd=odd, result=result)


def _measured(lanes: Lanes, gamma: float) -> tuple[np.ndarray, ...]:
    """Degrees of freedom, -2 log likelihood of unit noise, what EBIC adds, and why not; each [K, S]."""
    dof, squares, extra = (np.full(lanes.shape, np.nan) for _ in range(3))
    odd = np.full(lanes.shape, "", object)
    for key in np.ndindex(*lanes.shape):
        lane = lanes.at(*key)
        if isinstance(lane, str):
            odd[key] = lane
            continue
        dof[key] = lane.dof
        squares[key] = 2 * len(lanes.y) * (lanes.judged(lane.outputs)[0].mean() + lanes.rest)
        extra[key] = 2 * gamma * _choices(lanes, lane, key)
    return dof, squares, extra, odd


def _noise(noise: Any, likelihood: Any) -> float | None:
    if noise is None:
        return None
    wanted = "criteria: `noise` must be a standard deviation above 0"
    number = isinstance(noise, (int, float, np.integer, np.floating)) and type(noise) is not bool
    if not number or not 0 < noise < np.inf:
        raise (ValueError if number else TypeError)(f"{wanted}, got {shown(noise)}.")
    if likelihood != "gaussian":
        raise ValueError(
            f"{wanted} of the likelihood 'gaussian', got {shown(noise)} with {shown(likelihood)}. Leave it "
            "away."
        )
    return float(noise)


def _share(gamma: Any) -> None:
    number = isinstance(gamma, (int, float, np.integer, np.floating)) and type(gamma) is not bool
    if not number or not 0 <= gamma <= 1:
        raise (ValueError if number else TypeError)(
            f"criteria: `gamma` must be a number from 0 to 1, got {shown(gamma)}."
        )


def _largest_model(dof: np.ndarray, squares: np.ndarray, size: int) -> float:
    """σ by the lane of the most degrees of freedom; NaN where it leaves too few of N."""
    if np.isnan(dof).all():
        return float("nan")
    at = np.unravel_index(int(np.nanargmax(dof)), dof.shape)
    left = size - dof[at]
    return float(np.sqrt(squares[at] / left)) if left >= _LEFT * size else float("nan")


def _choices(lanes: Lanes, lane: Lane, key: tuple[int, int]) -> float:
    """log C(p, k): how many models of k directions p parameters make."""
    params = lanes.result.lane(key[0], 0, key[1])
    reg = lanes.penalty(pick(lanes.result.points, key[0]))
    leaves, trained = jax.tree.leaves(params), _tree.trained(params)
    held = [
        np.full(np.size(x), hit) for x, hit, t in zip(leaves, reg.support(params), trained) if t
    ]
    held = np.concatenate(held)
    p, k = float(held.sum()), float(lane.free.basis.power(2).sum(1)[held].sum())
    return math.lgamma(p + 1) - math.lgamma(k + 1) - math.lgamma(max(p - k, 0) + 1)
