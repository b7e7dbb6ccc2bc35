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
# # Codes: β of a variational autoencoder, and sparsity
#
# What is penalised here is no weight but a code: how many nats a variational autoencoder (VAE) spends on a
# row, and how many units of a sparse autoencoder are active. More of either always reconstructs better, so
# there is no best λ by the data loss. What a sweep finds is a frontier: the least loss at each price.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
import pandas as pd
from sklearn.datasets import load_digits

import jaxreg as jr

plt.rcParams.update({"font.size": 8, "figure.constrained_layout.use": True})

X = load_digits().data
X = (X / 16).astype(np.float32)[np.random.default_rng(0).permutation(len(X))]
pool, test = X[:1200], X[1200:]
LATENTS, WIDTH = 8, 64


# %% [markdown]
# ## The model
#
# Pixels are between 0 and 1, and the data loss is the negative log likelihood of a Bernoulli for each,
# **summed** over pixels: the distortion, in nats. The price is the KL of the code from its prior, summed
# over latents: the rate, in nats too.


# %%
def init(key):
    sizes = {
        "in": (64, WIDTH),
        "code": (WIDTH, 2 * LATENTS),
        "out": (LATENTS, WIDTH),
        "pixels": (WIDTH, 64),
    }
    made = zip(sizes.items(), jax.random.split(key, len(sizes)))
    return {
        name: {"kernel": jax.random.normal(k, size) / size[0] ** 0.5, "bias": jnp.zeros(size[1])}
        for (name, size), k in made
    }


def dense(layer, x):
    return x @ layer["kernel"] + layer["bias"]


def encode(params, x):
    return jnp.split(dense(params["code"], jax.nn.relu(dense(params["in"], x))), 2, -1)


def decode(params, z):
    return dense(params["pixels"], jax.nn.relu(dense(params["out"], z)))


def drawn(code, noise):
    mean, log_var = code
    return mean + jnp.exp(log_var / 2) * noise


def nll(params, x, z):
    return jnp.sum(optax.sigmoid_binary_cross_entropy(decode(params, z), x), -1)


# %% [markdown]
# The loss draws one code for each row. It is judged with eight, by a key that never changes, so that all
# points are judged on the same draws. The mean code alone would flatter models of a low rate: it hides what
# their noise costs. What the sweep records of the term is β times the rate; the rate itself is a metric.


# %%
def distortion(params, x):
    noise = jax.random.normal(jax.random.key(5), (8, len(x), LATENTS))
    return jnp.mean(nll(params, x, drawn(encode(params, x), noise)))


def rate(params, x):
    return jr.terms.kl()(*encode(params, x))


def vae(point):
    def loss(params, x, key):
        code = encode(params, x)
        z = drawn(code, jax.random.normal(key, code[0].shape))
        return jnp.mean(nll(params, x, z)), {"kl": point["kl"](*code)}

    def judged(params, x):
        return distortion(params, x), {"kl": point["kl"](*encode(params, x))}

    optimizer = optax.adam(2e-3)
    return jr.Trainer(init, loss, optimizer, {"rate": rate}, eval_loss=judged, stochastic=True)


# %% [markdown]
# ## Rate and distortion
#
# Eight β and five folds, 40 autoencoders in one program.

# %%
betas = 0.05 * 2.0 ** np.arange(8)
result = jr.sweep(
    vae,
    jr.grid(lambda beta: {"kl": jr.terms.kl(beta)}, beta=betas),
    (pool,),
    folds=5,
    steps=2000,
    batch_size=50,
    evals=1,
    key=jax.random.key(0),
    progress=False,
)
frontier = result.frontier("rate")
print(frontier)
_ = frontier.plot(plt.subplots(figsize=(5, 3))[1])

# %% [markdown]
# Every β is worth having at its rate, and the curve flattens to the right: each further nat of rate buys
# less. β is the price of a nat, and a model trained at it stands where the slope is −β: between two points
# of the frontier the slope lies between their β.

# %%
fall = -np.diff(frontier.y) / np.diff(frontier.x)
for low, high, slope in list(zip(betas, betas[1:], fall))[:5]:
    print(f"β from {low:<4g} to {high:<4g} slope −{slope:.2f}")
