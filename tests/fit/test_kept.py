"""What is remembered of a trainer lives as long as the trainer, and a few of each kind."""

import functools
import gc
import pickle
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxreg as jr
from jaxreg.fit.kept import kept, recent
from jaxreg.sweeps.program import Program

X = np.random.default_rng(0).normal(size=(24, 3)).astype(np.float32)
Y = X[:, 0]
KEY = jax.random.key(0)
GRID = jr.grid(jr.l2, lam=[0.01, 0.1])


def loss(w, x, y):
    return 0.5 * jnp.mean((x @ w - y) ** 2)


def made(reg):
    tx = optax.chain(jr.add_penalty_gradient(reg), optax.sgd(0.1))
    return jr.Trainer(lambda key: jnp.zeros(3), loss, tx)


class Big:
    """Something that a trainer closes over, such as frozen features."""

    def __init__(self):
        self.features = np.ones(1000, np.float32)


USES = {
    "fit": lambda t: jr.fit(t, jr.l2(0.1), (X, Y), steps=2, key=KEY),
    "sweep": lambda t: jr.sweep(t, GRID, (X, Y), folds=2, steps=2, key=KEY),
    "certificate": lambda t: jr.sweep(
        t, GRID, (X, Y), folds=2, steps=2, key=KEY, stationarity=True
    ),
    "refit": lambda t: jr.refit(
        t, jr.sweep(t, GRID, (X, Y), folds=2, steps=2, key=KEY), (X, Y), key=KEY
    ),
}


@pytest.mark.parametrize("name", USES)
def test_what_a_trainer_closes_over_is_freed_with_it(name):
    def use():
        big = Big()

        def trainer(reg):
            base = made(reg)
            of = lambda w, x, y: loss(w, x, y) + 0 * big.features[0]
            return jr.Trainer(base.init, of, base.optimizer)

        USES[name](trainer)
        return weakref.ref(big)

    refs = [use() for _ in range(2)]
    gc.collect()
    assert [r() for r in refs] == [None, None]


def test_a_new_selector_in_every_round_does_not_pile_up_programs():
    def trainer(reg):
        return made(reg)

    for _ in range(20):
        everything = lambda path, leaf: True
        grid = jr.grid(lambda lam, rule=everything: jr.l2(lam).on(rule), lam=[0.1])
        jr.sweep(trainer, grid, (X, Y), folds=2, steps=1, key=KEY, evals=1)
    gc.collect()
    mine = [p for p in gc.get_objects() if isinstance(p, Program) and len(p._compiled)]
    assert max(len(p._compiled) for p in mine) <= 16
    assert all(len(entries) <= 16 for entries in vars(trainer)["__jaxreg__"].values())


def test_the_same_sweep_again_compiles_nothing():
    def trainer(reg):
        return made(reg)

    run = lambda lam: jr.sweep(
        trainer, jr.grid(jr.l2, lam=[lam, 2 * lam]), (X, Y), folds=2, steps=2, key=KEY
    )
    run(0.1)
    programs = lambda: {
        id(p): list(p._compiled.values()) for p in gc.get_objects() if isinstance(p, Program)
    }
    before = programs()
    run(0.3)
    assert {k: v for k, v in programs().items() if k in before} == before


def test_of_two_functions_each_has_its_own_memory():
    asked = []

    @kept
    def ask(trainer, x):
        asked.append(trainer)
        return trainer(x)

    def double(x):
        return 2 * x

    assert ask(double, 3) == ask(double, 3) == 6

    @functools.wraps(double)  # which copies what lies on the other
    def triple(x):
        return 3 * x

    assert ask(triple, 3) == 9
    assert ask(double, 3) == 6
    assert len(asked) == 2
    assert ask(functools.partial(triple), 3) == 9


class Family:
    """Trainers as methods, which cannot hold anything themselves."""

    def __init__(self, rate):
        self.rate = rate

    def trainer(self, reg):
        tx = optax.chain(jr.add_penalty_gradient(reg), optax.sgd(self.rate))
        return jr.Trainer(lambda key: jnp.zeros(3), loss, tx)

    __call__ = trainer


def test_methods_and_objects_are_trainers_too():
    one, other = Family(0.1), Family(0.5)
    run = lambda t: jr.fit(t, jr.l2(0.1), (X, Y), steps=2, key=KEY).params
    for a, b in ((one.trainer, other.trainer), (one, other)):
        assert not np.allclose(run(a), run(b))
        np.testing.assert_array_equal(run(a), run(a))


def test_a_trainer_that_has_been_used_can_be_pickled():
    jr.fit(made, jr.l2(0.1), (X, Y), steps=1, key=KEY)
    assert pickle.loads(pickle.dumps(made)) is made
    room = pickle.loads(pickle.dumps(vars(made)["__jaxreg__"]))
    assert dict(room) == {}
    entries = recent(made, "x")
    entries.put(1, 2)
    assert len(pickle.loads(pickle.dumps(entries))) == 0
