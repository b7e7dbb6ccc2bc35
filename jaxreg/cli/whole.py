"""Rules that need no folds: evidence and leave-one-out, of every λ trained on all training rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import numpy as np

import jaxreg as jr
from jaxreg.choice import Choice
from jaxreg.fit.overlap import known
from jaxreg.fit.prepare import prepared
from jaxreg.tune import evidence, leave_one_out

if TYPE_CHECKING:
    from jaxreg.cli.job import Job

__all__ = ["FILE", "check", "choose", "read", "train"]

FILE = "whole.npz"


def check(job: Job, rules: Sequence[str]) -> None:
    """Refuse rules without folds that a job has not what they need for, before anything is trained.

    Raises:
      ValueError: naming the rule and what to do.
    """
    s = job.settings
    for rule in rules:
        if s.coupling == "decoupled":
            raise ValueError(
                f"--choose {rule}: decoupled weight decay does not minimise loss + penalty, of which the "
                "rule speaks. Take --coupling gradient, or choose by min."
            )
        if rule == "loo" and s.model != "linear":
            raise ValueError(
                "--choose loo: leaving a row out by a formula needs a linear model, got --model "
                f"{s.model}. Take --model linear, or choose by evidence or min."
            )
        penalty = job.grid[len(job.grid) - 1]
        if rule == "evidence" and penalty.quadratic(_start(job)) is None:
            raise ValueError(
                f"--choose evidence: {penalty.label} is no quadratic, so that it is no Gaussian prior. "
                "Take --penalty l2, or choose by min."
            )


def train(
    job: Job, callbacks: Sequence[jr.Callback] = (), progress: bool | None = None
) -> jr.SweepResult:
    """Every λ, trained on all training rows at once; what it is judged on are these rows."""
    s = job.settings
    return jr.sweep(
        job.trainer, job.grid, job.train, validation=known(job.train), seeds=s.seeds, steps=s.steps,
        batch_size=s.batch_size, evals=1, machine=jr.Machine(chunk=s.chunk),
        key=jax.random.key(s.seed), prepare=job.learnt, callbacks=callbacks, progress=progress,
    )  # fmt: skip


def read(job: Job, folder: Path) -> jr.SweepResult:
    """What `train` returned and a run has kept.

    Raises:
      ValueError: the run has kept none.
    """
    if not (folder / FILE).exists():
        raise ValueError(
            "choose: models of all training rows are needed, and the run chose by folds alone. Train them: "
            f"jaxreg sweep --again {folder / 'settings.json'} --choose evidence,loo"
        )
    return jr.SweepResult.load(folder / FILE, like=(job.grid[0], _start(job)))


def choose(job: Job, rule: str, whole: jr.SweepResult) -> Choice:
    """What a rule takes, of models of all training rows.

    Raises:
      ValueError: no lane is a candidate.
    """
    data = prepared("sweep", job.learnt, job.train, [np.arange(len(job.train[0]))]).data
    likelihood = "gaussian" if job.dataset.task == "regression" else "categorical"
    of = {"evidence": evidence, "loo": leave_one_out}[rule]
    chosen = of(job.model.apply, whole, data, likelihood=likelihood).best()
    return dataclasses.replace(chosen, rule=rule)


def _start(job: Job) -> dict:
    return job.model.init(jax.random.key(job.settings.seed))
