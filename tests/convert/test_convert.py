"""Converted strengths make the same fit: against live scikit-learn, Keras, PyTorch and optax.

Where a library is live the number goes both ways: `to_` gives it to the library, whose fit is then that
of the lam started from, and `from_` gives it back.
"""

import inspect
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn import linear_model, neural_network
from sklearn.datasets import load_diabetes

import jaxreg as jr
from jaxreg import convert

pytestmark = pytest.mark.formulas

N, D = 60, 5


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(N, D)) * [1.0, 2.0, 0.5, 3.0, 1.0]
    y = X @ [1.0, 0.0, -2.0, 0.3, 0.0] + 0.7 + 0.3 * rng.normal(size=N)
    return X, y


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def half_squares(params, X, y):
    return jnp.mean((X @ params["w"] + params["b"] - y) ** 2) / 2


def log_loss(params, X, y):
    return jnp.mean(optax.sigmoid_binary_cross_entropy(X @ params["w"] + params["b"], y))


def fitted(loss, reg, X, y, n_steps=4000):
    """The minimum of loss + reg over weights and an intercept, by accelerated proximal steps."""
    params = {"w": jnp.zeros(X.shape[1]), "b": jnp.zeros(())}
    step = 0.9 / np.linalg.eigvalsh(np.c_[X, np.ones(len(X))].T @ np.c_[X, np.ones(len(X))])[-1]
    step = step * len(X)

    def body(k, carry):
        params, before = carry
        ahead = jax.tree.map(lambda p, q: p + k / (k + 3) * (p - q), params, before)
        grads = jax.grad(loss)(ahead, X, y)
        moved = reg.prox(jax.tree.map(lambda p, g: p - step * g, ahead, grads), step)
        return moved, params

    found, _ = jax.lax.fori_loop(0, n_steps, jax.jit(body), (params, params))
    return np.asarray(found["w"]), float(found["b"])


def assert_same_fit(model, found, rtol=1e-5, atol=1e-6):
    w, b = found
    np.testing.assert_allclose(w, np.ravel(model.coef_), rtol=rtol, atol=atol)
    np.testing.assert_allclose(b, np.ravel(model.intercept_)[0], rtol=rtol, atol=atol)


# Linear models.


def test_ridge(data):
    alpha = convert.to_sklearn_ridge(0.12, n=N)
    assert convert.from_sklearn_ridge(alpha, n=N) == pytest.approx(0.12)
    found = fitted(half_squares, jr.l2(0.12).on(jr.kernels), *data)
    assert_same_fit(linear_model.Ridge(alpha=alpha, tol=1e-10).fit(*data), found)


def test_ridge_with_example_weights(data):
    weights = np.linspace(0.5, 2.0, N)
    model = linear_model.Ridge(alpha=7.0, tol=1e-10).fit(*data, sample_weight=weights)
    lam = convert.from_sklearn_ridge(7.0, n=weights.sum())

    def loss(params, X, y):
        errors = (X @ params["w"] + params["b"] - y) ** 2
        return jnp.sum(weights * errors) / (2 * weights.sum())

    assert_same_fit(model, fitted(loss, jr.l2(lam).on(jr.kernels), *data))


def test_lasso(data):
    alpha = convert.to_sklearn_lasso(0.3)
    assert convert.from_sklearn_lasso(alpha) == 0.3
    w, b = fitted(half_squares, jr.l1(0.3).on(jr.kernels), *data)
    model = linear_model.Lasso(alpha=alpha, tol=1e-12, max_iter=100_000).fit(*data)
    assert_same_fit(model, (w, b))
    assert (w == 0).tolist() == (model.coef_ == 0).tolist() != [False] * D


@pytest.mark.parametrize("ratio", [0.2, 0.8])
def test_elastic_net(data, ratio):
    model = linear_model.ElasticNet(alpha=0.4, l1_ratio=ratio, tol=1e-12, max_iter=100_000)
    model.fit(*data)
    both = convert.from_sklearn_elastic_net(0.4, l1_ratio=ratio)
    assert convert.to_sklearn_elastic_net(*both) == pytest.approx((0.4, ratio))
    assert_same_fit(model, fitted(half_squares, (jr.l1(both.l1) + jr.l2(both.l2)).on("w"), *data))
    assert_same_fit(model, fitted(half_squares, jr.elastic_net(0.4, ratio).on("w"), *data))


