"""Reading a person's own table: .csv with a header row, or .npz with the arrays X and y.

Nothing is guessed or dropped in silence. A cell that is missing, text where a number is needed, a row
of another length: each is an error that names the column and the line.
"""

from __future__ import annotations

import difflib
import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

__all__ = [
    "AS_FOUND",
    "Reading",
    "Table",
    "comma_hint",
    "float32",
    "number",
    "read_csv",
    "read_npz",
    "refuse_nan",
    "some",
]

_MISSING = ("", "na", "nan", "n/a", "null", "none", "?")


class Table(NamedTuple):
    """What a file holds.

    Attributes:
      X: [n, d] float64 as it is written, float32 for images; finite in float32.
      y: [n], numbers or text as they were.
      feature_names: of the d columns.
      unit: what rows are counted in, "line" or "row".
      where: number of every row in that unit.
      image_shape: (height, width, channels) if rows are images.
      groups: [n] names of what rows belong to, if a column says it.
      times: [n] numbers or dates, if a column says when rows were.
    """

    X: np.ndarray
    y: np.ndarray
    feature_names: tuple[str, ...]
    unit: str
    where: Sequence[int]
    image_shape: tuple[int, int, int] | None = None
    groups: np.ndarray | None = None
    times: np.ndarray | None = None


