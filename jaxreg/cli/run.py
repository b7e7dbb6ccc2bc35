"""A run of `jaxreg sweep`, new or gone on with, from its folder to its results.

Whatever ends it before, the folder stays and the same numbers come out in the end: Ctrl-C, `kill` and
crashes cost at most the minute since the last checkpoint.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
import warnings
from collections.abc import Iterator
from typing import Any

import jaxreg as jr
from jaxreg.cli import output, whole
from jaxreg.cli.folder import RunFolder
from jaxreg.cli.interrupt import Presses
from jaxreg.cli.job import Job, prepare
from jaxreg.cli.model_file import write_model
from jaxreg.cli.settings import WITHOUT_FOLDS, Settings

__all__ = ["INTERRUPTED", "resume", "start"]

INTERRUPTED = 130  # the exit status of a program that Ctrl-C ended


def start(settings: Settings, out: str | None = None) -> int:
    """Run in a new folder; returns the exit status.

    Raises:
      ValueError, TypeError, ImportError: what was asked for cannot be done; unless something had been
        trained, no folder is left behind.
    """
    job = prepare(settings)
    text = f"{output.describe(job)}\n\n{output.penalized(job)}\n"
    folder = RunFolder.new(out, settings)
    print(text, flush=True)
    for warning in job.warnings:
        print(f"jaxreg: warning: {warning}", file=sys.stderr, flush=True)
    return _run(job, folder, new=True)


def resume(directory: str) -> int:
    """Go on with the run in a folder, to the results it would have had; returns the exit status.

    Raises:
      ValueError: it is no folder of a run, or its data or checkpoints are not what they were.
    """
    folder = RunFolder.existing(directory, "--resume")
    folder.clean()
    settings = folder.settings()
    if folder.finished:
        print(f"The run in {folder.path} has finished; its results are there.")
        return 0
    job = prepare(settings)
    print(output.describe(job), end="\n\n")
    print(f"The run ended {folder.how_far(settings.steps)}.\nIt goes on from there.\n", flush=True)
    return _run(job, folder, new=False)


def _run(job: Job, folder: RunFolder, new: bool) -> int:
    try:
        with _told_warnings():
            _work(job, folder)
    except KeyboardInterrupt:
        print(
            f"jaxreg: interrupted {folder.how_far(job.settings.steps)}. Go on: {folder.command()}",
            file=sys.stderr,
        )
        return INTERRUPTED
    except Exception as error:
        if not (folder.finished or (new and folder.release())):
            error.add_note(
                f"The run ended {folder.how_far(job.settings.steps)}. Go on: {folder.command()}"
            )
        raise
    return 0


def _work(job: Job, folder: RunFolder) -> None:
    """Sweep, choose, refit, test; each is shown and written as soon as it is known."""
    started = time.perf_counter()
    trackers = (
        [jr.trackers.TensorBoard(folder.path / "tensorboard")] if job.settings.tensorboard else []
    )
    with Presses() as presses:
        result = job.sweep(folder.checkpoint, [presses, *trackers])
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    print(output.sweep_table(result, width, job.settings.metric), end="\n\n", flush=True)
    output.write_sweep(folder.path, result, job.settings.metric)
    all_rows = _all_rows(job, folder)
    try:
        chosen = job.choices(result, all_rows)
    except ValueError:  # nothing can be chosen, and going on would not change it
        folder.finish()
        raise
    by = "" if job.settings.metric == "loss" else f" of {job.settings.metric}"
    for choice in chosen:
        what = "" if choice.rule in WITHOUT_FOLDS else by
        print(f"λ chosen by {choice.rule}{what}: {choice.coords['lam']:.3g}")
        for text in choice.warnings if choice.rule in WITHOUT_FOLDS else ():
            print(f"jaxreg: warning: {choice.rule}: {text}", file=sys.stderr)
    print(flush=True)
    with Presses() as presses:
        refit = job.refit(result, chosen, [presses])
    print(refit, end="\n\n")
    output.write_test(folder.path, refit)
    models = {c.rule: (float(c.coords["lam"]), job.fitted(result, refit, c)) for c in chosen}
    write_model(folder.path, job, models)
    folder.finish()
    names = ", ".join(sorted(p.name for p in folder.path.iterdir()))
    print(f"{time.perf_counter() - started:.0f} s. In {folder.path}: {names}")
    print(f"Again: jaxreg sweep --again {folder.path / 'settings.json'}")
    print(f"New rows: jaxreg predict {folder.path} FILE")


def _all_rows(job: Job, folder: RunFolder) -> jr.SweepResult | None:
    """Every λ trained on all training rows, where a rule asks for it."""
    if not job.without_folds:
        return None
    with Presses() as presses:
        result = whole.train(job, [presses])
    result.save(folder.path / whole.FILE, overwrite=True)
    return result


@contextlib.contextmanager
def _told_warnings() -> Iterator[None]:
    """Warnings of the sweep as lines for a reader, without the place in the code."""
    with warnings.catch_warnings():
        otherwise = warnings.showwarning

        def show(message: Any, *place: Any, **more: Any) -> None:
            if str(message).startswith("sweep: "):
                print(f"jaxreg: warning: {str(message).removeprefix('sweep: ')}", file=sys.stderr)
            else:
                otherwise(message, *place, **more)

        warnings.showwarning = show
        yield
