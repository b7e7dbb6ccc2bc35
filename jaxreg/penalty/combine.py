"""The algebra of penalties: sums, multiples, restriction to leaves, another centre, and zero.

A combinator knows of its parts only what every `Penalty` promises, so it works for yours too. Sums
proper are in `sums`.
"""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxreg import _tree, select
from jaxreg._check import check_step, fitted, shown, upcast
from jaxreg._tree import PyTree
from jaxreg.penalty.base import Penalty, Quadratic
from jaxreg.penalty.sums import Sum
from jaxreg.value import static_field

__all__ = ["Around", "Of", "On", "Scaled", "Wrapper", "Zero", "add"]


def add(left: Penalty, right: Penalty) -> Penalty:
    """left + right, with sums flattened and Zero dropped."""
    parts = [p for term in (left, right) for p in _parts(term)]
    return Sum(tuple(parts)) if len(parts) > 1 else parts[0] if parts else Zero()


def _parts(penalty: Penalty) -> tuple[Penalty, ...]:
    if isinstance(penalty, Zero):
        return ()
    return penalty.parts if isinstance(penalty, Sum) else (penalty,)


class Zero(Penalty):
    """No penalty: value 0, and the prox is the identity.

    >>> Zero()({"w": jnp.ones(3)}).item()
    0.0
    """

    smooth, convex = True, True

    def __call__(self, params: PyTree) -> Array:
        del params
        return jnp.zeros(())

    def prox(self, params: PyTree, step: ArrayLike | PyTree) -> PyTree:
        del step
        return params

    def terms(self) -> tuple[Penalty, ...]:
        return ()

    def support(self, params: PyTree) -> list[bool]:
        return [False] * len(jax.tree.leaves(params))

    def min_norm_subgradient(self, params: PyTree, grad: PyTree) -> PyTree:
        del params
        return grad

    def lambda_max(self, grad_at_zero: PyTree) -> Array:
        del grad_at_zero
        return jnp.asarray(jnp.inf)

    def conjugate(self, dual: PyTree) -> Array:
        return _off_support(jax.tree.leaves(dual))

    def __repr__(self) -> str:
        return "Zero()"


