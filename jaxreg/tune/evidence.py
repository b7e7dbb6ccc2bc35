"""The marginal likelihood of trained models: λ without folds.

With L the mean negative log likelihood of n rows and R = ½ sum λ_i (θ_i - c_i)², exp(-n L) is a
likelihood and exp(-n R), normalised, a prior of precision n λ_i. A Gaussian around the trained θ whose
precision is the generalised Gauss-Newton matrix H plus Λ = n diag(λ) gives the log evidence

    log Z = -n (L + R) - 1/2 log det(I + Λ^-1 H)

(MacKay 1992; Immer et al. 2021, "Scalable marginal likelihood estimation for model selection in deep
learning", here with the curvature of every pair of parameters). Gaussian noise σ divides n J by σ², which
leaves θ where it is; where it is not given it is the one that is best at each point.

Parameters that R does not hold, such as biases, have no prior and stay at their values: models that differ
in their number are not compared by it. It is exact for linear models with Gaussian noise and no intercept.
What is compared are models each trained at their own λ. Updating λ while training, with the curvature of
the moment (MacKay's fixed point), does not end at that maximum, since the curvature moves with θ.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from jax import Array

from jaxreg._tree import PyTree
from jaxreg.choice import Choice, choose
from jaxreg.fit.intake import check_batch, on_device
from jaxreg.penalty import Penalty
from jaxreg.report.table import Column, Table
from jaxreg.results import SweepResult
from jaxreg.results.build import pick
from jaxreg.results.summary import lane_steps
from jaxreg.scores import Scores
from jaxreg.tune._asked import check_functions, check_result, pair
from jaxreg.tune._evidence import check_lanes, check_noise, check_stack, stacks_of
from jaxreg.tune._measured import Job, measured

__all__ = ["Evidence", "evidence"]


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Evidence:
    """The log evidence of K points, each trained from S seeds; its repr is a table.

    Attributes:
      log_evidence: [K, S]. NaN where a lane diverged or was given up; -inf where a strength is 0 that is
        not so at other points, the limit as it goes to 0.
      effective: leaf path -> [K, S], the effective number of parameters, trace of H (H + Λ)^-1 on the leaf.
      parameters: leaf path -> how many the penalty holds.
      held: paths of leaves that stayed at their values, without a prior.
      decrement: [K, S], by how much the log evidence would still rise, to second order, were the lane
        trained on to the mode.
      noise: [K, S], the standard deviation of Gaussian noise; None of other likelihoods.
      rows: n.
      result: the sweep.
    """

    log_evidence: np.ndarray
    effective: dict[str, np.ndarray]
    parameters: dict[str, int]
    held: tuple[str, ...]
    decrement: np.ndarray
    noise: np.ndarray | None
    rows: int
    result: SweepResult

    @property
    def total(self) -> np.ndarray:
        """[K, S], the effective number of parameters of all leaves."""
        return sum(self.effective.values(), np.zeros(self.log_evidence.shape))

    def best(self) -> Choice:
        """The point of the largest log evidence, of the mean over seeds.

        Raises:
          ValueError: no point has a finite one.
        """
        coords = {name: np.asarray(v) for name, v in self.result.coords.items()}
        scores = Scores(-self.log_evidence[:, None] / self.rows, coords)
        if not scores.finite.any():
            raise ValueError(
                "evidence: no point has a finite log evidence: each has a lane that diverged or was given "
                "up, or a strength of 0. Give other strengths, or lower the learning rate."
            )
        taken = choose("min", scores)
        k, result = taken.index, self.result
        of = f"{self.total[k].mean():.4g} of {sum(self.parameters.values()):,} parameters effective"
        noise = "" if self.noise is None else f" and a noise of {self.noise[k].mean():.4g}"
        return Choice(
            "evidence", pick(result.points, k), _coords(result, k), float(scores.mean[k]),
            float(scores.stderr[k]), "negative log evidence per row", k,
            f"the maximum of the evidence over {int(scores.finite.sum())} points, with {of}{noise}",
            lane_steps(result), (*self._ends(taken.warnings), *self._warnings(k)),
        )  # fmt: skip

    def _ends(self, warnings: tuple[str, ...]) -> Iterator[str]:
        yield from warnings
        if warnings:
            yield "the evidence has no maximum inside of the grid; extend it."

    def _warnings(self, k: int) -> Iterator[str]:
        mean = self.log_evidence.mean(1)
        if none := int(np.isneginf(mean).sum()):
            yield f"a strength is 0 at {none} of {len(mean)} points, which have no prior and no evidence."
        with np.errstate(invalid="ignore"):
            later = mean + self.decrement.mean(1)
        at = int(np.argmax(np.where(np.isfinite(later), later, -np.inf)))
        if at != k:
            yield (
                f"trained on to its mode, {_text(self.result, at)} would have the larger evidence, to "
                f"second order: its lanes are {self.decrement[at].mean():.2g} short of it. Train longer."
            )

    def table(self) -> Table:
        """Each point's log evidence and effective numbers of parameters, means over seeds, and the best."""
        coords = list(self.result.coords)
        leaves = list(self.effective) if 1 < len(self.effective) <= 4 else []
        heads = [*coords, "log evidence", "short of mode", "effective", *leaves]
        columns = [
            self.log_evidence,
            self.decrement,
            self.total,
            *(self.effective[n] for n in leaves),
        ]
        rows, cells = [], []
        for k, at in enumerate(_coords(self.result, k) for k in range(len(self.log_evidence))):
            numbers = [float(column[k].mean()) for column in columns]
            rows.append(dict(zip(heads, [*at.values(), *numbers])))
            texts = [x if isinstance(x, str) else f"{x:.4g}" for x in at.values()]
            cells.append((*texts, f"{numbers[0]:.2f}", *(f"{x:.3g}" for x in numbers[1:])))
        notes, warnings = [], ()
        if np.isfinite(self.log_evidence.mean(1)).any():
            best = self.best()
            notes = [f"best: {_text(self.result, best.index or 0)}, {best.why}"]
            warnings = best.warnings
        if self.held:
            notes.append(f"at their values, without a prior: {', '.join(self.held[:6])}"
                         + ", …" * (len(self.held) > 6))  # fmt: skip
        many = f", means over {self.log_evidence.shape[1]} seeds" * (self.log_evidence.shape[1] > 1)
        title = f"evidence of {len(rows)} points from {self.rows} rows{many}"
        return Table(
            title, tuple(map(Column, heads)), tuple(rows), tuple(cells), tuple(notes), warnings
        )

    def __repr__(self) -> str:
        return str(self.table())


