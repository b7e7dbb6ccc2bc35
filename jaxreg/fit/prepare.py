"""What is learnt from training rows before training: scalers, class weights, vocabularies, of each fold.

A scaler that has seen the validation rows makes every score look better than it is. So `prepare` is called
once for each fold with its training rows alone, on the host, and returns what was learnt of them: a
function on rows, which is applied to all rows of that fold's run, a pytree of numbers, which `init`, the
loss and the metrics get as an argument, or both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxreg import _tree
from jaxreg._tree import PyTree
from jaxreg.fit.intake import as_rows, on_device

__all__ = ["Prepared", "prepared"]

_EXAMPLE = (
    "a function of the training rows, (*rows) -> what was learnt of them: a function (*rows) -> rows, a "
    "pytree of numbers, or a pair of both"
)


class Prepared(NamedTuple):
    """Data and numbers of F folds.

    `data` are arrays of n rows, or of F x n where the rows of each fold are prepared apart; `numbers` has
    leaves [F, ...], or is None.
    """

    data: tuple
    apart: bool = False
    numbers: PyTree = None

    def of_fold(self, fold: int) -> PyTree:
        """The numbers of one fold."""
        return jax.tree.map(lambda x: x[fold], self.numbers)


def prepared(
    owner: str, prepare: Callable | None, data: tuple, trained: Iterable[np.ndarray]
) -> Prepared:
    """Call `prepare` for every fold.

    Args:
      owner: who asks, for errors.
      prepare: the user's function, or None.
      data: concrete arrays of n rows.
      trained: of each fold, the rows that are trained on.

    Raises:
      TypeError: it is no function, or returns something else. ValueError: rows are lost, are no numbers, or
        have another shape in each fold.
    """
    if prepare is None:
        return Prepared(on_device(owner, "data", data))
    if not callable(prepare):
        raise TypeError(f"{owner}: `prepare` must be {_EXAMPLE}; got a {type(prepare).__name__}.")
    host = jax.tree.map(np.asarray, data)
    learnt = [prepare(*jax.tree.map(lambda a, r=rows: a[r], host)) for rows in trained]
    both = [x if _is_both(x) else (x, None) if callable(x) else (None, x) for x in learnt]
    numbers = None
    if any(x is not None for _, x in both) or not any(callable(f) for f, _ in both):
        each = [_numbers(owner, f, x) for f, (_, x) in enumerate(both)]
        _check_alike(owner, "numbers", each)
        numbers = jax.tree.map(lambda *x: jnp.asarray(np.stack(x)), *each)
    if not any(callable(f) for f, _ in both):
        as_rows(owner, data)  # nothing makes them ready
        return Prepared(on_device(owner, "data", data), numbers=numbers)
    made = [_applied(owner, f, transform, host) for f, (transform, _) in enumerate(both)]
    _check_alike(owner, "rows", made)
    # Still in the precision of the data: what was centred loses nothing in float32.
    rows = jax.tree.map(lambda *a: np.concatenate(a), *made)
    return Prepared(on_device(owner, "rows of `prepare`", rows), True, numbers)


def _is_both(learnt: Any) -> bool:
    return isinstance(learnt, tuple) and len(learnt) == 2 and callable(learnt[0])


def _applied(owner: str, fold: int, transform: Any, data: tuple) -> tuple:
    if not callable(transform):
        raise TypeError(
            f"{owner}: `prepare` returned a function on rows in one fold and none in fold {fold}."
        )
    n = len(jax.tree.leaves(data)[0])
    rows = transform(*data)
    made, count = as_rows(f"{owner}: fold {fold} of `prepare`", rows, "rows")
    if count != n:
        raise ValueError(
            f"{owner}: what `prepare` returned makes {count} rows of {n} in fold {fold}. It must keep "
            "every row: leave rows out of `data` beforehand."
        )
    return jax.tree.map(np.asarray, made)


def _numbers(owner: str, fold: int, learnt: Any) -> PyTree:
    leaves = jax.tree.leaves(learnt)
    good = leaves and all(
        isinstance(x, (int, float, np.generic, np.ndarray, jax.Array)) for x in leaves
    )
    if not good:
        kind = "None" if learnt is None else f"a {type(learnt).__name__}"
        raise TypeError(
            f"{owner}: `prepare` must be {_EXAMPLE}; in fold {fold} it returned {kind} with something else "
            "in it."
        )
    as_array = lambda x: np.asarray(x, np.float32 if isinstance(x, float) else None)
    return jax.tree.map(as_array, learnt)


def _check_alike(owner: str, what: str, made: Sequence[PyTree]) -> None:
    """One program trains all folds, so their arrays have one shape."""
    first = _shapes(made[0])
    for fold, other in enumerate(made):
        if _shapes(other) != first:
            raise ValueError(
                f"{owner}: what `prepare` returned makes {what} of the shapes {_shapes(other)} in fold "
                f"{fold} and {first} in fold 0, and all folds are one program. Pad them to one shape, "
                "such as a vocabulary to its largest size."
            )


def _shapes(tree: PyTree) -> dict[str, list[int]]:
    leaves = _tree.flatten(tree)
    return {p: list(np.shape(x)) for p, x in zip(leaves.paths, leaves.values)}
