"""Terms on functions: how fast outputs change with inputs, and a loss with its parameters.

A function is given as the loss has it, with its parameters in it: `term(lambda x: critic(params, x), x)`.
Rows of x are along its first axis, and a row's outputs depend on that row alone.

| term | value |
|---|---|
| gradient_penalty | mean over rows of (|∇ₓ f(x)| − target)², f one number a row |
| r1 | mean over rows of ½ |∇ₓ f(x)|² |
| jacobian | an estimate of the mean over rows of |∂f/∂x|²_F, by random projections |
| curvature | an estimate of the trace of the Hessian of a loss by its parameters |
| lipschitz | the product of the spectral norms of the layers |

Sources: Gulrajani et al. 2017 (eq. 3); R1, Mescheder, Geiger & Nowozin 2018 (eq. 9); Drucker & Le Cun 1992
for the gradient of a loss; Jacobian, Hoffman, Roberts & Yaida 2019 (eq. 5 and algorithm 1); trace,
Hutchinson 1989; the product of bounds of layers, Liu et al. 2022, there in another norm; Yoshida & Miyato
2017 penalise half the sum of squared spectral norms in its place.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxreg import _tree
from jaxreg._check import check_key, count, size
from jaxreg._tree import PyTree
from jaxreg.terms._base import Term, lam_of, outputs_of, rows_of
from jaxreg.value import static_field

__all__ = [
    "Curvature", "GradientPenalty", "Jacobian", "Lipschitz", "R1", "between", "curvature",
    "gradient_penalty", "jacobian", "lipschitz", "r1",
]  # fmt: skip


class GradientPenalty(Term):
    """lam * mean over rows of (|gradient by the row| - target)²."""

    lam: Any
    target: Any

    def value(self, fun: Callable, x: Array) -> Array:
        squares = _slopes(self, fun, x)
        # The root has no derivative at 0, where the mean is not moved by it.
        norms = jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1)), 0)
        return jnp.mean(jnp.square(norms - self.target))


class R1(Term):
    """lam * mean over rows of half the squared gradient by the row."""

    lam: Any

    def value(self, fun: Callable, x: Array) -> Array:
        return 0.5 * jnp.mean(_slopes(self, fun, x))


class Jacobian(Term):
    """lam * an estimate of the mean over rows of the squared Frobenius norm of the Jacobian."""

    lam: Any
    probes: int = static_field()

    def value(self, fun: Callable, x: Array, key: Array) -> Array:
        rows_of(self, "x", x, 1, "[rows, ...]")
        check_key(self.label, key)
        shape = outputs_of(self, fun, x).shape
        width = math.prod(shape[1:])

        def one(key: Array) -> Array:
            way = jax.random.normal(key, (shape[0], width))
            way = way / jnp.linalg.norm(way, axis=1, keepdims=True)
            out, pull = jax.vjp(lambda x: fun(x).reshape(shape[0], width), x)
            (slope,) = pull(way.astype(out.dtype))
            return width * jnp.sum(jnp.square(slope.astype(_tree.accumulator(slope)))) / shape[0]

        return jnp.mean(jax.vmap(one)(jax.random.split(key, self.probes)))


class Curvature(Term):
    """lam * an estimate of the trace of the Hessian of a function by its parameters."""

    lam: Any
    probes: int = static_field()

    def value(self, fun: Callable, params: PyTree, key: Array) -> Array:
        check_key(self.label, key)
        leaves, structure = jax.tree.flatten(params)

        def one(key: Array) -> Array:
            keys = jax.random.split(key, len(leaves))
            signs = [jax.random.rademacher(k, x.shape, x.dtype) for k, x in zip(keys, leaves)]
            way = jax.tree.unflatten(structure, signs)
            bent = jax.jvp(jax.grad(fun), (params,), (way,))[1]
            wide = lambda x: x.astype(_tree.accumulator(x))
            return sum(
                jnp.sum(wide(a) * wide(b)) for a, b in zip(signs, jax.tree.leaves(bent))
            ) + jnp.zeros(())

        return jnp.mean(jax.vmap(one)(jax.random.split(key, self.probes)))


class Lipschitz(Term):
    """lam * the product of the spectral norms of the layers."""

    lam: Any

    def value(self, sigmas: PyTree) -> Array:
        found = jax.tree.leaves(sigmas)
        if not found:
            raise ValueError(
                f"lipschitz: `sigmas` must be spectral norms, as reparametrize.power_iteration gives them, "
                f"got {sigmas!r:.60}, which has none."
            )
        whole = [jnp.prod(rows_of(self, "sigmas", s, 0, "of spectral norms")) for s in found]
        return jnp.prod(jnp.stack(whole))


def _slopes(term: Term, fun: Any, x: Any) -> Array:
    """The squared norm of the gradient of each row's number by the row."""
    rows_of(term, "x", x, 1, "[rows, ...]")
    if outputs_of(term, fun, x).shape not in ((len(x),), (len(x), 1)):
        raise ValueError(
            f"{term.label}: `fun` must give one number for each row, got shape "
            f"{list(outputs_of(term, fun, x).shape)}."
        )
    slope = jax.grad(lambda x: jnp.sum(fun(x)))(x)
    return jnp.sum(jnp.square(slope.astype(_tree.accumulator(slope))).reshape(len(x), -1), 1)


