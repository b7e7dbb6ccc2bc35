"""The trained lanes of a model that is linear in its parameters: where each stands, in float64 on the host.

With outputs f_i = A_i θ (+ what no parameter moves), a design A that all lanes share, the negative log
likelihood l of a row and the penalty R, a lane has trained

    J(θ) = s/n sum_i l(f_i, y_i) + R(θ),

s what the user's loss is of the likelihood's: 2 for a mean square without the half. On the directions that
R leaves free (`jaxreg.tune._dof`) the Hessian of the first part is M = s/n sum_i A_i' W_i A_i, where
W_i = L_i L_i' is the curvature of l by the outputs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree

from jaxreg import _tree
from jaxreg._check import shown
from jaxreg._tree import PyTree
from jaxreg.fit.kept import kept
from jaxreg.penalty import Penalty
from jaxreg.results import Status, SweepResult
from jaxreg.results.build import pick
from jaxreg.tune._asked import (
    check_functions,
    check_result,
    check_targets,
    outputs_of,
    pair,
    penalty_of,
    scale_of,
)
from jaxreg.tune._dof import Active, NotSmooth, active, whitener
from jaxreg.tune._likelihoods import LIKELIHOODS

__all__ = ["Lane", "Lanes", "lanes_of", "odd_text"]

_MOST = 50_000_000  # numbers of a design
_SAME = 1e-3  # of a loss or of the outputs, computed twice in float32


@functools.partial(jax.jit, static_argnums=0)
def _of_rows(name: str, f: Array, y: Array) -> tuple[Array, Array, Array]:
    """Of outputs [n, m]: the negative log likelihood [n], its gradient [n, m], and L [n, m, m]."""
    rule = LIKELIHOODS[name]
    return jax.vmap(rule.loss)(f, y), jax.vmap(jax.grad(rule.loss))(f, y), jax.vmap(rule.root)(f)


class Lane(NamedTuple):
    """A lane at its parameters; n rows of m outputs, d free directions.

    Attributes:
      outputs: [n, m].
      rows: [n, m, d], the design along the free directions.
      information: [d, d], M.
      free: the penalty there.
      pull: [d], the gradient of R along the free directions.
      dof: tr M (M + H)^+.
      short: by how much the log likelihood of all rows may still rise: how far from a minimum.
    """

    outputs: np.ndarray
    rows: np.ndarray
    information: np.ndarray
    free: Active
    pull: np.ndarray
    dof: float
    short: float


class Lanes(NamedTuple):
    """All lanes of a sweep, of K points and S seeds."""

    owner: str
    result: SweepResult
    likelihood: str
    design: np.ndarray  # [n, m, P]
    offset: np.ndarray  # [n, m]
    y: np.ndarray
    scale: float
    penalty: Callable[[PyTree], Penalty]
    tol: float

    @property
    def shape(self) -> tuple[int, int]:
        """K and S."""
        k, _, s = np.shape(self.result.status)
        return k, s

    @property
    def rest(self) -> float:
        """What the negative log likelihood leaves out, the mean over rows."""
        return float(LIKELIHOODS[self.likelihood].rest(self.y))

    def judged(self, f: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of outputs [n, m]: the negative log likelihood [n], its gradient [n, m], and L [n, m, m]."""
        with jax.enable_x64(True):
            return jax.tree.map(np.asarray, _of_rows(self.likelihood, jnp.asarray(f), self.y))

    def at(self, k: int, s: int) -> Lane | str:
        """A lane; or, in a sentence, why it is no candidate."""
        if np.asarray(self.result.status)[k, 0, s] == Status.DIVERGED:
            return "it diverged"
        if np.asarray(self.result.status)[k, 0, s] == Status.GIVEN_UP:
            return "it was given up"
        params = self.result.lane(k, 0, s)
        try:
            free = active(self.penalty(pick(self.result.points, k)), params)
        except NotSmooth as error:
            return str(error)
        n, m, _ = self.design.shape
        f = self.offset + self.design @ _flat(params)
        nll, slope, root = self.judged(f)
        rows = (free.basis.T @ self.design.reshape(n * m, -1).T).T.reshape(n, m, -1)
        seen = np.einsum("nma,nmd->nad", root, rows).reshape(n * m, -1)
        information = self.scale / n * seen.T @ seen
        white = whitener(information + free.curvature)
        if white is None:
            return "the penalty bends down there more than the loss bends up, so it is no minimum"
        grad = self.scale / n * np.einsum("nm,nmp->p", slope, self.design)
        gap = 0.5 * (white(free.basis.T @ (grad + free.slope)) ** 2).sum() + self._held(
            free, root, grad
        )
        loss = self.scale * nll.mean()
        unit = 2 * loss / m if self.likelihood == "gaussian" else self.scale
        short = n * gap / max(unit, 1e-300)
        if not short <= self.tol:
            return f"it is {short:.2g} in log likelihood from a minimum, and `tol` is {self.tol:g}"
        dof = self.scale / n * float((white(seen) ** 2).sum())
        return Lane(f, rows, information, free, free.basis.T @ free.slope, dof, short)

    def _held(self, free: Active, root: np.ndarray, grad: np.ndarray) -> float:
        """What letting go of kinks would gain, as where the loss pulls at a 0 harder than R holds it."""
        least = free.least(grad)
        if least is None:
            return 0.0
        least = least - free.basis @ (free.basis.T @ least)
        pulled = np.flatnonzero(np.abs(least) > 1e-9 * np.abs(grad).max(initial=0))
        seen = np.einsum("nma,nmp->nap", root, self.design[:, :, pulled])
        bend = self.scale / len(root) * (seen**2).sum((0, 1))
        return float((0.5 * least[pulled] ** 2 / np.maximum(bend, 1e-300)).sum())


