"""Verified checkpoints: numbered steps of one experiment, whole or absent, and never wrong in silence.

Two things can go wrong with a saved state, and each has its answer here.

*It is half written* (`kill -9`, a power cut). A step appears whole or not at all, and older steps go
only after that, so at every moment the newest step in the directory is a whole one.

*It is damaged* (a flipped bit, a truncated file, a library that casts). Each step carries the SHA-256,
dtype and shape of every leaf. What does not match is passed over for the step before, and
`Restored.warnings` says what was wrong where. If nothing matches, that is an error: a run never starts
again from zero unasked.

The directory::

    experiment.json             which experiment the steps belong to; another one is refused
    step-00000200.0001/         step 200, written by save number 1: the larger number is the newer
        jaxreg.json             step, note, experiment; path, sha256, dtype, shape of every leaf
        tree.npz                one member per leaf, readable with numpy alone
    step-00000300.0002/
    .step-00000400.0003.….tmp/  a save that was cut off; the next save sweeps it away
    .step-00000100.0000.….old/  an old step on its way out; likewise

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
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from jaxreg._tree import PyTree
from jaxreg.storage import verified
from jaxreg.storage.atomic import new_directory, new_file, remove_directory
from jaxreg.storage.verified import Damaged, Leaf

__all__ = ["CheckpointError", "CheckpointStore", "Restored"]

_MARKER = "experiment.json"
_STEP = re.compile(r"step-(\d+)\.(\d+)")
_LEFT_OVER = re.compile(r"\.step-(\d+)\..*\.(tmp|old)")
_OURS = re.compile(rf"{_STEP.pattern}|{_LEFT_OVER.pattern}|\.experiment\.json\..*\.tmp")


class CheckpointError(OSError):
    """A step could not be written, as on a full disk; the steps before it are intact."""


class Restored(NamedTuple):
    """What `CheckpointStore.restore` found.

    Attributes:
      step: the number of the step.
      tree: numpy leaves in the structure of `like`; PRNG keys are jax keys again.
      note: the note saved with it, as JSON gives it back (tuples are lists).
      warnings: one sentence for each newer step that was cut off or damaged.
    """

    step: int
    tree: PyTree
    note: dict[str, Any]
    warnings: tuple[str, ...]


class CheckpointStore:
    """Numbered steps of one experiment in a directory; the layout is in the module's docstring.

    Args:
      directory: a local or mounted directory, made if it is missing.
      experiment: flat names to JSON values (numbers, strings, lists) that tell this experiment from
        every other. They are kept in the directory and compared when it is opened again.
      keep: how many steps stay. With 2, a damaged step costs one interval.

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
    >>> step, tree, note, warnings = store.restore({"w": np.zeros(3)})
    >>> step, tree["w"].tolist(), note, warnings
    (100, [0.0, 1.0, 2.0], {'best': 0.25}, ())
    """

    def __init__(
        self, directory: str | os.PathLike[str], experiment: Mapping[str, Any], keep: int = 2
    ):
        if isinstance(keep, bool) or not isinstance(keep, int) or keep < 1:
            raise ValueError(f"CheckpointStore: `keep` must be an int >= 1, got {keep!r}.")
        if "://" in os.fspath(directory):
            raise ValueError(
                f"CheckpointStore: `directory` must be a local or mounted path, got {directory}."
            )
        self._keep = keep
        self._experiment = _as_json("experiment", experiment)
        self._directory = Path(directory).absolute()
        self._damaged: set[str] = set()
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._claim()
        except OSError as error:
            raise ValueError(
                f"CheckpointStore: the directory {self._directory} cannot be used: "
                f"{_reason(error)}. Give a directory that can be made and written."
            ) from error

    def save(self, step: int, tree: PyTree, note: Mapping[str, Any] | None = None) -> None:
        """Write a step whole or not at all, then let the steps beyond `keep` go.

        Args:
          step: its number, >= 0. The step saved last is the newest, whatever its number.
          tree: a pytree of numpy or jax arrays of any dtype, PRNG keys included, of any shape.
          note: flat names to JSON values, given back by `restore`.

        Raises:
          CheckpointError: it could not be written; says the size needed. Earlier steps are intact.
          TypeError: a leaf is no array of numbers; a value of `note` is not JSON.
          ValueError: `step` is negative; a leaf lives partly on another process.
        """
        step = operator.index(step)
        if step < 0:
            raise ValueError(f"save: `step` must be >= 0, got {step}.")
        leaves = verified.as_leaves("save", tree)
        note = _as_json("note", note or {})
        try:
            self._write(step, {"step": step, "note": note, "experiment": self._experiment}, leaves)
        except Exception as error:
            size = sum(leaf.data.nbytes for leaf in leaves)
            raise CheckpointError(self._cannot_save(step, size, error)) from error
        self._sweep()

    def restore(self, like: PyTree) -> Restored | None:
        """The newest step of which every leaf is what was saved, or None if there is no step.

        Args:
          like: a pytree with the structure, dtypes and shapes that were saved; its values are not
            used (`jax.eval_shape` makes one).

        Raises:
          ValueError: no step can be read back, or the leaves of `like` are not those saved.
        """
        left_over = filter(None, map(_LEFT_OVER.fullmatch, sorted(self._names())))
        cut_off = [int(name[1]) for name in left_over if name[2] == "tmp"]
        warnings = [f"the save of step {step} was cut off" for step in cut_off]
        for name in self._saves():
            directory = self._directory / name
            try:
                manifest = verified.read_manifest(directory)
                saved = verified.read_tree(directory, manifest)
            except Damaged as damage:
                self._damaged.add(name)
                warnings.append(f"step {_number(name)} is damaged ({damage})")
                continue
            tree = saved.like(like, "restore", "leaves", str(directory), exact=True)
            used = f"step {manifest['step']} is used instead."
            told = tuple(f"{self._directory}: {w}; {used}" for w in warnings)
            return Restored(manifest["step"], tree, manifest["note"], told)
        if self._saves():
            raise ValueError(
                f"CheckpointStore: {self._directory} has no step that can be read back: "
                f"{'; '.join(warnings)}. To start from zero give another directory or empty this one."
            )
        return None

    def steps(self) -> list[int]:
        """The steps that are there whole, ascending; whether they are undamaged, `restore` finds out."""
        return sorted({_number(name) for name in self._saves()})

    def _names(self) -> list[str]:
        return os.listdir(self._directory)

    def _saves(self) -> list[str]:
        """Names of the step directories, the newest save first."""
        names = [name for name in self._names() if _STEP.fullmatch(name)]
        return sorted(names, key=_serial, reverse=True)

    def _claim(self) -> None:
        """Refuse a directory that is not ours; write the marker, which shows that we can."""
        owner = self._owner()
        foreign = sorted(name for name in self._names() if not _OURS.fullmatch(name))
        if owner is None and foreign:
            raise ValueError(
                f"CheckpointStore: the directory {self._directory} holds files that are no sound "
                f"checkpoints, {foreign[:3]} among them. Give a new or an empty directory."
            )
        differences = _differences(self._experiment, self._experiment if owner is None else owner)
        if differences:
            raise ValueError(
                f"CheckpointStore: the directory {self._directory} holds another experiment: "
                f"{'; '.join(differences)}. Give another directory for this experiment, or the "
                "settings of the one that is there to go on with it."
            )
        with new_file("CheckpointStore", self._directory / _MARKER, overwrite=True) as marker:
            verified.write_json(marker, {"experiment": self._experiment})

    def _owner(self) -> dict[str, Any] | None:
        """The experiment in the marker or, if that is lost, in the newest manifest that is not."""
        steps = [self._directory / name / verified.MANIFEST for name in self._saves()]
        for file in [self._directory / _MARKER, *steps]:
            try:
                return verified.read_json(file)["experiment"]
            except Damaged:
                continue
        return None

    def _write(self, step: int, header: dict[str, Any], leaves: list[Leaf]) -> None:
        disk = shutil.disk_usage(self._directory)  # all 0 where the file system does not tell
        if disk.total and disk.free < sum(leaf.data.nbytes for leaf in leaves):
            # Found out beforehand, nothing is written that must be removed.
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        serial = 1 + max(map(_serial, self._saves()), default=0)
        with new_directory("save", self._directory / f"step-{step:08d}.{serial:04d}") as unfinished:
            verified.write_tree(unfinished, header, leaves)

    def _cannot_save(self, step: int, size: int, error: Exception) -> str:
        what = f"{self._directory}: step {step} needs {_bytes(size)} and could not be written"
        try:
            earlier = [_number(name) for name in self._saves()]
            free = _bytes(shutil.disk_usage(self._directory).free)
        except OSError:
            return f"{what} ({_reason(error)}): the directory itself cannot be read any more."
        intact = f"Step {earlier[0]} is intact" if earlier else "No step was saved before"
        return f"{what} ({_reason(error)}); {free} are free there. {intact}."

    def _sweep(self) -> None:
        """Remove what a durable step made superfluous; what resists is left for the next time."""
        saves = self._saves()
        sound = [name for name in saves if name not in self._damaged]
        for name in set(saves) - set(sound[: self._keep]):
            with suppress(OSError):
                remove_directory(self._directory / name)
        for name in filter(_LEFT_OVER.fullmatch, self._names()):
            shutil.rmtree(self._directory / name, ignore_errors=True)


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


def _differences(here: dict[str, Any], there: dict[str, Any]) -> list[str]:
    """Each entry that differs, in words."""
    both = [_difference(n, here[n], there[n]) for n in sorted(here.keys() & there.keys())]
    only_here = [f"{n} is {here[n]!r} here and absent there" for n in sorted(here.keys() - there)]
    only_there = [f"{n} is absent here and {there[n]!r} there" for n in sorted(there.keys() - here)]
    return [text for text in (*both, *only_here, *only_there) if text]


def _difference(name: str, here: Any, there: Any) -> str:
    if verified.json_text(here) == verified.json_text(
        there
    ):  # not ==, by which nan differs from itself
        return ""
    if isinstance(here, list) and isinstance(there, list):
        if len(here) != len(there):
            return f"{name} has {len(here)} values here and {len(there)} there"
        parts = (_difference(f"{name}[{i}]", *pair) for i, pair in enumerate(zip(here, there)))
        return next(filter(None, parts))
    return f"{name} is {here!r} here and {there!r} there"


def _number(name: str) -> int:
    return int(name.removeprefix("step-").split(".")[0])


def _serial(name: str) -> int:
    return int(name.split(".")[1])


def _reason(error: Exception) -> str:
    """What the system said."""
    return getattr(error, "strerror", None) or f"{error!s:.300}"


def _bytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count} bytes"
