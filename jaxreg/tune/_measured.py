"""The log evidence of every lane of a sweep, as numbers.

The loss that was trained must be the likelihood's, up to what the posterior does not feel: a factor a,
which divides the penalty, and a constant. With n J = n (D + R / a), D at unit noise, Gaussian noise σ makes
the log evidence -(n m)/2 log(2π σ²) - n J / σ² - 1/2 log det, largest at σ² = 2 n J / (n m).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jax import Array

from jaxreg import _tree
from jaxreg._tree import PyTree
from jaxreg.fit.trainer import parts_of
from jaxreg.results import SweepResult
from jaxreg.tune import _laplace
from jaxreg.tune._asked import scale_of
from jaxreg.tune._evidence import Stack, healthy, no_quadratic
from jaxreg.tune._laplace import Plan
from jaxreg.tune._likelihoods import LIKELIHOODS
from jaxreg.tune._quadratic import prior as prior_of

__all__ = ["Job", "Measured", "measured"]

_ALIKE = 1e-3


class Job(NamedTuple):
    """What is asked, and of which rows."""

    outputs: Callable
    likelihood: str
    noise: float | None
    x: PyTree
    y: Array
    rows: int | None
    result: SweepResult

    @property
    def n(self) -> int:
        return len(self.y)

    def losses(self, stacks: list[Stack]) -> tuple[np.ndarray, dict[tuple[int, int], list]]:
        """The mean loss of every lane [K, S], NaN where it did not end; and its gradient by the leaves.

        Raises:
          ValueError: outputs of a row depend on other rows.
        """
        alive = healthy(self.result)[:, 0]
        run = _laplace.fitted(self.outputs, self.likelihood)
        loss, grads = np.full(alive.shape, np.nan), {}
        for stack in stacks:
            for k, s in stack.lanes(alive):
                found = run(stack.lane(k, s), self.x, self.y)
                loss[stack.first + k, s] = found.loss
                grads[stack.first + k, s] = found.grad
                if not float(found.apart) <= _ALIKE:
                    raise ValueError(
                        "evidence: `outputs` must give each row the same outputs alone as among the "
                        f"others, got a difference of {float(found.apart):.2g}. Give the function of "
                        "evaluation, without statistics of the batch or noise."
                    )
        return loss, grads


class Measured(NamedTuple):
    """See `Evidence`; arrays are [K, S]."""

    log_evidence: np.ndarray
    decrement: np.ndarray
    noise: np.ndarray
    effective: dict[str, np.ndarray]
    parameters: dict[str, int]
    held: tuple[str, ...]


def measured(job: Job, stacks: list[Stack]) -> Measured:
    """Every lane that was trained to its end; NaN for the others.

    Raises:
      ValueError: see `evidence`.
    """
    loss, grads = job.losses(stacks)
    rest, alive = LIKELIHOODS[job.likelihood].rest(np.asarray(job.y)), np.isfinite(loss)
    trained = job.result.scores("loss", "train")[:, 0]
    scale = scale_of(
        "evidence", job.likelihood, trained[alive], loss[alive], rest, stacks[0].m,
        noise=job.noise,
    )  # fmt: skip
    loss += rest
    unknown = lambda: np.full(loss.shape, np.nan)
    found = Measured(unknown(), unknown(), unknown(), {}, {}, ())
    held: dict[str, None] = {}
    for stack in stacks:
        paths, prior, counts, improper = _priors(stack)
        for i, count in counts.items():
            found.parameters[paths[i]] = max(count, found.parameters.get(paths[i], 0))
        held |= dict.fromkeys(path for i, path in enumerate(paths) if i not in counts)
        plan = Plan.of(stack.sizes(counts), job.n, stack.m, job.rows)
        for k, s in stack.lanes(healthy(job.result)[:, 0]):
            at = stack.first + k, s
            if improper[k]:
                found.log_evidence[at] = -np.inf
                continue
            lane = stack.lane(k, s), grads[at], prior(k), scale
            volume = _laplace.volume(job.outputs, job.likelihood, plan, job.x, *lane)
            numbers = _log_evidence(job, float(loss[at]), volume, scale, stack.m)
            for array, number in zip((found.log_evidence, found.decrement, found.noise), numbers):
                array[at] = number
            for i, number in zip(plan.order, np.asarray(volume.effective)):
                found.effective.setdefault(paths[i], unknown())[at] = number
    return found._replace(held=tuple(held))


def _priors(stack: Stack) -> tuple[tuple[str, ...], Callable, dict[int, int], np.ndarray]:
    """Paths of trained leaves, the prior of a point, entries held by leaf, and which points are improper.

    Raises:
      ValueError: a term is no quadratic, or every strength is 0.
    """
    params = stack.lane(0, 0)
    prior = lambda k: prior_of(stack.terms(k), params)
    masks: list[list[np.ndarray]] = []
    for k in range(stack.size):
        found = prior(k)
        for term, odd in zip(stack.terms(k), np.asarray(found.odd)):
            if odd:
                raise no_quadratic(term)
        masks.append([np.asarray(a) > 0 for a in found.lam])
    every = [functools.reduce(np.logical_or, leaf) for leaf in zip(*masks)]
    counts = {i: int(leaf.sum()) for i, leaf in enumerate(every) if leaf.any()}
    if not counts:
        raise ValueError(
            "evidence: the strength of every penalty in `result` is 0 at every point, so there is no prior "
            "and no evidence. Give strengths above 0."
        )
    improper = np.array([any((a != b).any() for a, b in zip(mask, every)) for mask in masks])
    return _tree.flatten(parts_of(params)[0]).paths, prior, counts, improper


def _log_evidence(
    job: Job, loss: float, found: _laplace.Volume, scale: float, m: int
) -> tuple[float, float, float]:
    """log Z, by how much it would rise at the mode, and the noise.

    Raises:
      ValueError: the noise that is best is 0.
    """
    n, gain = job.n, float(found.gain)
    total, half = n * (loss + float(found.penalty) / scale), 0.5 * float(found.log_det)
    if job.likelihood != "gaussian":
        return -total - half, gain / 2, np.nan
    count = n * m
    if job.noise is not None:
        square = job.noise**2
        value = -0.5 * count * np.log(2 * np.pi * square) - total / square - half
        return value, gain / 2 / square, job.noise
    square = 2 * total / count
    if not square > np.finfo(np.float32).tiny:
        raise ValueError(
            "evidence: with `noise` to be learnt it has no maximum: the outputs are the targets and the "
            "penalty is 0, so it rises without bound as the noise goes to 0. Give `noise`."
        )
    rise = -0.5 * count * np.log(max(1 - gain / (2 * total), np.finfo(float).tiny))
    return -0.5 * count * (1 + np.log(2 * np.pi * square)) - half, rise, np.sqrt(square)
