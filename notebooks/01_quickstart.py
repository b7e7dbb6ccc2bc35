# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Quickstart: a penalty in five steps
#
# Training with a penalty minimises
#
# $$J(\theta) = L(\theta) + \frac{\lambda}{2}\sum_i \theta_i^2, \qquad
# \nabla J(\theta) = \nabla L(\theta) + \lambda\,\theta .$$
#
# $L$ is the **mean** loss over the examples, and $\lambda/2$ carries the half, so that the gradient of
# the penalty is $\lambda\theta$ and nothing else. This page goes through the five steps (initialise,
# compute $J$, compute $\nabla J$, update, repeat), checks the answer against a closed form, sets L1
# beside L2, looks at what $\lambda$ does, and shows the two classic mistakes.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import jaxreg as jr

key = jax.random.key(0)

# %% [markdown]
# ## The example: a linear model on 100 x 10 data
#
# Inputs, targets and parameters are uniform on [0, 1).

# %%
kx, ky, kt = jax.random.split(key, 3)
X = jax.random.uniform(kx, (100, 10))
y = jax.random.uniform(ky, (100,))


def loss(theta, X, y):
    return 0.5 * jnp.mean((X @ theta - y) ** 2)


# %% [markdown]
# The penalty is a value, and the objective a function of the parameters *and* the penalty.

# %%
lam = 0.01
reg = jr.l2(lam)
objective = jr.penalized(loss)  # (theta, penalty, X, y) -> L + R
reg

# %% [markdown]
# **The five steps.** `jax.grad` derives the gradient of the objective that was stated, so the two cannot
# drift apart; optax does the update; `lax.scan` repeats it inside one compiled program.

# %%
optimizer = optax.sgd(0.3)


@jax.jit
def train(theta, penalty):
    def step(carry, _):
        theta, state = carry
        J, grad = jax.value_and_grad(objective)(theta, penalty, X, y)  # 2. J   3. its gradient
        updates, state = optimizer.update(grad, state, theta)
        return (optax.apply_updates(theta, updates), state), J  # 4. update

    carry = theta, optimizer.init(theta)
    (theta, _), history = jax.lax.scan(step, carry, length=4000)  # 5. repeat
    return theta, history


theta0 = jax.random.uniform(kt, (10,))  # 1. initialise
theta, history = train(theta0, reg)
print(f"J went from {history[0]:.4f} to {history[-1]:.4f}")

# %% [markdown]
# ## Is it right? Ridge has a closed form
#
# With the mean loss $\frac{1}{2n}\|X\theta-y\|^2$, setting the gradient to zero gives
# $\theta = (X^\top X/n + \lambda I)^{-1} X^\top y / n$.

# %%
n, d = X.shape
closed = jnp.linalg.solve(X.T @ X / n + lam * jnp.eye(d), X.T @ y / n)
error = float(jnp.abs(theta - closed).max())
print(f"largest difference from the closed form: {error:.1e}")
assert error < 1e-5

# %% [markdown]
# The same penalty can also reach the weights inside an optax chain. Under plain SGD the two ways are the
# same arithmetic, and both are `optax.add_decayed_weights(lam)`.

# %%
chain = optax.chain(jr.add_penalty_gradient(reg), optax.sgd(0.3))
decayed = optax.chain(optax.add_decayed_weights(lam), optax.sgd(0.3))


def run(tx, theta, steps=500):
    def step(carry, _):
        theta, state = carry
        updates, state = tx.update(jax.grad(loss)(theta, X, y), state, theta)
        return (optax.apply_updates(theta, updates), state), None

    return jax.lax.scan(step, (theta, tx.init(theta)), length=steps)[0][0]


same = jnp.abs(run(chain, theta0) - run(decayed, theta0)).max()
print("difference between the two chains:", float(same))
assert same == 0

# %% [markdown]
# ## L1 makes zeros, L2 shrinks
#
# Now the targets depend on three of the ten inputs. L1 goes through its proximal operator
# (`jr.proximal`): a gradient step of |θ| would only jitter around zero, the prox lands on it.

# %%
true = jnp.zeros(10).at[jnp.array([0, 3, 7])].set(jnp.array([2.0, -1.5, 1.0]))
y3 = X @ true + 0.1 * jax.random.normal(ky, (100,))
centred = (X - X.mean(0), y3 - y3.mean())


def fit(penalty, lr=0.5):
    tx = jr.proximal(optax.identity(), penalty, learning_rate=lr)

    def step(carry, _):
        theta, state = carry
        updates, state = tx.update(jax.grad(loss)(theta, *centred), state, theta)
        return (optax.apply_updates(theta, updates), state), None

    return jax.lax.scan(step, (jnp.zeros(10), tx.init(jnp.zeros(10))), length=3000)[0][0]


# %% [markdown]
# A path of answers, one for each λ, is one program: λ is a leaf of the penalty, so `map_grid`
# vectorises over it.

# %%
lams = jnp.logspace(-4, 0, 60)
l1_path = jr.map_grid(fit, jr.grid(jr.l1, lam=lams))
l2_path = jr.map_grid(fit, jr.grid(jr.l2, lam=lams))

figure, axes = plt.subplots(1, 2, figsize=(10, 3.4), sharey=True)
for axis, path, name in zip(axes, (l1_path, l2_path), ("L1: exact zeros", "L2: shrinks, no zeros")):
    axis.semilogx(lams, path, lw=1.6)
    axis.axhline(0, color="0.7", lw=0.8, zorder=0)
    axis.set(title=name, xlabel="λ")
axes[0].set_ylabel("coefficient")
figure.tight_layout()

