"""Penalties around an earlier solution: stay near the weights that already knew something.

lam/2 * sum F (theta - center)^2 with F = 1 is L2-SP (fine-tuning stays near the pretrained
weights), with F the Fisher information EWC (a new task spares the weights the old one needs). The
centre may lack leaves that the parameters have, such as a new head. `fisher_diagonal` and
`adaptive_weights` compute what an earlier solution has to say. Any other penalty takes a centre by
`penalty.around(center)`.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from jaxreg import _tree
from jaxreg._check import above, at_least_float, number, size, strength, upcast
from jaxreg._tree import PyTree
from jaxreg.leaf import LeafPenalty
from jaxreg.penalties._common import optional
from jaxreg.penalty import Penalty, Quadratic

__all__ = ["adaptive_weights", "ewc", "fisher_diagonal", "l2_sp"]


class Anchored(LeafPenalty):
    """mu/2 * (theta - center)^2, with mu and center found leaf by leaf."""

    lam: ArrayLike | PyTree
    center: PyTree
    smooth, convex = True, True

    @abc.abstractmethod
    def resolve(self, params: PyTree) -> Anchored:
        """Itself with every field like `params`, so with mu = 0 where nothing is penalized."""

    @abc.abstractmethod
    def mu(self) -> Array:
        """The strength on one leaf."""

    def leaf_value(self, x: Array) -> Array:
        gap = x - self.center
        # In this order a huge gap at mu = 0 costs 0, and not 0 * inf.
        return 0.5 * jnp.sum(self.mu() * gap * gap)

    def leaf_prox(self, x: Array, step: Array) -> Array:
        # A move from x by a share of the way: at mu = 0 it is the identity to the last bit.
        return x + (self.center - x) * (1 - 1 / (1 + step * self.mu()))

    def leaf_conjugate(self, dual: Array) -> Array:
        mu = jnp.broadcast_to(self.mu(), dual.shape)
        ratio = jnp.where(mu > 0, jnp.square(dual) / jnp.where(mu > 0, mu, 1), jnp.inf)
        return jnp.sum(jnp.where(dual == 0, 0, 0.5 * ratio + self.center * dual))

    def lambda_max(self, grad_at_zero: PyTree) -> Array:
        del grad_at_zero
        raise ValueError(
            f"{self.label}: it pulls to its center and not to 0, so no `lam` makes 0 stationary."
        )

    def quadratic(self, params: PyTree) -> list[Quadratic]:
        touched = zip(self.on_leaves(params), self.support(params))
        return [Quadratic(leaf.mu(), leaf.center) for (_, _, leaf), hit in touched if hit]

    def on_leaves(self, params: PyTree) -> Iterator[tuple[str, Any, Any]]:
        return LeafPenalty.on_leaves(self.resolve(params), params)


class L2SP(Anchored):
    """lam/2 * |theta - center|^2, and beta/2 * |theta|^2 on leaves without a centre."""

    beta: ArrayLike | PyTree = None

    def resolve(self, params: PyTree) -> L2SP:
        centers = _tree.values_by_path(self.center, params, "l2_sp", "center")
        lams = _tree.prefix_leaves(self.lam, params, "l2_sp", "lam")
        beta = 0.0 if self.beta is None else self.beta
        betas = _tree.prefix_leaves(beta, params, "l2_sp", "beta")
        strengths = [b if c is None else lam for lam, b, c in zip(lams, betas, centers)]
        rebuild = _tree.flatten(params).rebuild
        return L2SP(rebuild(strengths), rebuild(_filled(centers)))

    def mu(self) -> Array:
        return jnp.asarray(self.lam)

    def support(self, params: PyTree) -> list[bool]:
        centers = _tree.values_by_path(self.center, params, "l2_sp", "center")
        return [c is not None or self.beta is not None for c in centers]


class EWC(Anchored):
    """lam/2 * sum fisher * (theta - center)^2."""

    fisher: PyTree

    def resolve(self, params: PyTree) -> EWC:
        centers = _tree.values_by_path(self.center, params, "ewc", "center")
        fishers = _tree.values_by_path(self.fisher, params, "ewc", "fisher")
        lacking = [
            path
            for path, c, f in zip(_tree.flatten(params).paths, centers, fishers)
            if c is not None and f is None
        ]
        if lacking:
            raise ValueError(
                f"ewc: `fisher` has no leaf {lacking[0]!r}, which `center` has. Compute it with "
                "fisher_diagonal at the same parameters, or drop the leaf from `center`."
            )
        paired = [None if c is None else f for f, c in zip(fishers, centers)]
        rebuild = _tree.flatten(params).rebuild
        lams = rebuild(_tree.prefix_leaves(self.lam, params, "ewc", "lam"))
        return EWC(lams, rebuild(_filled(centers)), rebuild(_filled(paired)))

    def mu(self) -> Array:
        return jnp.asarray(self.lam) * jnp.asarray(self.fisher)

    def support(self, params: PyTree) -> list[bool]:
        return [c is not None for c in _tree.values_by_path(self.center, params, "ewc", "center")]


def _filled(values: list[Any]) -> list[Any]:
    return [0.0 if v is None else v for v in values]


def l2_sp(
    lam: ArrayLike | PyTree, center: PyTree, *, beta: ArrayLike | PyTree | None = None
) -> Penalty:
    """lam/2 * |theta - center|^2: fine-tuning that stays near the pretrained weights. Mind the half.

    Weight decay pulls fine-tuned weights to 0 and so away from what was learnt; this pulls back to
    where they started. Smooth, a pure l2 term in the algebra of sums.

    Args:
      lam: strength >= 0: a scalar, a prefix pytree (per layer) or arrays (per coordinate).
      center: the pretrained parameters, matched by path; it may stop early (a prefix) and may lack
        leaves, such as a new head.
      beta: strength of plain l2 on the leaves that `center` lacks; None leaves these alone.

    Raises:
      ValueError: a strength is negative or NaN, or `center` holds NaN; at the first call, a leaf of
        `center` is not among the parameters or has another shape.

    Source: Li, Grandvalet & Davoine (2018), eq. 2. Cost: one pass.
    >>> import jaxreg as jr
    >>> reg = jr.l2_sp(1.0, {"body": jnp.array([1.0, 2.0])}, beta=0.5)
    >>> reg({"body": jnp.array([1.0, 4.0]), "head": jnp.array([2.0])}).item()
    3.0
    """
    anchor = jax.tree.map(lambda c: number("l2_sp", "center", c), center)
    return L2SP(strength("l2_sp", "lam", lam), anchor, optional("l2_sp", "beta", beta))


def ewc(lam: ArrayLike | PyTree, center: PyTree, fisher: PyTree) -> Penalty:
    """lam/2 * sum_i fisher_i * (theta_i - center_i)^2: elastic weight consolidation.

    For tasks learnt one after another: the Fisher information says which weights the old task
    needs, and these are held. Several old tasks are a sum of such terms, whose prox stays exact.
    With mean losses over n_old and n_new examples, lam = n_old / n_new makes it the Laplace
    approximation of training on both.

    Args:
      lam: strength >= 0: a scalar, a prefix pytree (per layer) or arrays (per coordinate).
      center: the parameters after the old task, matched by path; leaves it lacks are left alone.
      fisher: information >= 0 in the same form, for instance of `fisher_diagonal`.

    Raises:
      ValueError: a strength or information is negative or NaN; at the first call, a leaf is not
        among the parameters, has another shape, or is in `center` and not in `fisher`.

    Source: Kirkpatrick et al. (2017), eq. 3. Cost: one pass.
    >>> import jaxreg as jr
    >>> reg = jr.ewc(2.0, {"w": jnp.zeros(2)}, {"w": jnp.array([1.0, 0.0])})
    >>> reg({"w": jnp.array([3.0, 5.0])}).item()
    9.0
    """
    anchor = jax.tree.map(lambda c: number("ewc", "center", c), center)
    information = jax.tree.map(lambda f: strength("ewc", "fisher", f), fisher)
    return EWC(strength("ewc", "lam", lam), anchor, information)


def fisher_diagonal(
    loss: Callable[..., Array], params: PyTree, data: Any, *, batch_size: int = 32
) -> PyTree:
    """Mean over examples of each one's squared gradient: the diagonal of the empirical Fisher.

    It is the Fisher information when `loss` is a negative log-likelihood and the labels in `data`
    are drawn from the model; with the observed labels it is the empirical one, which is common but
    another matrix (Kunstner et al. 2019).

    Args:
      loss: loss(params, *batch), the mean over a batch, as for training; it is called on batches
        of one.
      params: where to look, usually after training; floating leaves.
      data: the batch arguments: a tuple of arrays (or pytrees of arrays) with examples on axis 0.
      batch_size: how many examples' gradients are held at once.

    Returns:
      Pytree like `params`, entries >= 0 in float32 at least. Squared units of the gradient.

    Raises:
      ValueError: there is no data, or its arrays differ in length, or `batch_size` is not >= 1.

    Source: Kirkpatrick et al. (2017), methods 2.1.
    >>> loss = lambda w, x: jnp.mean(0.5 * (x - w) ** 2)
    >>> fisher_diagonal(loss, jnp.array(0.0), jnp.array([1.0, 3.0])).item()
    5.0
    """
    batch = data if isinstance(data, tuple) else (data,)
    n, size = _count(batch), min(_at_least_one(batch_size), _count(batch))

    def squares(example: PyTree) -> PyTree:
        grad = jax.grad(loss)(params, *jax.tree.map(lambda a: a[None], example))
        return jax.tree.map(lambda g: jnp.square(upcast(g)), grad)

    def add(total: PyTree, rows: PyTree) -> tuple[PyTree, None]:
        return jax.tree.map(lambda t, s: t + jnp.sum(s, 0), total, jax.vmap(squares)(rows)), None

    whole = n - n % size
    chunks = jax.tree.map(lambda a: a[:whole].reshape(-1, size, *a.shape[1:]), batch)
    zero = jax.tree.map(lambda p: jnp.zeros(jnp.shape(p), _tree.accumulator(p)), params)
    total, _ = lax.scan(add, zero, chunks)
    if whole < n:
        total, _ = add(total, jax.tree.map(lambda a: a[whole:], batch))
    return jax.tree.map(lambda t: t / n, total)


def _at_least_one(batch_size: int) -> int:
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(
            f"fisher_diagonal: `batch_size` must be an integer >= 1, got {batch_size!r}."
        )
    return batch_size


def _count(batch: tuple[Any, ...]) -> int:
    lengths = [jnp.shape(a)[0] if jnp.ndim(a) else None for a in jax.tree.leaves(batch)]
    if not lengths or None in lengths or len(set(lengths)) > 1 or not lengths[0]:
        raise ValueError(
            "fisher_diagonal: `data` must hold arrays with the same number (at least one) of examples "
            f"on axis 0, got the lengths {lengths}."
        )
    return lengths[0]


def adaptive_weights(
    params: PyTree, power: ArrayLike = 1.0, *, epsilon: ArrayLike = 1e-3
) -> PyTree:
    """1 / (|theta| + epsilon)^power: weights that spare what an earlier fit found large.

    `l1(lam, weights=adaptive_weights(first_fit))` is the adaptive lasso, which removes most of the
    lasso's bias; repeated, with power 1, it descends on `log_sum(lam, epsilon)`.

    Args:
      params: an earlier solution; the result has its structure. Leaves that are not floating get
        weight 1, so that a whole model may be given.
      power: >= 0; 0 gives weights 1, larger ones spare large entries more.
      epsilon: > 0, caps the weight of an exact zero at epsilon^-power. Units of the parameters.

    Returns:
      Pytree like `params`, in float32 at least. Constants: no gradient flows back into `params`.

    Raises:
      ValueError: `power` is negative or `epsilon` not > 0.

    Source: Zou (2006), eq. 4; with epsilon: Candes, Wakin & Boyd (2008), eq. 7.
    >>> adaptive_weights({"w": jnp.array([1.0, 0.0])}, epsilon=0.5)["w"].tolist()
    [0.66..., 2.0]
    """
    power = size("adaptive_weights", "power", power)
    epsilon = above("adaptive_weights", "epsilon", epsilon, 0)

    def weight(x: Any) -> Array:
        if not _tree.is_floating(x):
            return jnp.ones(())
        size = jnp.abs(jnp.asarray(x, at_least_float(x))) + epsilon
        return lax.stop_gradient(size ** (-jnp.asarray(power)))

    return jax.tree.map(weight, params)
