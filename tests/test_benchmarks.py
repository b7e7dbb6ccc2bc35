"""The benchmarks: the abstraction costs nothing, the timing is fair, and the checks can fail."""

import contextlib
import importlib
import itertools
import json
import math
import sys
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytestmark = pytest.mark.formulas

FOLDER = Path(__file__).parents[1] / "benchmarks"
if not FOLDER.exists():
    pytest.skip("the benchmarks are not part of this copy", allow_module_level=True)
sys.path.insert(0, str(FOLDER))
common, cases, peers, models, loops, rivals = (
    importlib.import_module(n)
    for n in ("_common", "_cases", "_peers", "_models", "_loops", "_rivals")
)
cost, penalties, sweep, limit, scaling, overhead, convolution = (
    importlib.import_module(n)
    for n in ("cost", "penalties", "sweep", "limit", "scaling", "overhead", "convolution")
)
terms, steps, references, compared = (
    importlib.import_module(n) for n in ("terms", "_steps", "_references", "_terms")
)


# --- cost: what XLA counts ------------------------------------------------------------------------


@pytest.mark.parametrize("coupling", ["objective", "chain"])
@pytest.mark.parametrize("name", sorted(cost.PAIRS))
def test_a_penalized_step_costs_what_it_costs_by_hand(name, coupling):
    row = cost.compare(name, coupling, sizes=(8, 6, 3), batch=4)
    assert row["ours"] == row["by_hand"]
    assert row["equal"]
    assert row["ours"]["flops"] > 0


@pytest.mark.parametrize("held", ["equinox", "nnx"])
def test_a_module_costs_what_a_dict_costs(held):
    row = cost.compare("l1", "chain", sizes=(8, 6, 3), batch=4, held=held)
    assert row["equal"]
    assert row["ours"] == cost.compare("l1", "chain", sizes=(8, 6, 3), batch=4)["ours"]


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


def test_a_slow_candidate_runs_one_round_and_is_compared_in_it():
    calls = []
    candidates = {n: (lambda n=n: calls.append(n)) for n in "ab"}
    timings = common.timed_rounds(candidates, {"a": 0.0, "b": 0.0}, rounds=3, slow=-1.0)
    assert calls == ["a", "b"]
    once, often = timings["a"], common.Timing(0.0, timings["a"].rounds[0] * np.array([2.0, 9.0]))
    assert common.ratio(once, often) == common.ratio(once, often._replace(rounds=often.rounds[:1]))
    assert common.ratio(often, once)[0] == 2


@pytest.mark.parametrize(
    ("limits", "kept"), [({"least": 2.0}, True), ({"least": 2.1}, False), ({"most": 1.9}, False)]
)
def test_a_bound_says_whether_it_is_kept(limits, kept, capsys):
    row = common.bound("this / that", 2.0, **limits)
    assert row["kept"] is kept
    assert common.bound("this / that", math.nan, **limits)["kept"] is False
    common.show_bounds([row])
    last = capsys.readouterr().out.split()[-1]
    assert last == ("yes" if kept else "NO")


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
    return models.make_task(models.MODELS["logistic"], n_lams=2, steps=5)


@pytest.fixture(scope="module")
def right(small_task):
    return np.asarray(loops.loop_of_scans(small_task)())


def test_the_library_does_what_the_loop_by_hand_does(small_task, right):
    answers = {sweep.OURS: loops.library(small_task)(), sweep.BY_HAND: right}
    far = sweep.disagreement(small_task, answers)
    assert far[sweep.OURS][1] < 1e-5
    sweep.check(small_task, far)


def test_every_loop_by_hand_does_the_same(small_task, right):
    by_hand = (loops.vmap_by_hand, loops.loop_tuned, loops.loop_as_usual)
    answers = {make.__name__: make(small_task)() for make in by_hand}
    for width in (1, 4):
        answers[f"map {width}"] = loops.map_by_hand(small_task, width)()
    for name, answer in answers.items():
        np.testing.assert_allclose(answer, right, rtol=1e-5, err_msg=name)


