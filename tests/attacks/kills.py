"""Kills at random moments: whatever a run was doing, the same call ends bit for bit as if nothing had.

    cd tests && python -m attacks.kills --count 200

Half of the runs are of `jaxreg.sweep`, half of the command; each is killed (-9) at a moment drawn between its
start and its end, so that imports, compiling, rounds, saves, plots and the end are all hit. Then the same call is
made again, reaches the end, its numbers are compared, and the next run begins in an empty folder. With `--each 5` a
run is killed up to so many times before it is let go on, later lives as early or late as the first.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
from support.paths import TESTS

API = """
import sys
sys.path.insert(0, {tests!r})
from support import toy
import jaxreg as jr
out = toy.run(steps=60, evals=30, halving=jr.Halving(0.5, 2), patience=12, checkpoint={run!r},
              checkpoint_every=0, progress=False)
out.save({result!r}, overwrite=True)
"""
COMMAND = [
    "sweep",
    "wine",
    "--model",
    "linear",
    "--lams",
    "1e-3,1e-1",
    "--steps",
    "40",
    "--folds",
    "2",
]
COMMAND += ["--seeds", "1", "--refits", "2", "--batch-size", "16", "--train-size", "60"]


class Life(NamedTuple):
    """How a run is begun, or gone on with, and what it leaves."""

    command: list[str]
    leaves: tuple[Path, ...]


def api(folder: Path) -> Life:
    result = folder / "result.npz"
    code = API.format(tests=str(TESTS), run=str(folder / "run"), result=str(result))
    return Life([sys.executable, "-c", code], (result,))


def command(folder: Path) -> Life:
    out = folder / "run"
    begun = (out / "settings.json").exists()
    argv = ["sweep", "--resume", str(out)] if begun else [*COMMAND, "--out", str(out)]
    leaves = tuple(out / name for name in ("result.npz", "test.json", "model.npz"))
    return Life([sys.executable, "-m", "jaxreg", *argv], leaves)


KINDS = {"api": api, "command": command}


def environment(room: Path) -> dict[str, str]:
    cache = {"JAX_COMPILATION_CACHE_DIR": str(room / "xla")}
    cache |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    return {**os.environ, **cache, "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}


def lived(life: Life, room: Path, seconds: float) -> int | None:
    """One life; None if it was killed, else how it ended."""
    with subprocess.Popen(
        life.command, env=environment(room), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        try:
            _, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            return None
    if process.returncode:
        print(err.decode()[-2000:], file=sys.stderr)
    return process.returncode


def whole(kind: str, folder: Path, room: Path) -> tuple[dict[str, bytes], float]:
    """What a run leaves that nothing interrupts, and how long it takes where programs are kept."""
    if not folder.exists():
        lived(KINDS[kind](folder), room, 600)  # compiles
    shutil.rmtree(folder, ignore_errors=True)
    life, began = KINDS[kind](folder), time.monotonic()
    if lived(life, room, 600):
        raise SystemExit("a run ended with an error by itself")
    return left(life), time.monotonic() - began


def left(life: Life) -> dict[str, bytes]:
    """Bytes of json, and arrays of archives: an archive says of itself how it was laid out."""
    found = {}
    for path in life.leaves:
        if path.suffix == ".json":
            found[path.name] = path.read_bytes()
            continue
        with np.load(path) as archive:
            names = [n for n in archive.files if n.endswith((".npy",)) or "/" in n]
            found[path.name] = b"".join(n.encode() + archive[n].tobytes() for n in sorted(names))
    return found


PHASES = ("while importing", "while compiling", "while training", "while finishing")


def phase(life: Life, folder: Path) -> str:
    """What a run had come to when it was killed."""
    if any(path.exists() for path in life.leaves):
        return PHASES[3]
    begun = [path.name for path in folder.rglob("*")] if folder.exists() else []
    return PHASES[2 if any(name.startswith("step-") for name in begun) else bool(begun)]


def attack(count: int, seed: int = 0, each: int = 1) -> dict[str, int]:
    """So many kills; how many ends there were, and how many of them were right."""
    told = Counter(dict.fromkeys(("kills", *PHASES, "ends", "right", "errors"), 0))
    with tempfile.TemporaryDirectory() as name:
        room, rng = Path(name), random.Random(seed)
        for kind in KINDS:
            right, seconds = whole(kind, room / kind / "whole", room)
            folder, left_over = room / kind / "lives", count // len(KINDS)
            while left_over:
                if told["ends"] % 20 == 19:  # the machine may have become busier, or quieter
                    seconds = whole(kind, room / kind / "whole", room)[1]
                life, killed = KINDS[kind](folder), 0
                ended = lived(life, room, rng.uniform(0.05, seconds))
                while ended is None:
                    killed += 1
                    told[phase(life, folder)] += 1
                    again = killed < min(each, left_over)
                    life = KINDS[kind](folder)
                    ended = lived(life, room, rng.uniform(0.05, seconds) if again else 600)
                # A run that was quicker than its moment is compared too, and another one is killed for it.
                left_over -= killed
                told["kills"] += killed
                told["ends"] += 1
                told["errors"] += ended != 0
                told["right"] += ended == 0 and left(life) == right
                shutil.rmtree(folder, ignore_errors=True)
    return told


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=200, help="kills; default 200")
    parser.add_argument("--each", type=int, default=1, help="kills of one run at most; default 1")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    told = attack(args.count, args.seed, args.each)
    print(", ".join(f"{n} {what}" for what, n in told.items()))
    return told["right"] != told["ends"]


if __name__ == "__main__":
    sys.exit(main())
