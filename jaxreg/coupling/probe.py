"""Asking an optimizer what it does: tiny parameters, chosen gradients, one update at a time.

An optax transformation is a pair of closures; what it was made with (eps, momentum, masks, the
sign) shows in what it answers only. So we give it parameters of two numbers an axis and gradients we
know, and read its updates. It happens outside of what is being traced: the answers are numbers, unless
the optimizer itself was made from traced values (a swept momentum), and then they are tracers that nothing
here branches on.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.typing import ArrayLike

from jaxreg import _tree
from jaxreg._quickly import once
from jaxreg._tree import PyTree

__all__ = ["Bench", "advance", "bench", "injected", "largest", "state_names", "vector"]

# States that hold more than a counter, which nevertheless belongs to a schedule.
_SCHEDULED = (
    "DecoupledState",
    "InjectHyperparamsState",
    "InjectStatefulHyperparamsState",
    "ProximalState",
    "WrappedScheduleState",
)


@dataclasses.dataclass(frozen=True)
class Bench:
    """An optimizer with stand-ins for its parameters; values are one number per leaf, [L]."""

    optimizer: optax.GradientTransformation
    like: PyTree
    extra: tuple[str, ...] = ()  # arguments that it wants besides

    def tree(self, values: ArrayLike) -> PyTree:
        """Parameters (or gradients) filled with one value per leaf; 0 where not floating."""
        leaves = _tree.flatten(self.like)
        # numpy where it can: a device call for each of hundreds of leaves would be felt.
        lib = np if _tree.is_concrete(values) else jnp
        each = lib.broadcast_to(lib.asarray(values), (len(leaves.values),))
        return leaves.rebuild(
            [
                jnp.asarray(lib.full(x.shape, v if _tree.is_floating(x) else 0, x.dtype))
                for x, v in zip(leaves.values, each)
            ]
        )

    def ask(self, state: PyTree, grads: ArrayLike, params: ArrayLike = 0.0) -> tuple[Array, PyTree]:
        """The update of each leaf, [L], and the new state."""
        shape = (len(jax.tree.leaves(self.like)),)
        full = (jnp.broadcast_to(jnp.asarray(x, float), shape) for x in (grads, params))
        return self._update(state, *full)

    def answer(self, grads: PyTree, state: PyTree, params: PyTree) -> tuple[PyTree, PyTree]:
        """The updates and the new state; a loss that is asked for is large, far from any optimum."""
        known = {"value": 2.0**20, "loss": 2.0**20, "grad": grads}
        tx = optax.with_extra_args_support(self.optimizer)
        return tx.update(grads, state, params, **{name: known[name] for name in self.extra})

    def pattern(self, size: ArrayLike) -> PyTree:
        """Gradients whose entries differ: size times -3, 1, 2.25, 5, 1/8, … along each leaf."""
        leaves = _tree.flatten(self.like)
        row = np.array([-3.0, 1.0, 2.25, 5.0, 0.125], np.float32)
        made = [
            jnp.asarray(size * np.resize(row, x.shape), x.dtype)
            if _tree.is_floating(x)
            else jnp.zeros(x.shape, x.dtype)
            for x in leaves.values
        ]
        return leaves.rebuild(made)

    def entries(self, state: PyTree, size: float) -> list[tuple[Array, Array]]:
        """Updates of two entries of each leaf, in a leaf of entries like it and of others: [L] pairs."""
        mixed = self.answer(self.pattern(size), state, self.tree(0.0))[0]
        found = []
        for at in (0, -1):
            of = lambda tree, at=at: vector(jax.tree.map(lambda x: jnp.ravel(x)[at:], tree))
            alike = self.answer(self.tree(of(self.pattern(size))), state, self.tree(0.0))[0]
            found.append((of(mixed), of(alike)))
        return found

    @functools.cached_property
    def _update(self) -> Callable[..., tuple[Array, PyTree]]:
        def update(state: PyTree, grads: Array, params: Array) -> tuple[Array, PyTree]:
            updates, new = self.answer(self.tree(grads), state, self.tree(params))
            return vector(updates), new

        # Tracing an optimizer takes longer than all else, and it is asked some twenty times.
        return once(update)


def bench(
    optimizer: optax.GradientTransformation,
    params: PyTree,
    *,
    at: float = 0.0,
    most: float = np.inf,
) -> tuple[Bench, PyTree]:
    """A bench of at most two numbers per axis that answers, and the optimizer's state on it.

    Where that raises, since a transformation inside holds arrays of the parameters' shapes
    (strengths per coordinate, a centre), the leaves get their real shapes; with more than `most`
    numbers in all, what was raised goes on.
    """
    shapes = _tree.shapes_of(params)
    size = sum(x.size for x in jax.tree.leaves(shapes))
    try:
        small = lambda x: _stand_in(x, tuple(min(n, 2) for n in x.shape))
        return _started(optimizer, jax.tree.map(small, shapes), at)
    except Exception:
        if size > most:
            raise
        return _started(optimizer, jax.tree.map(lambda x: _stand_in(x, x.shape), shapes), at)


def _started(optimizer, like: PyTree, at: float) -> tuple[Bench, PyTree]:
    made = Bench(optimizer, like)
    state = optimizer.init(made.tree(at))
    try:
        made.ask(state, 0.0, at)
    except TypeError:
        made = Bench(optimizer, like, ("value", "loss", "grad"))
        made.ask(state, 0.0, at)
    return made, state


def _stand_in(x: Any, shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
    wide = jnp.promote_types(x.dtype, jnp.float32) if _tree.is_floating(x) else x.dtype
    return jax.ShapeDtypeStruct(shape, wide)


def vector(tree: PyTree) -> Array:
    """The first number of each leaf, [L]."""
    leaves = jax.tree.leaves(tree)
    lib = np if all(_tree.is_concrete(x) for x in leaves) else jnp
    first = [
        lib.ravel(x)[0] if _tree.is_floating(x) and jnp.size(x) else lib.zeros(()) for x in leaves
    ]
    return (
        jnp.stack([jnp.asarray(x) for x in first]) if lib is jnp else jnp.asarray(np.array(first))
    )


def largest(tree: PyTree) -> Array:
    """The largest size in each leaf, [L]."""
    return vector(jax.tree.map(lambda x: jnp.max(jnp.abs(x), initial=0.0)[None], tree))


def advance(state: PyTree, by: int) -> PyTree:
    """The state with its schedules `by` steps later.

    A schedule's counter stands alone; one beside moments corrects their bias and stays.
    """
    if isinstance(state, dict):
        return {key: advance(x, by) for key, x in state.items()}
    if type(state) in (tuple, list):
        return type(state)(advance(x, by) for x in state)
    if isinstance(state, tuple):
        alone = len(state) == 1 or type(state).__name__ in _SCHEDULED
        return type(state)(*(advance(x, by) if alone or not _is_counter(x) else x for x in state))
    return state + by if _is_counter(state) else state


def injected(state: Any, now: Any) -> Any:
    """The state with the injected hyperparameters, and their schedules, of another."""
    if isinstance(state, dict):
        return {key: injected(x, now[key]) for key, x in state.items()}
    if not isinstance(state, (tuple, list)):
        return state
    node: Any = state
    if hasattr(node, "hyperparams"):  # of optax.inject_hyperparams
        kept = {name: getattr(now, name) for name in node._fields if name != "inner_state"}
        return node._replace(**kept, inner_state=injected(node.inner_state, now.inner_state))
    parts = [injected(*pair) for pair in zip(state, now)]
    return type(node)(*parts) if hasattr(node, "_fields") else type(node)(parts)


def _is_counter(x: Any) -> bool:
    dtype = getattr(x, "dtype", None)
    return dtype is not None and jnp.ndim(x) == 0 and jnp.issubdtype(dtype, jnp.integer)


def state_names(state: PyTree) -> list[str]:
    """The classes of a nested optimizer state, such as ["ScaleByAdamState"], sorted."""
    found: set[str] = set()

    def walk(node):
        if isinstance(node, dict):
            node = tuple(node.values())
        if isinstance(node, (tuple, list)):
            if type(node) not in (tuple, list, optax.EmptyState):
                found.add(type(node).__name__)
            for child in node:
                walk(child)

    walk(state)
    return sorted(found)
