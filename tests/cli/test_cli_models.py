"""The command's models: shapes, losses with their ½, metrics, and refusals."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxreg as jr
from jaxreg.cli import models
from jaxreg.cli.data import Dataset, load
from jaxreg.cli.models import build, cnn, linear, mlp

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 6)).astype(np.float32)
CLASSES = Dataset(
    "toy",
    X,
    np.arange(12, dtype=np.int32) % 3,
    "classification",
    3,
    tuple("uvwxyz"),
    ("a", "b", "c"),
    image_shape=(2, 3, 1),
)
QUANTITY = Dataset(
    "plain", X, X @ np.arange(6, dtype=np.float32), "regression", None, tuple("abcdef")
)
IMAGES = QUANTITY._replace(image_shape=(3, 2, 1))


def shapes(params):
    return {jax.tree_util.keystr(p, simple=True, separator="/"): x.shape
            for p, x in jax.tree_util.tree_leaves_with_path(params)}  # fmt: skip


def test_an_mlp_has_the_widths_asked_for():
    params = build("mlp", CLASSES, hidden=(5, 4)).init(KEY)
    assert shapes(params) == {
        "params/Dense_0/kernel": (6, 5), "params/Dense_0/bias": (5,),
        "params/Dense_1/kernel": (5, 4), "params/Dense_1/bias": (4,),
        "params/Dense_2/kernel": (4, 3), "params/Dense_2/bias": (3,),
    }  # fmt: skip
    assert sum(jr.kernels.mask(params)) == 3
    assert sum(jr.path("*/Dense_0/kernel").mask(params)) == 1


def test_an_mlp_is_dense_layers_with_relu_between():
    model = build("mlp", CLASSES, hidden=(5, 4))
    params = jax.tree.map(lambda x: x + 0.1, model.init(KEY))
    h = X
    for i in range(3):
        layer = params["params"][f"Dense_{i}"]
        h = h @ layer["kernel"] + layer["bias"]
        h = np.maximum(h, 0) if i < 2 else h
    np.testing.assert_allclose(model.apply(params, X), h, rtol=1e-5, atol=1e-6)


def test_without_hidden_layers_an_mlp_is_affine():
    assert shapes(build("mlp", CLASSES, hidden=()).init(KEY))["params/Dense_0/kernel"] == (6, 3)


@pytest.mark.parametrize("name", ["mlp", "linear", "cnn"])
@pytest.mark.parametrize("dataset", [CLASSES, IMAGES], ids=["classes", "quantity"])
def test_every_model_gives_logits_or_one_number_a_row(name, dataset):
    model = build(name, dataset, hidden=(4,))
    params = model.init(KEY)
    outputs = model.apply(params, X)
    assert outputs.shape == ((12, 3) if dataset.n_classes else (12,))
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(params))
    assert jnp.shape(model.loss(params, dataset.X, dataset.y)) == ()
    one = [model.apply(params, x[None])[0] for x in X]
    np.testing.assert_allclose(outputs, jnp.stack(one), rtol=1e-4, atol=1e-5)


def test_a_cnn_sees_the_image_and_not_the_row():
    model = build("cnn", load("digits"))
    params = model.init(KEY)["params"]
    assert params["Conv_0"]["kernel"].shape == (3, 3, 1, 16)
    assert params["Conv_1"]["kernel"].shape == (3, 3, 16, 32)
    assert params["Dense_0"]["kernel"].shape == (4 * 4 * 32, 10)


def test_the_linear_model_starts_at_zero_whatever_the_key():
    for key in (KEY, jax.random.key(1)):
        params = build("linear", CLASSES).init(key)
        assert all((x == 0).all() for x in jax.tree.leaves(params))


def test_the_loss_of_classes_is_the_mean_cross_entropy():
    model = build("linear", CLASSES)
    params = jax.tree.map(
        lambda x: jnp.asarray(RNG.normal(size=x.shape), jnp.float32), model.init(KEY)
    )
    logits = np.asarray(model.apply(params, X), np.float64)
    log_z = np.log(np.exp(logits).sum(1))
    expected = np.mean(log_z - logits[np.arange(12), CLASSES.y])
    np.testing.assert_allclose(model.loss(params, X, CLASSES.y), expected, rtol=1e-5)
    accuracy = np.mean(logits.argmax(1) == CLASSES.y)
    np.testing.assert_allclose(model.metrics["accuracy"](params, X, CLASSES.y), accuracy)


def test_the_loss_of_a_quantity_has_a_half_and_its_error_has_none():
    model = build("linear", QUANTITY)
    params = model.init(KEY)
    square = np.mean(QUANTITY.y.astype(np.float64) ** 2)  # it predicts 0
    np.testing.assert_allclose(model.loss(params, X, QUANTITY.y), square / 2, rtol=1e-5)
    error = model.metrics["rmse"](params, X, QUANTITY.y)
    np.testing.assert_allclose(error, np.sqrt(square), rtol=1e-5)
    assert set(model.metrics) == {"rmse", "r2", "mae", "mse"}


def test_linear_regression_with_l2_is_ridge_in_the_documented_convention():
    model, lam = build("linear", QUANTITY), 0.3
    penalty = jr.l2(lam).on(jr.kernels)
    Xc = X.astype(np.float64) - X.mean(0)
    yc = QUANTITY.y - QUANTITY.y.mean()
    w = np.linalg.solve(Xc.T @ Xc / 12 + lam * np.eye(6), Xc.T @ yc / 12)
    dense = {"kernel": w[:, None], "bias": np.atleast_1d(QUANTITY.y.mean() - X.mean(0) @ w)}
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), {"params": {"Dense_0": dense}})
    grads = jax.grad(lambda p: model.loss(p, X, QUANTITY.y) + penalty(p))(params)
    for g in jax.tree.leaves(grads):
        np.testing.assert_allclose(g, 0, atol=1e-4)


def test_unknown_models_are_answered_with_the_list_and_the_nearest():
    near = r"unknown model 'lnear'; did you mean 'linear'\? There are cnn, linear, mlp"
    with pytest.raises(ValueError, match=near):
        build("lnear", CLASSES)
    with pytest.raises(ValueError, match=r"unknown model 'zzz'\. There are cnn, linear, mlp"):
        build("zzz", CLASSES)


@pytest.mark.parametrize("hidden", [(0,), (-3,), (2.5,), (True,)])
def test_widths_must_be_positive_integers(hidden):
    with pytest.raises(ValueError, match=r"mlp: widths must be positive integers"):
        build("mlp", CLASSES, hidden=hidden)
    with pytest.raises(ValueError, match=r"mlp: widths must be positive integers.*got \(\)"):
        mlp(())


def test_a_cnn_needs_images():
    with pytest.raises(
        ValueError, match=r"cnn: plain has 6 plain features and no images\. Take mlp or"
    ):
        build("cnn", QUANTITY)


def test_modules_can_be_used_by_themselves():
    x = jnp.ones((2, 6))
    for module, width in [(mlp((4, 3)), 3), (linear(2), 2), (cnn(5, (3, 2, 1)), 5)]:
        assert module.apply(module.init(KEY, x), x).shape == (2, width)


def test_a_missing_flax_is_told_with_what_to_type(monkeypatch):
    models._modules.cache_clear()
    monkeypatch.setitem(sys.modules, "flax.linen", None)
    with pytest.raises(ImportError, match=r"models need flax, .*: pip install 'jaxreg\[cli\]'"):
        build("linear", CLASSES)
