"""The penalized objective J(params) = L(params) + R(params), and its ledger.

L is your mean loss, a plain function; R is a penalty, which is an argument and never a constant, so
one compiled program serves every strength and `jax.grad(objective, argnums=1)` is the derivative
with respect to them. What is minimised (J) and what is worth watching (L, and each term of R) are
different numbers: `penalized` makes the one, `ledger` the others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxreg import _tree
from jaxreg._check import flag
from jaxreg._tree import PyTree
from jaxreg.penalty import Penalty, Zero

__all__ = ["Ledger", "ledger", "penalized", "penalties_in", "penalty_gradient", "split", "terms_in"]


def penalized(loss: Callable[..., Any], has_aux: bool = False) -> Callable[..., Any]:
    """Add a penalty to a loss: J(params, penalty, *batch) = loss(params, *batch) + penalty(params).

    Args:
      loss: (params, *batch, **kwargs) -> scalar, the **mean** loss over the examples: a sum would
        weigh the penalty less, the more examples there are. With `has_aux`, (scalar, anything).
      has_aux: whether the loss returns a pair; the second part passes through, as in `jax.grad`.

    Returns:
      The function (params, penalty, *batch, **kwargs) -> J, in the dtype of the loss, or (J, aux).

    Raises:
      TypeError: `loss` is no function; when called, `penalty` is no penalty or the loss returned a
        pair without `has_aux` (or none with it). ValueError: the loss is no scalar.

    >>> import jaxreg as jr
    >>> def loss(w, x, y):
    ...     return 0.5 * jnp.mean((x @ w - y) ** 2)
    >>> objective = penalized(loss)
    >>> w, x, y = jnp.array([1.0, -2.0]), jnp.eye(2), jnp.array([1.0, 0.0])
    >>> objective(w, jr.l2(0.1), x, y).item()  # 1.0 + 0.05 * (1 + 4)
    1.25
    >>> jax.grad(objective)(w, jr.l2(0.1), x, y).tolist()  # x.T (x w - y) / n + 0.1 w
    [0.1..., -1.2...]
    >>> jax.grad(objective, argnums=1)(w, jr.l2(0.1), x, y)  # dJ/dlam, which is a penalty too
    l2(2.5)
    """
    _check_loss("penalized", loss)
    flag("penalized", "has_aux", has_aux)

    def objective(params: PyTree, penalty: Penalty, *batch: Any, **kwargs: Any) -> Any:
        _check_penalty("penalized", penalty)
        value, aux = _value_and_aux("penalized", loss(params, *batch, **kwargs), has_aux)
        total = value + penalty(params).astype(value.dtype)
        return (total, aux) if has_aux else total

    return objective


class Ledger(NamedTuple):
    """The objective in parts: the data loss, the value of each term by label, and what came along.

    >>> Ledger(jnp.float32(1.0), {"l2": jnp.float32(0.25)}).total.item()
    1.25
    """

    loss: Array
    terms: dict[str, Array]
    aux: Any = None

    @property
    def penalty(self) -> Array:
        """The sum of the terms, R."""
        return sum(self.terms.values(), start=jnp.zeros((), self.loss.dtype))

    @property
    def total(self) -> Array:
        """What is minimised, J = L + R."""
        return self.loss + self.penalty


def ledger(loss: Callable[..., Any], has_aux: bool = False) -> Callable[..., Ledger]:
    """Keep the books: the data loss and every term of the penalty apart, never one mixed number.

    Args:
      loss: as for `penalized`.
      has_aux: whether the loss returns a pair; the second part is `Ledger.aux`.

    Returns:
      The function (params, penalty, *batch, **kwargs) -> `Ledger`, all in the dtype of the loss.
      Terms with the same label are numbered: "l2", "l2 #2".

    Raises:
      TypeError, ValueError: as `penalized`.

    >>> import jaxreg as jr
    >>> books = ledger(lambda w, y: jnp.mean((w - y) ** 2))
    >>> entry = books(jnp.array([1.0, -2.0]), jr.l1(0.5) + jr.l2(0.1), 0.0)
    >>> entry.loss.item(), {name: round(v.item(), 4) for name, v in entry.terms.items()}
    (2.5, {'l1': 1.5, 'l2': 0.25})
    >>> entry.total.item()
    4.25
    """
    _check_loss("ledger", loss)
    flag("ledger", "has_aux", has_aux)

    def books(params: PyTree, penalty: Penalty, *batch: Any, **kwargs: Any) -> Ledger:
        _check_penalty("ledger", penalty)
        value, aux = _value_and_aux("ledger", loss(params, *batch, **kwargs), has_aux)
        terms = {n: term(params).astype(value.dtype) for n, term in terms_in(penalty).items()}
        return Ledger(value, terms, aux)

    return books


def penalties_in(point: PyTree) -> dict[str, Penalty]:
    """Every penalty in a point, by its path; the path of a point that is a penalty is "".

    >>> import jaxreg as jr
    >>> penalties_in({"reg": jr.l2(0.1), "lr": 1e-3})
    {'reg': l2(0.1)}
    """
    is_penalty = lambda x: isinstance(x, Penalty)
    found, _ = jax.tree_util.tree_flatten_with_path(point, is_leaf=is_penalty)
    name = lambda path: jax.tree_util.keystr(path, simple=True, separator="/")
    return {name(path): x for path, x in found if is_penalty(x)}


def terms_in(point: PyTree) -> dict[str, Penalty]:
    """Every term of every penalty in a point, by the name it is reported under.

    That is its label, after the penalty's path where the point has several penalties; terms of one name
    are numbered: "l2", "l2 #2".

    >>> import jaxreg as jr
    >>> list(terms_in({"body": jr.l1(0.1) + jr.l2(0.2), "head": jr.l2(0.3)}))
    ['body: l1', 'body: l2', 'head: l2']
    """
    found = penalties_in(point)
    several = len(found) > 1
    named = [(f"{path}: " * several, term) for path, p in found.items() for term in p.terms()]
    return dict(zip(_numbered([f"{path}{t.label}" for path, t in named]), (t for _, t in named)))


def split(penalty: Penalty) -> tuple[Penalty, Penalty]:
    """Its smooth part, for the gradient, and the rest, for the prox; a missing one is `Zero()`.

    Raises:
      TypeError: `penalty` is no penalty.

    >>> import jaxreg as jr
    >>> split(jr.l1(0.5) + jr.l2(0.1))
    (l2(0.1), l1(0.5))
    >>> split(jr.l2(0.1))
    (l2(0.1), Zero())
    """
    _check_penalty("split", penalty)
    smooth, proximal = Zero(), Zero()
    for term in penalty.terms():
        if term.smooth:
            smooth = smooth + term
        else:
            proximal = proximal + term
    return smooth, proximal


def penalty_gradient(penalty: Penalty, params: PyTree) -> PyTree:
    """The gradient of R at `params`, with its structure, shapes and dtypes.

    It is 0 where the penalty does not look, on leaves that are not floating, and at kinks (the
    least-norm subgradient of |x| at 0).

    Raises:
      TypeError: `penalty` is no penalty, or it touches a leaf that is not floating.

    >>> import jaxreg as jr
    >>> params = {"b": jnp.array([5.0]), "w": jnp.array([3.0, 0.0])}
    >>> grads = penalty_gradient((jr.l1(1.0) + jr.l2(0.1)).on("w"), params)
    >>> grads["b"].tolist(), [round(g, 4) for g in grads["w"].tolist()]
    ([0.0], [1.3, 0.0])
    """
    _check_penalty("penalty_gradient", penalty)
    leaves = _tree.flatten(params)
    # Only the touched leaves are differentiated: integers have no gradient, and the others none to
    # compute.
    touched = [
        hit and _tree.is_floating(x) for hit, x in zip(penalty.support(params), leaves.values)
    ]

    def value(selected: list[Array]) -> Array:
        chosen = iter(selected)
        return penalty(
            leaves.rebuild([next(chosen) if k else x for k, x in zip(touched, leaves.values)])
        )

    at = [jnp.asarray(x) for x, k in zip(leaves.values, touched) if k]
    grads = iter(jax.grad(value)(at))
    return leaves.rebuild(
        [next(grads) if k else jnp.zeros_like(x) for x, k in zip(leaves.values, touched)]
    )


def _numbered(labels: list[str]) -> list[str]:
    seen: Counter[str] = Counter()
    names = []
    for label in labels:
        seen[label] += 1
        names.append(label if seen[label] == 1 else f"{label} #{seen[label]}")
    return names


def _check_loss(owner: str, loss: Any) -> None:
    if not callable(loss) or isinstance(loss, Penalty):
        raise TypeError(
            f"{owner}: `loss` must be a function (params, *batch) -> scalar, got {loss!r}."
        )


def _check_penalty(owner: str, penalty: Any) -> None:
    if not isinstance(penalty, Penalty):
        raise TypeError(
            f"{owner}: `penalty` must be a penalty such as jaxreg.l2(1e-3), got "
            f"{type(penalty).__name__}. It comes after the parameters: (params, penalty, *batch)."
        )


def _value_and_aux(owner: str, returned: Any, has_aux: bool) -> tuple[Array, Any]:
    """The scalar loss and what came with it."""
    if has_aux != isinstance(returned, tuple) or (has_aux and len(returned) != 2):
        wanted = "a pair (loss, aux)" if has_aux else "one scalar"
        raise TypeError(
            f"{owner}: with has_aux={has_aux} the loss must return {wanted}, got "
            f"{f'a tuple of {len(returned)}' if isinstance(returned, tuple) else 'no tuple'}. "
            "Change `has_aux` or what the loss returns."
        )
    value, aux = returned if has_aux else (returned, None)
    value = jnp.asarray(value)
    if not _tree.is_floating(value):
        value = value.astype(float)  # else a loss of 0 would cut the penalty to an integer
    if value.ndim:
        raise ValueError(
            f"{owner}: the loss must be a scalar, got shape {value.shape}. Return the mean over the "
            "examples, as in jnp.mean(losses)."
        )
    return value, aux
