"""The options of `jaxreg`: how they are read, explained, and turned into settings."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

import jaxreg
from jaxreg.choice import RULES
from jaxreg.cli.settings import CHOICES, Settings

__all__ = ["flag", "parser", "settings"]

_SWEEP = """\
Train a model for every λ of a grid, on every fold, with every seed, as one compiled program; choose
λ by cross-validation; refit the choice on all training data and test it beside λ = 0.

examples:
  jaxreg sweep digits
  jaxreg sweep digits --penalty l1 --lams 1e-5:1e-1:20
  jaxreg sweep breast_cancer --model linear --penalty elastic_net:l1_ratio=0.3 --train-size 200
  jaxreg sweep digits --penalty group_lasso:axis=0 --on '*/Dense_0/kernel'
  jaxreg sweep my.csv --target price --lams 0,1e-4,1e-3,1e-2 --drop id,name
  jaxreg sweep visits.csv --target outcome --groups patient --stratify --metric roc_auc
  jaxreg sweep train.csv --test test.csv --one-hot text --impute median
  jaxreg sweep wine --choose paired,1se
  jaxreg sweep wine --model linear --choose min,evidence,loo
  jaxreg sweep digits --lams 1e-6:1:64 --halving 0.5:3 --patience 5
  jaxreg sweep --resume runs/digits
  jaxreg sweep --again runs/digits/settings.json --steps 2000

Ctrl-C stops a run and says how to go on. After a kill or a crash, too, --resume goes on from the last
checkpoint, at most a minute before, and ends with the results of a run that was never stopped.
"""

_PREDICT = """\
Predict with the model that a run has left in its folder, which is trained on all training rows with the λ
that was chosen. Columns are found by their names; others may be there too. If the target is among them,
the predictions are compared with it.

examples:
  jaxreg predict runs/house new.csv > predicted.csv
  jaxreg predict runs/house new.csv --rule paired --out predicted.csv
"""

_CHOOSE = """\
What other rules take from a sweep that has been trained: nothing is trained again.

  min            the best mean validation score
  parabola       between the λ, where a quadratic in log λ through the best and its neighbours is lowest
  paired         the largest λ on the way from the best whose mean difference from it, in pairs of folds and
                 seeds, is within one standard error of that difference
  nadeau-bengio  the same, with an error that allows for training rows which folds share
  percent        the largest λ on the way from the best that is within 1 % of its mean
  1se            the largest λ within one standard error of the level of the best, the classic rule, which
                 goes further than the folds can tell apart

and, of a run with --choose evidence,loo, whose models of all training rows it has kept:

  evidence       the maximum of the marginal likelihood (l2)
  loo            the least leave-one-out loss, by a formula (--model linear)

examples:
  jaxreg choose runs/digits
  jaxreg choose runs/digits paired --within 0.5
  jaxreg choose runs/digits min parabola --metric accuracy