def read_npz(path: Path) -> Table:
    """The arrays X and y of an .npz.

    Raises:
      ValueError: the file is missing, no .npz, or its arrays do not make a table.
    """
    _existing(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            found = sorted(file)
            arrays = [file[k] for k in ("X", "y") if k in file]
    except (OSError, EOFError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: cannot be read as an .npz: {error}") from error
    if len(arrays) < 2:
        raise ValueError(
            f"{path}: needs the arrays X and y, has {', '.join(found) or 'none'}. Save it with "
            "numpy.savez(path, X=X, y=y)."
        )
    X, y = arrays
    y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
    if y.ndim != 1:
        raise ValueError(f"{path}: y must be [n], one target per row, got shape {y.shape}.")
    height, width, channels = (*X.shape[1:], 1, 1, 1)[:3]
    image_shape = (height, width, channels) if X.ndim in (3, 4) else None
    X = _feature_matrix(path, X)
    if len(X) != len(y):
        raise ValueError(
            f"{path}: X has {len(X)} rows and y has {len(y)}; give one target per row."
        )
    names = tuple(f"x{i}" for i in range(X.shape[1]))
    rows = range(len(X))
    refuse_nan(str(path), float32(X), names, "row", rows)
    return Table(X, y, names, "row", rows, image_shape)


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
        return float32(flat) / np.float32(255)
    return flat.astype(np.float64)


class Reading(NamedTuple):
    """How a .csv is to be read; what is None is found out.

    Attributes:
      delimiter: between cells; by default a comma, semicolon or tab.
      decimal: before the decimals of a number, "." or ",".
      drop: columns to leave out.
      features: the columns to learn from; by default all but the target.
      groups: the column of what rows belong to, such as a patient; no feature.
      time: the column of when rows were; no feature unless it is named as one.
    """

    delimiter: str | None = None
    decimal: str = "."
    drop: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    groups: str | None = None
    time: str | None = None


AS_FOUND = Reading()


def read_csv(path: Path, target: str | None, reading: Reading = AS_FOUND) -> Table:
    """The columns of a .csv.

    Raises:
      ValueError: the file is missing or empty, has no header, text or missing values where numbers
        are needed, rows of different length, or no column `target`. ImportError: pandas is needed.
    """
    cells = _cells(path, reading.delimiter)
    apart = {"groups": reading.groups, "time": reading.time}
    named = {"drop": reading.drop, "features": reading.features}
    named |= {option: (name,) for option, name in apart.items() if name is not None}
    for option, names in named.items():
        for name in names:
            _known_column(path, list(cells), name, f"column of --{option}")
    chosen = _target_column(path, list(cells), target)
    left = {chosen, *reading.drop, reading.groups}
    left |= {reading.time} - set(reading.features)
    wanted = reading.features or tuple(cells)
    features = [c for c in cells if c in wanted and c not in left]
    if not features:
        raise ValueError(f"{path}: {chosen!r} is the only column; there are no features.")
    groups = None if reading.groups is None else _groups(path, cells[reading.groups])
    times = None if reading.time is None else _times(path, cells[reading.time])
    cells = cells[[*features, chosen]]
    missing = cells.apply(lambda column: column.str.lower().isin(_MISSING))
    numbers = cells.map(lambda cell: number(cell, reading.decimal))
    text = numbers.isna() & ~missing
    _refuse_text(path, cells[features], text[features])
    names, lines = tuple(features), cells.index.tolist()
    X, y = numbers[features].to_numpy(np.float64), numbers[chosen].to_numpy()
    refuse_nan(str(path), float32(X), names, "line", lines)
    if text[chosen].any():
        gone = np.where(missing[[chosen]], np.nan, 0)
        refuse_nan(str(path), gone, ["the target"], "line", lines)
        y = cells[chosen].to_numpy(str)
    return Table(X, y, names, "line", lines, groups=groups, times=times)


def _groups(path: Path, column: Any) -> np.ndarray:
    missing = column.str.lower().isin(_MISSING)
    if missing.any():
        raise ValueError(
            f"{path}: the column {column.name!r} of --groups is empty in line {missing.idxmax()} "
            f"({missing.sum()} of {len(column)} rows). Name a group for every row."
        )
    return column.to_numpy(str)


def _times(path: Path, column: Any) -> np.ndarray:
    """Numbers, or dates as ISO 8601 writes them."""
    import pandas as pd

    numbers = column.map(number)
    if not numbers.isna().any():
        return numbers.to_numpy(float)
    dates = pd.to_datetime(column, format="ISO8601", errors="coerce")
    if dates.isna().any():
        line = dates.isna().idxmax()
        raise ValueError(
            f"{path}: the column {column.name!r} of --time must hold numbers or dates such as 2024-05-31, "
            f"got {column[line]!r} in line {line}."
        )
    return dates.to_numpy()


def _existing(path: Path) -> None:
    if not path.is_file():
        raise ValueError(f"no such file: {str(path)!r} (looked in {path.absolute().parent}).")


def _cells(path: Path, delimiter: str | None) -> Any:
    """All cells as text, as a DataFrame: its columns are the header, its index the lines."""
    _existing(path)
    try:
        import pandas as pd
    except ImportError as error:
        raise ImportError(
            "a .csv is read with pandas, which is not installed: pip install 'jaxreg[data]'"
        ) from error
    try:
        text = path.read_text(encoding="utf-8-sig")
        if not text.strip(' \n\t,;"'):
            raise ValueError(f"{path}: the file is empty.")
        blank = text[: len(text) - len(text.lstrip())].count("\n")
        sep = delimiter or max(",;\t", key=text.lstrip().split("\n", 1)[0].count)
        # As text, and nothing counts as missing: what pandas takes for numbers, dates or NaN is a guess.
        cells: Any = pd.read_csv(
            io.StringIO(text), sep=sep, header=None, dtype=str, na_filter=False, skiprows=blank,
            skip_blank_lines=False,
        )  # fmt: skip
    except (UnicodeDecodeError, pd.errors.ParserError) as error:
        raise ValueError(
            f"{path}: cannot be read as a .csv in UTF-8 with rows of one length: {str(error).strip()}"
        ) from error
    lengths = 1 + cells.apply(lambda column: column.str.count("\n")).sum(axis=1)
    cells = cells.set_index(blank + lengths.cumsum()).apply(lambda column: column.str.strip())
    cells = cells[(cells != "").any(axis=1)]
    header, body = cells.iloc[0].tolist(), cells.iloc[1:]
    _check_header(path, header)
    if body.empty:
        raise ValueError(f"{path}: there is a header but no row below it.")
    return body.set_axis(header, axis=1)


def _check_header(path: Path, header: list[str]) -> None:
    if "" in header:
        raise ValueError(
            f"{path}: column {header.index('') + 1} has no name. Name it, or remove it if it only counts "
            "the rows (in pandas: to_csv(path, index=False))."
        )
    if all(name.lower() in _MISSING or not np.isnan(number(name)) for name in header):
        raise ValueError(
            f"{path}: the first row must name the columns, but it holds the numbers {some(header)}."
        )
    twice = [name for i, name in enumerate(header) if name in header[:i]]
    if twice:
        raise ValueError(f"{path}: the column {twice[0]!r} is there twice; rename one.")


def _target_column(path: Path, header: list[str], target: str | None) -> str:
    if target is None:
        return "target" if "target" in header else header[-1]
    return _known_column(path, header, target, "target column")


def _known_column(path: Path, header: list[str], name: str, what: str) -> str:
    if name in header:
        return name
    near = difflib.get_close_matches(name, header, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    raise ValueError(f"{path}: there is no {what} {name!r}{hint} The columns are {some(header)}.")


def number(cell: str, decimal: str = ".") -> float:
    """The cell as a number, to the last bit; NaN if it is none."""
    try:
        return float(cell.replace(decimal, ".") if "." not in cell else cell)
    except ValueError:
        return float("nan")


def _refuse_text(path: Path, cells: Any, text: Any) -> None:
    bad = text.columns[text.any()]
    if len(bad):
        found = [f"{name!r} (such as {cells[name][text[name]].iloc[0]!r})" for name in bad]
        raise ValueError(
            f"{path}: features must be numbers, but there is text in the columns {some(found)}. Encode "
            f"them as numbers, or leave them out with --drop{comma_hint(cells[bad].to_numpy().ravel())}."
        )


def comma_hint(cells: Any) -> str:
    """What to do where cells are numbers with a decimal comma."""
    commas = any("," in c and not np.isnan(number(c, ",")) for c in cells)
    return "; for decimal commas give --decimal ," if commas else ""


def refuse_nan(
    owner: str, X: np.ndarray, names: Sequence[str], unit: str, where: Sequence[int]
) -> None:
    """Raise if a value of X [n, d] is not finite, naming columns and rows."""
    bad = ~np.isfinite(X)
    if bad.any():
        found = [
            f"{names[j]} ({unit} {some([where[int(i)] for i in np.flatnonzero(bad[:, j])], 3)})"
            for j in map(int, np.flatnonzero(bad.any(0)))
        ]
        raise ValueError(
            f"{owner}: there are missing, NaN or infinite values in {some(found)}. Fill them or remove "
            "those rows."
        )


def float32(x: np.ndarray) -> np.ndarray:
    """x in float32; what is too large becomes inf, which `refuse_nan` reports by name."""
    with np.errstate(over="ignore"):
        return x.astype(np.float32)


def some(items: Sequence, most: int = 6) -> str:
    """The first few items as text, and how many more there are."""
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(map(str, items[:most])) + more
