"""The host's side of a sweep: it trains the population in rounds and looks after it in between.

A round is as many steps as take about half a second, so that host code between rounds costs nothing
measurable and still gives progress, checkpoints, giving up and Ctrl-C at once. Where rounds end
changes no number: what decides about lanes happens at fixed steps.

Lanes are at one step, unless some were added to a sweep: those furthest behind are trained first, until
they have caught up with the next ones.
"""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxreg._tree import PyTree
from jaxreg.results import Status
from jaxreg.storage.tree import StoredTree
from jaxreg.sweeps.checkpoint import CheckpointError, CheckpointStore, Saved, differences
from jaxreg.sweeps.growth import former_shapes, grown
from jaxreg.sweeps.halving import Rung, survivors
from jaxreg.sweeps.machine.hosts import agree, leads
from jaxreg.sweeps.population import Population
from jaxreg.sweeps.watch.callbacks import Callbacks, Evaluation, Outline
from jaxreg.sweeps.watch.progress import Progress

__all__ = ["Agenda", "Drive"]

# Seconds of a round, and by how much a round may be longer than the one before.
_ROUND, _GROWTH = 0.5, 16
_FIRST = 8  # steps of the first round, before anything is known of the pace


class Agenda(NamedTuple):
    """What happens at which step."""

    steps: int
    times: np.ndarray  # int [E], rising, from 0 to steps: when lanes are evaluated
    rungs: list[Rung]


