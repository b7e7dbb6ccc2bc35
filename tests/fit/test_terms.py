"""Terms of a loss: trained on with the data loss, recorded apart from it, and refused where they are not."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support.compilations import compilations

import jaxreg as jr

KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(1), (24, 3))
Y = X[:, 0] + 0.3 * jax.random.normal(jax.random.key(2), (24,))
DATA = (X, Y)


def ridge(params, x, y):
    return 0.5 * jnp.mean((x @ params - y) ** 2)


def with_term(lam):
    def loss(w, x, y):
        return ridge(w, x, y), {"size": 0.5 * lam["lam"] * jnp.sum(w**2)}

    return jr.Trainer(lambda key: jnp.zeros(3), loss, optax.sgd(0.3))


def with_penalty(reg):
    tx = optax.chain(jr.add_penalty_gradient(reg), optax.sgd(0.3))
    return jr.Trainer(lambda key: jnp.zeros(3), ridge, tx)


OPTIONS = {"folds": 4, "steps": 60, "evals": 3, "key": KEY, "progress": False}
LAMS = [0.0, 0.1, 1.0]
GRID = jr.grid(lambda lam: {"lam": lam}, lam=LAMS)


@pytest.fixture(scope="module")
def swept():
    return jr.sweep(with_term, GRID, DATA, **OPTIONS, stationarity=True)


def test_a_term_is_trained_on_as_the_penalty_that_it_is(swept):
    other = jr.sweep(with_penalty, jr.grid(jr.l2, lam=LAMS), DATA, **OPTIONS)
    np.testing.assert_allclose(swept.params, other.params, rtol=1e-5, atol=1e-6)
    for name in ("train", "valid"):
        ours, theirs = getattr(swept, name)["loss"], getattr(other, name)["loss"]
        np.testing.assert_allclose(
            ours, theirs, rtol=1e-5, err_msg="the data loss, without the term"
        )


def test_it_is_recorded_apart_on_both_kinds_of_rows(swept):
    lam = np.reshape(LAMS, (3, 1, 1))
    size = 0.5 * lam * np.square(swept.params).sum(-1)
    np.testing.assert_allclose(swept.valid["size"][..., -1], size, rtol=1e-5)
    np.testing.assert_allclose(swept.terms["size"][..., -1], size, rtol=1e-5)
    np.testing.assert_allclose(swept.penalty_value[..., -1], size, rtol=1e-5)
    assert "train size" in swept.table().rows[0]


def test_the_certificate_is_of_the_loss_with_its_terms(swept):
    assert swept.stationarity().distance.max() < 1e-5
    w, lam = swept.params[2, 0, 0], 1.0
    assert np.linalg.norm(lam * w) > 0.1, "or it tells nothing"


def test_a_strength_of_zero_changes_no_bit():
    """Beside lanes of the same number, as the width of a program decides how it rounds."""

    def without(lam):
        return jr.Trainer(lambda key: jnp.zeros(3), lambda w, x, y: ridge(w, x, y) + 0 * lam["lam"],
                          optax.sgd(0.3))  # fmt: skip

    zeros = jr.points([{"lam": 0.0}] * 3)
    ours, theirs = (jr.sweep(t, zeros, DATA, **OPTIONS).params for t in (with_term, without))
    np.testing.assert_array_equal(ours, theirs)


def test_minibatches_weights_and_fit_see_the_same_terms():
    weights = np.linspace(0.5, 1.5, 24)
    of_rows = lambda lam: jr.Trainer(
        lambda key: jnp.zeros(3),
        lambda w, x, y: (ridge(w, x, y), {"activity": lam["lam"] * jnp.mean((x @ w) ** 2)}),
        optax.sgd(0.3),
    )
    state = jr.fit(of_rows, {"lam": 0.5}, DATA, steps=300, key=KEY, sample_weight=weights)
    w = weights / weights.sum()
    gram = np.einsum("n,ni,nj->ij", w, X, X)
    exact = np.linalg.solve(
        2 * gram, np.einsum("n,ni,n->i", w, X, Y)
    )  # gram + 2 * lam * gram, lam = 1/2
    np.testing.assert_allclose(state.params, exact, rtol=1e-4)


def test_strengths_may_follow_the_step():
    """λ_t = t: of a loss of 0 the parameters shrink by (1 - rate t) at step t."""

    def rising(point):
        zero = lambda w, x, y: 0 * jnp.mean(x)
        loss = lambda w, x, y, step: (
            zero(w, x, y),
            {"l2": 0.5 * point["lam"] * step * jnp.sum(w**2)},
        )
        judged = lambda w, x, y: (zero(w, x, y), {"l2": 0.5 * point["lam"] * jnp.sum(w**2)})
        return jr.Trainer(lambda key: jnp.ones(3), loss, optax.sgd(0.1), eval_loss=judged)

    state = jr.fit(rising, {"lam": 1.0}, DATA, steps=5, key=KEY)
    np.testing.assert_allclose(state.params, np.prod([1 - 0.1 * t for t in range(5)]), rtol=1e-6)
    grid = jr.points([{"lam": 1.0}])
    swept = jr.sweep(rising, grid, DATA, folds=4, steps=5, key=KEY)
    np.testing.assert_allclose(swept.params, state.params[0], rtol=1e-6)


def test_state_noise_and_terms_together():
    def made(point):
        def loss(w, state, x, y, key):
            noisy = x + 0.0 * jax.random.normal(key, x.shape)
            return (ridge(w, noisy, y), {"size": point["lam"] * jnp.sum(w**2)}), state + 1

        judged = lambda w, state, x, y: (ridge(w, x, y), {"size": point["lam"] * jnp.sum(w**2)})
        init = lambda key: (jnp.zeros(3), jnp.zeros(()))
        return jr.Trainer(
            init, loss, optax.sgd(0.3), eval_loss=judged, stateful=True, stochastic=True
        )

    state = jr.fit(made, {"lam": 0.5}, DATA, steps=60, key=KEY)
    assert state.model_state == 60
    other = jr.fit(with_term, {"lam": 1.0}, DATA, steps=60, key=KEY)
    np.testing.assert_allclose(state.params, other.params, rtol=1e-5)


def returning(returned, **more):
    """Trainers whose loss returns what is given of the data loss."""
    loss = lambda w, x, y: returned(ridge(w, x, y))
    return lambda point: jr.Trainer(
        lambda key: jnp.zeros(3),
        loss,
        optax.chain(jr.add_penalty_gradient(point), optax.sgd(0.3)),
        **more,
    )


BAD = {
    "a vector": (lambda v: (v, {"t": jnp.ones(2)}), {}, ValueError, "the term 't' of the loss must return a sc"),
    "no text": (lambda v: (v, {3: v}), {}, TypeError, "with names of text, got 3"),
    "loss": (lambda v: (v, {"loss": v}), {}, ValueError, "a term 'loss', and that is the name of the data loss"),
    "metric": (
        lambda v: (v, {"rmse": v}), {"metrics": {"rmse": ridge}}, ValueError,
        "a term 'rmse', and that is the name of a metric",
    ),
    "penalty": (lambda v: (v, {"l2": v}), {}, ValueError, "a term 'l2', and that is the name of a penalty"),
    "eval_loss": (
        lambda v: (v, {"t": v}), {"eval_loss": ridge}, ValueError,
        "`eval_loss` must return the terms that `loss` does.*got none, and of the loss t",
    ),
    "a pair": (lambda v: (v, v), {}, TypeError, r"Terms of the loss go beside it, as \(data loss, {name: term}\)"),
    "nothing": (lambda v: (v, {}), {}, None, ""),
    "a metric": (
        lambda v: (v, {"right": jnp.mean((v > 0.5).astype(float))}), {}, ValueError,
        "the term 'right' of the loss has no derivative .* goes into `metrics`",
    ),
    "a metric under jit": (
        lambda v: (v, {"ok": v, "right": jax.jit(lambda v: (v > 0.5) * 1.0)(v)}), {}, ValueError,
        "the term 'right' of the loss has no derivative",
    ),
    "held": (lambda v: (v, {"t": jax.lax.stop_gradient(v)}), {}, ValueError, "'t' of the loss has no deriv"),
    "a number": (lambda v: (v, {"t": 0.0}), {}, ValueError, "'t' of the loss has no deriv.*is left out"),
}  # fmt: skip


def test_a_term_may_have_a_backward_rule_alone():
    @jax.custom_vjp
    def scaled(w):
        return 2 * w

    scaled.defvjp(lambda w: (scaled(w), None), lambda _, g: (2 * g,))
    trainer = with_activity(lambda lam, w, x: lam * jnp.mean((x @ scaled(w)) ** 2))
    jr.fit(trainer, {"lam": 1.0}, DATA, steps=1, key=KEY)


@pytest.mark.parametrize("name", BAD)
def test_what_a_loss_returns_is_judged_before_anything_compiles(name):
    returned, more, error, match = BAD[name]
    call = lambda: jr.fit(returning(returned, **more), jr.l2(0.1), DATA, steps=2, key=KEY)
    if error is None:
        call()
        return
    with pytest.raises(error, match=f"(?s)fit: .*{match}"):
        call()


def test_strengths_of_terms_are_what_is_simpler():
    """So the rules that prefer the simpler model know the order of a grid of terms."""
    grid = jr.grid(
        lambda lam, lr: {"kl": jr.terms.kl(lam), "lr": lr}, lam=[0.1, 1.0], lr=[0.1, 0.2]
    )
    assert grid.strengths == ("lam",)
    assert repr(grid).splitlines()[0].startswith("Grid(4 x {kl: kl, lr}")


def test_a_loss_that_takes_the_step_needs_another_one_to_be_judged_by():
    with pytest.raises(ValueError, match="`eval_loss` is required when the loss takes `step`"):
        jr.Trainer(lambda key: jnp.zeros(3), lambda w, x, y, step: ridge(w, x, y), optax.sgd(0.1))


# --- rows that count differently ---------------------------------------------------------------------


SHIFTED = {
    "variance": lambda lam, w, x: lam * jr.terms.variance(1.0)(x * w),
    "covariance": lambda lam, w, x: lam * jr.terms.covariance(1.0)(x * w),
    "free bits": lambda lam, w, x: lam * jr.terms.free_bits(1.0, 2.0)(x * w, 0 * x),
    "rms": lambda lam, w, x: lam * jnp.sqrt(jnp.mean((x @ w) ** 2)),
}
UNEQUAL = [(range(12), range(12, 24)), (range(18), range(18, 24))]


def with_activity(term, **more):
    def trainer(point):
        def loss(w, x, y):
            return ridge(w, x, y), {"t": term(point["lam"], w, x)}

        return jr.Trainer(lambda key: jnp.zeros(3), loss, optax.sgd(0.3), **more)

    return trainer


@pytest.mark.parametrize("lam", [0.0, 1e-9, 1.0])
@pytest.mark.parametrize("name", SHIFTED)
def test_a_term_that_is_no_mean_over_rows_is_not_trained_row_by_row(name, lam):
    """Whatever its strength is where it is asked: at other points it may be another one."""
    trainer = with_activity(SHIFTED[name])
    what = r"the term 't' of the loss is|the loss or a term of it \(t\) is"
    with pytest.raises(
        ValueError, match=f"fit: rows have a `sample_weight`, and ({what}) no mean over"
    ):
        jr.fit(
            trainer, {"lam": lam}, DATA, steps=1, key=KEY, sample_weight=np.linspace(0.5, 1.5, 24)
        )
    with pytest.raises(
        ValueError, match=f"sweep: full batches of folds of .*, and ({what}) no mean"
    ):
        jr.sweep(trainer, jr.points([{"lam": lam}]), DATA, **{**OPTIONS, "folds": UNEQUAL})
    jr.fit(trainer, {"lam": lam}, DATA, steps=1, key=KEY)


def test_nor_where_another_loss_is_judged():
    trainer = with_activity(
        SHIFTED["rms"], eval_loss=lambda w, x, y: (ridge(w, x, y), {"t": 0.0 * w[0]})
    )
    with pytest.raises(ValueError, match="the term 't' of the loss is no mean over rows"):
        jr.fit(trainer, {"lam": 1.0}, DATA, steps=1, key=KEY, sample_weight=np.ones(24))


@pytest.mark.parametrize("lam", [0.0, 1.0])
def test_a_term_that_is_a_sum_over_rows_is_refused(lam):
    trainer = with_activity(lambda lam, w, x: lam * jnp.sum((x @ w) ** 2))
    with pytest.raises(
        ValueError, match="fit: the term 't' of the loss is a sum over the rows of a b"
    ):
        jr.fit(trainer, {"lam": lam}, DATA, steps=1, key=KEY)


def test_folds_of_two_sizes_train_terms_as_each_alone():
    trainer = with_activity(lambda lam, w, x: lam * jnp.mean((x @ w) ** 2) + lam * jnp.sum(w**2))
    both = jr.sweep(trainer, jr.points([{"lam": 0.5}]), DATA, **{**OPTIONS, "folds": UNEQUAL})
    for k, (rows, _) in enumerate(UNEQUAL):
        x, y = X[: len(rows)], Y[: len(rows)]
        exact = np.linalg.solve(2 * x.T @ x / len(x) + np.eye(3), x.T @ y / len(x))
        np.testing.assert_allclose(both.params[0, k, 0], exact, rtol=1e-4)


def test_another_grid_with_zeros_elsewhere_does_not_compile_again():
    """How a term is judged is no matter of the strength that it has at one of the points."""

    def trainer(point):
        def loss(w, x, y):
            terms = {n: point[n] * jnp.mean(jnp.abs(x * w) ** p) for n, p in (("a", 1), ("b", 2))}
            return ridge(w, x, y), terms

        return jr.Trainer(lambda key: jnp.ones(3), loss, optax.sgd(0.1))

    grids = [jr.points([{"a": a, "b": b}]) for a, b in ((0.1, 0.1), (0.0, 0.1), (0.1, 0.0))]
    jr.sweep(trainer, grids[0], DATA, **OPTIONS)
    with compilations() as more:
        for grid in grids[1:]:
            jr.sweep(trainer, grid, DATA, **OPTIONS)
    assert not more
