"""LassoNet's hierarchy: a feature enters the net only as far as its skip connection lets it.

A linear skip connection beside the net gives every input feature a weight of its own, and each weight
of the first layer is bounded by its feature's. Where the skip weight becomes 0 the feature is gone from
the whole net: feature selection as in the lasso, for a model that is not linear.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxreg import _tree, prox
from jaxreg._check import check_step, fitted, kind, shown, strength, upcast
from jaxreg._tree import PyTree
from jaxreg.penalties._groups import group_norm
from jaxreg.penalties._weighted import one_step
from jaxreg.penalty import Penalty
from jaxreg.prox._waterline import waterline
from jaxreg.select import Selector, as_selector
from jaxreg.value import static_field

__all__ = ["hierarchical"]


class _Pair(NamedTuple):
    """The two leaves: numbers among the leaves of the parameters, and values, features first."""

    skip_at: int
    layer_at: int
    skip: Array
    layer: Array
    slack: float  # what rounding after the prox may do to a bound, relative


class Hierarchical(Penalty):
    """lam * sum_j |skip_j|_2, and inf unless |layer_jk| <= M * |skip_j|_2."""

    lam: ArrayLike
    M: ArrayLike
    skip: Selector = static_field()
    layer: Selector = static_field()
    smooth, convex = False, False

    def __repr__(self) -> str:
        strengths = f"{shown(self.lam)}, M={shown(self.M)}"
        return f"hierarchical({strengths}, skip={self.skip!r}, layer={self.layer!r})"

    def __call__(self, params: PyTree) -> Array:
        pair = self._pair(params)
        size = group_norm(pair.skip, 1)
        reach = (1 + pair.slack) * jnp.asarray(self.M, size.dtype) * size
        value = jnp.asarray(self.lam, size.dtype) * jnp.sum(size)
        return value + jnp.where(jnp.all(jnp.abs(pair.layer) <= reach), 0, jnp.inf)

    def prox(self, params: PyTree, step: ArrayLike | PyTree) -> PyTree:
        pair, tree = self._pair(params), _tree.flatten(params)
        steps = _tree.prefix_leaves(check_step(self.label, step), params, self.label, "step")
        lam, M = (jnp.asarray(v, pair.skip.dtype) for v in (self.lam, self.M))
        ours = steps[pair.skip_at], steps[pair.layer_at]
        if ours[0] is ours[1] and jnp.ndim(ours[0]) == 0:
            moved = prox.hierarchical(pair.skip, pair.layer, ours[0] * lam, M)
        else:
            shapes = [tree.values[i] for i in pair[:2]]
            names = [tree.paths[i] for i in pair[:2]]
            fit = [fitted(s, x, self.label, "step", p) for s, x, p in zip(ours, shapes, names)]
            # One step per feature: all skip weights of a feature move along one ray.
            one_step(self.label, fit[0], tuple(range(1, fit[0].ndim)))
            rows = fit[0].reshape(-1, 1) if fit[0].ndim else fit[0]
            moved = prox.hierarchical(pair.skip, pair.layer, lam, M, steps=(rows, fit[1]))
        return _replaced(params, pair, moved)

    def min_norm_subgradient(self, params: PyTree, grad: PyTree) -> PyTree:
        """The least-norm element of grad + the regular (Frechet) subdifferential; inf outside the set.

        It says more than the limiting one, which where a feature is 0 takes in the slopes of every way
        out: a local minimiser has 0 here.
        """
        at, pull = self._pair(params), self._pair(grad)
        lam, M = (jnp.asarray(v, at.skip.dtype) for v in (self.lam, self.M))
        here = group_norm(at.skip, 1) > 0
        rests = zip(_rest_inside(at, pull, lam, M), _rest_at_zero(pull, lam, M))
        found = [jnp.where(here, inside, at_zero) for inside, at_zero in rests]
        held = jnp.abs(at.layer) <= (1 + at.slack) * M * group_norm(at.skip, 1)
        held = jnp.all(held, 1, keepdims=True)
        return _replaced(grad, pull, [jnp.where(held, r, jnp.inf) for r in found])

    def lambda_max(self, grad_at_zero: PyTree) -> Array:
        """max_j |g_skip_j|_2 + M * |g_layer_j|_1: what a feature gains by the best way out of 0."""
        pull = self._pair(grad_at_zero)
        M = jnp.asarray(self.M, pull.skip.dtype)
        gain = group_norm(pull.skip, 1) + M * jnp.sum(jnp.abs(pull.layer), 1, keepdims=True)
        return jnp.max(gain, initial=0.0)

    def support(self, params: PyTree) -> list[bool]:
        pair = self._pair(params)
        return [i in pair[:2] for i in range(len(jax.tree.leaves(params)))]

    def _pair(self, params: PyTree) -> _Pair:
        tree = _tree.flatten(params)
        at = [self._one(name, params) for name in ("skip", "layer")]
        skip, layer = (tree.values[i] for i in at)
        for i in at:
            if not _tree.is_floating(tree.values[i]):
                raise TypeError(
                    f"hierarchical: the leaf {tree.paths[i]!r} is {kind(tree.values[i])}, and only "
                    "real floating arrays can be penalized."
                )
        shapes = jnp.shape(skip), jnp.shape(layer)
        if len(shapes[0]) not in (1, 2) or len(shapes[1]) != 2 or shapes[0][0] != shapes[1][0]:
            raise ValueError(
                f"hierarchical: `skip` {tree.paths[at[0]]!r} has shape {shapes[0]} and `layer` "
                f"{tree.paths[at[1]]!r} has {shapes[1]}; they must be [features] or [features, outputs], "
                "and [features, units]."
            )
        rows = upcast(skip).reshape(shapes[0][0], -1)
        slack = max(4 * _rounding(skip), 4 * _rounding(layer), 512 * _rounding(rows))
        return _Pair(at[0], at[1], rows, upcast(layer), slack)

    def _one(self, name: str, params: PyTree) -> int:
        rule = getattr(self, name)
        try:
            hits = [i for i, hit in enumerate(rule.mask(params)) if hit]
        except ValueError as error:
            raise ValueError(f"hierarchical: `{name}`: {error}") from error
        if len(hits) != 1:
            paths = [_tree.flatten(params).paths[i] for i in hits]
            raise ValueError(
                f"hierarchical: `{name}` {rule!r} must select one leaf, and it selects {paths}."
            )
        return hits[0]


def _rest_at_zero(pull: _Pair, lam: Array, M: Array) -> tuple[Array, Array]:
    """What is left of the pull at features that are 0: it is less its projection on a dual ball.

    A direction (b, W) may be taken if |W_k| <= M |b|, and then costs lam |b|, so (a, c) is a slope
    where |a|_2 + M |c|_1 <= lam. Projecting cuts |g_skip| at a level and |g_layer| at M times it.
    """
    size = group_norm(pull.skip, 1)
    levels = jnp.concatenate([size, M * jnp.abs(pull.layer)], 1)
    weights = jnp.concatenate([jnp.ones_like(size), jnp.broadcast_to(M**2, pull.layer.shape)], 1)
    level = waterline(levels, weights, lam, 0.0, 1)
    cut = jnp.where(size > level, level / jnp.where(size > level, size, 1), 1)
    return cut * pull.skip, jnp.clip(pull.layer, -M * level, M * level)


def _rest_inside(at: _Pair, pull: _Pair, lam: Array, M: Array) -> tuple[Array, Array]:
    """What is left of the pull at features that are not 0, less what the bounds they touch take up.

    With s = skip / |skip|, the slopes are (lam s - M s sum_k mu_k, sign(W_k) mu_k), mu_k >= 0 where
    |W_k| = M |skip| and 0 elsewhere. What is left along s is -tau, and mu_k = (c_k - M tau)+, with
    c_k = -sign(W_k) g_k: a waterline, sum_k M (c_k - M tau)+ = tau + <g_skip, s> + lam.
    """
    size = group_norm(at.skip, 1)
    unit = at.skip / jnp.where(size > 0, size, 1)
    along = jnp.sum(unit * pull.skip, 1, keepdims=True)
    sign, reach = jnp.sign(at.layer), M * size
    bound = (jnp.abs(at.layer) >= (1 - at.slack) * reach) & (reach > 0)
    push = jnp.where(bound, -M * sign * pull.layer, -jnp.inf)
    tau = waterline(push, M**2, along + lam, 1.0, 1, floor=-jnp.inf)
    left = jnp.where(bound, sign * jnp.maximum(sign * pull.layer, -M * tau), pull.layer)
    # With M = 0 the layer is held at 0, whichever way it is pulled.
    return pull.skip - (along + tau) * unit, jnp.where(M > 0, left, 0)


def _replaced(tree: PyTree, pair: _Pair, found: Iterable[Array]) -> PyTree:
    """`tree` with its two leaves replaced, in their shapes and dtypes."""
    leaves = _tree.flatten(tree)
    values = list(leaves.values)
    for i, x in zip(pair[:2], found):
        values[i] = x.reshape(jnp.shape(values[i])).astype(jnp.result_type(values[i]))
    return leaves.rebuild(values)


def _rounding(x: Any) -> float:
    return float(jnp.finfo(jnp.result_type(x)).eps)


def hierarchical(
    lam: ArrayLike, M: ArrayLike = 10.0, *, skip: Selector | str, layer: Selector | str
) -> Penalty:
    """lam * sum_j |theta_j|_2 over features, with |W_jk| <= M * |theta_j|_2 on the first layer.

    LassoNet's penalty: theta are the weights of a linear skip connection from the inputs to the
    outputs, W those of the first hidden layer. To pick the inputs of a neural net: along a path of
    growing lam, features leave the net one after another, from a dense net down to none.

    It is a constraint, too, so use it through `proximal` (any rule with one step for all of a
    feature's skip weights); its gradient is that of the first term alone. It is not convex, the prox
    is its global minimiser; `subdiff_distance` is 0 at every local one, and inf outside the bounds.

    Args:
      lam: strength >= 0, a number.
      M: how much larger than its skip weights a feature's layer weights may be, >= 0. 0 leaves the
        linear model, large values nearly free layer weights. The paper's default is 10.
      skip: selector or glob of the one leaf theta, [features] or [features, outputs].
      layer: selector or glob of the one leaf W, [features, units].

    Raises:
      ValueError: a strength is negative or NaN; at the first call, a selector does not match exactly
        one leaf, or the shapes do not fit.

    Source: Lemhadri, Ruan, Abraham & Tibshirani, LassoNet (2021), whose Hier-Prox finds the same root
    by a sort. Linear: a few sums.
    >>> import jaxreg as jr
    >>> reg = jr.hierarchical(1.0, M=1.0, skip="skip", layer="layer")
    >>> params = {"layer": jnp.array([[3.0], [0.1]]), "skip": jnp.array([2.0, 0.1])}
    >>> jax.tree.map(lambda x: x.tolist(), reg.prox(params, 1.0))
    {'layer': [[2.0], [0.0]], 'skip': [2.0, 0.0]}
    >>> reg.lambda_max(params).item()  # of the larger feature, |2| + M * |3|
    5.0
    """
    rules = []
    for name, rule in (("skip", skip), ("layer", layer)):
        if not isinstance(rule, (str, Selector)):
            raise TypeError(f"hierarchical: `{name}` must be a selector or a glob, got {rule!r}.")
        rules.append(as_selector(rule))
    checked = [strength("hierarchical", n, v) for n, v in (("lam", lam), ("M", M))]
    for name, value in zip(("lam", "M"), checked):
        if not isinstance(value, Array) or value.ndim:
            raise TypeError(f"hierarchical: `{name}` must be one number, got {shown(value)}.")
    return Hierarchical(*checked, *rules)