def test_logistic_regression(data):
    X, y = data[0], (data[1] > 0.5).astype(float)
    C = convert.to_sklearn_logistic(0.08, n=N)
    assert convert.from_sklearn_logistic(C, n=N) == pytest.approx(0.08)
    model = linear_model.LogisticRegression(C=C, tol=1e-10, max_iter=10_000).fit(X, y)
    assert_same_fit(model, fitted(log_loss, jr.l2(0.08).on(jr.kernels), X, y), rtol=1e-4)


def test_sparse_logistic_regression(data):
    X, y = data[0], (data[1] > 0.5).astype(float)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = linear_model.LogisticRegression(
            C=0.1, l1_ratio=1.0, solver="saga", tol=1e-9, max_iter=100_000
        )
        model.fit(X, y)
    lam = convert.from_sklearn_logistic(0.1, n=N)
    found = fitted(log_loss, jr.l1(lam).on(jr.kernels), X, y)
    assert_same_fit(model, found, rtol=1e-3, atol=1e-4)


def test_lars_knots_are_those_of_the_paper():
    """Efron et al. (2004), the diabetes data; the R package counts lambda in sums."""
    knots = [949.435, 889.314, 452.896, 316.073, 130.130, 88.784, 68.965, 19.981, 5.478, 5.088]
    X, y = load_diabetes(return_X_y=True)
    alphas, _, _ = linear_model.lars_path(X, y - y.mean(), method="lasso")
    lams = convert.from_lars(np.array(knots), n=len(y))
    np.testing.assert_allclose(lams, alphas[: len(knots)], atol=2e-6)
    largest = jr.l1(1.0).lambda_max(jnp.asarray(X.T @ (y - y.mean()) / len(y)))
    np.testing.assert_allclose(largest, convert.from_lars(949.435, n=442), atol=2e-6)


def test_glmnet_on_raw_columns_is_its_procedure_on_standardised_ones(data):
    """What glmnet does for family="gaussian": scale columns and y, fit, scale back."""
    X, y = data
    lam, alpha = 0.5, 0.2
    x_std, y_std = X.std(0), y.std()
    inner = linear_model.ElasticNet(alpha=lam / y_std, l1_ratio=alpha, tol=1e-13, max_iter=100_000)
    inner.fit((X - X.mean(0)) / x_std, (y - y.mean()) / y_std)
    coef = inner.coef_ * y_std / x_std
    both = convert.from_glmnet(lam, alpha, x_std=x_std, y_std=y_std)
    w, b = fitted(half_squares, jr.l1(both.l1).on("w") + jr.l2(both.l2).on("w"), X, y, 20_000)
    np.testing.assert_allclose(w, coef, atol=1e-6)
    np.testing.assert_allclose(b, y.mean() - X.mean(0) @ coef, atol=1e-6)


# Networks.


def mlp(params, X):
    return jax.nn.relu(X @ params["W0"] + params["b0"]) @ params["W1"] + params["b1"]


def mlp_step(loss, params, lam, X, y, rate):
    """One step of SGD on the mean loss plus l2(lam) of the kernels."""
    reg = jr.l2(lam).on("W*")
    grads = jax.grad(lambda p: loss(mlp(p, X)[:, 0], y) + reg(p))(params)
    return jax.tree.map(lambda p, g: p - rate * g, params, grads)


