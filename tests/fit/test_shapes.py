"""Whatever is wrong with a user's functions is said in our words, before anything compiles."""

import jax.numpy as jnp
import jax.random
import numpy as np
import optax
import pytest
from support.compilations import compilations

import jaxreg as jr

X = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
DATA = X, X[:, 0]
GRID = jr.grid(jr.l2, lam=[0.1, 1.0])
KEY = jax.random.key(0)
FOLDS = np.arange(12) % 3


def right(w, x, y):
    return 0.5 * jnp.mean((x @ w - y) ** 2)


def init(key):
    return jnp.zeros(3)


def with_state(key):
    return jnp.zeros(3), {"n": jnp.zeros(())}


def made(init=init, loss=right, optimizer=None, **more):
    def trainer(reg):
        tx = optax.sgd(0.1) if optimizer is None else optimizer
        return jr.Trainer(init, loss, optax.chain(jr.add_penalty_gradient(reg), tx), **more)

    return trainer


def stateful(returned):
    loss = lambda w, s, x, y: returned(right(w, x, y), s)
    evaluated = lambda w, s, x, y: right(w, x, y)
    return made(with_state, loss, stateful=True, eval_loss=evaluated)


def updating(update, start=lambda params: optax.EmptyState()):
    return made(optimizer=optax.GradientTransformation(start, update))


def measured(metric):
    return made(metrics={"m": metric})


