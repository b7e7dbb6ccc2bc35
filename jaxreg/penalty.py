"""A penalty is a value: its strengths are leaves, its structure is static.

A `Penalty` is a frozen dataclass registered as a pytree. `jit` compiles once for every strength,
`vmap` over a penalty is a sweep, `grad` with respect to a penalty is a hypergradient. It knows its
value R(params) and its proximal operator

    prox_R(params, step) = argmin_z  R(z) + |z - params|^2 / (2 step)

side by side; what has no exact prox says so. Penalties add, scale, restrict to leaves and move to
another centre. This module holds that algebra; the catalogue is in `jaxreg.penalties`.
"""

from __future__ import annotations

import abc
import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple, dataclass_transform

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxreg import _tree, select
from jaxreg._check import at_least_float, check_step, fitted, shown, strength, upcast
from jaxreg._tree import PyTree

__all__ = ["Penalty", "Zero", "static_field"]


def static_field(**kwargs: Any) -> Any:
    """A dataclass field that is structure, not strength: hashable, and part of the jit cache key.

    >>> import jaxreg as jr
    >>> class Rows(jr.LeafPenalty):
    ...     lam: float
    ...     axis: int = static_field(default=0)
    ...     smooth, convex = False, True
    ...     def leaf_value(self, x):
    ...         return self.lam * jnp.sum(jnp.max(jnp.abs(x), self.axis))
    ...     def leaf_prox(self, x, step):
    ...         raise NotImplementedError("no prox")
    >>> jax.tree.leaves(Rows(0.5, axis=1))
    [0.5]
    """
    return dataclasses.field(metadata={"static": True}, **kwargs)


class Quadratic(NamedTuple):
    """What a pure l2 term is on one leaf: mu/2 * (x - center)^2, entry by entry."""

    mu: Any
    center: Any


@dataclass_transform(
    frozen_default=True, eq_default=False, field_specifiers=(static_field, dataclasses.field)
)
class Penalty(abc.ABC):
    """R(params): a scalar in the units of the loss, with its proximal operator.

    A subclass declares its fields and becomes a frozen dataclass and a pytree by itself: fields are
    strengths (leaves), those made by `static_field` are structure. `smooth` says whether R has a
    gradient everywhere, `convex` whether it is convex. To add your own penalty, subclass
    `Elementwise` or `LeafPenalty`, which do the pytrees, selection and dtypes.

    Never validate in `__post_init__`: jax rebuilds the object in every transformation, and a
    gradient with respect to a penalty is itself a penalty with "negative" strengths.
    """

    smooth: ClassVar[bool]
    convex: ClassVar[bool]
    # numpy scalars must leave `factor * penalty` to us instead of making an object array.
    __array_ufunc__: ClassVar[None] = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        dataclasses.dataclass(frozen=True, eq=False, repr=False)(cls)
        jax.tree_util.register_dataclass(cls)

    @abc.abstractmethod
    def __call__(self, params: PyTree) -> Array:
        """R(params), a scalar in the units of the loss, accumulated in float32 at least."""

    @abc.abstractmethod
    def prox(self, params: PyTree, step: ArrayLike | PyTree) -> PyTree:
        """argmin_z R(z) + |z - params|^2 / (2 step), with the structure and dtypes of `params`.

        Args:
          params: pytree of floating arrays.
          step: a scalar > 0, or a pytree like `params` (or a prefix of it) of scalars or arrays:
            then the metric is diagonal, with one step per coordinate.

        Raises:
          ValueError: this penalty has no exact prox; the message says what to do instead.
        """

    def terms(self) -> tuple[Penalty, ...]:
        """The summands, each a penalty of its own."""
        return (self,)

    def support(self, params: PyTree) -> list[bool]:
        """Which leaves it touches: one bool per leaf, in the order of `jax.tree.leaves`."""
        return [True] * len(jax.tree.leaves(params))

    def quadratic(self, params: PyTree) -> list[Quadratic] | None:
        """For a pure l2 term, its strength and centre on each leaf it touches; else None."""
        del params
        return None

    @property
    def label(self) -> str:
        """A short name without strengths, such as "l2.on(kernels)", the same for every lam."""
        return _label(self)

    def on(self, where: select.Selector | str | Callable[[str, Any], bool]) -> Penalty:
        """Restrict to the leaves that `where` selects: a selector, a glob or a predicate.

        >>> import jaxreg as jr
        >>> jr.l2(0.1).on(jr.kernels)({"w": jnp.ones(3), "b": jnp.ones(2)}).item()
        0.15...
        """
        return On(self, select.as_selector(where))

    def around(self, center: PyTree) -> Penalty:
        """Penalise the distance to `center` (a prefix of the parameters): R(params - center).

        >>> import jaxreg as jr
        >>> jr.l2(2.0).around(1.0)({"w": jnp.array([3.0])}).item()
        4.0
        """
        return Around(self, jax.tree.map(lambda c: jnp.asarray(c, dtype=at_least_float(c)), center))

    def __add__(self, other: Penalty) -> Penalty:
        if not isinstance(other, Penalty):
            return NotImplemented
        if isinstance(other, Zero):
            return self
        return Sum((*_parts(self), *_parts(other)))

    def __radd__(self, other: object) -> Penalty:
        # sum([...]) starts from the number 0.
        return self if isinstance(other, int) and other == 0 else NotImplemented

    def __mul__(self, factor: ArrayLike) -> Penalty:
        if isinstance(factor, Penalty):
            return NotImplemented
        return Scaled(strength("penalty *", "factor", factor), self)

    __rmul__ = __mul__

    def __repr__(self) -> str:
        given = [
            shown(getattr(self, f.name)) if i == 0 else f"{f.name}={shown(getattr(self, f.name))}"
            for i, f in enumerate(dataclasses.fields(self))  # pyright: ignore[reportArgumentType]
            if getattr(self, f.name) is not None
        ]
        return f"{snake_name(type(self))}({', '.join(given)})"


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

    def __add__(self, other: Penalty) -> Penalty:
        return other if isinstance(other, Penalty) else NotImplemented

    def __repr__(self) -> str:
        return "Zero()"


