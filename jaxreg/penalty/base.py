"""A penalty is a value: its strengths are leaves, its structure is static.

A `Penalty` is a frozen dataclass registered as a pytree. `jit` compiles once for every strength,
`vmap` over a penalty is a sweep, `grad` with respect to a penalty is a hypergradient. It knows its
value R(params) and its proximal operator

    prox_R(params, step) = argmin_z  R(z) + |z - params|^2 / (2 step)

side by side; what has no exact prox says so. Penalties add, scale, restrict to leaves and move to
another centre: that algebra is in `combine`, the catalogue in `jaxreg.penalties`.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
import html
import operator
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxreg import select
from jaxreg._check import number, shown, strength, upcast
from jaxreg._tree import PyTree
from jaxreg.value import Value

__all__ = ["Penalty", "Quadratic"]


class Quadratic(NamedTuple):
    """What a pure l2 term is on one leaf: mu/2 * (x - center)^2, entry by entry."""

    mu: Any
    center: Any


class Penalty(Value, abc.ABC):
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
    # Separable, even, and rising in |x|: a bound at 0 from below then only cuts its prox.
    even: ClassVar[bool] = False
    # The constraint params >= 0 and nothing else.
    one_sided: ClassVar[bool] = False
    # numpy scalars must leave `factor * penalty` to us instead of making an object array.
    __array_ufunc__: ClassVar[None] = None

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

    def min_norm_subgradient(self, params: PyTree, grad: PyTree) -> PyTree:
        """The least-norm element of grad + dR(params), d the subdifferential; like `params`.

        With `grad` the gradient of the loss it is the steepest descent direction of J = L + R up to
        sign, and 0 exactly where params is stationary. Limiting subdifferential where R is not
        convex.

        Raises:
          ValueError: this penalty has no closed form for it.
        """
        del params, grad
        raise ValueError(f"{self.label}: the subdifferential has no closed form here.")

    def subdiff_distance(self, params: PyTree, grad: PyTree) -> Array:
        """How far -grad is from the subdifferential of R at params: the optimality certificate.

        Args:
          params: where to look.
          grad: gradient of the data loss there, like `params`.

        Returns:
          Scalar >= 0 in the units of the gradient; 0 exactly at stationary points of L + R.

        >>> import jaxreg as jr
        >>> w, grad = jnp.array([0.0, 1.0]), jnp.array([0.3, -0.5])
        >>> jr.l1(0.5).subdiff_distance(w, grad).item()  # solves the lasso
        0.0
        """
        parts = jax.tree.leaves(self.min_norm_subgradient(params, grad))
        return jnp.sqrt(functools.reduce(operator.add, [_sum_squares(r) for r in parts]))

    def lambda_max(self, grad_at_zero: PyTree) -> Array:
        """The smallest `lam` for which 0 is stationary, from the loss's gradient at 0.

        A scalar `lam` is replaced; strengths that differ by layer or coordinate count as relative to
        each other, and the result multiplies them. inf where no strength makes 0 a solution. For
        penalties that are not convex 0 is then a stationary point and need not be a minimiser.

        Raises:
          ValueError: this penalty has no closed form for it.

        >>> import jaxreg as jr
        >>> jr.l1(1.0).lambda_max(jnp.array([0.3, -0.5])).item()
        0.5
        """
        del grad_at_zero
        raise ValueError(f"{self.label}: lambda_max has no closed form here.")

    def conjugate(self, dual: PyTree) -> Array:
        """R*(dual) = sup_z <z, dual> - R(z), a scalar; 0 or inf for norms.

        Raises:
          ValueError: the conjugate has no closed form.
        """
        del dual
        raise ValueError(f"{self.label}: the conjugate has no closed form here.")

    def prox_conjugate(self, dual: PyTree, step: ArrayLike) -> PyTree:
        """The prox of R* by Moreau's identity: dual - step * prox_R(dual / step, 1 / step).

        Source: Parikh & Boyd (2014), eq. 2.4. `step` is a scalar > 0; R must be convex.
        """
        inner = self.prox(jax.tree.map(lambda d: d / step, dual), 1 / step)
        return jax.tree.map(lambda d, z: (d - step * z).astype(d.dtype), dual, inner)

    def moreau_envelope(self, params: PyTree, step: ArrayLike) -> Array:
        """min_z R(z) + |z - params|^2 / (2 step): R smoothed at the scale `step`, a scalar.

        Source: Parikh & Boyd (2014), section 3.1. For l1 it is Huber's function.
        """
        near = self.prox(params, step)
        gaps = jax.tree.map(lambda z, x: _sum_squares(upcast(z) - upcast(x)), near, params)
        return self(near) + functools.reduce(operator.add, jax.tree.leaves(gaps)) / (2 * step)

    def terms(self) -> tuple[Penalty, ...]:
        """The summands, each a penalty of its own."""
        return (self,)

    def strengths(self, leaf: PyTree | None = None) -> dict[str, Any]:
        """What can be swept of this term, by name: `lam` first, with the factors of multiples in it.

        Args:
          leaf: parameters with one leaf; then the strengths are those on it, out of prefixes.

        >>> import jaxreg as jr
        >>> (2 * jr.elastic_net(0.1, 0.5).on(jr.kernels)).strengths()
        {'lam': Array(0.2, dtype=float32), 'l1_ratio': Array(0.5, dtype=float32)}
        """
        del leaf
        return self.numbers()

    def map_field(self, name: str, function: Callable[[Any], Any]) -> Penalty:
        """The same penalty with `function` of the field `name` instead of it, in all its parts.

        Parts without such a field stay as they are.

        Raises:
          TypeError: `name` is no text, or `function` no function.

        >>> import jaxreg as jr
        >>> (jr.l1(0.1) + 2 * jr.l2(0.5).on("w")).map_field("lam", lambda lam: 0 * lam)
        l1(0) + 2 * l2(0).on(path('w'))
        """
        if not isinstance(name, str):
            raise TypeError(f"map_field: `name` must be the name of a field, got {name!r}.")
        if not callable(function):
            raise TypeError(f"map_field: `function` must be a function, got {function!r}.")
        changes: dict[str, Any] = {}
        for field in dataclasses.fields(self):  # pyright: ignore[reportArgumentType]
            value = getattr(self, field.name)
            if field.name == name:
                changes[name] = function(value)
            elif isinstance(value, Penalty):
                changes[field.name] = value.map_field(name, function)
            elif isinstance(value, tuple) and any(isinstance(v, Penalty) for v in value):
                changes[field.name] = tuple(v.map_field(name, function) for v in value)
        return dataclasses.replace(self, **changes) if changes else self  # pyright: ignore

    def support(self, params: PyTree) -> list[bool]:
        """Which leaves it touches: one bool per leaf, in the order of `jax.tree.leaves`."""
        return [True] * len(jax.tree.leaves(params))

    def quadratic(self, params: PyTree) -> list[Quadratic] | None:
        """For a pure l2 term, its strength and centre on each leaf it touches; else None."""
        del params
        return None

    def on(self, where: select.Selector | str | Callable[[str, Any], bool]) -> Penalty:
        """Restrict to the leaves that `where` selects: a selector, a glob or a predicate.

        >>> import jaxreg as jr
        >>> jr.l2(0.1).on(jr.kernels)({"w": jnp.ones(3), "b": jnp.ones(2)}).item()
        0.15...
        """
        from jaxreg.penalty.combine import On

        return On(self, select.as_selector(where))

    def around(self, center: PyTree) -> Penalty:
        """Penalize the distance to `center` (a prefix of the parameters): R(params - center).

        >>> import jaxreg as jr
        >>> jr.l2(2.0).around(1.0)({"w": jnp.array([3.0])}).item()
        4.0
        """
        from jaxreg.penalty.combine import Around

        return Around(self, jax.tree.map(lambda c: number("around", "center", c), center))

    def of(self, function: Callable[[PyTree], PyTree]) -> Penalty:
        """Penalize a function of the parameters: R(function(params)).

        For merged low-rank factors, products, tied or reparametrised weights. Value and gradient are those
        of the whole; there is no prox. Strengths and selectors of this penalty see what the function makes;
        `.on` after `.of` is of the parameters.

        Args:
          function: params -> pytree, pure; programs are found by it, so define it once.

        Raises:
          TypeError: it is no function.

        >>> import jaxreg as jr
        >>> merged = lambda p: p["a"] @ p["b"]
        >>> reg = jr.l2(2.0).of(merged)
        >>> reg({"a": jnp.array([[1.0], [2.0]]), "b": jnp.array([[3.0]])}).item()  # 3^2 + 6^2
        45.0
        """
        from jaxreg.penalty.combine import Of

        if not callable(function) or isinstance(function, Penalty):
            raise TypeError(
                f"of: `function` must be a function of the parameters, got {type(function).__name__}."
            )
        return Of(self, function)

    def __add__(self, other: Penalty) -> Penalty:
        from jaxreg.penalty.combine import add

        return add(self, other) if isinstance(other, Penalty) else NotImplemented

    def __radd__(self, other: object) -> Penalty:
        # sum([...]) starts from the number 0.
        return self if isinstance(other, int) and other == 0 else NotImplemented

    def __mul__(self, factor: ArrayLike) -> Penalty:
        from jaxreg.penalty.combine import Scaled

        if isinstance(factor, Penalty):
            return NotImplemented
        checked = strength("penalty *", "factor", factor)
        if not isinstance(checked, Array) or checked.ndim:
            raise ValueError(
                f"penalty *: `factor` must be one number, got {shown(factor)}. Strengths that differ by "
                "layer or coordinate go into the penalty itself, as in l1(lam) with a pytree or array."
            )
        return Scaled(checked, self)

    __rmul__ = __mul__

    def _repr_html_(self) -> str:
        """For a notebook: a line for each term of a sum."""
        terms = self.terms() or (self,)
        return "<br>".join(f"<code>{html.escape(repr(term))}</code>" for term in terms)


def _sum_squares(x: Array) -> Array:
    return jnp.sum(jnp.square(upcast(x)))