def test_another_order_of_the_minibatches_is_caught(small_task, right):
    other = small_task._replace(order=small_task.order[::-1] // 2)
    wrong = loops.loop_of_scans(other)()
    far = sweep.disagreement(small_task, {sweep.BY_HAND: right, "other": wrong})
    with pytest.raises(SystemExit, match="losses of 'other' differ"):
        sweep.check(small_task, far)


def test_a_loss_that_is_nan_agrees_with_nothing(small_task):
    answers = {sweep.BY_HAND: np.ones((2, 2)), sweep.OURS: np.full((2, 2), np.nan)}
    with pytest.raises(SystemExit, match="FAILED: logistic"):
        sweep.check(small_task, sweep.disagreement(small_task, answers))


def test_accuracies_are_compared_loosely_but_compared(small_task):
    long = small_task._replace(order=np.tile(small_task.order, (5, 1)))
    good = loops.accuracies(long)
    for off, fails in ((0.03, False), (0.06, True), (np.nan, True)):
        answers = {sweep.BY_HAND: np.ones((2, 2)), "scikit-learn": good + off}
        far = sweep.disagreement(long, answers)
        with pytest.raises(SystemExit, match="accuracies") if fails else contextlib.nullcontext():
            sweep.check(long, far)


def test_a_minibatch_is_drawn_without_replacement_in_an_epoch():
    order = models.batches(64, steps=10, key=jax.random.key(3))
    np.testing.assert_array_equal(np.sort(order, None), np.arange(models.N_TRAIN))


def test_what_must_be_reached_looks_at_the_fastest_of_a_kind():
    ratios = {
        sweep.TUNED: 1.2,
        sweep.USUAL: 2.4,
        "PyTorch loop, 1 thread": 9.0,
        "PyTorch loop, 2 threads": 7.0,
    }
    rows = [{"model": "mlp", "lams": 32, "candidate": n, "ratio": r} for n, r in ratios.items()]
    found = {r["bound"]: (r["measured"], r["kept"]) for r in sweep.bounds(rows)}
    assert found == {
        f"mlp, 32 λ: {sweep.TUNED} / ours": (1.2, True),
        f"mlp, 32 λ: {sweep.USUAL} / ours": (2.4, False),
        "mlp, 32 λ: PyTorch loop / ours": (7.0, False),
    }
    other_size = sweep.bounds([row | {"lams": 8} for row in rows])
    assert [r["at_least"] for r in other_size] == [1.0, 1.0]


def test_what_is_not_installed_is_named(small_task, monkeypatch):
    monkeypatch.setattr(rivals.importlib.util, "find_spec", lambda name: None)
    assert rivals.rivals(small_task) == ({}, ["PyTorch", "scikit-learn", "Optuna"])


@pytest.mark.parametrize("name", sorted(models.MODELS))
def test_a_model_is_the_same_function_in_pytorch(name):
    torch = pytest.importorskip("torch")
    model, x = models.MODELS[name], models.MODELS[name].data()[0][:5].astype(np.float32)
    params = model.init(jax.random.key(1))
    # Biases that are all zero would hide where they end up.
    params = jax.tree.map(lambda p: p + 0.1 * jax.random.normal(jax.random.key(2), p.shape), params)
    task = models.Task(model, np.ones(1), (), (), params, np.zeros(0), jax.random.key(0))
    for fused in (True, False):
        net, _ = rivals.torch_net(task, fused=fused)
        got = net(torch.from_numpy(x)).detach().numpy()
        np.testing.assert_allclose(got, model.logits(params, x), atol=2e-5)


def test_pytorch_does_what_the_loop_by_hand_does(small_task, right):
    pytest.importorskip("torch")
    for make in (rivals.torch_loop, rivals.torch_vmap):
        np.testing.assert_allclose(make(small_task)(), right, rtol=1e-5)


def test_a_study_does_what_the_loop_by_hand_does(small_task, right):
    pytest.importorskip("optuna")
    np.testing.assert_allclose(rivals.optuna_trials(small_task)(), right, rtol=1e-5)


# --- limit: every product is there, and no more ---------------------------------------------------


def test_the_products_are_the_gradients_of_a_linear_net():
    key = jax.random.key(0)
    kernels = [jax.random.normal(k, s) for k, s in zip(jax.random.split(key), [(5, 4), (4, 3)])]
    x = jax.random.normal(key, (7, 5))
    expected = jax.grad(lambda ks: 0.5 * jnp.sum((x @ ks[0] @ ks[1]) ** 2))(kernels)
    for got, right in zip(limit.products(kernels, x), expected, strict=True):
        np.testing.assert_allclose(got, right, rtol=1e-4)


@pytest.mark.parametrize("width", [1, 2])
def test_no_product_is_hoisted_or_dropped(width):
    sizes = (11, 6, 5, 3)
    kernels = [jnp.ones((2, n, m)) for n, m in itertools.pairwise(sizes)]
    compiled = limit.program(width, 9).lower(kernels, jnp.ones((4, 7, sizes[0]))).compile()
    computations = compiled.as_text().split("\n\n")
    assert sum(text.count(" dot(") for text in computations) == 3 * 3 - 1
    # A product that was taken out of the loop over the steps would stand beside it.
    assert not [text for text in computations if " dot(" in text and " while(" in text]


def test_the_flops_are_those_that_xla_counts():
    kernels = [jnp.ones((11, 6)), jnp.ones((6, 5)), jnp.ones((5, 3))]
    counted = cost.cost(limit.products, kernels, jnp.ones((7, 11)))["flops"]
    assert counted == limit.flops((11, 6, 5, 3), 7)


def test_products_of_another_batch_are_caught(small_task):
    with ThreadPoolExecutor(2) as pool:
        call = limit.bare(small_task, 1, pool, threads=2)
        answer = call()
    assert len(answer) == 2
    limit.check(small_task, limit.BARE, answer)
    shorter = small_task._replace(order=small_task.order[1:])
    with pytest.raises(SystemExit, match=r"differ from numpy's"):
        limit.check(shorter, limit.BARE, answer)


# --- scaling and overhead -------------------------------------------------------------------------


def test_losses_that_depend_on_cores_or_on_k_are_caught():
    same = {
        (1, 2): [[1.0, 2.0]],
        (3, 2): [[1.0, 2.0], [3.0, 4.0]],
        (3, 1): [[1.0, 2.0], [3.0, 4.0]],
    }
    scaling.check(same)
    with pytest.raises(SystemExit, match=r"K = 3 on 2 cores: .*on other cores"):
        scaling.check(same | {(3, 1): [[1.0, 2.0], [3.0, 4.1]]})
    with pytest.raises(SystemExit, match=r"K = 1 on 2 cores: .*at another K"):
        scaling.check(same | {(1, 2): [[1.0, 2.1]]})


def test_the_peak_of_a_call_is_what_it_takes():
    took = scaling.peak(lambda: np.ones(8_000_000).sum())
    if took is None:
        pytest.skip("this system does not tell")
    assert took == pytest.approx(64e6, rel=0.1)


def test_the_program_that_compiles_longest_is_counted():
    assert overhead.trainings((("add", 0.1), ("train", 2.0), ("add", 0.1), ("train", 1.0))) == 2
    assert overhead.trainings((("add", 0.1), ("train", 2.0), ("add", 0.1))) == 1
    assert overhead.trainings(()) == 0


def _result(losses, given_up=0):
    curve = {"loss": np.asarray(losses, float).reshape(-1, 1, 1, 1)}
    status = np.zeros((len(losses), 1, 1), int)
    status[:given_up] = 2
    return types.SimpleNamespace(train=curve, valid=curve, status=status)


def test_a_comfort_that_changes_a_loss_is_caught():
    plain = _result([3.0, 1.0, 2.0])
    overhead.check({overhead.PLAIN: plain, "progress": _result([3.0, 1.0, 2.0])})
    nearly = _result([3.0, 1.0, np.nextafter(2.0, 3.0)])
    with pytest.raises(SystemExit, match="progress: the losses differ"):
        overhead.check({overhead.PLAIN: plain, "progress": nearly})
    halved = {overhead.HALVED: _result([np.nan, np.nan, 2.0], given_up=2)}
    overhead.check({overhead.PLAIN: plain, **halved})
    with pytest.raises(SystemExit, match="infinite: 2 lanes did not finish, expected 1"):
        overhead.check({overhead.PLAIN: plain, overhead.INFINITE: halved[overhead.HALVED]})


def test_the_bar_is_drawn_on_the_terminal_that_shows_nothing():
    from rich.console import Console

    assert Console(file=overhead.Terminal()).is_terminal


# --- convolution ----------------------------------------------------------------------------------


def test_a_cnn_that_was_trained_otherwise_is_caught():
    same = {convolution.LOOP: {"w": np.ones(3)}, convolution.SWEEP: {"w": np.ones(3)}}
    assert convolution.check(1e-7, same)[convolution.SWEEP] == 0
    with pytest.raises(SystemExit, match="rewritten gradient differs by 2.0e-06"):
        convolution.check(2e-6, same)
    with pytest.raises(SystemExit, match="jaxreg.sweep: parameters differ by 1.0e"):
        convolution.check(0.0, same | {convolution.SWEEP: {"w": np.ones(3) + 0.001}})


# --- terms ----------------------------------------------------------------------------------------


def test_a_step_that_is_not_what_it_should_be_is_caught():
    before, plain, on = ({"w": np.full(3, v)} for v in (0.0, 1.0, 2.0))
    assert steps.check("sam", before, plain, on, plain) == 0
    with pytest.raises(SystemExit, match="at a strength of 0 the update differs by 1.0e"):
        steps.check("sam", before, plain, on, {"w": np.full(3, 1.001)})
    with pytest.raises(SystemExit, match="does not move the parameters, or moves them as"):
        steps.check("sam", before, plain, plain, plain)
    with pytest.raises(SystemExit, match="not finite"):
        steps.check("sam", before, plain, {"w": np.array([1.0, np.nan])}, plain)


def test_a_program_that_trains_is_one_in_which_the_loss_was_traced():
    assert terms.training([(0.1, True), (1.0, False), (2.0, True)]) == 1
    assert terms.training([(0.1, True), (1.8, True), (2.0, True)]) == 2
    assert terms.training([]) == 0


def test_a_reference_that_is_missed_or_not_installed_is_named(monkeypatch):
    off = {
        "PyTorch": {"ours": None},
        "optax": {"sam": lambda both: (np.ones(2) + 2e-5, np.ones(2))},
    }
    monkeypatch.setattr(references, "there", lambda library: library != "PyTorch")
    absent, single, double = references.references(off, {}, 1)
    assert absent == {"reference": "ours", "against": "PyTorch", "note": "not installed"}
    assert (single["kept"], double["kept"]) == (False, False)
    assert references.difference([np.ones(2), np.nan], [np.ones(2), 1.0]) == math.inf
    shown = lambda *given: ([absent, single], [])
    monkeypatch.setitem(terms.SECTIONS, "references", shown)
    monkeypatch.setattr(sys, "argv", ["terms.py", "--smoke", "--json", "--only", "references"])
    monkeypatch.setenv("XLA_FLAGS", "")
    with pytest.raises(SystemExit, match="FAILED: sam misses optax"):
        terms.main()


def test_what_is_compared_with_optax_is_the_same():
    rows = references.references({"optax": compared.EXACT["optax"]}, {}, 1)
    assert len(rows) == 4
    assert all(row["kept"] for row in rows)


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