def _coords(result: SweepResult, k: int) -> dict[str, Any]:
    # The shortest decimal of the coordinate's own dtype.
    at = {name: np.asarray(v)[k] for name, v in result.coords.items()}
    return {n: str(x) if isinstance(x, str) else float(str(x)) for n, x in at.items()}


def _text(result: SweepResult, k: int) -> str:
    at = _coords(result, k).items()
    return ", ".join(f"{n}={x}" if isinstance(x, str) else f"{n}={x:.4g}" for n, x in at)


def evidence(
    outputs: Callable[[PyTree, Any], Array],
    result: SweepResult,
    data: tuple,
    *,
    likelihood: str = "categorical",
    noise: float | None = None,
    penalty: Callable[[Any], Penalty] | None = None,
    batch_size: int | None = None,
) -> Evidence:
    """The log evidence of every lane of a sweep that was trained on all rows; it trains nothing.

    The sweep is one with a single fold: `validation` are rows apart, such as test rows, which nothing is
    chosen by. Its loss is the mean negative log likelihood, and is compared with it. The determinant is
    taken in float64 whatever the parameters are.

    Args:
      outputs: (params, x) -> [n] or [n, m], the logits, predictions or logarithms of rates of rows, each of
        its own row alone.
      result: the sweep, with its parameters. Its penalties are quadratic: sums of `l2` and `l2_sp`, of any
        selectors, strengths and centres.
      data: (X, y), the rows it was trained on, as the loss got them.
      likelihood: "categorical", "gaussian", "bernoulli" or "poisson". A Gaussian loss may be the sum or the
        mean over outputs of squares or of their halves.
      noise: of a Gaussian, the standard deviation; by default the one that is best at each point.
      penalty: point -> R, where the point does not hold it; by default the sum of the penalties in it. It
        must be all that was added to the loss: no decay by the optimizer besides.
      batch_size: how many rows' Jacobians at a time; by default as many as fit.

    Returns:
      An `Evidence`; its `best()` is a `Choice`.

    Raises:
      ValueError: a penalty that is no diagonal quadratic, several folds, weights, a loss that is not the
        likelihood's, strengths that are all 0, or a determinant too large. TypeError: arguments of the
        wrong kind.

    >>> import jax, jax.numpy as jnp, optax, jaxreg as jr
    >>> x = jax.random.normal(jax.random.key(1), (60, 3))
    >>> y = x[:, 0] + 0.3 * jax.random.normal(jax.random.key(2), (60,))
    >>> train, test = (x[:40], y[:40]), (x[40:], y[40:])
    >>> outputs = lambda w, x: x @ w
    >>> def trainer(reg):
    ...     loss = lambda w, x, y: 0.5 * jnp.mean((outputs(w, x) - y) ** 2)
    ...     tx = optax.chain(jr.add_penalty_gradient(reg), optax.sgd(0.3))
    ...     return jr.Trainer(lambda key: jnp.zeros(3), loss, tx)
    >>> g = jr.grid(jr.l2, lam=[0.0001, 0.001, 0.01, 0.1])
    >>> result = jr.sweep(trainer, g, train, validation=test, steps=200, key=jax.random.key(0))
    >>> evidence(outputs, result, train, likelihood="gaussian").best().point
    l2(0.01)
    """
    check_functions("evidence", outputs, likelihood, penalty)
    check_result("evidence", result, penalty)
    check_lanes(result)
    noise = check_noise(likelihood, noise)
    x, y = pair("evidence", data)
    n = len(y)
    rows = check_batch("evidence", batch_size, n)
    stacks = [check_stack(outputs, s, x, y, likelihood) for s in stacks_of(result, penalty)]
    x, y = on_device("evidence", "data", (x, y))
    found = measured(Job(outputs, likelihood, noise, x, y, rows, result), stacks)
    noises = found.noise if likelihood == "gaussian" else None
    return Evidence(
        found.log_evidence, found.effective, found.parameters, found.held, found.decrement, noises, n,
        result,
    )  # fmt: skip
