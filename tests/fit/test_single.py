"""One fit: differentiable through training both ways, and what is refused before anything compiles."""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support.compilations import compilations

import jaxreg as jr

KEY = jax.random.key(0)
N, D = 20, 4
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, D))
Y = X @ np.array([2.0, -1.0, 0.0, 0.0]) + 0.3 * RNG.normal(size=N)
XV = RNG.normal(size=(N, D))
YV = XV @ np.array([2.0, -1.0, 0.0, 0.0])


def loss(w, x, y):
    return 0.5 * jnp.mean((x @ w - y) ** 2)


def of(chain, loss=loss):
    return lambda p: jr.Trainer(lambda key: jnp.full(D, 0.1), loss, chain(p))


# --- gradients through training -------------------------------------------------------------------

L1_PROXIMAL = of(lambda reg: jr.proximal(optax.identity(), reg, 0.2))
L2_GRADIENT = of(lambda reg: optax.chain(jr.add_penalty_gradient(reg), optax.sgd(0.1)))
RATE = of(
    lambda p: optax.chain(jr.add_penalty_gradient(p["reg"]), optax.sgd(p["lr"], momentum=0.8))
)
CASES = {
    "l1 by proximal": (L1_PROXIMAL, lambda t: jr.l1(t), 0.3, None),
    "l2": (L2_GRADIENT, lambda t: jr.l2(t), 0.3, None),
    "l2 on minibatches": (L2_GRADIENT, lambda t: jr.l2(t), 0.3, 6),
    "learning rate": (RATE, lambda t: {"reg": jr.l2(0.1), "lr": t}, 0.02, None),
    "l2 under momentum": (RATE, lambda t: {"reg": jr.l2(t), "lr": 0.02}, 0.3, None),
}


def scored(name, steps=60, remat=None):
    trainer, point, _, batch = CASES[name]

    def score(t):
        state = jr.fit(
            trainer, point(t), (X, Y), steps=steps, key=KEY, batch_size=batch, remat=remat
        )
        return loss(state.params, XV, YV)

    return score


@pytest.mark.parametrize("name", CASES)
def test_both_modes_are_the_central_difference(name):
    with jax.enable_x64(True):
        score, at, h = scored(name), jnp.asarray(CASES[name][2]), 1e-5
        difference = (score(at + h) - score(at - h)) / (2 * h)
        assert abs(difference) > 1e-4
        np.testing.assert_allclose(jax.grad(score)(at), difference, rtol=1e-6)
        np.testing.assert_allclose(jax.jvp(score, (at,), (1.0,))[1], difference, rtol=1e-6)


def test_the_gradient_in_a_penalty_is_a_penalty():
    score = lambda reg: loss(jr.fit(L2_GRADIENT, reg, (X, Y), steps=60, key=KEY).params, XV, YV)
    got, forward = jax.grad(score)(jr.l2(0.3)), jax.jvp(score, (jr.l2(0.3),), (jr.l2(1.0),))[1]
    assert isinstance(got, type(jr.l2(1.0)))
    np.testing.assert_allclose(got.lam, forward, rtol=1e-4)


@pytest.mark.parametrize("remat", [1, 7, 60, 1000])
def test_segments_change_no_number_and_no_gradient(remat):
    with jax.enable_x64(True):
        base, cut = scored("l2 on minibatches"), scored("l2 on minibatches", remat=remat)
        np.testing.assert_array_equal(base(0.3), cut(0.3))
        np.testing.assert_allclose(jax.grad(base)(0.3), jax.grad(cut)(0.3), rtol=1e-12)


def test_memory_of_reverse_mode_does_not_grow_with_every_step():
    """Kept states and one segment: like sqrt(steps), where without segments it is like steps."""

    def bytes_of(steps, remat):
        grad = jax.jit(jax.grad(scored("l2", steps, remat)))
        return grad.lower(0.3).compile().memory_analysis().temp_size_in_bytes

    short, long = (bytes_of(steps, None) for steps in (256, 4096))
    assert long < 6 * short, "sixteen times the steps take about four times the memory"
    assert bytes_of(4096, 4096) > 4 * long


# --- what nothing uses ----------------------------------------------------------------------------


def warned(call):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        call()
    return [str(w.message) for w in seen if "no update depends" in str(w.message)]


def fit(trainer, point, **kwargs):
    return jr.fit(trainer, point, (X, Y), **{"steps": 2, "key": KEY, **kwargs})


def test_a_penalty_that_the_factory_forgot_is_told():
    assert warned(lambda: fit(of(lambda reg: optax.sgd(0.1)), jr.l2(0.1))) == [
        "fit: no update depends on the penalty l2: it is in the point, and `trainer` makes an optimizer "
        "and a loss without it. Put it into the chain, as in optax.chain("
        "jaxreg.add_penalty_gradient(reg), optax.adam(1e-3))."
    ]
    half = of(lambda p: optax.chain(jr.add_penalty_gradient(p["a"]), optax.sgd(0.1)))
    (text,) = warned(lambda: fit(half, {"a": jr.l2(0.1), "b": jr.l1(0.1)}))
    assert "penalty b: l1:" in text


def in_loss(reg):
    penalized = jax.jit(lambda w, x, y: loss(w, x, y) + reg(w))
    return jr.Trainer(lambda key: jnp.full(D, 0.1), penalized, optax.sgd(0.1))


def in_scan(reg):
    def scanned(w, x, y):
        total, _ = jax.lax.scan(lambda c, _: (c + reg(w), None), 0.0, length=2)
        return loss(w, x, y) + jax.lax.cond(total > -1, lambda: total, lambda: 0.0)

    return jr.Trainer(lambda key: jnp.full(D, 0.1), scanned, optax.sgd(0.1))