class _Wrapper(Penalty):
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

    def support(self, params: PyTree) -> list[bool]:
        return self.inner.support(params)

    def terms(self) -> tuple[Penalty, ...]:
        inner = self.inner.terms()
        if inner == (self.inner,):
            return (self,)
        return tuple(dataclasses.replace(self, penalty=term) for term in inner)  # pyright: ignore


class Scaled(_Wrapper):
    """factor * penalty. The factor is a leaf, so one program serves every factor."""

    factor: ArrayLike
    penalty: Penalty

    def __call__(self, params: PyTree) -> Array:
        value = self.penalty(params)
        return jnp.asarray(self.factor, value.dtype) * value

    def prox(self, params: PyTree, step: ArrayLike | PyTree) -> PyTree:
        check_step("penalty", step)
        return self.penalty.prox(params, jax.tree.map(lambda s: s * self.factor, step))

    def quadratic(self, params: PyTree) -> list[Quadratic] | None:
        inner = self.penalty.quadratic(params)
        return inner and [Quadratic(self.factor * q.mu, q.center) for q in inner]

    def __repr__(self) -> str:
        inner = f"({self.penalty!r})" if isinstance(self.penalty, Sum) else repr(self.penalty)
        return f"{shown(self.factor)} * {inner}"


class On(_Wrapper):
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

    def __repr__(self) -> str:
        inner = repr(self.penalty)
        return f"{f'({inner})' if _needs_brackets(self.penalty) else inner}.on({self.where!r})"


class Around(_Wrapper):
    """The penalty of the distance to a centre: R(params - center)."""

    penalty: Penalty
    center: PyTree

    def __call__(self, params: PyTree) -> Array:
        return self.penalty(self._moved(params))

    def prox(self, params: PyTree, step: ArrayLike | PyTree) -> PyTree:
        leaves, centers = _tree.flatten(params), self._centers(params)
        near = jax.tree.leaves(self.penalty.prox(self._moved(params), step))
        return leaves.rebuild(
            [(z + c).astype(x.dtype) for z, c, x in zip(near, centers, leaves.values)]
        )

    def quadratic(self, params: PyTree) -> list[Quadratic] | None:
        inner = self.penalty.quadratic(params)
        if inner is None:
            return None
        centers = [c for c, hit in zip(self._centers(params), self.support(params)) if hit]
        return [Quadratic(q.mu, q.center + c) for q, c in zip(inner, centers)]

    def _centers(self, params: PyTree) -> list[Array]:
        leaves = _tree.flatten(params)
        given = _tree.prefix_leaves(self.center, params, "around", "center")
        return [
            fitted(c, x, "around", "center", p)
            for c, x, p in zip(given, leaves.values, leaves.paths)
        ]

    def _moved(self, params: PyTree) -> PyTree:
        leaves, centers = _tree.flatten(params), self._centers(params)
        return leaves.rebuild([upcast(x) - c for x, c in zip(leaves.values, centers)])

    def __repr__(self) -> str:
        inner = repr(self.penalty)
        inner = f"({inner})" if _needs_brackets(self.penalty) else inner
        return f"{inner}.around({shown(self.center)})"


