"""Grids: points of any structure, the coordinates that made them, and what is refused."""

import dataclasses
import pickle
import sys
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support.toy import LAMS, make

import jaxreg as jr

GRID = jr.grid(make, lam=LAMS)


class Both(NamedTuple):
    reg: jr.Penalty
    lr: float


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Named:
    reg: jr.Penalty
    rates: dict


# --- designs --------------------------------------------------------------------------------------


def test_two_axes_make_a_product_with_the_last_fastest():
    g = jr.grid(lambda lam, r: jr.elastic_net(lam, r), lam=[0.1, 1.0], r=[0.0, 0.5, 1.0])
    assert len(g) == 6
    np.testing.assert_allclose(g.coords["lam"], [0.1] * 3 + [1.0] * 3)
    np.testing.assert_allclose(g.coords["r"], [0, 0.5, 1] * 2)
    assert repr(g[4]) == "elastic_net(1, l1_ratio=0.5)"
    assert [repr(p) for p in g][4] == repr(g[4])


def test_a_grid_keeps_the_order_of_its_axes_through_jit():
    g = jr.grid(lambda z, a: jr.elastic_net(z, a), z=[0.1, 1.0], a=[0.5])
    assert list(jax.jit(lambda g: g)(g).coords) == ["z", "a"]


def test_points_are_paired_and_may_be_given():
    pick = lambda lam, lr: {"reg": jr.l2(lam), "lr": lr}
    g = jr.points(pick, lam=[0.1, 0.2, 0.3], lr=[1.0, 2.0, 3.0])
    assert len(g) == 3
    np.testing.assert_allclose(g[1]["reg"].lam, 0.2)
    np.testing.assert_allclose(g[1]["lr"], 2.0)
    given = jr.points([pick(0.1, 1.0), pick(0.3, 3.0)], lam=[0.1, 0.3])
    np.testing.assert_array_equal(given.points["lr"], [1.0, 3.0])
    assert list(jr.points([jr.l1(0.1), jr.l1(0.3)]).coords["point"]) == [0, 1]


@pytest.mark.parametrize(
    "build",
    [
        lambda lam, lr: {"reg": jr.l2(lam), "lr": lr},
        lambda lam, lr: Both(jr.l2(lam), lr),
        lambda lam, lr: Named(jr.l2(lam), {"deep": [lr, 3]}),
        lambda lam, lr: (lr, jr.l1(lam) + jr.l2(lam).on("a"), np.float32(2)),
        lambda lam, lr: jnp.asarray([lam, lr]),
    ],
    ids=["dict", "namedtuple", "dataclass", "tuple", "array"],
)
def test_a_point_may_be_any_pytree_of_numbers(build):
    g = jr.grid(build, lam=[0.1, 1.0], lr=[0.01, 0.02])
    for k, (lam, lr) in enumerate([(0.1, 0.01), (0.1, 0.02), (1.0, 0.01), (1.0, 0.02)]):
        want = jax.tree.map(jnp.asarray, build(lam, lr))
        assert jax.tree.structure(g[k]) == jax.tree.structure(want)
        for x, y in zip(jax.tree.leaves(g[k]), jax.tree.leaves(want)):
            np.testing.assert_allclose(x, y)


def test_python_numbers_become_floats_of_the_current_precision():
    g = jr.grid(lambda width: {"width": width}, width=[1, 2, 4])
    assert g[0]["width"].dtype == jnp.float32
    with jax.enable_x64(True):
        assert jr.grid(lambda a: {"a": a}, a=[0.1, 0.2])[0]["a"].dtype == jnp.float64


def test_a_grid_shows_its_points_and_spans():
    g = jr.grid(lambda lam, lr: {"reg": jr.l2(lam).on("w"), "lr": lr}, lam=[1, 0.1], lr=[1, 2])
    assert repr(g) == "Grid(4 x {lr, reg: l2.on(path('w'))}, lam=0.1 … 1, lr=1 … 2)"


def test_grids_are_pickled():
    g = pickle.loads(pickle.dumps(jr.grid(lambda lam: jr.l2(lam).on(jr.kernels), lam=[0.1, 1.0])))
    assert repr(g) == "Grid(2 x l2.on(kernels), lam=0.1 … 1)"
    assert g.strengths == ("lam",)


# --- which axes are strengths ---------------------------------------------------------------------


RNG = np.random.default_rng(0)
CONTINUOUS = {"lam": 10 ** RNG.uniform(-3, 0, 9), "lr": 10 ** RNG.uniform(-3, 0, 9)}


