"""What a job leaves behind: a folder that nothing is lost from, and a report in the terminal."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import jax

import jaxreg as jr
from jaxreg.cli.job import Job, Outcome
from jaxreg.cli.settings import Settings
from jaxreg.report.table import Column, Table

__all__ = ["claim", "describe", "penalised", "release", "simple_table", "test_table", "write"]


def claim(out: str | None, settings: Settings) -> Path:
    """A new, empty output folder with settings.json in it.

    Without `out` it is the first free one of runs/DATA, runs/DATA-2, …

    Raises:
      ValueError: `out` already holds files; they are left as they are.
    """
    if out is None:
        name = Path(settings.data).stem
        names = itertools.chain([name], (f"{name}-{i}" for i in itertools.count(2)))
        folder = next(Path("runs") / n for n in names if not (Path("runs") / n).exists())
    else:
        folder = Path(out)
        if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
            raise ValueError(
                f"--out: {out!r} already holds another run, which is left as it is. Choose a new "
                "folder, or leave --out away for a free one in runs/."
            )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "settings.json").write_text(settings.to_json())
    return folder


def release(folder: Path) -> None:
    """Give a claimed folder back that nothing but its settings was written to."""
    if [p.name for p in folder.iterdir()] == ["settings.json"]:
        (folder / "settings.json").unlink()
        folder.rmdir()


def describe(job: Job) -> str:
    """What will be trained, in a paragraph."""
    s, d = job.settings, job.dataset
    n_train, n_test = len(job.train[1]), len(job.test[1])
    lanes = len(job.grid) * s.folds * s.seeds
    kind = f"{d.n_classes} classes" if d.task == "classification" else "a continuous target"
    return (
        f"{d.name}: {len(d.X)} examples with {kind}; {n_train} to train on, {n_test} held out for the "
        f"test.\nModel {s.model}, penalty {job.grid.penalty.label}, {len(job.grid)} λ x {s.folds} folds x "
        f"{s.seeds} seeds = {lanes} trainings of {s.steps} steps in one program."
    )


def penalised(job: Job) -> str:
    """The audit table: which leaf is hit by which term."""
    params = job.trainer.init(jax.random.key(job.settings.seed))
    return str(jr.tabulate(job.grid[len(job.grid) // 2], params))


def test_table(outcome: Outcome) -> str:
    """Test scores of the refitted choices beside no penalty, mean ± standard error over refits."""
    metrics = list(outcome.test[0].scores)
    rows = [
        [row.name, f"{row.lam:.3g}", *(f"{m:.4f} ± {e:.4f}" for m, e in row.scores.values())]
        for row in outcome.test
    ]
    return str(
        simple_table(["refitted on all training data", "λ", *(f"test {m}" for m in metrics)], rows)
    )


def simple_table(headers: list[str], rows: list[list[str]]) -> Table:
    """A table of texts, the first column to the left."""
    columns = tuple(Column(h, "right" if i else "left") for i, h in enumerate(headers))
    return Table("", columns, tuple(dict(zip(headers, r)) for r in rows), tuple(map(tuple, rows)))


def write(folder: Path, outcome: Outcome) -> list[Path]:
    """Results, tables and plots into the folder; returns what was written."""
    result = outcome.result
    (folder / "table.txt").write_text(f"{result.table()}\n\n{test_table(outcome)}\n")
    (folder / "test.json").write_text(
        json.dumps([row._asdict() for row in outcome.test], indent=2, default=float) + "\n"
    )
    result.save(folder / "result.npz")
    result.to_pandas().to_csv(folder / "curves.csv", index=False)
    _plots(folder, result)
    return sorted(folder.iterdir())


def _plots(folder: Path, result: jr.SweepResult) -> None:
    import matplotlib

    matplotlib.use("Agg")
    displays = {"validation": result.plot(), "learning_curves": result.plot_learning_curves()}
    for name, display in displays.items():
        display.ax_.figure.savefig(folder / f"{name}.png", dpi=150, bbox_inches="tight")
