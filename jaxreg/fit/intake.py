"""Data and numbers as people bring them: converted where that loses nothing, and named where it would.

Frames and series of pandas, tensors of torch and lists become arrays; text, dates, missing values, integers
that 32 bits do not hold and sparse matrices are refused by column or row, with what to do. None of these
libraries is imported: who has such an object has imported it.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxreg import _tree
from jaxreg._check import integer, thing

__all__ = [
    "as_rows",
    "check_batch",
    "check_weights",
    "on_device",
    "refuse_rounded",
    "row_numbers",
]

_INTEGERS = 1 << 24  # up to which float32 holds each of them


def as_rows(owner: str, data: Any, name: str = "data", *, ready: bool = True) -> tuple[tuple, int]:
    """`data` as a tuple of arrays, and how many rows they have.

    Args:
      owner: who asks, for errors.
      data: a tuple, such as (X, y), of arrays, frames, series, tensors, lists of numbers, or pytrees of
        them.
      name: of the argument.
      ready: whether they must be finite numbers already; if not, arrays may hold text and NaN, which
        `prepare` is there for.

    Raises:
      TypeError: no tuple, or something in it holds no numbers. ValueError: empty, unequal lengths, or
        numbers that are missing, not finite or too large, with where they stand.
    """
    example = "a tuple of arrays with the rows first, such as (X, y)"
    if not isinstance(data, (tuple, list)) or not len(data):
        loader = callable(data) or (hasattr(data, "__iter__") and not hasattr(data, "shape"))
        outside = " For batches from outside give jaxreg.stream(...)." if loader else ""
        raise TypeError(f"{owner}: `{name}` must be {example}, got {thing(data)}.{outside}")
    missing = [i for i, part in enumerate(data) if part is None]
    if missing:
        raise TypeError(
            f"{owner}: `{name}` must be {example}, got None for `{name}[{missing[0]}]`. Leave it "
            "out, here and in the arguments of the loss."
        )
    foreign = lambda x: _library(x) is not None or _is_list(x)
    converted = tuple(
        jax.tree.map(lambda x, i=i: _array(owner, f"{name}[{i}]", x), part, is_leaf=foreign)
        for i, part in enumerate(data)
    )
    leaves = _tree.flatten(converted)
    if not leaves.values:
        raise TypeError(f"{owner}: `{name}` must be {example}, and there is no array in it.")
    where = [f"{name}[{path}]" for path in leaves.paths]
    lengths = {w: (jnp.shape(x) or (0,))[0] for w, x in zip(where, leaves.values)}
    if len(set(lengths.values())) > 1 or 0 in lengths.values():
        raise ValueError(
            f"{owner}: the arrays of `{name}` must have the same number of rows, at least 1, got "
            f"{lengths}."
        )
    for path, x in zip(where, leaves.values if ready else ()):
        _refuse_what_is_no_number(owner, path, x)
    return converted, next(iter(lengths.values()))


# --- conversions --------------------------------------------------------------------------------------


def _library(x: Any) -> str | None:
    """The library of a table or tensor that jax does not take as it is."""
    names = {kind.__module__.partition(".")[0] for kind in type(x).__mro__}
    return next(
        (n for n in ("pandas", "polars", "torch", "tensorflow", "scipy") if n in names), None
    )


def _is_list(x: Any) -> bool:
    return isinstance(x, list) and all(isinstance(v, (int, float, str, np.generic)) for v in x)


def _array(owner: str, name: str, x: Any) -> Any:
    library = _library(x)
    if library == "pandas":
        return _of_frame(owner, name, x)
    if library == "polars":
        return _of_frame(owner, name, x.to_pandas())
    if library == "scipy":
        raise TypeError(
            f"{owner}: `{name}` is a sparse matrix of shape {list(x.shape)}; jaxreg trains on dense rows. "
            "Give .toarray(), or fewer columns."
        )
    if library == "torch":
        x = x.detach().cpu()
        return np.asarray(x.float() if "bfloat16" in str(x.dtype) else x)
    return np.asarray(x) if library or _is_list(x) else x


def _of_frame(owner: str, name: str, frame: Any) -> np.ndarray:
    """A frame or series as one array; columns that hold no numbers are named."""
    columns = frame.to_frame(frame.name or "values") if frame.ndim == 1 else frame
    if not columns.shape[1]:
        raise ValueError(f"{owner}: `{name}` has no columns.")
    odd: dict[str, list[str]] = {}
    for column, values in columns.items():
        if (what := _no_numbers(values)) is not None:
            odd.setdefault(what, []).append(repr(column))
    if odd:
        found = "; ".join(f"{', '.join(v[:6])} {what}" for what, v in odd.items())
        raise TypeError(
            f"{owner}: `{name}` must hold numbers, but of its columns {found}. Encode them first, such as "
            "by pandas.get_dummies, .cat.codes or .fillna, or leave them out."
        )
    plain = {c: np.asarray(v, v.dtype.type if v.dtype.kind in "iuf" else bool) for c, v in
             columns.items()}  # fmt: skip
    made = np.stack(list(plain.values()), 1)
    return made[:, 0] if frame.ndim == 1 else made


def _no_numbers(values: Any) -> str | None:
    """What a column of a frame holds instead of numbers."""
    kind = str(values.dtype)
    if kind == "category":
        return "(categories)"
    if values.dtype.kind == "M" or "date" in kind:
        return "(dates)"
    if values.dtype.kind == "m":
        return "(time differences)"
    if values.dtype.kind not in "biuf":
        return "(text or other objects)"
    missing = int(values.isna().sum()) if values.dtype.kind in "biu" else 0
    return f"(missing in {missing} rows)" if missing else None


def _refuse_what_is_no_number(owner: str, name: str, x: Any) -> None:
    if not _tree.is_concrete(x):
        return
    dtype = getattr(x, "dtype", np.asarray(x).dtype)
    if jnp.issubdtype(dtype, jax.dtypes.prng_key) or jnp.issubdtype(dtype, jnp.complexfloating):
        return
    if not (jnp.issubdtype(dtype, jnp.number) or jnp.issubdtype(dtype, jnp.bool_)):
        raise TypeError(
            f"{owner}: `{name}` must hold numbers, got dtype {dtype}. Encode text and dates as numbers "
            "first."
        )
    # On the host where the data are there anyway: each operation of jax is a program to compile.
    lib = np if isinstance(x, np.ndarray) or jax.default_backend() == "cpu" else jnp
    x = lib.asarray(x)
    if not _tree.is_floating(x):
        _refuse_too_large(owner, name, x)
        return
    with np.errstate(over="ignore"):
        bad = ~lib.isfinite(x.astype(jax.dtypes.canonicalize_dtype(x.dtype)))
    bad = bad.reshape(len(x), -1).any(1)
    if bool(bad.any()):
        first = int(bad.argmax())
        row = np.asarray(x[first], np.float64).ravel()
        what = "NaN" if np.isnan(row).any() else "±inf, or numbers that float32 does not hold,"
        raise ValueError(
            f"{owner}: `{name}` has {what} in {int(bad.sum())} of {len(x)} rows, the first is row "
            f"{first}. Drop or impute these rows first."
        )


def _refuse_too_large(owner: str, name: str, x: Any) -> None:
    narrow = jax.dtypes.canonicalize_dtype(x.dtype)
    if x.dtype == bool or narrow == x.dtype or not x.size:
        return
    low, high = int(x.min()), int(x.max())
    info = np.iinfo(narrow)
    if low < info.min or high > info.max:
        raise ValueError(
            f"{owner}: `{name}` holds integers up to {max(abs(low), abs(high))}, which {narrow} does not, "
            "and jax keeps 32 bits unless x64 is enabled. Give numbers of a smaller scale as float32, or "
            "codes 0, 1, 2, ... for names."
        )


def on_device(owner: str, name: str, data: tuple) -> tuple:
    """`data` as arrays of jax; refuses columns whose differences float32 would round away.

    Raises:
      ValueError: rounding moves a column by more than a thousandth of its standard deviation.
    """
    refuse_rounded(owner, name, data)
    data = jax.tree.map(_tree.placed, data)
    where = {x.device for x in jax.tree.leaves(data) if _tree.is_concrete(x)}
    if len(where) > 1 and all(isinstance(device, jax.Device) for device in where):
        return jax.device_put(data, jax.tree.leaves(data)[0].device)  # one program has one place
    return data


def refuse_rounded(owner: str, name: str, data: tuple) -> None:
    """See `on_device`."""
    leaves = _tree.flatten(data)
    for path, x in zip(leaves.paths, leaves.values):
        if isinstance(x, np.ndarray) and not jax.config.read("jax_enable_x64") and _wide(x):
            _refuse_columns(owner, f"{name}[{path}]", x.reshape(len(x), -1))


def _wide(x: np.ndarray) -> bool:
    """Whether numbers may have more digits than float32, which a loss makes of integers."""
    if x.dtype.kind in "iu" and x.size:
        return max(abs(int(x.min())), abs(int(x.max()))) > _INTEGERS
    return x.dtype == np.float64


def _refuse_columns(owner: str, name: str, columns: np.ndarray) -> None:
    moved = np.sqrt(np.mean((columns.astype(np.float32) - columns) ** 2, 0))
    lost = np.flatnonzero(moved > 1e-3 * columns.std(0))
    if lost.size and (moved[lost] > 0).any():
        j = int(lost[moved[lost] > 0][0])
        low, high = columns[:, j].min(), columns[:, j].max()
        column = f"column {j} of `{name}`" if columns.shape[1] > 1 else f"`{name}`"
        raise ValueError(
            f"{owner}: {column} lies between {low:.12g} and {high:.12g}, and float32 has too few digits "
            "for its differences. Subtract its mean in float64, beforehand or in `prepare`."
        )


# --- numbers --------------------------------------------------------------------------------------------


def check_batch(owner: str, batch_size: Any, n: int) -> int | None:
    """A batch of 1 to n rows; None is all of them.

    Raises:
      ValueError: with the size that would do.
    """
    if batch_size is None:
        return None
    size = integer(batch_size)
    if size is None or not 1 <= size <= n:
        raise ValueError(
            f"{owner}: `batch_size` must be an integer between 1 and the {n} rows there are to train on, "
            f"got {batch_size!r}. Use None for full batches."
        )
    return size


def row_numbers(owner: str, rows: Any, n: int) -> Array:
    """Numbers of rows to train on; a mask of all rows means those where it is true.

    Raises:
      ValueError: none, or outside of 0, …, n - 1. TypeError: no integers.
    """
    if rows is None:
        return jnp.arange(n)
    if not _tree.is_concrete(rows):
        return rows
    array = np.asarray(rows)
    if array.dtype == bool and array.shape == (n,):
        array = np.flatnonzero(array)
    if array.dtype.kind not in "iu" or array.ndim != 1:
        raise TypeError(
            f"{owner}: `rows` must be row numbers [m] or a mask [{n}], got {array.dtype} of shape "
            f"{list(array.shape)}."
        )
    if not array.size or array.min() < 0 or array.max() >= n:
        seen = f"{array.min()} … {array.max()}" if array.size else "none"
        raise ValueError(f"{owner}: `rows` must lie between 0 and {n - 1}, got {seen}.")
    return jnp.asarray(array)


def check_weights(owner: str, weights: Any, n: int, times: np.ndarray | None = None) -> Array:
    """`sample_weight` as float32 [n].

    Args:
      owner: who asks, for errors.
      weights: what the user gave.
      n: how many rows there are.
      times: uint [F, n, 2], how often folds train and validate on each row.

    Raises:
      ValueError: another shape, a number that is negative or not finite, or a fold all of whose rows have
        the weight 0. TypeError: no numbers.
    """
    array = np.asarray(weights)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{owner}: `sample_weight` must hold numbers, got {array.dtype}.")
    if array.shape != (n,):
        raise ValueError(
            f"{owner}: `sample_weight` must have one number for each of the {n} rows, got shape "
            f"{list(array.shape)}."
        )
    odd = ~np.isfinite(array) | (array < 0)
    if odd.any():
        raise ValueError(
            f"{owner}: `sample_weight` must be finite and at least 0, got {array[odd][0]} in row "
            f"{int(odd.argmax())} ({int(odd.sum())} of {n} rows)."
        )
    sums = np.array([[array.sum()]]) if times is None else np.einsum("fns,n->fs", times, array)
    if (sums == 0).any():
        f, split = np.argwhere(sums == 0)[0]
        where = (
            f"{('training', 'validation')[split]} rows of fold {f}" if times is not None else "rows"
        )
        raise ValueError(
            f"{owner}: `sample_weight` is 0 for all {where}, so there is no weighted mean. Leave such rows "
            "out, or give other folds."
        )
    return jnp.asarray(array, float)
