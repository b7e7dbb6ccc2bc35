"""How the lanes of a sweep lie on the machine, chosen from what was measured and what fits.

On a CPU a small program runs on one core, and a few vmapped lanes are as fast as many: blocks of one
bundle of a few lanes, handed out to as many threads as there are cores. On an accelerator, and on
a mesh of devices, everything at once. The widest layout whose compiled program fits into memory is
taken; how much it takes XLA says itself.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

__all__ = ["Layout", "memory_limit", "narrower", "packed", "plan"]

# Lane-steps, for each lane that fits together, that take less time than compiling for another width.
_TINY = 100
# The share of a device's memory that a sweep may fill.
_SHARE = 0.9


class Layout(NamedTuple):
    """`chunk` lanes of a (fold, seed) make a bundle; a block is `bundles` of them, trained by one call.

    `streams` threads work on the blocks of a CPU; `devices` is how many devices the bundles of a block
    are spread over.
    """

    chunk: int
    bundles: int | None  # None: all of them in one block
    streams: int
    devices: int
    why: str
    given: bool = False  # whether the chunk is the user's choice

    def __str__(self) -> str:
        lanes = f"{self.chunk} vmapped lane{'s' * (self.chunk > 1)}"
        if self.bundles == 1:
            threads = f"{self.streams} thread{'s' * (self.streams > 1)}"
            return f"blocks of {lanes} on {threads} ({self.why})"
        bundles = "all bundles" if self.bundles is None else f"{self.bundles} bundles"
        spread = f" over {self.devices} devices" if self.devices > 1 else ""
        return f"{bundles} of {lanes} at once{spread} ({self.why})"


def plan(
    stages: Sequence[tuple[int, int]],
    n_pairs: int,
    chunk: int | None,
    mesh: Mesh | None,
    widest: int,
) -> Layout:
    """The layout for this machine.

    Args:
      stages: (points, steps) of each stage of the sweep, the first with all points.
      n_pairs: how many (fold, seed) there are.
      chunk: lanes vmapped together, if the user says so.
      mesh: the devices to spread over, if there are several.
      widest: the most lanes that a block on a CPU should have.

    Raises:
      ValueError: the mesh has more devices than there are lanes.
    """
    n = stages[0][0]
    chunk = None if chunk is None else int(chunk)
    asked, given = "the chunk was given" if chunk else "", chunk is not None
    if mesh is not None:
        devices = mesh.shape["lanes"]
        if n * n_pairs < devices:
            raise ValueError(
                f"sweep: {n * n_pairs} lanes ({n} points x {n_pairs} pairs of fold and seed) are fewer "
                f"than the {devices} devices of the mesh's axis 'lanes'. Give a mesh of at most "
                f"{n * n_pairs}, or more folds, seeds or points."
            )
        # Bundles are what is spread: each (fold, seed) is cut until there is one for every device.
        wide = chunk or -(-n // max(1, -(-devices // n_pairs)))
        return Layout(wide, None, 1, devices, asked or "a mesh: every device has its own", given)
    if jax.default_backend() != "cpu":
        return Layout(chunk or n, None, 1, 1, asked or "an accelerator", given)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    streams = cores or 1
    widths = list(range(1, min(widest, n) + 1))
    if sum(points * steps for points, steps in stages) * n_pairs < _TINY * widest:
        # Compiling would take longer than training: widths that other grids have too, filled up.
        widths = [c for c in (1, 2, 4, 8, 16, 32) if c <= widest and c < 2 * n]
    wide = chunk or min(widths, key=lambda c: _time(stages, n_pairs, c, streams))
    blocks = n_pairs * -(-n // wide)
    return Layout(
        wide, 1, min(streams, blocks), 1, asked or "a CPU: one stream of lanes a core", given
    )


def _time(stages: Sequence[tuple[int, int]], n_pairs: int, chunk: int, streams: int) -> float:
    """What a chunk costs: c lanes take about c + 1 times as long as one more lane does, a block runs on
    one core, and lanes that only fill up the last chunk are wasted."""
    total = 0.0
    for points, steps in stages:
        blocks = n_pairs * -(-points // chunk)
        total += steps * (chunk + 1) * max(1.0, blocks / streams)
    return total


def packed(alive: np.ndarray, chunk: int) -> tuple[np.ndarray, np.ndarray]:
    """Bundles for the lanes [K, P] that are alive.

    Returns:
      (lanes, real): [B, c, 2] with (point, pair) of every place, the lanes of a bundle all of one
      pair, and [B, c] false where a place only repeats a lane to fill the bundle up.
    """
    bundles, real = [], []
    for pair in range(alive.shape[1]):
        ks = np.flatnonzero(alive[:, pair])
        for at in range(0, len(ks), chunk):
            some = ks[at : at + chunk]
            filled = np.pad(some, (0, chunk - len(some)), mode="edge")
            bundles.append(np.stack([filled, np.full(chunk, pair)], -1))
            real.append(np.arange(chunk) < len(some))
    return np.array(bundles, int).reshape(-1, chunk, 2), np.array(real, bool).reshape(-1, chunk)


def narrower(
    layout: Layout, lanes: tuple[int, ...], bundles: int, state: int, scratch: int, limit: int
) -> Layout:
    """A layout that should fit into `limit` bytes where `layout` took state + scratch.

    Args:
      layout: what did not fit.
      lanes: (points, pairs) of the sweep.
      bundles: how many a block has.
      state: bytes of the states of all lanes and the data, which stay whatever the layout.
      scratch: bytes that the compiled program takes besides, which grow with the lanes in a block.

    Raises:
      ValueError: the chunk was the user's choice, or nothing fits; with what would.
    """
    needed, had = _gib(state + scratch), _gib(limit)
    alone = layout.chunk == 1 and bundles <= layout.devices
    if alone or state >= limit:
        fit = int(np.prod(lanes) * limit / (state + scratch))
        raise ValueError(
            f"sweep: the {np.prod(lanes)} lanes need {needed} of memory and there are {had}, enough for "
            f"about {fit}. Sweep over fewer points, folds or seeds at a time, or spread them over more "
            "devices with the `mesh` of a jaxreg.Machine."
        )
    share = (limit - state) / scratch
    why = f"{layout.why.split(';')[0]}; the widest that fits into {had}"
    fewer = max(1, int(bundles // layout.devices * share)) * layout.devices
    if fewer < bundles:
        return layout._replace(bundles=fewer, why=why)
    chunk = min(max(1, int(layout.chunk * share)), layout.chunk - 1)
    if layout.given:
        raise ValueError(
            f"sweep: `chunk` of {layout.chunk} needs {needed} of memory and there are {had}; "
            f"chunk={chunk} would fit."
        )
    return layout._replace(chunk=chunk, why=why)


def memory_limit() -> int:
    """Bytes that a sweep may fill on each device; on a CPU, of the machine (or its container)."""
    stats = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return int(_SHARE * stats["bytes_limit"])
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return int(_SHARE * min(total, _container_limit()))


def _container_limit() -> float:
    try:
        with open("/sys/fs/cgroup/memory.max", encoding="ascii") as file:
            return float(file.read())
    except (OSError, ValueError):
        return float("inf")


def _gib(n: int) -> str:
    return f"{n / 2**30:.3g} GiB"