@dataclasses.dataclass
class Drive:
    """One sweep on its way.

    `status`, `at` and `last` are [K, P]: what became of a lane, the step it has reached (-1 before its
    start), and the evaluation that counts.

    Args:
      population: the lanes.
      agenda: what happens when.
      outline: what callbacks are told first, given how the lanes lie.
      callbacks: who is told.
      progress: the bar.
      conclude: what is asked of all lanes at the end, trees of [K, P, ...] by name; saved with them.
      store: where they are saved.
      every: seconds between saves.
    """

    population: Population
    agenda: Agenda
    outline: Callable[[str], Outline]
    callbacks: Callbacks
    progress: Progress
    conclude: Callable[[], Mapping[str, PyTree]] = dict
    store: CheckpointStore | None = None
    every: float = 60.0
    warnings: list[str] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        shape = self.population.alive.shape
        self.status = np.full(shape, int(Status.RUNNING))
        self.at = np.full(shape, -1)
        self.last = np.zeros(shape, int)
        self.concluded: dict[str, StoredTree] = {}  # by a run before this one
        self.conclusions: Mapping[str, PyTree] = {}
        self._told = -1  # the last evaluation that callbacks know of
        self._layout = ""  # of the run before this one
        self._pace = float(_FIRST)
        self._saved_at = time.monotonic()

    # --- the way ----------------------------------------------------------------------------------

    def run(self) -> bool:
        """From the start, or from the newest checkpoint, to the end; False if interrupted before."""
        self._restore()
        if not self._unfinished().any():
            self._begin(self._layout)
            return True
        with _interrupts() as interrupted:
            self.population.ready()
            self._begin(str(self.population.layout))
            while self._gather():
                stop, save = agree(int(interrupted()), int(self._save_is_due()))
                if save or stop:
                    self._save()
                if stop:
                    return False
                self._round()
            self._finish()
        return True

    def _begin(self, layout: str) -> None:
        self.outlined = self.outline(layout)
        self.callbacks.start(self.outlined)

    def _unfinished(self) -> np.ndarray:
        return (self.status == Status.RUNNING) & (self.at < self.agenda.steps)

    def _gather(self) -> bool:
        """Let the lanes that are furthest behind run; False if none are left."""
        unfinished, population = self._unfinished(), self.population
        if not unfinished.any():
            return False
        hindmost = self.at[unfinished].min()
        group = unfinished & (self.at == hindmost)
        if population.step == hindmost and np.array_equal(group, population.alive):
            return True
        population.fetch()
        population.alive = group
        if hindmost < 0:
            population.start()
            self.at[group], self._told = 0, -1
            self._look()
            return self._gather()
        population.step = int(hindmost)
        population.place()
        self._told = self._index()
        return True

    def _round(self) -> None:
        population, alive = self.population, self.population.alive
        at = population.step
        others = self.at[self._unfinished() & ~alive]
        ahead = [self.agenda.steps, *others, *(r.step for r in self.agenda.rungs if r.step > at)]
        (to,) = agree(int(min(at + max(1, int(self._pace)), *ahead)))
        began = time.perf_counter()
        population.advance(to)
        self.at[alive] = to
        seconds = max(time.perf_counter() - began, 1e-6)
        speed = (to - at) / seconds
        self._pace = min(_ROUND * speed, _GROWTH * self._pace)
        self._look()
        left = (self.agenda.steps - to) / speed
        self._give_up(left)
        best = np.fmin.reduce(self._score(), initial=np.inf)
        self.progress.move(to, int(population.alive.any(1).sum()), float(best), speed)

    # --- looking and giving up ----------------------------------------------------------------------

    def _index(self) -> int:
        """The last evaluation that has been made."""
        return int(np.searchsorted(self.agenda.times, self.population.step, side="right")) - 1

    def _look(self) -> None:
        """Read the logs, and tell the callbacks of every evaluation since the last look."""
        log, running = self.population.log(), self.population.alive.copy()
        now = self._index()
        ended = np.where(log.stopped < 0, now, log.stopped)
        self.last[running] = ended[running]
        for at in range(self._told + 1, now + 1):
            alive = running & (ended >= at)
            self.callbacks.evaluated(self._evaluation(log, at, alive))
        self._told = now

    def _evaluation(self, log: Any, at: int, alive: np.ndarray) -> Evaluation:
        folds = lambda x: x.reshape(len(x), -1, self.population.seeds)
        seen = lambda x: folds(np.where(alive, x, np.nan))
        return Evaluation(
            step=int(self.agenda.times[at]),
            train={m: seen(c[:, :, at, 0]) for m, c in log.metrics.items()},
            valid={m: seen(c[:, :, at, 1]) for m, c in log.metrics.items()},
            terms={n: seen(log.terms[n][:, :, at]) for n in self.population.spec.terms},
            alive=folds(alive),
        )

    @property
    def counted(self) -> np.ndarray:
        """The evaluation [K, P] that counts for each lane: its last, with early stopping its best."""
        if not self.population.spec.early_stopping:
            return self.last
        loss = self.population.table.log.metrics["loss"][..., 1]
        return np.argmin(np.where(np.isnan(loss), np.inf, loss), -1)

    def _score(self) -> np.ndarray:
        """The validation loss [K] that counts, averaged over lanes; NaN if a lane has none."""
        log = self.population.table.log
        loss = np.asarray(log.metrics["loss"])[..., 1].astype(np.float64)
        lanes = np.take_along_axis(loss, self.counted[:, :, None], -1)[..., 0]
        gone = (self.status == Status.GIVEN_UP) | ~log.finite
        return np.where(gone, np.nan, lanes).mean(1)

    def _give_up(self, seconds_left: float) -> None:
        """End lanes whose patience has ended and, at a rung, the points that do not go on."""
        log, alive = self.population.table.log, self.population.alive
        stopped = alive & (log.stopped >= 0)
        self.status[stopped] = np.where(log.finite, Status.STOPPED, Status.DIVERGED)[stopped]
        dropped = np.zeros_like(alive)
        for rung in self.agenda.rungs:
            if rung.step == self.population.step:
                entered = (self.status != Status.GIVEN_UP).all(1)
                goes_on = survivors(self._score(), entered, rung.keep)
                dropped = alive & ~stopped & ~goes_on[:, None]
        self.status[dropped] = np.where(log.finite, Status.GIVEN_UP, Status.DIVERGED)[dropped]
        self.population.keep(alive & ~stopped & ~dropped, seconds_left)

    def _finish(self) -> None:
        population = self.population
        population.fetch()
        running = self.status == Status.RUNNING
        finite = population.table.log.finite
        self.status[running & finite] = Status.FINISHED
        self.status[running & ~finite] = Status.DIVERGED
        population.alive[:] = False
        self.conclusions = self.conclude()
        self._save()

    # --- checkpoints --------------------------------------------------------------------------------

    def _save_is_due(self) -> bool:
        return self.store is not None and time.monotonic() - self._saved_at >= self.every

    def _save(self) -> None:
        if self.store is None:
            return
        self.population.fetch()
        if leads():
            try:
                note = {"source": self.population.source, "layout": str(self.population.layout)}
                step = _step_of(self.status, self.at, self.agenda.steps)
                self.store.save(step, self._whole(), note, self.conclusions)
            except CheckpointError as error:
                self.warnings.append(f"a checkpoint could not be written: {error}")
        self._saved_at = time.monotonic()

    def _whole(self) -> dict[str, Any]:
        return {
            "lanes": self.population.table, "status": self.status, "at": self.at, "last": self.last,
        }  # fmt: skip

    def _former(self, saved: Saved) -> dict[str, Any]:
        """The shapes of the whole as they were when that was saved."""
        whole = self._whole()
        log = whole["lanes"].log
        curves = {"metrics": log.metrics, "terms": log.terms}
        then, curves = former_shapes(whole, curves, saved.experiment)
        then["lanes"] = then["lanes"]._replace(log=then["lanes"].log._replace(**curves))
        return then

    def _sound(self, step: int, tree: dict[str, Any], saved: Saved) -> bool:
        """Whether the lanes can be those of a step: hashes tell what was changed, not what is a lie."""
        status, at, source = tree["status"], tree["at"], saved.note.get("source")
        times, last = saved.experiment["evaluations"], tree["last"]
        return bool(
            np.isin(status, [int(s) for s in Status]).all()
            and ((at >= -1) & (at <= times[-1])).all()
            and ((last >= 0) & (last < len(times))).all()
            and step == _step_of(status, at, times[-1])
            and (source is None or (isinstance(source, dict) and type(source.get("window")) is int))
        )

    def _restore(self) -> None:
        """Go on from the newest sound checkpoint, if there is one."""
        store = self.store
        found = None if store is None else store.restore(self._former, self._sound)
        here = -1 if found is None else found.step
        (step,) = agree(here)
        if step != here:
            raise ValueError(
                f"sweep: this process found the checkpoint of step {here} and process 0 that of step "
                f"{step}. All processes must see one checkpoint directory, as on a shared disk."
            )
        if found is None or store is None:
            return
        self.warnings.extend(found.warnings)
        population, there = self.population, found.saved.experiment
        whole = grown(self._whole(), found.tree, store.experiment, there)
        population.table, self.status = whole["lanes"], whole["status"]
        self.at, self.last = whole["at"], whole["last"]
        if there["steps"] < self.agenda.steps:
            ended = (Status.FINISHED, Status.DIVERGED)
            short = np.isin(self.status, ended) & (self.at == there["steps"])
            self.status[short & (population.table.log.stopped < 0)] = Status.RUNNING
        population.step = found.step
        if there["steps"] == self.agenda.steps:  # with others the windows of a stream may be others
            population.source = found.saved.note.get("source")
        if not differences(store.experiment, there):
            self.concluded, self._layout = found.beside, str(found.saved.note.get("layout"))


def _step_of(status: np.ndarray, at: np.ndarray, steps: int) -> int:
    """The step of a sweep: that of the lanes furthest behind, or of its last ones when all have ended."""
    unfinished = at[(status == Status.RUNNING) & (at < steps)]
    return int(unfinished.min() if unfinished.size else at.max())


@contextlib.contextmanager
def _interrupts() -> Iterator[Any]:
    """A function that says whether Ctrl-C was pressed; the second press raises as ever."""
    pressed = []

    def note(*_: Any) -> None:
        if pressed:
            raise KeyboardInterrupt
        pressed.append(True)

    try:
        before = signal.signal(signal.SIGINT, note)
    except ValueError:  # signals belong to the main thread
        yield lambda: False
        return
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, before)