class Sum(Penalty):
    """R_1 + R_2 + ...; its prox is exact in two cases and refused in the others.

    Exact are terms on disjoint leaves, and any number of l2 terms beside one other, by
    prox_{h + mu/2 |. - c|^2}(x, s) = prox_h((x + s mu c) / (1 + s mu), s / (1 + s mu)).
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
        return sum(values[1:], values[0])

    def prox(self, params: PyTree, step: ArrayLike | PyTree) -> PyTree:
        leaves = _tree.flatten(params)
        steps = _tree.prefix_leaves(check_step("penalty", step), params, "prox", "step")
        quadratics, others = self._split(params)
        self._refuse_overlap(params, leaves.paths, others)
        values = [
            upcast(x) if q is not None or _tree.is_floating(x) else x
            for x, q in zip(leaves.values, quadratics)
        ]
        for i, q in enumerate(quadratics):
            if q is not None:
                grow = 1 + steps[i] * q.mu
                values[i] = (values[i] + steps[i] * q.mu * q.center) / grow
                steps[i] = steps[i] / grow
        params_now = leaves.rebuild(values)
        for term in others:
            params_now = term.prox(params_now, leaves.rebuild(steps))
        moved = jax.tree.leaves(params_now)
        return leaves.rebuild(
            [z.astype(x.dtype) if _tree.is_floating(x) else x for z, x in zip(moved, leaves.values)]
        )

    def _split(self, params: PyTree) -> tuple[list[Quadratic | None], list[Penalty]]:
        """All l2 terms merged into one Quadratic per leaf, and the terms that are not l2."""
        merged: list[Quadratic | None] = [None] * len(jax.tree.leaves(params))
        others = []
        for term in self.terms():
            mine = term.quadratic(params)
            if mine is None:
                others.append(term)
                continue
            hit = [i for i, touched in enumerate(term.support(params)) if touched]
            for i, q in zip(hit, mine):
                merged[i] = _add_quadratics(merged[i], q)
        return merged, others

    def _refuse_overlap(
        self, params: PyTree, paths: Sequence[str], others: Sequence[Penalty]
    ) -> None:
        owner: dict[int, Penalty] = {}
        for term in others:
            for i, touched in enumerate(term.support(params)):
                if touched and i in owner:
                    raise ValueError(
                        f"prox of a sum: {owner[i].label} and {term.label} both act on the leaf "
                        f"{paths[i]!r}, and the prox of such a sum has no closed form. Give them "
                        "disjoint leaves with .on(...), use a penalty that has both built in (such "
                        "as elastic_net), or couple one of them by add_penalty_gradient."
                    )
                if touched:
                    owner[i] = term

    def terms(self) -> tuple[Penalty, ...]:
        return tuple(term for part in self.parts for term in part.terms())

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


def _parts(penalty: Penalty) -> tuple[Penalty, ...]:
    return penalty.parts if isinstance(penalty, Sum) else (penalty,)


def snake_name(cls: type) -> str:
    """The field's name of a penalty class: ElasticNet -> elastic_net."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()


def _label(penalty: Penalty) -> str:
    if isinstance(penalty, Sum):
        return " + ".join(_label(p) for p in penalty.parts)
    if isinstance(penalty, Scaled):
        return _label(penalty.penalty)
    if isinstance(penalty, Around):
        return f"{_label(penalty.penalty)}.around(...)"
    if isinstance(penalty, On):
        inner = _label(penalty.penalty)
        return (
            f"{f'({inner})' if isinstance(penalty.penalty, Sum) else inner}.on({penalty.where!r})"
        )
    return snake_name(type(penalty))


def _needs_brackets(penalty: Penalty) -> bool:
    return isinstance(penalty, (Sum, Scaled))
