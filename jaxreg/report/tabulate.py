"""What a penalty does to your parameters, as a table: which leaf it hits, and how hard.

A penalty that reaches the wrong leaves is the commonest mistake of all, and no loss curve shows it.
`tabulate` lists every leaf with the terms that act on it, the strength there, the value, and the
share of the gradient that is the term's: |grad term| / (|grad term| + |grad loss|) on that leaf. A
share of 50 % means that data and penalty pull equally hard.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxreg import _names, _tree, select
from jaxreg._check import shown, upcast
from jaxreg._tree import PyTree
from jaxreg.penalty import Around, On, Penalty, Scaled
from jaxreg.report.stacks import stack_warnings
from jaxreg.report.table import Column, Table

__all__ = ["tabulate"]


class _Hit(NamedTuple):
    """What one term does to one leaf."""

    term: Penalty
    number: int  # of the term in the sum
    lam: Any
    shown_lam: str
    value: float | None  # None where the leaf alone has none
    pull: float  # norm of the term's gradient on the leaf
    felt: float | None  # the least step that rounding leaves of it, in narrow dtypes


def tabulate(penalty: Penalty, params: PyTree, grads: PyTree | None = None) -> Table:
    """Which leaf is hit by which term, how strongly, and what is hit by nothing or twice.

    Args:
      penalty: what is reported; sums are split into their terms.
      params: the parameters. Value and gradient are taken here; at an initialisation of zero both
        are zero.
      grads: gradient of the data loss at `params`, like `params`. With it the share of a row is
        |grad term| / (|grad term| + |grad loss|), Euclidean norms over the row's leaf; without it
        |grad term| over the sum of that norm over all rows, so that shares add to 1.

    Returns:
      A `Table` whose `rows` are dicts with `leaf`, `shape`, `dtype`, `term`, `lam` (the strength on
      that leaf, factors multiplied in), `value` and `share` (a fraction); `term` to `share` are None
      for a leaf hit by nothing, `value` where a group spans leaves. `warnings` name such leaves,
      leaves with two terms or more, and biases and norms hit by a term without selector.

    Raises:
      TypeError: `penalty` is no penalty, or a leaf under it is not floating.
      ValueError: `grads` does not match `params`, or a selector matches no leaf.

    >>> import jaxreg as jr
    >>> params = {"w": jnp.array([3.0, 4.0]), "b": jnp.ones(1)}
    >>> jr.tabulate(jr.l2(0.1).on(jr.kernels), params, grads=jax.tree.map(jnp.ones_like, params))
    l2(0.1).on(kernels) = 1.25
    leaf   shape   term             lam   value   share
    ───────────────────────────────────────────────────
    b       (1,)   -                  -       -       -
    w       (2,)   l2.on(kernels)   0.1    1.25   26.1%
    share of the gradient: |grad term| / (|grad term| + |grad loss|) on the leaf.
    warning: no term acts on 'b' (biases and norms, as is usual).
    """
    if not isinstance(penalty, Penalty):
        raise TypeError(
            f"tabulate: `penalty` must be a penalty such as jaxreg.l2(0.1), got "
            f"{type(penalty).__name__}. The order is tabulate(penalty, params)."
        )
    _tree.check_arrays("tabulate", "params", params)
    leaves = _tree.flatten(params)
    losses = _loss_norms(leaves, grads)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".* no name, so")  # it is a line of the table
        return _table(penalty, params, grads, leaves, losses)


def _table(
    penalty: Penalty, params: PyTree, grads: PyTree | None, leaves: _tree.Leaves, losses: list
) -> Table:
    # First of all, since the penalty names the leaf that does not suit it, and grad does not.
    value = float(penalty(params))
    hits = _all_hits(penalty, params)
    total = sum(hit.pull for on_leaf in hits for hit in on_leaf)
    shown_rows = [
        (_row(path, x, hit, total if loss is None else loss + hit.pull if hit else 0), hit)
        for path, x, loss, on_leaf in zip(leaves.paths, leaves.values, losses, hits)
        for hit in on_leaf or [None]
    ]
    with_dtype = any(row["dtype"] != "float32" for row, _ in shown_rows)
    keep = [i for i, c in enumerate(_COLUMNS) if with_dtype or c.header != "dtype"]
    return Table(
        title=f"{penalty!r} = {value:.4g}",
        columns=tuple(_COLUMNS[i] for i in keep),
        rows=tuple(row for row, _ in shown_rows),
        cells=tuple(tuple(_cells(row, hit)[i] for i in keep) for row, hit in shown_rows),
        notes=(_SHARE_OF_PENALTY if grads is None else _SHARE_OF_ALL,),
        warnings=(
            *_leaf_warnings(leaves, hits),
            *_joint_warnings(penalty, params, hits),
            *_rounding_warnings(leaves, hits),
            *filter(None, [_names.unnamed(leaves)]),
            *stack_warnings(penalty, params, layers=True),
        ),
    )


_COLUMNS = (
    Column("leaf", "left"),
    Column("shape"),
    Column("dtype", "left"),
    Column("term", "left", wrap=True),
    Column("lam"),
    Column("value"),
    Column("share"),
)
_SHARE_OF_ALL = "share of the gradient: |grad term| / (|grad term| + |grad loss|) on the leaf."
_SHARE_OF_PENALTY = (
    "share of the gradient: |grad term| on the leaf over its sum over all rows; "
    "grads= compares with the loss."
)


def _loss_norms(leaves: _tree.Leaves, grads: PyTree | None) -> list[float | None]:
    """Norm of the data gradient on each leaf, or None where it is not given."""
    if grads is None:
        return [None] * len(leaves.values)
    given = _tree.flatten(grads)
    shapes = [jnp.shape(x) for x in leaves.values]
    if given.treedef != leaves.treedef or [jnp.shape(g) for g in given.values] != shapes:
        raise ValueError(
            "tabulate: `grads` must be the gradient of the data loss at `params`, with the same leaves "
            f"and shapes. The parameters have {_listed(leaves.paths, shapes)}, the gradient has "
            f"{_listed(given.paths, [jnp.shape(g) for g in given.values])}."
        )
    return [_norm(g) for g in given.values]


def _listed(paths: Sequence[str], shapes: Sequence[tuple], most: int = 6) -> str:
    named = ", ".join(f"{p!r} {s}" for p, s in zip(paths[:most], shapes))
    return f"[{named}{', …' if len(paths) > most else ''}]"


def _norm(x: Any) -> float:
    return float(_tree.safe_norm(upcast(x)))


def _all_hits(penalty: Penalty, params: PyTree) -> list[list[_Hit]]:
    """For each leaf, what every term that acts on it does there."""
    hits: list[list[_Hit]] = [[] for _ in jax.tree.leaves(params)]
    for number, term in enumerate(penalty.terms()):
        for i, hit in _term_hits(number, term, params):
            hits[i].append(hit)
    return hits


def _term_hits(number: int, term: Penalty, params: PyTree) -> Iterator[tuple[int, _Hit]]:
    support = term.support(params)
    touched = [i for i, hit in enumerate(support) if hit]
    if not touched:
        return
    # Leaves outside the support may be integers, which grad refuses.
    grads = jax.tree.leaves(jax.grad(term)(_tree.partition(params, support)))
    for i, grad in zip(touched, grads):
        alone = _tree.partition(params, [j == i for j in range(len(support))])
        lam, text = _strength(term, alone)
        felt = _felt(jax.tree.leaves(alone)[0], grad)
        yield i, _Hit(term, number, lam, text, _value(term, alone), _norm(grad), felt)


def _felt(x: Any, grad: Any) -> float | None:
    """The step times gradient that is half a unit in the last place of most of the weights it moves."""
    if not _tree.is_narrow(x):
        return None
    at, slope = np.abs(np.asarray(upcast(x))), np.abs(np.asarray(upcast(grad)))
    moved = (at > 0) & (slope > 0)
    unit = float(jnp.finfo(x.dtype).eps) / 4
    return float(np.median(unit * at[moved] / slope[moved])) if moved.any() else None


def _value(term: Penalty, alone: PyTree) -> float | None:
    """The value of one leaf, or None for a term that needs several leaves."""
    try:
        return float(term(alone))
    except Exception:
        # All leaves together have been evaluated before, so what is missing are the others.
        return None


def _strength(term: Penalty, alone: PyTree) -> tuple[Any, str]:
    """The strength of a term on the one leaf of `alone`, and all its strengths as text."""
    fields = term.strengths(alone)
    text = [_short(v) if name == "lam" else f"{name}={_short(v)}" for name, v in fields.items()]
    return fields.get("lam"), ", ".join(text) or "-"


def _short(value: Any) -> str:
    """A strength as text; an array by its range."""
    if jnp.ndim(value) and jnp.size(value):
        low, high = float(jnp.min(value)), float(jnp.max(value))
        return f"{low:g}" if low == high else f"{low:g} … {high:g}"
    return shown(value)


def _row(path: str, x: Any, hit: _Hit | None, whole: float) -> dict[str, Any]:
    """One row as values; `whole` is what the term's gradient is a share of."""
    dtype = str(getattr(x, "dtype", type(x).__name__))
    row = {"leaf": path, "shape": tuple(getattr(x, "shape", ())), "dtype": dtype}
    if hit is None:
        return {**row, "term": None, "lam": None, "value": None, "share": None}
    scalar = isinstance(hit.lam, (int, float)) or getattr(hit.lam, "shape", None) == ()
    return {
        **row,
        "term": hit.term.label,
        "lam": float(hit.lam) if scalar else hit.lam,
        "value": hit.value,
        "share": hit.pull / whole if whole else 0.0,
    }


