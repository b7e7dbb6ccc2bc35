"""A checkpoint directory belongs to one experiment, whatever two runs do at the same moment."""

import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxreg as jr

X = np.random.default_rng(0).normal(size=(24, 3)).astype(np.float32)
Y = X[:, 0]
GRID = jr.grid(jr.l2, lam=[0.01, 0.1])


def loss(w, x, y):
    return 0.5 * jnp.mean((x @ w - y) ** 2)


def made(rate=0.1, loss=loss, scale=1.0, optimizer=optax.sgd, metric=None):
    def trainer(reg):
        tx = optax.chain(jr.add_penalty_gradient(reg), optimizer(rate))
        metrics = {} if metric is None else {"m": metric}
        return jr.Trainer(lambda key: scale * jnp.ones(3), loss, tx, metrics)

    return trainer


class Stop(jr.Callback):
    """Ctrl-C, once: a second one ends at once."""

    pressed = False

    def evaluated(self, evaluation):
        if 0 < evaluation.step < 1000 and not self.pressed:
            self.pressed = True
            signal.raise_signal(signal.SIGINT)


def sweep(trainer, **options):
    given = {"folds": 3, "steps": 1000, "evals": 20, "batch_size": 4, "key": jax.random.key(0)}
    return jr.sweep(trainer, GRID, (X, Y), **given | options)


def interrupted(trainer, path, **options):
    with pytest.raises(jr.Interrupted):
        sweep(trainer, checkpoint=path, callbacks=[Stop()], **options)


def other_loss(w, x, y):
    return 0.5 * jnp.mean((x @ w - y) ** 2) + 0.01 * jnp.mean(w)


def square(w, x, y):
    return jnp.mean((x @ w - y) ** 2)


CHANGED = {
    "learning rate": (made(0.2), {}, "loss and optimizer of jax"),
    "loss": (made(loss=other_loss), {}, "loss and optimizer of jax"),
    "momentum": (
        made(optimizer=lambda r: optax.sgd(r, nesterov=True, momentum=0.0)),
        {},
        "optimizer",
    ),
    "start": (made(scale=2.0), {}, "init of jax"),
    "random numbers": (
        made(),
        {"key": jax.random.key(0, impl="unsafe_rbg")},
        "random numbers is 'threefry2x32'|random numbers is",
    ),
    "key": (made(), {"key": jax.random.key(1)}, "key is"),
}


@pytest.mark.parametrize("name", CHANGED)
def test_what_would_train_to_other_numbers_is_another_experiment(name, tmp_path):
    trainer, options, match = CHANGED[name]
    interrupted(made(), tmp_path / "run")
    with pytest.raises(ValueError, match=f"holds another experiment: .*{match}"):
        sweep(trainer, checkpoint=tmp_path / "run", **options)


def test_a_changed_metric_is_another_experiment(tmp_path):
    interrupted(made(metric=loss), tmp_path / "run")
    with pytest.raises(ValueError, match="evaluation of jax"):
        sweep(made(metric=square), checkpoint=tmp_path / "run")


def test_the_same_functions_written_again_are_the_same(tmp_path):
    whole = sweep(made())
    interrupted(made(), tmp_path / "run")
    again = sweep(made(), checkpoint=tmp_path / "run")  # another closure
    np.testing.assert_array_equal(again.valid["loss"], whole.valid["loss"])


def test_a_trace_of_another_version_of_jax_is_not_compared(tmp_path, monkeypatch):
    whole = sweep(made())
    with monkeypatch.context() as before:
        before.setattr(jax, "__version__", "0.9.0")
        interrupted(made(), tmp_path / "run")
    np.testing.assert_array_equal(
        sweep(made(), checkpoint=tmp_path / "run").valid["loss"], whole.valid["loss"]
    )


def test_a_step_of_another_experiment_is_never_read(tmp_path):
    for k in (0, 1):
        interrupted(made(), tmp_path / str(k), key=jax.random.key(k))
    for step in (tmp_path / "0").glob("step-*"):
        step.unlink()
    for step in (tmp_path / "1").glob("step-*"):
        step.rename(tmp_path / "0" / step.name)
    with pytest.raises(ValueError, match="it belongs to another experiment"):
        sweep(made(), checkpoint=tmp_path / "0")


RACE = textwrap.dedent(
    """
    import sys, time
    sys.path.insert(0, sys.argv[3])
    import jax, numpy as np
    from test_claims import made, sweep
    key = jax.random.key(int(sys.argv[2]))
    sweep(made(), key=key)  # compiled before the race
    print("ready", flush=True)
    sys.stdin.readline()
    try:
        result = sweep(made(), key=key, checkpoint=sys.argv[1], checkpoint_every=0.0, steps=2000)
        print("ended", repr(float(result.valid["loss"][0, 0, 0, -1])))
    except ValueError as error:
        print("refused", error)
    """
)


def test_of_two_that_start_at_the_same_moment_one_is_refused(tmp_path):
    here = str(Path(__file__).parent)
    command = [sys.executable, "-c", RACE, str(tmp_path / "run")]
    both = [
        subprocess.Popen(
            [*command, str(k), here], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for k in (0, 1)
    ]
    assert [p.stdout.readline() for p in both] == ["ready\n"] * 2
    for p in both:
        p.stdin.write("go\n")
        p.stdin.flush()
    told = [p.communicate(timeout=120)[0] for p in both]
    assert sorted(text.split()[0] for text in told) == ["ended", "refused"]
    winner = next(k for k, text in enumerate(told) if text.startswith("ended"))
    assert "holds another experiment" in told[1 - winner] or "in use by process" in told[1 - winner]
    want = sweep(made(), key=jax.random.key(winner), steps=2000).valid["loss"][0, 0, 0, -1]
    assert told[winner] == f"ended {float(want)!r}\n"


def test_a_run_that_is_at_work_is_left_alone(tmp_path):
    class Second(jr.Callback):
        def evaluated(self, evaluation):
            if evaluation.step == 100:
                with pytest.raises(ValueError, match=r"in use by process \d+ \(this one\)"):
                    sweep(made(), checkpoint=tmp_path / "run")
                seen.append(True)

    seen, began = [], time.monotonic()
    sweep(made(), checkpoint=tmp_path / "run", callbacks=[Second()])
    assert seen == [True]
    assert time.monotonic() - began < 60