# %% [markdown]
# At the two highest prices nothing is bought: the code is empty.
#
# Three of them on digits that were not trained on: above what went in, then what comes out of the mean
# code, then samples from the prior.


# %%
def mosaic(rows):
    """Rows of images [r, n, 64] as one picture."""
    framed = lambda image: np.pad(image.reshape(8, 8), 1)
    return np.block([[framed(image) for image in row] for row in np.asarray(rows)])


shown = [0, 4, 7]
prior = jax.random.normal(jax.random.key(1), (7, LATENTS))
figure, axes = plt.subplots(1, 3, figsize=(7.5, 1.4))
for ax, k in zip(axes, shown):
    params = result.lane(k)
    out, samples = (jax.nn.sigmoid(decode(params, z)) for z in (encode(params, test[:7])[0], prior))
    ax.imshow(mosaic([test[:7], out, samples]), cmap="gray_r", vmin=0, vmax=1)
    ax.set(
        xticks=[], yticks=[4.5, 14.5, 24.5], yticklabels=["in", "out", "sample"] if k == 0 else []
    )
    ax.set_title(f"β = {betas[k]:g}, rate {frontier.x[k]:.1f}", fontsize=8)
    ax.tick_params(length=0)
# %% [markdown]
# A low β copies best, and some of its samples are no digits: its codes leave gaps in the prior, which the
# decoder has never seen. A high β does not look at its input, and every sample is the mean digit.
#
# ## Which β is that?
#
# β is 1 for the evidence lower bound (ELBO) only where both are sums. A loss that is a mean over pixels, as
# many are written, makes the rate count 64 times as much:

# %%
print("strength 1 beside a mean over pixels is β =", jr.terms.effective_beta(1.0, 64).item())
print("and β = 1 is the strength", 1 / 64)

# %% [markdown]
# That β is far beyond the end of the frontier: such a model learns nothing, and nothing in its loss looks
# wrong.
#
# ## Does regularising it more pay?
#
# The score is now the ELBO itself, β = 1, on digits that nothing was trained on or chosen by. With 120
# digits to train on a VAE overfits, and there are many remedies: another β while training; β that grows
# over the first steps; free bits, a rate without a price; a penalty on weights. They are one program, since
# plain training is free bits of 0, a rise over one step and a penalty of 0.


# %%
def log_ratios(params, x, n):
    """log p(x, z) / q(z | x) of n codes a row, [n, rows]."""
    code = encode(params, x)
    noise = jax.random.normal(jax.random.key(7), (n, len(x), LATENTS))
    z = drawn(code, noise)
    return jnp.sum(noise**2 - z**2 + code[1], -1) / 2 - nll(params, x, z)


def elbo(params, x, n=8):
    return jnp.mean(log_ratios(params, x, n))


def weighted_bound(params, x, n=8):
    return jnp.mean(jax.nn.logsumexp(log_ratios(params, x, n), 0) - jnp.log(n))


measures = {"ELBO": elbo, "weighted bound": weighted_bound}


def regularised(point):
    def loss(params, x, key, step):
        code = encode(params, x)
        z = drawn(code, jax.random.normal(key, code[0].shape))
        grown = jnp.minimum((step + 1) / point["rise"], 1)
        return jnp.mean(nll(params, x, z)), {"kl": grown * point["kl"](*code)}

    def judged(params, x):
        return distortion(params, x), {"kl": point["kl"](*encode(params, x))}

    optimizer = optax.chain(jr.add_penalty_gradient(point["l2"]), optax.adam(2e-3))
    return jr.Trainer(init, loss, optimizer, measures, eval_loss=judged, stochastic=True)


plain = {"beta": 1.0, "bits": 0.0, "rise": 1.0, "lam": 0.0}
tried = {
    "none": ("beta", [1.0]),
    "β": ("beta", [0.5, 0.7, 1.4, 2.0]),
    "β that grows": ("rise", [500.0, 1000.0, 2000.0]),
    "free bits": ("bits", [0.03, 0.1, 0.3]),
    "l2 of weights": ("lam", [0.003, 0.01, 0.03, 0.1]),
}
rows = pd.DataFrame([
    {"remedy": remedy, **plain, axis: value}
    for remedy, (axis, values) in tried.items() for value in values
])  # fmt: skip

