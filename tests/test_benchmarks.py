"""The benchmarks: the abstraction costs nothing, the timing is fair, and the checks can fail."""

import importlib
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
if not FOLDER.exists():
    pytest.skip("the benchmarks are not part of this copy", allow_module_level=True)
sys.path.insert(0, str(FOLDER))
common, cases, cost, peers, penalties, sweep = (
    importlib.import_module(n)
    for n in ("_common", "_cases", "cost", "_peers", "penalties", "sweep")
)


# --- cost: what XLA counts ------------------------------------------------------------------------


@pytest.mark.parametrize("coupling", ["objective", "chain"])
@pytest.mark.parametrize("name", sorted(cost.PAIRS))
def test_a_penalised_step_costs_what_it_costs_by_hand(name, coupling):
    row = cost.compare(name, coupling, sizes=(8, 6, 3), batch=4)
    assert row["ours"] == row["by_hand"]
    assert row["equal"]
    assert row["ours"]["flops"] > 0


@pytest.mark.parametrize("name", sorted(cost.PAIRS))
def test_what_is_compared_is_the_same_function(name):
    pair = cost.PAIRS[name]
    # A whole column of zeros: a zero group, whose gradient must be 0.
    w = jnp.array([[3.0, 0.0, -1.0], [0.0, 0.0, 2.0]])
    ours = jax.value_and_grad(lambda w: pair.penalty(w))(w)
    by_hand = jax.value_and_grad(lambda w: pair.value(w, *pair.strengths))(w)
    np.testing.assert_allclose(ours[0], by_hand[0], rtol=1e-6)
    np.testing.assert_allclose(ours[1], by_hand[1], rtol=1e-6)
    np.testing.assert_allclose(ours[1], pair.gradient(w, *pair.strengths), rtol=1e-6)


def test_one_more_pass_over_the_parameters_is_counted():
    w = jnp.ones((8, 6))
    once = cost.cost(lambda w: jnp.sum(w**2), w)
    assert cost.cost(lambda w: jnp.sum(w**2) + jnp.sum(jnp.cos(w)), w) != once


def test_counts_reads_the_forms_of_several_jax_versions():
    found = {"flops": 7.0, "bytes accessed": 8.0, "utilization": 1.0}
    expected = {"flops": 7, "bytes accessed": 8, "transcendentals": 0}
    assert cost.counts(found) == cost.counts([found]) == expected
    for nothing in (None, [], {}, [{}]):
        with pytest.raises(RuntimeError, match="no cost analysis"):
            cost.counts(nothing)


# --- timing ---------------------------------------------------------------------------------------


def test_every_candidate_runs_once_a_round_and_another_one_begins_each():
    calls = []
    candidates = {n: (lambda n=n: calls.append(n)) for n in "abc"}
    first, _ = common.first_calls(candidates)
    timings = common.timed_rounds(candidates, first, rounds=4)
    assert calls == [*"abc", *"abc", *"bca", *"cab", *"abc"]
    assert [len(t.rounds) for t in timings.values()] == [4, 4, 4]


def test_a_budget_leaves_three_rounds():
    calls = {"a": lambda: None}
    assert len(common.timed_rounds(calls, {"a": 0.0}, 10, budget=0.0)["a"].rounds) == 3
    assert len(common.timed_rounds(calls, {"a": 0.0}, 2, budget=0.0)["a"].rounds) == 2


def test_ratios_are_taken_round_by_round():
    """A machine that is ten times slower for a round slows both, and the ratio stays."""
    slow = np.array([1.0, 10.0, 1.0])
    ours, theirs = common.Timing(0.5, slow), common.Timing(9.0, 3 * slow)
    row = common.figures(theirs, ours)
    assert row["ratio"] == 3
    assert row["ratio_iqr"] == [3, 3]
    assert row["first_call_seconds"] == 9
    assert row["seconds"] == 3


def test_each_row_is_one_complete_json_line(capsys):
    common.emit("sweep", [{"ratio": 2.0}, {"ratio": 3.0}])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [r["ratio"] for r in rows] == [2.0, 3.0]
    assert {"benchmark", "jax", "python", "device", "cpus", "commit"} <= rows[0].keys()
    assert rows[0]["jax"] == jax.__version__


# --- sweep: the candidates do the same work -------------------------------------------------------


@pytest.fixture(scope="module")
def small_task():
    pytest.importorskip("sklearn")
    return sweep.make_task((64, 10), n_lams=2, steps=5)


def test_the_library_does_what_the_loop_by_hand_does(small_task):
    calls = {sweep.OURS: sweep.library(small_task), sweep.BY_HAND: sweep.loop_of_scans(small_task)}
    far = sweep.disagreement(small_task, {name: call() for name, call in calls.items()})
    assert far[sweep.OURS][1] < 1e-5
    sweep.check("logistic", far)


def test_another_order_of_the_minibatches_is_caught(small_task):
    other = small_task._replace(order=small_task.order[::-1] // 2)
    right, wrong = sweep.loop_of_scans(small_task)(), sweep.loop_of_scans(other)()
    far = sweep.disagreement(small_task, {sweep.BY_HAND: right, "other": wrong})
    with pytest.raises(SystemExit, match="losses of 'other' differ"):
        sweep.check("logistic", far)


def test_a_loss_that_is_nan_agrees_with_nothing(small_task):
    answers = {sweep.BY_HAND: np.ones((2, 2)), sweep.OURS: np.full((2, 2), np.nan)}
    with pytest.raises(SystemExit, match="FAILED: net"):
        sweep.check("net", sweep.disagreement(small_task, answers))


# --- penalties: none is left out ------------------------------------------------------------------


def test_every_exported_penalty_has_an_example():
    assert set(cases.exported()) >= {"l1", "l2", "elastic_net", "group_lasso"}
    assert set(cases.exported()) - set(map(cases.penalty_of, cases.CASES)) == set()
    assert set(peers.MATCHES) - set(cases.CASES) == set()


@pytest.mark.parametrize("name", cases.examples())
def test_an_example_has_a_value_a_gradient_and_a_prox(name):
    case = cases.CASES[name]
    calls, refused = penalties.operations(case, cases.parameters(case.on, small=True))
    assert refused == {}
    assert set(calls) == {"copy", "value", "gradient", "prox"}


def test_the_parameters_are_as_many_as_said():
    for on in ("tree", "rows", "lassonet"):
        n = sum(np.prod(shape) for shape in cases.shapes(on, small=False).values())
        assert n == pytest.approx(1e7, rel=1e-3)
    assert cases.size(cases.parameters("vector", small=True, times=4)) == 4_000


def test_answers_of_peers_are_compared_entry_by_entry():
    x = np.linspace(-1, 1, 1000)
    assert penalties.difference(x, x, jumps=False) == 0
    one_off = np.where(np.arange(1000) == 5, 9.0, x)
    assert penalties.difference(one_off, x, jumps=False) > 1
    assert penalties.difference(one_off, x, jumps=True) == 0
    assert penalties.difference(np.where(x > 0, np.nan, x), x, jumps=True) == np.inf
