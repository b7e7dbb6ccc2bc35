"""What a sweep is trained on and judged by, from whatever a user gives: rows, weights, folds, a stream."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxreg.fit.classes import missing_classes
from jaxreg.fit.intake import as_rows, check_weights, on_device
from jaxreg.fit.overlap import Known, Met, overlap, refuse_overlap
from jaxreg.fit.prepare import Prepared, prepared
from jaxreg.fit.source import Stream, whole
from jaxreg.fit.splits import Splits, make_splits

__all__ = ["Rows", "check_alike", "gathered"]


class Rows(NamedTuple):
    """What there is to train on and to be judged on."""

    prepared: Prepared  # all rows, those of separate validation data last
    weights: Array | None  # [n]
    splits: Splits
    stream: Stream | None = None  # of what is trained on; then the rows judge alone
    met: Met | None = None  # which of these have come in a stream
    warnings: tuple[str, ...] = ()

    @property
    def stream_rows(self) -> int | None:
        """How many rows a batch of the stream has, of which every process reads its part."""
        return None if self.stream is None else self.stream.rows * jax.process_count()


def gathered(
    data: tuple | Stream,
    validation: tuple | Stream | None,
    folds: Any,
    weights: Any,
    prepare: Callable | None,
    key: Array,
) -> Rows:
    """Everything that `data`, `validation`, `folds`, `sample_weight` and `prepare` of a sweep say.

    Raises:
      ValueError, TypeError: naming the argument and what to do.
    """
    if isinstance(data, Stream):
        return _streamed(data, validation, folds=folds, sample_weight=weights, prepare=prepare)
    ready = prepare is None
    data, n = as_rows("sweep", data, ready=ready)
    known = isinstance(validation, Known)  # before it is converted
    if isinstance(validation, Stream):
        validation = whole(validation)
    n_valid, told = 0, []
    if validation is not None:
        validation, n_valid = as_rows("sweep", validation, "validation", ready=ready)
        check_alike("sweep", data, validation)
    splits = make_splits(folds, n, n_valid, key)
    if validation is not None and not known:
        found = overlap(data, validation)
        told += refuse_overlap("sweep", "`validation`", found, instead=", or give `folds` instead")
    together = data if validation is None else jax.tree.map(_joined, data, tuple(validation))
    if weights is not None:
        if n_valid:
            weights = _both(weights)
        weights = check_weights("sweep", weights, n + n_valid, splits.table.times)
    table = splits.table
    told += missing_classes(table.times, together)
    trained = (rows[:m] for rows, m in zip(table.rows, table.count))
    ready_rows = prepared("sweep", prepare, tuple(together), trained)
    return Rows(ready_rows, weights, splits, warnings=tuple(told))


def _both(weights: Any) -> np.ndarray:
    if not isinstance(weights, (tuple, list)) or len(weights) != 2:
        raise ValueError(
            "sweep: with separate `validation` rows `sample_weight` must be a pair, (weights of data, "
            "weights of validation)."
        )
    return np.concatenate([np.asarray(w) for w in weights])


def _streamed(stream: Stream, validation: Any, **others: Any) -> Rows:
    """One fold, trained on a stream and judged by arrays."""
    odd = [name for name, given in others.items() if given is not None]
    if odd:
        raise ValueError(
            f"sweep: `{odd[0]}` is for arrays, whose rows are known beforehand; a stream brings batches as "
            "they are. Put weights and scales into the batches or the loss."
        )
    if validation is None:
        raise ValueError("sweep: a stream needs `validation`: arrays, or a stream that ends.")
    if validation is stream:
        raise ValueError(
            "sweep: `validation` must be other data than the stream that is trained on."
        )
    asked = not isinstance(validation, Known)
    if isinstance(validation, Stream):
        validation = whole(validation)
    rows, n = as_rows("sweep", validation, "validation")
    check_alike("sweep", stream.first, rows)
    batch = overlap(rows, stream.first)  # the rows of a batch that are judged by
    if asked and batch.too_many:
        raise ValueError(
            f"sweep: `validation` must be rows that are not trained on, got {batch.shared} of the "
            f"{batch.n} rows of the first batch of the stream. Leave them out of one of the two."
        )
    splits = make_splits(None, stream.rows, n, jax.random.key(0))
    return Rows(
        Prepared(on_device("sweep", "validation", rows)),
        None,
        splits,
        stream,
        Met(rows) if asked else None,
    )


def _joined(a: Any, b: Any) -> Any:
    lib = jnp if isinstance(a, Array) else np
    return lib.concatenate([lib.asarray(a), lib.asarray(b)])


def check_alike(owner: str, data: tuple, others: tuple, name: str = "validation") -> None:
    """Both become one array each: another shape or kind of number would be cut or cast.

    Raises:
      ValueError: other shapes. TypeError: another kind of number.
    """
    kinds = (jnp.bool_, jnp.integer, jnp.floating)
    kind = lambda x: [jnp.issubdtype(x.dtype, k) for k in kinds]
    mine, theirs = (jax.tree.leaves(t) for t in (data, others))
    shapes = [[jnp.shape(x)[1:] for x in leaves] for leaves in (mine, theirs)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"{owner}: `{name}` must have arrays like those of `data`, whose rows have the shapes "
            f"{shapes[0]}, got {shapes[1]}."
        )
    for i, (a, b) in enumerate(zip(mine, theirs)):
        a, b = (x if hasattr(x, "dtype") else np.asarray(x) for x in (a, b))
        if kind(a) != kind(b):
            raise TypeError(
                f"{owner}: array {i} of `{name}` is {b.dtype} and that of `data` is {a.dtype}; one would "
                "be cast to the other. Give both the same dtype."
            )