# %% [markdown]
# Ten draws: each trains on 120 digits of its own and is validated on another 120. Which variant of a remedy
# is taken is decided by the validation digits of all draws; the 597 test digits only judge. There are two
# measures: the ELBO, and with several codes a digit the importance-weighted bound, which lies closer to the
# log likelihood. What gains an ELBO and no bound is a better encoder, and no better model of digits.

# %%
blocks = np.arange(len(pool)).reshape(10, 120)
swept = jr.sweep(
    regularised,
    jr.points(
        lambda beta, bits, rise, lam: {
            "kl": jr.terms.free_bits(beta, bits),
            "rise": rise,
            "l2": jr.l2(lam).on(jr.kernels),
        },
        **{name: rows[name].to_numpy() for name in plain},
    ),
    (pool,),
    folds=list(zip(blocks, np.roll(blocks, 1, 0))),
    steps=2000,
    batch_size=40,
    evals=1,
    key=jax.random.key(0),
    progress=False,
)


# %%
def taken(remedy, measure):
    """The variant of the best validation mean."""
    among = rows.index[rows["remedy"] == remedy]
    return among[np.argmax(swept.mean(measure)[among])]


@jax.jit
@jax.vmap
def tested(params):
    """On the test digits, with 64 codes each."""
    return {name: measure(params, test, 64) for name, measure in measures.items()}


def of_draws(remedy, measure):
    k = taken(remedy, measure)
    return np.asarray(tested(jax.tree.map(lambda a: a[k, :, 0], swept.params))[measure], float)


gains = {}
for remedy, (axis, _) in list(tried.items())[1:]:
    for measure in measures:
        apart = of_draws(remedy, measure) - of_draws("none", measure)
        gains[remedy, measure] = {
            "taken": f"{axis} = {rows[axis][taken(remedy, measure)]:g}", "gain": apart.mean(),
            "standard error": apart.std(ddof=1) / 10**0.5,
        }  # fmt: skip
gains = pd.DataFrame(gains).T.infer_objects().rename_axis(["remedy", "measure"])
gains["in errors"] = gains["gain"] / gains["standard error"]
gains.round({"gain": 3, "standard error": 3, "in errors": 1})

# %% [markdown]
# Against plain training at β = 1, only the penalty on weights gains more than two standard errors of the
# paired difference, and it does in both measures. It is little: a fifth of a nat of ELBO, and a tenth of
# that of the bound, so most of it is a better encoder. Another β gains an error or two of ELBO and loses
# as much in the bound: nothing to count on. Of free bits the fewest are taken, and make no difference. A β
# that grows loses, at the shortest rise that was tried: on so few digits, steps at a low β are steps to
# overfit. (Where training ends in an empty code at β = 1, growing and free bits are the remedies; here it
# does not.)
#
# ## Sparse codes
#
# A sparse autoencoder has more units than pixels and few of them active. Two ways there: an L1 term on
# activations, whose λ says how sparse, and keeping the k largest, which says it outright. The decoder's
# rows have length 1: else codes would shrink and the decoder grow.

# %%
UNITS = 128
seen, held_out = X[:1200], X[1200:]


def batches(epoch):
    order = np.random.default_rng(epoch).permutation(len(seen))
    return (seen[order[i : i + 50]] for i in range(0, len(seen), 50))


def start(key):
    up = jax.random.normal(key, (64, UNITS)) / 8
    return {"up": up, "bias": jnp.zeros(UNITS), "down": up.T, "center": jnp.asarray(seen.mean(0))}


def codes(params, x, k):
    h = jax.nn.relu((x - params["center"]) @ params["up"] + params["bias"])
    return h if k is None else jr.terms.top_k(h, k)