# --- constructors ------------------------------------------------------------------------------------


def gradient_penalty(lam: ArrayLike, target: ArrayLike = 1.0) -> GradientPenalty:
    """lam * mean over rows of (|∇ₓ f| − target)²; term(fun, x).

    Args:
      lam: strength >= 0; 10 for a critic of WGAN-GP, on points `between` real and made ones.
      target: the slope that costs nothing; 1 for a critic, 0 for a flat function.

    Raises:
      TypeError, ValueError: `lam` or `target` is no number >= 0; when called, not one number for each row.

    >>> gradient_penalty(1.0)(lambda x: 3 * x[:, 0], jnp.ones((4, 2))).item()
    4.0
    """
    return GradientPenalty(
        lam_of("gradient_penalty", lam), size("gradient_penalty", "target", target)
    )


def r1(lam: ArrayLike) -> R1:
    """lam / 2 * mean over rows of |∇ₓ f|², of a discriminator on real data; term(fun, x).

    Args:
      lam: γ >= 0.

    Raises:
      TypeError, ValueError: `lam` is no number >= 0.

    >>> r1(1.0)(lambda x: 3 * x[:, 0], jnp.ones((4, 2))).item()
    4.5
    """
    return R1(lam_of("r1", lam))


def jacobian(lam: ArrayLike, probes: int = 1) -> Jacobian:
    """lam * an unbiased estimate of the mean of |∂f/∂x|²_F, by projections; called as term(fun, x, key).

    Args:
      lam: strength >= 0.
      probes: projections, each of which costs a backward pass.

    Raises:
      TypeError, ValueError: `lam` is no number >= 0, or `probes` no integer of at least 1.

    >>> term = jacobian(1.0)
    >>> term(lambda x: 3 * x, jnp.ones((4, 1)), jax.random.key(0)).item()
    9.0
    """
    return Jacobian(lam_of("jacobian", lam), count("jacobian", "probes", probes))


def curvature(lam: ArrayLike, probes: int = 1) -> Curvature:
    """lam * an unbiased estimate of the trace of a Hessian by parameters; term(fun, params, key).

    Args:
      lam: strength >= 0.
      probes: vectors of random signs, each of which costs about three gradients.

    Raises:
      TypeError, ValueError: `lam` is no number >= 0, or `probes` no integer of at least 1.

    >>> bowl = lambda w: 0.5 * jnp.sum(jnp.array([1.0, 3.0]) * w**2)
    >>> curvature(1.0)(bowl, jnp.ones(2), jax.random.key(0)).item()
    4.0
    """
    return Curvature(lam_of("curvature", lam), count("curvature", "probes", probes))


def lipschitz(lam: ArrayLike) -> Lipschitz:
    """lam * the product of the layers' spectral norms; term(sigmas), of `reparametrize.power_iteration`.

    The product is an upper bound of the Lipschitz constant of a chain of layers whose activations change no
    faster than their inputs, such as ReLU and tanh. It is often far above the constant itself. It is no
    bound of branches that are added, nor of convolutions, which are read as matrices. A norm from few steps
    of power iteration is from below, so the product is a bound once they have converged.

    Args:
      lam: strength >= 0.

    Raises:
      TypeError, ValueError: `lam` is no number >= 0; when called, no spectral norms.

    >>> lipschitz(0.5)({"a": jnp.array(2.0), "b": {"kernel": jnp.array(3.0)}}).item()
    3.0
    """
    return Lipschitz(lam_of("lipschitz", lam))


def between(real: Array, made: Array, key: Array) -> Array:
    """A point on the line between each real row and a made one, for the penalty of WGAN-GP.

    Args:
      real: [rows, ...].
      made: of the same shape.
      key: PRNG key.

    Raises:
      ValueError: shapes that differ. TypeError: no arrays, or no key.

    >>> between(jnp.zeros((2, 1)), jnp.ones((2, 1)), jax.random.key(0)).shape
    (2, 1)
    """
    if not all(hasattr(a, "shape") for a in (real, made)):
        raise TypeError(
            f"between: `real` and `made` must be arrays, got {real!r:.40} and {made!r:.40}."
        )
    if real.shape != made.shape or not real.shape:
        raise ValueError(
            f"between: `made` must have the shape of `real`, {list(real.shape)}, got {list(made.shape)}."
        )
    check_key("between", key)
    t = jax.random.uniform(key, (len(real), *[1] * (real.ndim - 1)), real.dtype)
    return real + t * (made - real)
