"""Verified checkpoints: numbered steps of one experiment, whole or absent, and never wrong in silence.

Two things can go wrong with a saved state, and each has its answer here.

*It is half written* (`kill -9`, a power cut). A step is one file that appears whole or not at all, and
older steps go only after that, so at every moment the newest step in the directory is a whole one.

*It is damaged* (a flipped bit, a truncated file, another name). Each step carries its number and the
SHA-256, dtype and shape of every leaf. What does not match is passed over for the step before, and
`Restored.warnings` says what was wrong where. If nothing matches, that is an error: a run never starts
again from zero unasked.

The directory::

    experiment.json                which experiment the steps belong to; another one is refused
    step-00000200.0001.npz         step 200, written by save number 1: the larger number is the newer
    step-00000300.0002.npz         `numpy.load` opens it; see `jaxreg.storage.archive`
    .step-00000400.0003.npz.….tmp  a save that was cut off; the next save sweeps it away
    .lock                          held by the run that is at work here; see `jaxreg.storage.lock`

With several processes (`jax.distributed`) one of them saves and any may restore: no call waits for
another process. All must see the same directory, and must have restored before the first save.
"""

from __future__ import annotations

import errno
import json
import operator
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import jax

from jaxreg._tree import PyTree
from jaxreg.storage.archive import read_header, read_trees, write_archive
from jaxreg.storage.atomic import new_file
from jaxreg.storage.lock import LOCK, locked
from jaxreg.storage.sealed import Damaged, json_text, read_sealed, sealed
from jaxreg.storage.tree import StoredTree

__all__ = [
    "CheckpointError",
    "CheckpointStore",
    "Restored",
    "Saved",
    "differences",
    "exclusive",
    "experiment_in",
    "local",
]

_KIND = "jaxreg.Checkpoint"
_MARKER = "experiment.json"
_STEP = re.compile(r"step-(\d+)\.(\d+)\.npz")
_LEFT_OVER = re.compile(r"\.(?:step-(\d+)\.|experiment\.json\.).*\.tmp")


class CheckpointError(OSError):
    """A step could not be written, as on a full disk; the steps before it are intact."""


class Saved(NamedTuple):
    """What a step says of itself: the experiment it was saved by, and the note, as JSON gives them back."""

    experiment: dict[str, Any]
    note: dict[str, Any]


class Restored(NamedTuple):
    """What `CheckpointStore.restore` found.

    Attributes:
      step: the number of the step.
      tree: numpy leaves in the structure of `like`; PRNG keys are jax keys again.
      saved: what was saved with it.
      beside: the other trees that were saved with it, by name.
      warnings: one sentence for each newer step that was cut off or damaged.
    """

    step: int
    tree: PyTree
    saved: Saved
    beside: dict[str, StoredTree]
    warnings: tuple[str, ...]


class _Save(NamedTuple):
    """What the name of a file says."""

    serial: int
    step: int
    path: Path


