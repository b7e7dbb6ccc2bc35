"""Damaged and hostile files: each is read right, or refused in one clear error, whatever is in it.

    cd tests && python -m attacks.files --count 2000

Four kinds of files: the checkpoints of a sweep, a saved result, the model and the settings of a run. Three
kinds of damage: of bytes, as a disk does; of the members of an archive, as a tool does; and of what the file
says, sealed with right hashes again, as somebody does who wants to be believed.
"""

from __future__ import annotations

import argparse
import collections
import io
import json
import random
import resource
import shutil
import sys
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from support.toy import Press, make, numbers, run

import jaxreg as jr
from jaxreg.cli import main
from jaxreg.cli.model_file import read_model
from jaxreg.cli.settings import Settings
from jaxreg.storage.sealed import sealed, unsealed

MOST_SECONDS, MOST_BYTES = 20.0, 1.0e9


def _nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


HOSTILE: list[Any] = [
    None, True, False, -1, 0, 1, 3, 2**31, 2**63, 2**70, -(2**63), 1e308, float("inf"), float("nan"), 0.5,
    "", "x", "../../../etc/passwd", "\0", "object", "float64", "U1000000000", [], {}, [[]], [1, 2], ["x"],
    {"x": 1}, [10**12], [10**6, 10**6], [-1], _nested(50), _nested(900), "9" * 10_000, [0] * 10_000,
]  # fmt: skip


# --- damage -----------------------------------------------------------------------------------------


def bytes_damaged(data: bytes, rng: random.Random) -> bytes:
    """As a disk, a copy that was cut off, or an editor leaves it."""
    n = len(data)
    at = rng.randrange(max(n, 1))
    end = min(n, at + rng.choice([1, 8, 64, 512, 4096]))
    return rng.choice([
        lambda: data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :] if n else b"x",
        lambda: data[:at],
        lambda: data[at:],
        lambda: data[:at] + bytes(end - at) + data[end:],
        lambda: data[:at] + rng.randbytes(end - at) + data[end:],
        lambda: data[:at] + data[end:],
        lambda: data[:at] + rng.randbytes(rng.choice([1, 100, 10_000])) + data[at:],
        lambda: data + data,
        lambda: data + rng.randbytes(100),
        lambda: b"",
        lambda: rng.randbytes(rng.choice([1, 22, 1000])),
        lambda: data.replace(b"\n", b"\r\n"),
    ])()  # fmt: skip


def members_damaged(data: bytes, rng: random.Random) -> bytes:
    """As a tool that unpacks and packs leaves an archive."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        content = [(name, archive.read(name)) for name in archive.namelist()]
    i, j = rng.randrange(len(content)), rng.randrange(len(content))
    (name, body), (_, other) = content[i], content[j]
    compression, changed = zipfile.ZIP_STORED, list(content)
    kind = rng.randrange(8)
    if kind == 0:
        del changed[i]
    elif kind == 1:
        changed[i] = (name + "x", body)
    elif kind == 2:
        changed.append((name, body))
    elif kind == 3:
        changed.append(("more.npy", body))
    elif kind == 4:
        changed[i], changed[j] = (name, other), (content[j][0], body)
    elif kind == 5:
        compression = zipfile.ZIP_DEFLATED
    elif kind == 6:
        changed[i] = (name, bytes_damaged(body, rng))
    else:
        bomb = bytes(20_000_000)
        changed[i], compression = (name, body[:128] + bomb), zipfile.ZIP_DEFLATED
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a name that is there twice
        with zipfile.ZipFile(out, "w", compression) as archive:
            for member in changed:
                archive.writestr(*member)
    return out.getvalue()


def said_otherwise(content: Any, rng: random.Random) -> Any:
    """JSON with one thing in it changed, left out or added."""
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        keys = (
            list(node)
            if isinstance(node, dict)
            else range(len(node))
            if isinstance(node, list)
            else ()
        )
        for key in keys:
            places.append((node, key))
            walk(node[key])

    walk(content)
    node, key = rng.choice(places or [({"x": 1}, "x")])
    kind = rng.randrange(4)
    if kind == 0 and isinstance(node, dict):
        del node[key]
    elif kind == 1 and isinstance(node, dict):
        node[rng.choice(["x", "sha256", "format", "keys", ""])] = rng.choice(HOSTILE)
    elif kind == 2 and isinstance(node[key], int) and not isinstance(node[key], bool):
        node[key] += rng.choice([-1, 1, 7, 10**9])
    else:
        node[key] = rng.choice(HOSTILE)
    return content


def header_said_otherwise(data: bytes, rng: random.Random) -> bytes:
    """An archive whose header says something else, with a right hash of itself."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    header = said_otherwise(unsealed(content["header.json"], "header"), rng)
    content["header.json"] = sealed(header)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for member in content.items():
            archive.writestr(*member)
    return out.getvalue()


def seal_said_otherwise(data: bytes, rng: random.Random) -> bytes:
    return sealed(said_otherwise(unsealed(data, "marker"), rng))


def json_said_otherwise(data: bytes, rng: random.Random) -> bytes:
    return json.dumps(said_otherwise(json.loads(data), rng)).encode()


# --- what is read -----------------------------------------------------------------------------------


class Subject(NamedTuple):
    """A folder with files in it, and what reading them gives."""

    folder: Path
    files: dict[str, tuple[Callable, ...]]  # name or pattern -> damages that suit it
    read: Callable[[Path], Any]


