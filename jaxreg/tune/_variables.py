"""Entries of the parameters as variables: those of the leaves that a selector takes, and their families."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxreg import _tree
from jaxreg.results import SweepResult
from jaxreg.select import Selector

__all__ = ["check_options", "chosen", "families_of", "flat"]


def chosen(found: SweepResult, selector: Selector) -> dict[str, np.ndarray]:
    """Leaf path -> [K, lanes, *shape], the leaves that a selector takes; lanes are folds and seeds."""
    leaves = _tree.flatten(found.params)
    mask = selector.mask(_tree.held(found.lane(0)))
    lanes = lambda x: np.asarray(x).reshape(len(x), -1, *np.shape(x)[3:])
    return {p: lanes(x) for p, x, taken in zip(leaves.paths, leaves.values, mask) if taken}


def check_options(owner: str, options: Mapping[str, Any], own: str) -> None:
    """Refuse options of a sweep that are made here, or after which its lanes do not compare.

    Raises:
      ValueError: there is one.
    """
    made = [name for name in ("folds", "validation") if options.get(name) is not None]
    if made:
        raise ValueError(
            f"{owner}: `{made[0]}` must be left away, since {own} are drawn here, got "
            f"{type(options[made[0]]).__name__}."
        )
    if options.get("halving") is not None:
        raise ValueError(
            f"{owner}: `halving` gives points up, whose variables then do not compare; leave it away, got "
            f"{options['halving']!r}."
        )


def flat(x: np.ndarray) -> np.ndarray:
    """[K, *variables] -> [K, variables]."""
    return x.reshape(len(x), -1)


def families_of(shapes: dict[str, tuple[int, ...]], labels: Any) -> np.ndarray:
    """The family of every variable, leaf after leaf.

    Args:
      shapes: leaf path -> the shape of its variables.
      labels: an array of numbers or names, in that shape or one for each row; of several leaves a dict of
        them; None makes each leaf a family.

    Raises:
      ValueError: they do not fit. TypeError: they are no labels.
    """
    if labels is None:
        return np.concatenate([np.full(int(np.prod(s)), path) for path, s in shapes.items()])
    if not isinstance(labels, Mapping):
        if len(shapes) > 1:
            raise TypeError(
                f"stability: `labels` must be a dict of the leaves {', '.join(shapes)}, got a "
                f"{type(labels).__name__}."
            )
        labels = dict.fromkeys(shapes, labels)
    if set(labels) != set(shapes):
        raise ValueError(
            f"stability: `labels` must name the leaves {', '.join(shapes)}, got "
            f"{', '.join(map(str, labels)) or 'none'}."
        )
    return np.concatenate([_of_shape(path, labels[path], s) for path, s in shapes.items()])


def _of_shape(path: str, labels: Any, shape: tuple[int, ...]) -> np.ndarray:
    array = np.asarray(labels)
    if array.dtype == object and all(isinstance(x, str) for x in array.ravel()):
        array = array.astype(str)  # as a column of a frame has them
    if array.dtype.kind not in "iubU":
        raise TypeError(
            f"stability: `labels` of {path} must be whole numbers or names, got {array.dtype}."
        )
    if array.shape not in (shape, shape[:1]):
        raise ValueError(
            f"stability: `labels` of {path} must have the shape {list(shape)} of its variables, or one "
            f"label for each of its {shape[0] if shape else 1} rows, got {list(array.shape)}."
        )
    wide = array.reshape(*array.shape, *[1] * (len(shape) - array.ndim))
    return np.broadcast_to(wide, shape).ravel()
