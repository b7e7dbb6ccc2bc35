"""Where everything that optax has goes beside a coupling: the cases of a test, and the table of the docs."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from optax import contrib

import jaxreg as jr

ADAM = optax.scale_by_adam()
PARAMS = {"g": 0.1 * jnp.ones((3, 2)), "w": 0.1 * jnp.ones(4)}
TARGET = {
    "g": jnp.array([[3.0, 4.0], [0.3, 0.4], [-1.0, 0.5]]),
    "w": jnp.array([3.0, 0.3, -2.0, -0.1]),
}
REG = jr.l1(0.5).on("w") + jr.group_lasso(0.8, axis=0, sqrt_size=False).on("g")


def settling(count: Any) -> jax.Array:
    """A rate for what trembles at a constant one."""
    return 0.05 * jnp.minimum(1, 400 / (count + 1))


class Place(NamedTuple):
    """Where one of optax's transformations goes.

    `make` builds what is tried; it ends at the optimum unless `refused`, a pattern, says why it is not
    taken. `instead` is for the table.
    """

    make: Callable[[], Any]
    instead: str = ""
    refused: str = ""
    rate: Any = 0.05
    steps: int = 3000


def of(name: str) -> Callable[..., Any]:
    return getattr(contrib, name.removeprefix("contrib."), None) or getattr(optax, name)


def right(name: str, *args: Any, **options: Any) -> Place:
    return Place(lambda: of(name)(*args), **options)


def complete(name: str, instead: str, *args: Any, why: str = "complete optimizer") -> Place:
    return Place(lambda: of(name)(*(args or (0.1,))), instead, why)


def unknown(name: str, *args: Any, why: str = "metric of the direction is unknown") -> Place:
    return Place(lambda: of(name)(*args), "`add_penalty_gradient` or `decoupled`", why)


DIRECTIONS: dict[str, Place] = {
    "identity": right("identity"),
    "trace": right("trace", 0.9, rate=0.02),
    "ema": right("ema", 0.9),
    "scale_by_adam": right("scale_by_adam"),
    "scale_by_amsgrad": right("scale_by_amsgrad"),
    "scale_by_yogi": right("scale_by_yogi"),
    "scale_by_rms": right("scale_by_rms", rate=settling, steps=6000),
    "scale_by_rss": right("scale_by_rss", rate=0.5),
    "scale_by_optimistic_gradient": right("scale_by_optimistic_gradient"),
    "scale_by_sign": right("scale_by_sign", rate=settling, steps=6000),
    "scale_by_polyak": right("scale_by_polyak", rate=1.0),
    "scale_by_trust_ratio": right("scale_by_trust_ratio"),
    "scale_by_param_block_norm": right("scale_by_param_block_norm"),
    "scale_by_param_block_rms": right("scale_by_param_block_rms"),
    "contrib.normalize": right("contrib.normalize", rate=settling, steps=6000),
    "normalize_by_update_norm": right("normalize_by_update_norm", rate=settling, steps=6000),
    "clip": right("clip", 1.0),
    "clip_by_block_rms": right("clip_by_block_rms", 1.0),
    "clip_by_global_norm": right("clip_by_global_norm", 1.0),
    "adaptive_grad_clip": right("adaptive_grad_clip", 0.5),
    "zero_nans": right("zero_nans"),
    "scale": right("scale", 0.5),
    "scale_by_schedule": right("scale_by_schedule", lambda count: 1 / (1 + count / 1000)),
    "contrib.reduce_on_plateau": Place(lambda: optax.chain(contrib.reduce_on_plateau(patience=100, min_scale=0.1), ADAM)),
    "add_decayed_weights": Place(
        lambda: optax.chain(ADAM, optax.add_decayed_weights(0.1)), "first in the direction, as a part of L, or a term of the penalty",
        "adds something to gradients that were scaled",
    ),
    "adam": complete("adam", "`scale_by_adam`"),
    "nadam": complete("nadam", "`scale_by_adam(nesterov=True)`"),
    "adamw": complete("adamw", "`decoupled`, or the penalty `jr.l1(a) + jr.l2(b)`", why="adds something"),
    "nadamw": complete("nadamw", "the same as for adamw", why="adds something"),
    "amsgrad": complete("amsgrad", "`scale_by_amsgrad`"),
    "yogi": complete("yogi", "`scale_by_yogi`"),
    "rmsprop": complete("rmsprop", "`scale_by_rms`, and `trace` for its momentum"),
    "adagrad": complete("adagrad", "`scale_by_rss`"),
    "sgd": complete("sgd", "`identity`, or `trace`"),
    "sign_sgd": complete("sign_sgd", "`scale_by_sign`"),
    "signum": complete("signum", "`trace`, then `scale_by_sign`"),
    "polyak_sgd": complete("polyak_sgd", "`scale_by_polyak`"),
    "optimistic_gradient_descent": complete("optimistic_gradient_descent", "`scale_by_optimistic_gradient`"),
    "scale_by_learning_rate": complete("scale_by_learning_rate", "the argument `learning_rate`"),
    "noisy_sgd": complete("noisy_sgd", "`add_penalty_gradient`"),
    "fromage": complete("fromage", "`add_penalty_gradient`"),
    "lamb": complete("lamb", "`scale_by_adam`, then `scale_by_trust_ratio`"),
    "lars": complete("lars", "`scale_by_trust_ratio`, then `trace`"),
    "optimistic_adam": complete("optimistic_adam", "`add_penalty_gradient`"),
    "optimistic_adam_v2": complete("optimistic_adam_v2", "`add_penalty_gradient`"),
    "contrib.muon": complete("contrib.muon", "`add_penalty_gradient` or `decoupled`"),
    "contrib.prodigy": complete("contrib.prodigy", "`add_penalty_gradient`"),
    "contrib.dadapt_adamw": complete("contrib.dadapt_adamw", "`add_penalty_gradient`"),
    "contrib.acprop": complete("contrib.acprop", "`add_penalty_gradient` or `decoupled`", why="unknown"),
    **{
        name: unknown(name, 0.1)
        for name in (
            "adabelief", "adadelta", "adafactor", "adamax", "adamaxw", "adan", "lion", "novograd", "radam",
            "rprop", "scale_by_rprop", "contrib.scale_by_madgrad", "contrib.sophia", "sm3", "contrib.ademamix", "contrib.adopt", "contrib.cocob", "contrib.madgrad",
            "contrib.momo", "contrib.momo_adam", "contrib.simplified_ademamix",
        )
    },
    **{
        name: unknown(name)
        for name in (
            "lbfgs", "scale_by_adadelta", "scale_by_adamax", "scale_by_adan", "scale_by_belief",
            "scale_by_distance_over_gradients", "scale_by_lbfgs", "scale_by_lion", "scale_by_novograd",
            "scale_by_radam", "scale_by_sm3", "scale_by_stddev", "contrib.scale_by_acprop",
            "contrib.scale_by_ademamix", "contrib.scale_by_adopt", "contrib.scale_by_cocob",
            "contrib.scale_by_muon", "contrib.scale_by_simplified_ademamix",
        )
    },
    "contrib.galore": unknown("contrib.galore", 0.1, why="mixes the entries"),
    "contrib.scale_by_galore": unknown("contrib.scale_by_galore", why="mixes the entries"),
    "centralize": unknown("centralize", why="mixes the entries"),
    "keep_params_nonnegative": Place(optax.keep_params_nonnegative, "the penalty `jr.nonneg()`", "mixes the entries"),
    "freeze": Place(lambda: optax.freeze({"g": True, "w": True}), "`partition`, outside", "moves none"),
    "set_to_zero": Place(optax.set_to_zero, "`partition`, outside", "moves none of the leaves"),
    "apply_every": Place(lambda: optax.apply_every(4), "`MultiSteps`, outside", r"Put it outside: optax.MultiSteps"),
    "scale_by_backtracking_linesearch": Place(
        lambda: optax.scale_by_backtracking_linesearch(5), "`add_penalty_gradient`", "metric of the direction is unknown"
    ),
    "scale_by_zoom_linesearch": Place(
        lambda: optax.scale_by_zoom_linesearch(5), "`add_penalty_gradient`", "metric of the direction is unknown"
    ),
    "contrib.schedule_free_sgd": complete("contrib.schedule_free_sgd", "`jr.averaged`", why="keeps a ScheduleFreeState"),
    "contrib.schedule_free_adamw": complete("contrib.schedule_free_adamw", "`jr.averaged`", why="keeps a ScheduleFreeState"),
}  # fmt: skip


def prox(direction: Any = ADAM, rate: Any = 0.05) -> Any:
    return jr.proximal(direction, REG, rate)


def every_other(step: Any) -> Any:
    return step % 2 == 0


# Around a coupling, or beside it in a chain: what is built holds a `proximal`.
AROUND: dict[str, Place] = {
    "chain": Place(lambda: optax.chain(optax.identity(), prox())),
    "named_chain": Place(lambda: optax.named_chain(("p", prox()))),
    "masked": Place(lambda: optax.masked(prox(), True)),
    "partition": Place(lambda: optax.partition({"a": prox()}, {"g": "a", "w": "a"})),
    "multi_transform": Place(lambda: optax.multi_transform({"a": prox()}, {"g": "a", "w": "a"})),
    "inject_hyperparams": Place(
        lambda: optax.inject_hyperparams(lambda lr: prox(rate=lr))(lr=0.05)
    ),
    "inject_stateful_hyperparams": Place(
        lambda: optax.inject_stateful_hyperparams(lambda lr: prox(rate=lr))(lr=0.05)
    ),
    "apply_if_finite": Place(lambda: optax.apply_if_finite(prox(), 3)),
    "MultiSteps": Place(
        lambda: optax.MultiSteps(prox(), 4).gradient_transformation(), steps=12_000
    ),
    "conditionally_mask": Place(
        lambda: optax.conditionally_mask(prox(), every_other), steps=6000
    ),
    "with_extra_args_support": Place(lambda: optax.with_extra_args_support(prox())),
    "conditionally_transform": Place(
        lambda: optax.conditionally_transform(prox(), every_other),
        "`conditionally_mask`",
        "passes bare gradients on",
    ),
    "contrib.schedule_free": Place(
        lambda: contrib.schedule_free(prox(), 0.05), "`jr.averaged`", "other parameters than those"
    ),
    "contrib.mechanize": Place(
        lambda: contrib.mechanize(prox()), "a schedule in `learning_rate`", "scales what the prox has done"
    ),
    "a clip before": Place(
        lambda: optax.chain(optax.clip_by_global_norm(1.0), prox()), "in the direction", "Put it inside"
    ),
    "an average of updates after": Place(
        lambda: optax.chain(prox(), optax.ema(0.9)), "`jr.averaged` around", "stands after jaxreg.proximal"
    ),
    "anything after": Place(
        lambda: optax.chain(prox(), optax.scale(0.5)), "in the direction", "stands after jaxreg.proximal"
    ),
    "add_penalty_gradient before": Place(
        lambda: optax.chain(jr.add_penalty_gradient(jr.l2(0.0)), prox())
    ),
    "jr.averaged": Place(lambda: jr.averaged(prox())),
}  # fmt: skip

# What makes no update of its own for these cases, and why.
ELSEWHERE = {
    "add_noise": "a direction may start with it; the rest point is then reached on average",
    "lookahead": "outside; it takes `LookaheadParams`",
    "flatten": "outside; the parameters lose their names, so penalties without `.on`",
    "contrib.sam": "outside; it rests at SAM's point of the penalized objective",
    "contrib.split_real_and_imaginary": "complex parameters have no penalty",
    "contrib.differentially_private_aggregate": "before `add_penalty_gradient`, on gradients of single examples",
    "contrib.dpsgd": "before `add_penalty_gradient`, on gradients of single examples",
    "stateless": "asked like anything else",
    "stateless_with_tree_map": "asked like anything else",
    "selective_transform": "asked like anything else",
    "measure_with_ema": "not beside a prox: read the state in a loop of your own",
    "monitor": "not beside a prox: read the state in a loop of your own",
    "snapshot": "not beside a prox: read the state in a loop of your own",
}


def factories() -> list[str]:
    """The names in optax and optax.contrib of what makes a transformation."""
    found = []
    for module, prefix in ((optax, ""), (contrib, "contrib.")):
        for name in sorted(dir(module)):
            function = getattr(module, name)
            if name.startswith("_") or not inspect.isfunction(function):
                continue
            if "GradientTransformation" in str(inspect.signature(function).return_annotation):
                found.append(prefix + name)
    return found


def rests(tx: Any, steps: int) -> dict[str, jax.Array]:
    """Where |params - TARGET|^2 / 2 is minimised with the penalty."""
    loss = lambda p: sum(jnp.sum((p[k] - TARGET[k]) ** 2) for k in p) / 2

    def step(carry: tuple, _: None) -> tuple:
        params, state = carry
        value, grads = jax.value_and_grad(loss)(params)
        extra = {"value": value, "grad": grads, "value_fn": loss}
        updates, state = tx.update(grads, state, params, **extra)
        return (optax.apply_updates(params, updates), state), None

    tx = optax.with_extra_args_support(tx)
    begin = PARAMS, tx.init(PARAMS)
    return jax.jit(lambda: jax.lax.scan(step, begin, None, steps)[0][0])()


def table() -> str:
    """The two tables of docs/couplings.md."""
    lines = ["| as the direction of `proximal` | |", "|---|---|"]
    taken = [f"`{n}`" for n, p in DIRECTIONS.items() if not p.refused]
    lines.append(f"| {', '.join(taken)}, and chains of them | right |")
    refused: dict[str, list[str]] = {}
    for name, place in DIRECTIONS.items():
        if place.refused:
            refused.setdefault(place.instead, []).append(f"`{name}`")
    lines += [f"| {', '.join(names)} | refused; instead {to} |" for to, names in refused.items()]
    lines += ["", "| around or beside `proximal` | |", "|---|---|"]
    for name, place in AROUND.items():
        shown = f"`{name}`" if name.isidentifier() or "." in name else name
        lines.append(
            f"| {shown} | {f'refused; instead {place.instead}' if place.refused else 'right'} |"
        )
    lines += [f"| `{name}` | {why} |" for name, why in ELSEWHERE.items()]
    return "\n".join(lines)
