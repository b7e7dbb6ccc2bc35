"""Reads a stream once for all lanes, ahead of the devices, in a thread.

Steps are cut into windows of W: the batches of a window are stacked, and lie on the device before the lanes
get there. The k-th window always has the steps k W, …, so where a sweep is interrupted changes no batch.
"""

from __future__ import annotations

import queue
import threading
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxreg.fit.overlap import Met
from jaxreg.fit.source import Reading, Stream
from jaxreg.sweeps.machine.hosts import every_host

__all__ = ["Reader", "Window"]

_AHEAD = 2  # windows that wait on the device
_BYTES, _MOST = 64 * 2**20, 64  # of a window


class Window(NamedTuple):
    """The batches of the steps k W, …, (k + 1) W - 1, leaves [W, rows, ...]."""

    number: int
    batches: tuple
    source: dict | None  # its number and the state of the iterator before it, if that can tell


def _window_steps(stream: Stream, steps: int) -> int:
    """How many steps a window has: few enough that several fit into memory."""
    size = sum(x.nbytes for x in jax.tree.leaves(stream.first))
    return int(np.clip(_BYTES // max(size, 1), 1, min(_MOST, steps)))


class Reader:
    """The windows of a stream, in order, from any one on.

    `window(k)` waits for the k-th; the thread reads on meanwhile. An error of the source is raised there.
    """

    def __init__(self, stream: Stream, steps: int, alone: bool, met: Met | None = None):
        """`alone` says that there is one device, to which the thread sends what it reads.

        `met` looks at every batch for rows that are judged by.
        """
        self._look, self._told = (
            (lambda batch: None, list) if met is None else (met.look, met.warnings)
        )
        self._stream, self.width, self._steps = stream, _window_steps(stream, steps), steps
        self._placed = (lambda x: jax.tree.map(jnp.asarray, x)) if alone else lambda x: x
        self._thread: threading.Thread | None = None
        self._now: Window | None = None
        self._short = 0  # batches that were left out, having fewer rows

    @property
    def first(self) -> tuple:
        """The first batch, of all processes."""
        if jax.process_count() == 1:
            return self._stream.first
        return jax.tree.map(lambda x: np.asarray(x)[0], self.window(0).batches)

    def warnings(self) -> list[str]:
        """What was left out, and what was judged by and came all the same, in words."""
        short = [
            f"{self._short} batches of the stream had fewer rows than the first and were left out, as the "
            "last of an epoch may."
        ]
        return short * bool(self._short) + self._told()

    def window(self, number: int, source: dict | None = None) -> Window:
        """The window of the steps from `number` * W on; `source`, of one before, helps to begin there."""
        if self._now is not None and self._now.number == number:
            return self._now
        if self._thread is None or self._now is None or self._now.number + 1 != number:
            self._begin(number, source)
        found = self._queue.get()
        if isinstance(found, BaseException):
            self._thread = None
            raise found
        # Not in the thread: what takes all processes happens in one order on all of them.
        found = found._replace(batches=every_host(found.batches))
        self._now = found
        return found

    def close(self) -> None:
        """End the thread; what it has read ahead is let go."""
        if self._thread is not None:
            self._stop.set()
            while not self._queue.empty():
                self._queue.get_nowait()
            self._thread.join(timeout=60)
            self._thread = None

    def _begin(self, number: int, source: dict | None) -> None:
        self.close()
        self._queue: queue.Queue = queue.Queue(_AHEAD)
        self._stop = threading.Event()
        arguments = number, source, self._queue, self._stop
        self._thread = threading.Thread(target=self._read, args=arguments, daemon=True)
        self._thread.start()

    def _read(
        self, number: int, source: dict | None, out: queue.Queue, stop: threading.Event
    ) -> None:
        try:
            reading = self._opened(number, source)
            last = -(-self._steps // self.width)
            while number < last and not stop.is_set():
                # One process saves, and the others' parts are elsewhere: they are read up to there.
                before = reading.state() if jax.process_count() == 1 else None
                # Nothing is read in vain: what the last window has too many is filled up.
                left = min(self.width, self._steps - number * self.width)
                batches = [next(reading) for _ in range(left)]
                for batch in batches:
                    self._look(batch)
                batches += batches[-1:] * (self.width - left)
                self._short = reading.short
                stacked = jax.tree.map(lambda *x: np.stack(x), *batches)
                told = None if before is None else {"window": number, "state": before}
                self._put(out, stop, Window(number, self._placed(stacked), told))
                number += 1
        except BaseException as error:  # whatever a source raises belongs to who waits for it
            self._put(out, stop, error)

    def _opened(self, number: int, source: dict | None) -> Reading:
        """The stream, open at the first step of a window."""
        if source is None or source["window"] > number:
            return self._stream.open(number * self.width)
        reading = self._stream.open(source["window"] * self.width, source["state"])
        for _ in range((number - source["window"]) * self.width):
            next(reading)
        return reading

    @staticmethod
    def _put(out: queue.Queue, stop: threading.Event, item: Any) -> None:
        while not stop.is_set():
            try:
                return out.put(item, timeout=0.1)
            except queue.Full:
                continue
