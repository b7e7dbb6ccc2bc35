"""Layers that were stacked for a scan: groups and strengths say what they do with the stack."""

import warnings

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxreg as jr
from jaxreg import _names, _tree
from jaxreg.report import stack_warnings

LAYERS = 4
BLOCK = {
    "mlp": {"kernel": jnp.ones((LAYERS, 2, 3)), "bias": jnp.zeros((LAYERS, 3))},
    "norm": {"scale": jnp.ones((LAYERS, 3))},
}
PARAMS = {"blocks": BLOCK, "head": {"kernel": jnp.ones((LAYERS, 2)), "bias": jnp.zeros(2)}}


def depths(params):
    leaves = _tree.flatten(params)
    return {p: n for p, n in zip(leaves.paths, _names.stacks(leaves)) if n}


def test_a_stack_is_known_by_its_biases_and_scales():
    stacked = {f"blocks/{p}" for p in ("mlp/kernel", "mlp/bias", "norm/scale")}
    assert depths(PARAMS) == dict.fromkeys(stacked, LAYERS)
    assert depths({"w": jnp.ones((5, 4, 3)), "b": jnp.ones((5, 3))}) == {"w": 5, "b": 5}


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.BatchNorm(True)(nn.Conv(4, (3, 3))(x))
        x = x.reshape(len(x), -1, 4)
        x = nn.MultiHeadDotProductAttention(2)(nn.LayerNorm()(x))
        return nn.Dense(2)(x)


def test_a_model_that_is_no_stack_is_not_taken_for_one():
    params = jax.eval_shape(Net().init, jax.random.key(0), jnp.ones((2, 4, 4, 1)))
    assert depths(params) == {}
    assert depths({"conv": {"kernel": jnp.ones((3, 3, 1, 4)), "bias": jnp.ones((1, 1, 4))}}) == {}
    assert depths({"w": jnp.ones((3, 3)), "b": jnp.ones(3)}) == {}
    assert depths([jnp.ones((3, 3, 3)), jnp.ones(3)]) == {}


class Scanned(nn.Module):
    @nn.compact
    def __call__(self, x):
        body = lambda layer, x, _: (layer(x), None)
        made = nn.scan(body, variable_axes={"params": 0}, split_rngs={"params": True}, length=5)
        return made(nn.Dense(3), x, None)[0]


def test_a_scan_of_linen_is_a_stack():
    params = jax.eval_shape(Scanned().init, jax.random.key(0), jnp.ones((2, 3)))
    assert set(depths(params).values()) == {5}


@pytest.mark.parametrize(
    ("penalty", "told"),
    [
        (
            jr.max_norm(1.0).on(jr.kernels),
            "axis=-1 a group lies across all of them; axis=(0, -1) makes",
        ),
        (2.0 * jr.group_lasso(0.1, axis=-1).on(jr.kernels), "axis=(0, -1) makes groups in each"),
        (jr.l1_ball(1.0).on(jr.kernels), "axis=None a group lies across all of them; axis=0 makes"),
        (
            jr.group_lasso(0.1, axis=0).on(jr.kernels),
            "axis=0 a group is a whole layer; axis=(0, 1)",
        ),
        (jr.max_norm(1.0, axis=(0, -1)).on(jr.kernels), ""),
        (jr.l2(0.1), ""),
        (jr.nuclear(0.1).on(jr.kernels), ""),
        (jr.group_lasso(0.1, axis=-1).on("head/*"), ""),
    ],
)
def test_groups_say_what_they_do_with_the_stack(penalty, told):
    text = " ".join(str(jr.tabulate(penalty, PARAMS)).split())
    assert (told in text) if told else ("looks like a stack" not in text)
    if told:
        assert "'blocks/mlp/kernel' (4, 2, 3)" in text
        assert "looks like a stack of 4 layers" in text


def test_the_remedy_is_the_penalty_of_every_layer_alone():
    w = jnp.asarray(np.random.default_rng(0).normal(size=(LAYERS, 2, 3)), jnp.float32)
    whole = jr.max_norm(0.5, axis=(0, -1)).prox(w, 1.0)
    each = jnp.stack([jr.max_norm(0.5).prox(x, 1.0) for x in w])
    np.testing.assert_allclose(whole, each, rtol=1e-6)
    reg = jr.group_lasso(jnp.arange(4.0)[:, None, None], axis=(0, -1))
    want = sum(float(jr.group_lasso(float(i), axis=-1)(x)) for i, x in enumerate(w))
    np.testing.assert_allclose(reg(w), want, rtol=1e-6)


def test_strengths_for_each_layer():
    w = jnp.ones((LAYERS, 2, 3))
    lam = jnp.arange(4.0)
    assert jr.l1(lam[:, None, None])(w) == 36
    with pytest.raises(ValueError, match=r"One for each layer of a stack is lam\[:, None, None\]"):
        jr.l1(lam)(w)
    with pytest.raises(ValueError, match="shape") as error:
        jr.l1(jnp.ones(3))(w)
    assert "stack" not in str(error.value)


def test_training_warns_of_groups_across_layers_and_not_of_whole_layers():
    def run(penalty):
        def trainer(reg):
            tx = jr.proximal(optax.identity(), reg, 0.1)
            loss = lambda p, x: jnp.mean((x - p["blocks"]["mlp"]["kernel"].sum()) ** 2)
            return jr.Trainer(lambda key: PARAMS, loss, tx)

        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            jr.fit(trainer, penalty, (jnp.ones(4),), steps=1, key=jax.random.key(0))
        return [str(w.message) for w in found]

    (text,) = run(jr.group_lasso(0.1, axis=-1).on(jr.kernels))
    assert "fit: group_lasso.on(kernels) acts on 'blocks/mlp/kernel'" in text
    assert not run(jr.group_lasso(0.1, axis=0).on(jr.kernels))
    assert list(stack_warnings(jr.l2(1.0), PARAMS)) == []