@pytest.mark.parametrize(
    ("made", "strengths"),
    [
        (lambda: GRID, ("lam",)),
        (lambda: jr.grid(jr.l2, lam=[1.0, 0.1]), ("lam",)),
        (lambda: jr.grid(lambda lr: {"lr": lr}, lr=[1.0, 2.0]), ()),
        (lambda: jr.grid(lambda lam, lr: Both(jr.l2(lam), lr), lam=[1, 2], lr=[1, 2]), ("lam",)),
        (lambda: jr.grid(lambda lam, r: jr.elastic_net(lam, r), lam=[1, 2], r=[0, 1]), ("lam",)),
        (
            lambda: jr.grid(
                lambda lam, r: jr.l1(lam * r) + jr.l2(lam * (1 - r)), lam=[1, 2], r=[0.2, 0.5]
            ),
            ("lam",),
        ),
        (
            lambda: jr.grid(lambda a, b: jr.l1(a).on("x") + jr.l2(b).on("y"), a=[1, 2], b=[1, 2]),
            ("a", "b"),
        ),
        (lambda: jr.grid(lambda c: jr.l2(1 / c), c=[1, 2]), ()),
        (lambda: jr.points(lambda lam, lr: Both(jr.l2(lam), lr), **CONTINUOUS), ("lam",)),
        (lambda: jr.grid(lambda radius: jr.l1_ball(radius), radius=[1, 2]), ()),
    ],
)
def test_an_axis_is_a_strength_if_every_lam_it_changes_grows(made, strengths):
    assert made().strengths == strengths


# --- dead axes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "dead",
    [
        lambda: jr.grid(lambda lam, lr: jr.l2(lam), lam=[0.1, 1.0], lr=[0.01, 0.1]),
        lambda: jr.grid(lambda lam, lr: jr.l2(lam), lam=[0.1, 1.0], lr=[0.01]),
        lambda: jr.grid(lambda lam, lr: jr.l2(lam), lam=[np.inf], lr=[np.inf]),
        lambda: jr.points(lambda lam, lr: jr.l2(lam), lam=[0.1, 1.0, 2.0], lr=[0.01, 0.1, 0.3]),
        lambda: jr.grid(lambda lr, lam: {"reg": jr.l2(lam)}, lr=[1, 2], lam=[1, 2]),
    ],
    ids=["product", "one value", "infinity", "paired", "first"],
)
def test_an_axis_that_changes_nothing_is_refused_by_name(dead):
    with pytest.raises(ValueError, match="the axis `lr` changes no number of any point: `make`"):
        dead()


def test_an_axis_that_matters_somewhere_is_alive():
    floor = lambda lam, least: jr.l2(max(lam, least))
    assert len(jr.grid(floor, lam=[0.1, 1.0], least=[0.0, 0.5])) == 4
    assert len(jr.points(floor, lam=[1.0, 0.1], least=[0.0, 0.5])) == 2
    assert len(jr.grid(lambda lam, lr: Both(jr.l2(lam), lr), lam=[0.1], lr=[1.0])) == 1


# --- map_grid -------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [None, 1, 2, 3])
def test_map_grid_equals_the_loop(chunk):
    fit = lambda reg, x: {"x": reg.prox(x, 1.0), "v": reg(jnp.ones(2))}
    g, x = jr.grid(jr.l2, lam=LAMS), jnp.arange(3.0)
    got = jr.map_grid(fit, g, x, chunk=chunk)
    for k, reg in enumerate(g):
        for name, want in fit(reg, x).items():
            np.testing.assert_allclose(got[name][k], want, rtol=1e-6)


