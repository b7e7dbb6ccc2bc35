#!/usr/bin/env bash
# What an accelerator does with jaxreg: the tests marked `accelerator`, then benchmarks/accelerator.py.
#
#   bash benchmarks/accelerator.sh OUT            within 8 minutes on one GPU
#   bash benchmarks/accelerator.sh --smoke OUT    the whole of it on any machine, in tiny sizes
#
# Needs a Python with jax for the device, optax, flax, rich, numpy and pytest (PyTorch for the rivals), and
# neither a network nor an installation. Results go to OUT: accelerator.md, accelerator.jsonl, tests.txt.
# Keep those of a real card in benchmarks/results/CARD/.
set -uo pipefail
smoke=""
if [ "${1:-}" = "--smoke" ]; then smoke="--smoke"; shift; fi
out=${1:?usage: bash benchmarks/accelerator.sh [--smoke] OUT}
mkdir -p "$out"
out=$(cd "$out" && pwd)
cd "$(dirname "$0")/.."
export PYTHONPATH="$PWD:$PWD/tests${PYTHONPATH:+:$PYTHONPATH}"
python=${PYTHON:-python3}

timeout 150 "$python" -m pytest -q -p no:cacheprovider --confcutdir=tests/accelerator -m accelerator \
  tests/accelerator >"$out/tests.txt" 2>&1
tests=$?
tail -n 5 "$out/tests.txt"
timeout 320 "$python" benchmarks/accelerator.py $smoke --seconds 290 "$out"
figures=$?
[ "$tests" -eq 0 ] && [ "$figures" -eq 0 ]
