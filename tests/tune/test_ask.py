"""Samplers of Optuna: what they are told is what was trained, and a study that does not fit is refused."""

import importlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support.compilations import compilations

import jaxreg as jr
from jaxreg.tune.ask import ask_and_tell

optuna = pytest.importorskip("optuna")
optuna.logging.set_verbosity(optuna.logging.WARNING)
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 16)).astype(np.float32)
Y = (X @ RNG.normal(size=16) * 0.5 + RNG.normal(size=40)).astype(np.float32)
OPTIONS = {"folds": np.arange(40) % 4, "steps": 150, "evals": 1, "key": jax.random.key(0)}
SPACE = jr.space(jr.l2, lam=(1e-3, 10.0))
SAMPLERS = {
    "random": lambda: optuna.samplers.RandomSampler(seed=1),
    "tpe": lambda: optuna.samplers.TPESampler(seed=1, n_startup_trials=4),
}


class Within:
    """The share of rows that are nearly right."""

    better = "larger"

    def __call__(self, w, x, y):
        return jnp.mean(jnp.exp(-((x @ w - y) ** 2)))


def loss(w, x, y):
    return 0.5 * jnp.mean((x @ w - y) ** 2)


def trainer(reg):
    tx = jr.proximal(optax.trace(0.8), reg, 0.05)
    return jr.Trainer(lambda key: jnp.zeros(16), loss, tx, {"within": Within()})


def study(sampler="random", **more):
    return optuna.create_study(sampler=SAMPLERS[sampler](), **more)


def found(study, **more):
    return ask_and_tell(
        study, more.pop("trainer", trainer), more.pop("space", SPACE), (X, Y),
        **{**OPTIONS, "batch": 4, "budget": 10, **more},
    )  # fmt: skip


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_what_is_told_is_what_was_trained(sampler):
    asked = study(sampler)
    got = found(asked)
    assert got.rounds == (4, 4, 2)
    lams = np.array([t.params["lam"] for t in asked.trials])
    assert ((lams >= 1e-3) & (lams <= 10)).all()
    assert asked.trials[0].distributions["lam"].log
    order = np.argsort(lams)
    np.testing.assert_allclose(got.result.coords["lam"], lams[order], rtol=1e-6)
    told = np.array([t.value for t in asked.trials])
    np.testing.assert_array_equal(got.result.mean(), told[order])
    whole = jr.sweep(trainer, jr.grid(jr.l2, lam=np.sort(lams)), (X, Y), **OPTIONS)
    np.testing.assert_allclose(told[order], whole.mean(), rtol=1e-5)
    assert got.choice.mean == asked.best_value
    assert got.choice.coords["lam"] == pytest.approx(asked.best_params["lam"], rel=1e-6)
    assert got.choice.rule == type(asked.sampler).__name__
    assert got.choice.lane_steps == 3 * 4 * 4 * 150, "the last round is filled up"
    assert "10 points that" in got.choice.why


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_seeded_sampler_asks_the_same_again(sampler):
    first, second = (found(study(sampler)).result for _ in range(2))
    np.testing.assert_array_equal(first.coords["lam"], second.coords["lam"])
    np.testing.assert_array_equal(first.scores(), second.scores())


def test_tpe_learns_from_what_it_is_told():
    """Most of what it asks after its start lies near the best; of random draws an eighth does."""
    asked = study("tpe")
    best = found(asked, budget=32).choice.coords["lam"]
    late = np.log([t.params["lam"] for t in asked.trials[16:]])
    assert np.mean(np.abs(late - np.log(best)) < np.log(1e4) / 16) > 0.3


def test_rounds_compile_nothing_more():
    fresh = lambda reg: trainer(reg)
    with compilations() as first:
        found(study(), trainer=fresh, budget=4)
    with compilations() as more:
        found(study(), trainer=fresh, budget=14)  # 4 + 4 + 4 + 2
    assert first
    assert not more


def test_a_study_goes_on():
    whole, parts = study(), study()
    found(whole, budget=8)
    first = found(parts, budget=4)
    second = found(parts, budget=4)
    assert [t.params for t in parts.trials] == [t.params for t in whole.trials]
    assert [t.value for t in parts.trials] == [t.value for t in whole.trials]
    assert first.rounds == second.rounds == (4,)
    assert len(second.result.status) == 4
    before = "of the study, of another call, has a better score"
    worse = first.choice.mean < second.choice.mean
    assert any(before in text for text in second.choice.warnings) == worse
    assert not any(before in text for text in first.choice.warnings)


def test_trials_of_another_making_are_told():
    asked = study()
    asked.add_trial(optuna.trial.create_trial(params={}, distributions={}, value=-1.0))
    got = found(asked, budget=4)
    assert any("1 trials of another making" in text for text in got.choice.warnings)
    assert any("trial 0 of the study, of another call" in text for text in got.choice.warnings)


def test_a_point_that_is_asked_twice_is_trained_once():
    asked = study()
    for lam in (0.5, 0.5, 0.25, 0.5):
        asked.enqueue_trial({"lam": lam})
    got = found(asked, budget=4, batch=2)
    assert not any("another making" in text for text in got.choice.warnings), "they only waited"
    np.testing.assert_allclose(got.result.coords["lam"], [0.25, 0.5])
    a, b, c, d = (t.value for t in asked.trials)
    assert a == b == d != c
    assert got.rounds == (2, 2)


