"""What a job says in the terminal, and the results it writes into its folder."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

import jaxreg as jr
from jaxreg.cli.data import Dataset
from jaxreg.cli.job import Job
from jaxreg.cli.settings import parse_halving
from jaxreg.report.table import Column, Table
from jaxreg.sweeps import Refit

__all__ = [
    "describe",
    "penalized",
    "simple_table",
    "sweep_table",
    "write_sweep",
    "write_test",
]


def describe(job: Job) -> str:
    """What will be trained, in a paragraph."""
    s, d = job.settings, job.dataset
    n_train, n_test = len(job.train[1]), len(job.test[1])
    lanes = len(job.grid) * s.folds * s.seeds
    kind = _classes(d) if d.task == "classification" else "a continuous target"
    text = (
        f"{d.name}: {len(d.X)} examples with {kind}; {n_train} to train on, {n_test} held out to test.\n"
        f"Model {s.model}, penalty {job.grid[0].label}.\n"
        f"{len(job.grid)} λ x {s.folds} folds x {s.seeds} seeds = {lanes} trainings of {s.steps} steps in "
        "one program."
    )
    if job.without_folds:
        more = len(job.grid) * s.seeds
        text += f" {more} more on all rows, for {' and '.join(job.without_folds)}."
    return "\n".join([text, *_giving_up(job)])


def _classes(dataset: Dataset) -> str:
    """How many classes, and of few how many rows each has."""
    counts = np.bincount(dataset.y)
    if len(counts) > 5:
        return f"{len(counts)} classes ({counts.min()} to {counts.max()} rows each)"
    each = ", ".join(f"{name}: {n}" for name, n in zip(dataset.class_names, counts))
    return f"{len(counts)} classes ({each})"


def _giving_up(job: Job) -> Iterator[str]:
    s, n = job.settings, len(job.grid)
    halving = parse_halving(s.halving)
    if halving is not None:
        rungs = halving.schedule(n, s.steps)
        left, at = (
            " / ".join(str(x) for x in column) for column in zip(*((r.keep, r.step) for r in rungs))
        )
        yield (
            f"Halving: the best {left} of {n} λ go on after {at} steps, "
            f"{halving.share(n, s.steps):.0%} of the work."
        )
    if s.patience is not None:
        yield (
            "Early stopping: a training ends once its validation loss has not fallen for "
            f"{s.patience} evaluation{'s' * (s.patience > 1)}."
        )


def penalized(job: Job) -> str:
    """The audit table: which leaf is hit by which term."""
    params = job.model.init(jax.random.key(job.settings.seed))
    return str(jr.tabulate(job.grid[len(job.grid) // 2], params))


def sweep_table(result: jr.SweepResult, width: int | None = None, metric: str = "loss") -> str:
    """The table of the sweep; without the columns that matter least if it is wider than `width`.

    What is left away is named: table.txt has it.
    """
    table, left = result.table(metric=metric), []
    less = [f"train {m}" for m in reversed(result.metrics)] + [f"{metric} from best"]
    while width and less and _width(table) > width:
        left.append(less.pop(0))
        table = _without(table, left[-1])
    more = f"not shown, for want of width: {', '.join(left)}; see table.txt."
    return f"{table}\n{more}" if left else str(table)


def _width(table: Table) -> int:
    return max(line.count("─") for line in str(table).splitlines())


def _without(table: Table, header: str) -> Table:
    keep = [i for i, column in enumerate(table.columns) if column.header != header]
    cells = tuple(tuple(row[i] for i in keep) for row in table.cells)
    return dataclasses.replace(table, columns=tuple(table.columns[i] for i in keep), cells=cells)


def simple_table(headers: list[str], rows: list[list[str]]) -> Table:
    """A table of texts."""
    columns = tuple(Column(h, "left") for h in headers)
    return Table("", columns, tuple(dict(zip(headers, r)) for r in rows), tuple(map(tuple, rows)))


def write_sweep(folder: Path, result: jr.SweepResult, metric: str = "loss") -> None:
    """Everything about the sweep into the folder; what is there of it already is replaced."""
    (folder / "table.txt").write_text(f"{result.table(metric=metric)}\n")
    result.save(folder / "result.npz", overwrite=True)
    result.to_csv(folder / "curves.csv", overwrite=True)
    _plots(folder, result, metric)


def write_test(folder: Path, refit: Refit) -> None:
    """The test scores into test.json, and below the table of the sweep."""
    with (folder / "table.txt").open("a") as table:
        table.write(f"\n{refit}\n")
    lams = [float(str(np.asarray(refit.result.coords["lam"])[k])) for k in refit.index]
    rows = [
        {"name": name, "lam": lam, "steps": steps, "scores": refit.scores(name)}
        for name, lam, steps in zip(refit.names, lams, refit.steps)
    ]
    (folder / "test.json").write_text(f"{json.dumps(rows, indent=2)}\n")


def _plots(folder: Path, result: jr.SweepResult, metric: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    displays = {
        "validation": result.plot(metric=metric),
        "learning_curves": result.plot_learning_curves(metric=metric),
    }
    for name, display in displays.items():
        display.figure_.savefig(folder / f"{name}.png", dpi=150, bbox_inches="tight")
        pyplot.close(display.figure_)
