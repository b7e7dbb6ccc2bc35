"""Pairs of processes that start at the same moment in one directory: one has it, and nobody ends wrong.

    cd tests && python -m attacks.collisions --pairs 100

In half of the pairs both ask for the same sweep, in the other half for one with another key. Both are killed
after a moment now and then, and the directory is asked for again by each. Right is what a sweep gives alone.
"""

from __future__ import annotations

import argparse
import collections
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from support.paths import TESTS

SIDE = """
import sys
sys.path.insert(0, sys.argv[1])
import jax, numpy as np
from support.toy import run
import jaxreg as jr

def asked(key, **more):
    return run(steps=400, evals=40, key=jax.random.key(key), **more)

right = {key: float(asked(key).valid["loss"].sum()) for key in (0, 1)}
print("ready", flush=True)
for line in sys.stdin:
    directory, key, steps = line.split()
    class Stop(jr.Callback):
        def evaluated(self, evaluation):
            if evaluation.step >= int(steps):
                raise KeyboardInterrupt
    try:
        found = asked(int(key), checkpoint=directory, checkpoint_every=0, callbacks=[Stop()])
        same = float(found.valid["loss"].sum()) == right[int(key)]
        print("right" if same else "WRONG", flush=True)
    except KeyboardInterrupt:
        print("stopped", flush=True)
    except ValueError as error:
        clear = "in use by" in str(error) or "holds another experiment" in str(error)
        print("refused" if clear else f"UNCLEAR {error}", flush=True)
    except Exception as error:
        print(f"LEAKED {type(error).__name__} {error}".replace("\\n", " "), flush=True)
"""


def attack(pairs: int, seed: int = 0) -> collections.Counter:
    """How the two of so many pairs ended, and how each ended when it asked again alone."""
    rng, told = random.Random(seed), collections.Counter()
    command = [sys.executable, "-c", SIDE, str(TESTS)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    sides = [subprocess.Popen(command, **pipes) for _ in range(2)]
    answer = lambda side: side.stdout.readline().strip()

    def ask(side, directory, key, steps=10**9):
        side.stdin.write(f"{directory} {key} {steps}\n")
        side.stdin.flush()

    try:
        if [answer(side) for side in sides] != ["ready"] * 2:
            raise SystemExit("a process could not begin")
        with tempfile.TemporaryDirectory() as room:
            for i in range(pairs):
                directory, keys = Path(room) / str(i), (0, i % 2)
                # Some are stopped on their way, at any step, so that there is something to go on from.
                steps = [rng.choice([10**9, rng.randrange(400)]) for _ in sides]
                for side, key, step in zip(sides, keys, steps):
                    ask(side, directory, key, step)
                for side in sides:
                    said = answer(side)
                    short = said.split()[0] in ("right", "refused", "stopped")
                    told[f"at once: {said.split()[0] if short else said}"] += 1
                for side, key in zip(sides, keys):
                    ask(side, directory, key)
                    told[f"again: {answer(side)}"] += 1
    finally:
        for side in sides:
            side.kill()
            side.communicate()
    return told


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=100, help="default 100")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    told = attack(args.pairs, args.seed)
    for what, n in sorted(told.items()):
        print(n, what, sep="\t")
    return any(word in what for what in told for word in ("WRONG", "UNCLEAR", "LEAKED"))


if __name__ == "__main__":
    sys.exit(main())
