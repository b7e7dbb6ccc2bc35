"""Pytrees of parameters: named leaves, prefixes, selection by None, and safe kinks.

A leaf's path is its keys joined by "/", as in "layers/0/kernel". Boxes that frameworks put
around an array (flax nnx variables, linen's partitioning metadata) add a trailing attribute
`value`, which is not part of the name and is dropped.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from jax.tree_util import DictKey, GetAttrKey, SequenceKey, keystr

PyTree: TypeAlias = Any


class Leaves(NamedTuple):
    """A flattened pytree: the leaves with their paths, and what rebuilds it."""

    paths: tuple[str, ...]
    values: list[Any]
    treedef: Any
    settings: tuple[bool, ...]  # attributes of a module that are no arrays, such as a dropout rate

    def rebuild(self, values: Sequence[Any]) -> PyTree:
        """The same tree with other leaves; a None leaf becomes an absent one."""
        return jax.tree.unflatten(self.treedef, values)


def flatten(tree: PyTree) -> Leaves:
    """Leaves of `tree` with their slash-joined paths."""
    with_paths, treedef = jax.tree_util.tree_flatten_with_path(tree)
    settings = tuple(_is_setting(tree, path, x) for path, x in with_paths)
    return Leaves(
        tuple(_name(p) for p, _ in with_paths), [x for _, x in with_paths], treedef, settings
    )


def _is_setting(tree: PyTree, path: tuple, x: Any) -> bool:
    return not hasattr(x, "dtype") and in_module(tree, path)


def in_module(tree: PyTree, path: tuple) -> bool:
    """Whether a leaf is an attribute of a module of equinox, or in a variable of nnx.

    Of their types alone, without importing them. A named tuple and a dataclass of one's own have
    attributes too, and are containers of parameters as a dict is.
    """
    if not path or not isinstance(path[-1], GetAttrKey):
        return False
    for key in path[:-1]:
        match key:
            case GetAttrKey(name=name):
                tree = getattr(tree, name)
            case SequenceKey(idx=at) | DictKey(key=at):
                tree = tree[at]
            case _:
                return False
    kinds = type(tree).__mro__
    return any(c.__module__.startswith(("equinox.", "flax.nnx.")) for c in kinds)


def _name(path) -> str:
    if len(path) > 1 and isinstance(path[-1], GetAttrKey) and path[-1].name == "value":
        path = path[:-1]
    return keystr(path, simple=True, separator="/")


def prefix_leaves(prefix: PyTree, tree: PyTree, owner: str, name: str) -> list[Any]:
    """One value per leaf of `tree`, from a scalar, an array or a pytree that may stop early.

    Values are matched by path, so what is given for the whole tree also serves the part of it that a
    selection leaves, in which the other leaves are None.

    Raises:
      ValueError: a leaf of `tree` has no value; `owner` and `name` say whose argument it is.
    """
    if jax.tree_util.all_leaves([prefix]):
        return [prefix] * len(jax.tree.leaves(tree))
    values = values_by_path(prefix, tree, owner, name)
    if None in [None if v is None else 0 for v in values]:
        raise ValueError(
            f"{owner}: `{name}` is a pytree that does not match the parameters. It has the leaves "
            f"{_shown(flatten(prefix).paths)}, the parameters have {_shown(flatten(tree).paths)}. "
            "Give a scalar, or a pytree with the same keys that may stop early (a prefix)."
        )
    return values


def values_by_path(given: PyTree, tree: PyTree, owner: str, name: str) -> list[Any]:
    """For each leaf of `tree` the leaf of `given` at its path or above it, or None.

    Raises:
      ValueError: `given` has a leaf that the tree lacks; it would be ignored in silence.
    """
    leaves = flatten(given)
    values = dict(zip(leaves.paths, leaves.values))
    # A restriction by .on leaves None where a leaf is not selected; its path still counts as known.
    marked = jax.tree.map(lambda x: 0 if x is None else x, tree, is_leaf=lambda x: x is None)
    known = flatten(marked).paths
    reached = {above for path in known for above in _ancestors(path)}
    for path in values:
        if path not in reached:
            near = difflib.get_close_matches(path, known, 3, 0) or list(known[:3])
            raise ValueError(
                f"{owner}: `{name}` has the leaf {path!r}, which the parameters lack; the nearest "
                f"are {near}. Drop it from `{name}`, or rename it."
            )
    found = ([values[p] for p in _ancestors(k) if p in values] for k in flatten(tree).paths)
    return [hits[0] if hits else None for hits in found]


def _ancestors(path: str) -> list[str]:
    """The path and those above it, as in ["a/b", "a", ""]."""
    keys = path.split("/") if path else []
    return ["/".join(keys[:i]) for i in range(len(keys), -1, -1)]


def _shown(paths: Sequence[str], most: int = 6) -> str:
    more = f", … {len(paths) - most} more" if len(paths) > most else ""
    return "[" + ", ".join(repr(p) for p in paths[:most]) + more + "]"


def partition(tree: PyTree, mask: Sequence[bool]) -> PyTree:
    """`tree` with the leaves outside `mask` replaced by None, so that their paths stay."""
    leaves = flatten(tree)
    return leaves.rebuild([x if keep else None for x, keep in zip(leaves.values, mask)])


def combine(selected: PyTree, tree: PyTree, mask: Sequence[bool]) -> PyTree:
    """Put the leaves of `selected`, made by `partition` with `mask`, back into `tree`."""
    chosen = iter(jax.tree.leaves(selected))
    leaves = flatten(tree)
    return leaves.rebuild([next(chosen) if k else x for x, k in zip(leaves.values, mask)])


def arrays(tree: PyTree) -> PyTree:
    """`tree` with None for what is no array or number, such as the functions that a module holds.

    Without any array it stays as it is: optax asks for the structure of a state by a stand-in.
    """
    if not any(map(is_array, jax.tree.leaves(tree))):
        return tree
    return jax.tree.map(lambda x: x if is_array(x) else None, tree)


def is_array(x: Any) -> bool:
    """Whether a leaf is an array, the shape of one, or a number."""
    return hasattr(x, "dtype") or isinstance(x, (bool, int, float, complex))


def aligned(updates: PyTree, params: PyTree) -> PyTree:
    """`params` with None where `updates` have None: gradients of a module have none of its functions.

    Raises:
      ValueError: a leaf of one is missing in the other, so that leaves would be taken for their neighbours.
    """
    is_none = lambda x: x is None
    leaves, treedef = jax.tree.flatten(updates, is_leaf=is_none)
    if not any(map(is_none, leaves)):
        of_updates, of_params = flatten(updates).paths, flatten(params).paths
        if sorted(of_updates) != sorted(of_params):
            _refuse_missing(of_updates, of_params)
        return params
    try:
        parts = treedef.flatten_up_to(params)
    except ValueError:
        _refuse_missing(flatten(updates).paths, flatten(params).paths)
        raise
    return treedef.unflatten([None if u is None else p for u, p in zip(leaves, parts)])


def _refuse_missing(of_updates: Sequence[str], of_params: Sequence[str]) -> None:
    lacking = [p for p in of_params if p not in of_updates]
    more = [p for p in of_updates if p not in of_params]
    raise ValueError(
        f"update: the gradients have the leaves {_shown(of_updates)} and the parameters "
        f"{_shown(of_params)}: "
        + (f"{lacking[0]!r} is missing in the gradients. " if lacking else "")
        + (f"{more[0]!r} is missing in the parameters. " if more and not lacking else "")
        + "Give both the same leaves, None for a leaf without a gradient; for a part of the parameters use "
        "optax.masked or optax.partition."
    )


class Held:
    """What is no array, such as the activation of a module, as a part of a tree's structure.

    Compiled programs take and return arrays alone. It can be called as what it holds.
    """

    def __init__(self, value: Any):
        self.value = value

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.value(*args, **kwargs)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Held) and (
            self.value is other.value
            or (type(self.value) is type(other.value) and bool(self.value == other.value))
        )

    def __hash__(self) -> int:
        return hash(type(self.value))

    def __repr__(self) -> str:
        return repr(self.value)


jax.tree_util.register_static(Held)


def held(tree: PyTree) -> PyTree:
    """`tree` with functions, and numbers and texts that are attributes of a module, in its structure."""
    with_paths, treedef = jax.tree_util.tree_flatten_with_path(tree)
    hold = lambda path, x: callable(x) or _is_setting(tree, path, x)
    return treedef.unflatten([Held(x) if hold(path, x) else x for path, x in with_paths])


def released(tree: PyTree) -> PyTree:
    """What `held` was given."""
    is_held = lambda x: isinstance(x, Held)
    return jax.tree.map(lambda x: x.value if is_held(x) else x, tree, is_leaf=is_held)


def trained(tree: PyTree) -> list[bool]:
    """Which leaves are trained: what is floating and, of an nnx module, no statistic and no counter."""
    mask: list[bool] = []
    for path, x in jax.tree_util.tree_flatten_with_path(tree, is_leaf=_is_statistic)[0]:
        if _is_statistic(x):
            mask += [False] * len(jax.tree.leaves(x))
        else:
            mask.append(is_floating(x) and not _is_setting(tree, path, x))
    return mask


def _is_statistic(x: Any) -> bool:
    """Whether a node is a variable of nnx that is no parameter; asked of its type, without flax."""
    kinds = [c.__name__ for c in type(x).__mro__ if c.__module__.startswith("flax.nnx")]
    return "Variable" in kinds and "Param" not in kinds


def refuse_count(owner: str, tree: PyTree) -> None:
    """A penalty can be called, so what takes functions for schedules calls it with a step.

    Raises:
      TypeError: `tree` is a single integer.
    """
    dtype = getattr(tree, "dtype", type(tree) if isinstance(tree, int) else None)
    if dtype is not None and jnp.ndim(tree) == 0 and jnp.issubdtype(dtype, jnp.integer):
        raise TypeError(
            f"{owner}: got a single integer in place of the parameters, as a schedule gets the step: "
            "optax.inject_hyperparams takes every function for a schedule, and a penalty is one. Give it "
            'static_args=("penalty",), or inject the strength: optax.inject_hyperparams(lambda lam: '
            "jaxreg.add_penalty_gradient(jaxreg.l2(lam)))(lam=0.1)."
        )


def shapes_of(tree: PyTree) -> PyTree:
    """The shapes of a tree, where a leaf without entries has one: what is asked on shapes needs some."""
    some = lambda x: jax.ShapeDtypeStruct(tuple(max(n, 1) for n in x.shape), x.dtype)
    return jax.tree.map(some, jax.eval_shape(lambda tree: tree, tree))


def is_floating(x: Any) -> bool:
    """Whether a leaf is an array (or scalar) of real floating dtype."""
    dtype = getattr(x, "dtype", None)
    return isinstance(x, float) if dtype is None else jnp.issubdtype(dtype, jnp.floating)


def is_narrow(x: Any) -> bool:
    """Whether a leaf is floating and has fewer bits than float32."""
    return is_floating(x) and hasattr(x, "dtype") and jnp.finfo(x.dtype).bits < 32


def accumulator(x: Any) -> Any:
    """The dtype sums over `x` are taken in: its own, and float32 at least."""
    return jnp.promote_types(jnp.result_type(x), jnp.float32)


def is_concrete(x: Any) -> bool:
    """Whether the value of `x` can be looked at: it is not being traced."""
    return not isinstance(x, Tracer)


def check_arrays(owner: str, name: str, tree: PyTree) -> None:
    """Refuse what has no leaves, and leaves that are no arrays.

    Raises:
      TypeError: naming the leaf.
    """
    leaves = flatten(tree)
    if not leaves.values:
        raise TypeError(
            f"{owner}: `{name}` must be a pytree of arrays, got {tree!r}, which has no leaves."
        )
    with_paths, _ = jax.tree_util.tree_flatten_with_path(tree)
    for path, x, (keys, _) in zip(leaves.paths, leaves.values, with_paths):
        alone = x is tree and not hasattr(x, "dtype") and not isinstance(x, (int, float))
        if alone or (isinstance(x, (str, bytes)) and not in_module(tree, keys)):
            where = f" at {path!r}" if path else ""
            raise TypeError(f"{owner}: `{name}` must be a pytree of arrays, got {x!r}{where}.")


def placed(x: Any) -> Array:
    """`x` as an array of jax, for which nothing is compiled; one that is traced stays as it is."""
    if isinstance(x, Array):
        return x
    with jax.ensure_compile_time_eval():
        return jax.device_put(np.asarray(x))


@jax.custom_jvp
def safe_abs(x: Array) -> Array:
    """|x| with derivative sign(x), so 0 at 0: the least-norm subgradient (jax's own is 1)."""
    return jnp.abs(x)


@safe_abs.defjvp
def _safe_abs_jvp(primals, tangents):
    (x,), (dx,) = primals, tangents
    return jnp.abs(x), jnp.sign(x) * dx


def safe_norm(x: Array, axis: tuple[int, ...] | int | None = None) -> Array:
    """Euclidean norm over `axis` whose gradient at 0 is 0 instead of NaN."""
    square = jnp.sum(jnp.square(x), axis)
    # Guard the input of the root, not its output: else the gradient is 0 * inf.
    return jnp.where(square == 0, 0, jnp.sqrt(jnp.where(square == 0, 1, square)))