@pytest.mark.parametrize("kind", ["regressor", "classifier"])
def test_one_step_of_scikit_learns_mlp(data, kind):
    X, y = data[0], data[1] if kind == "regressor" else (data[1] > 0.5).astype(float)
    batch, lam, rate = 20, 0.15, 0.1
    alpha = convert.to_sklearn_mlp(lam, batch_size=batch)
    assert convert.from_sklearn_mlp(alpha, batch_size=batch) == pytest.approx(lam)
    cls = {"regressor": neural_network.MLPRegressor, "classifier": neural_network.MLPClassifier}
    options = {"momentum": 0.0, "nesterovs_momentum": False, "shuffle": False, "max_iter": 1}
    options |= {"hidden_layer_sizes": (4,), "batch_size": batch, "random_state": 0}
    model = cls[kind](alpha=alpha, solver="sgd", learning_rate_init=rate, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.set_params(warm_start=True, learning_rate_init=1e-30).fit(X, y)
        start = {f"W{i}": jnp.array(W) for i, W in enumerate(model.coefs_)}
        start |= {f"b{i}": jnp.array(b) for i, b in enumerate(model.intercepts_)}
        model.set_params(learning_rate_init=rate).fit(X, y)
    loss = (lambda z, y: jnp.mean((z - y) ** 2) / 2) if kind == "regressor" else (
        lambda z, y: jnp.mean(optax.sigmoid_binary_cross_entropy(z, y)))  # fmt: skip
    params = start
    for i in range(0, N, batch):
        params = mlp_step(loss, params, lam, X[i : i + batch], y[i : i + batch], rate)
    for i in range(2):
        np.testing.assert_allclose(params[f"W{i}"], model.coefs_[i], rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(params[f"b{i}"], model.intercepts_[i], rtol=1e-6, atol=1e-9)


def test_keras_documented_values():
    ones = jnp.ones((5, 5))
    assert jr.l2(convert.from_keras_l2(2.0))(ones) == pytest.approx(50.0)
    assert jr.l1(convert.from_keras_l1(0.01))(ones) == pytest.approx(0.25)


@pytest.fixture
def keras(monkeypatch):
    """Keras 3 on jax; a skip where it is not installed or runs on another backend already."""
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    found = pytest.importorskip("keras")
    if found.backend.backend() != "jax":
        pytest.skip("keras runs on another backend")
    return found


@pytest.mark.parametrize(("name", "ours"), [("l1", jr.l1), ("l2", jr.l2)])
def test_keras_regularizers_have_our_value_and_gradient(keras, name, ours):
    lam, w = 0.03, jnp.array([[1.5, -2.0], [0.5, 3.0]])
    factor = getattr(convert, f"to_keras_{name}")(lam)
    assert getattr(convert, f"from_keras_{name}")(factor) == pytest.approx(lam)
    theirs = getattr(keras.regularizers, name.upper())(factor)
    np.testing.assert_allclose(ours(lam)(w), theirs(w), rtol=1e-6)
    np.testing.assert_allclose(jax.grad(ours(lam))(w), jax.grad(theirs)(w), rtol=1e-6)


def test_keras_adamw_decays_as_scaled(keras):
    lam, rate = 0.3, 0.05
    decay = convert.to_adamw(lam)
    optimizer = keras.optimizers.AdamW(rate, weight_decay=decay, epsilon=1e-12)
    p = keras.Variable(np.array(start()["w"]), dtype="float64")
    optimizer.build([p])
    for _ in range(20):
        optimizer.apply([p.value - TARGET])
    direction = optax.scale_by_adam(eps=1e-12)
    tx = jr.decoupled(direction, jr.l2(convert.from_adamw(decay)), learning_rate=rate)
    # Keras keeps its rate and counts in float32.
    np.testing.assert_allclose(trained(tx, start(), pull)["w"], p.value, rtol=1e-5)


def trained(tx, start, grad, n_steps=20):
    params, state = start, tx.init(start)
    for _ in range(n_steps):
        updates, state = tx.update(grad(params), state, params)
        params = optax.apply_updates(params, updates)
    return params


TARGET = np.array([1.0, -2.0, 0.5])


def pull(params):
    return jax.tree.map(lambda p: p - TARGET, params)


def trained_by_torch(torch, make, scheduler=None, n_steps=20):
    p = torch.nn.Parameter(torch.tensor([3.0, 1.0, -1.0], dtype=torch.float64))
    optimizer = make([p])
    schedule = scheduler and scheduler(optimizer)
    for _ in range(n_steps):
        optimizer.zero_grad()
        (0.5 * (p - torch.tensor(TARGET)) ** 2).sum().backward()
        optimizer.step()
        if schedule is not None:
            schedule.step()
    return p.detach().numpy()


def start():
    return {"w": jnp.array([3.0, 1.0, -1.0], jnp.float64)}


@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_torch_weight_decay_is_coupled(name):
    torch = pytest.importorskip("torch")
    make = lambda p: getattr(torch.optim, name)(p, lr=0.05, weight_decay=0.3)
    inner = {"SGD": optax.sgd(0.05), "Adam": optax.adam(0.05, eps=1e-8)}[name]
    lam = convert.from_torch_weight_decay(convert.to_torch_weight_decay(0.3))
    found = trained(optax.chain(jr.add_penalty_gradient(jr.l2(lam)), inner), start(), pull)
    np.testing.assert_allclose(found["w"], trained_by_torch(torch, make), rtol=1e-6)


def test_torch_adamw():
    torch = pytest.importorskip("torch")
    make = lambda p: torch.optim.AdamW(p, lr=0.05, weight_decay=0.3)
    lam = convert.from_adamw(0.3)
    tx = jr.decoupled(optax.scale_by_adam(), jr.l2(lam), learning_rate=0.05)
    found = trained(tx, start(), pull)
    np.testing.assert_allclose(found["w"], trained_by_torch(torch, make), rtol=1e-6)


def test_adamw_scaled_follows_a_schedule_in_torch_and_optax():
    torch = pytest.importorskip("torch")
    make = lambda p: torch.optim.AdamW(p, lr=0.05, weight_decay=0.3)
    fade = lambda opt: torch.optim.lr_scheduler.LambdaLR(opt, lambda k: 0.9**k)
    rate = lambda count: 0.05 * 0.9**count
    tx = jr.decoupled(optax.scale_by_adam(), jr.l2(convert.from_adamw(0.3)), learning_rate=rate)
    ours = trained(tx, start(), pull)["w"]
    theirs = trained(optax.adamw(rate, weight_decay=0.3), start(), pull)["w"]
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    np.testing.assert_allclose(ours, trained_by_torch(torch, make, fade), rtol=1e-6)


def test_adamw_of_the_paper_ignores_the_base_rate():
    """Loshchilov & Hutter (2019), algorithm 2, line 12, written out."""
    base, decay, fade = 0.05, 0.01, lambda k: 0.9**k
    theta, m, v = np.array(start()["w"]), np.zeros(3), np.zeros(3)
    for k in range(20):
        g = theta - TARGET
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        m_hat, v_hat = m / (1 - 0.9 ** (k + 1)), v / (1 - 0.999 ** (k + 1))
        theta = theta - fade(k) * (base * m_hat / (np.sqrt(v_hat) + 1e-8) + decay * theta)
    lam = convert.from_adamw(decay, variant="paper", learning_rate=base)
    rate = lambda count: base * fade(count)
    tx = jr.decoupled(optax.scale_by_adam(), jr.l2(lam), learning_rate=rate)
    np.testing.assert_allclose(trained(tx, start(), pull)["w"], theta, rtol=1e-6)


def test_adamw_by_the_step_is_adafactors_decay():
    options = {"multiply_by_parameter_scale": False, "clipping_threshold": None}
    theirs = optax.adafactor(0.05, weight_decay_rate=0.02, **options)
    expected = trained(theirs, start(), pull)["w"]
    direction = optax.scale_by_factored_rms()
    lam = convert.from_adamw(0.02, variant="step", learning_rate=0.05)
    ours = jr.decoupled(direction, jr.l2(lam), learning_rate=0.05)
    unscaled = jr.decoupled(direction, jr.l2(0.02), learning_rate=0.05, scale_by_lr=False)
    np.testing.assert_allclose(trained(ours, start(), pull)["w"], expected, rtol=1e-5)
    np.testing.assert_allclose(trained(unscaled, start(), pull)["w"], expected, rtol=1e-5)


# Every pair.

ROUND_TRIPS = {
    "sklearn_ridge": ((3.0,), {"n": 60}),
    "sklearn_lasso": ((3.0,), {}),
    "sklearn_elastic_net": ((3.0, 0.3), {}),
    "sklearn_logistic": ((3.0,), {"n": 60}),
    "sklearn_mlp": ((3.0,), {"batch_size": 60}),
    "keras_l1": ((3.0,), {}),
    "keras_l2": ((3.0,), {}),
    "torch_weight_decay": ((3.0,), {}),
    "adamw": ((3.0,), {"variant": "paper", "learning_rate": 0.1}),
    "glmnet": ((3.0, 0.3), {"x_std": 2.0, "y_std": 5.0}),
    "lars": ((3.0,), {"n": 60}),
}
FROM = [n for n in convert.__all__ if n.startswith("from_")]


def as_tuple(value):
    return value if isinstance(value, tuple) else (value,)


def test_every_from_has_its_to_and_a_round_trip():
    pairs = {n.removeprefix("from_") for n in FROM}
    assert pairs == {n.removeprefix("to_") for n in convert.__all__ if n.startswith("to_")}
    assert pairs == set(ROUND_TRIPS)


@pytest.mark.parametrize("name", ROUND_TRIPS)
@pytest.mark.parametrize("kind", [float, np.float64, lambda x: jnp.array([x, 0.5 * x])])
def test_round_trip(name, kind):
    args, options = ROUND_TRIPS[name]
    first = kind(args[0])
    there = getattr(convert, f"from_{name}")(first, *args[1:], **options)
    back = getattr(convert, f"to_{name}")(*as_tuple(there), **options)
    np.testing.assert_allclose(as_tuple(back)[0], first, rtol=1e-12)
    for found, given in zip(as_tuple(back)[1:], args[1:]):
        np.testing.assert_allclose(found, given, rtol=1e-12)


@pytest.mark.parametrize("name", ROUND_TRIPS)
def test_numbers_stay_numbers_and_traced_values_pass(name):
    args, options = ROUND_TRIPS[name]
    function = getattr(convert, f"from_{name}")
    assert all(type(v) is float for v in as_tuple(function(*args, **options)))
    traced = jax.jit(lambda a: function(a, *args[1:], **options))(args[0])
    np.testing.assert_allclose(as_tuple(traced), as_tuple(function(*args, **options)), rtol=1e-12)


def test_a_list_is_a_grid():
    np.testing.assert_allclose(convert.from_sklearn_ridge([1.0, 10.0], n=10), [0.1, 1.0])
    np.testing.assert_allclose(convert.from_keras_l2([1.0, 10.0]), [2.0, 20.0])


@pytest.mark.parametrize("name", ROUND_TRIPS)
def test_negative_numbers_are_refused(name):
    args, options = ROUND_TRIPS[name]
    function = getattr(convert, f"from_{name}")
    argument = next(iter(inspect.signature(function).parameters))
    with pytest.raises(ValueError, match=f"from_{name}: `{argument}` must be >"):
        function(-1.0, *args[1:], **options)
    with pytest.raises(ValueError, match=f"from_{name}: `{argument}` must be >"):
        function(float("nan"), *args[1:], **options)


def test_arguments_are_refused_with_a_remedy():
    with pytest.raises(ValueError, match="from_sklearn_ridge: `n` must be > 0, got 0"):
        convert.from_sklearn_ridge(1.0, n=0)
    with pytest.raises(ValueError, match="from_sklearn_elastic_net: `l1_ratio` is a share between"):
        convert.from_sklearn_elastic_net(1.0, l1_ratio=1.5)
    with pytest.raises(ValueError, match="from_glmnet: `alpha` is a share between"):
        convert.from_glmnet(1.0, alpha=2.0)
    with pytest.raises(ValueError, match="to_sklearn_logistic: `lam` must be > 0"):
        convert.to_sklearn_logistic(0.0, n=10)
    with pytest.raises(ValueError, match="must be 'scaled', 'paper' or 'step', got 'torch'"):
        convert.from_adamw(0.1, variant="torch")
    with pytest.raises(ValueError, match="variant 'paper' needs the `learning_rate`"):
        convert.from_adamw(0.1, variant="paper")
    with pytest.raises(TypeError, match="from_keras_l2: `factor` must be a number"):
        convert.from_keras_l2("strong")