def lanes_of(
    owner: str, outputs: Any, result: Any, data: Any, penalty: Any, likelihood: Any, tol: Any
) -> Lanes:
    """All that can be checked of a sweep of a linear model, and its design.

    Raises:
      ValueError: not one fold, other rows or another loss than were trained on, or a model that is not
        linear in its parameters. TypeError: an argument of the wrong kind.
    """
    check_functions(owner, outputs, likelihood, penalty)
    _check_tol(owner, tol)
    check_result(owner, result, penalty)
    x, y = pair(owner, data)
    first = result.lane(0)
    m = outputs_of(owner, outputs, first, x, len(y))
    check_targets(owner, likelihood, y, m)
    if likelihood != "categorical":
        y = np.asarray(y, np.float64).reshape(len(y), m)
    reg = functools.partial(penalty_of, owner, penalty)
    reg(pick(result.points, 0))
    many = len(y) * m * sum(np.size(v) for v in jax.tree.leaves(_trained(first)))
    if many > _MOST:
        raise ValueError(
            f"{owner}: rows x outputs x parameters must be at most {_MOST:,}, got {many:,.0f}. Use "
            "jaxreg.sweep with folds, which has no such limit."
        )
    with jax.default_matmul_precision("highest"):
        design, offset = _design(owner, outputs, result, x)
    lanes = Lanes(owner, result, likelihood, design, offset, y, 1.0, reg, float(tol))
    return lanes._replace(scale=_scale(lanes))


def _check_tol(owner: str, tol: Any) -> None:
    number = isinstance(tol, (int, float, np.floating)) and type(tol) is not bool
    if not number or not 0 < tol < np.inf:
        raise (ValueError if number else TypeError)(
            f"{owner}: `tol` must be a number above 0, of log likelihood, got {shown(tol)}."
        )


