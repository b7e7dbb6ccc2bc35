"""Trackers: the curves of a running sweep in TensorBoard, Weights & Biases or MLflow.

Each point is a run of its own, named by its coordinates, such as "lam=0.001". At every evaluation it
gets, over the n lanes (folds and seeds) of the point that still run,

    train/METRIC, valid/METRIC, penalty, penalty/TERM = the mean over those lanes,   lanes = n,

so a lane that diverged shows as NaN while it runs, and a point that was given up has only lanes = 0.
The coordinates and what made the sweep are the run's configuration. The library of a tracker is
imported when the tracker is made: a missing one is told before the sweep starts.
"""

from __future__ import annotations

import abc
import json
import os
import re
import struct
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxreg.results import SweepResult
from jaxreg.sweeps.watch.callbacks import Callback, Evaluation, Outline

__all__ = ["MLflow", "TensorBoard", "Tracker", "WandB"]

Config = dict[str, bool | int | float | str]


class Tracker(Callback, abc.ABC):
    """One run per point: subclass it with `open`, `log` and `close` for a tool of yours.

    >>> class Print(Tracker):
    ...     def open(self, name, config, tags):
    ...         return name
    ...
    ...     def log(self, run, step, values):
    ...         print(run, step, values)
    >>> tracker, ones = Print(), np.ones((1, 5, 3))
    >>> tracker.start(Outline({"lam": np.array([0.1])}, 5, 3, 10, ("loss",), ("l2",), "{}"))
    >>> tracker.evaluated(
    ...     Evaluation(10, {"loss": ones}, {"loss": 2 * ones}, {"l2": 3 * ones}, ones > 0)
    ... )
    lam=0.1 10 {'train/loss': 1.0, 'valid/loss': 2.0, 'penalty': 3.0, 'lanes': 15.0}
    """

    _runs: tuple = ()

    @abc.abstractmethod
    def open(self, name: str, config: Config, tags: tuple[str, ...]) -> Any:
        """Begin the run of a point.

        Args:
          name: its coordinates; unique within the sweep, and fit to be a folder's name.
          config: what made the sweep and the coordinates, each a bool, number or text.
          tags: the names of the values that `log` will get.

        Returns:
          Anything that `log` and `close` know the run by.
        """

    @abc.abstractmethod
    def log(self, run: Any, step: int, values: dict[str, float]) -> None:
        """Add values to the curves of a run, by name."""

    def close(self, run: Any) -> None:
        """End a run."""

    def start(self, outline: Outline) -> None:
        curves = [f"{split}/{m}" for m in outline.metrics for split in ("train", "valid")]
        tags = (*curves, "penalty", *_term_tags(outline.terms).values(), "lanes")
        points = _points(outline.coords)
        common = _flat(json.loads(outline.made_by))
        common |= {"folds": outline.folds, "seeds": outline.seeds, "steps": outline.steps}
        self._runs = tuple(
            self.open(name, common | {n: float(text) for n, text in point.items()}, tags)
            for name, point in zip(_names(points), points)
        )

    def evaluated(self, evaluation: Evaluation) -> None:
        for k, run in enumerate(self._runs):
            self.log(run, evaluation.step, _values(evaluation, k))

    def finish(self, result: SweepResult) -> None:
        del result
        for run in self._runs:
            self.close(run)


def _points(coords: Mapping[str, Any]) -> list[dict[str, str]]:
    """The coordinates of each point as the shortest decimals of their own dtype."""
    columns = [[str(v) for v in np.asarray(values)] for values in coords.values()]
    return [dict(zip(coords, texts)) for texts in zip(*columns)]


def _names(points: list[dict[str, str]]) -> list[str]:
    """One name per point; those of equal coordinates are counted."""
    plain = [",".join(f"{n}={text}" for n, text in point.items()) for point in points]
    seen: Counter[str] = Counter()
    names = []
    for name in plain:
        seen[name] += 1
        names.append(f"{name}-{seen[name]}" if seen[name] > 1 else name)
    return names


def _term_tags(terms: Iterable[str]) -> dict[str, str]:
    """The tag of each term of several, in letters that every tool takes; one alone is the penalty."""
    names = list(terms)
    plain = lambda name: re.sub(r"[^\w.-]+", "_", name).strip("_")
    return {name: f"penalty/{plain(name)}" for name in names if len(names) > 1}


def _flat(made_by: Mapping[str, Any]) -> Config:
    """Bools, numbers and texts as they are; anything else as JSON text."""
    plain = (bool, int, float, str)
    return {n: v if isinstance(v, plain) else json.dumps(v) for n, v in made_by.items()}


def _values(evaluation: Evaluation, k: int) -> dict[str, float]:
    alive = np.asarray(evaluation.alive[k], bool)
    curves = {
        f"{split}/{metric}": values
        for metric in evaluation.train
        for split, values in (
            ("train", evaluation.train[metric]),
            ("valid", evaluation.valid[metric]),
        )
    }
    curves["penalty"] = evaluation.penalty
    curves |= {tag: evaluation.terms[n] for n, tag in _term_tags(evaluation.terms).items()}
    means = {}
    if alive.any():
        with np.errstate(all="ignore"):
            means = {n: float(np.asarray(v[k], float)[alive].mean()) for n, v in curves.items()}
    return means | {"lanes": float(alive.sum())}


