"""The job behind `jaxreg sweep`: data, model, sweep, refit on all training data, test."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

import jaxreg as jr
from jaxreg.choice import Choice
from jaxreg.cli import data as datasets
from jaxreg.cli import models, whole
from jaxreg.cli.data import Dataset, Rows
from jaxreg.cli.data.problems import did_you_mean
from jaxreg.cli.settings import WITHOUT_FOLDS, Settings, parse_halving, parse_rules
from jaxreg.fit.check import check, check_signs
from jaxreg.fit.classes import lacking
from jaxreg.fit.overlap import known, overlap, refuse_overlap
from jaxreg.fit.prepare import prepared
from jaxreg.fit.splits import make_splits
from jaxreg.grid import Grid
from jaxreg.metrics import Bound
from jaxreg.sweeps import Refit

__all__ = ["Job", "prepare"]

_EVALS = 20  # evaluations on the way
_FEW_ROWS = 100
_SHOWN = {"classification": ("accuracy",), "regression": ("rmse", "r2")}
_POWERS = {"rmse": 1, "mae": 1, "mse": 2, "r2": 0}  # of the target's unit


class Job(NamedTuple):
    """A job ready to run: everything was checked, nothing has been compiled."""

    settings: Settings
    dataset: Dataset
    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    trainer: Callable[[jr.Penalty], jr.Trainer]
    grid: Grid
    model: models.Model
    learnt: Callable | None  # what each fold learns of its training rows beforehand
    folds: Any
    warnings: tuple[str, ...] = ()

    def sweep(
        self,
        checkpoint: Path | None = None,
        callbacks: Sequence[jr.Callback] = (),
        progress: bool | None = None,
    ) -> jr.SweepResult:
        """Train every λ with cross-validation; go on from the checkpoint if there is one."""
        s = self.settings
        return jr.sweep(
            self.trainer, self.grid, self.train, folds=self.folds, seeds=s.seeds, steps=s.steps,
            batch_size=s.batch_size, evals=_EVALS, halving=parse_halving(s.halving),
            patience=s.patience, machine=jr.Machine(chunk=s.chunk), key=jax.random.key(s.seed),
            prepare=self.learnt, checkpoint=checkpoint, callbacks=callbacks, progress=progress,
        )  # fmt: skip

    @property
    def rules(self) -> tuple[str, ...]:
        return parse_rules(self.settings.choose)

    @property
    def without_folds(self) -> list[str]:
        """The rules that look at models of all training rows."""
        return [rule for rule in self.rules if rule in WITHOUT_FOLDS]

    def choices(
        self, result: jr.SweepResult, all_rows: jr.SweepResult | None = None
    ) -> list[Choice]:
        """What each rule chooses, by the metric that was asked for, or without folds."""
        return [
            whole.choose(self, rule, all_rows)
            if all_rows is not None and rule in WITHOUT_FOLDS
            else result.best(rule, self.settings.metric)
            for rule in self.rules
        ]

    def refit(
        self,
        result: jr.SweepResult,
        chosen: Sequence[Choice],
        callbacks: Sequence[jr.Callback] = (),
        progress: bool | None = None,
    ) -> Refit:
        """Train λ = 0 and the chosen ones on all training rows, several times, and test them."""
        more = {"callbacks": callbacks, "progress": progress}
        return self._again(result, chosen, seeds=self.settings.refits, **more)

    def fitted(self, result: jr.SweepResult, refit: Refit, choice: Choice) -> Any:
        """Parameters of the choice, trained on all training rows, as long as when it was tested."""
        name = f"chosen by {choice.rule}"
        steps = refit.steps[refit.names.index(name)]
        if steps == int(refit.result.time[-1]):
            return refit.params(name)
        alone = {"patience": None, "evals": 1, "progress": False}
        return self._again(result, choice, seeds=1, steps=steps, **alone).params(name)

    def _again(self, result: jr.SweepResult, rule: Any, **options: Any) -> Refit:
        key = jax.random.fold_in(jax.random.key(self.settings.seed), 1)
        return jr.refit(
            self.trainer, result, self.train, rule=rule, test=known(self.test), prepare=self.learnt,
            key=key, **options,
        )  # fmt: skip


def prepare(settings: Settings) -> Job:
    """Load, split and standardise the data, build model, optimizer and grid; compile nothing.

    Raises:
      ValueError: an option, or the data, does not make a job; the message says what to do.
    """
    grid = settings.grid()
    halving = parse_halving(settings.halving)
    if halving is not None:
        halving.schedule(len(grid), settings.steps)
    dataset = datasets.load(
        settings.data, target=settings.target, task=settings.task, reading=settings.reading()
    )
    rows, test = _split(settings, dataset)
    train = dataset.X[rows], dataset.y[rows]
    model = models.build(settings.model, dataset, hidden=settings.hidden)
    trainer = _trainer(settings, model, dataset, grid[0])
    learnt = _learnt(dataset, settings.impute)
    ready = prepared("sweep", learnt, train, [np.arange(len(train[0]))])
    key = jax.random.key(settings.seed)
    point = grid[len(grid) - 1]
    checked = check("sweep", trainer, point, ready.data, key, ready.of_fold(0))
    check_signs("sweep", trainer, point, checked)
    folds = _folds(settings, dataset, rows)
    _refuse_lacking(settings, dataset, rows, folds)
    warnings = (*datasets.leaks(dataset), *(_told(train, test) if settings.test else ()))
    pair = test.X, np.asarray(test.y)
    job = Job(settings, dataset, train, pair, trainer, grid, model, learnt, folds, warnings)
    whole.check(job, job.without_folds)
    return job


def _split(s: Settings, dataset: Dataset) -> tuple[np.ndarray, Rows]:
    """The numbers of the rows to train on, and the test rows: others of them, or those of --test."""
    if s.test is None:
        rows, others = datasets.split_rows(dataset, _train_rows(s, dataset), s.seed)
        return rows, Rows(dataset.X[others], dataset.y[others], "row", tuple(others.tolist()), {})
    if not _own(s.data):
        raise ValueError(f"--test is about a file of yours; {s.data!r} is split by --train-size.")
    if s.train_size is not None:
        raise ValueError(
            "--train-size and --test contradict each other: with --test all rows of the data are trained "
            "on. Give one of them."
        )
    if Path(s.test).resolve() == Path(s.data).resolve():
        raise ValueError(
            "--test is the file that is trained on; give another one, or leave it away."
        )
    test = datasets.read_like(s.test, dataset, s.reading(), targets=True)
    return np.random.default_rng(s.seed).permutation(len(dataset.X)), test


def _told(train: tuple[np.ndarray, np.ndarray], test: Rows) -> Iterator[str]:
    """What is odd about a test set of its own."""
    for name, count in test.unseen.items():
        yield (
            f"{count} of {len(test.X)} test rows have a value of {name!r} that no row of the data has; it "
            "counts as none of them."
        )
    found = overlap(train, (test.X, np.asarray(test.y).astype(train[1].dtype)))
    yield from refuse_overlap("sweep", "--test", found, "the data")


def _folds(s: Settings, dataset: Dataset, rows: np.ndarray) -> Any:
    """A number of random folds, or those that groups, times or classes ask for."""
    if dataset.times is not None and (s.stratify or dataset.groups is not None):
        other = "--stratify" if s.stratify else "--groups"
        raise ValueError(f"{other} and --time contradict each other: folds in time have an order.")
    if dataset.times is not None:
        return jr.folds(len(rows), s.folds, times=dataset.times[rows])
    if dataset.groups is None and not s.stratify:
        return s.folds
    groups = None if dataset.groups is None else dataset.groups[rows]
    y = dataset.y[rows] if s.stratify else None
    return jr.folds(len(rows), s.folds, groups=groups, y=y, seed=s.seed)


def _refuse_lacking(s: Settings, dataset: Dataset, rows: np.ndarray, folds: Any) -> None:
    """Refuse folds of which one is judged on a class that it has no row of to train on."""
    if dataset.task != "classification":
        return
    y = np.asarray(dataset.y[rows])
    found = lacking(make_splits(folds, len(rows), 0, jax.random.key(s.seed)).table.times, y)
    if not found:
        return
    fold, c = found[0]
    name, count = (dataset.class_names or range(c + 1))[c], int((y == c).sum())
    free = dataset.times is None and not s.stratify and count > 1
    remedy = "Give --stratify, or leave" if free else "Leave"
    raise ValueError(
        f"--folds: fold {fold} is judged on the class {name!r} and has no row of it to train on, got "
        f"{count} of it in all; its loss would say nothing of λ. {remedy} the rows of the class out, or "
        "join it with another."
    )


def _own(data: str) -> bool:
    return Path(data).suffix.lower() in (".csv", ".npz")


def _train_rows(settings: Settings, dataset: Dataset) -> int:
    """As said; else few of a bundled set, so that a penalty pays, and three quarters of a file."""
    if settings.train_size is None:
        return len(dataset.X) * 3 // 4 if _own(settings.data) else _FEW_ROWS
    return settings.train_size or len(dataset.X) * 3 // 4


def _learnt(dataset: Dataset, impute: str) -> Callable | None:
    """What is learnt of training rows: how features but pixels are encoded, and a quantity's scale."""
    quantity = dataset.task == "regression"

    def of_rows(x: np.ndarray, y: np.ndarray) -> Any:
        encode = None if dataset.image_shape else datasets.learn(x, dataset.values, impute)
        level, unit = datasets.standardizer(y) if quantity else (0, 1)

        def rows(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            x = x.astype(np.float32) if encode is None else encode(x)
            return x, ((y - level) / unit).astype(np.float32) if quantity else y

        return (rows, {"unit": np.float32(unit)}) if quantity else rows

    return None if dataset.image_shape and not quantity else of_rows


def _trainer(s: Settings, model: models.Model, dataset: Dataset, penalty: jr.Penalty) -> Callable:
    """The trainer at a penalty: how the penalty reaches the weights."""
    chain = _chain(s, penalty)
    metrics = _chosen_metrics(s.metric, model, dataset.task)
    if dataset.task != "regression":
        return lambda reg: jr.Trainer(model.init, model.loss, chain(reg), metrics=metrics)
    # A quantity is learnt in its own standard deviations: else the first thousand steps go into reaching
    # its mean. Its error is in its own units.
    of_target = {name: _InUnits(metric, _POWERS[name]) for name, metric in metrics.items()}
    init = lambda key, n: model.init(key)
    loss = lambda params, n, x, y: model.loss(params, x, y)
    return lambda reg: jr.Trainer(init, loss, chain(reg), metrics=of_target)


def _chosen_metrics(name: str, model: models.Model, task: str) -> dict[str, Any]:
    """Those that are always shown, and the one that chooses."""
    known = ["loss", *model.metrics]
    if name not in known:
        raise ValueError(
            f"--metric: there is no {name!r} for this target{did_you_mean(name, known)} There are "
            f"{', '.join(known)}."
        )
    return {n: metric for n, metric in model.metrics.items() if n in (*_SHOWN[task], name)}


@dataclasses.dataclass(frozen=True)
class _InUnits:
    """A metric of standardised targets, in the units that the target had."""

    metric: Bound
    power: int

    @property
    def better(self) -> str:
        return self.metric.better

    def __call__(self, params: Any, n: Any, x: Any, y: Any, sample_weight: Any = None) -> Any:
        return n["unit"] ** self.power * self.metric(params, x, y, sample_weight=sample_weight)


def _chain(s: Settings, penalty: jr.Penalty) -> Callable:
    coupling = s.coupling
    if coupling == "auto":
        coupling = "gradient" if penalty.smooth else "proximal"
    whole = {"adam": optax.adam, "sgd": optax.sgd}[s.optimizer]
    direction = {"adam": optax.scale_by_adam, "sgd": optax.identity}[s.optimizer]
    if coupling == "gradient":
        return lambda reg: optax.chain(jr.add_penalty_gradient(reg), whole(s.lr))
    if coupling == "decoupled":
        return lambda reg: jr.decoupled(direction(), reg, s.lr)
    return lambda reg: jr.proximal(direction(), reg, s.lr)