class CheckpointStore:
    """Numbered steps of one experiment in a directory; the layout is in the module's docstring.

    Args:
      directory: a local or mounted directory, made if it is missing.
      experiment: flat names to JSON values (numbers, strings, lists) that tell this experiment from
        every other. They are kept in the directory and compared when it is opened again.
      keep: how many steps stay. With 2, a damaged step costs one interval.
      continues: whether the first of two experiments goes on from the second, which has less of what may
        be added; by default nothing may be.

    Raises:
      ValueError: `directory` is a file, cannot be made or written, holds other files, or holds
        another experiment (all differences are named); `keep` < 1.
      TypeError: a value of `experiment` is not JSON.

    >>> import tempfile
    >>> import numpy as np
    >>> store = CheckpointStore(tempfile.mkdtemp(), {"steps": 200, "lam": [0.1, 1.0]})
    >>> store.restore({"w": np.zeros(3)}) is None
    True
    >>> store.save(100, {"w": np.arange(3.0)}, note={"best": 0.25})
    >>> found = store.restore({"w": np.zeros(3)})
    >>> found.step, found.tree["w"].tolist(), found.saved.note, found.warnings
    (100, [0.0, 1.0, 2.0], {'best': 0.25}, ())
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        experiment: Mapping[str, Any],
        keep: int = 2,
        continues: Callable[[dict, dict], bool] = lambda here, there: False,
    ):
        if isinstance(keep, bool) or not isinstance(keep, int) or keep < 1:
            raise ValueError(f"CheckpointStore: `keep` must be an int >= 1, got {keep!r}.")
        self._keep, self._continues = keep, continues
        self._experiment = _as_json("experiment", experiment)
        self._directory = local("CheckpointStore", "directory", directory)
        self._damaged: set[Path] = set()
        with _usable(self._directory):
            self._directory.mkdir(parents=True, exist_ok=True)
            self._claim()

    def save(
        self,
        step: int,
        tree: PyTree,
        note: Mapping[str, Any] | None = None,
        beside: Mapping[str, PyTree] | None = None,
    ) -> None:
        """Write a step whole or not at all, then let the steps beyond `keep` go.

        Args:
          step: its number, >= 0. The step saved last is the newest, whatever its number.
          tree: a pytree of numpy or jax arrays of any dtype, PRNG keys included, of any shape.
          note: flat names to JSON values, given back by `restore`.
          beside: other trees, by name, which reading back does not ask for.

        Raises:
          CheckpointError: it could not be written; says the size needed. Earlier steps are intact.
          TypeError: a leaf is no array of numbers; a value of `note` is not JSON.
          ValueError: `step` is negative; a leaf lives partly on another process.
        """
        step = operator.index(step)
        if step < 0:
            raise ValueError(f"save: `step` must be >= 0, got {step}.")
        note = _as_json("note", note or {})
        size = sum(getattr(leaf, "nbytes", 0) for leaf in jax.tree.leaves(tree))
        try:
            self._write(step, {**(beside or {}), "state": tree}, note, size)
        except OSError as error:
            raise CheckpointError(self._cannot_save(step, size, error)) from error
        self._sweep()

    def restore(
        self,
        like: PyTree | Callable[[Saved], PyTree],
        sound: Callable[[int, PyTree, Saved], bool] = lambda step, tree, saved: True,
    ) -> Restored | None:
        """The newest step of which every leaf is what was saved, or None if there is no step.

        Args:
          like: a pytree with the structure, dtypes and shapes that were saved; its values are not
            used (`jax.eval_shape` makes one). Or a function that makes it of what was `Saved` with it.
          sound: whether the tree of a step can be one of that step; if not, it counts as damaged.

        Raises:
          ValueError: no step can be read back, or the leaves of `like` are not those saved.
        """
        left_over = map(_LEFT_OVER.fullmatch, sorted(os.listdir(self._directory)))
        cut_off = [int(name[1]) for name in left_over if name and name[1]]
        warnings = [f"the save of step {step} was cut off" for step in cut_off]
        for save in self._saves():
            try:
                told, trees = self._read(save)
                template = like(told) if callable(like) else like
            except Damaged as damage:
                self._damaged.add(save.path)
                warnings.append(f"step {save.step} is damaged ({damage})")
                continue
            tree = trees.pop("state").like(
                template, "restore", "leaves", str(save.path), exact=True
            )
            if not sound(save.step, tree, told):
                self._damaged.add(save.path)
                warnings.append(f"step {save.step} is damaged (its lanes are at other steps)")
                continue
            used = f"step {save.step} is used instead."
            warned = tuple(f"{self._directory}: {w}; {used}" for w in warnings)
            return Restored(save.step, tree, told, trees, warned)
        if self._saves():
            raise ValueError(
                f"CheckpointStore: {self._directory} has no step that can be read back: "
                f"{'; '.join(warnings)}. To start from zero give another directory or empty this one."
            )
        return None

    @property
    def experiment(self) -> dict[str, Any]:
        """What the directory is known by, as JSON gives it back."""
        return self._experiment

    def steps(self) -> list[int]:
        """The steps that are there whole, ascending; whether they are undamaged, `restore` finds out."""
        return sorted({save.step for save in self._saves()})

    def _saves(self) -> list[_Save]:
        return _saves_in(self._directory)

    def _read(self, save: _Save) -> tuple[Saved, dict[str, StoredTree]]:
        header = read_header(save.path, _KIND, owner="restore")
        step, serial, experiment = (header.get(name) for name in ("step", "serial", "experiment"))
        if (step, serial) != (save.step, save.serial):
            raise Damaged(f"it holds step {step} of save {serial}, so its name was changed")
        if not isinstance(experiment, dict) or not self._is_ours(experiment):
            raise Damaged("it belongs to another experiment")
        note, trees = header.get("note"), read_trees(save.path, header)
        found = {name: tree for name, tree in trees.items() if tree is not None}
        if not isinstance(note, dict) or "state" not in found:
            raise Damaged("it has no note and state")
        return Saved(experiment, note), found

    def _is_ours(self, experiment: dict[str, Any]) -> bool:
        """Whether steps of that experiment are steps of this one, or of one that it goes on from."""
        if not differences(self._experiment, experiment):
            return True
        return self._continues(self._experiment, experiment)

    def _claim(self) -> None:
        """Refuse a directory that is not ours; write the marker, which shows that we can."""
        owner = experiment_in(self._directory)
        ours = lambda name: name == LOCK or _STEP.fullmatch(name) or _LEFT_OVER.fullmatch(name)
        foreign = sorted(name for name in os.listdir(self._directory) if not ours(name))
        if owner is None and foreign:
            raise ValueError(
                f"CheckpointStore: the directory {self._directory} holds files that are no sound "
                f"checkpoints, {foreign[:3]} among them. Give a new or an empty directory."
            )
        if owner is not None and not self._is_ours(owner):
            raise ValueError(
                f"CheckpointStore: the directory {self._directory} holds another experiment: "
                f"{'; '.join(differences(self._experiment, owner))}. Give another directory for this "
                "experiment, or the settings of the one that is there to go on with it."
            )
        with new_file("CheckpointStore", self._directory / _MARKER, overwrite=True) as marker:
            marker.write_bytes(sealed({"experiment": self._experiment}))

    def _write(
        self, step: int, trees: Mapping[str, PyTree], note: dict[str, Any], size: int
    ) -> None:
        disk = shutil.disk_usage(self._directory)  # all 0 where the file system does not tell
        if disk.total and disk.free < size:
            # Found out beforehand, nothing is written that must be removed.
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        serial = 1 + max((save.serial for save in self._saves()), default=0)
        path = self._directory / f"step-{step:08d}.{serial:04d}.npz"
        header = {"step": step, "serial": serial, "note": note, "experiment": self._experiment}
        write_archive(path, {"format": _KIND, **header}, trees, False, nested=False)

    def _cannot_save(self, step: int, size: int, error: Exception) -> str:
        what = f"{self._directory}: step {step} needs {_bytes(size)} and could not be written"
        try:
            earlier = [save.step for save in self._saves()]
            free = _bytes(shutil.disk_usage(self._directory).free)
        except OSError:
            return f"{what} ({_reason(error)}): the directory itself cannot be read any more."
        intact = f"Step {earlier[0]} is intact" if earlier else "No step was saved before"
        return f"{what} ({_reason(error)}); {free} are free there. {intact}."

    def _sweep(self) -> None:
        """Remove what a durable step made superfluous; what resists is left for the next time."""
        saves = [save.path for save in self._saves()]
        sound = [path for path in saves if path not in self._damaged]
        litter = filter(_LEFT_OVER.fullmatch, os.listdir(self._directory))
        for path in {*saves, *map(self._directory.joinpath, litter)} - {*sound[: self._keep]}:
            with suppress(OSError):
                path.unlink()


def experiment_in(directory: str | os.PathLike[str]) -> dict[str, Any] | None:
    """The experiment whose directory it is, of the marker or, if that is lost, of the newest step that can
    tell it; None if there is none. Nothing is written."""
    path = local("CheckpointStore", "directory", directory)
    with suppress(Damaged, KeyError):
        return _experiment(read_sealed(path / _MARKER)["experiment"])
    for save in _saves_in(path) if path.is_dir() else ():
        with suppress(Damaged, KeyError):
            return _experiment(read_header(save.path, _KIND, owner="CheckpointStore")["experiment"])
    return None


def _experiment(told: Any) -> dict[str, Any]:
    if not isinstance(told, dict):
        raise Damaged("its experiment is no JSON object")
    return told


def _saves_in(directory: Path) -> list[_Save]:
    """The files of the steps, the newest save first."""
    names = filter(None, map(_STEP.fullmatch, os.listdir(directory)))
    saves = (_Save(int(name[2]), int(name[1]), directory / name[0]) for name in names)
    return sorted(saves, reverse=True)


@contextmanager
def exclusive(directory: str | os.PathLike[str]) -> Iterator[None]:
    """Hold a directory of checkpoints against every other run, from before it is claimed to the end.

    Raises:
      ValueError: another run is at work there, or it cannot be made or written.
    """
    path, held = local("CheckpointStore", "directory", directory), ExitStack()
    with _usable(path):
        held.enter_context(locked("CheckpointStore", path))
    with held:
        yield


def local(owner: str, name: str, path: Any) -> Path:
    """A path of a directory that is on this machine or mounted.

    Raises:
      TypeError: it is no path. ValueError: it is empty, or of a store that is none of files.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(
            f"{owner}: `{name}` must be the path of a directory, got a {type(path).__name__}."
        )
    if not os.fspath(path) or "://" in os.fspath(path):
        raise ValueError(
            f"{owner}: `{name}` must be the path of a local or mounted directory, got {os.fspath(path)!r}."
        )
    return Path(path).expanduser().absolute()


