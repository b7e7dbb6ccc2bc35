"""The model that a run leaves behind: parameters, and all that turns a row of a file into a prediction."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxreg._tree import PyTree
from jaxreg.cli import data as datasets
from jaxreg.cli import models
from jaxreg.cli.data import Dataset, Encoder
from jaxreg.cli.job import Job
from jaxreg.cli.settings import Settings
from jaxreg.metrics import Bound
from jaxreg.storage.archive import read_archive, write_archive
from jaxreg.storage.sealed import Damaged, readable

__all__ = ["SavedModel", "read_model", "write_model"]

NAME = "model.npz"
_KIND = "jaxreg-model"
_SCHEMA = ("name", "task", "n_classes", "target", "in_bytes")
_SCHEMA_TUPLES = ("feature_names", "class_names", "image_shape")


class SavedModel(NamedTuple):
    """A model that was read back.

    Attributes:
      settings: of its run.
      dataset: what it learnt from, without the rows.
      encoder: of features, as learnt of the training rows; None for images.
      level, unit: what the target was standardised by; 0 and 1 for classes.
      lams: rule -> the λ that it chose.
      params: rule -> parameters.
    """

    settings: Settings
    dataset: Dataset
    encoder: Encoder | None
    level: float
    unit: float
    lams: dict[str, float]
    params: dict[str, PyTree]

    def outputs(self, X: np.ndarray, rule: str) -> np.ndarray:
        """Logits [n, n_classes] of rows as a file has them, or predictions [n] in the target's unit."""
        x = X.astype(np.float32) if self.encoder is None else self.encoder(X)
        outputs = np.asarray(self._model.apply(self.params[rule], jnp.asarray(x)))
        return outputs if self.dataset.n_classes else self.level + self.unit * outputs.astype(float)

    def scores(self, outputs: np.ndarray, y: np.ndarray) -> dict[str, float]:
        """Every metric of the outputs that can be had for these targets."""
        of = {n: m.metric for n, m in self._model.metrics.items() if isinstance(m, Bound)}
        if not self.dataset.n_classes:
            # Shifted first: what is left of a large target's digits in float32 is its noise.
            y, outputs = y - self.level, outputs - self.level
        return {n: float(metric(jnp.asarray(y), jnp.asarray(outputs))) for n, metric in of.items()}

    @property
    def _model(self) -> models.Model:
        return models.build(self.settings.model, self.dataset, hidden=self.settings.hidden)


def write_model(folder: Path, job: Job, chosen: Mapping[str, tuple[float, PyTree]]) -> None:
    """Write model.npz, in place of one that is there.

    Args:
      folder: of the run.
      job: whose data and model.
      chosen: rule -> λ and parameters.
    """
    d, (X, y) = job.dataset, job.train
    encoder = None if d.image_shape else datasets.learn(X, d.values, job.settings.impute)
    level, unit = datasets.standardizer(y) if d.task == "regression" else (0.0, 1.0)
    schema = {name: getattr(d, name) for name in (*_SCHEMA, *_SCHEMA_TUPLES)}
    header = {
        "format": _KIND,
        "settings": job.settings.to_json(),
        "schema": {**schema, "categories": dict(d.categories)},
        "values": None if encoder is None else encoder.values,
        "lams": {rule: lam for rule, (lam, _) in chosen.items()},
    }
    learnt = {} if encoder is None else encoder._asdict()
    learnt.pop("values", None)
    scale = {"level": np.float64(level), "unit": np.float64(unit)}
    trees = {"params": {rule: params for rule, (_, params) in chosen.items()}}
    write_archive(
        folder / NAME, header, {**trees, "encoder": learnt or None, "target": scale}, overwrite=True
    )


def read_model(directory: str) -> SavedModel:
    """The model of a run.

    Raises:
      ValueError: there is none, or the file is damaged.
    """
    path = Path(directory) / NAME
    if not path.is_file():
        raise ValueError(
            f"{directory!r} has no {NAME}. Give the folder of a run that has ended, such as runs/digits."
        )
    header, trees = read_archive(path, _KIND, owner="predict")
    try:
        with readable("header"):
            nested = {n: None if t is None else t.nested() for n, t in trees.items()}
            return _fitting(_made(header, nested, path))
    except Damaged as damage:
        raise ValueError(f"predict: {str(path)!r} is damaged: {damage}.") from damage


def _fitting(saved: SavedModel) -> SavedModel:
    """The model, if its parts can be those of one: hashes tell what was changed, not what is a lie.

    Raises:
      Damaged: naming what does not fit.
    """
    data, model, encoder = saved.dataset, saved._model, saved.encoder
    if encoder is not None and (
        encoder.values != data.values or len(encoder.mean) != sum(max(v, 1) for v in data.values)
    ):
        raise Damaged("its 'values' do not fit the rest")
    row = np.zeros((1, len(data.feature_names)))
    x = row.astype(np.float32) if encoder is None else encoder(row)
    shape = (1, data.n_classes) if data.n_classes else (1,)
    start = jax.eval_shape(model.init, jax.random.key(0))
    kinds = lambda tree: jax.tree.map(lambda a: (a.shape, a.dtype.name), tree)
    right = {
        "lams": {*saved.lams} == {*saved.params} and all(lam >= 0 for lam in saved.lams.values()),
        "params": all(kinds(params) == kinds(start) for params in saved.params.values()),
        "n_classes": (data.n_classes or 0) == len(data.class_names or ()),
        "encoder": x.ndim == 2 and np.isfinite([saved.level, saved.unit]).all() and saved.unit > 0,
        "outputs": jax.eval_shape(model.apply, start, x).shape == shape,
    }  # fmt: skip
    odd = [name for name, fits in right.items() if not fits]
    if odd:
        raise Damaged(f"its {odd[0]!r} do not fit the rest")
    return saved


def _made(header: Mapping[str, Any], trees: Mapping[str, Any], path: Path) -> SavedModel:
    schema = header["schema"]
    categories = {name: tuple(values) for name, values in schema["categories"].items()}
    tuples = {n: None if schema[n] is None else tuple(schema[n]) for n in _SCHEMA_TUPLES}
    rest: dict[str, Any] = {n: schema[n] for n in _SCHEMA} | tuples
    values, learnt = header["values"], trees["encoder"]
    X = np.empty((0, len(schema["feature_names"])))
    return SavedModel(
        Settings.from_text(header["settings"], str(path)),
        Dataset(X=X, y=np.empty(0), categories=categories, **rest),
        None if values is None else Encoder(tuple(values), **learnt),
        float(trees["target"]["level"]),
        float(trees["target"]["unit"]),
        dict(header["lams"]),
        trees["params"],
    )
