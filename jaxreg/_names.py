"""What the name of a leaf says it is: a bias, the scale of a norm, a table of embeddings, a weight.

The rules go by name and not by rank: parameters stacked for a scan over layers have one axis more,
and a rule on `ndim` would then take the scale of a norm for a matrix. Rank decides in two cases alone.
A matrix `b` is a bias beside a `w` or what has more axes, and else a factor of a product. And the
entries of lists and tuples of arrays have no name: a vector there is a bias. What is no parameter, such
as a function that a model holds or a counter, is nothing of all that.
"""

from __future__ import annotations

import re
from typing import Any, TypeAlias

import jax.numpy as jnp

from jaxreg import _tree

__all__ = [
    "Beside",
    "beside",
    "is_bias",
    "is_embedding",
    "is_kernel",
    "is_norm",
    "stacks",
    "unnamed",
]

_BIAS = re.compile(r"(?i)(.*_)?((offset|intercept)(_?\d+|_[a-z]{1,3})?|bias(es)?(\d+|_\w+)?)")
# Factors of a product end in _b as well, and are matrices; so is the B of a state space model.
_B = re.compile(
    r"(?i)(?!(.*_)?(lora|w|u|weight|kernel|matrix)_b$)(?-i:(?!B$))(.*_)?b(_?\d+|_[a-z]{1,3})?"
)
_A_OF_B = re.compile(r"[bB](?=(_?\d+|_[a-zA-Z]{1,3})?$)")
_BIAS_TABLE = re.compile(r"(?i).*_bias(es)?")
_SCALE = re.compile(r"(?i)(.*_)?scale|(gamma|beta)(_?\d+)?")
_NORM_LAYER = re.compile(
    r"(?i)(?!(.*_)?(weight|spectral)_norm)(.*_)?((batch|layer|group|rms|instance|pre|post)_?)?"
    r"(norm([123]d|ali[sz]ation)?|bn|ln)s?(_?\d+|_[a-z]|_(final|out|before|after|pre|post))?(_?\d+)?"
    r"|layer_scale(_?\d+)?"
)
_WEIGHT = re.compile(r"(?i)(.*_)?(w|weights?|kernels?)(_?\d+)?")
# Where a residual block changes its width: a convolution and its norm, which have numbers for names.
_NORM_NUMBER = re.compile(r".*(^|/)(downsample|shortcut)/1")
_EMBEDDING = re.compile(
    r"(?i)(?!(.*_)?patch_?embed)(.*_)?"
    r"((embed(d?ing)?s?|emb)(_(table|matrix|weights?|tokens?|positions?))?|wte|wpe)(_?\d+)?"
)
_IN_EMBEDDING = re.compile(r"(?i)w|weights?|tables?|embeddings?")
_TOKEN = re.compile(r"(?i)(cls|class|dist|mask|register|reg)_tokens?")


# The leaves of the same layer, the leaf itself left out: name -> shape. None where they are not known.
Beside: TypeAlias = dict[str, tuple[int, ...]] | None


def beside(leaves: _tree.Leaves) -> list[Beside]:
    """For each leaf those of the same layer."""
    layers: dict[str, dict[str, tuple[int, ...]]] = {}
    apart = [_named(path) for path in leaves.paths]
    for (above, name), x in zip(apart, leaves.values):
        if _is_parameter(x):
            layers.setdefault("/".join(above), {})[name] = jnp.shape(x)
    others = lambda layer, name: {n: s for n, s in layers.get(layer, {}).items() if n != name}
    return [others("/".join(above), name) for above, name in apart]


def _is_parameter(leaf: Any) -> bool:
    """Not a function, a counter or a key; a leaf that is not known may be one."""
    dtype = getattr(leaf, "dtype", None)
    if dtype is None:
        return leaf is None or isinstance(leaf, (bool, int, float, complex))
    return jnp.issubdtype(dtype, jnp.inexact)


def _named(path: str) -> tuple[list[str], str]:
    """Layers and name of a leaf; of an entry of a list, those of the list."""
    keys = path.split("/")
    while len(keys) > 1 and keys[-1].isdigit():
        keys.pop()
    return keys[:-1], keys[-1]


def _has_no_name(path: str) -> bool:
    """Whether only the rank of a leaf can say what it is: an entry of a list that has no telling name."""
    _, name = _named(path)
    telling = any(known.fullmatch(name) for known in (_B, _WEIGHT))
    numbered = path.rpartition("/")[2].isdigit()
    return numbered and not (telling or _is_named_bias(path) or _is_norm(path, None, None))


def _rank(shape: tuple[int, ...]) -> int:
    """How many axes a leaf has, without those that only broadcast."""
    return sum(n > 1 for n in shape)


def _is_named_bias(path: str) -> bool:
    layers, name = _named(path)
    return bool(_BIAS.fullmatch(name)) or any(_BIAS_TABLE.fullmatch(layer) for layer in layers)