def _cells(row: dict[str, Any], hit: _Hit | None) -> tuple[str, ...]:
    dtype = "" if row["dtype"] == "float32" else row["dtype"]
    leaf = (row["leaf"] or "(the array)", str(row["shape"]), dtype)
    if hit is None:
        return (*leaf, "-", "-", "-", "-")
    value = "-" if row["value"] is None else f"{row['value']:.4g}"
    return (*leaf, row["term"], hit.shown_lam, value, f"{row['share']:.1%}")


def _leaf_warnings(leaves: _tree.Leaves, hits: Sequence[Sequence[_Hit]]) -> Iterator[str]:
    """What a reader should look at: leaves hit by nothing, twice, or by oversight."""
    on_path = dict(zip(leaves.paths, hits))
    offset = dict(zip(leaves.paths, (select.biases | select.norms).among(leaves)))
    each = zip(leaves.paths, leaves.values, leaves.settings)
    floating = [p for p, x, setting in each if _tree.is_floating(x) and not setting]
    missed = [p for p in floating if not on_path[p]]
    weights = [p for p in missed if not offset[p]]
    offsets = [p for p in missed if offset[p]]
    if weights:
        yield f"no term acts on {_quoted(weights)}."
    if offsets:
        yield f"no term acts on {_quoted(offsets)} (biases and norms, as is usual)."
    twice = {p: " and ".join(h.term.label for h in on) for p, on in on_path.items() if len(on) > 1}
    for terms, paths in _grouped(twice).items():
        yield f"several terms act on {_quoted(paths)}: {terms}. Their gradients add."
    careless = {
        (p, i): hit.term.label
        for p, on in on_path.items()
        for i, hit in enumerate(on)
        if offset[p] and not _is_selected(hit.term)
    }
    for term, where in _grouped(careless).items():
        paths = list(dict.fromkeys(path for path, _ in where))
        yield (
            f"{term} also acts on {_quoted(paths)} (biases and norms). To leave them "
            "out, restrict it with .on(jaxreg.kernels)."
        )