OPTIONS = {"steps": 24, "evals": 6, "patience": 12, "machine": jr.Machine(chunk=5)}
ARCHIVE = (bytes_damaged, members_damaged, header_said_otherwise)


def subjects(room: Path) -> dict[str, Subject]:
    """All kinds of files, whole, in folders of their own."""
    sweep = room / "sweep"
    for step in (8, 16):
        try:
            run(**OPTIONS, checkpoint=sweep, callbacks=[Press(step)])
        except jr.Interrupted:
            continue
    result = run(**OPTIONS)
    result.save(room / "result" / "result.npz")
    small = ["--steps", "3", "--folds", "2", "--seeds", "1", "--refits", "1", "--lams", "0.1,1"]
    small += ["--batch-size", "16", "--hidden", "4", "--out", str(room / "model")]
    if main(["sweep", "wine", *small]):
        raise SystemExit("the run to attack failed")
    rows = np.linspace(0, 1, 39).reshape(3, 13)
    for name in {p.name for p in (room / "model").iterdir()} - {"model.npz"}:
        (room / "settings").mkdir(exist_ok=True)
        shutil.move(room / "model" / name, room / "settings" / name)
    like = make(0.1), jax.tree.map(lambda x: x[0, 0, 0], result.params)
    return {
        "checkpoint": Subject(
            sweep,
            {"step-*.npz": ARCHIVE, "experiment.json": (bytes_damaged, seal_said_otherwise)},
            lambda folder: numbers(run(**OPTIONS, checkpoint=folder)),
        ),
        "result": Subject(
            room / "result",
            {"result.npz": ARCHIVE},
            lambda folder: _of_result(jr.SweepResult.load(folder / "result.npz", like=like)),
        ),
        "model": Subject(
            room / "model",
            {"model.npz": ARCHIVE},
            lambda folder: _of_model(read_model(str(folder)), rows),
        ),
        "settings": Subject(
            room / "settings",
            {"settings.json": (bytes_damaged, json_said_otherwise)},
            lambda folder: _of_settings(Settings.from_json(folder / "settings.json")),
        ),
    }


def _of_result(result: jr.SweepResult) -> Any:
    str(result.table())
    result.best()
    return numbers(result)


def _of_model(model: Any, rows: np.ndarray) -> Any:
    return {rule: model.outputs(rows, rule) for rule in model.lams}


def _of_settings(settings: Settings) -> Any:
    """Settings say what is to be done: whatever else they say is right if it can be said."""
    settings.to_json()
    return ()


# --- the attack -------------------------------------------------------------------------------------


class Outcome(NamedTuple):
    kind: str
    damage: str
    what: str  # right, refused, or what went wrong


def attacked(subject: Subject, right: Any, rng: random.Random, room: Path) -> Outcome:
    """One damaged copy, read."""
    folder = room / "copy"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(subject.folder, folder)
    pattern, damages = rng.choice(list(subject.files.items()))
    file = rng.choice(sorted(folder.glob(pattern)))
    damage = rng.choice(damages)
    file.write_bytes(damage(file.read_bytes(), rng))
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = subject.read(folder)
        what = "right" if _same(found, right) else "WRONG NUMBERS"
    except (ValueError, FileNotFoundError) as error:
        text = str(error)
        named = str(folder) in text and len(text) < 2000
        what = "refused" if named else f"UNCLEAR {type(error).__name__}: {text[:300]}"
    except Exception as error:
        what = f"LEAKED {type(error).__name__}: {str(error)[:300]}"
    if time.monotonic() - began > MOST_SECONDS:
        what = f"SLOW, {time.monotonic() - began:.0f} s, {what}"
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    if grown > MOST_BYTES:
        what = f"LARGE, {grown / 1e9:.1f} GB, {what}"
    return Outcome(file.name, damage.__name__, what)


def _same(a: Any, b: Any) -> bool:
    x, y = jax.tree.leaves(a), jax.tree.leaves(b)
    return len(x) == len(y) and all(np.array_equal(p, q, equal_nan=True) for p, q in zip(x, y))


def attack(count: int, seed: int = 0, only: str | None = None) -> list[Outcome]:
    """So many files, of all kinds in turn."""
    with tempfile.TemporaryDirectory() as room:
        kinds = subjects(Path(room))
        kinds = {only: kinds[only]} if only else kinds
        right = {}
        for name, subject in kinds.items():
            copy = Path(room) / "copy"
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(subject.folder, copy)
            right[name] = subject.read(copy)
        found = []
        for i in range(count):
            name = list(kinds)[i % len(kinds)]
            rng = random.Random(f"{seed} {i}")
            found.append(attacked(kinds[name], right[name], rng, Path(room)))
            found[-1] = found[-1]._replace(kind=f"{name}: {found[-1].kind.split('.')[-1]}")
        return found


def main_of_script() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=2000, help="files; default 2000")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="checkpoint, result, model or settings")
    args = parser.parse_args()
    found = attack(args.count, args.seed, args.only)
    for key, n in sorted(
        collections.Counter((o.kind, o.damage, o.what.split()[0].strip(",")) for o in found).items()
    ):
        print(*key, n, sep="\t")
    bad = [o for o in found if o.what not in ("right", "refused")]
    for outcome in bad[:40]:
        print(*outcome, sep=" | ", file=sys.stderr)
    print(f"{len(found) - len(bad)} of {len(found)} right or clear")
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main_of_script())
