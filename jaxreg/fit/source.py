"""Batches that come from outside: from files, loaders, generators, anything that can be iterated.

A `Stream` is opened at a step and gives the batches from there on, epoch after epoch, as tuples of numpy
arrays of one shape. It knows nothing of lanes: a sweep reads it once for all of them (sweeps/reader.py).
"""

from __future__ import annotations

import base64
import inspect
import json
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from jaxreg import _tree
from jaxreg.fit.intake import as_rows, refuse_rounded

__all__ = ["Reading", "Stream", "StreamError", "stream", "whole"]

_HOW = (
    "Give a function that makes a new iterator at each call, as jaxreg.stream(lambda: read(path)), or an "
    "object that can be iterated again, such as a DataLoader or a list"
)


class StreamError(ValueError):
    """A stream that ended, or gave a batch that does not suit; says which batch."""


class Stream:
    """Where batches come from; made by `jaxreg.stream`.

    Attributes:
      first: the first batch; what comes later has its shapes.
    """

    def __init__(self, make: Callable[[int], Iterator]):
        self._make = make
        self.first = self._first()

    def _first(self) -> tuple:
        for batch in self._make(0):
            return _as_batch(batch, 0)
        raise StreamError(f"stream: the first epoch has no batch. {_HOW}.")

    @property
    def rows(self) -> int:
        """How many rows a batch has."""
        return len(jax.tree.leaves(self.first)[0])

    def open(self, step: int = 0, state: Any = None) -> Reading:
        """The batches of the steps `step`, `step` + 1, …

        Args:
          step: how many batches to leave out.
          state: where the iterator was before the batch of that step, from `Reading.state`; without it
            they are read and left out.
        """
        return Reading(self._make, self.first, step, state)

    def epoch(self) -> Iterator:
        """What the source gives in its first epoch, as it gives it."""
        return self._make(0)

    def __repr__(self) -> str:
        shapes = [f"{x.dtype}{list(x.shape)}" for x in jax.tree.leaves(self.first)]
        return f"Stream of batches ({', '.join(shapes)})"


def stream(make: Any) -> Stream:
    """Batches of rows as the data of a sweep, read once for all lanes.

    Every batch is a tuple of arrays with the rows first, as the loss takes them, or one array; tensors of
    torch and tensorflow are converted. All have the shapes of the first; one of fewer rows, as the last of
    an epoch may be, is left out. When an epoch ends the next begins; the order of the rows is the source's.

    Args:
      make: a function without arguments, or of the number of the epoch (an argument named `epoch`), that
        makes an iterator of batches; or an object that can be iterated again.

    Raises:
      TypeError: it is neither. ValueError: it has no batch, or the first is no batch of numbers.

    After a checkpoint an iterator goes on from its own state, if it has `state_dict` and
    `load_state_dict` (as of torchdata) or `get_state` and `set_state` (as of grain) and the state is
    JSON or bytes; any other is made anew, and the batches that were used are read and left out.

    >>> rows = np.arange(12.0).reshape(6, 2)
    >>> source = stream(lambda: ((rows[i : i + 2],) for i in (0, 2, 4)))
    >>> source
    Stream of batches (float32[2, 2])
    >>> reading = source.open(step=4)  # the second batch of the second epoch
    >>> next(reading)[0].tolist()
    [[4.0, 5.0], [6.0, 7.0]]
    """
    if isinstance(make, Stream):
        return make
    if callable(make):
        return Stream(_of_function(make))
    if isinstance(make, (Iterator, str, bytes)) or not hasattr(make, "__iter__"):
        what = "an iterator, which ends" if isinstance(make, Iterator) else "no iterable"
        raise TypeError(f"stream: `make` is {what} ({type(make).__name__}). {_HOW}.")
    return Stream(lambda epoch: iter(make))


def _of_function(make: Callable) -> Callable[[int], Iterator]:
    try:
        by_epoch = "epoch" in inspect.signature(make).parameters
    except (TypeError, ValueError):
        by_epoch = False

    last: list[Any] = [None]

    def opened(epoch: int) -> Iterator:
        made = make(epoch=epoch) if by_epoch else make()
        if made is last[0] and isinstance(made, Iterator):
            raise TypeError(
                f"stream: `make` returned the same {type(made).__name__} twice, of which batches are used "
                f"up. {_HOW}."
            )
        last[0] = made
        if not hasattr(made, "__iter__"):
            raise TypeError(f"stream: `make` returned {type(made).__name__}, no iterator. {_HOW}.")
        return iter(made)

    return opened