def _joint_warnings(
    penalty: Penalty, params: PyTree, hits: Sequence[Sequence[_Hit]]
) -> Iterator[str]:
    """Terms that are no sum over leaves: the value of a leaf alone is then not its part."""
    for number, term in enumerate(penalty.terms()):
        values = [hit.value for on in hits for hit in on if hit.number == number]
        known = [value for value in values if value is not None]
        parts, whole = sum(known), float(term(params))
        if len(known) < len(values):
            yield f"{term.label} acts on several leaves together; its value is {whole:.4g}."
        elif not np.isclose(parts, whole, rtol=1e-3, equal_nan=True):
            yield (
                f"{term.label} is no sum over leaves: its values here are those of each leaf alone "
                f"and add to {parts:.4g}, while the whole is {whole:.4g}."
            )


def _rounding_warnings(leaves: _tree.Leaves, hits: Sequence[Sequence[_Hit]]) -> Iterator[str]:
    """The learning rates below which a term does nothing to narrow parameters."""
    felt = {
        (path, i): (f"{hit.term.label} in {x.dtype}", hit.felt)
        for path, x, on_leaf in zip(leaves.paths, leaves.values, hits)
        for i, hit in enumerate(on_leaf)
        if hit.felt is not None
    }
    for term, keys in _grouped({key: term for key, (term, _) in felt.items()}).items():
        most = max(felt[key][1] for key in keys)
        yield (
            f"steps of {term} are lost in rounding on {_quoted([path for path, _ in keys])} where the "
            f"learning rate is below about {most:.2g}; jaxreg.compensated keeps them."
        )


def _is_selected(term: Penalty) -> bool:
    """Whether the user said somewhere which leaves the term is for."""
    while isinstance(term, (Around, Scaled)):
        term = term.penalty
    return isinstance(term, On)


def _grouped(labels: dict[Any, str]) -> dict[str, list[Any]]:
    groups: dict[str, list[Any]] = {}
    for key, label in labels.items():
        groups.setdefault(label, []).append(key)
    return groups


def _quoted(paths: Sequence[str], most: int = 8) -> str:
    more = f" and {len(paths) - most} more" if len(paths) > most else ""
    return ", ".join(repr(p) for p in paths[:most]) + more
