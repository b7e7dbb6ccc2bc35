"""Penalties around an earlier solution, and what that solution has to say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxreg as jr

pytestmark = pytest.mark.formulas

close = np.testing.assert_allclose
RNG = np.random.default_rng(0)
OLD = {
    "body": {"kernel": jnp.asarray(RNG.normal(size=(3, 2)), jnp.float32), "bias": jnp.ones(2)},
}
NEW = {
    "body": {"kernel": OLD["body"]["kernel"] + 0.5, "bias": jnp.zeros(2)},
    "head": {"kernel": jnp.full((2, 4), 2.0)},
}
X = RNG.normal(size=(37, 3)).astype(np.float32)
Y = (RNG.uniform(size=37) < 0.5).astype(np.float32)
W = {"w": jnp.array([0.3, -1.0, 0.5]), "b": jnp.array(0.2)}
FISHER = jax.tree.map(lambda x: jnp.square(x) + 0.1, OLD)


def test_l2_sp_is_two_l2_terms():
    """Li et al.: alpha/2 |w_S - w_S0|^2 + beta/2 |w_rest|^2."""
    reg = jr.l2_sp(0.3, OLD, beta=0.7)
    expected = 0.15 * (6 * 0.5**2 + 2 * 1) + 0.35 * 8 * 4
    assert float(reg(NEW)) == pytest.approx(expected, rel=1e-6)
    written = jr.l2(0.3).around({"body": OLD["body"], "head": 0.0}).on("body*")
    written = written + jr.l2(0.7).on("head*")
    assert float(reg(NEW)) == pytest.approx(float(written(NEW)), rel=1e-6)
    for step in (0.0, 0.4, 30.0):
        jax.tree.map(
            lambda a, b: close(a, b, rtol=1e-5), reg.prox(NEW, step), written.prox(NEW, step)
        )
    assert jr.l2_sp(0.3, OLD)(NEW) == pytest.approx(0.15 * 3.5)


def test_ewc_is_a_weighted_distance():
    """Kirkpatrick et al.: lambda/2 sum F (w - w*)^2; a leaf that the old task lacks is free."""
    reg = jr.ewc(0.3, OLD, FISHER)
    fisher, gap = np.asarray(FISHER["body"]["kernel"]), 0.5
    expected = 0.15 * ((fisher * gap**2).sum() + 2 * 1.1)
    assert float(reg(NEW)) == pytest.approx(expected, rel=1e-6)
    z = reg.prox(NEW, 2.0)
    start, centre = np.asarray(NEW["body"]["kernel"]), np.asarray(OLD["body"]["kernel"])
    stiff = 2.0 * 0.3 * fisher
    close(z["body"]["kernel"], (start + stiff * centre) / (1 + stiff), rtol=1e-5)
    assert (z["head"]["kernel"] == NEW["head"]["kernel"]).all()
    # Leaf by leaf it is l2 with these weights around that centre.
    same = jr.l2(0.3, weights=FISHER["body"], center=OLD["body"])
    assert float(same(NEW["body"])) == pytest.approx(expected, rel=1e-6)


PULLS = {
    "l2_sp": jr.l2_sp(0.3, OLD),
    "l2_sp_beta": jr.l2_sp(0.3, OLD, beta=0.7),
    "l2_sp_by_layer": jr.l2_sp({"body": {"kernel": 0.1, "bias": 2.0}, "head": 1.0}, OLD, beta=0.7),
    "ewc": jr.ewc(0.3, OLD, FISHER),
    "ewc_prefix": jr.ewc(0.3, {"body": 0.25}, 2.0),
}


@pytest.mark.parametrize("name", PULLS)
def test_prox_solves_its_own_problem(name):
    reg = PULLS[name]
    z = reg.prox(NEW, 0.7)
    pull = jax.tree.map(lambda a, b: (a - b) / 0.7, z, NEW)
    assert float(reg.subdiff_distance(z, pull)) < 1e-5
    by_grad = jax.tree.map(jnp.add, pull, jax.grad(lambda p: reg(p))(z))
    assert max(float(jnp.abs(g).max()) for g in jax.tree.leaves(by_grad)) < 1e-5
    steps = jax.tree.map(lambda x: jnp.full_like(x, 0.7), NEW)
    jax.tree.map(lambda a, b: close(a, b, rtol=1e-6), reg.prox(NEW, steps), z)


@pytest.mark.parametrize("name", PULLS)
def test_conjugate_is_attained_at_the_gradient(name):
    """R(z) + R*(grad R(z)) = <z, grad R(z)>."""
    reg = PULLS[name]
    dual = jax.grad(lambda p: reg(p))(NEW)
    inner = sum(float(jnp.vdot(a, b)) for a, b in zip(*map(jax.tree.leaves, (NEW, dual))))
    assert float(reg(NEW) + reg.conjugate(dual)) == pytest.approx(inner, rel=1e-5)


def test_conjugate_of_an_unpenalized_leaf_is_infinite():
    assert float(jr.l2_sp(0.3, OLD).conjugate(NEW)) == np.inf


def test_sums_stay_exact_because_it_is_an_l2_term():
    other = jax.tree.map(lambda x: x - 1.0, OLD)
    reg = jr.ewc(0.3, OLD, FISHER) + jr.ewc(0.5, other, FISHER) + jr.l1(0.2).on("body*")
    z = reg.prox(NEW, 0.7)
    pull = jax.tree.map(lambda a, b: (a - b) / 0.7, z, NEW)
    assert float(reg.subdiff_distance(z, pull)) < 1e-5
    assert (z["head"]["kernel"] == NEW["head"]["kernel"]).all()


def test_support_says_which_leaves_are_held():
    paths = sorted(["body/bias", "body/kernel", "head/kernel"])
    assert dict(zip(paths, PULLS["l2_sp"].support(NEW))) == {
        "body/bias": True,
        "body/kernel": True,
        "head/kernel": False,
    }
    assert all(PULLS["l2_sp_beta"].support(NEW))


def test_strength_zero_is_the_identity_to_the_bit():
    params = jax.tree.map(lambda x: x * 1e-3 + 1e8, NEW)
    for reg in (jr.l2_sp(0.0, OLD), jr.ewc(0.0, OLD, FISHER), jr.ewc(1.0, OLD, 0.0)):
        same = jax.tree.map(lambda a, b: bool((a == b).all()), reg.prox(params, 1.0), params)
        assert all(jax.tree.leaves(same))
    assert PULLS["ewc"].prox(OLD, 3.0)["body"]["bias"].tolist() == [1, 1]


def test_selection_does_not_disturb_the_match():
    """The centre is the whole old model; .on leaves out what is not selected."""
    reg = jr.l2_sp(0.3, OLD).on(jr.kernels & jr.path("body/*"))
    assert float(reg(NEW)) == pytest.approx(0.15 * 6 * 0.25)
    assert reg.prox(NEW, 1.0)["body"]["bias"].tolist() == [0, 0]


def test_it_is_a_value():
    """One program for every strength; derivatives by lam, centre and information."""
    traces = []

    @jax.jit
    def value(reg, params):
        traces.append(1)
        return reg(params)

    for lam in (0.1, 0.2, 0.3):
        value(jr.ewc(lam, OLD, FISHER), NEW)
    assert len(traces) == 1
    reg = jr.ewc(0.3, OLD, FISHER)
    slope = jax.grad(lambda r: r(NEW))(reg)
    assert float(slope.lam) == pytest.approx(float(reg(NEW)) / 0.3, rel=1e-6)
    close(slope.fisher["body"]["kernel"], 0.15 * 0.25, rtol=1e-5)
    close(slope.center["body"]["bias"], 0.3 * 1.1, rtol=1e-6)
    sweep = jax.vmap(lambda lam: jr.l2_sp(lam, OLD)(NEW))(jnp.array([0.1, 0.4]))
    close(sweep, [0.175, 0.7], rtol=1e-5)


def test_huge_gaps_cost_nothing_where_nothing_is_held():
    params = {"w": jnp.array([1e30, 3.0])}
    reg = jr.ewc(2.0, {"w": 0.0}, {"w": jnp.array([0.0, 1.0])})
    assert float(reg(params)) == 9.0
    assert jax.grad(lambda p: reg(p))(params)["w"].tolist() == [0, 6]


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda: jr.l2_sp(1.0, {"bdy": 0.0})(NEW),
            r"l2_sp: `center` has the leaf 'bdy', which the parameters lack; the nearest are \['body",
        ),
        (
            lambda: jr.l2_sp(1.0, {"body": {"kernel": jnp.ones((2, 2))}})(NEW),
            r"l2_sp: `center` has shape \(2, 2\) on the leaf 'body/kernel' of shape \(3, 2\)",
        ),
        (
            lambda: jr.ewc(1.0, OLD, {"body": {"bias": 1.0}})(NEW),
            "ewc: `fisher` has no leaf 'body/kernel', which `center` has",
        ),
        (lambda: jr.ewc(1.0, OLD, {"x": 1.0})(NEW), "ewc: `fisher` has the leaf 'x'"),
        (lambda: jr.ewc(1.0, OLD, -1.0), "ewc: `fisher` must be >= 0 and not NaN, got -1"),
        (lambda: jr.l2_sp(-1.0, OLD), "l2_sp: `lam` must be >= 0"),
        (lambda: jr.l2_sp(1.0, jnp.array([jnp.nan])), "l2_sp: `center` must not be NaN"),
        (lambda: jr.l2_sp(1.0, OLD, beta=-1.0), "l2_sp: `beta` must be >= 0"),
        (lambda: jr.l2_sp(1.0, OLD).lambda_max(NEW), "l2_sp: it pulls to its center and not to 0"),
    ],
)
def test_refusals(call, text):
    with pytest.raises(ValueError, match=text):
        call()


class TestFisher:
    """The diagonal of the empirical Fisher information."""

    @staticmethod
    def loss(params, x, y):
        logit = x @ params["w"] + params["b"]
        return jnp.mean(jnp.logaddexp(0.0, logit) - y * logit)

    @staticmethod
    def expected():
        """Logistic regression: example i has the gradient (p_i - y_i) x_i."""
        p = 1 / (1 + np.exp(-(X @ np.asarray(W["w"]) + 0.2)))
        square = (p - Y) ** 2
        return (square[:, None] * X**2).mean(0), square.mean()

    @pytest.mark.parametrize("batch_size", [1, 8, 37, 100])
    def test_logistic_regression(self, batch_size):
        data = (X, Y)
        found = jr.penalties.fisher_diagonal(self.loss, W, data, batch_size=batch_size)
        by_w, by_b = self.expected()
        close(found["w"], by_w, rtol=1e-5)
        close(found["b"], by_b, rtol=1e-5)

    def test_labels_of_the_model_give_the_fisher_information(self):
        """In expectation over the model's labels it is p (1 - p) x^2, the loss's curvature."""
        x = X[:1]
        by_label = [
            jr.penalties.fisher_diagonal(self.loss, W, (x, np.array([y])))["w"] for y in (0.0, 1.0)
        ]
        p = 1 / (1 + np.exp(-(x @ np.asarray(W["w"]) + 0.2)[0]))
        hessian = jax.hessian(lambda w: self.loss({**W, "w": w}, x, 1.0))(W["w"])
        close((1 - p) * by_label[0] + p * by_label[1], jnp.diag(hessian), rtol=1e-5)

    def test_low_precision_is_accumulated_in_float32(self):
        half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), W)
        found = jr.penalties.fisher_diagonal(self.loss, half, (X, Y))
        assert found["w"].dtype == jnp.float32
        close(found["w"], self.expected()[0], rtol=5e-2)

    def test_with_ewc_the_quadratic_case_is_training_on_both_tasks(self):
        """Gaussian means: the old loss is its own Laplace approximation when F is the curvature."""
        old, new = jnp.array([0.0, 2.0, 4.0]), jnp.array([10.0, 12.0])
        centre = jnp.mean(old)
        reg = jr.ewc(3 / 2, centre, 1.0)
        loss = lambda w: jnp.mean(0.5 * (w - new) ** 2)
        w = centre
        for _ in range(60):
            w = reg.prox(w - 0.3 * jax.grad(loss)(w), 0.3)
        assert float(w) == pytest.approx(float(jnp.mean(jnp.concatenate([old, new]))), rel=1e-5)

    @pytest.mark.parametrize(
        ("data", "text"),
        [
            ((np.ones((3, 2)), np.ones(2)), r"got the lengths \[3, 2\]"),
            ((), r"got the lengths \[\]"),
            ((np.ones((0, 3)), np.ones(0)), r"at least one\) of examples .* \[0, 0\]"),
            ((np.ones((3, 3)), 1.0), r"got the lengths \[3, None\]"),
        ],
    )
    def test_refuses_data_without_a_common_length(self, data, text):
        with pytest.raises(ValueError, match=text):
            jr.penalties.fisher_diagonal(self.loss, W, data)

    def test_refuses_a_batch_size_below_one(self):
        with pytest.raises(ValueError, match="`batch_size` must be an integer >= 1, got 0"):
            jr.penalties.fisher_diagonal(self.loss, W, (X, Y), batch_size=0)


class TestAdaptiveWeights:
    """1 / (|w| + epsilon)^power."""

    def test_formula_and_structure(self):
        first = {"w": jnp.array([0.0, -2.0]), "n": jnp.array(3)}
        found = jr.penalties.adaptive_weights(first, 2.0, epsilon=0.5)
        close(found["w"], [4.0, 0.16], rtol=1e-6)
        assert found["n"] == 1
        close(jr.penalties.adaptive_weights(jnp.array([3.0, 0.0]), 0.0), 1.0)
        assert jr.penalties.adaptive_weights(jnp.zeros(2, jnp.bfloat16)).dtype == jnp.float32

    def test_adaptive_lasso_spares_what_was_large(self):
        first = jnp.array([4.0, 0.1, -2.0])
        weights = jr.penalties.adaptive_weights(first, epsilon=1e-6)
        z = jr.l1(0.5, weights=weights).prox(first, 1.0)
        close(z, [4 - 0.125, 0.0, -2 + 0.25], rtol=1e-4)

    def test_reweighting_descends_on_the_log_sum(self):
        """Candes et al.: l1 with these weights majorises the log-sum, so its steps never rise."""
        rng = np.random.default_rng(1)
        A = jnp.asarray(rng.normal(size=(8, 12)), jnp.float32)
        b = A @ jnp.zeros(12).at[jnp.array([1, 5])].set(jnp.array([2.0, -3.0]))
        loss = lambda w: 0.5 * jnp.sum((A @ w - b) ** 2)
        step = 1 / float(jnp.linalg.norm(A, 2) ** 2)

        @jax.jit
        def move(w):
            reg = jr.l1(0.3, weights=jr.penalties.adaptive_weights(w, epsilon=0.1))
            return reg.prox(w - step * jax.grad(loss)(w), step)

        w, costs = jnp.ones(12), []
        for _ in range(200):
            costs.append(float(loss(w) + jr.log_sum(0.3, 0.1)(w)))
            w = move(w)
        assert (np.diff(costs) <= 1e-5).all()
        assert costs[-1] < 0.2 * costs[0]

    def test_no_gradient_flows_back(self):
        slope = jax.grad(lambda w: jnp.sum(jr.penalties.adaptive_weights(w)))(jnp.ones(3))
        assert slope.tolist() == [0, 0, 0]

    def test_refusals(self):
        with pytest.raises(ValueError, match="adaptive_weights: `epsilon` must be > 0, got 0"):
            jr.penalties.adaptive_weights(jnp.ones(2), epsilon=0.0)
        with pytest.raises(ValueError, match="adaptive_weights: `power` must be >= 0"):
            jr.penalties.adaptive_weights(jnp.ones(2), -1.0)