@pytest.mark.parametrize(
    "trainer",
    [
        in_loss,
        in_scan,
        of(lambda reg: jr.decoupled(optax.scale_by_adam(), reg, 0.1)),
        of(lambda reg: jr.proximal(optax.scale_by_adam(), reg, 0.1)),
        of(lambda reg: optax.MultiSteps(jr.proximal(optax.identity(), reg, 0.1), 4).gradient_transformation()),
        of(lambda reg: optax.chain(jr.add_penalty_gradient(lambda count: reg * (count > 5)), optax.sgd(0.1))),
    ],
    ids=["jit", "scan", "decoupled", "proximal", "MultiSteps", "schedule"],
)  # fmt: skip
def test_a_penalty_that_is_used_somewhere_is_not(trainer):
    assert warned(lambda: fit(trainer, jr.l1(0.1))) == []


def test_a_number_that_nothing_uses_is_refused_by_a_sweep():
    build = lambda lam, lr: {"reg": jr.l2(lam), "lr": lr}
    grid = jr.grid(build, lam=[0.1, 1.0], lr=[0.1, 0.2])
    ignores = of(lambda p: optax.chain(jr.add_penalty_gradient(p["reg"]), optax.sgd(0.1)))
    with pytest.raises(
        ValueError, match=r"nor an evaluation depends on 'lr' of the point \(axes lam, lr\)"
    ):
        jr.sweep(ignores, grid, (X, Y), folds=2, steps=2, key=KEY)


# --- bad input ------------------------------------------------------------------------------------

KEPT = {}


def keeps(reg):
    if "reg" not in KEPT:
        KEPT["reg"] = reg
    return jr.Trainer(
        lambda key: jnp.full(D, 0.1),
        lambda w, x, y: loss(w, x, y) + KEPT["reg"](w),
        optax.chain(jr.add_penalty_gradient(reg), optax.sgd(0.1)),
    )


READY = jr.Trainer(lambda key: jnp.zeros(D), loss, optax.sgd(0.1))
GRID = jr.grid(jr.l2, lam=[0.1, 1.0])
OPTAX_FACTORY = lambda reg: optax.adam(1e-3)


class Unhashable:
    __hash__ = None

    def __call__(self, reg):
        return READY


@pytest.mark.parametrize(
    ("trainer", "match"),
    [
        (READY, "`trainer` must be a function of the point.*got a Trainer itself"),
        (jr.l2(0.1), "got a L2 itself"),
        (optax.adam(1e-3), "got a GradientTransformationExtraArgs itself"),
        (None, "got a NoneType itself"),
        (OPTAX_FACTORY, "it returned a GradientTransformationExtraArgs"),
        (lambda reg: None, "it returned None"),
        (lambda: READY, "must be a function of the point.*too many positional arguments"),
        (
            lambda reg, lr: READY,
            "must be a function of the point.*missing a required argument: 'lr'",
        ),
        (lambda reg: (READY, READY), "it returned a tuple"),
        (Unhashable(), "must be hashable.*Give a function"),
        (keeps, "a number of the point left `trainer`"),
        (
            lambda reg: jr.Trainer(lambda key: jnp.zeros(D), loss, OPTAX_FACTORY),
            "`optimizer` must be an optax transformation.*def trainer",
        ),
        (lambda reg: jr.Trainer(jnp.zeros(D), loss, optax.sgd(0.1)), "`init` must be a function"),
    ],
)
@pytest.mark.parametrize("use", ["fit", "sweep"])
def test_what_makes_no_trainer_is_refused_before_anything_compiles(use, trainer, match):
    KEPT.clear()
    jr.fit(L2_GRADIENT, jr.l2(0.1), (X, Y), steps=1, key=KEY)  # what any call compiles
    folds = [(np.arange(9), np.arange(9, N))]
    sweep = lambda: jr.sweep(trainer, GRID, (X, Y), folds=folds, steps=2, key=KEY)
    call = sweep if use == "sweep" else lambda: fit(trainer, jr.l2(0.1))
    with compilations() as compiled, pytest.raises(TypeError, match=match):
        call()
    assert [name for name in compiled if "_fit" in name or "_start" in name] == []


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"steps": -1}, "`steps` must be an integer of at least 0, got -1"),
        ({"steps": 2.0}, "`steps` must be an integer"),
        ({"remat": 0}, "`remat` must be an integer of at least 1, got 0"),
        ({"remat": True}, "`remat` must be an integer"),
    ],
)
def test_bad_numbers(kwargs, match):
    with pytest.raises(ValueError, match=match):
        fit(L2_GRADIENT, jr.l2(0.1), **kwargs)


def test_a_point_with_texts_is_refused():
    with pytest.raises(
        TypeError, match="`point` must be a penalty or a pytree of numbers, got 'adam'"
    ):
        fit(RATE, {"reg": jr.l2(0.1), "lr": "adam"})


def test_no_step_returns_the_start():
    np.testing.assert_array_equal(fit(L2_GRADIENT, jr.l2(0.1), steps=0).params, np.float32(0.1))


def test_a_trainer_shows_names_and_no_addresses_or_defaults():
    partial = functools.partial(loss, y=0.0)
    shown = repr(jr.Trainer(lambda key: 0, partial, optax.sgd(0.1), metrics={"a": loss}))
    assert " at 0x" not in shown
    assert shown.startswith(
        "Trainer(init=test_a_trainer_shows_names_and_no_addresses_or_defaults.<lambda>,"
    )
    assert "loss=loss" in shown
    assert shown.endswith("metrics=[a])")
