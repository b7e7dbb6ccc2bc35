"""The population of a sweep: which lanes are running, where each lies, and its whole state.

The lanes live in blocks on the devices. When some are given up those that are left close ranks, so
that lanes saved are time saved. On the host the population is one table with the axes [point, pair of
fold and seed], whatever the layout: it is what is packed anew, saved and returned. The numbers of a
lane do not depend on its neighbours.
"""

from __future__ import annotations

import functools
import itertools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import NamedSharding, PartitionSpec

from jaxreg._quickly import moves, quickly
from jaxreg._tree import PyTree
from jaxreg.fit.batches import init_key, stream_key
from jaxreg.grid import Grid
from jaxreg.sweeps.machine.hosts import agree, from_host, raw, to_host
from jaxreg.sweeps.machine.layout import Layout, memory_limit, narrower, packed
from jaxreg.sweeps.program import (
    Bundles,
    Common,
    LaneState,
    Log,
    Program,
    Spec,
    lane_shapes,
    programs,
)
from jaxreg.sweeps.reader import Reader

__all__ = ["Population"]


class Block(NamedTuple):
    """Bundles of lanes that one call trains."""

    lanes: np.ndarray  # [B, c, 2]: point and pair of each
    real: np.ndarray  # [B, c]: false where a lane only fills up
    bundles: Bundles
    states: LaneState