# %%
k = int(jnp.argmin(jnp.abs(lams - 0.02)))
zeros = {"l1": int((l1_path[k] == 0).sum()), "l2": int((l2_path[k] == 0).sum())}
print(f"exact zeros at λ = {lams[k]:.3f}: {zeros}; the truth has 7")
assert zeros == {"l1": 7, "l2": 0}

# %% [markdown]
# The smallest λ at which every coefficient is zero follows from the gradient at zero, and the
# distance to the subdifferential certifies each answer.

# %%
at_zero = jax.grad(loss)(jnp.zeros(10), *centred)
print("λ_max =", float(jr.l1(1.0).lambda_max(at_zero)))
grad = jax.grad(loss)(l1_path[k], *centred)
print("certificate:", float(jr.l1(lams[k]).subdiff_distance(l1_path[k], grad)))
assert jr.l1(lams[k]).subdiff_distance(l1_path[k], grad) < 1e-5

# %% [markdown]
# ## What λ does: a small net
#
# Forty noisy points and a net with more parameters than points. The sweep trains every λ on every fold,
# in one compiled program; biases are left alone.

# %%
rng = np.random.default_rng(0)
x1 = np.sort(rng.uniform(-3, 3, (40, 1))).astype(np.float32)
y1 = (np.sin(1.5 * x1[:, 0]) + 0.4 * rng.normal(size=40)).astype(np.float32)


def init(key):
    k1, k2, k3 = jax.random.split(key, 3)
    return {
        "a": {"kernel": 2 * jax.random.normal(k1, (1, 64)), "bias": jax.random.normal(k2, (64,))},
        "b": {"kernel": jax.random.normal(k3, (64,)) / 8, "bias": jnp.zeros(())},
    }


def predict(p, x):
    hidden = jnp.tanh(x @ p["a"]["kernel"] + p["a"]["bias"])
    return hidden @ p["b"]["kernel"] + p["b"]["bias"]


def error(p, x, y):
    return 0.5 * jnp.mean((predict(p, x) - y) ** 2)


def trainer(reg):
    return jr.Trainer(init, error, optax.chain(jr.add_penalty_gradient(reg), optax.adam(1e-2)))


grid = jr.grid(lambda lam: jr.l2(lam).on(jr.kernels), lam=jnp.logspace(-7, 0, 22))
result = jr.sweep(trainer, grid, (x1, y1), folds=5, seeds=2, steps=3000, key=key, progress=False)
display = result.plot()

# %% [markdown]
# To the left the net follows the noise: training error low, validation error high. To the right it cannot
# bend at all. In between lies the choice; the paired rule takes the strongest penalty that, fold by fold,
# is no worse than the best by more than the noise of that difference.

# %%
best, careful = result.best("min"), result.best("paired")
weakest = float(result.mean("loss")[0])
print(f"validation loss: {best.mean:.4f} ± {best.stderr:.4f} at λ = {best.coords['lam']:.1e} (min)")
print(f"                 {careful.mean:.4f} at λ = {careful.coords['lam']:.1e} (paired)")
print(f"                 {weakest:.4f} at λ = {grid.coords['lam'][0]:.1e} (the weakest)")
assert best.mean < weakest


# %%
def refit(lam):
    reg = jr.l2(lam).on(jr.kernels)
    return jr.fit(trainer, reg, (x1, y1), steps=3000, key=key).params


line = np.linspace(-3, 3, 300)[:, None]
figure, axis = plt.subplots(figsize=(7, 3.4))
axis.plot(x1, y1, ".", color="0.5", label="data")
axis.plot(line, np.sin(1.5 * line), color="0.7", ls="--", label="truth")
for lam_k, name in ((0.0, "λ = 0"), (best.coords["lam"], "chosen"), (1.0, "λ = 1")):
    axis.plot(line, predict(refit(lam_k), line), lw=1.6, label=name)
axis.legend(ncols=5, loc="upper center", fontsize=8)
axis.set_ylim(-2.2, 2.8)
figure.tight_layout()

# %% [markdown]
# ## Two classic mistakes
#
# **One: 2λθ for the gradient of (λ/2)Σθ².** The half is there to cancel the 2. A hand-written gradient
# that forgets it trains with twice the λ that it reports.


# %%
def descend(grad_fn, steps=4000, lr=0.3):
    return jax.lax.fori_loop(0, steps, lambda _, t: t - lr * grad_fn(t), theta0)


wrong = descend(lambda t: jax.grad(loss)(t, X, y) + 2 * lam * t)
doubled = jnp.linalg.solve(X.T @ X / n + 2 * lam * jnp.eye(d), X.T @ y / n)
print("distance to the ridge answer for λ :", float(jnp.abs(wrong - closed).max()))
print("distance to the ridge answer for 2λ:", float(jnp.abs(wrong - doubled).max()))
assert jnp.abs(wrong - doubled).max() < 1e-5 < jnp.abs(wrong - closed).max()

# %% [markdown]
# **Two: a sum gradient for a mean loss.** The loss is a mean over n examples, but its hand-written gradient
# $X^\top(X\theta - y)$ is that of the sum. The data then weigh n times more, and λ in effect is λ/n:
# a penalty that hardly exists.

# %%
wrong = descend(lambda t: X.T @ (X @ t - y) + lam * t, lr=0.3 / n)
tiny = jnp.linalg.solve(X.T @ X / n + lam / n * jnp.eye(d), X.T @ y / n)
print("distance to the ridge answer for λ  :", float(jnp.abs(wrong - closed).max()))
print("distance to the ridge answer for λ/n:", float(jnp.abs(wrong - tiny).max()))
assert jnp.abs(wrong - tiny).max() < 1e-3 < jnp.abs(wrong - closed).max()

# %% [markdown]
# With `jr.penalized` and `jax.grad` neither can happen: the gradient is that of the objective as it is
# written.
