"""One process or many: what must be agreed on, and numbers brought home.

Under `jax.distributed` every process runs the same script on the same arguments; jax's own runtime
connects them. Whatever depends on a clock or a signal is decided by process 0 and told to the others,
so that all of them run the same programs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Sharding

from jaxreg._tree import PyTree

__all__ = ["ProcessLeft", "agree", "every_host", "from_host", "leads", "raw", "to_host"]


class ProcessLeft(RuntimeError):
    """Another process of the run has ended, so that this one cannot go on."""


@contextlib.contextmanager
def _together() -> Iterator[None]:
    """Around what needs all processes: when one does not answer, say so and what to do."""
    try:
        yield
    except (ValueError, RuntimeError) as error:  # gloo raises the one, NCCL and jax the other
        raise ProcessLeft(
            f"sweep: another of the {jax.process_count()} processes no longer answers. Start all of them "
            "again with the same `checkpoint`, in this or another number, and the sweep goes on from the "
            f"last one saved. ({str(error).splitlines()[0]})"
        ) from error


def leads() -> bool:
    """Whether this process is the one that decides, writes and reports."""
    return jax.process_index() == 0


def agree(*numbers: int) -> tuple[int, ...]:
    """The numbers of process 0."""
    if jax.process_count() == 1:
        return numbers
    from jax.experimental import multihost_utils

    with _together():
        told = multihost_utils.broadcast_one_to_all(np.asarray(numbers, np.int32))
    return tuple(int(x) for x in told)


def _is_key(x: Any) -> bool:
    return jax.numpy.issubdtype(x.dtype, jax.dtypes.prng_key)


def raw(tree: PyTree) -> PyTree:
    """The tree with the data of PRNG keys in place of the keys; traceable."""
    return jax.tree.map(lambda x: jax.random.key_data(x) if _is_key(x) else x, tree)


def to_host(tree: PyTree) -> PyTree:
    """Whole arrays as numpy on every process; PRNG keys as their data."""
    tree = raw(tree)
    if all(getattr(x, "is_fully_addressable", True) for x in jax.tree.leaves(tree)):
        return jax.tree.map(np.asarray, tree)
    from jax.experimental import multihost_utils

    with _together():
        return jax.tree.map(np.asarray, multihost_utils.process_allgather(tree, tiled=True))


def every_host(batches: PyTree) -> PyTree:
    """Batches [W, rows, ...] of every process, one after the other along their rows."""
    if jax.process_count() == 1:
        return batches
    from jax.experimental import multihost_utils

    swap = lambda x: np.moveaxis(np.asarray(x), 1, 0)
    with _together():
        whole = multihost_utils.process_allgather(jax.tree.map(swap, batches), tiled=True)
    return jax.tree.map(lambda x: np.moveaxis(np.asarray(x), 0, 1), whole)


def from_host(tree: PyTree, like: PyTree, place: Callable[[Any], Sharding | None]) -> PyTree:
    """Arrays of `to_host` on the devices again; `like` has the dtypes, `place` the sharding of each."""

    def put(x, example):
        sharding = place(example)
        # A copy: the program that takes these arrays over reuses their memory.
        if sharding is None:
            array = jax.numpy.array(x)
        else:
            array = jax.make_array_from_callback(x.shape, sharding, lambda i: x[i])
        if _is_key(example):
            return jax.random.wrap_key_data(array, impl=jax.random.key_impl(example))
        return array

    # NaN is a value here: of a lane that diverged, of a curve where nothing has been evaluated yet.
    with jax.debug_nans(False), jax.debug_infs(False):
        return jax.tree.map(put, tree, like)