class Wrapper(Penalty):
    """A combinator around one penalty, as smooth and as convex as that one."""

    @property
    def inner(self) -> Penalty:
        return self.penalty  # type: ignore[attr-defined]

    @property
    def smooth(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.inner.smooth

    @property
    def convex(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.inner.convex

    @property
    def even(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.inner.even

    @property
    def one_sided(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.inner.one_sided

    def support(self, params: PyTree) -> list[bool]:
        return self.inner.support(params)

    def strengths(self, leaf: PyTree | None = None) -> dict[str, Any]:
        return self.inner.strengths(leaf)

    def terms(self) -> tuple[Penalty, ...]:
        inner = self.inner.terms()
        if inner == (self.inner,):
            return (self,)
        return tuple(dataclasses.replace(self, penalty=term) for term in inner)  # pyright: ignore


class Scaled(Wrapper):
    """factor * penalty. The factor is a leaf, so one program serves every factor."""

    factor: ArrayLike
    penalty: Penalty

    def __call__(self, params: PyTree) -> Array:
        value = self.penalty(params)
        return jnp.asarray(self.factor, value.dtype) * value

    def prox(self, params: PyTree, step: ArrayLike | PyTree) -> PyTree:
        check_step("penalty", step)
        return self.penalty.prox(params, jax.tree.map(lambda s: s * self.factor, step))

    def strengths(self, leaf: PyTree | None = None) -> dict[str, Any]:
        inner = self.penalty.strengths(leaf)
        if "lam" not in inner:
            return {"factor": self.factor, **inner}
        return {**inner, "lam": jax.tree.map(lambda lam: self.factor * lam, inner["lam"])}

    def quadratic(self, params: PyTree) -> list[Quadratic] | None:
        inner = self.penalty.quadratic(params)
        return inner and [Quadratic(self.factor * q.mu, q.center) for q in inner]

    def min_norm_subgradient(self, params: PyTree, grad: PyTree) -> PyTree:
        # c * (g/c + dR) for c > 0; the guarded factor keeps c = 0 (no penalty) finite.
        c = jnp.asarray(self.factor)
        safe = jnp.where(c > 0, c, 1)
        inner = self.penalty.min_norm_subgradient(params, jax.tree.map(lambda g: g / safe, grad))
        return jax.tree.map(lambda r, g: jnp.where(c > 0, c * r, g).astype(g.dtype), inner, grad)

    def lambda_max(self, grad_at_zero: PyTree) -> Array:
        return self.penalty.lambda_max(grad_at_zero) / self.factor

    def conjugate(self, dual: PyTree) -> Array:
        # c * R*(d / c) for c > 0; at c = 0 there is no penalty.
        c = jnp.asarray(self.factor)
        scaled = jax.tree.map(lambda d: d / jnp.where(c > 0, c, 1), dual)
        nothing = _off_support(jax.tree.leaves(dual))
        return jnp.where(c > 0, c * self.penalty.conjugate(scaled), nothing)

    @property
    def label(self) -> str:
        return self.penalty.label

    def __repr__(self) -> str:
        inner = f"({self.penalty!r})" if isinstance(self.penalty, Sum) else repr(self.penalty)
        return f"{shown(self.factor)} * {inner}"


class On(Wrapper):
    """The penalty of the selected leaves alone. The selector is static."""

    penalty: Penalty
    where: select.Selector = static_field()

    def __call__(self, params: PyTree) -> Array:
        return self.penalty(_tree.partition(params, self.where.mask(params)))

    def prox(self, params: PyTree, step: ArrayLike | PyTree) -> PyTree:
        mask = self.where.mask(params)
        steps = _tree.prefix_leaves(step, params, "prox", "step")
        rebuild = _tree.flatten(params).rebuild
        selected = rebuild([s if keep else None for s, keep in zip(steps, mask)])
        return _tree.combine(
            self.penalty.prox(_tree.partition(params, mask), selected), params, mask
        )

    def support(self, params: PyTree) -> list[bool]:
        mask = self.where.mask(params)
        inner = iter(self.penalty.support(_tree.partition(params, mask)))
        return [keep and next(inner) for keep in mask]

    def quadratic(self, params: PyTree) -> list[Quadratic] | None:
        return self.penalty.quadratic(_tree.partition(params, self.where.mask(params)))

    def min_norm_subgradient(self, params: PyTree, grad: PyTree) -> PyTree:
        mask = self.where.mask(params)
        inner = self.penalty.min_norm_subgradient(
            _tree.partition(params, mask), _tree.partition(grad, mask)
        )
        return _tree.combine(inner, grad, mask)

    def lambda_max(self, grad_at_zero: PyTree) -> Array:
        return self.penalty.lambda_max(_tree.partition(grad_at_zero, self.where.mask(grad_at_zero)))

    def conjugate(self, dual: PyTree) -> Array:
        mask = self.where.mask(dual)
        rest = [d for d, keep in zip(jax.tree.leaves(dual), mask) if not keep]
        return self.penalty.conjugate(_tree.partition(dual, mask)) + _off_support(rest)

    @property
    def label(self) -> str:
        inner = self.penalty.label
        return f"{f'({inner})' if isinstance(self.penalty, Sum) else inner}.on({self.where!r})"

    def __repr__(self) -> str:
        inner = repr(self.penalty)
        return f"{f'({inner})' if _needs_brackets(self.penalty) else inner}.on({self.where!r})"


class Around(Wrapper):
    """The penalty of the distance to a centre: R(params - center)."""

    penalty: Penalty
    center: PyTree
    even, one_sided = False, False  # pyright: ignore

    def __call__(self, params: PyTree) -> Array:
        return self.penalty(self._moved(params))

    def prox(self, params: PyTree, step: ArrayLike | PyTree) -> PyTree:
        leaves, centers = _tree.flatten(params), self._centers(params)
        near = jax.tree.leaves(self.penalty.prox(self._moved(params), step))
        # What is not touched is handed back: there and back again would round it.
        touched = self.support(params)
        return leaves.rebuild(
            [
                (z + c).astype(jnp.result_type(x)) if hit else x
                for z, c, x, hit in zip(near, centers, leaves.values, touched)
            ]
        )

    def quadratic(self, params: PyTree) -> list[Quadratic] | None:
        inner = self.penalty.quadratic(params)
        if inner is None:
            return None
        centers = [c for c, hit in zip(self._centers(params), self.support(params)) if hit]
        return [Quadratic(q.mu, q.center + c) for q, c in zip(inner, centers)]

    def min_norm_subgradient(self, params: PyTree, grad: PyTree) -> PyTree:
        return self.penalty.min_norm_subgradient(self._moved(params), grad)

    def conjugate(self, dual: PyTree) -> Array:
        """R*(dual) + <dual, center>; off the support any dual but 0 makes R* infinite."""
        parts = zip(jax.tree.leaves(dual), self._centers(dual), self.support(dual))
        shift = [jnp.sum(upcast(d) * c) for d, c, touched in parts if touched]
        return functools.reduce(operator.add, shift, self.penalty.conjugate(dual))

    @property
    def label(self) -> str:
        return f"{self.penalty.label}.around(...)"

    def _centers(self, params: PyTree) -> list[Array]:
        """The centre of each leaf; 0 for those that it lacks and the penalty does not touch."""
        leaves, given = _tree.flatten(params), self.center
        if not jax.tree_util.all_leaves([given]):
            found = _tree.values_by_path(given, params, "around", "center")
            missed = [
                path
                for path, c, hit in zip(leaves.paths, found, self.support(params))
                if c is None and hit
            ]
            if missed:
                raise ValueError(
                    f"around: `center` has no leaf for {missed[0]!r}, which the penalty acts on. Give one, "
                    "or leave such leaves out with .on(...)."
                )
            given = leaves.rebuild([0.0 if c is None else c for c in found])
        centers = _tree.prefix_leaves(given, params, "around", "center")
        return [
            fitted(c, x, "around", "center", p)
            for c, x, p in zip(centers, leaves.values, leaves.paths)
        ]

    def _moved(self, params: PyTree) -> PyTree:
        leaves, centers = _tree.flatten(params), self._centers(params)
        return leaves.rebuild([upcast(x) - c for x, c in zip(leaves.values, centers)])

    def __repr__(self) -> str:
        inner = repr(self.penalty)
        inner = f"({inner})" if _needs_brackets(self.penalty) else inner
        return f"{inner}.around({shown(self.center)})"


class Of(Wrapper):
    """The penalty of a function of the parameters: R(function(params)). The function is static."""

    penalty: Penalty
    function: Callable[[PyTree], PyTree] = static_field()
    convex, even, one_sided = False, False, False  # pyright: ignore

    def __call__(self, params: PyTree) -> Array:
        return self.penalty(self.function(params))

    def prox(self, params: PyTree, step: ArrayLike | PyTree) -> PyTree:
        del params, step
        raise ValueError(
            f"{self.label}: there is no prox of a penalty of a function of the parameters: what is nearest "
            "in the function's values need not be the value of any parameters. Couple it by "
            "jaxreg.add_penalty_gradient or jaxreg.decoupled, or put it into the loss."
        )

    def support(self, params: PyTree) -> list[bool]:
        return [_tree.is_floating(x) for x in jax.tree.leaves(params)]

    def strengths(self, leaf: PyTree | None = None) -> dict[str, Any]:
        del leaf  # its strengths belong to what the function makes
        return self.penalty.strengths()

    def quadratic(self, params: PyTree) -> list[Quadratic] | None:
        del params
        return None

    def min_norm_subgradient(self, params: PyTree, grad: PyTree) -> PyTree:
        if not self.smooth:
            return Penalty.min_norm_subgradient(self, params, grad)
        leaves, slopes = _tree.flatten(params), jax.tree.leaves(grad)
        hit = self.support(params)

        def value(floating: list[Array]) -> Array:
            chosen = iter(floating)
            return self(
                leaves.rebuild([next(chosen) if k else x for k, x in zip(hit, leaves.values)])
            )

        own = iter(jax.grad(value)([x for x, k in zip(leaves.values, hit) if k]))
        return jax.tree.unflatten(
            jax.tree.structure(grad), [g + next(own).astype(g.dtype) for g in slopes]
        )

    def lambda_max(self, grad_at_zero: PyTree) -> Array:
        return Penalty.lambda_max(self, grad_at_zero)

    def conjugate(self, dual: PyTree) -> Array:
        return Penalty.conjugate(self, dual)

    @property
    def label(self) -> str:
        inner = self.penalty.label
        name = getattr(self.function, "__name__", type(self.function).__name__)
        return f"{f'({inner})' if isinstance(self.penalty, Sum) else inner}.of({name})"

    def __repr__(self) -> str:
        inner, name = repr(self.penalty), self.label.rpartition(".of(")[2]
        return f"{f'({inner})' if _needs_brackets(self.penalty) else inner}.of({name}"


def _off_support(leaves: Sequence[Array]) -> Array:
    """The conjugate of 0: 0 where all leaves are 0, and inf elsewhere."""
    moved = [jnp.any(jnp.asarray(d) != 0) for d in leaves]
    return jnp.where(functools.reduce(operator.or_, moved, jnp.zeros((), bool)), jnp.inf, 0.0)


def _needs_brackets(penalty: Penalty) -> bool:
    return isinstance(penalty, (Sum, Scaled))
