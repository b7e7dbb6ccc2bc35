"""Terms, noise and flat minima beside other libraries' own: functions of `Both` -> (ours, theirs).

Where a term is trained on, its gradient is compared with its value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _references import Both, bowl, drawn, net, ours_of, rows, torch_, weights, with_gradient

import jaxreg as jr

RHO = 0.05


# --- divergences and predictions -----------------------------------------------------------------------


def kl_normal(both: Both) -> tuple[Any, Any]:
    from torch.distributions import Normal, kl_divergence

    ours, (m, v, m0, v0) = zip(*(both(a) for a in drawn(*[(64, 8)] * 4)))
    return jr.terms.kl_normal(*ours), kl_divergence(
        Normal(m, (v / 2).exp()), Normal(m0, (v0 / 2).exp())
    )


def kl_categorical(both: Both) -> tuple[Any, Any]:
    from torch.distributions import Categorical, kl_divergence

    ours, theirs = zip(*(both(a) for a in drawn((64, 10), (64, 10))))
    return jr.terms.kl_categorical(*ours), kl_divergence(*(Categorical(logits=a) for a in theirs))


def kl_bernoulli(both: Both) -> tuple[Any, Any]:
    from torch.distributions import Bernoulli, kl_divergence

    (ours, theirs), (prior, their_prior) = (
        both(a) for a in (drawn((64, 8))[0], np.linspace(0.02, 0.98, 8))
    )
    return jr.terms.kl_bernoulli(ours, prior), kl_divergence(
        Bernoulli(logits=theirs), Bernoulli(their_prior.expand(64, 8))
    )


def entropy(both: Both) -> tuple[Any, Any]:
    from torch.distributions import Categorical

    ours, theirs = both(drawn((64, 10))[0])
    theirs.requires_grad_()
    return ours_of(jr.terms.entropy(1.0), ours), with_gradient(
        Categorical(logits=theirs).entropy().mean(), [theirs]
    )


def vat(both: Both) -> tuple[Any, Any]:
    """Algorithm 1 of Miyato et al., from the same first direction, and its gradient by the weights."""
    torch = torch_()
    (params, theirs), (x, tx), radius = weights(both, 4), rows(both), 0.5
    key = jax.random.key(0)
    term = jr.terms.adversarial(1.0, radius=radius)
    ours = ours_of(lambda p: term(lambda x: net(p, x), x, key), params)
    unit = lambda r: r / r.norm(dim=1, keepdim=True)
    way = unit(torch.tensor(np.asarray(jax.random.normal(key, x.shape, x.dtype))))
    held = net(theirs, tx).detach().log_softmax(1)
    apart = lambda r: (
        (held.exp() * (held - net(theirs, tx + r).log_softmax(1))).sum(1).mean()  # KL
    )
    near = (1e-3 * tx.square().mean().sqrt() * way).requires_grad_()
    (slope,) = torch.autograd.grad(apart(near), near)
    return ours, with_gradient(apart(radius * unit(slope)), theirs)


def label_smoothing(both: Both) -> tuple[Any, Any]:
    """(1 - a) NLL + a (KL(uniform || p) + log classes), with `kl_categorical`."""
    logits, theirs = both(drawn((64, 10))[0])
    y, a = np.arange(64) % 10, 0.1
    nll = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.asarray(y)).mean()
    even = jr.terms.kl_categorical(jnp.zeros_like(logits), logits).mean() + np.log(10)
    loss = torch_().nn.CrossEntropyLoss(label_smoothing=a)
    return (1 - a) * nll + a * even, loss(theirs, torch_().tensor(y))


def mixup(both: Both) -> tuple[Any, Any]:
    """The loss of mixed targets, against the two losses mixed; pairs and share are read off mixed rows."""
    torch = torch_()
    (logits, theirs), y = both(drawn((10, 10))[0]), np.arange(10)
    mixed, targets = jr.noise.mixup(
        jnp.eye(10, dtype=logits.dtype), jax.nn.one_hot(y, 10, dtype=logits.dtype), 1.0,
        jax.random.key(1),
    )  # fmt: skip
    ours = optax.softmax_cross_entropy(logits, targets).mean()
    others = np.asarray(mixed) * (1 - np.eye(10))
    pair = np.where(others.max(1) > 0, others.argmax(1), y)
    share = 1 - float(others.max())
    loss = lambda y: torch.nn.functional.cross_entropy(theirs, torch.tensor(y))
    return ours, share * loss(y) + (1 - share) * loss(pair)


# --- functions ---------------------------------------------------------------------------------------


def _slopes(both: Both) -> tuple[Any, Any, Any, Any]:
    """Our weights and rows, their weights, and their gradients by the rows."""
    (params, theirs), (x, tx) = weights(both), rows(both)
    out = net(theirs, tx.requires_grad_())
    (slope,) = torch_().autograd.grad(out, tx, torch_().ones_like(out), create_graph=True)
    return params, x, theirs, slope


def _zeros_where_unused(loss: Any, by: Sequence) -> list:
    return [
        loss,
        *torch_().autograd.grad(loss, list(by), allow_unused=True, materialize_grads=True),
    ]


def gradient_penalty(both: Both) -> tuple[Any, Any]:
    params, x, theirs, slope = _slopes(both)
    ours = ours_of(lambda p: jr.terms.gradient_penalty(10.0)(lambda x: net(p, x), x), params)
    loss = 10 * ((slope.norm(2, dim=1) - 1) ** 2).mean()
    return ours, _zeros_where_unused(loss, theirs)


def r1(both: Both) -> tuple[Any, Any]:
    params, x, theirs, slope = _slopes(both)
    ours = ours_of(lambda p: jr.terms.r1(10.0)(lambda x: net(p, x), x), params)
    return ours, _zeros_where_unused(10 / 2 * slope.square().sum(1).mean(), theirs)


def _frobenius(theirs: list, tx: Any) -> Any:
    func = torch_().func
    return func.vmap(func.jacrev(lambda x: net(theirs, x)))(tx).square().sum((1, 2)).mean()


def jacobian(both: Both) -> tuple[Any, Any]:
    """All unit probes: of one output the projection is exact, and the sum over outputs is the norm."""
    (params, theirs), (x, tx) = weights(both, 4), rows(both)
    term, key = jr.terms.jacobian(1.0), jax.random.key(0)
    return sum(term(lambda x, k=k: net(params, x)[:, [k]], x, key) for k in range(4)), _frobenius(
        theirs, tx
    )


def jacobian_by_probes(both: Both, probes: int) -> tuple[Any, Any]:
    (params, theirs), (x, tx) = weights(both, 4), rows(both)
    one = lambda key: jr.terms.jacobian(1.0)(lambda x: net(params, x), x, key)
    return jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(2), probes)), _frobenius(
        theirs, tx
    )


def _trace(theirs: list, tx: Any) -> Any:
    hessian = torch_().func.hessian(lambda w: bowl([w, *theirs[1:]], tx))(theirs[0].detach())
    n = theirs[0].numel()
    return hessian.reshape(n, n).trace()


def curvature(both: Both) -> tuple[Any, Any]:
    """Weight by weight: of one number a sign is no estimate, and the sum over weights is the trace."""
    (params, theirs), (x, tx) = weights(both), rows(both)
    term, key, (w, *others) = jr.terms.curvature(1.0), jax.random.key(0), params

    def along(way: jax.Array) -> jax.Array:
        return term(lambda t: bowl([w + t * way, *others], x), jnp.zeros((), w.dtype), key)

    each = jax.vmap(along)(jnp.eye(w.size, dtype=w.dtype).reshape(-1, *w.shape))
    return each.sum(), _trace(theirs, tx)


def curvature_by_probes(both: Both, probes: int) -> tuple[Any, Any]:
    (params, theirs), (x, tx) = weights(both), rows(both)
    one = lambda key: jr.terms.curvature(1.0)(lambda w: bowl([w, *params[1:]], x), params[0], key)
    return jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(2), probes)), _trace(theirs, tx)


# --- activations, noise, flatness ----------------------------------------------------------------------


def covariance(both: Both) -> tuple[Any, Any]:
    ours, h = both(drawn((64, 12))[0])
    off = h.requires_grad_() - h.mean(0)
    cov = off.T @ off / (len(h) - 1)
    loss = (cov.square().sum() - cov.diagonal().square().sum()) / h.shape[1]
    return ours_of(jr.terms.covariance(1.0), ours), with_gradient(loss, [h])


def variance(both: Both) -> tuple[Any, Any]:
    """Units with deviations below and above the level."""
    ours, h = both(drawn((64, 12))[0] * np.linspace(0.1, 2, 12))
    std = (h.requires_grad_().var(0) + 1e-4).sqrt()
    return ours_of(jr.terms.variance(1.0), ours), with_gradient((1 - std).relu().mean(), [h])


def dropout(both: Both) -> tuple[Any, Any]:
    """What both of them keep, of masks that are each one's own."""
    x, tx = both(drawn((64, 64))[0])
    ours = np.asarray(jr.noise.drop(x, 0.3, jax.random.key(0)))
    theirs = torch_().nn.functional.dropout(tx, 0.3).numpy()
    kept = (ours != 0) & (theirs != 0)
    return ours[kept], theirs[kept]


