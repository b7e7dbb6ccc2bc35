"""The cells of a .csv as text, with the names of their columns and the lines they stand in.

Everything is text here: what a parser takes for numbers, dates or missing values is a guess.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxreg.cli.data.problems import Problems, some

__all__ = ["MISSING", "number", "read_cells"]

MISSING = ("", "na", "nan", "n/a", "null", "none", "?")


def read_cells(problems: Problems, delimiter: str | None, decimal: str, header: bool | None) -> Any:
    """All cells that stand in rows of the right length, as a DataFrame whose index are the lines.

    Args:
      problems: of the file, to which rows of another length are added.
      delimiter: between cells; by default a comma, semicolon or tab.
      decimal: before decimals.
      header: whether the first row names the columns; None if it does unless it looks like a row of data.

    Raises:
      ValueError: the file is missing, empty, or no .csv, or its columns have no names. ImportError: pandas
        is needed.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise ImportError(
            "a .csv is read with pandas, which is not installed: pip install 'jaxreg[data]'"
        ) from error
    rows, lines = _rows(problems.path, delimiter)
    names = _names(problems, rows, decimal, header)
    problems.stop()
    if header is not False:
        rows, lines = rows[1:], lines[1:]
    if not rows:
        raise ValueError(f"{problems.path}: there is a header but no row below it.")
    odd = [f"line {i} has {len(r)}" for r, i in zip(rows, lines) if len(r) != len(names)]
    if odd:
        problems.add(f"rows must have {len(names)} cells as the first one: {some(odd)}.")
    if len(odd) == len(rows):
        problems.stop()
    good = [(r, i) for r, i in zip(rows, lines) if len(r) == len(names)]
    return pd.DataFrame([r for r, _ in good], index=[i for _, i in good], columns=names, dtype=str)


def number(cell: str, decimal: str = ".") -> float:
    """The cell as a number, to the last bit; NaN if it is none."""
    try:
        return float(cell.replace(decimal, ".") if "." not in cell else cell)
    except ValueError:
        return float("nan")


def _rows(path: Path, delimiter: str | None) -> tuple[list[list[str]], list[int]]:
    """Rows that are not blank, and the last line of each."""
    if not path.is_file():
        raise ValueError(f"no such file: {str(path)!r} (looked in {path.absolute().parent}).")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: cannot be read as a .csv in UTF-8: {error}") from error
    if not text.strip(' \n\t,;"'):
        raise ValueError(f"{path}: the file is empty.")
    sep = delimiter or max(",;\t", key=text.lstrip().split("\n", 1)[0].count)
    sep = "\t" if sep in ("\\t", "tab") else sep
    if len(sep) != 1:
        raise ValueError(f"--delimiter: give one character, or tab, got {delimiter!r}.")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=sep, strict=True)
    rows, lines = [], []
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if any(cells):
                rows.append(cells)
                lines.append(reader.line_num)
    except csv.Error as error:
        where = f"line {reader.line_num}"
        raise ValueError(f"{path}: cannot be read as a .csv at {where}: {error}.") from error
    return rows, lines


def _names(problems: Problems, rows: list[list[str]], decimal: str, header: bool | None) -> list:
    """What the columns are called: by the first row, or 1, 2, … where there is no header."""
    first = rows[0]
    if header is False:
        return [str(i + 1) for i in range(len(first))]
    suspicion = None if header else _suspicion(first, rows[1:], decimal)
    if suspicion:
        problems.add(
            f"{suspicion}. If there is no header, give --no-header, and the columns are called 1, 2, …; "
            "if this is the header, give --header."
        )
        return []
    names = [name or f"column {i}" for i, name in enumerate(first, 1)]
    twice = list(dict.fromkeys(n for i, n in enumerate(names) if n in names[:i]))
    for name in twice:
        problems.add(f"the column {name!r} is there twice; rename one.")
    return names


def _suspicion(first: Sequence[str], others: list[list[str]], decimal: str) -> str | None:
    """Why the first row may be one of data."""
    is_number = [n.lower() in MISSING[1:] or not np.isnan(number(n, decimal)) for n in first]
    shown = [name for name, is_one in zip(first, is_number) if is_one]
    if sum(is_number) * 2 > len(first):
        return f"the first row must name the columns, but it holds the numbers {some(shown)}"
    for j, name in enumerate(first):
        again = name and not is_number[j] and any(r[j] == name for r in others if len(r) > j)
        if again:
            return f"the first row looks like one of data: {name!r} is there again below it"
    return None