class Population:
    """All lanes of a sweep, from their start to their end.

    Attributes:
      step: the step that all running lanes have reached.
      alive: bool [K, P], which of them are running.
      table: on the host, the state of every lane, leaves [K, P, ...], as of the last `fetch`.
      layout: how they lie, once they do.
    """

    def __init__(
        self,
        spec: Spec,
        common: Common,
        grid: Grid,
        seeds: int,
        n_pairs: int,
        layout: Layout,
        probed: Callable[[Spec], Spec],
        reader: Reader | None = None,
    ):
        """`probed` fills in what only running the user's functions tells: nothing is compiled until lanes
        are trained."""
        self.spec, self.grid, self.seeds, self.reader = spec, grid, seeds, reader
        self.source: Any = None  # where a stream was before the window of `step`
        self.step = 0
        self.alive = np.zeros((len(grid), n_pairs), bool)
        self.layout, self.blocks = layout, list[Block]()
        self._common, self._probed, self._ready = common, probed, False
        self.table: LaneState = jax.tree.map(self._unknown, self._lane_shapes())

    def _lane_shapes(self) -> LaneState:
        """Of the table, for a block of one lane."""
        one = np.zeros(1, np.int32)
        keys = jax.eval_shape(_keys_of_pairs, self._common.key, one, one)
        points = jax.tree.map(lambda x: np.asarray(x)[:1][None], self.grid.points)
        shapes = lane_shapes(Bundles(points, one, *keys), self._common, self.spec)
        return jax.eval_shape(raw, shapes)

    def _unknown(self, x: Any) -> np.ndarray:
        """Of all lanes what is like `x` of one."""
        nothing = np.nan if jnp.issubdtype(x.dtype, jnp.floating) else 0
        return np.full((*self.alive.shape, *x.shape[2:]), nothing, x.dtype)

    def ready(self) -> None:
        """Probe, compile and lay out, once."""
        if self._ready:
            return
        self.spec = self._probed(self.spec)
        self._programs = programs(self.spec)
        pairs = np.arange(self.alive.shape[1], dtype=np.int32)
        keys = _pair_keys(self._common.key, *np.divmod(pairs, self.seeds))
        self._keys = to_host(keys), keys
        self._common = self._everywhere(self._common)
        self.layout = self._fitting(self.layout)
        self._pool = ThreadPoolExecutor(self.layout.streams)
        self._ready = True

    # --- training ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Every lane that is alive at step 0, evaluated."""
        self.ready()
        self.step, self.blocks = 0, []
        for lanes, real in self._places(self.layout, self.alive):
            bundles = self._bundles(lanes)
            states = self._programs.start(bundles, self._common)
            self.blocks.append(Block(lanes, real, bundles, states))
        self._run(0, 0, 1)
        self.fetch()

    def advance(self, to: int) -> None:
        """Train every running lane up to step `to`."""
        if self.reader is not None:
            return self._stream_to(self.reader, to)
        # With a block more than there are threads one of them would idle: cut the way, so that the
        # blocks can take turns.
        uneven = len(self.blocks) % self.layout.streams and len(self.blocks) > 1
        self._run(self.step, to, self.layout.streams if uneven else 1)
        self.step = to

    def _stream_to(self, reader: Reader, to: int) -> None:
        """Window by window; each is read once for all lanes."""
        width = self.spec.ahead
        while self.step < to:
            window = reader.window(self.step // width, self.source)
            self.source = window.source
            batches = window.batches if self.spec.mesh is None else self._everywhere(window.batches)
            self._common = self._common._replace(window=batches)
            end = min(to, (window.number + 1) * width)
            self._run(self.step, end, 1)
            self.step = end

    def _run(self, first: int, last: int, parts: int) -> None:
        cuts = [first + (last - first) * i // parts for i in range(parts + 1)]
        legs = [self._everywhere((np.int32(a), np.int32(b))) for a, b in itertools.pairwise(cuts)]
        turns = _Turns(self._programs.advance, self._common, self.blocks, legs)
        workers = [self._pool.submit(moves(turns.work)) for _ in range(self.layout.streams)]
        for worker in workers:
            worker.result()
        self.blocks = turns.blocks

    def keep(self, alive: np.ndarray, seconds_left: float) -> None:
        """Give up all lanes outside `alive` [K, P].

        Those left close ranks where that saves work, and on an accelerator, where fewer bundles are
        another program, where it saves more of the `seconds_left` than compiling that takes.
        """
        if not (self.alive & ~alive).any():
            return
        self.fetch()
        self.alive = self.alive & alive
        if not self.alive.any():
            self.blocks = []
            return
        before = self._work(self.blocks)
        after = self._work(self._places(self.layout, self.alive))
        saved = (1 - after / before) * seconds_left
        pays = after < before and (self.layout.bundles == 1 or saved > self._compiling)
        if agree(int(pays))[0]:
            self.place()

    def _work(self, blocks: list) -> int:
        """Lanes that are computed, fillers included."""
        return sum(block[1].size for block in blocks)

    # --- between the table and the blocks -----------------------------------------------------------

    def fetch(self) -> None:
        """Copy the state of every running lane into the table."""
        for block in self.blocks:
            self._note(block, block.states, self.table)

    def log(self) -> Log:
        """The logs of all lanes, leaves [K, P, ...]; the other parts of the table stay as they are."""
        for block in self.blocks:
            self._note(block, block.states.log, self.table.log)
        return self.table.log

    def _note(self, block: Block, states: PyTree, table: PyTree) -> None:
        alive = self.alive[block.lanes[..., 0], block.lanes[..., 1]]
        _copied(to_host(states), table, block.lanes, block.real & alive)

    def place(self) -> None:
        """Lay the running lanes out anew from the table."""
        self.ready()
        self.blocks = [self._block(*places) for places in self._places(self.layout, self.alive)]

    def _block(self, lanes: np.ndarray, real: np.ndarray) -> Block:
        at = lanes[..., 0], lanes[..., 1]
        states = jax.tree.map(lambda x: x[at], self.table)
        placed = from_host(states, self._shapes, self._placement)
        return Block(lanes, real, self._bundles(lanes), placed)

    def each(self, program: Program) -> PyTree:
        """What `program(states, bundles, common)` says of every lane where it ended, leaves [K, P, ...]."""
        self.ready()
        self.fetch()
        places = self._places(self.layout, np.ones_like(self.alive))

        def asked(place: tuple[np.ndarray, np.ndarray]) -> PyTree:
            block = self._block(*place)
            return to_host(program(block.states, block.bundles, self._common))

        found = list(self._pool.map(asked, places))
        table = jax.tree.map(self._unknown, found[0])
        for (lanes, real), values in zip(places, found):
            _copied(values, table, lanes, real)
        return table

    # --- layout -----------------------------------------------------------------------------------

    def _places(self, layout: Layout, alive: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """(lanes, real) of every block, for the lanes [K, P] that are alive."""
        lanes, real = packed(alive, layout.chunk)
        n = layout.bundles or _rounded(len(lanes), layout.devices, bool(alive.all()))
        return [_filled(lanes[i : i + n], real[i : i + n], n) for i in range(0, len(lanes), n)]

    def _fitting(self, layout: Layout) -> Layout:
        """The layout, narrowed until XLA says that the compiled program fits into memory."""
        limit = memory_limit()
        while True:
            places = self._places(layout, np.ones_like(self.alive))
            bundles = self._bundles(places[0][0])
            self._shapes = self._programs.start.compiled(bundles, self._common).shapes
            state = _bytes_of(self._shapes) * len(places) // layout.devices + _bytes_of(
                self._common
            )
            legs = self._everywhere((np.int32(0), np.int32(0)))
            advance = self._programs.advance.compiled(self._shapes, bundles, self._common, *legs)
            scratch = layout.streams * advance.scratch
            if state + scratch <= limit:
                self._compiling = advance.seconds
                return layout
            layout = narrower(layout, self.alive.shape, len(places[0][0]), state, scratch, limit)

    def _everywhere(self, tree: PyTree) -> PyTree:
        """Arrays that every device has whole."""
        mesh = self.spec.mesh
        if mesh is None:
            return jax.tree.map(jnp.asarray, tree)
        whole = NamedSharding(mesh, PartitionSpec())
        return from_host(jax.tree.map(np.asarray, raw(tree)), tree, lambda _: whole)

    def _bundles(self, lanes: np.ndarray) -> Bundles:
        k, pair = lanes[..., 0], lanes[:, 0, 1].astype(np.int32)
        points = jax.tree.map(lambda x: np.asarray(x)[k], self.grid.points)
        raw_keys, keys = self._keys
        bundles = Bundles(points, pair // self.seeds, *(x[pair] for x in raw_keys))
        like = bundles._replace(start_key=keys[0], stream_key=keys[1])
        mesh = self.spec.mesh
        spread = None if mesh is None else NamedSharding(mesh, PartitionSpec("lanes"))
        return from_host(bundles, like, lambda _: spread)

    def _placement(self, example: Any) -> Any:
        return example.sharding if self.spec.mesh is not None else None


def _keys_of_pairs(key: Array, fold: Array, seed: Array) -> tuple[Array, Array]:
    """Keys of the start and of the stream of each pair: once, and not in the loop of every program."""
    start = jax.vmap(functools.partial(init_key, key))(seed)
    return start, jax.vmap(functools.partial(stream_key, key))(fold, seed)


_pair_keys = quickly(_keys_of_pairs)


class _Turns:
    """Blocks and the legs of their way, handed out to threads: always to the block furthest behind."""

    def __init__(self, advance: Any, common: Common, blocks: list[Block], legs: list):
        self.advance, self.common, self.blocks, self.legs = advance, common, list(blocks), legs
        self._done = [0] * len(blocks)
        self._busy = [False] * len(blocks)
        self._lock = threading.Condition()

    def work(self) -> None:
        while (i := self._take()) is not None:
            block = self.blocks[i]
            try:
                states = self.advance(
                    block.states, block.bundles, self.common, *self.legs[self._done[i]]
                )
                self.blocks[i] = block._replace(states=jax.block_until_ready(states))
            finally:
                self._give(i)

    def _take(self) -> int | None:
        """The next block to train; waits while all that are left are in other hands."""
        with self._lock:
            while True:
                left = [i for i, n in enumerate(self._done) if n < len(self.legs)]
                free = [i for i in left if not self._busy[i]]
                if not left:
                    return None
                if free:
                    i = min(free, key=lambda i: self._done[i])
                    self._busy[i] = True
                    return i
                self._lock.wait()

    def _give(self, i: int) -> None:
        with self._lock:
            self._done[i] += 1
            self._busy[i] = False
            self._lock.notify_all()


def _copied(values: PyTree, table: PyTree, lanes: np.ndarray, here: np.ndarray) -> None:
    """Write what a block has of its lanes into the table, those that are `here` [B, c]."""
    k, pair = lanes[here].T

    def copy(to: np.ndarray, x: np.ndarray) -> None:
        to[k, pair] = x[here]

    jax.tree.map(copy, table, values)


def _rounded(n_bundles: int, devices: int, everyone: bool) -> int:
    """Bundles of a lone block: a multiple of the devices. Once lanes have gone it is a power of two of
    them, since every number of bundles is another program to compile."""
    share = -(-n_bundles // devices)
    return devices * (share if everyone else 1 << (share - 1).bit_length())


def _filled(lanes: np.ndarray, real: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """`n` bundles out of at most as many, filled up with the last one."""
    missing = n - len(lanes)
    lanes = np.pad(lanes, ((0, missing), (0, 0), (0, 0)), mode="edge")
    return lanes, np.pad(real, ((0, missing), (0, 0)))


def _bytes_of(tree: PyTree) -> int:
    """What the arrays of a tree take, or what those of its shapes would."""
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))
