"""`jaxreg choose`: what other rules take from a sweep that has been trained."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

import jaxreg as jr
from jaxreg.choice import RULES, Choice
from jaxreg.cli import whole
from jaxreg.cli.folder import RunFolder
from jaxreg.cli.job import prepare
from jaxreg.cli.output import simple_table
from jaxreg.cli.settings import WITHOUT_FOLDS
from jaxreg.results.summary import plus_minus

__all__ = ["choose"]


def choose(
    run: str, rules: Sequence[str] = (), metric: str | None = None, within: float | None = None
) -> int:
    """Print what each rule takes from a finished sweep, by its validation scores; returns the exit status.

    Of several rules there is a table, of one all about it.

    Raises:
      ValueError: there is no finished sweep, or a rule cannot be followed.
    """
    folder = RunFolder.existing(run, "choose")
    metric = metric or folder.settings().metric
    if not folder.swept:
        raise ValueError(f"choose: the sweep in {run!r} has not ended. Go on: {folder.command()}")
    if within is not None and (len(rules) != 1 or rules[0] in WITHOUT_FOLDS):
        raise ValueError("--within is about one rule; name it, as in `jaxreg choose RUN paired`.")
    result = jr.SweepResult.load(folder.path / "result.npz")
    chosen = [_chosen(folder, result, rule, metric, within) for rule in rules or RULES]
    if len(rules) == 1:
        print(chosen[0])
        return 0
    print(simple_table(["rule", "λ", f"valid {metric}", "why"], list(map(_row, chosen))))
    for text in dict.fromkeys(f"{c.rule}: {text}" for c in chosen for text in c.warnings):
        print(f"warning: {text}")
    print(f"One of them trained on all rows: jaxreg sweep --again {folder.path / 'settings.json'} "
          "--choose RULE")  # fmt: skip
    return 0


def _chosen(
    folder: RunFolder, result: jr.SweepResult, rule: str, metric: str, within: float | None
) -> Choice:
    if rule not in WITHOUT_FOLDS:
        return result.best(rule, metric, within=within)
    job = prepare(folder.settings())
    all_rows = whole.read(job, folder.path)
    whole.check(job, [rule])
    return whole.choose(job, rule, all_rows)


def _row(choice: Choice) -> list[str]:
    (score,) = plus_minus(np.array([choice.mean]), np.array([choice.stderr]))
    what = f" ({choice.metric})" * (choice.rule in WITHOUT_FOLDS)
    return [choice.rule, f"{choice.coords['lam']:.3g}", score + what, choice.why]
