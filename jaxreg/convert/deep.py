"""Networks: scikit-learn's MLP, Keras, PyTorch, and what is called AdamW."""

from __future__ import annotations

from typing import Any, Literal

from jaxreg.convert._common import given, positive

__all__ = [
    "from_adamw",
    "from_keras_l1",
    "from_keras_l2",
    "from_sklearn_mlp",
    "from_torch_weight_decay",
    "to_adamw",
    "to_keras_l1",
    "to_keras_l2",
    "to_sklearn_mlp",
    "to_torch_weight_decay",
]


def from_sklearn_mlp(alpha: Any, batch_size: Any) -> Any:
    """lam = alpha / batch_size for `MLPClassifier(alpha=...)` and `MLPRegressor`.

    Their loss is a mean over the batch and their penalty alpha/2 |W|^2 over the batch's size: the
    same alpha is another strength at another batch size. The default batch is min(200, n), the
    last of an epoch may be smaller, lbfgs takes all examples as one. Biases are not penalized:
    `l2(lam).on(jaxreg.kernels)`.

    >>> from_sklearn_mlp(alpha=1e-2, batch_size=200)
    5e-05
    """
    owner = "from_sklearn_mlp"
    (alpha,), (size,) = given(owner, alpha=alpha), positive(owner, batch_size=batch_size)
    return alpha / size


def to_sklearn_mlp(lam: Any, batch_size: Any) -> Any:
    """alpha = lam * batch_size, the inverse of `from_sklearn_mlp`.

    >>> to_sklearn_mlp(0.5, batch_size=200)
    100.0
    """
    owner = "to_sklearn_mlp"
    (lam,), (size,) = given(owner, lam=lam), positive(owner, batch_size=batch_size)
    return lam * size


def from_keras_l1(factor: Any) -> Any:
    """lam = factor for `keras.regularizers.L1(factor)`, factor * sum |w|: the same as `l1`.

    >>> from_keras_l1(0.01)
    0.01
    """
    return given("from_keras_l1", factor=factor)[0]


def to_keras_l1(lam: Any) -> Any:
    """factor = lam, the inverse of `from_keras_l1`.

    >>> to_keras_l1(0.01)
    0.01
    """
    return given("to_keras_l1", lam=lam)[0]


def from_keras_l2(factor: Any) -> Any:
    """lam = 2 * factor for `keras.regularizers.L2(factor)`, factor * sum w^2: there is no half.

    A `weight_decay` of a Keras optimizer is something else, AdamW's: see `from_adamw`.

    >>> from_keras_l2(0.01)
    0.02
    """
    return 2 * given("from_keras_l2", factor=factor)[0]


def to_keras_l2(lam: Any) -> Any:
    """factor = lam / 2, the inverse of `from_keras_l2`.

    >>> to_keras_l2(0.02)
    0.01
    """
    return given("to_keras_l2", lam=lam)[0] / 2


def from_torch_weight_decay(weight_decay: Any) -> Any:
    """lam = weight_decay for the `weight_decay` of `torch.optim.SGD`, `Adam` and the like.

    They add weight_decay * p to the gradient, which is that of `l2(lam)`: a coupled decay, of every
    parameter given, biases and norms too. `add_penalty_gradient(l2(lam))` first in a chain is the
    same. For `torch.optim.AdamW` see `from_adamw`.

    >>> from_torch_weight_decay(1e-4)
    0.0001
    """
    return given("from_torch_weight_decay", weight_decay=weight_decay)[0]


def to_torch_weight_decay(lam: Any) -> Any:
    """weight_decay = lam, the inverse of `from_torch_weight_decay`.

    >>> to_torch_weight_decay(1e-4)
    0.0001
    """
    return given("to_torch_weight_decay", lam=lam)[0]


Variant = Literal["scaled", "paper", "step"]


def from_adamw(weight_decay: Any, *, variant: Variant = "scaled", learning_rate: Any = None) -> Any:
    """lam for `decoupled(direction, l2(lam), learning_rate)` from a decoupled weight decay.

    In a step every parameter loses the fraction lr_t * lam. What others call weight decay is

      "scaled": lr_t * weight_decay is lost, with a schedule too: PyTorch, optax, Keras.
      "paper":  lr_t / lr * weight_decay is lost: Loshchilov & Hutter multiply the decay by the
                schedule's multiplier and not by the base rate lr; big_vision does, too.
      "step":   weight_decay itself is lost, whatever the rate: optax.adafactor.

    Args:
      weight_decay: >= 0, a number or an array.
      variant: what it means there.
      learning_rate: the base rate lr for "paper", the constant rate for "step", > 0. (Under a
        schedule "step" is `decoupled(..., l2(weight_decay), scale_by_lr=False)`.)

    Raises:
      ValueError: an unknown `variant`, `weight_decay` < 0, or no `learning_rate` where needed.

    Source: Loshchilov & Hutter, Decoupled Weight Decay Regularization (2019), algorithm 2.
    >>> from_adamw(0.01)
    0.01
    >>> round(from_adamw(0.0005, variant="paper", learning_rate=0.001), 6)
    0.5
    """
    (decay,) = given("from_adamw", weight_decay=weight_decay)
    return decay / _rate("from_adamw", variant, learning_rate)


def to_adamw(lam: Any, *, variant: Variant = "scaled", learning_rate: Any = None) -> Any:
    """weight_decay = lam, or lam * learning_rate: the inverse of `from_adamw`.

    >>> to_adamw(0.5, variant="paper", learning_rate=0.001)
    0.0005
    """
    (lam,) = given("to_adamw", lam=lam)
    return lam * _rate("to_adamw", variant, learning_rate)


def _rate(owner: str, variant: str, learning_rate: Any) -> Any:
    """What the fraction that a step loses is divided by to have lam."""
    if variant not in ("scaled", "paper", "step"):
        raise ValueError(
            f"{owner}: `variant` must be 'scaled', 'paper' or 'step', got {variant!r}."
        )
    if learning_rate is not None:
        positive(owner, learning_rate=learning_rate)
    if variant == "scaled":
        return 1
    if learning_rate is None:
        raise ValueError(
            f"{owner}: variant {variant!r} needs the `learning_rate`; it is not part of the decay."
        )
    return positive(owner, learning_rate=learning_rate)[0]
