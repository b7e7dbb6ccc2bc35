"""A path against sweeps: where it begins, where it ends where there is one solution, and what it costs."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support.compilations import compilations

import jaxreg as jr
from jaxreg.tune.continuation import continuation

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 6)).astype(np.float32)
Y = (X @ RNG.normal(size=6) * 0.5 + RNG.normal(size=40)).astype(np.float32)
LAMS = np.geomspace(1e-3, 1.0, 5)
GRID = jr.grid(jr.l1, lam=LAMS)
OPTIONS = {"folds": 4, "key": jax.random.key(3)}


def loss(w, x, y):
    return 0.5 * jnp.mean((x @ w - y) ** 2)


def init(key):
    return 0.1 * jax.random.normal(key, (6,))


def lasso(reg):
    return jr.Trainer(init, loss, jr.proximal(optax.trace(0.8), reg, 0.05), {"rows": loss})


def walked(grid=GRID, trainer=lasso, steps=300, then=200, **more):
    return continuation(trainer, grid, (X, Y), steps=steps, then=then, **{**OPTIONS, **more})


def swept(grid=GRID, trainer=lasso, steps=300, **more):
    return jr.sweep(trainer, grid, (X, Y), steps=steps, evals=1, **{**OPTIONS, **more})


@pytest.fixture(scope="module")
def path():
    return walked()


def test_a_convex_path_is_that_of_a_sweep(path):
    cold = swept()
    np.testing.assert_allclose(path.params, cold.params, atol=2e-6)
    np.testing.assert_array_equal(np.asarray(path.params) == 0, np.asarray(cold.params) == 0)
    np.testing.assert_allclose(path.scores(), cold.scores(), rtol=1e-5)
    np.testing.assert_allclose(path.scores("rows"), cold.scores(), rtol=1e-5)
    last = np.take_along_axis(path.terms["l1"], path.stop[..., None], -1)[..., 0]
    np.testing.assert_allclose(last, cold.terms["l1"][..., -1], rtol=1e-4)
    assert path.best("paired").index == cold.best("paired").index
    assert (np.asarray(path.params)[-1] == 0).any(), "the strongest has zeros"


def test_the_weakest_is_bit_for_bit_a_sweep_of_it_alone():
    """With minibatches and seeds, and before anything has converged."""
    some = {"seeds": 2, "batch_size": 10}
    path = walked(steps=7, then=3, **some)
    alone = swept(jr.grid(jr.l1, lam=LAMS[:1]), steps=7, **some)
    np.testing.assert_array_equal(path.params[0], alone.params[0])
    np.testing.assert_array_equal(path.scores()[0], alone.scores()[0])
    np.testing.assert_array_equal(path.scores(split="train")[0], alone.scores(split="train")[0])


def test_each_goes_on_from_the_one_before():
    """By hand: momentum and batches go on, and only λ changes."""
    size, then = 8, 3
    valid = 2 * X, Y
    got = walked(
        jr.grid(jr.l1, lam=LAMS[:3]), steps=5, then=then, folds=None, validation=valid, batch_size=size,
    )  # fmt: skip
    # A trainer that takes its strength from the count of its updates sees the same batches in a sweep.
    lams = jnp.asarray(LAMS, jnp.float32)

    def scheduled(reg):
        inner = lambda lam: jr.proximal(optax.trace(0.8), jr.l1(lam), 0.05)
        start = lambda params: (jnp.int32(0), inner(reg.lam).init(params))

        def update(grads, state, params=None, **extra):
            n, held = state
            lam = reg.lam * lams[jnp.where(n < 5, 0, (n - 5) // then + 1)]
            updates, held = inner(lam).update(grads, held, params, **extra)
            return updates, (n + 1, held)

        return jr.Trainer(init, loss, optax.GradientTransformationExtraArgs(start, update))

    one = jr.sweep(
        scheduled, jr.grid(jr.l1, lam=[1.0]), (X, Y), validation=valid, batch_size=size,
        steps=5 + 2 * then, evals=1, key=OPTIONS["key"],
    )  # fmt: skip
    np.testing.assert_allclose(got.params[2], one.params[0], atol=1e-6)
    np.testing.assert_allclose(got.scores()[2], one.scores()[0], rtol=1e-5)


def test_the_order_of_the_grid_is_kept_and_weak_comes_first(path):
    order = np.array([3, 0, 4, 1, 2])
    mixed = walked(jr.grid(jr.l1, lam=LAMS[order]))
    np.testing.assert_array_equal(mixed.coords["lam"], np.asarray(path.coords["lam"])[order])
    np.testing.assert_array_equal(mixed.scores(), path.scores()[order])
    np.testing.assert_array_equal(mixed.params, np.asarray(path.params)[order])
    np.testing.assert_array_equal(mixed.stop, path.stop[order])


def test_other_axes_have_a_path_each():
    def trainer(p):
        return jr.Trainer(init, loss, jr.proximal(optax.trace(0.8), p["reg"], p["lr"]))

    make = lambda lr, lam: {"reg": jr.l1(lam), "lr": lr}
    both = walked(jr.grid(make, lr=[0.05, 0.01], lam=LAMS[:3]), trainer, steps=9, then=4)
    one = walked(jr.grid(make, lr=[0.01], lam=LAMS[:3]), trainer, steps=9, then=4)
    np.testing.assert_allclose(both.scores()[3:], one.scores(), rtol=1e-6)
    shuffled = jr.points(make, lr=[0.01, 0.05] * 3, lam=np.repeat(LAMS[:3], 2))
    again = walked(shuffled, trainer, steps=9, then=4)
    np.testing.assert_array_equal(again.scores()[::2], both.scores()[3:])
    np.testing.assert_array_equal(again.scores()[1::2], both.scores()[:3])


def test_it_is_an_ordinary_result_that_says_what_made_it(path):
    assert path.best().lane_steps == 4 * (300 + 4 * 200)
    assert path.time.tolist() == [200, 300]
    assert path.stop[0].tolist() == [[1]] * 4
    assert (path.stop[1:] == 0).all()
    made_by = json.loads(path.made_by)
    assert {name: made_by[name] for name in ("continuation", "steps", "then")} == {
        "continuation": "lam", "steps": 300, "then": 200,
    }  # fmt: skip
    assert "lam" in str(path.table())
    assert path.strengths == ("lam",)
    longer = walked(steps=3, then=5, keep_params=False)
    assert longer.best().lane_steps == 4 * (3 + 4 * 5)
    assert longer.params is None


def test_a_choice_is_trained_anew_by_refit(path):
    state = jr.refit(lasso, path, (X, Y), key=jax.random.key(0))
    assert json.loads(state.result.made_by)["steps"] == 300


def test_no_strength_compiles_anything():
    fresh = lambda reg: lasso(reg)
    with compilations() as first:
        walked(jr.grid(jr.l1, lam=LAMS[:2]), fresh, steps=70, then=2)
    with compilations() as more:
        walked(jr.grid(jr.l1, lam=3 * LAMS[:2]), fresh, steps=80, then=5)
    assert not more
    other = lambda reg: lasso(reg)
    with compilations() as longer:
        walked(jr.grid(jr.l1, lam=LAMS), other, steps=70, then=2)
    assert len(longer) <= len(first), "five strengths take the programs of two"


def test_what_diverges_is_lost_from_there_on():
    """Gradient steps are too long for λ above 10 here."""
    plain = lambda reg: jr.Trainer(
        init, loss, optax.chain(jr.add_penalty_gradient(reg), optax.sgd(0.2))
    )
    grid = jr.grid(jr.l2, lam=[1e3, 0.1, 1.0, 100.0])
    got = walked(grid, plain, steps=60, then=60)
    bad = np.array([True, False, False, True])
    diverged = np.asarray(got.status) == jr.Status.DIVERGED
    np.testing.assert_array_equal(diverged, np.repeat(bad, 4).reshape(4, 4, 1))
    np.testing.assert_array_equal(np.isnan(got.scores()).all((1, 2)), bad)
    assert got.best().coords["lam"] in (pytest.approx(0.1), pytest.approx(1.0))


def test_a_loss_that_was_infinite_once_counts_as_lost():
    """Judged as infinite at λ = 1 alone, with parameters that go on as numbers."""
    gap = lambda lam: jnp.where(lam == 1.0, jnp.inf, 1.0)
    trainer = lambda reg: dataclasses.replace(
        lasso(reg), metrics={}, eval_loss=lambda w, x, y: loss(w, x, y) * gap(reg.lam)
    )
    got = walked(jr.grid(jr.l1, lam=[0.5, 1.0, 2.0]), trainer, steps=3, then=2)
    assert np.isfinite(np.asarray(got.params)).all()
    assert np.isnan(got.scores()).all((1, 2)).tolist() == [False, True, True]
    assert got.best().index == 0


def test_statistics_of_the_model_go_on():
    """A running mean of how many updates there were: all of them, not those of one strength."""

    def counted(reg):
        def counting(w, n, x, y):
            return loss(w, x, y), n + 1

        judged = lambda w, n, x, y: loss(w, x, y) + 0 * n
        return jr.Trainer(
            lambda key: (init(key), jnp.zeros(())), counting, jr.proximal(optax.identity(), reg, 0.05),
            {"updates": lambda w, n, x, y: n}, eval_loss=judged, stateful=True,
        )  # fmt: skip

    got = walked(trainer=counted, steps=5, then=2)
    assert got.mean("updates").tolist() == [5, 7, 9, 11, 13]


def test_a_schedule_that_ends_is_told():
    ended = optax.linear_schedule(0.05, 0.0, 20)
    trainer = lambda reg: jr.Trainer(
        init, loss, optax.chain(jr.add_penalty_gradient(reg), optax.sgd(ended))
    )
    grid = jr.grid(jr.l2, lam=LAMS)
    with pytest.warns(RuntimeWarning, match=r"continuation: no parameter moved after .* schedule"):
        walked(grid, trainer, steps=30, then=5)


def averaged(reg):
    made = lasso(reg)
    return dataclasses.replace(
        made, optimizer=jr.averaged(made.optimizer), eval_params=jr.average_of
    )


def idle(p):
    return lasso(p["reg"])


REFUSED = {
    "no strength": (
        {"grid": jr.grid(lambda c: jr.l1(1 / c), c=[1.0, 2.0])},
        r"`grid` must have one axis that is the strength of a penalty, got none among c\. .*1 / lam",
    ),
    "two strengths": (
        {"grid": jr.grid(lambda a, b: jr.l1(a) + jr.l2(b), a=[0.1, 0.2], b=[0.1, 0.2])},
        r"strength of a penalty, got a, b\. .* keep all but one at a single value",
    ),
    "twice": ({"grid": jr.points(jr.l1, lam=[0.1, 0.2, 0.1])}, r"`grid` has lam = 0\.1 twice"),
    "uneven": (
        {"grid": jr.points(lambda lam, lr: {"reg": jr.l1(lam), "lr": lr}, lam=[1, 2, 3], lr=[2, 1, 2])},
        r"as many values of lam for each combination of the other axes.*got 1 to 2",
    ),
    "no number of updates": ({"then": 0}, r"`then` must be an integer of at least 1, got 0"),
    "too many updates": ({"then": 2**29}, r"`steps` must be below 2\*\*31"),
    "averages": ({"trainer": averaged}, r"`trainer` must judge the parameters that it trains"),
    "idle": (
        {
            "trainer": idle,
            "grid": jr.grid(lambda lam, lr: {"reg": jr.l1(lam), "lr": lr}, lam=[1, 2], lr=[1, 2]),
        },
        r"depends on 'lr' of the point",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("given", "text"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_a_path_is_refused(path, given, text):
    """Beside a path: what a process asks once, of its folds and of an optimizer, is known by then."""
    with compilations() as compiled, pytest.raises(ValueError, match="continuation: .*" + text):
        walked(**given)
    assert not compiled


def test_what_is_no_grid_and_what_is_no_array():
    with pytest.raises(TypeError, match=r"continuation: `grid` must come from jaxreg\.grid"):
        walked(grid=LAMS)
    with pytest.raises(
        TypeError, match=r"continuation: `keep_params` must be True or False, got 'no'"
    ):
        walked(keep_params="no")
    batches = jr.stream(lambda epoch: iter([(X, Y)]))
    with pytest.raises(TypeError, match=r"continuation: `data` must be arrays.*got a Stream"):
        continuation(
            lasso, GRID, batches, steps=2, then=1, validation=(X, Y), key=jax.random.key(0)
        )


def test_terms_of_the_loss_are_recorded_on_the_way():
    def made(reg):
        with_term = lambda w, x, y: (loss(w, x, y), {"size": jnp.sum(w**2) / 100})
        return dataclasses.replace(lasso(reg), loss=with_term, metrics={})

    path = walked(trainer=made, steps=50, then=20)
    size = np.square(np.asarray(path.params)).sum(-1) / 100
    np.testing.assert_allclose(path.scores("size"), size, rtol=1e-5)
    assert list(path.terms) == ["l1", "size"]
