"""An optimizer is asked in one program, in any process and inside of any trace."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support.compilations import compilations

import jaxreg as jr
from jaxreg.coupling import check_coupling

PARAMS = {"a": {"kernel": jnp.ones((4, 3)), "bias": jnp.zeros(3)}, "b": jnp.ones(3)}
CODE = """
import jax, jax.numpy as jnp, optax, jaxreg as jr
tx = jr.proximal(optax.trace(0.5), jr.l1(0.1), 0.1)
step = jax.jit(lambda p: tx.update(jnp.zeros(3), tx.init(p), p)[0])
print(float(step(jnp.ones(3))[0]))  # the first thing that this process asks for: -2 * 0.1 * 0.1
"""


def test_the_first_question_may_come_inside_of_a_trace():
    run = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert float(run.stdout) == pytest.approx(-0.02, rel=1e-4), run.stderr


def test_a_check_is_one_program_and_a_measurement_few():
    reg = jr.l2(0.1).on(jr.kernels)
    chain = optax.chain(jr.add_penalty_gradient(reg), optax.adam(1e-3))
    check_coupling(chain, reg, PARAMS)
    with compilations() as compiled:
        check_coupling(chain, 2 * reg, PARAMS)
        assert len(compiled) <= 1, compiled
        jr.proximal(optax.scale_by_adam(), jr.l1(0.1), 1e-3).init(PARAMS)
    assert len(compiled) <= 8, compiled


def test_what_is_traced_is_answered_in_the_graph():
    def shrunk(decay):
        tx = jr.proximal(optax.trace(decay), jr.l1(0.1), 0.1)
        zero = jax.tree.map(jnp.zeros_like, PARAMS)
        return tx.update(zero, tx.init(PARAMS), PARAMS)[0]["b"]

    got = jax.jit(jax.vmap(shrunk))(jnp.array([0.0, 0.5, 0.9]))
    expected = -0.1 * 0.1 / (1 - np.array([0.0, 0.5, 0.9]))
    np.testing.assert_allclose(got, np.repeat(expected[:, None], 3, 1), rtol=1e-3)


def test_what_calls_back_is_asked_inside_of_a_trace_too():
    """The code that is called back runs jax itself, which must not become part of the outer trace."""

    def called(x):
        return np.asarray(jnp.sin(jnp.asarray(x)) * 0 + 1) * x

    def update(updates, state, params=None):
        back = lambda g: jax.pure_callback(called, jax.ShapeDtypeStruct(g.shape, g.dtype), g)
        return jax.tree.map(back, updates), state

    called_back = optax.GradientTransformation(lambda params: optax.EmptyState(), update)
    tx = jr.proximal(called_back, jr.l1(0.1), 0.1)
    step = jax.jit(lambda p: tx.update(jax.tree.map(jnp.ones_like, p), tx.init(p), p)[0]["b"])
    assert jnp.allclose(step(PARAMS), -0.1 - 0.1 * 0.1, rtol=1e-4)
