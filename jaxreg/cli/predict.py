"""`jaxreg predict`: what the model of a run says of the rows of a file."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from jaxreg.cli import data as datasets
from jaxreg.cli.data import Rows
from jaxreg.cli.model_file import SavedModel, read_model

__all__ = ["predict"]


def predict(run: str, file: str, rule: str | None = None, out: str | None = None) -> int:
    """Write a prediction for each row, in the order of the file; returns the exit status.

    Raises:
      ValueError: there is no such model or file, or the rows are not like those that were learnt from.
    """
    saved = read_model(run)
    rule = rule or next(iter(saved.lams))
    if rule not in saved.lams:
        raise ValueError(f"--rule: the run has {', '.join(saved.lams)}, got {rule!r}.")
    if out is not None and Path(out).exists():
        raise ValueError(f"--out: {out!r} is there already and is left as it is; choose another.")
    rows = datasets.read_like(file, saved.dataset, saved.settings.reading(), targets=False)
    outputs = saved.outputs(rows.X, rule)
    header, lines = _lines(saved, rows, outputs)
    if out is None:
        _write(sys.stdout, header, lines)
    else:
        with Path(out).open("x", newline="", encoding="utf-8") as target:
            _write(target, header, lines)
    _tell(saved, rows, outputs, rule)
    return 0


def _lines(saved: SavedModel, rows: Rows, outputs: np.ndarray) -> tuple[list[str], list[list[Any]]]:
    classes = saved.dataset.class_names
    if not classes:
        return [rows.unit, "prediction"], [
            [i, repr(v)] for i, v in zip(rows.where, outputs.tolist())
        ]
    shifted = np.exp(outputs - outputs.max(1, keepdims=True))
    shares = shifted / shifted.sum(1, keepdims=True)
    header = [rows.unit, "prediction", *(f"p({name})" for name in classes)]
    told = [classes[k] for k in outputs.argmax(1)]
    each = zip(rows.where, told, shares.tolist())
    return header, [[i, name, *(f"{p:.6f}" for p in of)] for i, name, of in each]


def _write(file: TextIO, header: list[str], lines: list[list[Any]]) -> None:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(lines)


def _tell(saved: SavedModel, rows: Rows, outputs: np.ndarray, rule: str) -> None:
    """What a reader should know, beside the numbers themselves."""
    tell = lambda text: print(f"jaxreg: {text}", file=sys.stderr)
    tell(f"{len(rows.X)} rows, λ chosen by {rule}: {saved.lams[rule]:.3g}.")
    for name, count in rows.unseen.items():
        tell(
            f"warning: {count} of them have a value of {name!r} that training rows did not have; it counts "
            "as none of those."
        )
    if rows.y is not None:
        scores = saved.scores(outputs, rows.y)
        text = ", ".join(f"{name} {value:.4g}" for name, value in scores.items())
        tell(f"compared with {saved.dataset.target!r}: {text}.")
