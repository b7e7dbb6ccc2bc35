"""Averages of the parameters: what they are, what is judged, and where their zeros stay."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxreg as jr

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 5)).astype("f")
Y = (X @ np.array([2, -1, 0, 0, 0.5]) + 0.3 * RNG.normal(size=40)).astype("f")
TARGET = jnp.array([3.0, 0.2])


def mse(w, x, y):
    return 0.5 * jnp.mean((x @ w - y) ** 2)


def path(tx, steps):
    params, state, found = jnp.ones(2), tx.init(jnp.ones(2)), []
    for _ in range(steps):
        updates, state = tx.update(params - TARGET, state, params)
        params = optax.apply_updates(params, updates)
        found.append(np.asarray(params, float))
    return np.array(found), state


@pytest.mark.parametrize("decay", [None, 0.0, 0.9])
def test_an_average_is_the_weighted_mean_of_the_parameters(decay):
    steps, state = path(jr.averaged(optax.sgd(0.1), decay), 12)
    plain, _ = path(optax.sgd(0.1), 12)
    np.testing.assert_array_equal(steps, plain)
    weights = np.ones(12) if decay is None else decay ** np.arange(11, -1, -1.0)
    np.testing.assert_allclose(
        jr.average_of(state), (weights[:, None] * steps).sum(0) / weights.sum(), rtol=1e-5
    )


def test_before_any_step_it_is_the_parameters_and_dtypes_stay():
    tx = jr.averaged(optax.sgd(0.1))
    params = {"a": jnp.ones(3, jnp.bfloat16)}
    state = tx.init(params)
    assert jr.average_of(state)["a"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(jr.average_of(state)["a"], params["a"])
    for _ in range(300):  # a sum in bfloat16 would stand still long before
        _, state = tx.update({"a": jnp.zeros(3, jnp.bfloat16)}, state, params)
    np.testing.assert_allclose(np.asarray(jr.average_of(state)["a"], float), 1.0)


def test_zeros_are_lost_by_an_average_and_kept_by_support_or_a_last_prox():
    reg = jr.l1(0.5)
    _, state = path(jr.averaged(jr.proximal(optax.scale_by_adam(), reg, 0.05), 0.95), 200)
    plain = jr.average_of(state)
    assert plain[1] != 0
    assert jr.average_of(state, support=True)[1] == 0
    assert reg.prox(plain, 0.1)[1] == 0
    np.testing.assert_allclose(jr.average_of(state, support=True)[0], 2.5, atol=1e-2)


def trainer(reg):
    tx = jr.averaged(jr.proximal(optax.identity(), reg, 0.3), 0.9)
    support = lambda state: jr.average_of(state, support=True)
    return jr.Trainer(
        lambda key: jnp.zeros(5),
        mse,
        tx,
        {"zeros": lambda w, x, y: jnp.mean(w == 0)},
        eval_params=support,
    )


def test_a_sweep_judges_and_returns_the_average():
    result = jr.sweep(
        trainer, jr.grid(jr.l1, lam=[0.05, 0.4]), (X, Y), folds=2, steps=30, batch_size=8, evals=3,
        key=KEY, progress=False,
    )  # fmt: skip
    state = jr.fit(trainer, jr.l1(0.4), (X, Y), steps=30, batch_size=8, key=KEY)
    made = trainer(jr.l1(0.4))
    assert not np.allclose(made.judged(state).params, state.params, atol=1e-6)
    for k in range(2):
        for f in range(2):
            w = result.lane(k, f)
            zeros = result.valid["zeros"][k, f, 0, -1]
            np.testing.assert_allclose(zeros, np.mean(np.asarray(w) == 0), atol=1e-6)
            np.testing.assert_allclose(
                result.terms["l1"][k, f, 0, -1],
                [0.05, 0.4][k] * np.abs(w).sum(), rtol=1e-4,
            )  # fmt: skip


def test_early_stopping_keeps_the_best_average():
    result = jr.sweep(
        trainer, jr.grid(jr.l1, lam=[0.05]), (X[:20], Y[:20]), validation=(X[20:], Y[20:]), steps=30,
        batch_size=8, evals=6, patience=6, key=KEY, progress=False,
    )  # fmt: skip
    w, best = result.lane(0), result.scores("loss")[0, 0, 0]
    np.testing.assert_allclose(mse(w, X[20:], Y[20:]), best, rtol=1e-4)


def test_schedule_free_is_judged_where_it_says():
    tx = optax.contrib.schedule_free_sgd(0.3)
    at = lambda state: optax.contrib.schedule_free_eval_params(state.opt_state, state.params)

    def free(reg):
        return jr.Trainer(
            lambda key: jnp.zeros(5),
            lambda w, x, y: mse(w, x, y) + reg(w),
            tx,
            eval_loss=mse,
            eval_params=at,
        )

    result = jr.sweep(
        free, jr.grid(jr.l2, lam=[0.1]), (X, Y), folds=2, steps=400, key=KEY, progress=False
    )
    state = jr.fit(free, jr.l2(0.1), (X, Y), steps=400, key=KEY)
    w = np.linalg.solve(X.T @ X / 40 + 0.1 * np.eye(5), X.T @ Y / 40)
    np.testing.assert_allclose(free(jr.l2(0.1)).judged(state).params, w, atol=2e-3)
    assert result.params is not None


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: jr.averaged(1e-3), TypeError, "`optimizer` must be an optax transformation, got 0.001"),
        (lambda: jr.averaged(optax.sgd(0.1), 1.0), ValueError, "between 0 and 1, or None, the upper end excluded, got 1.0"),
        (lambda: jr.average_of(optax.sgd(0.1).init(jnp.ones(2))), ValueError, "Train with jaxreg.averaged"),
        (lambda: jr.averaged(optax.sgd(0.1)).update(jnp.ones(2), None), ValueError, "an average needs the"),
        (lambda: jr.Trainer(lambda k: jnp.ones(2), mse, optax.sgd(0.1), eval_params=3), TypeError, "`eval_params`"),
    ],
)  # fmt: skip
def test_bad_input_is_refused(call, error, match):
    with pytest.raises(error, match=match):
        call()