def test_by_a_metric_of_which_more_is_better():
    asked = study(direction="maximize")
    got = found(asked, metric="within", budget=8)
    assert got.choice.mean == asked.best_value == got.result.mean("within").max()
    assert got.choice.metric == "valid within"


def test_what_diverges_is_pruned_and_tpe_stays_away():
    """The step is too long for λ above 10 here."""
    plain = lambda reg: jr.Trainer(
        lambda key: jnp.zeros(16), loss, optax.chain(jr.add_penalty_gradient(reg), optax.sgd(0.2))
    )
    asked = study("tpe")
    got = found(asked, trainer=plain, space=jr.space(jr.l2, lam=(1e-2, 1e4)), budget=24)
    state = optuna.trial.TrialState
    over = np.array([t.params["lam"] > 11 for t in asked.trials])
    states = [t.state for t in asked.trials]
    assert [s == state.PRUNED for s in states] == over.tolist()
    assert {s for s, bad in zip(states, over) if not bad} == {state.COMPLETE}
    assert over[:4].mean() > 0, "some did"
    assert over[12:].mean() < 0.2
    assert got.choice.coords["lam"] < 10


def test_trials_of_a_round_that_fails_fail():
    asked = study()
    odd = lambda reg: jr.Trainer(
        lambda key: jnp.zeros(3), loss, jr.proximal(optax.identity(), reg, 1)
    )
    with pytest.raises((TypeError, ValueError)):
        found(asked, trainer=odd)
    assert {t.state for t in asked.trials} == {optuna.trial.TrialState.FAIL}
    assert len(asked.trials) == 4


def test_several_strengths_are_told_of():
    both = jr.space(lambda a, b: jr.l1(a) + jr.l2(b), a=(1e-3, 1.0), b=(1e-3, 1.0))
    got = found(study(), space=both, budget=4)
    assert sorted(got.result.coords) == ["a", "b"]
    assert any("several strengths fit the validation rows" in text for text in got.choice.warnings)


LINEAR = optuna.trial.create_trial(
    params={"lam": 0.1}, distributions={"lam": optuna.distributions.FloatDistribution(0, 1)}, value=1.0
)  # fmt: skip
REFUSED = {
    "the other direction": (
        {"study": study(direction="maximize")},
        r"`study` must minimize 'loss', got one that would maximize it.*direction='minimize'",
    ),
    "the other direction, of a metric": (
        {"metric": "within"}, r"`study` must maximize 'within', got one that would minimize it"
    ),
    "two objectives": (
        {"study": study(directions=["minimize", "minimize"])},
        r"`study` must have one objective, got 2",
    ),
    "no batch": ({"batch": 0}, r"`batch` must be an integer of at least 1, got 0"),
    "no budget": ({"budget": 0}, r"`budget` must be an integer of at least 1, got 0"),
    "halving": ({"halving": jr.Halving(0.5, 2)}, r"`halving` must be left away.*Give a lower `budget`"),
    "checkpoint": ({"checkpoint": "x"}, r"`checkpoint` must be left away.*Give it a storage"),
    "metric": ({"metric": "nothing"}, r"`metric` must say whether larger is better.*got 'nothing'"),
}  # fmt: skip


@pytest.mark.parametrize(("given", "text"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_refused_before_anything_is_asked(given, text):
    asked = given.get("study") or study()
    with compilations() as compiled, pytest.raises(ValueError, match="ask_and_tell: " + text):
        found(asked, **{n: v for n, v in given.items() if n != "study"})
    assert not compiled
    assert not asked.trials


def test_rows_are_refused_before_anything_is_asked():
    asked = study()
    with pytest.raises(ValueError, match="`folds` must be between 2 and the 40 examples"):
        found(asked, folds=99)
    assert not asked.trials


def test_trials_that_do_not_compare_are_refused():
    asked = study()
    asked.add_trial(LINEAR)
    with pytest.raises(
        ValueError, match=r"`study` must have 'lam' on a logarithmic scale, and trial 0"
    ):
        found(asked)
    asked = study()
    found(asked, budget=4)
    with pytest.raises(
        ValueError, match=r"`study` .* trained alike, got steps = 150 there and 20 here"
    ):
        found(asked, steps=20)
    with pytest.raises(ValueError, match=r"`study` .* trained alike, got key = .*Give a new study"):
        found(asked, key=jax.random.key(1))
    with pytest.raises(ValueError, match=r"trained alike, got rows and folds = "):
        found(asked, folds=np.arange(40) % 5)
    with pytest.raises(ValueError, match=r"trained alike, got rows and folds = "):
        ask_and_tell(asked, trainer, SPACE, (X, Y + 1), **OPTIONS)
    assert len(asked.trials) == 4


@pytest.mark.parametrize("odd", [None, "study", 3, SPACE])
def test_what_is_no_study_and_no_space(odd):
    with pytest.raises(TypeError, match=r"ask_and_tell: `study` must be a study of Optuna.*got"):
        found(odd)
    if odd is not SPACE:
        with pytest.raises(TypeError, match=r"ask_and_tell: `space` must come from jaxreg\.space"):
            found(study(), space=odd)


def test_without_optuna_it_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ImportError):
        importlib.import_module("optuna")
    with pytest.raises(ImportError, match=r"ask_and_tell needs Optuna.*pip install optuna"):
        found(None)
