"""The penalized objective J(params) = L(params) + R(params), and its ledger.

L is your mean loss, a plain function; R is a penalty, which is an argument and never a constant, so
one compiled program serves every strength and `jax.grad(objective, argnums=1)` is the derivative
with respect to them. What is minimised (J) and what is worth watching (L, and each term of R) are
different numbers: `penalized` makes the one, `ledger` the others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxreg import _tree
from jaxreg._check import flag
from jaxreg._tree import PyTree
from jaxreg.penalty import Penalty, Zero

__all__ = [
    "Ledger", "booked", "ledger", "penalized", "penalties_in", "penalty_gradient", "split", "terms_in",
    "total",
]  # fmt: skip


def booked(returned: Any) -> tuple[Any, dict[str, Any]]:
    """The data loss and the terms that a loss returned, of which there may be none."""
    if isinstance(returned, tuple) and len(returned) == 2 and isinstance(returned[1], Mapping):
        return returned[0], dict(returned[1])
    return returned, {}


def total(data: Any, terms: Mapping[str, Any]) -> Any:
    """What is trained on, in the dtype of the data loss."""
    for value in terms.values():
        data = data + jnp.asarray(value).astype(jnp.result_type(data))
    return data


def penalized(loss: Callable[..., Any], has_aux: bool = False) -> Callable[..., Any]:
    """Add a penalty to a loss: J(params, penalty, *batch) = loss(params, *batch) + penalty(params).

    Args:
      loss: (params, *batch, **kwargs) -> scalar, the **mean** loss over the examples: a sum would
        weigh the penalty less, the more examples there are. In place of the scalar it may return
        (data loss, {name: term}), which are added. With `has_aux`, a pair of that and anything.
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
        data, terms, aux = _parts("penalized", loss(params, *batch, **kwargs), has_aux)
        value = total(data, terms)
        value = value + penalty(params).astype(value.dtype)
        return (value, aux) if has_aux else value

    return objective


class Ledger(NamedTuple):
    """The objective in parts: the data loss, the value of each term by name, and what came along.

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
      Terms of the loss stand first, under their names. Those of the penalty with the same label are
      numbered: "l2", "l2 #2".

    Raises:
      TypeError, ValueError: as `penalized`; and a term of the loss has the name of one of the penalty.

    >>> import jaxreg as jr
    >>> books = ledger(lambda w, y: jnp.mean((w - y) ** 2))
    >>> entry = books(jnp.array([1.0, -2.0]), jr.l1(0.5) + jr.l2(0.1), 0.0)
    >>> entry.loss.item(), {name: round(v.item(), 4) for name, v in entry.terms.items()}
    (2.5, {'l1': 1.5, 'l2': 0.25})
    >>> entry.total.item()
    4.25
    >>> sparse = ledger(lambda w, y: (jnp.mean((w - y) ** 2), {"size": jnp.mean(jnp.abs(w))}))
    >>> list(sparse(jnp.array([1.0, -2.0]), jr.l2(0.1), 0.0).terms)
    ['size', 'l2']
    """
    _check_loss("ledger", loss)
    flag("ledger", "has_aux", has_aux)

    def books(params: PyTree, penalty: Penalty, *batch: Any, **kwargs: Any) -> Ledger:
        _check_penalty("ledger", penalty)
        data, ours, aux = _parts("ledger", loss(params, *batch, **kwargs), has_aux)
        theirs = terms_in(penalty)
        if twice := [name for name in ours if name in theirs]:
            raise ValueError(
                f"ledger: the loss returns a term {twice[0]!r}, and that is the name of one of the "
                "penalty. Give it another name."
            )
        terms = ours | {n: term(params).astype(data.dtype) for n, term in theirs.items()}
        return Ledger(data, terms, aux)

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


def _parts(owner: str, returned: Any, has_aux: bool) -> tuple[Array, dict[str, Array], Any]:
    """The data loss, its terms by name in the same dtype, and what came with them."""
    pair = isinstance(returned, tuple) and len(returned) == 2
    of_loss, aux = returned if has_aux and pair else (returned, None)
    data, terms = booked(of_loss)
    if isinstance(data, tuple) or (has_aux and not pair):
        wanted = "a pair (loss, aux)" if has_aux else "one scalar, or (data loss, {name: term})"
        raise TypeError(
            f"{owner}: with has_aux={has_aux} the loss must return {wanted}, got "
            f"{f'a tuple of {len(returned)}' if isinstance(returned, tuple) else 'no tuple'}. "
            "Change `has_aux` or what the loss returns."
        )
    data = _scalar(owner, "the loss", data)
    of = lambda name, x: _scalar(owner, f"the term {name!r} of the loss", x).astype(data.dtype)
    return data, {name: of(name, x) for name, x in terms.items()}, aux


def _scalar(owner: str, what: str, value: Any) -> Array:
    value = jnp.asarray(value)
    if not _tree.is_floating(value):
        value = value.astype(float)  # else a loss of 0 would cut the penalty to an integer
    if value.ndim:
        raise ValueError(
            f"{owner}: {what} must be a scalar, got shape {value.shape}. Return the mean over the "
            "examples, as in jnp.mean(losses)."
        )
    return value
