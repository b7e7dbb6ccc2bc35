"""The refit: all training rows, beside no penalty, judged on rows that nothing has seen."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxreg as jr

KEY = jax.random.key(2)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 4)).astype(np.float32)
Y = (X[:, 0] + 0.3 * RNG.normal(size=60)).astype(np.float32)
TRAIN, TEST = (X[:40], Y[:40]), (X[40:], Y[40:])


def loss(w, x, y):
    return 0.5 * jnp.mean((x @ w - y) ** 2)


def trainer(reg):
    tx = optax.chain(jr.add_penalty_gradient(reg), optax.sgd(0.2))
    return jr.Trainer(lambda key: jax.random.normal(key, (4,)), loss, tx)


def rated(p):
    tx = optax.chain(jr.add_penalty_gradient(p["reg"]), optax.sgd(p["lr"]))
    return jr.Trainer(lambda key: jax.random.normal(key, (4,)), loss, tx)


def sweep(trainer, grid, **kwargs):
    return jr.sweep(trainer, grid, TRAIN, folds=4, steps=30, key=KEY, progress=False, **kwargs)


@pytest.fixture(scope="module")
def result():
    return sweep(trainer, jr.grid(jr.l2, lam=[0.01, 0.1, 1.0]), batch_size=10)


def test_choices_are_trained_on_all_rows_and_judged_on_the_test_rows(result):
    got = jr.refit(trainer, result, TRAIN, rule=["min", "1se"], test=TEST, seeds=3, key=KEY)
    assert got.names == ("no penalty", "chosen by min", "chosen by 1se")
    for name, reg in [("no penalty", jr.l2(0.0)), ("chosen by min", result.best().point)]:
        scores = []
        for seed in range(3):
            alone = jr.fit(trainer, reg, TRAIN, steps=30, batch_size=10, key=KEY, seed=seed).params
            np.testing.assert_allclose(got.params(name, seed), alone, atol=2e-6)
            scores.append(loss(alone, *TEST))
        mean, error = got.scores(name)["loss"]
        np.testing.assert_allclose(mean, np.mean(scores), rtol=1e-5)
        np.testing.assert_allclose(error, np.std(scores, ddof=1) / 3**0.5, rtol=1e-3)
    assert "test loss" in str(got)
    assert str(got).count("±") == 3


def test_without_test_rows_the_scores_are_those_of_training_and_say_so(result):
    got = jr.refit(trainer, result, TRAIN, seeds=2, key=KEY)
    assert "train loss" in str(got)
    assert "test" not in str(got)
    mean, _ = got.scores("chosen by min")["loss"]
    want = np.mean([loss(got.params("chosen by min", s), *TRAIN) for s in range(2)])
    np.testing.assert_allclose(mean, want, rtol=1e-5)


def test_beside_other_numbers_only_the_penalty_goes():
    make = lambda lam, lr: {"reg": jr.l2(lam), "lr": lr}
    swept = sweep(rated, jr.grid(make, lam=[0.05, 1.0], lr=[0.05, 0.2]))
    got = jr.refit(rated, swept, TRAIN, test=TEST, seeds=2, key=KEY)
    chosen = swept.best().coords
    free = got.index[got.names.index("no penalty")]
    assert float(got.result.coords["lam"][free]) == 0
    np.testing.assert_allclose(got.result.coords["lr"][free], chosen["lr"])


def test_a_point_without_penalty_stands_alone():
    plain = lambda p: jr.Trainer(lambda key: jnp.zeros(4), loss, optax.sgd(p["lr"]))
    swept = sweep(plain, jr.grid(lambda lr: {"lr": lr}, lr=[0.01, 0.2]))
    assert jr.refit(plain, swept, TRAIN, seeds=2, key=KEY).names == ("chosen by min",)


def test_a_logarithm_of_lam_has_no_value_without_penalty():
    swept = sweep(trainer, jr.grid(lambda log_lam: jr.l2(10**log_lam), log_lam=[-2.0, -1.0]))
    got = jr.refit(trainer, swept, TRAIN, test=TEST, seeds=2, key=KEY)
    row = next(line for line in str(got).splitlines() if "no penalty" in line)
    assert row.split()[2] == "-"
    alone = jr.fit(trainer, jr.l2(0.0), TRAIN, steps=30, key=KEY).params
    np.testing.assert_allclose(got.params("no penalty"), alone, atol=2e-6)


def test_two_choices_of_one_rule_are_told_apart(result):
    first = result.best()
    other = dataclasses.replace(
        first, index=2, point=jr.l2(1.0), coords={"lam": float(result.coords["lam"][2])}
    )
    got = jr.refit(trainer, result, TRAIN, rule=[first, other], seeds=1, key=KEY)
    assert got.names == ("no penalty", "chosen by min", "chosen by min #2")
    alone = jr.fit(trainer, jr.l2(1.0), TRAIN, steps=30, batch_size=10, key=KEY).params
    np.testing.assert_allclose(got.params("chosen by min #2"), alone, atol=2e-6)


def test_parameters_of_another_step_than_the_judged_one_are_refused():
    rates = jr.grid(lambda lam: jr.l2(lam), lam=[1e-4, 1e-3])
    result = sweep(trainer, rates, patience=2, evals=30)
    early = dataclasses.replace(result, stop=np.full_like(result.stop, 4))
    got = jr.refit(trainer, early, TRAIN, seeds=1, key=KEY)
    with pytest.raises(ValueError, match="was judged at step .* refit with steps="):
        got.params("chosen by min")


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        (lambda r: {"result": 3}, TypeError, "`result` must be a SweepResult, got int"),
        (lambda r: {"rule": []}, ValueError, "`rule` must have at least one rule"),
        (lambda r: {"rule": "max"}, ValueError, "`rule` must be one of"),
        (
            lambda r: {"result": dataclasses.replace(r, made_by="{}")},
            ValueError,
            "does not tell how long it was trained; give `steps`",
        ),
        (
            lambda r: {"result": jr.SweepResult.join({"a": r, "b": r})},
            TypeError,
            "a joined result has several trainers; give the sweep that the choice came from",
        ),
    ],
)
def test_what_cannot_be_refitted(result, change, error, match):
    given = {"result": result, "rule": "min"} | change(result)
    with pytest.raises(error, match=match):
        jr.refit(trainer, given["result"], TRAIN, rule=given["rule"], key=KEY)


def test_points_read_without_their_structure_are_refused(result, tmp_path):
    result.save(tmp_path / "r.npz")
    with pytest.raises(TypeError, match=r"are dicts of numbers.*SweepResult.load\(path, like="):
        jr.refit(trainer, jr.SweepResult.load(tmp_path / "r.npz"), TRAIN, key=KEY)


def test_no_such_name(result):
    got = jr.refit(trainer, result, TRAIN, seeds=2, key=KEY)
    with pytest.raises(
        ValueError, match=r"refit: no 'chosen by 1se'; choose from \['chosen by min'"
    ):
        got.scores("chosen by 1se")


def test_points_of_terms_alone_are_refitted():
    """Terms of the loss are no penalties that a point must have."""

    def of_terms(point):
        def judged(w, x, y):
            return loss(w, x, y), {"activity": point["activity"](x @ w[:, None])}

        return jr.Trainer(lambda key: jnp.zeros(4), judged, optax.sgd(0.1))

    grid = jr.grid(lambda lam: {"activity": jr.terms.activity_l2(lam)}, lam=[0.1, 1.0])
    swept = sweep(of_terms, grid)
    again = jr.refit(of_terms, swept, TRAIN, test=TEST, key=KEY)
    assert again.names == ("no term", "chosen by min")
    for name, point in (("chosen by min", swept.best("min").point), ("no term", grid[0])):
        point = {"activity": (0.0 if name == "no term" else 1.0) * point["activity"]}
        alone = jr.fit(of_terms, point, TRAIN, steps=30, key=KEY).params
        np.testing.assert_allclose(again.params(name, 0), alone, atol=2e-6)
    assert again.result.coords["lam"].tolist()[again.index[0]] == 0
