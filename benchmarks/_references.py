"""Ours beside other libraries' own on the same numbers: what is drawn, compared and reported.

A reference is a function of `Both`, which turns an array into one of ours and one of PyTorch's in the
dtype that is compared, and returns (ours, theirs): arrays, or lists of them. One by random probes returns
the draws of ours and the exact figure of theirs.
"""

from __future__ import annotations

import importlib
import importlib.util
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _common import Row

Tables = Mapping[str, Mapping[str, Callable]]
Both = Callable[[np.ndarray], tuple[Any, Any]]
SIZES = (6, 16, 16, 1)
MODULES = {"PyTorch": "torch", "flax": "flax", "optax": "optax"}
TOLERANCE = {"float32": 1e-5, "float64": 1e-10}
# Slopes over a step of 1e-3 lose three digits to rounding, in either library.
DOUBLE = ("adversarial",)
ERRORS = 4.0  # standard errors that a mean over probes may be off


def references(exact: Tables, sampled: Tables, probes: int) -> list[Row]:
    """A row for each reference and dtype; one of a library that is not installed says so."""
    rows = []
    for library, found in exact.items():
        for name, pair in found.items():
            rows += _exact(library, name, pair) if there(library) else [absent(library, name)]
    for library, drawn in sampled.items():
        for name, sample in drawn.items():
            rows.append(
                _sampled(library, name, sample, probes) if there(library) else absent(library, name)
            )
    return rows


def there(library: str) -> bool:
    return importlib.util.find_spec(MODULES[library]) is not None


def absent(library: str, name: str) -> Row:
    return {"reference": name, "against": library, "note": "not installed"}


def difference(ours: Any, theirs: Any) -> float:
    """The largest difference of an array, over its largest entry; inf where one is no finite number."""
    pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)
    return max(_apart(*(np.asarray(_numpy(x), float) for x in pair)) for pair in pairs)


def _apart(ours: np.ndarray, theirs: np.ndarray) -> float:
    if ours.shape != theirs.shape or not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
        return float("inf")
    return float(np.abs(ours - theirs).max() / (np.abs(theirs).max() or 1.0))


def _numpy(x: Any) -> Any:
    return x.detach().numpy() if type(x).__module__.startswith("torch") else x


def _exact(library: str, name: str, pair: Callable[[Both], tuple[Any, Any]]) -> list[Row]:
    rows = []
    for dtype, most in TOLERANCE.items():
        if dtype == "float32" and name in DOUBLE:
            continue
        with jax.enable_x64(dtype == "float64"):
            far = difference(*pair(_both(library, dtype)))
        rows.append({
            "reference": name, "against": _version(library), "dtype": dtype,
            "relative_difference": far, "at_most": most, "kept": bool(far <= most),
        })  # fmt: skip
    return rows


def _sampled(library: str, name: str, sample: Callable, probes: int) -> Row:
    with jax.enable_x64(True):
        draws, exact = sample(_both(library, "float64"), probes)
    draws = np.asarray(draws, float)
    off = abs(draws.mean() - float(_numpy(exact))) / (draws.std(ddof=1) / np.sqrt(len(draws)))
    return {
        "reference": name, "against": _version(library), "dtype": "float64", "draws": len(draws),
        "standard_errors": float(off), "at_most": ERRORS, "kept": bool(off <= ERRORS),
    }  # fmt: skip


def _both(library: str, dtype: str) -> Both:
    def both(x: np.ndarray) -> tuple[Any, Any]:
        x = np.asarray(x, dtype)
        if library != "PyTorch":
            return jnp.asarray(x), jnp.asarray(x)
        import torch

        return jnp.asarray(x), torch.tensor(x)

    return both


def _version(library: str) -> str:
    return f"{library} {importlib.import_module(MODULES[library]).__version__}"


# --- what is compared on -----------------------------------------------------------------------------


def drawn(*shapes: Sequence[int], scale: float = 1.0) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [scale * rng.normal(size=shape) for shape in shapes]


def weights(both: Both, outputs: int = 1) -> tuple[list, list]:
    """Kernels and biases in turn, ours and theirs; PyTorch's with gradients."""
    sizes = (*SIZES[:-1], outputs)
    shapes = [s for n, m in itertools.pairwise(sizes) for s in ((n, m), (m,))]
    ours, theirs = zip(*(both(w) for w in drawn(*shapes, scale=0.4)))
    for w in theirs:
        getattr(w, "requires_grad_", lambda: None)()
    return list(ours), list(theirs)


def rows(both: Both) -> tuple[Any, Any]:
    return both(np.random.default_rng(1).normal(size=(32, SIZES[0])))


def net(params: Sequence, x: Any) -> Any:
    """Dense layers with tanh between them, of arrays of either library."""
    for i in range(0, len(params), 2):
        x = x @ params[i] + params[i + 1]
        x = x if i == len(params) - 2 else (jnp if isinstance(x, jax.Array) else torch_()).tanh(x)
    return x


def bowl(params: Sequence, x: Any) -> Any:
    """A loss with a Hessian: the mean square of (f - 1)."""
    return ((net(params, x) - 1) ** 2).mean()


def torch_() -> Any:
    import torch

    return torch


def with_gradient(loss: Any, by: Sequence) -> list:
    """Value and gradient of a loss of PyTorch's."""
    return [loss, *torch_().autograd.grad(loss, list(by))]


def ours_of(fun: Callable, at: Any) -> list:
    return jax.tree.leaves(jax.jit(jax.value_and_grad(fun))(at))
