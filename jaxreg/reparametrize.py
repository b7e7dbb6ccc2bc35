"""Weights through other numbers: a direction and a length, or divided by their spectral norm.

A leaf W of at least two axes is read as a matrix [inputs, outputs], all axes but the last flattened.

    weight normalisation     W_j = g_j v_j / |v_j|, of each output j
    spectral normalisation   W = bound · V / σ(V), σ the largest singular value

Both are plain functions of parameters: call them in the loss and give what they make to the model. σ is
found by power iteration, whose vectors are kept from step to step as the model state of a trainer. The
spectral norm is that of the matrix, which for a convolution is not that of the operator on images.

Sources: weight normalisation, Salimans & Kingma 2016 (eq. 2); spectral normalisation, Miyato et al. 2018
(eq. 8, algorithm 1), where the bound is 1. The constraint that leaves layers inside of the bound as they
are is `jaxreg.spectral_ball`.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxreg import _tree
from jaxreg._check import above, check_key, count, shown, upcast
from jaxreg._tree import PyTree
from jaxreg.select import as_selector, floating_where, kernels

__all__ = [
    "from_weight_norm", "power_iteration", "spectral_normalized", "spectral_vectors", "to_weight_norm",
]  # fmt: skip

_PARTS = {"direction", "scale"}


# --- weight normalisation ----------------------------------------------------------------------------


def to_weight_norm(params: PyTree, where: Any = kernels) -> PyTree:
    """Each selected leaf of at least two axes as {"direction": v, "scale": g}, at the same weights.

    Train these, and call `from_weight_norm` in the loss. An output whose weights are all 0 has no
    direction, and gets no gradient. Of the two, `jaxreg.kernels` selects directions, as a leaf named scale
    is taken for that of a norm.

    Args:
      params: parameters.
      where: a selector of leaves; those of fewer axes stay as they are.

    Returns:
      The parameters with v of the shape of the leaf, which is the leaf, and g [outputs], the lengths of its
      columns.

    Raises:
      TypeError, ValueError: `params` are no parameters or hold such pairs, or nothing is selected.

    >>> made = to_weight_norm({"kernel": jnp.array([[3.0], [4.0]]), "bias": jnp.ones(1)})
    >>> made["kernel"]["scale"].tolist()
    [5.0]
    >>> [round(w, 3) for w in from_weight_norm(made)["kernel"][:, 0].tolist()]
    [3.0, 4.0]
    """
    owner = "to_weight_norm"
    leaves, chosen = _chosen(owner, params, where)
    held = [x for x in jax.tree.leaves(params, is_leaf=_is_pair) if _is_pair(x)]
    if held:
        raise ValueError(
            f'{owner}: `params` must be plain parameters, got {len(held)} with "direction" and "scale". '
            "Call from_weight_norm first."
        )
    pair = lambda x: {"direction": x, "scale": _lengths(x).astype(x.dtype)}
    return leaves.rebuild([pair(jnp.asarray(x)) if c else x for x, c in zip(leaves.values, chosen)])


def from_weight_norm(params: PyTree) -> PyTree:
    """The plain weights g v / |v| of what `to_weight_norm` made; all else as it is.

    Args:
      params: as `to_weight_norm` returns them, or trained from there.

    Raises:
      TypeError, ValueError: `params` are no parameters, or hold no {"direction", "scale"}, or a scale is
        not [outputs].

    >>> pair = {"direction": jnp.array([[3.0], [4.0]]), "scale": jnp.array([10.0])}
    >>> [round(w, 3) for w in from_weight_norm({"kernel": pair})["kernel"][:, 0].tolist()]
    [6.0, 8.0]
    """
    owner = "from_weight_norm"
    _tree.check_arrays(owner, "params", params)
    if not any(map(_is_pair, jax.tree.leaves(params, is_leaf=_is_pair))):
        raise ValueError(
            f'{owner}: `params` must hold {{"direction", "scale"}} in place of weights, got the leaves '
            f"{list(_tree.flatten(params).paths)[:6]}. Make them with to_weight_norm."
        )

    def weights(pair: Any) -> Any:
        if not _is_pair(pair):
            return pair
        v, g = pair["direction"], pair["scale"]
        if jnp.ndim(v) < 2 or jnp.shape(g) != jnp.shape(v)[-1:]:
            raise ValueError(
                f"{owner}: `params` must hold a scale for each output of a direction, got directions of "
                f"shape {list(jnp.shape(v))} and scales of shape {list(jnp.shape(g))}."
            )
        lengths = _lengths(v)
        return (upcast(v) * (upcast(g) / jnp.where(lengths > 0, lengths, 1))).astype(v.dtype)

    return jax.tree.map(weights, params, is_leaf=_is_pair)


def _is_pair(x: Any) -> bool:
    return isinstance(x, dict) and set(x) == _PARTS


def _lengths(x: Array) -> Array:
    return _tree.safe_norm(upcast(x), tuple(range(x.ndim - 1)))


# --- spectral normalisation --------------------------------------------------------------------------


def spectral_vectors(params: PyTree, key: Array, where: Any = kernels) -> PyTree:
    """Random unit vectors u [outputs], from which `power_iteration` starts.

    Args:
      params: parameters.
      key: PRNG key; leaves draw different ones.
      where: a selector of leaves; those of fewer than two axes have no vector.

    Returns:
      A tree like `params` with a vector for each selected leaf, in float32 at least, and None elsewhere.
      As the model state of a stateful trainer it is carried from step to step.

    Raises:
      TypeError, ValueError: `params` are no parameters, no key, or nothing is selected.

    >>> params = {"kernel": jnp.ones((4, 3)), "bias": jnp.ones(3)}
    >>> jax.tree.map(jnp.shape, spectral_vectors(params, jax.random.key(0)))
    {'bias': None, 'kernel': (3,)}
    """
    leaves, chosen = _chosen("spectral_vectors", params, where)
    check_key("spectral_vectors", key)
    keys = jax.random.split(key, len(chosen))
    start = lambda x, k: _unit(jax.random.normal(k, x.shape[-1:], _tree.accumulator(x)))
    return leaves.rebuild(
        [start(x, k) if c else None for x, k, c in zip(leaves.values, keys, chosen)]
    )


def power_iteration(params: PyTree, vectors: PyTree, steps: int = 1) -> tuple[PyTree, PyTree]:
    """Spectral norms σ = vᵀ W u, and the vectors after so many steps v ∝ W u, u ∝ Wᵀ v.

    Vectors are held, so the derivative of σ by W is v uᵀ. A σ is never above the largest singular value,
    and reaches it as steps add up: in one call, or over those of training, where W changes slowly.

    Args:
      params: parameters.
      vectors: of `spectral_vectors`, or of the last call.
      steps: at least 1.

    Returns:
      (σ of each leaf with a vector, vectors), both of the structure of `vectors`. A kernel of zeros has a σ
      of 0 and keeps its vector.

    Raises:
      TypeError, ValueError: `params` are no parameters, `vectors` those of other ones, or `steps` no
        integer of at least 1.

    >>> params = {"kernel": jnp.diag(jnp.array([3.0, 1.0]))}
    >>> vectors = spectral_vectors(params, jax.random.key(0))
    >>> sigmas, vectors = power_iteration(params, vectors, steps=30)
    >>> round(sigmas["kernel"].item(), 4)
    3.0
    """
    owner = "power_iteration"
    found, of_params, at = _matched(owner, params, vectors)
    steps = count(owner, "steps", steps)
    sigmas, turned = [], []
    for i, u in zip(at, found.values):
        w = _matrix(of_params.values[i])
        held = jax.lax.stop_gradient(w)
        start = jax.lax.stop_gradient(upcast(u))
        _, u = jax.lax.fori_loop(0, steps, _turn, (held, start))
        sigmas.append(_unit(held @ u) @ (w @ u))
        turned.append(u)
    return found.rebuild(sigmas), found.rebuild(turned)


def spectral_normalized(params: PyTree, vectors: PyTree, bound: ArrayLike = 1.0) -> PyTree:
    """Parameters in which each leaf with a vector is W · bound / σ: its spectral norm is the bound.

    As in the paper W is always divided, so a layer inside of the bound grows to it; `bound` is a multiple
    of what is divided. σ is |W u|, with u held: call `power_iteration` before, in training, and keep the
    vectors as they are to evaluate. With few steps σ is too small, and the norm above the bound.

    Args:
      params: parameters.
      vectors: of `power_iteration`.
      bound: > 0, one number, which may be swept.

    Raises:
      TypeError, ValueError: `params` are no parameters, `vectors` those of other ones, or `bound` not one
        number above 0.

    >>> params = {"kernel": jnp.diag(jnp.array([3.0, 1.0]))}
    >>> vectors = spectral_vectors(params, jax.random.key(0))
    >>> _, vectors = power_iteration(params, vectors, steps=30)
    >>> made = spectral_normalized(params, vectors, bound=6.0)
    >>> [round(w, 3) for w in jnp.diag(made["kernel"]).tolist()]
    [6.0, 2.0]
    """
    owner = "spectral_normalized"
    found, of_params, at = _matched(owner, params, vectors)
    most = above(owner, "bound", bound, 0)
    if not isinstance(most, Array) or most.ndim:
        raise ValueError(f"{owner}: `bound` must be one number, got {shown(bound)}.")
    values = list(of_params.values)
    for i, u in zip(at, found.values):
        x, u = values[i], jax.lax.stop_gradient(upcast(u))
        w = _matrix(x)
        sigma = jax.lax.stop_gradient(_unit(w @ u)) @ (w @ u)
        values[i] = (upcast(x) * (most / jnp.where(sigma > 0, sigma, 1))).astype(x.dtype)
    return of_params.rebuild(values)


def _turn(i: Any, carried: tuple[Array, Array]) -> tuple[Array, Array]:
    del i
    w, u = carried
    new = _unit(_unit(w @ u) @ w)
    # From 0 no vector would ever come back.
    return w, jnp.where(jnp.any(new != 0), new, u)


def _unit(x: Array) -> Array:
    """A vector of length 1; zeros stay. Divided by its largest entry first, whose square may underflow."""
    most = jnp.max(jnp.abs(x), initial=0)
    x = x / jnp.where(most > 0, most, 1)
    length = _tree.safe_norm(x)
    return x / jnp.where(length > 0, length, 1)


def _matrix(x: Any) -> Array:
    x = upcast(x)
    return x.reshape(-1, x.shape[-1]) if x.size else jnp.zeros((1, x.shape[-1]), x.dtype)


# --- checks ------------------------------------------------------------------------------------------


def _chosen(owner: str, params: PyTree, where: Any) -> tuple[_tree.Leaves, list[bool]]:
    """The leaves, and which of them are selected and matrices.

    Raises:
      TypeError: no parameters, or integers are selected. ValueError: no matrix is selected.
    """
    leaves, hit = floating_where(owner, "params", params, where)
    chosen = [c and jnp.ndim(x) >= 2 for x, c in zip(leaves.values, hit)]
    if not any(chosen):
        paths = [p for p, c in zip(leaves.paths, hit) if c]
        raise ValueError(
            f"{owner}: `where` must select a leaf of at least 2 axes, got {as_selector(where)!r}, "
            f"which selects {paths[:6]}. Select a matrix or a kernel of a convolution."
        )
    return leaves, chosen


def _floating(owner: str, params: PyTree) -> _tree.Leaves:
    leaves = _tree.flatten(params)
    if not any(_tree.is_floating(x) and hasattr(x, "dtype") for x in leaves.values):
        raise TypeError(f"{owner}: `params` must be floating arrays, got {params!r:.60}.")
    return leaves


def _matched(
    owner: str, params: PyTree, vectors: PyTree
) -> tuple[_tree.Leaves, _tree.Leaves, list[int]]:
    """The vectors, the parameters, and at which place of these each vector's leaf is.

    Raises:
      TypeError, ValueError: vectors of other parameters, or none.
    """
    of_params, found = _floating(owner, params), _tree.flatten(vectors)
    place = {p: i for i, p in enumerate(of_params.paths)}
    remedy = "Make them with spectral_vectors(params, key)."
    if not found.values:
        raise ValueError(
            f"{owner}: `vectors` must hold unit vectors, got {vectors!r:.60}. {remedy}"
        )
    for p, u in zip(found.paths, found.values):
        shape = jnp.shape(of_params.values[place[p]]) if p in place else None
        if shape is None or len(shape) < 2 or getattr(u, "shape", None) != shape[-1:]:
            there = "no such leaf" if shape is None else f"shape {list(shape)}"
            got = f"shape {list(u.shape)}" if hasattr(u, "shape") else f"a {type(u).__name__}"
            raise ValueError(
                f"{owner}: `vectors` must be those of `params`, one of [outputs] for each kernel, got "
                f"{got} at {p!r}, where the parameters have {there}. {remedy}"
            )
    return found, of_params, [place[p] for p in found.paths]
