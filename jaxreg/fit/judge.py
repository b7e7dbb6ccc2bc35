"""What a loss or a metric is of a fold: the user's function of the fold's rows, whatever function it is.

There are three ways to call it, which give the same number where more than one is open.

- "rows": a mean over rows is the weighted mean of its values for single rows, so one pass over the data
  serves training and validation rows of every fold, in slices if there are many. That a function is such a
  mean is not believed but probed, with rows of the data and at several parameters.
- "weights": a function that takes `sample_weight` gets all rows and the weights of those of the fold.
- "whole": any other, a root, a ratio, a rank, is called with the rows of the fold and no others.

The same probe finds losses that are sums, and labels of shape [n, 1] that meet predictions of shape [n].
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxreg import _tree
from jaxreg._quickly import quickly
from jaxreg._tree import PyTree
from jaxreg.fit.check import frozen, trainer_at
from jaxreg.fit.kept import kept
from jaxreg.fit.returned import data_of, takes, takes_weights, term_of
from jaxreg.fit.trainer import MakeTrainer, Trainer, TrainState, parts_of

__all__ = ["Ways", "by_weights", "check_sizes", "directions", "find_ways", "of_parts", "of_rows"]

# Names of measures by the way they are called in, each in the order of the trainer.
Ways = tuple[tuple[str, str], ...]

_SLICE = 4096  # rows of a slice, where slices are proved equal
_MOST_SIZES = 32  # sizes of folds, of which each is compiled
_PROBED = 32  # rows of a probe
_PAIRED = 16  # rows of which all pairs are probed
_CLOSE = 1e-4  # relative to the mean size of a row's loss
_SCALES = (0.3, 1.0, 3.0)  # of the drawn parameters, over the root of their inputs
_TRAINED = "trained on: "  # before the names of the loss and its terms, where others are judged
_DATA = ("loss", _TRAINED + "loss")


def find_ways(
    owner: str,
    trainer: MakeTrainer,
    point: PyTree,
    data: tuple,
    key: Array,
    *,
    weighted: bool = False,
    padded: bool = False,
    metrics: bool = True,
    numbers: PyTree = None,
) -> Ways:
    """How each measure is to be called.

    Args:
      owner: who asks, for errors.
      trainer: the function of the point.
      point: any concrete point.
      data: concrete arrays with the rows first.
      key: any PRNG key.
      weighted: whether rows have weights.
      padded: whether full batches are filled up with rows of weight 0.
      metrics: whether metrics are judged too, or the loss is trained on alone.
      numbers: what was prepared for one fold.

    Raises:
      ValueError: a loss is a sum over rows; labels and predictions broadcast against each other; or rows
        have weights and a function is no mean over rows and does not take them.
    """
    made = trainer_at(owner, trainer, point)
    asked = _Asked(trainer, jax.tree.map(_telling_number, point), key, numbers)
    # On the host where the data are there anyway: each operation of jax is a program to compile.
    if jax.default_backend() == "cpu":
        data = jax.tree.map(np.asarray, tuple(data))
    telling = _telling(data)
    rows = jax.tree.map(lambda a: np.asarray(a[telling]), tuple(data))
    terms = _term_names(trainer, *frozen((asked.point, numbers, rows, key)))
    judged = made.measures(terms)
    trained = _trained_names(made, ("loss", *terms))
    losses = {"loss", *terms, *trained}
    names = [n for n in _probed_names(judged) if metrics or n in losses]
    values = _probed(asked, list(dict.fromkeys([*names, *trained])), rows)
    _refuse_broadcast(owner, asked, values, rows)
    _refuse_sums(owner, made, [n for n, v in values.items() if n in losses and v.total])
    mean = {name for name, v in values.items() if v.mean}
    # A term of the parameters alone is the same of any rows.
    mean |= {n for n in values if n in losses and n not in _DATA and values[n].constant}
    if weighted or padded:
        odd = [n for n in trained if n not in mean]
        _refuse_unweighted(owner, made, odd, padded)
    ways = {}
    for name, fn in judged.items():
        ways[name] = "weights" if takes_weights(fn) else "rows" if name in mean else "whole"
        if metrics and weighted and ways[name] == "whole":
            raise ValueError(
                f"{owner}: {_called(made, name)} is no mean over rows, so `sample_weight` cannot reach it "
                "from outside. Give it an argument `sample_weight` ([rows], 1 on average), or take one of "
                "jaxreg.metrics, which have it."
            )
    return tuple(ways.items())


# --- the three ways ---------------------------------------------------------------------------------


def by_weights(
    trainer: Trainer, state: TrainState, data: tuple, weights: Array, ways: Ways
) -> dict[str, Array]:
    """The measures that are called in the ways "rows" and "weights".

    Args:
      trainer: whose measures.
      state: where to evaluate.
      data: arrays of n rows.
      weights: [n, m] >= 0, m weightings of the rows, such as training and validation.
      ways: from `find_ways`.

    Returns:
      name -> [m].
    """
    model, measures = trainer.model(state), _measures(trainer, ways)
    w = weights / jnp.sum(weights, 0, keepdims=True)
    found = {}
    by_row = {name: measures[name] for name, way in ways if way == "rows"}
    for name, values in _row_values(model, by_row, data).items():
        # A weight of zero must silence a NaN as well, hence `where` and not a plain product.
        found[name] = jnp.sum(jnp.where(w > 0, w * values.reshape(-1, 1), 0), 0)
    for name in (name for name, way in ways if way == "weights"):
        of_all = lambda v, name=name: _scalar(measures[name](*model, *data, sample_weight=v))
        found[name] = jax.vmap(of_all, 1)(w * len(w))
    return found


def _row_values(model: tuple, measures: dict[str, Callable], data: tuple) -> dict[str, Array]:
    if not measures:
        return {}

    def row(row):
        one = jax.tree.map(lambda a: a[None], row)
        return {name: fn(*model, *one) for name, fn in measures.items()}

    n = len(jax.tree.leaves(data)[0])
    return jax.vmap(row)(data) if n <= _SLICE else lax.map(row, data, batch_size=_SLICE)


def of_rows(
    trainer: Trainer, state: TrainState, parts: Iterable[tuple], ways: Ways
) -> dict[str, Array]:
    """The measures that are called with the rows of a fold, of each of `parts`: name -> [parts]."""
    model, measures = trainer.model(state), _measures(trainer, ways)
    parts = list(parts)
    return {
        name: jnp.stack([_scalar(measures[name](*model, *part)) for part in parts])
        for name, way in ways
        if way == "whole"
    }


def of_parts(
    trainer: Trainer, state: TrainState, parts: Iterable[tuple], ways: Ways
) -> dict[str, Array]:
    """All measures of each of `parts`, whose rows count alike: name -> [parts]."""
    parts = list(parts)
    ones = lambda part: jnp.ones((len(jax.tree.leaves(part)[0]), 1))
    each = [by_weights(trainer, state, part, ones(part), ways) for part in parts]
    found = {name: jnp.concatenate([e[name] for e in each]) for name in each[0]}
    return found | of_rows(trainer, state, parts, ways)


def check_sizes(owner: str, trainer: Trainer, ways: Ways, sizes: tuple) -> None:
    """Refuse what would be compiled too often: each size of a fold is another shape.

    Raises:
      ValueError: naming the measure.
    """
    whole = [name for name, way in ways if way == "whole"]
    if whole and len(sizes) > _MOST_SIZES:
        raise ValueError(
            f"{owner}: {_called(trainer, whole[0])} is no mean over rows and is called with the rows "
            f"of each fold, and the folds have {len(sizes)} different sizes, each of which would be "
            "compiled. Give it an argument `sample_weight` ([rows], 0 outside of the fold), take one of "
            "jaxreg.metrics, or give folds of fewer sizes."
        )


def directions(trainer: Trainer) -> dict[str, str]:
    """Of the metrics that know it, whether "larger" or "smaller" is better."""
    known = {name: getattr(fn, "better", None) for name, fn in trainer.metrics.items()}
    return {name: better for name, better in known.items() if better in ("larger", "smaller")}


def _scalar(x: Any) -> Array:
    return jnp.asarray(x, float)


# --- the probe --------------------------------------------------------------------------------------


def _measures(trainer: Trainer, ways: Iterable[tuple[str, str] | str]) -> dict[str, Callable]:
    """Measures by name: what is neither the loss nor a metric is a term of the loss."""
    names = [way if isinstance(way, str) else way[0] for way in ways]
    return trainer.measures([n for n in names if n not in ("loss", *trainer.metrics)])


@kept
def _term_names(trainer: MakeTrainer, structure: Any, leaves: tuple) -> tuple[str, ...]:
    """Names of the terms that the loss returns, by shapes alone."""

    def terms(point: PyTree, numbers: PyTree, rows: tuple, key: Array) -> dict[str, Array]:
        made = trainer_at("probe", trainer, point, numbers)
        return made.terms(made.start(key), rows)

    return tuple(jax.eval_shape(terms, *jax.tree.unflatten(structure, leaves)))


def _probed_names(measures: dict[str, Callable]) -> list[str]:
    return [name for name, fn in measures.items() if not takes_weights(fn)]


def _trained_names(trainer: Trainer, names: tuple[str, ...]) -> list[str]:
    """The names of the loss and its terms as they are trained on, where they can be called row by row."""
    if trainer.stateful or trainer.stochastic or takes_weights(trainer.loss):
        return []
    return list(names) if trainer.eval_loss is None else [_TRAINED + n for n in names]


def _function(trainer: Trainer, name: str) -> Callable:
    if not name.startswith(_TRAINED):
        return _measures(trainer, [name])[name]
    name, loss = name.removeprefix(_TRAINED), trainer.loss
    part = data_of(loss) if name == "loss" else term_of(loss, name)
    # Not the first step, at which a strength that rises is 0.
    return functools.partial(part, step=1) if takes(loss, "step") else part


def _telling_number(x: Any) -> Array:
    """A number of the point, but for zeros: a term of strength 0 would tell nothing."""
    x = jnp.asarray(x)
    return jnp.where(x == 0, jnp.ones_like(x), x) if jnp.issubdtype(x.dtype, jnp.floating) else x


def _telling(data: tuple) -> np.ndarray:
    """Rows that differ: the extremes of the first columns of every array, and others at random."""
    n = len(jax.tree.leaves(data)[0])
    rng = np.random.default_rng(0)
    found: list[int] = []
    for x in jax.tree.leaves(data):
        if jnp.issubdtype(x.dtype, jnp.number) or x.dtype == bool:
            columns = np.asarray(x.reshape(n, -1)[:, :4]).astype(float)
            found += [*columns.argmax(0).tolist(), *columns.argmin(0).tolist()]
    some = list(dict.fromkeys([*found, *rng.permutation(n)[:_PROBED].tolist()]))
    return rng.permutation(some[:_PROBED])


class _Asked(NamedTuple):
    """Whose measures are probed."""

    trainer: MakeTrainer
    point: PyTree
    key: Array
    numbers: PyTree

    @property
    def made(self) -> Trainer:
        return trainer_at("probe", self.trainer, self.point, self.numbers)


class _Values(NamedTuple):
    """What a measure is at D parameters: of each of R rows, and of all of them together."""

    one: np.ndarray  # [D, R]
    all: np.ndarray  # [D]

    def agree(self, factor: float) -> bool:
        """Whether the rows together give `factor` times the mean of what they give one by one."""
        conclusive = False
        for one, together in zip(self.one, self.all):
            if not np.isfinite(one).all() or not np.isfinite(together):
                # Only overflow of both tells nothing; a ratio is undefined for single rows alone.
                if np.isfinite(together):
                    return False
                continue
            size = np.abs(one).mean()
            if abs(together - factor * one.mean()) > _CLOSE * factor * size:
                return False
            conclusive |= bool(np.ptp(one) > _CLOSE * size)
        return conclusive

    @property
    def mean(self) -> bool:
        return self.agree(1.0)

    @property
    def constant(self) -> bool:
        """Whether no row matters, as in a term of the parameters."""
        return bool(np.allclose(self.one, self.all[:, None], rtol=_CLOSE, atol=0))

    @property
    def total(self) -> bool:
        return not self.mean and self.agree(float(self.one.shape[1]))


def _probed(asked: _Asked, names: list[str], rows: tuple) -> dict[str, _Values]:
    """The values of each measure that can be called with one row."""
    found = _called_with(asked, names, rows, each=True)
    return {n: _Values(v[:, :-1], v[:, -1]) for n, v in found.items()}


def _called_with(
    asked: _Asked, names: list[str], rows: tuple, *, each: bool = False
) -> dict[str, np.ndarray]:
    """The values of each measure that can be called with one row.

    Returns:
      name -> [D, 1], of the rows together; with `each` [D, R + 1], of each row and last of all together.
    """
    able = tuple(n for n in names if _takes_one_row(asked, n, rows))
    if len(jax.tree.leaves(rows)[0]) < 2 or not able:
        return {}
    given = asked.point, asked.numbers
    found = []
    for state in _states(asked):
        args = (*given, state, rows)
        program = _program(asked.trainer, able, each, jax.tree.structure(args))
        found.append(program(*args))
    return {n: np.array([np.asarray(values[n], float) for values in found]) for n in able}


def _states(asked: _Asked) -> Iterator[TrainState]:
    """Drawn parameters, and the model state of the start.

    Not those of the start, where many predictions are equal and a root is then a mean. They are drawn by
    numpy, as compiling `init` would take longer than all the rest.
    """
    made = asked.made
    start = jax.eval_shape(made.start, asked.key)
    params, model_state = start.params, None
    if made.stateful or not all(_tree.trained(params)):
        params, _, model_state = made.start(asked.key)
    for scale in _SCALES:
        rng = np.random.default_rng(0)

        def drawn(x, scale=scale, rng=rng):
            fan = np.prod(x.shape[:-1]) if len(x.shape) > 1 else max(x.shape, default=1)
            values = rng.standard_normal(x.shape) * (scale / max(fan, 1) ** 0.5)
            return jnp.asarray(values.astype(np.float32)).astype(x.dtype)

        part, whole = parts_of(params)
        yield TrainState(whole(jax.tree.map(drawn, part)), None, model_state)


@kept
def _program(trainer: MakeTrainer, names: tuple[str, ...], each: bool, _structure: Any) -> Callable:
    """What calls the measures, for arguments of one structure."""

    def call(point, numbers, state, rows):
        made = trainer_at("probe", trainer, point, numbers)
        of = lambda name, part: _scalar(_function(made, name)(*made.model(state), *part))
        together = {n: of(n, rows).reshape(1) for n in names}
        if not each:
            return together
        one = jax.tree.map(lambda a: a[:, None], rows)
        return {n: jnp.append(jax.vmap(functools.partial(of, n))(one), together[n]) for n in names}

    return quickly(call)


def _takes_one_row(asked: _Asked, name: str, rows: tuple) -> bool:
    """Whether the measure can be called with a single row."""
    row = jax.tree.map(lambda a: jax.ShapeDtypeStruct((1, *a.shape[1:]), a.dtype), rows)
    return _traced(asked.trainer, name, *frozen((asked.point, asked.numbers, row, asked.key)))


@kept
def _traced(trainer: MakeTrainer, name: str, structure: Any, leaves: tuple) -> bool:
    def call(point, numbers, row, key):
        made = trainer_at("probe", trainer, point, numbers)
        return _function(made, name)(*made.model(made.start(key)), *row)

    try:
        jax.eval_shape(call, *jax.tree.unflatten(structure, leaves))
    except Exception:  # whatever a user's function raises where there is one row only
        return False
    return True


# --- refusals ---------------------------------------------------------------------------------------


def _refuse_sums(owner: str, trainer: Trainer, sums: list[str]) -> None:
    if sums:
        raise ValueError(
            f"{owner}: {_called(trainer, sums[0])} is a sum over the rows of a batch; it must be their "
            "mean, or λ and the learning rate would mean something else for every batch size. Return "
            "jnp.mean(...) where it has jnp.sum(...)."
        )


def _refuse_unweighted(owner: str, trainer: Trainer, odd: list[str], padded: bool) -> None:
    """What is trained on must be weighted: by itself, or from outside where that is the same.

    Args:
      owner: who asks.
      trainer: whose loss.
      odd: what of the loss is no mean over rows.
      padded: whether it is for rows that fill up, or for weights of the user.
    """
    kind = "stateful" if trainer.stateful else "stochastic" if trainer.stochastic else ""
    if takes_weights(trainer.loss) or not (odd or kind):
        return
    why = f"the loss is {kind}" if kind else f"{_named(trainer, odd)} is no mean over rows"
    need = (
        "full batches of folds of different sizes need rows of weight 0"
        if padded
        else "rows have a `sample_weight`"
    )
    or_else = ", or a batch_size, or folds of equal size" if padded else ""
    raise ValueError(
        f"{owner}: {need}, and {why}, so it cannot be weighted from outside. Give the loss an argument "
        f"`sample_weight` ([rows], 1 on average) and return the weighted mean{or_else}."
    )


def _refuse_broadcast(owner: str, asked: _Asked, values: dict[str, _Values], rows: tuple) -> None:
    """A measure in which every row meets every entry of an array, for want of the right shape.

    With the other shape it is another number, and on all pairs of a row and an entry it is the one that it
    was. A weighted mean, or a ratio of means, is not both.
    """
    suspects = [n for n, v in values.items() if not v.mean and np.isfinite(v.all).all()]
    if not suspects:
        return
    leaves = _tree.flatten(jax.tree.map(lambda a: a[:_PAIRED], rows))
    n = len(leaves.values[0])
    each, every = np.repeat(np.arange(n), n), np.tile(np.arange(n), n)
    given = _called_with(asked, suspects, leaves.rebuild(leaves.values))
    for i, (path, x) in enumerate(zip(leaves.paths, leaves.values)):
        column = x.ndim == 2 and x.shape[1] == 1
        if not (column or x.ndim == 1):
            continue
        other = [*leaves.values]
        other[i] = x[:, 0] if column else x[:, None]
        shaped = _called_with(asked, suspects, leaves.rebuild(other))
        moved = [m for m, value in shaped.items() if not _same(value, given[m])]
        pairs = leaves.rebuild([y[every] if j == i else y[each] for j, y in enumerate(other)])
        for name, value in _called_with(asked, moved, pairs).items():
            if _same(value, given[name]):
                have, meet = ("[n, 1]", "[n]") if column else ("[n]", "[n, 1]")
                raise ValueError(
                    f"{owner}: {_called(asked.made, name)} broadcasts data[{path}] of shape {have} "
                    f"against predictions of shape {meet}, so that every row meets every "
                    f"other. Give data[{path}]{'[:, 0]' if column else '[:, None]'}, or predictions of "
                    f"shape {have}."
                )


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return np.allclose(a, b, rtol=10 * _CLOSE)


def _named(trainer: Trainer, odd: list[str]) -> str:
    """What is no mean: where the loss cannot be called with one row, one of its terms may be why."""
    first, *others = odd
    terms = ", ".join(n.removeprefix(_TRAINED) for n in others)
    also = f" or a term of it ({terms})" if first in _DATA and terms else ""
    return f"{_called(trainer, first)}{also}"


def _called(trainer: Trainer, name: str) -> str:
    name = name.removeprefix(_TRAINED)
    if name == "loss":
        return "the loss"
    return f"the metric {name!r}" if name in trainer.metrics else f"the term {name!r} of the loss"