def sparse(k=None):
    """Of a point -> its trainer; with k units kept, or as many as the term leaves."""

    def error(params, x):
        down = params["down"] / jnp.linalg.norm(params["down"], axis=1, keepdims=True)
        return jnp.mean(jnp.sum((codes(params, x, k) @ down + params["center"] - x) ** 2, -1))

    def active(params, x):
        return jnp.mean(jnp.sum(codes(params, x, k) > 0, -1))

    def trainer(point):
        def loss(params, x):
            terms = {name: term(codes(params, x, k)) for name, term in point["terms"].items()}
            return error(params, x), terms

        return jr.Trainer(start, loss, optax.adam(point["lr"]), {"active units": active})

    return trainer


# %% [markdown]
# The rows come as a stream of batches, as the activations of a large model would, and each batch is read
# once for all lanes. λ × learning rate × ten seeds are one program. A k is a shape and no number, so each
# is a program of its own, and `join` makes one result of them.

# %%
options = {
    "validation": (held_out,), "seeds": 10, "steps": 600, "evals": 1, "key": jax.random.key(2),
    "progress": False,
}  # fmt: skip
rates, ks = [2e-3, 8e-3], [4, 8, 16, 32]
by_l1 = jr.sweep(
    sparse(),
    jr.grid(
        lambda lam, lr: {"terms": {"l1": jr.terms.activity_l1(lam)}, "lr": lr},
        lam=np.geomspace(3, 300, 7),
        lr=rates,
    ),
    jr.stream(batches),
    **options,
)
without = jr.grid(lambda lr: {"terms": {}, "lr": lr}, lr=rates)
by_k = jr.SweepResult.join(
    [jr.sweep(sparse(k), without, jr.stream(batches), **options) for k in ks], k=ks
)

fronts = {"L1": by_l1.frontier("active units"), "top-k": by_k.frontier("active units")}
ax = plt.subplots(figsize=(5, 3))[1]
for color, (label, front) in zip(["#0072B2", "#D55E00"], fronts.items()):
    front.plot(ax, color=color, label=label)
_ = ax.set(xscale="log", ylabel="squared error")


# %% [markdown]
# Hollow points are beaten by others, mostly of the other learning rate; standard errors over ten seeds are
# smaller than the points. Next, both at the same number of active units and at their better learning rate,
# seed by seed on the validation rows; between two λ a seed's L1 is interpolated.


# %%
def of_rate(result, lr):
    """Active units and errors [n, seeds] at a learning rate, the fewest units first."""
    at = np.flatnonzero(np.isclose(result.coords["lr"], lr))
    at = at[np.argsort(result.mean("active units")[at])]
    return [result.scores(name)[at, 0] for name in ("active units", "loss")]


def l1_error(k, lr):
    """Of each seed, at k active units."""
    logs = (np.log(v).T for v in of_rate(by_l1, lr))
    return np.exp([np.interp(np.log(k), *curve) for curve in zip(*logs)])


table = []
for i, k in enumerate(ks):
    l1 = min((l1_error(k, lr) for lr in rates), key=np.mean)
    kept = min((of_rate(by_k, lr)[1][i] for lr in rates), key=np.mean)
    apart = l1 - kept
    table.append({
        "active units": k, "L1": l1.mean(), "top-k": kept.mean(), "difference": apart.mean(),
        "standard error": apart.std(ddof=1) / 10**0.5,
    })  # fmt: skip
table = pd.DataFrame(table).set_index("active units")
table["in errors"] = table["difference"] / table["standard error"]
table.round({"L1": 3, "top-k": 3, "difference": 3, "standard error": 4, "in errors": 0})

# %% [markdown]
# top-k is better by many standard errors at every number of active units. An L1 term pulls on what it
# keeps too, and keeping the largest does not. Against that, λ can be swept in one program, and a row that
# needs more units may have them.

# %%
assert frontier.optimal.sum() >= 7
assert all(low < slope < high for low, high, slope in list(zip(betas, betas[1:], fall))[:5])
assert (gains.loc["l2 of weights", "in errors"] > 2).all()
assert (gains.loc["β that grows", "in errors"] < -2).all()
assert (gains.loc["free bits", "in errors"] < 2).all()
assert (table["in errors"] > 10).all()
