"""Noise as regularisation: pure functions of a key, whose rates and widths may be swept.

Every one takes its rate as a number that may be traced, is exact at a rate of 0, where nothing changes, bit
for bit, and of 1, and keeps the mean: what is left is divided by 1 − rate. All points of a sweep draw the
same key at the same step, so they differ by the rate alone.

Sources: dropout, Srivastava et al. 2014; shared over time (locked), Gal & Ghahramani 2016; on weights, Wan
et al. 2013, of recurrent ones Merity, Keskar & Socher 2018; zoneout, Krueger et al. 2017; stochastic depth,
Huang et al. 2016; mixup, Zhang et al. 2018; CutMix, Yun et al. 2019; Cutout, DeVries & Taylor 2017. Noise
on gradients is `optax.add_noise`, smoothed labels are `optax.smooth_labels`.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxreg import _tree
from jaxreg._check import check_key, shown, strength
from jaxreg._tree import PyTree, is_concrete
from jaxreg.select import everything, floating_where, kernels

__all__ = [
    "add_normal", "cut_mix", "cut_out", "drop", "drop_path", "drop_weights", "mixup", "zoneout",
]  # fmt: skip


def drop(x: Array, rate: ArrayLike, key: Array, *, shared: tuple[int, ...] = ()) -> Array:
    """Dropout: each entry is 0 with probability `rate`, else divided by 1 − rate.

    Args:
      x: activations.
      rate: in [0, 1]; at 1 everything is 0.
      key: PRNG key.
      shared: axes along which entries are dropped together, such as (1,) for the times of [rows, times,
        units]: variational, or locked, dropout.

    Raises:
      TypeError, ValueError: no array, a rate outside of [0, 1], no key, or no such axis.

    >>> drop(jnp.ones(4), 0.0, jax.random.key(0)).tolist()
    [1.0, 1.0, 1.0, 1.0]
    >>> sorted(set(drop(jnp.ones(99), 0.75, jax.random.key(0)).tolist()))
    [0.0, 4.0]
    """
    _check("drop", key, x=x)
    rate = _rate("drop", rate)
    odd = not isinstance(shared, tuple) or not all(
        isinstance(a, int) and -x.ndim <= a < x.ndim for a in shared
    )
    if odd:
        raise ValueError(
            f"drop: `shared` must be a tuple of axes of shape {list(x.shape)}, got {shared!r}."
        )
    drawn = tuple(1 if i in {a % x.ndim for a in shared} else n for i, n in enumerate(x.shape))
    return _scaled(x, rate, jax.random.uniform(key, drawn) >= rate)


def drop_weights(params: PyTree, rate: ArrayLike, key: Array, *, where: Any = kernels) -> PyTree:
    """DropConnect: each weight of the selected leaves is 0 with probability `rate`, else over 1 − rate.

    On recurrent weights, once for a whole sequence, it is weight drop: call it before the loop over time.

    Args:
      params: parameters.
      rate: in [0, 1].
      key: PRNG key; leaves draw different ones.
      where: a selector of leaves, such as "*/recurrent".

    Raises:
      TypeError, ValueError: a rate outside of [0, 1], no key, or a selector that hits nothing.

    >>> params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    >>> dropped = drop_weights(params, 1.0, jax.random.key(0))
    >>> dropped["kernel"].sum().item(), dropped["bias"].sum().item()
    (0.0, 2.0)
    """
    _check("drop_weights", key)
    rate = _rate("drop_weights", rate)
    leaf = lambda x, k: _scaled(x, rate, jax.random.uniform(k, x.shape) >= rate)
    return _on_leaves("drop_weights", "params", params, key, where, leaf)


def add_normal(tree: PyTree, width: ArrayLike, key: Array, *, where: Any = everything) -> PyTree:
    """Gaussian noise of standard deviation `width` on an array, or on the selected leaves of parameters.

    Args:
      tree: inputs, activations or parameters.
      width: >= 0.
      key: PRNG key; leaves draw different ones.
      where: a selector of leaves; by default all.

    Raises:
      TypeError, ValueError: a width below 0, no key, or a selector that hits nothing.

    >>> add_normal(jnp.ones(3), 0.0, jax.random.key(0)).tolist()
    [1.0, 1.0, 1.0]
    """
    _check("add_normal", key)
    width = strength("add_normal", "width", width)
    leaf = lambda x, k: x + (width * jax.random.normal(k, x.shape)).astype(x.dtype)
    return _on_leaves("add_normal", "tree", tree, key, where, leaf)


def drop_path(branch: Array, rate: ArrayLike, key: Array) -> Array:
    """Stochastic depth: each row's residual branch is 0 with probability `rate`, else divided by 1 − rate.

    Args:
      branch: [rows, ...], what is added to the input of a residual block.
      rate: in [0, 1].
      key: PRNG key.

    Raises:
      TypeError, ValueError: no array, a rate outside of [0, 1], or no key.

    >>> drop_path(jnp.ones((2, 3)), 1.0, jax.random.key(0)).sum().item()
    0.0
    """
    _check("drop_path", key, branch=branch)
    rate = _rate("drop_path", rate)
    kept = jax.random.uniform(key, (len(branch), *[1] * (branch.ndim - 1))) >= rate
    return _scaled(branch, rate, kept)


def zoneout(new: Array, old: Array, rate: ArrayLike, key: Array | None = None) -> Array:
    """Zoneout: each unit keeps its old state with probability `rate`; without a key the expected state.

    Args:
      new: the state that a recurrent cell makes.
      old: the state before, of the same shape.
      rate: in [0, 1].
      key: PRNG key, another one at each step; None to evaluate.

    Raises:
      TypeError, ValueError: shapes that differ, a rate outside of [0, 1], or no key.

    >>> zoneout(jnp.ones(2), jnp.zeros(2), 0.25).tolist()
    [0.75, 0.75]
    """
    _check_floating("zoneout", new=new)
    if key is not None:
        check_key("zoneout", key)
    if getattr(old, "shape", None) != new.shape:
        raise ValueError(
            f"zoneout: `old` must have the shape of `new`, {list(new.shape)}, got {shown(old)}."
        )
    rate = _rate("zoneout", rate)
    if key is None:
        return (new + rate * (old - new)).astype(new.dtype)
    return jnp.where(jax.random.uniform(key, new.shape) >= rate, new, old)


def mixup(x: Array, targets: Array, alpha: ArrayLike, key: Array) -> tuple[Array, Array]:
    """mixup: rows and their targets as convex combinations with those of other rows, t ~ Beta(α, α).

    Args:
      x: [rows, ...].
      targets: [rows, ...], floating: shares of classes (one-hot), or quantities.
      alpha: >= 0; 0 mixes nothing.
      key: PRNG key.

    Raises:
      TypeError, ValueError: integers as targets, other numbers of rows, `alpha` below 0, or no key.

    >>> x, y = jnp.eye(2), jnp.eye(2)
    >>> mixup(x, y, 0.0, jax.random.key(0))[0].tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    _check("mixup", key, x=x)
    _check_targets("mixup", x, targets)
    alpha = strength("mixup", "alpha", alpha)
    of_pair, of_share = jax.random.split(key)
    order = jax.random.permutation(of_pair, len(x))
    share = _share(alpha, of_share)
    return _mixed(x, x[order], share), _mixed(targets, targets[order], share)