class TensorBoard(Tracker):
    """Event files for TensorBoard, a folder per point, with the HParams tab.

    The records are built with tensorboardX, written without threads and handed to the system at every
    evaluation: a killed sweep loses nothing it showed, and any number of points keeps no file open.
    A second sweep into the same folder adds its curves to those that are there.

    Args:
      directory: where the folders go; view them with `tensorboard --logdir DIRECTORY`.

    Raises:
      ImportError: tensorboardX is not installed.

    Source of the format: TFRecord framing, and event.proto of TensorFlow.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> tracker = TensorBoard(folder)
    >>> tracker.start(Outline({"lam": np.array([0.1, 1.0])}, 5, 3, 10, ("loss",), ("l2",), "{}"))
    >>> sorted(p.name for p in folder.iterdir())
    ['lam=0.1', 'lam=1.0']
    """

    def __init__(self, directory: str | os.PathLike):
        try:
            from tensorboardX import record_writer, summary
            from tensorboardX.proto import event_pb2
        except ImportError as error:
            raise ImportError(
                "TensorBoard needs tensorboardX, which is not installed: "
                "pip install 'jaxreg[trackers]'."
            ) from error
        self._directory = Path(directory).expanduser()
        self._event: Any = event_pb2.Event  # pyright: ignore[reportAttributeAccessIssue]
        self._hparams: Any = summary.hparams
        self._crc: Any = record_writer.masked_crc32c
        self._end: Any = None

    def open(self, name: str, config: Config, tags: tuple[str, ...]) -> Path:
        folder = self._directory / name
        folder.mkdir(parents=True, exist_ok=True)
        # A file of its own for each sweep: the last record of a killed one may be torn.
        file = folder / f"events.out.tfevents.{time.time_ns()}.jaxreg"
        self._write(file, {"file_version": "brain.Event:2"})
        experiment, session, self._end = self._hparams(config, dict.fromkeys(tags, 0.0))
        self._write(file, {"summary": experiment}, {"summary": session})
        return file

    def log(self, run: Path, step: int, values: dict[str, float]) -> None:
        summary = {"value": [{"tag": t, "simple_value": v} for t, v in values.items()]}
        self._write(run, {"step": step, "summary": summary})

    def close(self, run: Path) -> None:
        self._write(run, {"summary": self._end})

    def _write(self, file: Path, *events: dict[str, Any]) -> None:
        with open(file, "ab") as out:
            for event in events:
                out.write(self._framed(self._event(wall_time=time.time(), **event)))

    def _framed(self, event: Any) -> bytes:
        data = event.SerializeToString()
        length = struct.pack("<Q", len(data))
        check = [struct.pack("<I", self._crc(part)) for part in (length, data)]
        return length + check[0] + data + check[1]


class WandB(Tracker):
    """Runs on Weights & Biases, all open at once.

    Args:
      **init: arguments of `wandb.init`, such as project, group, tags or mode. `name`, `id` and `reinit`
        are set for each point; a `config` of yours joins that of the sweep.

    Raises:
      ImportError: wandb is not installed. ValueError: an argument that is set for each point.

    >>> WandB(project="digits", name="first")
    Traceback (most recent call last):
    ValueError: WandB: `name` is set for each point; tell sweeps apart by `project` or `group`.
    """

    def __init__(self, **init: Any):
        taken = sorted({"name", "id", "reinit"} & set(init))
        if taken:
            raise ValueError(
                f"WandB: `{taken[0]}` is set for each point; tell sweeps apart by `project` or `group`."
            )
        try:
            import wandb  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise ImportError(
                "WandB needs wandb, which is not installed: pip install 'wandb>=0.19.10'."
            ) from error
        self._init = init
        self._wandb: Any = wandb

    def open(self, name: str, config: Config, tags: tuple[str, ...]) -> Any:
        del tags
        joined = {**(self._init.get("config") or {}), **config}
        # "create_new" leaves the other runs of the process open.
        return self._wandb.init(
            **{**self._init, "name": name, "config": joined, "reinit": "create_new"}
        )

    def log(self, run: Any, step: int, values: dict[str, float]) -> None:
        run.log(values, step=step)

    def close(self, run: Any) -> None:
        run.finish()


class MLflow(Tracker):
    """Runs of an MLflow experiment, by its client: no active run of yours is touched.

    Args:
      experiment: its name; it is made if it is not there.
      tracking_uri: where; MLflow's own default if None.
      tags: texts for every run.

    Raises:
      ImportError: mlflow is not installed.

    >>> MLflow("digits", tracking_uri="http://localhost:5000")  # doctest: +SKIP
    """

    def __init__(
        self,
        experiment: str = "jaxreg",
        *,
        tracking_uri: str | None = None,
        tags: Mapping[str, str] | None = None,
    ):
        try:
            from mlflow import MlflowClient, entities  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise ImportError(
                "MLflow needs mlflow, which is not installed: pip install mlflow."
            ) from error
        self._experiment = experiment
        self._tags = dict(tags or {})
        self._client: Any = MlflowClient(tracking_uri=tracking_uri)
        self._entities: Any = entities

    def start(self, outline: Outline) -> None:
        found = self._client.get_experiment_by_name(self._experiment)
        self._id = (
            self._client.create_experiment(self._experiment)
            if found is None
            else found.experiment_id
        )
        super().start(outline)

    def open(self, name: str, config: Config, tags: tuple[str, ...]) -> str:
        del tags
        run = self._client.create_run(self._id, run_name=name, tags=self._tags).info.run_id
        params = [self._entities.Param(n, str(v)) for n, v in config.items()]
        self._client.log_batch(run, params=params)
        return run

    def log(self, run: str, step: int, values: dict[str, float]) -> None:
        now = int(time.time() * 1000)
        metrics = [self._entities.Metric(n, v, now, step) for n, v in values.items()]
        self._client.log_batch(run, metrics=metrics)

    def close(self, run: str) -> None:
        self._client.set_terminated(run)