def whole(source: Stream) -> tuple:
    """All rows of the first epoch of a stream, as arrays; those of short batches too."""
    batches = [_as_batch(raw, i) for i, raw in enumerate(source.epoch())]
    return jax.tree.map(lambda *x: np.concatenate(x), *batches)


class Reading:
    """An open stream: an iterator of batches without end, that knows where it is."""

    def __init__(self, make: Callable[[int], Iterator], first: tuple, step: int, state: Any):
        self._make, self._first = make, first
        self._shapes = _shapes(first)
        self.step = 0
        self.short = 0  # batches of fewer rows that were left out
        self._epoch, self._in_epoch = -1, 1
        if state is None:
            self._next_epoch()
            for _ in range(step):
                next(self)
        else:
            self._epoch = int(state["epoch"])
            self._iterator = make(self._epoch)
            _set_state(self._iterator, state["iterator"])
            self.step = step

    def __iter__(self) -> Reading:
        return self

    def __next__(self) -> tuple:
        while True:
            try:
                raw = next(self._iterator)
            except StopIteration:
                self._next_epoch()
                continue
            batch = _as_batch(raw, self.step)
            shapes = _shapes(batch)
            if shapes == self._shapes:
                self._in_epoch += 1
                self.step += 1
                return batch
            if not self._is_short(shapes):
                raise StreamError(
                    f"stream: batch {self.step} has {_text(shapes)}, and the first has "
                    f"{_text(self._shapes)}; all batches of a program have one shape."
                )
            self.short += 1

    def state(self) -> Any:
        """Where the iterator is, as JSON; None if it cannot tell."""
        inner = _get_state(self._iterator)
        return None if inner is None else {"epoch": self._epoch, "iterator": inner}

    def _next_epoch(self) -> None:
        if self._epoch >= 0 and not self._in_epoch:
            raise StreamError(f"stream: it ended after {self.step} batches. {_HOW}.")
        self._epoch, self._in_epoch = self._epoch + 1, 0
        self._iterator = self._make(self._epoch)

    def _is_short(self, shapes: list) -> bool:
        """The last batch of an epoch: fewer rows of the same kind."""
        rest = lambda found: [(path, shape[1:], dtype) for path, shape, dtype in found]
        return rest(shapes) == rest(self._shapes) and shapes[0][1][0] < self._shapes[0][1][0]


def _as_batch(batch: Any, step: int) -> tuple:
    whole = tuple(batch) if isinstance(batch, (tuple, list)) else (batch,)
    try:
        rows, _ = as_rows("stream", whole, "batch")
    except (TypeError, ValueError) as error:
        raise type(error)(f"{error} (batch {step} of the stream)") from error
    if step == 0:
        refuse_rounded("stream", "batch", rows)
    narrow = lambda x: np.asarray(x, jax.dtypes.canonicalize_dtype(np.asarray(x).dtype))
    return jax.tree.map(narrow, rows)


def _shapes(batch: tuple) -> list[tuple]:
    leaves = _tree.flatten(batch)
    return [(path, x.shape, x.dtype) for path, x in zip(leaves.paths, leaves.values)]


def _text(shapes: list) -> str:
    return ", ".join(f"{dtype}{list(shape)}" for _, shape, dtype in shapes)


# --- an iterator's own state ------------------------------------------------------------------------


def _get_state(iterator: Any) -> Any:
    for name in ("state_dict", "get_state"):
        if hasattr(iterator, name):
            state = getattr(iterator, name)()
            if isinstance(state, bytes):
                return {"bytes": base64.b64encode(state).decode()}
            try:
                return {"json": json.loads(json.dumps(state))}
            except (TypeError, ValueError):
                return None
    return None


def _set_state(iterator: Any, kept: dict) -> None:
    state = base64.b64decode(kept["bytes"]) if "bytes" in kept else kept["json"]
    name = "load_state_dict" if hasattr(iterator, "load_state_dict") else "set_state"
    getattr(iterator, name)(state)
