"""The lanes of a continuation on their way from strength to strength.

The population is that of a sweep over the weakest strength of every path. Between two strengths the states
of all lanes stay, and the points beside them become the next ones. Steps go on counting, so evaluations are
noted at the ends of the strengths.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array

from jaxreg import _tree
from jaxreg._check import count
from jaxreg._tree import PyTree
from jaxreg.fit import judge
from jaxreg.fit.check import check, trainer_at
from jaxreg.fit.trainer import MakeTrainer, Trainer
from jaxreg.grid import Grid
from jaxreg.objective import terms_in
from jaxreg.results import Status, SweepResult
from jaxreg.sweeps.machine.layout import plan
from jaxreg.sweeps.machine.machine import Machine, check_machine, default_mesh
from jaxreg.sweeps.machine.widths import widest
from jaxreg.sweeps.population import Population
from jaxreg.sweeps.probe import Probe
from jaxreg.sweeps.program import Common, Spec
from jaxreg.sweeps.rows import Rows

__all__ = ["Options", "Way"]


class Options(NamedTuple):
    """What a user may say beside the trainer, the grid and the data."""

    steps: int
    then: int
    key: Array
    seeds: int
    batch_size: int | None
    machine: Machine


class Way:
    """All lanes of all paths, on their way through the strengths."""

    def __init__(
        self, trainer: MakeTrainer, grid: Grid, walked: str, paths: np.ndarray, rows: Rows,
        options: Options,
    ):  # fmt: skip
        self.trainer, self.grid, self.walked, self.paths = trainer, grid, walked, paths
        self.rows, self.options = rows, options
        length = paths.shape[1]
        count("continuation", "steps", options.steps + options.then * (length - 1))  # all of them
        self.ends = options.steps + options.then * np.arange(length)
        # After each strength, [paths, P, ...]: parameters, and whether nothing has diverged.
        self.params: list[PyTree] = []
        self.finite: list[np.ndarray] = []
        self._prepare()

    def _prepare(self) -> None:
        """What a sweep of the weakest strengths asks and plans."""
        rows, o, trainer = self.rows, self.options, self.trainer
        check_machine(o.machine, o.batch_size, len(self.paths))
        n_pairs = len(rows.splits.table.count) * o.seeds
        mesh = o.machine.mesh or default_mesh(len(self.paths) * n_pairs)
        padded = o.batch_size is None and not rows.splits.equal
        # The strongest: in λ = 0 no coupling shows.
        point = self.grid[int(self.paths[-1, -1])]
        size, numbers = o.batch_size or rows.splits.fewest, rows.prepared.of_fold(0)
        data = rows.prepared.data
        batch = jax.tree.map(lambda a: jax.ShapeDtypeStruct((size, *a.shape[1:]), a.dtype), data)
        checked = check("continuation", trainer, point, batch, o.key, numbers)
        if checked.idle_numbers:
            raise ValueError(
                "continuation: neither the start nor an update nor an evaluation depends on "
                f"{checked.idle_numbers[0]!r} of the point. Use it in `trainer`, or leave it out of the "
                "grid."
            )
        self.probe = Probe(
            trainer, self.grid, rows, checked, data, numbers, o.key, padded, stationarity=False
        )
        self.made: Trainer = trainer_at("continuation", trainer, point)
        lanes = widest(trainer, point, checked.state, batch, o.key, numbers)
        layout = plan(
            [(len(self.paths), int(self.ends[-1]))], n_pairs, o.machine.chunk, mesh, lanes
        )
        ahead = int(np.clip(rows.splits.fewest // size, 64, 1024))
        spec = Spec(
            trainer, tuple((name, "unknown") for name in self.made.measures(checked.terms)), (),
            (*terms_in(point), *checked.terms),
            o.batch_size, min(max(o.steps, o.then), ahead), rows.splits.fewest, padded,
            rows.prepared.apart, False, mesh, o.machine.shard_params,
        )  # fmt: skip
        common = Common(
            data, None, rows.prepared.numbers, jax.tree.map(_tree.placed, rows.splits.table),
            rows.weights, o.key, _tree.placed(self.ends.astype(np.int32)), _tree.placed(np.int32(0)),
        )  # fmt: skip
        self.population = Population(
            spec, common, self._at(0), o.seeds, n_pairs, layout, self.probe.filled_in
        )

    def _at(self, k: int) -> Grid:
        """The k-th strength of every path."""
        some = self.paths[:, k]
        return jax.tree.map(lambda x: np.asarray(x)[some], self.grid)

    def run(self) -> list[str]:
        """Train all of it; what to warn of."""
        population = self.population
        for k, end in enumerate(self.ends):
            population.grid = self._at(k)
            if k == 0:
                population.alive[:] = True
                population.start()
            else:
                population.place()
            population.advance(int(end))
            population.fetch()
            self.finite.append(np.copy(population.table.log.finite))
            self.params.append(jax.tree.map(np.array, population.table.train.params))
        return [*self.probe.warnings, *self._still()]

    def _still(self) -> Iterator[str]:
        """Whether nothing moved after the first strength."""
        pairs = zip(*map(jax.tree.leaves, (self.params[0], self.params[-1])))
        if len(self.params) > 1 and all(np.array_equal(a, b) for a, b in pairs):
            yield (
                "no parameter moved after the weakest strength, as where a schedule of the learning rate "
                "has ended. Give one that stays."
            )

    def result(self, keep_params: bool) -> SweepResult:
        """Everything in named axes, in the order of the grid."""
        o, paths, splits = self.options, self.paths, self.rows.splits
        log: Any = self.population.table.log  # of numpy arrays, on the host
        curves, terms = log.metrics, log.terms
        finite = np.stack(self.finite, 1)  # [paths, length, P]
        updates = np.where(np.arange(paths.shape[1]) == 0, o.steps, o.then)
        time = np.unique(updates)
        stop = np.broadcast_to(np.searchsorted(time, updates)[:, None], finite.shape)

        def ordered(x: np.ndarray) -> np.ndarray:
            """[paths, length, P, ...] -> [K, F, S, ...]."""
            flat = np.empty((paths.size, *x.shape[2:]), x.dtype)
            flat[paths] = x
            return flat.reshape(len(flat), -1, o.seeds, *x.shape[3:])

        def curve(x: np.ndarray) -> np.ndarray:
            """[paths, P, length] -> [K, F, S, T]."""
            seen = np.where(finite, x.swapaxes(1, 2), np.nan).astype(x.dtype)
            at_end = np.arange(len(time)) == stop[..., None]
            return ordered(np.where(at_end, seen[..., None], np.nan).astype(x.dtype))

        params = jax.tree.map(lambda *x: ordered(np.stack(x, 1)), *self.params)
        return SweepResult(
            coords=self.grid.coords,
            points=self.grid.points,
            time=time,
            train={m: curve(c[..., 0]) for m, c in curves.items()},
            valid={m: curve(c[..., 1]) for m, c in curves.items()},
            terms={name: curve(terms[name]) for name in self.population.spec.terms},
            params=params if keep_params else None,
            status=ordered(np.where(finite, Status.FINISHED, Status.DIVERGED)),
            stop=ordered(stop),
            strengths=self.grid.strengths,
            directions=judge.directions(self.made),
            repeats=splits.repeats,
            overlap=splits.overlap,
            made_by=self._made_by(),
        )

    def _made_by(self) -> str:
        o, rows = self.options, self.rows
        return json.dumps({
            "continuation": self.walked, "steps": o.steps, "then": o.then,
            "seeds": o.seeds, "folds": len(rows.splits.table.count), "batch_size": o.batch_size,
            "layout": str(self.population.layout), "jax": jax.__version__,
            "device": jax.devices()[0].device_kind,
            "prepare": rows.prepared.apart or rows.prepared.numbers is not None,
            "sample_weight": rows.weights is not None,
        })  # fmt: skip