def cut_mix(images: Array, targets: Array, alpha: ArrayLike, key: Array) -> tuple[Array, Array]:
    """CutMix: a box of each image is that of another one, and its targets are mixed by the area.

    Args:
      images: [rows, height, width, channels].
      targets: as for `mixup`.
      alpha: >= 0; the box has a share 1 − t of the area before it is cut at the border, t ~ Beta(α, α).
      key: PRNG key.

    Raises:
      TypeError, ValueError: no images, or as `mixup`.
    """
    _check("cut_mix", key, images=images)
    _check_images("cut_mix", images)
    _check_targets("cut_mix", images, targets)
    alpha = strength("cut_mix", "alpha", alpha)
    of_pair, of_share, of_box = jax.random.split(key, 3)
    order = jax.random.permutation(of_pair, len(images))
    inside = _box(images.shape[1:3], jnp.sqrt(1 - _share(alpha, of_share)), of_box)
    cut = jnp.where(inside[None, :, :, None], images[order], images)
    return cut, _mixed(targets, targets[order], 1 - jnp.mean(inside, dtype=jnp.float32))


def cut_out(images: Array, share: ArrayLike, key: Array) -> Array:
    """Cutout: a square box of each image, another place in each, is 0; it may reach over the border.

    Args:
      images: [rows, height, width, channels].
      share: of the sides of the image, in [0, 1].
      key: PRNG key.

    Raises:
      TypeError, ValueError: no images, a share outside of [0, 1], or no key.

    >>> cut_out(jnp.ones((1, 4, 4, 1)), 0.0, jax.random.key(0)).sum().item()
    16.0
    """
    _check("cut_out", key, images=images)
    _check_images("cut_out", images)
    share = _rate("cut_out", share, "share")
    boxes = jax.vmap(lambda k: _box(images.shape[1:3], share, k))(
        jax.random.split(key, len(images))
    )
    return jnp.where(boxes[..., None], jnp.zeros((), images.dtype), images)


