"""What is remembered of a trainer: its traces and programs, for as long as the trainer itself lives.

A cache beside the trainer would keep it alive, and with it every array that it closes over. So what was
made for a function lies on the function. Of each kind a few are kept: a loop that makes a new selector in
every round makes a new program in every round.
"""

from __future__ import annotations

import functools
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

__all__ = ["Recent", "kept", "recent"]

_NAME = "__jaxreg__"
_LOCK = threading.RLock()
_ELSEWHERE = 8  # trainers that cannot hold anything themselves, such as bound methods


class Recent(OrderedDict):
    """A dict of the entries that were asked for last."""

    def __init__(self, most: int):
        super().__init__()
        self._most = most

    def get(self, key: Hashable, default: Any = None) -> Any:
        with _LOCK:
            if key not in self:
                return default
            self.move_to_end(key)
            return self[key]

    def put(self, key: Hashable, value: Any) -> Any:
        with _LOCK:
            self[key] = value
            self.move_to_end(key)
            while len(self) > self._most:
                self.popitem(last=False)
        return value

    def __reduce__(self) -> Any:  # a copy of a function, or a pickle, takes nothing along
        return Recent, (self._most,)


class _Room(dict):
    """Everything kept for one trainer: name -> `Recent`."""

    def __init__(self, owner: Any = None):
        super().__init__()
        self.owner = owner

    def __reduce__(self) -> Any:
        return _Room, ()


_ROOMS = Recent(_ELSEWHERE)


def recent(trainer: Any, name: str, most: int = 16) -> Recent:
    """What is remembered of a trainer under a name."""
    with _LOCK:
        room = _room(trainer)
        return room.setdefault(name, Recent(most))


def _room(trainer: Any) -> _Room:
    try:
        attributes = vars(trainer)
        room = attributes.get(_NAME)
        # functools.wraps copies attributes to another function.
        if room is None or room.owner is not trainer:
            room = attributes[_NAME] = _Room(trainer)
        return room
    except TypeError:
        room = _ROOMS.get(trainer)
        return _ROOMS.put(trainer, _Room()) if room is None else room


def kept(make: Callable[..., Any]) -> Callable[..., Any]:
    """Remember what `make(trainer, *rest)` returned for every `rest`, on the trainer.

    >>> @kept
    ... def asked(trainer, x):
    ...     print("asked")
    ...     return trainer(x)
    >>> double = lambda x: 2 * x
    >>> asked(double, 3), asked(double, 3)
    asked
    (6, 6)
    """
    name = f"{make.__module__}.{make.__qualname__}"

    @functools.wraps(make)
    def call(trainer: Any, *rest: Hashable) -> Any:
        entries = recent(trainer, name)
        found = entries.get(rest, entries)  # itself where there is none: an entry may be None
        return entries.put(rest, make(trainer, *rest)) if found is entries else found

    return call