"""

_OPTIONS: dict[str, dict[str, tuple[str, dict[str, Any]]]] = {
    "a file of yours": {
        "task": (
            "what the target is; auto: classes if it is text or few whole numbers",
            {},
        ),
        "features": ("columns to learn from, with commas; all if empty", {"metavar": "NAMES"}),
        "drop": ("columns to leave out, with commas", {"metavar": "NAMES"}),
        "groups": (
            "column of what rows belong to, such as a patient: groups are split whole",
            {"metavar": "NAME"},
        ),
        "time": (
            "column of when rows were, numbers or ISO dates: judged is what comes later",
            {"metavar": "NAME"},
        ),
        "one_hot": (
            "columns of text, with commas, of which each value becomes a feature; text for all of them",
            {"metavar": "NAMES"},
        ),
        "impute": (
            "what a missing number becomes, by the training rows of each fold; off refuses it",
            {},
        ),
        "test": (
            "another file with the same columns, whose rows are the test set",
            {"metavar": "FILE"},
        ),
        "header": (
            "whether the first row names the columns; without, they are called 1, 2, …; if not given, it "
            "does unless it looks like one of data",
            {"action": argparse.BooleanOptionalAction},
        ),
        "delimiter": (
            "between the cells of a .csv, one character or tab; found out if not given",
            {"metavar": "CHAR"},
        ),
        "decimal": ("before decimals", {}),
    },
    "model": {
        "model": ("mlp, cnn or linear", {}),
        "hidden": ("widths of the mlp's hidden layers", {"metavar": "N,N"}),
    },
    "penalty": {
        "penalty": ("NAME or NAME:KEY=VALUE,…; see `jaxreg penalties`", {"metavar": "NAME"}),
        "on": (
            "which leaves: kernels, biases, embeddings, everything, or a glob such as '*/Dense_0/kernel'",
            {"metavar": "WHERE"},
        ),
        "lams": ("LOW:HIGH:COUNT, evenly spaced in the logarithm, or a list", {"metavar": "LAMS"}),
        "coupling": (
            "how the penalty reaches the weights; auto is gradient for smooth penalties and "
            "proximal (exact zeros) for the others",
            {},
        ),
    },
    "training": {
        "optimizer": ("adam or sgd", {}),
        "lr": ("learning rate", {"type": float}),
        "steps": ("updates per training", {"type": int}),
        "batch_size": ("rows per step; 0 is the full batch", {"type": int}),
        "train_size": (
            "rows to train on, the others are the test set; 0 is three quarters, as for a file of yours "
            "if it is not given, else 100",
            {"type": int},
        ),
        "folds": ("folds of the cross-validation", {"type": int}),
        "stratify": (
            "give each fold its share of every class, or of small and large targets",
            {"action": argparse.BooleanOptionalAction},
        ),
        "metric": (
            "what chooses λ: loss, or for classes accuracy, balanced_accuracy, f1 (the mean over classes), "
            "log_loss, brier, calibration_error, for two of them roc_auc and average_precision, for a "
            "quantity rmse, r2, mae, mse; what gives up early goes by the loss",
            {"metavar": "NAME"},
        ),
        "choose": (
            f"rules that choose λ, with commas, of {', '.join(RULES)}, and without folds evidence (l2) and "
            "loo (--model linear); all choices are refitted and tested",
            {"metavar": "RULES"},
        ),
        "seeds": ("repetitions of each fold", {"type": int}),
        "refits": (
            "repetitions of the final training, for the test's standard error",
            {"type": int},
        ),
        "seed": ("of the split, the folds, the parameters and the batches", {"type": int}),
    },
    "giving up early": {
        "halving": (
            "at RUNGS rungs, go on with the share KEEP of the λ, those of lowest validation loss, "
            "such as 0.5:3",
            {"metavar": "KEEP:RUNGS"},
        ),
        "patience": (
            "end a training after N evaluations (there are 20) without a lower validation loss, "
            "and take its best one; refits train as long as that took; 0 is off",
            {"type": int, "metavar": "N"},
        ),
    },
    "machine": {
        "chunk": (
            "λ vmapped together; 0 is chosen by machine and memory",
            {"type": int, "metavar": "N"},
        ),
    },
}
_ZERO_IS_NONE = ("batch_size", "patience", "chunk")


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command; an option that was not given leaves no attribute."""
    whole = argparse.ArgumentParser("jaxreg", description="Functional regularization for JAX.")
    whole.add_argument("--version", action="version", version=f"jaxreg {jaxreg.__version__}")
    commands = whole.add_subparsers(dest="command", required=True)
    commands.add_parser(
        "penalties", help="list every penalty that can be swept, with its arguments"
    )
    sweep = commands.add_parser(
        "sweep", help="train a grid of λ, choose one, test it", description=_SWEEP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )  # fmt: skip
    sweep.add_argument(
        "data",
        nargs="?",
        default=argparse.SUPPRESS,
        help="digits, breast_cancer, diabetes, wine, or the path of a .csv (with a header) or .npz "
        "(arrays X and y); default digits",
    )
    sweep.add_argument(
        "--target",
        help="the target's column in a .csv; default 'target' if there is one, else the last",
    )
    for title, options in _OPTIONS.items():
        _group(sweep, title, options)
    _runs(sweep.add_argument_group("runs and their folders"))
    _choose(commands)
    _predict(commands)
    return whole


