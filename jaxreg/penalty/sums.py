"""Sums of penalties. A prox of a sum is no sum: it is exact in the cases named at `Sum`, else refused."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from typing import NoReturn

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxreg import _tree
from jaxreg._check import check_step, fitted, upcast
from jaxreg._tree import PyTree
from jaxreg.penalty.base import Penalty, Quadratic

__all__ = ["Sum", "held_above_zero"]


class Sum(Penalty):
    """R_1 + R_2 + ...; its prox is exact in three cases and refused in the others.

    Exact are terms on disjoint leaves; any number of l2 terms beside one other, by
    prox_{h + mu/2 |. - c|^2}(x, s) = prox_h((x + s mu c) / (1 + s mu), s / (1 + s mu)); and beside
    them `nonneg()` where h is separable and even, since h + {x >= 0} has the prox prox_h(max(x, 0), s).
    """

    parts: tuple[Penalty, ...]

    @property
    def smooth(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return all(p.smooth for p in self.parts)

    @property
    def convex(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return all(p.convex for p in self.parts)

    def __call__(self, params: PyTree) -> Array:
        values = [p(params) for p in self.parts]
        return functools.reduce(operator.add, values)

    def prox(self, params: PyTree, step: ArrayLike | PyTree) -> PyTree:
        leaves = _tree.flatten(params)
        steps = _tree.prefix_leaves(check_step("penalty", step), params, "prox", "step")
        quadratics, others = self._split(params)
        self._refuse_overlap(params, leaves.paths, others)
        values = list(leaves.values)
        for i, q in enumerate(quadratics):
            if q is not None:
                s = fitted(steps[i], values[i], "prox", "step", leaves.paths[i])
                pull = s * q.mu
                grow = 1 + pull
                share = jnp.where(jnp.isinf(pull), 1, pull / grow)
                values[i] = upcast(values[i]) / grow + share * q.center
                # Not 0, or another term's infinite strength would make it NaN.
                least = jnp.finfo(grow.dtype).tiny
                steps[i] = jnp.where(jnp.isinf(pull), least, s / grow)
        for i, bounded in enumerate(self._bounded(params, others)):
            values[i] = jnp.maximum(values[i], 0) if bounded else values[i]
        params_now = leaves.rebuild(values)
        for term in others:
            params_now = term.prox(params_now, leaves.rebuild(steps))
        moved = jax.tree.leaves(params_now)
        return leaves.rebuild(
            [
                z.astype(jnp.result_type(x)) if _tree.is_floating(x) else x
                for z, x in zip(moved, leaves.values)
            ]
        )

    def _split(self, params: PyTree) -> tuple[list[Quadratic | None], list[Penalty]]:
        """All l2 terms merged into one Quadratic per leaf, and the terms that are not l2."""
        merged: list[Quadratic | None] = [None] * len(jax.tree.leaves(params))
        others = []
        for term in self.terms():
            mine = term.quadratic(params)
            if mine is None:
                others += [] if term.one_sided else [term]
                continue
            hit = [i for i, touched in enumerate(term.support(params)) if touched]
            for i, q in zip(hit, mine):
                merged[i] = _add_quadratics(merged[i], q)
        return merged, others

    def _bounded(self, params: PyTree, others: Sequence[Penalty]) -> list[bool]:
        """Which leaves must be >= 0; refused where another term there is not separable and even."""
        sided = [term for term in self.terms() if term.one_sided]
        bounded = [any(hits) for hits in zip(*(t.support(params) for t in sided))]
        bounded = bounded or [False] * len(jax.tree.leaves(params))
        paths = _tree.flatten(params).paths
        for term in (t for t in others if not t.even):
            for path, hit, below in zip(paths, term.support(params), bounded):
                if hit and below:
                    self._refuse(sided[0], term, path, "prox")
        return bounded

    def _refuse_overlap(
        self, params: PyTree, paths: Sequence[str], others: Sequence[Penalty], what: str = "prox"
    ) -> None:
        owner: dict[int, Penalty] = {}
        for term in others:
            for i, touched in enumerate(term.support(params)):
                if touched and i in owner:
                    self._refuse(owner[i], term, paths[i], what)
                if touched:
                    owner[i] = term

    def _refuse(self, one: Penalty, other: Penalty, path: str, what: str) -> NoReturn:
        iterate = (
            ", or call jaxreg.prox_of_sum(penalty, params, step, method='dykstra'), which iterates"
        )
        raise ValueError(
            f"{what} of a sum: {one.label} and {other.label} both act on the leaf {path!r}, and the "
            f"{what} of such a sum has no closed form. Give them disjoint leaves with .on(...), use a "
            "penalty that has both built in (such as elastic_net), or couple one of them by "
            f"add_penalty_gradient{iterate if what == 'prox' else ''}."
        )

    def min_norm_subgradient(self, params: PyTree, grad: PyTree) -> PyTree:
        """Smooth terms add their gradient; kinks are exact on disjoint leaves, refused otherwise."""
        kinks = [term for term in self.terms() if not (term.smooth or term.one_sided)]
        self._refuse_overlap(params, _tree.flatten(params).paths, kinks, "subdifferential")
        bounded = self._bounded(params, kinks)
        for term in self.terms():
            if term.smooth:
                grad = term.min_norm_subgradient(params, grad)
        for term in kinks:
            grad = term.min_norm_subgradient(params, grad)
        leaves = _tree.flatten(grad)
        held = [
            held_above_zero(r, x) if below else r
            for r, x, below in zip(leaves.values, jax.tree.leaves(params), bounded)
        ]
        return leaves.rebuild(held)

    def terms(self) -> tuple[Penalty, ...]:
        return tuple(term for part in self.parts for term in part.terms())

    @property
    def label(self) -> str:
        return " + ".join(p.label for p in self.parts)

    def support(self, params: PyTree) -> list[bool]:
        return [any(hits) for hits in zip(*(p.support(params) for p in self.parts))]

    def __repr__(self) -> str:
        return " + ".join(repr(p) for p in self.parts)


def _add_quadratics(a: Quadratic | None, b: Quadratic) -> Quadratic:
    """mu_a/2 (x - c_a)^2 + mu_b/2 (x - c_b)^2, up to a constant, as one quadratic."""
    if a is None:
        return b
    mu = a.mu + b.mu
    pull = a.mu * a.center + b.mu * b.center
    return Quadratic(mu, pull / jnp.where(mu > 0, mu, 1))


def held_above_zero(rest: Array, x: Array) -> Array:
    """`rest` beside the constraint x >= 0: at 0 it absorbs any upward push, below 0 it is infinite."""
    held = jnp.where(x == 0, jnp.minimum(rest, 0), rest)
    return jnp.where(x < 0, jnp.inf, held).astype(rest.dtype)
