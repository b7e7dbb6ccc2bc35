"""The prox of a sum that has no closed form, by splitting it into terms that have one.

Write the solution of  min_z  sum_i R_i(z) + |z - x|^2 / (2 step)  as  z = x - sum_i p_i  with
p_i / step in dR_i(z): each term shifts x by its own p_i. Both methods start from p = 0 and repeat

    dykstra    z = x - sum_j p_j;  then term by term  v = z + p_i,  z = prox_i(v),  p_i = v - z
    consensus  c = x - sum_j p_j;  z_i = prox_i(c + p_i) for all terms at once,
               c' = (c + sum_i z_i) / (1 + their number),  p_i = p_i + c' - z_i

until the z_i agree. With sets for terms the first is Dykstra's projection onto their intersection;
the second is ADMM with one copy of z per term, rho = 1 / step, and -p_i for the scaled duals. Terms
on disjoint leaves share a prox, and so do all l2 terms.

Sources: Bauschke & Combettes, A Dykstra-like algorithm for two monotone operators (2008); for more
terms it is cyclic ascent on the dual: Tseng, Dual coordinate ascent methods (1993). Parikh & Boyd,
Proximal algorithms (2014), sections 5.2 and 7.1.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from jaxreg import _tree
from jaxreg._check import check_step, size, upcast
from jaxreg._tree import PyTree
from jaxreg.penalty import Penalty, Sum

__all__ = ["Solution", "prox_of_sum"]

# The touched leaves in the dtype of sums; one prox of a block of terms on them.
Leaves = list[Array]
Prox = Callable[[Leaves], Leaves]


class Solution(NamedTuple):
    """A prox found by iteration, and how far from exact it is.

    Attributes:
      params: the answer, with the structure and dtypes of the given params.
      residual: scalar in the units of the parameters, a backward error: `params` is the exact
        solution of a problem whose x and whose terms are moved by at most this much in any entry.
        So no set that is a term is farther than this, entry by entry. Rounding `params` to a dtype
        narrower than float32 comes on top.
      n_steps: how many rounds were made, each with one prox of every term.
      converged: whether `residual` came below the tolerance.
    """

    params: PyTree
    residual: Array
    n_steps: Array
    converged: Array


def prox_of_sum(
    penalty: Penalty,
    params: PyTree,
    step: ArrayLike | PyTree = 1.0,
    *,
    method: Literal["dykstra", "consensus"] = "dykstra",
    tol: ArrayLike = 1e-6,
    max_steps: int = 1000,
) -> Solution:
    """The prox of a convex sum, argmin_z sum_i R_i(z) + |z - params|^2 / (2 step), by iteration.

    For sums whose terms overlap, where `penalty.prox` refuses; it needs the exact prox of each term.
    "dykstra" takes the terms one after another and usually needs fewer rounds; "consensus" takes
    them at once. Either way the answer is the outcome of the last term's prox, so that
    its zeros or its constraint hold exactly and those of the other terms within `residual`.

    It jits, vmaps and compiles once for every strength, step, `tol` and `max_steps`. First
    derivatives by penalty, params and step, forward and backward, are those of the solution (implicit
    function theorem), as accurate as the iterate. A term whose own prox iterates, such as
    `trend_filter`, is exact to its own tolerance only, which `residual` does not know.

    Args:
      penalty: any sum of convex penalties; l2 terms and disjoint leaves are welcome.
      params: pytree of arrays, those that the penalty touches floating.
      step: scalar >= 0, or a prefix pytree of scalars or arrays where every term's prox allows it.
      method: which iteration.
      tol: stop when `residual` is at most this, times the largest entry of params or answer.
      max_steps: stop then in any case, and say so in `converged`.

    Returns:
      `Solution`: params, residual, n_steps, converged. Sets without a common point, and NaN, end
      with `converged` false.

    Raises:
      ValueError: a term is not convex or has no exact prox, or an argument is out of range.
      TypeError: `penalty` is none, or it touches a leaf that is not floating.

    >>> import jaxreg as jr
    >>> reg = jr.l1(0.5) + jr.box(-1.0, 1.0)
    >>> found = jr.prox_of_sum(reg, jnp.array([3.5, -0.75, 0.25]))
    >>> found.params.tolist(), bool(found.converged)
    ([1.0, -0.25, 0.0], True)
    """
    _check_call(penalty, method, max_steps)
    _tree.check_arrays("prox_of_sum", "params", params)
    if step is None:
        raise TypeError("prox_of_sum: `step` must be a number or a pytree of them, got None.")
    check_step("prox_of_sum", step)
    return _solve(penalty, params, step, size("prox_of_sum", "tol", tol), max_steps, method)


def _check_call(penalty: Any, method: str, max_steps: int) -> None:
    if not isinstance(penalty, Penalty):
        raise TypeError(
            f"prox_of_sum: `penalty` must be a penalty such as l1(0.1), got {penalty!r}."
        )
    if not isinstance(method, str) or method not in _ROUNDS:
        raise ValueError(f"prox_of_sum: `method` must be one of {sorted(_ROUNDS)}, got {method!r}.")
    if isinstance(max_steps, bool) or not isinstance(max_steps, int) or not 0 < max_steps < 2**31:
        raise ValueError(
            f"prox_of_sum: `max_steps` must be an integer between 1 and 2**31, got {max_steps!r}."
        )
    for term in penalty.terms():
        if not term.convex:
            raise ValueError(
                f"prox_of_sum: {term.label} is not convex, so neither method is sure to converge, and a "
                "point where it stops need not be a minimiser. Take a convex penalty in its place, "
                "or couple this one by add_penalty_gradient."
            )


@functools.partial(jax.jit, static_argnames="method")
def _solve(
    penalty: Penalty, params: PyTree, step: PyTree, tol: Array, max_steps: ArrayLike, method: str
) -> Solution:
    # The loop cannot be differentiated and need not be: its outcome is a root, and roots can.
    x, proxes, _ = _split(*lax.stop_gradient((penalty, params, step)))
    shifts, found = _iterate(_ROUNDS[method], proxes, x, tol, max_steps)
    x, proxes, put = _split(penalty, params, step)

    def change(shifts):
        # Both methods come to rest where a round of either changes nothing.
        after = _dykstra(proxes, x, shifts).after
        return [_minus(a, p) for a, p in zip(after, shifts)]

    tangents = functools.partial(_tangents, tol=tol, max_steps=max_steps)
    shifts = lax.custom_root(change, shifts, lambda _, root: root, tangents)
    # The value of the last prox, with its exact zeros, and the derivative of x - sum of the shifts.
    slope = _minus(x, *shifts)
    near = put(_plus(found.params, _minus(slope, lax.stop_gradient(slope))))
    return found._replace(params=jax.tree.map(lambda z, v: z.astype(v.dtype), near, params))


def _split(
    penalty: Penalty, params: PyTree, step: PyTree
) -> tuple[Leaves, list[Prox], Callable[[Leaves], PyTree]]:
    """The leaves to move, in the dtype of sums, the proxes on them, and what puts leaves back."""
    tree = _tree.flatten(params)
    # What is not floating stays where it is: the prox of a term that touches it raises.
    moving = [hit and _tree.is_floating(v) for hit, v in zip(penalty.support(params), tree.values)]

    def pick(values: list[Any]) -> list[Any]:
        return [v for v, moves in zip(values, moving) if moves]

    def put(leaves: Leaves) -> PyTree:
        new = iter(leaves)
        return tree.rebuild([next(new) if moves else v for v, moves in zip(tree.values, moving)])

    def prox(block: Penalty, leaves: Leaves) -> Leaves:
        return pick(jax.tree.leaves(block.prox(put(leaves), step)))

    x = [upcast(v) for v in pick(tree.values)]
    for term in penalty.terms():
        if term.support(params) != term.support(put(x)):
            raise ValueError(
                f"prox_of_sum: {term.label} selects leaves by their dtype, and the iteration widens them "
                "to float32. Select by path, or widen the parameters first."
            )
    return x, [functools.partial(prox, b) for b in _blocks(penalty, params)], put


def _blocks(penalty: Penalty, params: PyTree) -> list[Penalty]:
    """Terms that share an exact prox, as sums: all of l2 first, then those on disjoint leaves.

    On each leaf the terms keep their order, so that the last one's prox comes last.
    """
    terms = [(term, term.quadratic(params) is not None) for term in penalty.terms()]
    blocks = [[term for term, is_l2 in terms if is_l2]]
    depth = [1] * len(jax.tree.leaves(params))  # of each leaf: the block after all that touch it
    for term in (term for term, is_l2 in terms if not is_l2):
        hits = term.support(params)
        k = max((d for d, hit in zip(depth, hits) if hit), default=1)
        depth = [k + 1 if hit else d for d, hit in zip(depth, hits)]
        blocks.extend([[]] * (k == len(blocks)))
        blocks[k] = [*blocks[k], term]
    return [Sum(tuple(block)) for block in blocks if block]


class _Round(NamedTuple):
    """One round: where each prox went, the shift that each has there, and the shifts to go on from."""

    points: list[Leaves]
    shifts: list[Leaves]
    after: list[Leaves]


def _dykstra(proxes: Sequence[Prox], x: Leaves, shifts: list[Leaves]) -> _Round:
    z, points, after = _minus(x, *shifts), [], []
    for prox, p in zip(proxes, shifts):
        v = _plus(z, p)
        z = prox(v)
        points.append(z)
        after.append(_minus(v, z))
    return _Round(points, after, after)


def _consensus(proxes: Sequence[Prox], x: Leaves, shifts: list[Leaves]) -> _Round:
    center = _minus(x, *shifts)
    starts = [_plus(center, p) for p in shifts]
    points = [prox(v) for prox, v in zip(proxes, starts)]
    mean = [c / (1 + len(points)) for c in functools.reduce(_plus, points, center)]
    after = [_minus(_plus(p, mean), z) for p, z in zip(shifts, points)]
    return _Round(points, [_minus(v, z) for v, z in zip(starts, points)], after)


_ROUNDS = {"dykstra": _dykstra, "consensus": _consensus}


def _iterate(
    make: Callable[..., _Round], proxes: Sequence[Prox], x: Leaves, tol: Array, max_steps: ArrayLike
) -> tuple[list[Leaves], Solution]:
    """Rounds until the points agree: the shifts, and a solution whose `params` are leaves."""

    def advance(carry):
        shifts, found = carry
        made = make(proxes, x, shifts)
        near = made.points[-1] if proxes else x
        moved = _minus(_plus(near, *made.shifts), x)
        residual = _largest(moved, *[_minus(z, near) for z in made.points])
        converged = residual <= tol * _largest(x, near)
        return made.after, Solution(near, residual, found.n_steps + 1, converged)

    def unfinished(carry):
        _, found = carry
        # No further round mends NaN.
        return ~found.converged & ~jnp.isnan(found.residual) & (found.n_steps < max_steps)

    far = jnp.full_like(_largest(x), jnp.inf)
    start = Solution(x, far, jnp.zeros((), jnp.int32), jnp.zeros((), bool))
    zero = [[jnp.zeros_like(v) for v in x] for _ in proxes]
    return lax.while_loop(unfinished, advance, (zero, start))


def _tangents(
    change: Callable, right: list[Leaves], tol: Array, max_steps: ArrayLike
) -> list[Leaves]:
    """Solve change(w) = right by the rounds themselves, linearised; transposed in the same way."""

    def rounds(change, right):
        def step(carry):
            w, _, n = carry
            gap = [_minus(c, r) for c, r in zip(change(w), right)]
            return [_plus(a, g) for a, g in zip(w, gap)], _largest(*gap), n + 1

        def unfinished(carry):
            return (carry[1] > tol * size) & (carry[2] < max_steps)

        size = _largest(*right)
        zero = jax.tree.map(jnp.zeros_like, right)
        return lax.while_loop(unfinished, step, (zero, jnp.full_like(size, jnp.inf), 0))[0]

    return lax.custom_linear_solve(change, right, rounds, rounds)


def _plus(first: Leaves, *others: Leaves) -> Leaves:
    return [functools.reduce(operator.add, all_of_one) for all_of_one in zip(first, *others)]


def _minus(first: Leaves, *others: Leaves) -> Leaves:
    return [functools.reduce(operator.sub, all_of_one) for all_of_one in zip(first, *others)]


def _largest(*vectors: Leaves) -> Array:
    """The largest |entry| of all, and NaN if one is."""
    found = [jnp.max(jnp.abs(v), initial=0) for vector in vectors for v in vector]
    return functools.reduce(jnp.maximum, found, jnp.float32(0))
