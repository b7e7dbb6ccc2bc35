"""The arithmetic and the words of a sweep's result: means, standard errors, choices, tables.

Everything here is numpy in float64 on the host: a result is looked at, not trained through.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxreg._check import flag
from jaxreg.choice import coordinate_text, coords_text
from jaxreg.grid import point_label, values_in
from jaxreg.report.table import Column, Table
from jaxreg.results.build import Parts
from jaxreg.results.status import Status

__all__ = ["chosen", "choices", "describe", "direction", "label", "lane_steps", "plus_minus"]


SHOWN = ("min", "paired")  # the rules of tables and pictures


def chosen(kind: str, name: str, table: Mapping[str, Any]) -> Any:
    """The entry of that name; ValueError with the sorted choices if there is none."""
    if not isinstance(name, str) or name not in table:
        raise ValueError(f"result: `{kind}` must be one of {sorted(table)}, got {name!r}.")
    return table[name]


def direction(result: Any, metric: str, maximize: bool | None) -> bool:
    """Whether larger is better: as said, as the metric knows, and smaller for the loss."""
    if maximize is not None:
        return flag("best", "maximize", maximize)
    if metric in result.directions:
        return result.directions[metric] == "larger"
    if metric != "loss":
        raise ValueError(
            f"best: is a larger {metric!r} better? Say so once, metrics={{{metric!r}: "
            "jaxreg.metrics.directed(fn, 'larger')} or 'smaller' in the trainer, or here with "
            "maximize=True or maximize=False."
        )
    return False


def without_scores(result: Any, metric: str) -> str:
    """Why no point has a score, and what to do."""
    status = np.asarray(result.status)
    diverged, given_up = ((status == s).any((1, 2)) for s in (Status.DIVERGED, Status.GIVEN_UP))
    if (diverged | given_up).all():
        return (
            f"all {len(status)} points diverged or were given up, so none has a finite mean {metric}. "
            "Lower the learning rate or the strengths; plot_learning_curves() shows where it happened."
        )
    return (
        f"no point that was trained to its end has a finite mean {metric}: {undefined(result, metric)}. "
        "Give folds in which it is defined, such as jaxreg.folds(n, y=labels), or choose by another metric."
    )


def undefined(result: Any, metric: str) -> str:
    """In which folds a metric is no number although training went well; "" where it is one in all."""
    values = result.scores(metric)
    bad = ~np.isfinite(values) & (np.asarray(result.status) != Status.DIVERGED)
    folds = np.flatnonzero(bad.any((0, 2)))
    if not folds.size:
        return ""
    n = values.shape[1]
    where = f"fold{'s' * (folds.size > 1)} {', '.join(map(str, folds[:8]))}" if n > 1 else ""
    where += ", ..." if folds.size > 8 else ""
    inside = f"undefined in {folds.size} of {n} folds ({where})" if n > 1 else "undefined"
    return (
        f"{metric} is {inside} on the validation rows, as where only one class occurs, or labels are "
        "others than 0, 1, …"
    )


def column(values: Any) -> np.ndarray:
    """A coordinate as float64, or as an array of texts."""
    values = np.asarray(values)
    return values.astype(object if values.dtype.kind in "OUS" else float)


def varying(result: Any) -> list[str]:
    """The coordinates that have more than one value."""
    return [n for n, v in result.coords.items() if len(set(np.asarray(v).tolist())) > 1]


def best_of_each(result: Any, values: np.ndarray, metric: str = "loss") -> np.ndarray:
    """The point of the best validation metric for each value of a coordinate, in its order."""
    score = result.mean(metric) * (-1 if direction(result, metric, None) else 1)
    ranked = np.where(np.isfinite(score), score, np.inf)
    # One group for all that lack the coordinate: no NaN equals another.
    _, group = np.unique(values, return_inverse=True)
    return np.array(
        [min(np.flatnonzero(group == g), key=lambda k: ranked[k]) for g in range(group.max() + 1)]
    )


def choices(result: Any, metric: str = "loss") -> dict[str, Any]:
    """The choice of each rule by a validation metric, without those that cannot be made."""
    made = {}
    for rule in SHOWN:
        try:
            made[rule] = result.best(rule, metric)
        except ValueError:
            continue
    return made


def lane_steps(result: Any) -> int:
    """Steps of training over all lanes, as far as their curves go on with numbers."""
    known = np.isfinite(np.asarray(result.valid["loss"], float))
    last = known.shape[-1] - 1 - np.argmax(known[..., ::-1], -1)
    steps = np.asarray(result.time)[np.where(known.any(-1), last, 0)]
    return int(steps.sum())


def label(points: Any) -> str:
    """The name of the points without their numbers; a result that was read back may not know it."""
    if isinstance(points, Parts):
        return " | ".join(dict.fromkeys(map(label, points.trees)))
    return point_label(points) if values_in(points) else "points"


def spread(result: Any) -> str:
    """What the standard error is taken over, in words."""
    _, folds, seeds = np.shape(result.status)
    if folds > 1:
        each = f" (each the mean of {seeds} seeds)" if seeds > 1 else ""
        if folds == result.repeats:
            return f"{folds} draws of the training rows{each}"
        repeats = f", the mean of {result.repeats} repeats" if result.repeats > 1 else ""
        repeats += " that overlap (Nadeau & Bengio's correction)" if result.overlap else ""
        return f"{folds // result.repeats} folds{repeats}{each}"
    return f"{seeds} seeds, on the same validation rows" if seeds > 1 else ""


def table(result: Any, by: str | None = None, metric: str = "loss") -> Table:
    """See `SweepResult.table`."""
    larger = direction(
        result, chosen("metric", metric, dict.fromkeys(result.metrics, metric)), None
    )
    rows, texts = _measured(result)
    shown = range(len(rows))
    if by is not None:
        values = column(chosen("by", by, result.coords))
        shown = best_of_each(result, values, metric).tolist()
    made = choices(result, metric)
    status = np.asarray(result.status)
    n_bad, lanes = (status == Status.DIVERGED).sum((1, 2)), int(np.prod(status.shape[1:]))
    for k, (row, text) in enumerate(zip(rows, texts)):
        marks = [rule for rule, choice in made.items() if choice.index == k]
        row |= {"diverged": int(n_bad[k]), "lanes": lanes, "choice": tuple(marks)}
        text += [_status(status[k]), ", ".join(marks)]
    beside = dict(_beside(result, made, metric))
    for column_ in beside.values():
        for row, text, (values, words) in zip(rows, texts, column_):
            row |= values
            text.insert(-2, words)
    heads = [f"{split} {m}" for m in result.metrics for split in ("train", "valid")]
    return Table(
        title=_title(result) + (f"; the best for each {by}" if by else ""),
        columns=(
            *(Column(name) for name in (*result.coords, *heads)),
            *map(Column, beside),
            Column("status", "left"),
            Column("choice", "left"),
        ),
        rows=tuple(rows[k] for k in shown),
        cells=tuple(tuple(texts[k]) for k in shown),
        notes=tuple(
            _notes(result, made, f"{'highest' if larger else 'lowest'} mean validation {metric}")
        ),
        warnings=tuple(_warnings(result, made, n_bad)),
        styles=tuple(_style(rows[k]) for k in shown),
    )


def _style(row: dict[str, Any]) -> str:
    return "red" if row["diverged"] else "bold green" if row["choice"] else ""


def _measured(result: Any) -> tuple[list[dict[str, Any]], list[list[str]]]:
    """Coordinates and mean ± SE of every point, as values and as texts."""
    columns = {name: column(v) for name, v in result.coords.items()}
    texts = [[coordinate_text(v) for v in values.tolist()] for values in columns.values()]
    for metric in result.metrics:
        for split in ("train", "valid"):
            middle, error = result.mean(metric, split), result.stderr(metric, split)
            columns |= {f"{split} {metric}": middle, f"{split} {metric} se": error}
            texts.append(plus_minus(middle, error))
    rows = [dict(zip(columns, values)) for values in zip(*(c.tolist() for c in columns.values()))]
    return rows, [list(text) for text in zip(*texts)]


def _beside(result: Any, made: Mapping[str, Any], metric: str) -> Iterator[tuple[str, Any]]:
    """Further columns where there is something to tell: a head, and of each point values and a text."""
    if "min" in made and np.prod(np.shape(result.status)[1:]) > 1:
        yield f"{metric} from best", _differences(result, metric)
    if result.certificate is not None:
        yield "stationarity", _certificates(result)


def _differences(result: Any, metric: str) -> Iterator[tuple[dict[str, float], str]]:
    """How much each point is off the best, as values and as text."""
    apart, error = result.difference(metric)
    for d, se, text in zip(apart.tolist(), error.tolist(), plus_minus(apart, error, "+")):
        yield {"difference": d, "difference se": se}, "best" if d == se == 0 else text


def _certificates(result: Any) -> Iterator[tuple[dict[str, float], str]]:
    """The worst lane of every point, as values and as text."""
    worst = lambda x: np.asarray(x, float).max((1, 2))
    distances, shares = (worst(getattr(result.certificate, n)) for n in ("distance", "relative"))
    for distance, share in zip(distances.tolist(), shares.tolist()):
        values = {"stationarity": share, "stationarity distance": distance}
        percent = f"{share:.1%}" if 5e-4 <= share < 10 else f"{share:.0e}"
        yield values, f"{distance:.1e} ({percent})" if np.isfinite(share) else "-"


def plus_minus(middle: np.ndarray, error: np.ndarray, sign: str = "") -> list[str]:
    """Aligned texts: two digits of the typical error, and no more than four of the typical mean.

    The sign "+" shows one also where it is above 0.
    """
    known = [x[np.isfinite(x)] for x in (middle, error)]
    zeros = not any(x.any() for x in known)  # a term that no point has
    decimals = 0 if zeros else min(_decimals(error, 2), _decimals(middle, 4))
    return [_one_plus_minus(m, e, decimals, sign) for m, e in zip(middle, error)]


def _one_plus_minus(m: float, e: float, decimals: int, sign: str) -> str:
    if not np.isfinite(m):
        return "-"
    fits = abs(m) < 1e6 and (m == 0 or abs(m) >= 0.5 * 10.0**-decimals)
    form = f".{decimals}f" if fits else ".2g"
    return f"{m:{sign}{form}} ± {e:{form}}" if np.isfinite(e) else f"{m:{sign}{form}}"


def _decimals(values: np.ndarray, digits: int) -> int:
    """Decimals that show so many significant digits of the median size."""
    sizes = np.abs(values[np.isfinite(values) & (values != 0)])
    if not sizes.size:
        return 8
    return int(np.clip(digits - 1 - np.floor(np.log10(np.median(sizes))), 0, 8))


# The word for lanes of a status, the gravest first.
_WORDS = {
    Status.DIVERGED: "diverged",
    Status.GIVEN_UP: "given up",
    Status.RUNNING: "interrupted",
    Status.STOPPED: "stopped early",
    Status.FINISHED: "finished",
}


def _status(lanes: np.ndarray) -> str:
    """How the lanes of a point ended: the gravest, and of how many."""
    counts = {word: int((lanes == status).sum()) for status, word in _WORDS.items()}
    word = next(word for word, n in counts.items() if n)
    n = counts[word]
    return word if n == lanes.size else f"{word} ({n} of {lanes.size} lanes)"


def _title(result: Any) -> str:
    n, folds, seeds = np.shape(result.status)
    counts = [_count(k, name) for k, name in ((folds, "fold"), (seeds, "seed")) if k > 1]
    made = json.loads(result.made_by)
    steps = _count(int(np.asarray(result.time)[-1]), "step")
    if made.get("continuation"):
        steps = f"{made['steps']} steps, then {made['then']} at each larger {made['continuation']}"
    return ", ".join([_many(n, label(result.points)), *counts, steps])


def _many(n: int, name: str) -> str:
    # Read back without a template, the points are numbers that do not know their name.
    return f"{n} {name}" if name == "points" else f"{n} x {name}"


def _count(n: int, name: str) -> str:
    return f"{n} {name}" + "s" * (n != 1)


def _notes(result: Any, made: Mapping[str, Any], best: str) -> Iterator[str]:
    over = spread(result)
    yield f"±: standard error over {over}." if over else "one lane each: no standard error."
    larger = " ".join(result.strengths)
    words = {
        "min": f"min: {best}.",
        "paired": f"paired: on the way to larger {larger} the last whose mean difference from it is within "
        "one (plain) standard error of that.",
    }
    if made:
        yield " ".join(words[rule] for rule in made)
    if "min" in made and over:
        folds = np.shape(result.status)[1] > 1
        allow = (
            ", ± Nadeau & Bengio's standard error, which allows for shared training rows" * folds
        )
        yield f"from best: mean difference in pairs of lanes{allow or ', ± standard error'}."
    if result.certificate is not None:
        yield "stationarity: |grad L + dR| on the training rows, and that over |grad L|, of the worst lane."
    status, stop = np.asarray(result.status), result.stop
    if stop is not None and (status == Status.GIVEN_UP).any():
        at = sorted({int(np.asarray(result.time)[i]) for i in stop[status == Status.GIVEN_UP]})
        rungs = ", ".join(map(str, at))
        yield f"given up: figures of the step where it was ({rungs}); not a candidate."


def _warnings(result: Any, made: Mapping[str, Any], n_bad: np.ndarray) -> Iterator[str]:
    for metric in result.metrics:
        if why := undefined(result, metric):
            yield f"{why}; its mean is left out."
    if n_bad.all():
        yield "every point diverged: there is nothing to choose. Lower the learning rate."
    elif n_bad.any():
        yield f"{(n_bad > 0).sum()} of {len(n_bad)} points diverged in some lane; none is chosen."
    if "min" in made:
        yield from (f"min: {text}" for text in made["min"].warnings)


def describe(result: Any) -> str:
    """The text of `repr`: size, range, choices, what diverged and what is kept."""
    lines = [f"SweepResult: {_title(result)}"]
    for name, values in result.coords.items():
        lines.append(f"  {name:<9} {_span(column(values))}")
    for rule, choice in choices(result).items():
        (score,) = plus_minus(np.array([choice.mean]), np.array([choice.stderr]))
        lines.append(f"  {rule:<9} {coords_text(choice.coords)}: valid loss {score}")
    status = np.asarray(result.status)
    counts = {word: int((status == s).sum()) for s, word in reversed(_WORDS.items())}
    counts = {w: n for w, n in counts.items() if n or w in ("finished", "diverged")}
    first, *others = (f"{n} {word}" for word, n in counts.items())
    first = first.replace(" ", f" of {status.size} lanes ", 1)
    lines.append(f"  {'status':<9} {', '.join([first, *others])}")
    kept = "params kept" if result.params is not None else "params not kept"
    times = _count(np.size(result.time), "time")
    lines.append(f"  {'data':<9} {', '.join(result.metrics)} at {times}; {kept}")
    return "\n".join(lines)


def _span(values: np.ndarray) -> str:
    if values.dtype == object:
        return ", ".join(dict.fromkeys(values))
    return f"{np.nanmin(values):.4g} … {np.nanmax(values):.4g}"


def to_pandas(result: Any) -> Any:
    """See `SweepResult.to_pandas`."""
    try:
        import pandas as pd
    except ImportError as error:
        raise ImportError(
            "to_pandas needs pandas, which is not installed: pip install 'jaxreg[data]'."
        ) from error
    curves: Sequence = [
        (split, metric, np.asarray(getattr(result, split)[metric]))
        for split in ("train", "valid")
        for metric in result.metrics
    ]
    k, fold, seed, time = (i.ravel() for i in np.indices(curves[0][2].shape))
    lanes = {name: np.asarray(v)[k] for name, v in result.coords.items()}
    lanes |= {"fold": fold, "seed": seed, "time": np.asarray(result.time)[time]}
    parts = [
        pd.DataFrame({**lanes, "split": split, "metric": metric, "value": values.ravel()})
        for split, metric, values in curves
    ]
    return pd.concat(parts, ignore_index=True)