def dropout_share(both: Both, probes: int) -> tuple[Any, Any]:
    """How much is kept: the difference of each draw of ours from one of theirs, which is 0 on average."""
    x, tx = both(np.ones((64, 64)))
    ours = [jnp.mean(jr.noise.drop(x, 0.3, jax.random.key(i))) for i in range(probes)]
    torch_().manual_seed(0)
    theirs = [float(torch_().nn.functional.dropout(tx, 0.3).mean()) for _ in range(probes)]
    return np.subtract(ours, theirs), 0.0


def flax_dropout(both: Both) -> tuple[Any, Any]:
    """The mask of a key: flax keeps a draw below 1 - rate, and ours drops it at the rate 1 - rate."""
    import flax.linen as nn

    x, _ = both(1 + np.abs(drawn((64, 64))[0]))
    key, rate = jax.random.key(3), 0.25  # both rates are exact in binary
    theirs = nn.Dropout(rate).apply({}, x, deterministic=False, rng=key)
    ours = jr.noise.drop(x, 1 - rate, key)
    return [ours == 0, ours[ours != 0]], [theirs != 0, x[theirs == 0] / rate]


def sam(both: Both) -> tuple[Any, Any]:
    """Two passes by hand: the gradient, a step of length ρ up it, and the gradient there."""
    torch = torch_()
    (params, theirs), (x, tx) = weights(both), rows(both)
    value, grad = jr.sam(bowl, rho=RHO)(params, x)
    first = torch.autograd.grad(bowl(theirs, tx), theirs)
    length = torch.sqrt(sum(g.square().sum() for g in first))
    worst = [(w + RHO * g / length).detach().requires_grad_() for w, g in zip(theirs, first)]
    return [value, *grad], [
        bowl(theirs, tx), *torch.autograd.grad(bowl(worst, tx), worst)
    ]  # fmt: skip


