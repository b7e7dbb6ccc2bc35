"""How lanes are laid out: few are wasted, what was given up saves work, and what does not fit is said."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxreg.sweeps.halving import Halving, stages, survivors
from jaxreg.sweeps.machine import layout
from jaxreg.sweeps.machine.layout import Layout, narrower, packed, plan


def planned(n, pairs, *, cores, monkeypatch, halving=None, chunk=None, widest=32, steps=10_000):
    monkeypatch.setattr(layout.os, "sched_getaffinity", lambda _: set(range(cores)))
    return plan(stages(n, steps, halving), pairs, chunk, None, widest)


@pytest.mark.parametrize("cores", [1, 2, 4])
def test_a_cpu_wastes_few_lanes_and_idles_few_cores(cores, monkeypatch):
    """The time of the plan, a lane more costing 1/(c + 1), against the best of all chunks by brute force."""
    for n in range(1, 40):
        for pairs in (1, 3):
            found = planned(n, pairs, cores=cores, monkeypatch=monkeypatch)
            times = {
                c: max((c + 1) * pairs * -(-n // c) / cores, c + 1)
                for c in range(1, min(n, 32) + 1)
            }
            assert times[found.chunk] == min(times.values())
            assert found.streams == min(cores, pairs * -(-n // found.chunk))


def test_small_grids_of_a_small_sweep_share_a_width(monkeypatch):
    """3 and 4 points are one program; the lane that fills up costs less than compiling."""
    tiny = lambda n: planned(n, 3, cores=2, monkeypatch=monkeypatch, steps=100).chunk
    assert tiny(3) == tiny(4) == 4
    assert {tiny(n) for n in range(1, 10)} <= {1, 2, 4, 8}
    assert planned(3, 3, cores=2, monkeypatch=monkeypatch).chunk == 3
    assert planned(3, 3, cores=2, monkeypatch=monkeypatch, steps=100, widest=2).chunk <= 2


def test_two_lanes_on_two_cores_take_a_core_each(monkeypatch):
    assert planned(2, 1, cores=2, monkeypatch=monkeypatch)[:3] == (1, 1, 2)
    assert planned(2, 1, cores=1, monkeypatch=monkeypatch)[:3] == (2, 1, 1)


def test_the_chunk_suits_what_halving_leaves(monkeypatch):
    """Survivors that fill half a chunk would cost as much as a full one."""
    whole = planned(32, 1, cores=1, monkeypatch=monkeypatch)
    halved = planned(32, 1, cores=1, monkeypatch=monkeypatch, halving=Halving(0.5, 3))
    assert whole.chunk == 32
    assert halved.chunk in (1, 2, 4, 8)


def test_no_block_is_wider_than_suits_the_model(monkeypatch):
    assert planned(32, 5, cores=2, monkeypatch=monkeypatch, widest=4).chunk == 4
    assert planned(32, 5, cores=2, monkeypatch=monkeypatch, widest=1).chunk == 1


def test_a_layout_says_what_it_is(monkeypatch):
    found = planned(32, 5, cores=2, monkeypatch=monkeypatch)
    assert (
        str(found) == "blocks of 32 vmapped lanes on 2 threads (a CPU: one stream of lanes a core)"
    )
    wide = Layout(4, None, 1, 8, "a mesh: every device has its own")
    assert str(wide) == (
        "all bundles of 4 vmapped lanes at once over 8 devices (a mesh: every device has its own)"
    )


@given(
    alive=st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=9),
    chunk=st.integers(1, 4),
)
def test_packing_holds_every_running_lane_once_and_mixes_no_pairs(alive, chunk):
    alive = np.array(alive)
    lanes, real = packed(alive, chunk)
    assert sorted(map(tuple, lanes[real])) == sorted(map(tuple, np.argwhere(alive)))
    assert all(len(set(row[:, 1])) == 1 for row in lanes)
    assert len(lanes) == sum(-(-n // chunk) for n in alive.sum(0))


# --- memory ---------------------------------------------------------------------------------------

BLOCKS = Layout(8, 1, 2, 1, "a CPU: one stream of lanes a core")


def test_what_does_not_fit_is_narrowed_to_what_does():
    found = narrower(BLOCKS, (32, 5), 1, state=100, scratch=1000, limit=600)
    assert found.chunk == 4
    assert "; the widest that fits into" in found.why
    fewer = narrower(BLOCKS._replace(bundles=None), (32, 5), 20, state=100, scratch=1000, limit=600)
    assert (fewer.chunk, fewer.bundles) == (8, 10)


def test_a_narrower_layout_is_narrower_even_when_the_estimate_is_not():
    assert narrower(BLOCKS, (32, 5), 1, state=0, scratch=1000, limit=999).chunk == 7


def test_a_chunk_of_ones_own_is_refused_with_one_that_fits():
    match = r"`chunk` of 8 needs 1.02 GiB of memory and there are 0.559 GiB; chunk=4 would fit"
    with pytest.raises(ValueError, match=match):
        narrower(
            BLOCKS._replace(given=True), (32, 5), 1, state=10**8, scratch=10**9, limit=6 * 10**8
        )


def test_states_that_never_fit_are_refused_with_how_many_would():
    with pytest.raises(ValueError, match=r"the 160 lanes need .* enough for about 16"):
        narrower(BLOCKS, (32, 5), 1, state=900, scratch=100, limit=100)


def test_the_machine_has_some_memory():
    assert 2**28 < layout.memory_limit() < 2**50


# --- halving --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "steps", "keep", "rungs"), [(32, 800, 0.5, 3), (27, 900, 1 / 3, 2), (7, 10, 0.5, 1)]
)
def test_halving_costs_about_the_same_at_each_stage(n, steps, keep, rungs):
    """Algorithm 1 of Jamieson & Talwalkar: with share q, each stage but the first trains q as many
    lanes 1/q times as far."""
    halving = Halving(keep, rungs)
    parts = stages(n, steps, halving)
    assert sum(length for _, length in parts) == steps
    counts = [count for count, _ in parts]
    assert counts == [max(1, int(np.ceil(round(n * keep**i, 6)))) for i in range(rungs + 1)]
    assert halving.share(n, steps) == sum(c * length for c, length in parts) / (n * steps)


def test_survivors_are_the_best_and_never_the_diverged():
    score = np.array([0.3, np.nan, 0.1, np.inf, 0.2, 0.05])
    alive = np.array([1, 1, 1, 1, 1, 0], bool)
    assert survivors(score, alive, 2).tolist() == [False, False, True, False, True, False]
    assert survivors(score, alive, 5).sum() == 3
    assert survivors(np.full(3, np.nan), np.ones(3, bool), 2).sum() == 0


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Halving(1.0), "`keep` must be between 0 and 1, both excluded, got 1.0"),
        (lambda: Halving(0.5, 0), "`rungs` must be an integer of at least 1, got 0"),
        (
            lambda: Halving(0.5, 4).schedule(8, 4),
            "4 rungs that keep 0.5 each do not fit into 4 steps",
        ),
    ],
)
def test_bad_halving(make, match):
    with pytest.raises(ValueError, match=match):
        make()
