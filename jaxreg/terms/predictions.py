"""Terms on predictions: how sure they are, and how little they change where they should not.

| term | value |
|---|---|
| adversarial | mean over rows of KL(p(x) || p(x + r)), r the worst step of a length |
| consistency | mean over rows of the squared distance of two predictions, the second held |
| confidence, entropy | mean over rows of −H(p), of H(p) |

Sources: virtual adversarial training, Miyato et al. 2018 (eqs. 6 to 8, algorithm 1); consistency, Tarvainen
& Valpola 2017; confidence, Pereyra et al. 2017; entropy, Grandvalet & Bengio 2004.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxreg import _tree
from jaxreg._check import above, check_key, count
from jaxreg.terms._base import Term, lam_of, outputs_of, rows_of
from jaxreg.value import static_field

__all__ = [
    "Adversarial", "Confidence", "Consistency", "Entropy", "adversarial", "confidence", "consistency",
    "entropy",
]  # fmt: skip

_NEAR = 1e-3  # ξ of Miyato et al., in units of the inputs' root mean square


class Adversarial(Term):
    """lam * mean over rows of KL(p(x) || p(x + r)), |r| = radius, r by power iteration."""

    lam: Any
    radius: Any
    steps: int = static_field()

    def value(self, logits: Callable, x: Array, key: Array) -> Array:
        rows_of(self, "x", x, 2, "[rows, ...]")
        if len(outputs_of(self, logits, x).shape) != 2:
            raise ValueError(
                "adversarial: `fun` must give logits [rows, classes], got shape "
                f"{list(outputs_of(self, logits, x).shape)}."
            )
        held = jax.lax.stop_gradient(logits(x))
        near = _NEAR * jnp.sqrt(jnp.mean(jnp.square(x)) + jnp.finfo(x.dtype).tiny)
        apart = lambda r: jnp.mean(_divergence(held, logits(x + r)))
        check_key("adversarial", key)
        way = _unit(jax.random.normal(key, x.shape, x.dtype))
        for _ in range(self.steps):
            way = jax.lax.stop_gradient(_unit(jax.grad(apart)(near * way)))
        return apart(jax.lax.stop_gradient((self.radius * way).astype(x.dtype)))


class Consistency(Term):
    """lam * mean over rows of the squared distance between two predictions; the second is held."""

    lam: Any

    def value(self, predicted: Array, target: Array) -> Array:
        a = rows_of(self, "predicted", predicted, 2, "[rows, outputs]")
        b = rows_of(self, "target", target, 2, "[rows, outputs]")
        if a.shape != b.shape:
            raise ValueError(
                "consistency: `target` must have the shape of `predicted`, "
                f"{list(a.shape)}, got {list(b.shape)}."
            )
        return jnp.mean(jnp.sum(jnp.square(a - jax.lax.stop_gradient(b)), -1))


class Confidence(Term):
    """lam * mean over rows of the negative entropy of the predicted classes."""

    lam: Any

    def value(self, logits: Array) -> Array:
        return -_entropy(self, logits)


class Entropy(Term):
    """lam * mean over rows of the entropy of the predicted classes."""

    lam: Any

    def value(self, logits: Array) -> Array:
        return _entropy(self, logits)


def _entropy(term: Term, logits: Any) -> Array:
    log_p = jax.nn.log_softmax(rows_of(term, "logits", logits, 2, "[rows, classes]"), -1)
    return -jnp.mean(jnp.sum(jnp.exp(log_p) * log_p, -1))


def _divergence(held: Array, logits: Array) -> Array:
    """KL(softmax(held) || softmax(logits)) of each row."""
    p, q = (jax.nn.log_softmax(a.astype(_tree.accumulator(a)), -1) for a in (held, logits))
    return jnp.sum(jnp.exp(p) * (p - q), -1)


def _unit(way: Array) -> Array:
    """Each row of length 1; a row of zeros stays."""
    axes = tuple(range(1, way.ndim))
    squares = jnp.sum(jnp.square(way.astype(_tree.accumulator(way))), axes, keepdims=True)
    length = jnp.sqrt(jnp.where(squares > 0, squares, 1))
    return (way / length).astype(way.dtype)


# --- constructors ------------------------------------------------------------------------------------


def adversarial(lam: ArrayLike, radius: ArrayLike, steps: int = 1) -> Adversarial:
    """lam * mean KL(p(x) || p(x + r)) at the worst r of a length: virtual adversarial training.

    Called as term(logits, x, key), with logits: x -> [rows, classes].

    Args:
      lam: strength >= 0.
      radius: ε > 0, the length of r, in units of the inputs.
      steps: of the power iteration, each of which costs a gradient.

    Raises:
      TypeError, ValueError: `lam` is no number >= 0, `radius` not above 0, or `steps` no integer.

    >>> term = adversarial(1.0, radius=0.1)
    >>> term(lambda x: 0 * x, jnp.ones((4, 3)), jax.random.key(0)).item()
    0.0
    """
    return Adversarial(
        lam_of("adversarial", lam), above("adversarial", "radius", radius, 0),
        count("adversarial", "steps", steps),
    )  # fmt: skip


def consistency(lam: ArrayLike) -> Consistency:
    """lam * mean over rows of |a − b|², b held: two noisy passes, or a student and its averaged teacher.

    Args:
      lam: strength >= 0.

    Raises:
      TypeError, ValueError: `lam` is no number >= 0; when called, shapes that differ.

    >>> consistency(1.0)(jnp.array([[1.0, 2.0]]), jnp.zeros((1, 2))).item()
    5.0
    """
    return Consistency(lam_of("consistency", lam))


def confidence(lam: ArrayLike) -> Confidence:
    """lam * mean over rows of −H(p): predictions that are not too sure; term(logits).

    Args:
      lam: β >= 0.

    Raises:
      TypeError, ValueError: `lam` is no number >= 0.

    >>> round(confidence(1.0)(jnp.zeros((3, 2))).item(), 4)  # -log 2
    -0.6931
    """
    return Confidence(lam_of("confidence", lam))


def entropy(lam: ArrayLike) -> Entropy:
    """lam * mean over rows of H(p): sure predictions, on rows without labels; term(logits).

    Args:
      lam: strength >= 0.

    Raises:
      TypeError, ValueError: `lam` is no number >= 0.

    >>> round(entropy(1.0)(jnp.zeros((3, 2))).item(), 4)
    0.6931
    """
    return Entropy(lam_of("entropy", lam))