WRONG = {
    "loss: None": (made(loss=lambda w, x, y: None), "`loss` must return a scalar for the loss, got None"),
    "loss: text": (made(loss=lambda w, x, y: "x"), "`loss` must return a scalar"),
    "loss: integer": (made(loss=lambda w, x, y: jnp.sum(x).astype(int)), "a real number for the loss, got int32"),
    "loss: boolean": (made(loss=lambda w, x, y: jnp.any(x > 0)), "a real number for the loss, got bool"),
    "loss: complex": (made(loss=lambda w, x, y: right(w, x, y) + 1j), "got complex64"),
    "loss: float()": (made(loss=lambda w, x, y: float(right(w, x, y))), "`loss` looks at a value that is not known"),
    "loss: branch": (made(loss=lambda w, x, y: right(w, x, y) if w[0] > 0 else 0.0), "jnp.where in place of if"),
    "loss: numpy": (made(loss=lambda w, x, y: np.asarray(w).sum()), "Use jnp in place of np"),
    "loss: shapes": (
        made(loss=lambda w, x, y: jnp.mean(x @ w - y[:5])),
        r"`loss` must take params {float32\[3\]} and a batch of {0: float32\[8, 3\], 1: float32\[8\]}; called so, got",
    ),
    "loss: arguments": (made(loss=lambda w, x: jnp.mean(x @ w)), "`loss` must take params .* takes 2 positional"),
    "loss: raises": (made(loss=lambda w, x, y: w["nothing"]), "called so, got TypeError"),
    "loss: no key": (made(stochastic=True, eval_loss=right), "with key=; called so, got TypeError"),
    "metric: None": (measured(lambda w, x, y: None), "`metrics` must return a scalar for the metric 'm', got None"),
    "metric: vector": (measured(lambda w, x, y: x @ w), r"the metric 'm' must return a scalar, got shape \[8\]"),
    "metric: text": (measured(lambda w, x, y: "a"), "for the metric 'm', got 'a'"),
    "metric: complex": (measured(lambda w, x, y: 1j * right(w, x, y)), "for the metric 'm', got complex64"),
    "metric: raises": (measured(lambda w, x, y: w["q"]), r"`metrics` \(the metric 'm'\) must take params"),
    "metric: arguments": (measured(lambda w, x: 0.0), r"`metrics` \(the metric 'm'\) must take params"),
    "eval_loss: vector": (made(eval_loss=lambda w, x, y: x @ w), r"the loss must return a scalar, got shape \[8\]"),
    "eval_loss: pair": (made(eval_loss=lambda w, x, y: (right(w, x, y), 1)), "must return a scalar, got a tuple of 2"),
    "eval_loss: arguments": (made(eval_loss=lambda w: jnp.mean(w)), "`eval_loss` must take params"),
    "init: None": (made(lambda key: None), "`init` must return parameters, .* got None"),
    "init: nothing": (made(lambda key: {}), "`init` must return parameters"),
    "init: arguments": (made(lambda: jnp.zeros(3)), "`init` must take a PRNG key; called so, got TypeError"),
    "init: integers": (made(lambda key: jnp.zeros(3, int)), "that `init` made is no floating array"),
    "init: other shape": (made(lambda key: jnp.zeros(4)), r"`loss` must take params {float32\[4\]}"),
    "init: no pair": (
        made(init, lambda w, s, x, y: (right(w, x, y), s), stateful=True, eval_loss=right),
        r"`init` must return a pair, \(params, model state\)",
    ),
    "state: structure": (
        stateful(lambda v, s: (v, {"n": s["n"], "m": s["n"]})),
        "`loss` must return the model state in the structure that it got",
    ),
    "state: dtype": (stateful(lambda v, s: (v, {"n": s["n"].astype(int)})), r"'n' was float32\[\], got int32\[\]"),
    "state: shape": (stateful(lambda v, s: (v, {"n": jnp.zeros(2)})), r"'n' was float32\[\], got float32\[2\]"),
    "state: no pair": (stateful(lambda v, s: v), "a stateful loss must return a pair"),
    "update: structure": (updating(lambda u, s, p=None: ({"a": u}, s)), "`optimizer` must return updates like"),
    "update: shape": (updating(lambda u, s, p=None: (u[:2], s)), r"got {float32\[2\]}"),
    "update: scalar": (updating(lambda u, s, p=None: (jnp.sum(u), s)), r"got {float32\[\]}"),
    "update: None": (updating(lambda u, s, p=None: (None, s)), "got None"),
    "update: complex": (updating(lambda u, s, p=None: (u * 1j, s)), "got {complex64"),
    "update: no pair": (updating(lambda u, s, p=None: u), "`optimizer` must take updates like the parameters"),
    "update: raises": (updating(lambda u, s, p=None: 1 / 0), "called so, got ZeroDivisionError"),
    "its state: grows": (updating(lambda u, s, p=None: (u, (s, s))), "`optimizer` must return its state in the str"),
    "its state: dtype": (
        updating(lambda u, s, p=None: (u, s + 0.5), lambda p: jnp.zeros((), int)),
        r"was int32\[\], got float32\[\]",
    ),
    "its start: raises": (updating(lambda u, s, p=None: (u, s), lambda p: p["x"]), "`optimizer` must take the parameters"),
    "eval_params: structure": (made(eval_params=lambda s: {"a": s.params}), "`eval_params` must return parameters like"),
    "eval_params: None": (made(eval_params=lambda s: None), "got None"),
    "eval_params: shape": (made(eval_params=lambda s: s.params[:2]), r"got {float32\[2\]}"),
    "eval_params: raises": (made(eval_params=lambda s: s.nothing), "`eval_params` must take the TrainState"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_it_is_said_in_our_words_before_anything_compiles(name):
    trainer, said = WRONG[name]
    options = {"folds": FOLDS, "steps": 3, "evals": 1, "key": KEY}
    with (
        compilations() as compiled,
        pytest.raises((TypeError, ValueError), match=f"^(sweep|Trainer): .*{said}"),
    ):
        jr.sweep(trainer, GRID, DATA, **options)
    assert compiled == []


def test_what_a_user_raises_is_kept_as_the_cause():
    class Mine(Exception):
        pass

    def loss(w, x, y):
        raise Mine("of the user's own")

    with pytest.raises(TypeError, match="got Mine: of the user's own") as raised:
        jr.fit(made(loss=loss), jr.l2(0.1), DATA, steps=1, key=KEY)
    assert isinstance(raised.value.__cause__, Mine)


def test_a_penalty_that_refuses_a_parameter_is_heard_in_its_own_words():
    def trainer(reg):
        return jr.Trainer(
            init,
            lambda w, x, y: right(w, x, y) + jr.l1(0.1, weights=jnp.ones((2, 2)))(w),
            optax.sgd(0.1),
        )

    with pytest.raises(ValueError, match="^l1: `weights` has shape"):
        jr.sweep(trainer, GRID, DATA, folds=FOLDS, steps=3, key=KEY)
