"""The models of the command, written in flax linen, with their losses and metrics.

A loss is a mean over rows, so that one λ means the same for every batch and data size:
classification takes the mean softmax cross entropy, regression the mean of ½ (y - f(x))². With the
½, linear least squares with `l2(lam)` is mean ½ (y - Xw)² + lam/2 |w|², solved by
(XᵀX/n + lam) w = Xᵀy/n.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jax import Array

from jaxreg import metrics
from jaxreg._tree import PyTree
from jaxreg.cli.data import Dataset
from jaxreg.cli.data.problems import did_you_mean

__all__ = ["Model", "build", "cnn", "linear", "mlp"]

_OF_QUANTITIES = ("rmse", "r2", "mae", "mse")
_OF_CLASSES = ("accuracy", "balanced_accuracy", "f1", "log_loss", "brier", "calibration_error")
_OF_TWO_CLASSES = ("roc_auc", "average_precision")


class Model(NamedTuple):
    """A model as pure functions, ready for `jaxreg.Trainer`.

    Attributes:
      init: key -> params, flax variables such as {"params": {"Dense_0": {"kernel": ..., "bias": ...}}}.
      apply: (params, x [n, d]) -> logits [n, n_classes], or outputs [n] for regression.
      loss: (params, x, y) -> the mean loss over the rows, a scalar.
      metrics: name -> one of `jaxreg.metrics` of the model, the first of them those that are always shown.
    """

    init: Callable[[Array], PyTree]
    apply: Callable[[PyTree, Array], Array]
    loss: Callable[[PyTree, Array, Array], Array]
    metrics: Mapping[str, Callable[[PyTree, Array, Array], Array]]


def build(name: str, dataset: Dataset, hidden: Sequence[int] = (128, 128)) -> Model:
    """A model of the right size for a data set; compiles nothing.

    Args:
      name: mlp, cnn or linear.
      dataset: decides the inputs, the outputs and the loss.
      hidden: widths of the hidden layers of an mlp; other models ignore it.

    Raises:
      ValueError: the name is unknown, a width is not positive, or a cnn is given no images.

    >>> import jax
    >>> from jaxreg.cli import data
    >>> digits = data.load("digits")
    >>> model = build("linear", digits)
    >>> params = model.init(jax.random.key(0))
    >>> jax.tree.map(jnp.shape, params)
    {'params': {'Dense_0': {'bias': (10,), 'kernel': (64, 10)}}}
    >>> model.loss(params, digits.X, digits.y).item()  # log 10: all classes are equal
    2.302...
    """
    if name not in _MODELS:
        hint = did_you_mean(name, _MODELS)
        raise ValueError(f"unknown model {name!r}{hint} There are {', '.join(sorted(_MODELS))}.")
    module = _MODELS[name](dataset, hidden)
    classify = dataset.task == "classification"

    def init(key: Array) -> PyTree:
        return module.init(key, jnp.zeros((1, dataset.n_inputs)))

    def apply(params: PyTree, x: Array) -> Array:
        outputs = module.apply(params, x)
        return outputs if classify else outputs[:, 0]

    loss = _cross_entropy(apply) if classify else _half_squares(apply)
    return Model(init, apply, loss, _metrics(apply, dataset))


def _cross_entropy(apply: Callable) -> Callable:
    def loss(params: PyTree, x: Array, y: Array) -> Array:
        return optax.softmax_cross_entropy_with_integer_labels(apply(params, x), y).mean()

    return loss


def _half_squares(apply: Callable) -> Callable:
    def loss(params: PyTree, x: Array, y: Array) -> Array:
        return 0.5 * jnp.mean(jnp.square(apply(params, x) - y))

    return loss


def _metrics(apply: Callable, dataset: Dataset) -> dict[str, Callable]:
    """Every metric that the data allow."""
    if dataset.task == "regression":
        names = _OF_QUANTITIES
    else:
        names = _OF_CLASSES + _OF_TWO_CLASSES * (dataset.n_classes == 2)
    return {name: getattr(metrics, name).of(apply) for name in names}


def mlp(sizes: Sequence[int]) -> Any:
    """Dense layers with relu between them; `sizes` are the widths from the first hidden layer on.

    Raises:
      ValueError: there is no size, or one is no positive integer.
    """
    if not sizes or any(not isinstance(n, int) or isinstance(n, bool) or n < 1 for n in sizes):
        raise ValueError(
            f"mlp: widths must be positive integers such as (128, 128), got {tuple(sizes)}."
        )
    return _modules()["MLP"](tuple(sizes))


def linear(n_outputs: int) -> Any:
    """One dense layer that starts at zero: linear or logistic regression."""
    return _modules()["Linear"](n_outputs)


def cnn(n_outputs: int, image_shape: tuple[int, int, int]) -> Any:
    """Two 3 x 3 convolutions (the second with stride 2) with relu, and a dense layer.

    Takes flat rows, which it reshapes to `image_shape` = (height, width, channels).
    """
    return _modules()["CNN"](n_outputs, tuple(image_shape))


@functools.cache
def _modules() -> dict[str, Any]:
    """The linen classes; made at first use, since flax is not imported before it is needed."""
    try:
        import flax.linen as nn
    except ImportError as error:
        raise ImportError(
            "the command's models need flax, which is not installed: pip install 'jaxreg[cli]'."
        ) from error

    class MLP(nn.Module):
        sizes: tuple[int, ...]

        @nn.compact
        def __call__(self, x):
            for n in self.sizes[:-1]:
                x = nn.relu(nn.Dense(n)(x))
            return nn.Dense(self.sizes[-1])(x)

    class Linear(nn.Module):
        n_outputs: int

        @nn.compact
        def __call__(self, x):
            return nn.Dense(self.n_outputs, kernel_init=nn.initializers.zeros_init())(x)

    class CNN(nn.Module):
        n_outputs: int
        image_shape: tuple[int, int, int]

        @nn.compact
        def __call__(self, x):
            x = x.reshape(-1, *self.image_shape)
            x = nn.relu(nn.Conv(16, (3, 3))(x))
            x = nn.relu(nn.Conv(32, (3, 3), strides=(2, 2))(x))
            return nn.Dense(self.n_outputs)(x.reshape(len(x), -1))

    return {"MLP": MLP, "Linear": Linear, "CNN": CNN}


def _mlp_for(dataset: Dataset, hidden: Sequence[int]) -> Any:
    return mlp((*hidden, dataset.n_outputs))


def _linear_for(dataset: Dataset, hidden: Sequence[int]) -> Any:
    del hidden
    return linear(dataset.n_outputs)


def _cnn_for(dataset: Dataset, hidden: Sequence[int]) -> Any:
    del hidden
    if dataset.image_shape is None:
        raise ValueError(
            f"cnn: {dataset.name} has {dataset.X.shape[1]} plain features and no images. Take mlp or "
            "linear, or an .npz whose X is [n, height, width] or [n, height, width, channels]."
        )
    return cnn(dataset.n_outputs, dataset.image_shape)


_MODELS: dict[str, Callable[[Dataset, Sequence[int]], Any]] = {
    "cnn": _cnn_for,
    "linear": _linear_for,
    "mlp": _mlp_for,
}