def is_bias(path: str, leaf: Any, beside: Beside) -> bool:
    """An offset, by its name or by what stands beside it."""
    return _is_parameter(leaf) and _is_bias(path, leaf, beside)


def _is_bias(path: str, leaf: Any, beside: Beside) -> bool:
    if _is_named_bias(path):
        return True
    _, name = _named(path)
    if not _B.fullmatch(name):
        return _has_no_name(path) and getattr(leaf, "ndim", 2) < 2
    rank = _rank(getattr(leaf, "shape", ()))
    if rank < 2:
        return True
    if beside is None:  # b and b_ih are biases of layers, b1 and dense_b may be either
        return bool(re.fullmatch(r"(?i)b(_.*)?", name))
    other = _A_OF_B.sub(lambda b: "A" if b.group() == "B" else "a", name)
    if _rank(beside.get(other, ())) == rank:
        return False
    return any(_rank(s) > rank or _WEIGHT.fullmatch(n) for n, s in beside.items())


def is_norm(path: str, leaf: Any, beside: Beside) -> bool:
    """The scale or offset of a normalisation."""
    return _is_parameter(leaf) and _is_norm(path, leaf, beside)


def _is_norm(path: str, leaf: Any, beside: Beside) -> bool:
    layers, name = _named(path)
    if _SCALE.fullmatch(name) or any(_NORM_LAYER.fullmatch(layer) for layer in layers):
        return True
    # Running statistics; mean and var alone may as well be those of a distribution that is learned.
    beside_it = beside or {}
    if name in ("mean", "var") and {"mean", "var"} <= {name, *beside_it} and "scale" in beside_it:
        return True
    if name.startswith(("running_", "moving_")) or layers[:1] == ["batch_stats"]:
        return True
    if name != "weight" or not layers or not layers[-1].isdigit():
        return False
    # In a sequence of layers that have numbers for names a norm is what has as many weights as biases.
    alike = bool(beside) and beside.get("bias") == getattr(leaf, "shape", None)
    return alike or bool(_NORM_NUMBER.fullmatch("/".join(layers)))


def is_kernel(path: str, leaf: Any, beside: Beside) -> bool:
    """A weight proper: neither a bias nor a norm's."""
    return _is_parameter(leaf) and not (
        _is_bias(path, leaf, beside) or _is_norm(path, leaf, beside)
    )


def is_embedding(path: str, leaf: Any, beside: Beside) -> bool:
    """A table of tokens or positions."""
    layers, name = _named(path)
    _, layer = _named("/".join(layers))
    inside = _EMBEDDING.fullmatch(layer) and _IN_EMBEDDING.fullmatch(name)
    found = inside or _EMBEDDING.fullmatch(name) or _TOKEN.fullmatch(name)
    return bool(found) and is_kernel(path, leaf, beside)


def unnamed(leaves: _tree.Leaves) -> str:
    """What to say of parameters of which only the rank says what they are; "" if there are none."""
    each = zip(leaves.paths, leaves.values)
    paths = [repr(p) for p, x in each if _is_parameter(x) and _has_no_name(p)]
    if not paths:
        return ""
    shown = ", ".join(paths[:4]) + ", …" * (len(paths) > 4)
    return (
        f"{shown} {'have' if len(paths) > 1 else 'has'} no name, so a vector is taken for a bias and all "
        "else for weights: a stack of biases [layers, n] too. Name the leaves in a dict, or select them by "
        "their paths."
    )


def stacks(leaves: _tree.Leaves) -> list[int]:
    """How many layers each leaf is a stack of, as for a scan over layers; 0 for a leaf that is none.

    A part of the model is taken for a stack where all its parameters have the same number of entries along
    their first axis and a bias or a scale among them, which has one axis in a layer, has two.
    """
    near = beside(leaves)
    each = list(zip(leaves.paths, leaves.values, near))
    shapes = [jnp.shape(x) if _tree.is_floating(x) else None for x in leaves.values]
    offset = [is_bias(p, x, b) or is_norm(p, x, b) for p, x, b in each]
    parts: dict[str, list[int]] = {}
    for i, path in enumerate(leaves.paths):
        keys = path.split("/")[:-1]
        for n in range(len(keys) + 1):
            if shapes[i] is not None:
                parts.setdefault("/".join(keys[:n]), []).append(i)
    found = [0] * len(shapes)
    for members in parts.values():
        of = [shapes[i] or () for i in members]
        first = {s[0] if s else 0 for s in of}
        telling = any(offset[i] and _rank(s) == len(s) == 2 for i, s in zip(members, of))
        if len(first) == 1 and telling and any(len(s) > 2 for s in of):
            (layers,) = first
            for i in members:
                found[i] = layers
    return found