def test_map_grid_compiles_once_for_every_grid_and_argument():
    traces = []

    def fit(point, x):
        traces.append(1)
        return point["reg"](x) * point["scale"]

    build = lambda lam, scale: {"reg": jr.l2(lam), "scale": scale}
    for by in (1.0, 2.0):
        g = jr.grid(build, lam=[by, 2 * by], scale=[by, 3.0])
        got = jr.map_grid(fit, g, by * jnp.ones(2))
        np.testing.assert_allclose(got[3], 2 * by * by**2 * 3, rtol=1e-6)
    assert len(traces) == 1


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: jr.grid(jr.l2), ValueError, "at least one axis"),
        (lambda: jr.grid(jr.l2, lam=[]), ValueError, "`lam` is empty"),
        (lambda: jr.grid(jr.l2, lam=[1.0, np.nan]), ValueError, "NaN at position 1"),
        (lambda: jr.grid(jr.l2, lam=[1.0, -1.0]), ValueError, "l2: `lam` must be >= 0"),
        (lambda: jr.grid(jr.l2, lam=1.0), TypeError, "one-dimensional"),
        (lambda: jr.grid(jr.l2, lam="high"), TypeError, "must be numbers.*another program"),
        (lambda: jr.grid(jr.l2, lam=["a", "b"]), TypeError, "`lam` must be numbers"),
        (
            lambda: jr.grid(lambda lam: jr.l2(lam) if lam < 1 else jr.l1(lam), lam=[0.5, 2.0]),
            ValueError,
            r"different structure.*l2\(0.5\) and l1\(2\)",
        ),
        (
            lambda: jr.grid(lambda n: {"w": jnp.ones(int(n))}, n=[1, 2]),
            ValueError,
            "different structure",
        ),
        (lambda: jr.grid(jr.l2(0.1), lam=[1.0]), TypeError, r"function of lam.*got l2\(0.1\)"),
        (lambda: jr.grid(optax.adam(1e-3), lam=[1.0]), TypeError, "function of lam.*Gradient"),
        (
            lambda: jr.grid(lambda lr: optax.sgd(lr), lr=[1.0]),
            TypeError,
            "got an optax transformation. Return what it is made of",
        ),
        (
            lambda: jr.grid(lambda lam: jr.Trainer(abs, abs, optax.sgd(lam)), lam=[1.0]),
            TypeError,
            "got a Trainer.*Keep functions, trainers and flags out",
        ),
        (lambda: jr.grid(lambda lam: None, lam=[1.0]), TypeError, "penalty or a pytree of numbers"),
        (lambda: jr.grid(lambda lam: {"a": "b"}, lam=[1.0]), TypeError, "got 'b' at 'a'"),
        (lambda: jr.grid(lambda lam: {"on": True}, lam=[1.0]), TypeError, "got True at 'on'"),
        (
            lambda: jr.grid(lambda lam: jr.l2(lam), lam=[1.0], lr=[1.0]),
            TypeError,
            "take the axes lam, lr by name.*unexpected keyword",
        ),
        (lambda: GRID[5], IndexError, "out of range for 5"),
        (
            lambda: jr.points(jr.elastic_net, lam=[1, 2], l1_ratio=[0.5]),
            ValueError,
            "the lengths {'lam': 2, 'l1_ratio': 1}.*use grid",
        ),
        (lambda: jr.points([jr.l1(1), jr.l1(2)], lam=[1]), ValueError, "'lam': 1, 'make': 2"),
        (lambda: jr.map_grid(abs, [1]), TypeError, "jaxreg.grid"),
        (lambda: jr.map_grid(jr.l2(1), GRID), TypeError, r"must be a function.*got l2\(1\)"),
        (
            lambda: jr.map_grid(abs, GRID, chunk=0),
            ValueError,
            "`chunk` must be an integer of at least 1",
        ),
    ],
)
def test_bad_grids(call, error, match):
    with pytest.raises(error, match=match):
        call()


# --- many points ------------------------------------------------------------------------------------

MAKES = {
    "penalty": lambda lam: jr.l2(lam).on(jr.kernels),
    "dict": lambda lam: {"reg": jr.elastic_net(lam, l1_ratio=0.3), "lr": lam / 10, "n": 3},
    "arithmetic": lambda lam: jr.l1(2 * lam**2) + jr.l2(np.sqrt(lam)),
    "an array": lambda lam: {"w": jnp.array([1.0, 2.0]) * lam, "lam": lam},
    "a branch": lambda lam: jr.l2(lam if lam > 0.5 else 0.0),
    "Python's own functions": lambda lam: jr.l2(max(lam, 0.5)),
    "the maximum of all": lambda lam: jr.l2(lam / np.max(lam)) + jr.l1(lam),
}


@pytest.mark.parametrize("name", MAKES)
def test_many_points_are_those_that_are_made_one_by_one(name, monkeypatch):
    lams = np.linspace(0.01, 1.0, 2500)
    fast = jr.grid(MAKES[name], lam=lams)
    monkeypatch.setattr(sys.modules["jaxreg.grid"], "_MANY", 10**9)
    slow = jr.grid(MAKES[name], lam=lams)
    assert hash(jax.tree.structure(fast)) == hash(jax.tree.structure(slow))
    for a, b in zip(jax.tree.leaves(fast), jax.tree.leaves(slow)):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    assert fast.strengths == slow.strengths
    assert repr(fast) == repr(slow)


def test_bad_numbers_among_many_points_are_refused_as_among_few():
    lams = np.linspace(-1.0, 1.0, 3000)
    with pytest.raises(ValueError, match="l2: `lam` must be"):
        jr.grid(jr.l2, lam=lams)
    with pytest.raises(ValueError, match="the axis `lr` changes no number"):
        jr.grid(lambda lam, lr: jr.l2(lam), lam=lams[1600:], lr=[0.1, 0.2])


def test_a_hundred_thousand_points_take_a_second():
    began = time.perf_counter()
    made = jr.grid(jr.l2, lam=np.linspace(0.01, 1, 100_000))
    assert len(made) == 100_000
    assert made[99_999].lam == 1.0
    assert time.perf_counter() - began < 5.0  # 0.4 s where nothing else runs
