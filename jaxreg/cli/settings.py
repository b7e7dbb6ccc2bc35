"""What a run is made of: every option of the command, parsed, checked and written down."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import jaxreg as jr
from jaxreg import penalties, select
from jaxreg.choice import RULES
from jaxreg.cli.data import Reading
from jaxreg.cli.data.problems import did_you_mean
from jaxreg.grid import Grid

__all__ = [
    "CHOICES",
    "WITHOUT_FOLDS",
    "Settings",
    "parse_halving",
    "parse_lams",
    "parse_penalty",
    "parse_rules",
    "parse_selector",
    "penalty_signatures",
]

_SELECTORS = {
    repr(s): s for s in (select.kernels, select.biases, select.embeddings, select.everything)
}


CHOICES = {
    "task": ("auto", "classification", "regression"),
    "decimal": (".", ","),
    "impute": ("off", "median", "mean"),
    "model": ("mlp", "cnn", "linear"),
    "coupling": ("auto", "gradient", "decoupled", "proximal"),
    "optimizer": ("adam", "sgd"),
}
# Rules that look at models of all training rows.
WITHOUT_FOLDS = ("evidence", "loo")
# The least that each number may be.
_LEAST = {
    "folds": 2, "seeds": 1, "refits": 1, "steps": 1, "batch_size": 1, "train_size": 0, "patience": 1,
    "chunk": 1, "seed": 0,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Settings:
    """The options of `jaxreg sweep`; written to settings.json, from which it runs again.

    The defaults are the main job: 100 digits are few enough that a net of this size overfits. A new
    option gets a default that is what runs did before it, so that older files stay what they were.

    Raises:
      ValueError: an option is of another kind, or out of range.
    """

    data: str = "digits"
    target: str | None = None
    task: str = "auto"
    delimiter: str | None = None
    decimal: str = "."
    header: bool | None = None
    drop: str = ""
    features: str = ""
    one_hot: str = ""
    impute: str = "off"
    test: str | None = None
    groups: str | None = None
    time: str | None = None
    stratify: bool = False
    model: str = "mlp"
    hidden: tuple[int, ...] = (128, 128)
    penalty: str = "l2"
    on: str = "kernels"
    coupling: str = "auto"
    optimizer: str = "adam"
    lr: float = 1e-3
    lams: str = "1e-5:1e-1:16"
    folds: int = 5
    seeds: int = 3
    refits: int = 10
    steps: int = 1000
    batch_size: int | None = 64
    train_size: int | None = None
    metric: str = "loss"
    choose: str = "min,paired"
    seed: int = 0
    halving: str = "off"
    patience: int | None = None
    chunk: int | None = None
    tensorboard: bool = False

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            _check_setting(field.name, getattr(self, field.name), str(field.type))
        parse_rules(self.choose)

    def to_json(self) -> str:
        """Text that `from_json` reads back."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, path: str | os.PathLike) -> Settings:
        """Settings from a settings.json; an option that it lacks has its default.

        Raises:
          ValueError: the file is missing, no JSON, or has options this version does not know.
        """
        try:
            text = Path(path).read_text()
        except (OSError, ValueError) as error:
            raise ValueError(
                f"settings: cannot read settings from {str(path)!r}: {error}."
            ) from error
        return cls.from_text(text, str(path))

    @classmethod
    def from_text(cls, text: str, name: str) -> Settings:
        """Settings from the text of a settings.json, which comes from `name`.

        Raises:
          ValueError: as `from_json`.
        """
        try:
            given = json.loads(text)
        except ValueError as error:
            raise ValueError(f"settings: cannot read settings from {name!r}: {error}.") from error
        known = {f.name for f in dataclasses.fields(cls)}
        if not isinstance(given, dict) or set(given) - known:
            odd = sorted(set(given) - known) if isinstance(given, dict) else "no JSON object"
            raise ValueError(f"settings: {name!r} is no settings file of this version ({odd}).")
        hidden = given.get("hidden", cls.hidden)
        try:
            return cls(**{**given, "hidden": tuple(hidden) if isinstance(hidden, list) else hidden})
        except ValueError as error:
            raise ValueError(f"settings: {name!r} cannot be run: {error}") from error

    def reading(self) -> Reading:
        """How a .csv is to be read."""
        names = lambda text: tuple(name.strip() for name in text.split(",") if name.strip())
        return Reading(
            delimiter=self.delimiter,
            decimal=self.decimal,
            header=self.header,
            drop=names(self.drop),
            features=names(self.features),
            one_hot=names(self.one_hot),
            impute=self.impute,
            groups=self.groups,
            time=self.time,
        )

    def grid(self) -> Grid:
        """The penalties to try, weakest first."""
        make, where = parse_penalty(self.penalty), parse_selector(self.on)
        return jr.grid(lambda lam: make(lam).on(where), lam=parse_lams(self.lams))


