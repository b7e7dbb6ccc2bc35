"""A value: a frozen dataclass whose numbers are leaves and whose structure is static.

`jit` compiles once for all its numbers, `vmap` over it is a sweep, `grad` by it is a derivative by its
numbers. Penalties and terms are values.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any, dataclass_transform

import jax

from jaxreg._check import shown

__all__ = ["Value", "snake_name", "static_field"]


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


@dataclass_transform(
    frozen_default=True, eq_default=False, field_specifiers=(static_field, dataclasses.field)
)
class Value:
    """A subclass declares its fields and becomes a frozen dataclass and a pytree by itself.

    Fields are numbers (leaves), those made by `static_field` are structure. Never validate in
    `__post_init__`: jax rebuilds the object in every transformation, and a gradient by a value is itself a
    value with numbers of any sign.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        dataclasses.dataclass(frozen=True, eq=False, repr=False)(cls)
        _register(cls)

    def numbers(self) -> dict[str, Any]:
        """Its numbers by name, the first field first, without those that are None."""
        names = (f.name for f in dataclasses.fields(self) if not f.metadata.get("static"))  # pyright: ignore
        return {n: getattr(self, n) for n in names if getattr(self, n) is not None}

    @property
    def label(self) -> str:
        """A short name without strengths, such as "l2.on(kernels)", the same for every lam."""
        return snake_name(type(self))

    def __repr__(self) -> str:
        # Strengths first; structure only where it is not the default.
        fields = sorted(
            dataclasses.fields(self),  # pyright: ignore[reportArgumentType]
            key=lambda f: bool(f.metadata.get("static")),
        )
        given = []
        for i, f in enumerate(fields):
            value, static = getattr(self, f.name), f.metadata.get("static")
            left_out = _is_default(value, f.default) if static else value is None
            if not left_out:
                given.append(shown(value) if i == 0 and not static else f"{f.name}={shown(value)}")
        return f"{snake_name(type(self))}({', '.join(given)})"


def _is_default(value: Any, default: Any) -> bool:
    return type(value) is type(default) and bool(value == default)


def _register(cls: type) -> None:
    """Make `cls` a pytree: strengths are its children, structure its static data.

    Not by `jax.tree_util.register_dataclass`: up to jax 0.12 the structures of two such classes
    with equal field names compare equal, and jit may then run the program of l1 for an l2.
    """
    fields = dataclasses.fields(cls)  # pyright: ignore[reportArgumentType]
    static = tuple(f.name for f in fields if f.metadata.get("static"))
    data = tuple(f.name for f in fields if not f.metadata.get("static"))
    keys = tuple(jax.tree_util.GetAttrKey(name) for name in data)

    def flatten(value):
        children = tuple(getattr(value, name) for name in data)
        return children, tuple(getattr(value, name) for name in static)

    def flatten_with_keys(value):
        children, structure = flatten(value)
        return tuple(zip(keys, children)), structure

    def unflatten(structure, children):
        return cls(**dict(zip(static, structure)), **dict(zip(data, children)))

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)


def snake_name(cls: type) -> str:
    """The field's name of a penalty class: ElasticNet -> elastic_net, LHalf -> l_half."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", cls.__name__)
    return words.lower()