def _scale(lanes: Lanes) -> float:
    """s: the trained loss over the likelihood's, of all lanes that did not diverge.

    Raises:
      ValueError: it is none that is known.
    """
    told = np.asarray(lanes.result.scores("loss", "train"))[:, 0]
    status = np.asarray(lanes.result.status)[:, 0]
    ended = (status == Status.FINISHED) | (status == Status.STOPPED)
    if not (ended & np.isfinite(told)).any():
        raise ValueError(
            f"{lanes.owner}: `result` must have lanes that were trained to their end, with their training "
            "loss, got none. Lower the learning rate."
        )
    known = [(k, s) for k, s in np.argwhere(ended & np.isfinite(told))]
    told = np.array([told[k, s] for k, s in known])
    flat = [lanes.offset + lanes.design @ _flat(lanes.result.lane(k, 0, s)) for k, s in known]
    mean = np.array([lanes.judged(f)[0].mean() for f in flat])
    m = lanes.design.shape[1]
    return scale_of(lanes.owner, lanes.likelihood, told, mean, lanes.rest, m)


def odd_text(odd: np.ndarray) -> str:
    """Which lanes [K, S] are no candidates, and why; "" where all are."""
    out = np.argwhere(odd != "")
    if not len(out):
        return ""
    reasons = {odd[k, s]: k for k, s in out[::-1]}
    some = "; ".join(
        f"point {k}, as {why}" for why, k in sorted(reasons.items(), key=lambda x: x[1])[:3]
    )
    return (
        f"{len(out)} of {odd.size} lanes are no candidates: {some}"
        + "; ..." * (len(reasons) > 3)
        + "."
    )


# --- the design -------------------------------------------------------------------------------------------


def _trained(params: PyTree) -> PyTree:
    return _tree.partition(params, _tree.trained(params))


def _flat(params: PyTree) -> np.ndarray:
    leaves = jax.tree.leaves(_trained(params))
    return np.concatenate([np.asarray(x, np.float64).ravel() for x in leaves])


@kept
def _programs(outputs: Callable, forward: bool) -> tuple[Callable, Callable]:
    """The outputs, and their derivative by all trained parameters, as programs."""

    def flat(theta: Array, held: PyTree, x: PyTree) -> Array:
        params = _tree.released(held)
        mask = _tree.trained(params)
        back = ravel_pytree(_tree.partition(params, mask))[1]
        return outputs(_tree.combine(back(theta), params, mask), x)

    return jax.jit(flat), jax.jit((jax.jacfwd if forward else jax.jacrev)(flat))


def _design(
    owner: str, outputs: Callable, result: SweepResult, x: PyTree
) -> tuple[np.ndarray, np.ndarray]:
    """A [n, m, P] and what the outputs are without it [n, m].

    Raises:
      ValueError: the outputs are not linear in the parameters.
    """
    first = result.lane(0)
    held, x = _tree.held(first), jax.tree.map(_tree.placed, x)
    dtype = jnp.result_type(*jax.tree.leaves(_trained(first)))
    theta = _flat(first)
    zero = np.zeros_like(theta)
    rows = jax.tree.leaves(x)[0].shape[0]
    program, slope = _programs(outputs, theta.size <= 4 * rows)
    at = lambda theta: np.asarray(program(jnp.asarray(theta, dtype), held, x), np.float64)
    design = np.asarray(slope(jnp.asarray(zero, dtype), held, x), np.float64)
    offset = at(zero)
    k, s = np.shape(result.status)[0], np.shape(result.status)[2]
    lanes = [_flat(result.lane(i, 0, j)) for i in range(k) for j in range(s)]
    if len({x.size for x in lanes}) > 1:
        raise ValueError(
            f"{owner}: `result` must be of one model, got a joined one of several. Give each by itself."
        )
    wave = np.cos(np.arange(theta.size))  # of all parameters, also where every lane is at 0
    for place in [wave, -wave, *lanes]:
        if np.isfinite(place).all():
            want, got = at(place), offset + design @ place
            apart = np.abs(want - got).max() / max(np.abs(want).max(), 1e-30)
            if not apart <= _SAME:
                raise ValueError(
                    f"{owner}: `outputs` must be linear in the parameters, and got outputs that are "
                    f"{apart:.2g} of their size from linear. The degrees of freedom of other models are "
                    "not known; use jaxreg.sweep with folds."
                )
    n = len(offset)
    return design.reshape(n, -1, theta.size), offset.reshape(n, -1)