def _check_setting(name: str, value: Any, kind: str) -> None:
    """Refuse a value that is not of the kind that its annotation says, or out of range."""
    kinds = {"str": "text", "int": "a whole number", "float": "a number", "bool": "true or false"}
    kinds["tuple[int, ...]"] = "a list of widths, whole numbers above 0"
    base = kind.removesuffix(" | None")
    least = _LEAST.get(name)
    if name in CHOICES:
        must, right = f"be one of {', '.join(CHOICES[name])}", value in CHOICES[name]
    elif least is not None:
        must = f"be a whole number of at least {least} and below 2**31"
        right = type(value) is int and least <= value < 2**31
    elif base == "float":
        must = "be a finite number above 0"
        right = type(value) in (int, float) and 0 < value < float("inf")
    elif base == "tuple[int, ...]":
        must = f"be {kinds[base]}"
        right = isinstance(value, tuple) and all(type(n) is int and 0 < n < 2**31 for n in value)
    else:
        must, right = f"be {kinds[base]}", type(value).__name__ == base
    if not right and not (value is None and base != kind):
        raise ValueError(f"--{name.replace('_', '-')} must {must}, got {value!r:.80}.")


def parse_lams(text: str) -> np.ndarray:
    """Strengths from `LOW:HIGH:COUNT`, spaced evenly in the logarithm, or from a list with commas.

    Raises:
      ValueError: the text is neither, or a strength is negative, NaN or given twice.

    >>> parse_lams("1e-2:1:3").tolist()
    [0.01, 0.1, 1.0]
    >>> parse_lams("0,0.5").tolist()
    [0.0, 0.5]
    """
    example = "Give LOW:HIGH:COUNT, such as 1e-6:1:32, or a list, such as 0,1e-4,1e-2."
    try:
        if ":" in text:
            low, high, count = text.split(":")
            if not (0 < float(low) <= float(high) and int(count) >= 1):
                raise ValueError("a range needs 0 < LOW <= HIGH and COUNT >= 1")
            lams = np.geomspace(float(low), float(high), int(count))
        else:
            lams = np.array([float(x) for x in text.split(",") if x.strip()])
    except ValueError as error:
        raise ValueError(f"--lams: cannot read {text!r} ({error}). {example}") from error
    if not lams.size or not (lams >= 0).all() or len(set(lams)) < len(lams):
        raise ValueError(
            f"--lams: strengths must be >= 0, not NaN and distinct, got {text!r}. {example}"
        )
    return np.sort(lams)


def parse_halving(text: str) -> jr.Halving | None:
    """Successive halving from `KEEP:RUNGS`; None from `off`.

    Raises:
      ValueError: the text is neither, or a number is out of range.

    >>> parse_halving("0.5:3"), parse_halving("off")
    (Halving(keep=0.5, rungs=3), None)
    """
    if text == "off":
        return None
    try:
        keep, rungs = text.split(":")
        return jr.Halving(float(keep), int(rungs))
    except ValueError as error:
        raise ValueError(
            f"--halving: cannot read {text!r} ({error}). Give KEEP:RUNGS, such as 0.5:3 to go on with "
            "half of the λ at each of three rungs, or off."
        ) from error


def parse_rules(text: str) -> tuple[str, ...]:
    """Rules of choice from a list with commas.

    Raises:
      ValueError: there is none, one is unknown, or one is given twice.

    >>> parse_rules("min, paired")
    ('min', 'paired')
    """
    rules = tuple(name.strip() for name in text.split(",") if name.strip())
    known = (*RULES, *WITHOUT_FOLDS)
    for name in rules:
        if name not in known:
            raise ValueError(
                f"--choose: there is no rule {name!r}{did_you_mean(name, known)} There are "
                f"{', '.join(known)}."
            )
    if not rules or len(set(rules)) < len(rules):
        raise ValueError(f"--choose must name rules, each once, such as min,paired, got {text!r}.")
    return rules


def penalty_signatures() -> dict[str, inspect.Signature]:
    """Every penalty of the catalogue that has a strength `lam` to sweep, by name."""
    found = {n: inspect.signature(getattr(penalties, n)) for n in penalties.__all__}
    return {n: s for n, s in sorted(found.items()) if next(iter(s.parameters), None) == "lam"}


def parse_penalty(text: str) -> Callable[[float], jr.Penalty]:
    """A function lam -> penalty from `NAME` or `NAME:KEY=VALUE,KEY=VALUE`.

    Raises:
      ValueError: the penalty or one of its arguments is unknown, or a value cannot be read.

    >>> parse_penalty("group_lasso:axis=0")(0.5)
    group_lasso(0.5, axis=0)
    """
    name, _, rest = text.partition(":")
    known = penalty_signatures()
    if name not in known:
        raise ValueError(
            f"--penalty: unknown penalty {name!r}{did_you_mean(name, known)} There are {', '.join(known)}."
        )
    allowed = [p for p in known[name].parameters if p != "lam"]
    kwargs: dict[str, Any] = {}
    for item in rest.split(",") if rest else []:
        key, eq, value = item.partition("=")
        if not eq or key not in allowed:
            raise ValueError(
                f"--penalty: {name} takes {', '.join(allowed) or 'nothing'} as NAME:KEY=VALUE,…; "
                f"got {item!r}."
            )
        kwargs[key] = _literal(value)
    return lambda lam: getattr(penalties, name)(lam, **kwargs)


def parse_selector(text: str) -> select.Selector:
    """A selector from its name (kernels, biases, embeddings, everything) or a glob over leaf paths.

    >>> parse_selector("kernels"), parse_selector("*/Dense_0/*")
    (kernels, path('*/Dense_0/*'))
    """
    return _SELECTORS.get(text) or select.path(text)


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