def _choose(commands: Any) -> None:
    choose = commands.add_parser(
        "choose", help="choose λ from a finished run by other rules", description=_CHOOSE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    choose.add_argument("run", metavar="RUN", help="the folder of a run, such as runs/digits")
    choose.add_argument("rules", metavar="RULE", nargs="*", help="default all of them")
    choose.add_argument(
        "--metric", metavar="NAME", help="of the run; default the one that it chose by"
    )
    choose.add_argument(
        "--within", type=float, metavar="X", help="standard errors or percent; default 1"
    )


def _predict(commands: Any) -> None:
    predict = commands.add_parser(
        "predict", help="predict the rows of a file with the model of a run", description=_PREDICT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    predict.add_argument("run", metavar="RUN", help="the folder of a run, such as runs/digits")
    predict.add_argument("file", metavar="FILE", help="a .csv or .npz like the one learnt from")
    predict.add_argument(
        "--rule", help="which of the run's λ, such as paired; default the first that it chose"
    )
    predict.add_argument("--out", metavar="FILE", help="a new file; default the standard output")


def _group(sweep: argparse.ArgumentParser, title: str, options: dict) -> None:
    group, default = sweep.add_argument_group(title), Settings()
    for name, (text, kwargs) in options.items():
        value = getattr(default, name)
        kwargs = {"choices": CHOICES[name]} if name in CHOICES else kwargs
        type_ = {"type": _widths} if isinstance(value, tuple) else {}
        group.add_argument(flag(name), help=text + _default(name, value), **type_, **kwargs)


def _default(name: str, value: Any) -> str:
    """What holds if the option is not given; nothing where its text says it."""
    if value is None or value == "":
        return "; default 0" if name in _ZERO_IS_NONE else ""
    if isinstance(value, bool):
        return f"; default {'yes' if value else 'no'}"
    return f"; default {','.join(map(str, value)) if isinstance(value, tuple) else value}"


def flag(name: str) -> str:
    """What to type for an option, by its name in the settings."""
    return name if name == "data" else "--" + name.replace("_", "-")


def _runs(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--out",
        metavar="DIR",
        help="a new folder; default the first free of runs/DATA, runs/DATA-2, …",
    )
    group.add_argument(
        "--tensorboard",
        action=argparse.BooleanOptionalAction,
        help="also write curves for TensorBoard while training, into DIR/tensorboard",
    )
    group.add_argument(
        "--cache",
        metavar="DIR",
        help="keep compiled programs in this folder, so that the next run that needs them compiles "
        "nothing; it only grows, and belongs to machines of one kind; default the variable "
        "JAX_COMPILATION_CACHE_DIR, or nothing is kept",
    )
    group.add_argument(
        "--resume",
        metavar="DIR",
        help="go on with the run in this folder, which was stopped, killed or crashed; takes no "
        "other option but --cache",
    )
    group.add_argument(
        "--again",
        metavar="FILE",
        help="run the settings.json of an earlier run again, with the options given besides "
        "instead of its own",
    )


def _widths(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(n) for n in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"give widths such as 128,128, got {text!r}") from error


def settings(args: argparse.Namespace) -> Settings:
    """The settings of a new run: the options given over those of --again, or over the defaults.

    Raises:
      ValueError: the file of --again cannot be used.

    >>> settings(parser().parse_args(["sweep", "wine", "--steps", "5", "--batch-size", "0"])).data
    'wine'
    """
    again = getattr(args, "again", None)
    base = Settings() if again is None else Settings.from_json(again)
    names = [f.name for f in dataclasses.fields(Settings)]
    given = {name: getattr(args, name) for name in names if hasattr(args, name)}
    for name in _ZERO_IS_NONE:
        given |= {name: given[name] or None} if name in given else {}
    return dataclasses.replace(base, **given)