# --- parts -------------------------------------------------------------------------------------------


def _scaled(x: Array, rate: Array, kept: Array) -> Array:
    """What is kept over the share of it; at a rate of 0 nothing changes, at 1 all is 0."""
    left = jnp.where(rate < 1, 1 - rate, 1)
    return jnp.where(kept & (rate < 1), (x / left).astype(x.dtype), jnp.zeros((), x.dtype))


def _share(alpha: Any, key: Array) -> Array:
    """t of Beta(α, α), and 1 at α = 0."""
    t = jax.random.beta(key, jnp.where(alpha > 0, alpha, 1), jnp.where(alpha > 0, alpha, 1))
    return jnp.where(alpha > 0, t, 1)


def _mixed(a: Array, b: Array, share: Array) -> Array:
    """share · a + (1 − share) · b, and a itself at a share of 1, whatever stands in b."""
    return jnp.where(share == 1, a, b + share * (a - b)).astype(a.dtype)


def _box(shape: tuple[int, ...], side: Array, key: Array) -> Array:
    """Which pixels [height, width] lie in a box of such sides around a pixel that is drawn."""
    inside = jnp.ones(shape, bool)
    for axis, (n, k) in enumerate(zip(shape, jax.random.split(key))):
        middle = jax.random.randint(k, (), 0, n) + 0.5
        at = jnp.arange(n) + 0.5
        near = jnp.abs(at - middle) < 0.5 * side * n
        inside &= jnp.expand_dims(near, 1 - axis)
    return inside


def _on_leaves(owner: str, name: str, tree: PyTree, key: Array, where: Any, change: Any) -> PyTree:
    leaves, chosen = floating_where(owner, name, tree, where)
    keys = jax.random.split(key, len(leaves.values))
    return leaves.rebuild(
        [change(jnp.asarray(x), k) if c else x for x, k, c in zip(leaves.values, keys, chosen)]
    )


# --- checks ------------------------------------------------------------------------------------------


def _rate(owner: str, rate: Any, name: str = "rate") -> Array:
    checked = strength(owner, name, rate)
    if not isinstance(checked, Array) or checked.ndim:
        raise ValueError(f"{owner}: `{name}` must be one number, got {shown(rate)}.")
    if is_concrete(checked) and float(checked) > 1:
        raise ValueError(f"{owner}: `{name}` must be a share from 0 to 1, got {shown(rate)}.")
    return checked


def _check(owner: str, key: Any, **given: Any) -> None:
    """Refuse what is no single PRNG key, and no floating array."""
    check_key(owner, key, " A loss gets one where the trainer is stochastic=True.")
    _check_floating(owner, **given)


def _check_floating(owner: str, **given: Any) -> None:
    for name, x in given.items():
        if not _tree.is_floating(x):
            raise TypeError(f"{owner}: `{name}` must be a floating array, got {shown(x)}.")


def _check_targets(owner: str, x: Array, targets: Any) -> None:
    kind = getattr(targets, "dtype", None)
    if kind is None or not jnp.issubdtype(kind, jnp.floating) or len(targets) != len(x):
        raise TypeError(
            f"{owner}: `targets` must be floating, with the rows of the inputs ({len(x)}), got "
            f"{shown(targets)}. Of class numbers take jax.nn.one_hot(y, classes)."
        )


def _check_images(owner: str, images: Array) -> None:
    if np.ndim(images) != 4:
        raise ValueError(
            f"{owner}: `images` must be [rows, height, width, channels], got shape {list(images.shape)}."
        )