def optax_sam(both: Both) -> tuple[Any, Any]:
    (params, _), (x, _) = weights(both), rows(both)
    of = lambda p, _=None: jax.grad(bowl)(p, x)
    up = optax.chain(optax.contrib.normalize(), optax.sgd(RHO))
    tx = optax.contrib.sam(optax.sgd(1.0), up, opaque_mode=True)
    step = jax.jit(lambda p: tx.update(of(p), tx.init(p), p, grad_fn=of)[0])
    return jax.jit(jr.sam(bowl, rho=RHO))(params, x)[1], [-u for u in step(params)]


def _averaged(both: Both, decay: float | None) -> tuple[Any, list]:
    """What `averaged` has after ten steps of SGD, and the parameters after each."""
    (params, _), (x, _) = weights(both), rows(both)
    tx = jr.averaged(optax.sgd(0.1), decay)

    @jax.jit
    def step(params, state):
        updates, state = tx.update(jax.grad(bowl)(params, x), state, params)
        return optax.apply_updates(params, updates), state

    state, path = jax.jit(tx.init)(params), []
    for _ in range(10):
        params, state = step(params, state)
        path.append(params)
    return jax.jit(jr.average_of)(state), path


def optax_ema(both: Both) -> tuple[Any, Any]:
    ours, path = _averaged(both, 0.9)
    tx = optax.ema(0.9, debias=True)
    state, mean, update = tx.init(path[0]), None, jax.jit(tx.update)
    for params in path:
        mean, state = update(params, state)
    return ours, mean


def swa(both: Both) -> tuple[Any, Any]:
    torch = torch_()
    ours, path = _averaged(both, None)
    net = torch.nn.ParameterList([torch.tensor(np.asarray(w)) for w in path[0]])
    mean = torch.optim.swa_utils.AveragedModel(net)
    for params in path:
        with torch.no_grad():
            for own, w in zip(net, params):
                own.copy_(torch.tensor(np.asarray(w)))
        mean.update_parameters(net)
    return ours, list(mean.module)


EXACT: dict[str, dict[str, Callable[[Both], tuple[Any, Any]]]] = {
    "PyTorch": {
        "kl_normal": kl_normal, "kl_categorical": kl_categorical, "kl_bernoulli": kl_bernoulli,
        "entropy": entropy, "adversarial": vat, "label smoothing by kl_categorical": label_smoothing,
        "mixup": mixup, "gradient_penalty": gradient_penalty, "r1": r1,
        "jacobian, unit probes": jacobian, "curvature, weight by weight": curvature,
        "covariance": covariance, "variance": variance, "drop, what is kept": dropout, "sam": sam,
        "averaged, equal weights": swa,
    },
    "optax": {"sam": optax_sam, "averaged, decay 0.9": optax_ema},
    "flax": {"drop, mask of a key": flax_dropout},
}  # fmt: skip
SAMPLED: dict[str, dict[str, Callable[[Both, int], tuple[Any, Any]]]] = {
    "PyTorch": {
        "jacobian, mean over probes": jacobian_by_probes,
        "curvature, mean over probes": curvature_by_probes, "drop, mean": dropout_share,
    },
}  # fmt: skip
