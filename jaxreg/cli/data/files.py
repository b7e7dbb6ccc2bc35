"""Reading a person's own table: a .csv, or an .npz with the arrays X and y.

Nothing is guessed or dropped in silence. A cell that is missing, text where a number is needed, a row
of another length: each is a problem that names the column and the line, and all are told at once.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxreg.cli.data.cells import MISSING, number, read_cells
from jaxreg.cli.data.problems import Problems, not_finite, some, unknown

__all__ = ["AS_FOUND", "Reading", "Table", "comma_hint", "read_csv", "read_csv_like", "read_npz"]

_FEW_VALUES = 20  # that a column of texts may have in any case


class Reading(NamedTuple):
    """How a .csv is to be read; what is None is found out.

    Attributes:
      delimiter: between cells; by default a comma, semicolon or tab.
      decimal: before the decimals of a number, "." or ",".
      header: whether the first row names the columns; without, they are called 1, 2, ….
      drop: columns to leave out.
      features: the columns to learn from; by default all but the target.
      one_hot: columns of text, of which each value becomes a feature; ("text",) for all that hold text.
      impute: what a missing number becomes, "median" or "mean" of the training rows; "off" refuses it.
      groups: the column of what rows belong to, such as a patient; no feature.
      time: the column of when rows were; no feature unless it is named as one.
    """

    delimiter: str | None = None
    decimal: str = "."
    header: bool | None = None
    drop: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    one_hot: tuple[str, ...] = ()
    impute: str = "off"
    groups: str | None = None
    time: str | None = None


AS_FOUND = Reading()


class Table(NamedTuple):
    """What a file holds.

    Attributes:
      problems: of the file, so far.
      X: [n, d] float64 as it is written, float32 for images. In a column of text the numbers of its
        values, NaN for a value that is not among them; in another one NaN where a cell is missing.
      y: [n], numbers or text as they were; None if there are no targets.
      feature_names: of the d columns.
      unit: what rows are counted in, "line" or "row".
      where: number of every row in that unit.
      target: what y is called.
      categories: of the columns of text, their values.
      image_shape: (height, width, channels) if rows are images.
      in_bytes: whether the images were bytes, which became shares of 255.
      groups: [n] names of what rows belong to, if a column says it.
      times: [n] numbers or dates, if a column says when rows were.
    """

    problems: Problems
    X: np.ndarray
    y: np.ndarray | None
    feature_names: tuple[str, ...]
    unit: str
    where: Sequence[int]
    target: str = "y"
    categories: Mapping[str, tuple[str, ...]] = {}
    image_shape: tuple[int, int, int] | None = None
    in_bytes: bool = False
    groups: np.ndarray | None = None
    times: np.ndarray | None = None


# --- .npz -------------------------------------------------------------------------------------------


def read_npz(path: Path, targets: bool = True) -> Table:
    """The arrays X and y of an .npz; y may be missing if no `targets` are needed.

    Raises:
      ValueError: the file is missing, no .npz, or its arrays do not make a table.
    """
    if not path.is_file():
        raise ValueError(f"no such file: {str(path)!r} (looked in {path.absolute().parent}).")
    try:
        with np.load(path, allow_pickle=False) as file:
            found = sorted(file)
            arrays = {k: file[k] for k in ("X", "y") if k in file}
    except (OSError, EOFError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: cannot be read as an .npz: {error}") from error
    if "X" not in arrays or (targets and "y" not in arrays):
        raise ValueError(
            f"{path}: needs the arrays X and y, has {', '.join(found) or 'none'}. Save it with "
            "numpy.savez(path, X=X, y=y)."
        )
    X, y = arrays["X"], arrays.get("y")
    height, width, channels = (*X.shape[1:], 1, 1, 1)[:3]
    image_shape = (height, width, channels) if X.ndim in (3, 4) else None
    in_bytes = X.dtype == np.uint8
    X = _feature_matrix(path, X)
    if y is not None:
        y = _targets(path, y, len(X))
    problems, rows = Problems(path), range(len(X))
    names = tuple(f"x{i}" for i in range(X.shape[1]))
    remedy = "Fill them or remove those rows."
    problems.add(not_finite(X, names, "row", rows, remedy))
    if y is not None and y.dtype.kind not in "SU":
        problems.add(not_finite(y[:, None], ["the target"], "row", rows, remedy))
    return Table(problems, X, y, names, "row", rows, image_shape=image_shape, in_bytes=in_bytes)


def _feature_matrix(path: Path, X: np.ndarray) -> np.ndarray:
    """X as [n, d]; bytes are shares of 255."""
    if X.ndim not in (2, 3, 4) or X.size == 0:
        raise ValueError(
            f"{path}: X must be [n, d], or [n, height, width] or [n, height, width, channels] for "
            f"images, and not empty; got shape {X.shape}."
        )
    if X.dtype.kind not in "buif":
        raise ValueError(f"{path}: X must hold real numbers, got dtype {X.dtype}.")
    flat = X.reshape(len(X), -1)
    if X.dtype == np.uint8:
        return flat.astype(np.float32) / np.float32(255)
    return flat.astype(np.float64)


def _targets(path: Path, y: np.ndarray, n: int) -> np.ndarray:
    y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
    if y.ndim != 1:
        raise ValueError(f"{path}: y must be [n], one target per row, got shape {y.shape}.")
    if n != len(y):
        raise ValueError(f"{path}: X has {n} rows and y has {len(y)}; give one target per row.")
    if y.dtype.kind not in "SUbuif":
        raise ValueError(f"{path}: the target must be numbers or text, got dtype {y.dtype}.")
    return y


# --- .csv -------------------------------------------------------------------------------------------


def read_csv(path: Path, target: str | None, reading: Reading = AS_FOUND) -> Table:
    """The columns of a .csv to learn from.

    Raises:
      ValueError: the file is missing or empty, no .csv, has no header, or lacks a column that was named.
        ImportError: pandas is needed.
    """
    problems = Problems(path)
    cells = read_cells(problems, reading.delimiter, reading.decimal, reading.header)
    features, chosen = _roles(problems, list(cells), target, reading)
    made = _table(problems, cells, features, chosen, reading, {})
    groups = None if reading.groups is None else _groups(problems, cells[reading.groups])
    times = None if reading.time is None else _times(problems, cells[reading.time])
    return made._replace(groups=groups, times=times)


def read_csv_like(
    path: Path,
    features: Sequence[str],
    categories: Mapping[str, tuple[str, ...]],
    target: str,
    reading: Reading,
) -> Table:
    """The columns of another .csv that were learnt from, wherever they stand; y if its column is there.

    Raises:
      ValueError: as `read_csv`, or a column is missing.
    """
    problems = Problems(path)
    cells = read_cells(problems, reading.delimiter, reading.decimal, reading.header)
    names = list(cells)
    _refuse_unknown(problems, names, [(name, "column") for name in features])
    made = _table(problems, cells, list(features), None, reading, categories)
    # As text: a class may be called 01.
    y = cells[target].to_numpy(str) if target in names else None
    return made._replace(y=y, target=target)


def _refuse_unknown(problems: Problems, names: list[str], asked: list[tuple[str, str]]) -> None:
    """Nothing more can be said of a file where it is not known which columns are meant."""
    missing = [(name, what) for name, what in asked if name not in names]
    for name, what in missing:
        problems.add(unknown(name, names, what))
    if missing:
        problems.stop()


def _roles(
    problems: Problems, names: list[str], target: str | None, reading: Reading
) -> tuple[list[str], str]:
    """The features and the target."""
    many = {"drop": reading.drop, "features": reading.features, "one-hot": reading.one_hot}
    one = {"groups": reading.groups, "time": reading.time}
    said = {**many, **{option: (name,) for option, name in one.items() if name is not None}}
    asked = [(name, f"column of --{o}") for o, listed in said.items() for name in listed]
    asked = [(n, what) for n, what in asked if (n, what) != ("text", "column of --one-hot")]
    asked += [] if target is None else [(target, "target column")]
    _refuse_unknown(problems, names, asked)
    chosen = target or ("target" if "target" in names else names[-1])
    left = {chosen, *reading.drop, reading.groups}
    left |= {reading.time} - set(reading.features)
    wanted = reading.features or tuple(names)
    features = [c for c in names if c in wanted and c not in left]
    if not features:
        raise ValueError(f"{problems.path}: {chosen!r} is the only column; there are no features.")
    for name in reading.one_hot:
        if name in left:
            problems.add(f"the column {name!r} of --one-hot is no feature.")
    for i, name in enumerate(names, 1):
        if name == f"column {i}" and name in features and name not in reading.features:
            problems.add(
                f"column {i} has no name. Name it, or leave it out with --drop {name!r} if it only counts "
                "the rows (in pandas: to_csv(path, index=False))."
            )
    return features, chosen


def _table(
    problems: Problems,
    cells: Any,
    features: list[str],
    chosen: str | None,
    reading: Reading,
    known: Mapping[str, tuple[str, ...]],
) -> Table:
    """The numbers of the features and the targets, with what is wrong with them."""
    body, lines = cells[features], cells.index.tolist()
    missing = body.apply(lambda column: column.str.lower().isin(MISSING))
    numbers = body.map(lambda cell: number(cell, reading.decimal))
    text = numbers.isna() & ~missing
    hot = [c for c in features if c in (known or _hot(problems, text, reading.one_hot))]
    categories = {c: known.get(c) or _values(problems, body[c], missing[c]) for c in hot}
    for c, values in categories.items():
        codes = {value: float(i) for i, value in enumerate(values)}
        numbers[c] = body[c].where(~missing[c], "").map(lambda v, k=codes: k.get(v, np.nan))
    plain = [c for c in features if c not in categories]
    _no_text(problems, body[plain], text[plain])
    X = numbers.to_numpy(np.float64)
    said = text.to_numpy() | np.isin(features, hot)  # a value that training rows lack is no problem
    off = reading.impute == "off"
    shown = np.where(missing, np.nan if off else 0.0, np.where(said, 0.0, X))
    remedy = "Fill them or remove those rows" + ", or give --impute median." * off + "." * (not off)
    problems.add(not_finite(shown, features, "line", lines, remedy))
    y = None if chosen is None else _target(problems, cells[chosen], reading.decimal)
    names, target = tuple(features), chosen or ""
    return Table(problems, X, y, names, "line", lines, target=target, categories=categories)


def _hot(problems: Problems, text: Any, named: tuple[str, ...]) -> set[str]:
    if named != ("text",) or "text" in text:
        return set(named)
    found = set(text.columns[text.any()])
    if not found:
        problems.add("no feature holds text, so --one-hot text would do nothing; leave it away.")
    return found


def _values(problems: Problems, column: Any, missing: Any) -> tuple[str, ...]:
    """The distinct values of a column of text; a missing one is a value of its own."""
    values = tuple(sorted(set(column.where(~missing, ""))))
    if len(values) > max(_FEW_VALUES, len(column) // 2):
        problems.add(
            f"the column {column.name!r} of --one-hot has {len(values)} different values in {len(column)} "
            f"rows, too many to learn from. Leave it out with --drop {column.name!r}."
        )
    return values


def _target(problems: Problems, column: Any, decimal: str) -> np.ndarray:
    """Numbers where all cells are, else the texts."""
    missing = column.str.lower().isin(MISSING).to_numpy()
    numbers = column.map(lambda cell: number(cell, decimal)).to_numpy(np.float64)
    text = bool((np.isnan(numbers) & ~missing).any())
    shown = np.where(missing, np.nan, 0.0 if text else numbers)[:, None]
    lines = column.index.tolist()
    problems.add(not_finite(shown, ["the target"], "line", lines, "Remove those rows."))
    return column.to_numpy(str) if text else numbers


def _groups(problems: Problems, column: Any) -> np.ndarray:
    missing = column.str.lower().isin(MISSING)
    if missing.any():
        problems.add(
            f"the column {column.name!r} of --groups is empty in line {missing.idxmax()} "
            f"({missing.sum()} of {len(column)} rows). Name a group for every row."
        )
    return column.to_numpy(str)


def _times(problems: Problems, column: Any) -> np.ndarray:
    """Numbers, or dates as ISO 8601 writes them."""
    import pandas as pd

    numbers = column.map(number)
    if not numbers.isna().any():
        return numbers.to_numpy(float)
    dates = pd.to_datetime(column, format="ISO8601", errors="coerce")
    if dates.isna().any():
        line = dates.isna().idxmax()
        problems.add(
            f"the column {column.name!r} of --time must hold numbers or dates such as 2024-05-31, got "
            f"{column[line]!r} in line {line}."
        )
    return dates.to_numpy()


def _no_text(problems: Problems, cells: Any, text: Any) -> None:
    bad = text.columns[text.any()]
    if len(bad):
        found = [f"{name!r} (such as {cells[name][text[name]].iloc[0]!r})" for name in bad]
        listed = ",".join(bad)
        hint = comma_hint(v for name in bad for v in cells[name][text[name]])
        problems.add(
            f"features must be numbers, but there is text in the columns {some(found)}. Give --one-hot "
            f"'{listed}' for a feature of each value, or leave them out with --drop '{listed}'{hint}."
        )


def comma_hint(cells: Any) -> str:
    """What to do where cells are numbers with a decimal comma."""
    commas = any("," in c and not np.isnan(number(c, ",")) for c in cells)
    return "; for decimal commas give --decimal ," if commas else ""