@contextmanager
def _usable(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ValueError(
            f"CheckpointStore: the directory {directory} cannot be used: "
            f"{_reason(error)}. Give a directory that can be made and written."
        ) from error


def _as_json(argument: str, mapping: Mapping[str, Any]) -> dict[str, Any]:
    """`mapping` as JSON will give it back; a value that JSON cannot hold is named."""
    out = {}
    for name, value in mapping.items():
        try:
            out[str(name)] = json.loads(json.dumps(value))
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"CheckpointStore: `{argument}` has {name!r} of type {type(value).__name__}, which "
                "JSON cannot hold. Give numbers, strings, or lists of them (array.tolist())."
            ) from error
    return out


def differences(here: dict[str, Any], there: dict[str, Any]) -> list[str]:
    """Each entry that differs, in words; entries under names of a version count where both have them."""
    here, there = (
        {n: v for n, v in a.items() if n in b or " of jax " not in n}
        for a, b in ((here, there), (there, here))
    )
    both = [_difference(n, here[n], there[n]) for n in sorted(here.keys() & there.keys())]
    only_here = [
        f"{n} is {_short(here[n])} here and absent there" for n in sorted(here.keys() - there)
    ]
    only_there = [
        f"{n:.80} is absent here and {_short(there[n])} there" for n in sorted(there.keys() - here)
    ]
    return [text for text in (*both, *only_here, *only_there) if text]


def _short(value: Any) -> str:
    """A value of a file in words: whatever it says, they end somewhere."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _difference(name: str, here: Any, there: Any) -> str:
    if json_text(here) == json_text(there):  # not ==, by which nan differs from itself
        return ""
    if isinstance(here, list) and isinstance(there, list):
        if len(here) != len(there):
            return f"{name} has {len(here)} values here and {len(there)} there"
        parts = (_difference(f"{name}[{i}]", *pair) for i, pair in enumerate(zip(here, there)))
        return next(filter(None, parts))
    return f"{name} is {_short(here)} here and {_short(there)} there"


def _reason(error: Exception) -> str:
    """What the system said."""
    return getattr(error, "strerror", None) or f"{error!s:.300}"


def _bytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count} bytes"
