"""Trackers: event files read back by a reader of our own; wandb and mlflow by stand-ins.

The stand-ins have the signatures of wandb 0.31 and mlflow 3.17, so a wrong argument raises.
"""

import builtins
import sys
import types
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support.events import crc32c, curves_of, fields, hparams, read_events, records

import jaxreg as jr
from jaxreg.sweeps.watch.callbacks import Callbacks, Evaluation, Outline
from jaxreg.sweeps.watch.trackers import MLflow, TensorBoard, Tracker, WandB

K, F, S = 3, 2, 2
LAMS = np.array([0.001, 0.1, 1e-5], np.float32)
MADE_BY = '{"optimizer": "adam", "batch_size": null, "shuffle": true, "mesh": {"lam": 8}}'
OUTLINE = Outline(
    {"lam": LAMS, "ratio": np.array([0.5, 1, 2])},
    F,
    S,
    20,
    ("loss", "acc"),
    ("l1", "l2.on(a)"),
    MADE_BY,
)
NAMES = ["lam=0.001,ratio=0.5", "lam=0.1,ratio=1.0", "lam=1e-05,ratio=2.0"]
TAGS = ["train/loss", "valid/loss", "train/acc", "valid/acc", "penalty"]
TAGS += ["penalty/l1", "penalty/l2.on_a", "lanes"]
RNG = np.random.default_rng(0)


def evaluations():
    """Two steps; at the second, one lane of the first point is stopped and the last given up."""
    draw = lambda: RNG.normal(size=(2, K, F, S)).astype(np.float32)
    curves = {name: draw() for name in TAGS[:-1]}
    alive = np.ones((2, K, F, S), bool)
    alive[1, 0, 1, 0] = alive[1, 2] = False
    for values in curves.values():
        values[~alive] = np.nan
    return [
        Evaluation(
            step,
            {m: curves[f"train/{m}"][t] for m in ("loss", "acc")},
            {m: curves[f"valid/{m}"][t] for m in ("loss", "acc")},
            {"l1": curves["penalty/l1"][t], "l2.on(a)": curves["penalty/l2.on_a"][t]},
            alive[t],
        )
        for t, step in enumerate((10, 20))
    ]


def track(tracker):
    """Run a tracker; returns tag -> {step: value} of each point, by numpy's nanmean."""
    found = evaluations()
    calls = Callbacks([tracker])
    calls.start(OUTLINE)
    for e in found:
        calls.evaluated(e)
    calls.finish(None)
    assert calls.report() == []
    want = [{tag: {} for tag in TAGS} for _ in range(K)]
    for e in found:
        named = {f"train/{m}": v for m, v in e.train.items()} | {"penalty": e.penalty}
        named |= {f"valid/{m}": v for m, v in e.valid.items()}
        named |= {"penalty/l1": e.terms["l1"], "penalty/l2.on_a": e.terms["l2.on(a)"]}
        for k in range(K):
            want[k]["lanes"][e.step] = float(e.alive[k].sum())
            for tag, values in named.items():
                if e.alive[k].any():
                    want[k][tag][e.step] = np.nanmean(values[k].astype(float))
    return want


def same_curves(got, want):
    assert set(got) == set(want)
    for tag, curve in want.items():
        assert list(got[tag]) == list(curve), tag
        np.testing.assert_allclose(list(got[tag].values()), list(curve.values()), rtol=1e-6)


# --- a tracker of one's own -----------------------------------------------------------------------


class Memory(Tracker):
    def __init__(self):
        self.opened, self.curves, self.closed = [], [], []

    def open(self, name, config, tags):
        self.opened.append((name, config, tags))
        self.curves.append({tag: {} for tag in tags})
        return len(self.opened) - 1

    def log(self, run, step, values):
        for tag, value in values.items():
            self.curves[run][tag][step] = value

    def close(self, run):
        self.closed.append(run)


def test_one_run_per_point_with_means_over_its_running_lanes():
    tracker = Memory()
    want = track(tracker)
    assert [name for name, _, _ in tracker.opened] == NAMES
    for got, expected in zip(tracker.curves, want):
        same_curves(got, expected)
    assert tracker.curves[0]["lanes"] == {10: 4.0, 20: 3.0}
    assert tracker.curves[2]["lanes"] == {10: 4.0, 20: 0.0}
    assert list(tracker.curves[2]["valid/loss"]) == [10]
    assert tracker.closed == [0, 1, 2]


def test_the_configuration_is_flat_and_holds_the_coordinates():
    tracker = Memory()
    tracker.start(OUTLINE)
    _, config, tags = tracker.opened[0]
    assert config == {
        "optimizer": "adam", "batch_size": "null", "shuffle": True, "mesh": '{"lam": 8}',
        "folds": F, "seeds": S, "steps": 20, "lam": 0.001, "ratio": 0.5,
    }  # fmt: skip
    assert list(tags) == TAGS


def test_a_diverged_lane_shows_while_it_runs_and_warns_of_nothing():
    tracker = Memory()
    tracker.start(OUTLINE)
    (e, _) = evaluations()
    e.train["loss"][0, 0, 0], e.valid["loss"][0, :, 0] = np.nan, [np.inf, -np.inf]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tracker.evaluated(e)
    assert np.isnan([tracker.curves[0][f"{s}/loss"][10] for s in ("train", "valid")]).all()
    assert np.isfinite(tracker.curves[1]["valid/loss"][10])


def test_points_of_equal_coordinates_keep_runs_of_their_own():
    tracker = Memory()
    tracker.start(OUTLINE._replace(coords={"lam": np.array([2.0, 2.0, 3.0, 2.0])}))
    names = [name for name, _, _ in tracker.opened]
    assert names == ["lam=2.0", "lam=2.0-2", "lam=3.0", "lam=2.0-3"]


def test_a_tracker_needs_its_methods():
    with pytest.raises(TypeError, match="abstract"):
        Tracker()


# --- TensorBoard: the format read from its description --------------------------------------------


def test_the_reader_knows_published_values():
    assert crc32c(b"123456789") == 0xE3069283
    assert fields(bytes([0x08, 0x96, 0x01])) == {1: [150]}


def test_tensorboard_files_hold_every_curve(tmp_path):
    want = track(TensorBoard(tmp_path / "deep" / "runs"))
    assert sorted(p.name for p in (tmp_path / "deep" / "runs").iterdir()) == sorted(NAMES)
    for name, expected in zip(NAMES, want):
        events = read_events(tmp_path / "deep" / "runs" / name)
        assert events[0][1] == b"brain.Event:2"
        same_curves(curves_of(events), expected)


def test_tensorboard_hparams_tab(tmp_path):
    track(TensorBoard(tmp_path))
    plugin = {}
    for _, _, _, part in read_events(tmp_path / NAMES[0]):
        plugin |= part
    experiment, start, end = (
        plugin[f"_hparams_/{part}"]
        for part in ("experiment", "session_start_info", "session_end_info")
    )
    assert hparams(start) == {
        "lam": 0.001, "ratio": 0.5, "folds": 2, "seeds": 2, "steps": 20,
        "optimizer": b"adam", "batch_size": b"null", "shuffle": 1, "mesh": b'{"lam": 8}',
    }  # fmt: skip
    assert fields(end[4][0])[1] == [1]  # STATUS_SUCCESS
    shown = [fields(fields(m)[1][0])[2][0].decode() for m in fields(experiment[2][0])[5]]
    assert shown == TAGS


def test_what_tensorboard_was_told_is_in_the_file_at_once(tmp_path):
    tracker = TensorBoard(tmp_path)
    tracker.start(OUTLINE)
    tracker.evaluated(evaluations()[0])
    assert curves_of(read_events(tmp_path / NAMES[1]))["lanes"] == {10: 4.0}


def test_a_torn_record_of_a_killed_sweep_does_not_spoil_the_next(tmp_path):
    track(TensorBoard(tmp_path))
    (torn,) = (tmp_path / NAMES[0]).iterdir()
    torn.write_bytes(torn.read_bytes()[:-5])
    track(TensorBoard(tmp_path))
    first, second = sorted((tmp_path / NAMES[0]).iterdir())
    assert first == torn
    assert len(list(records(second.read_bytes()))) == 6


def test_a_folder_that_cannot_be_written_is_reported(tmp_path):
    (tmp_path / "file").write_text("")
    calls = Callbacks([TensorBoard(tmp_path / "file")])
    calls.start(OUTLINE)
    assert "callbacks[0] (TensorBoard) raised in `start`" in calls.report()[0]
    assert "NotADirectoryError" in calls.report()[0]


def test_a_real_sweep_in_tensorboard_is_its_result(tmp_path):
    """Beside a callback that raises, which must change nothing."""

    class Broken(Tracker):
        def open(self, name, config, tags):
            raise RuntimeError(f"no place for {name}")

        def log(self, run, step, values):
            raise AssertionError

    x = np.asarray(RNG.normal(size=(24, 2)), np.float32)
    trainer = lambda reg: jr.Trainer(
        init=lambda key: jnp.zeros(2),
        loss=lambda w, x: 0.5 * jnp.mean((x @ w - 1) ** 2),
        optimizer=optax.chain(jr.add_penalty_gradient(reg), optax.sgd(0.1)),
    )
    grid = jr.grid(jr.l2, lam=[0.01, 1.0])
    with pytest.warns(RuntimeWarning, match=r"callbacks\[0\] \(Broken\) .* no place for lam=0.01"):
        result = jr.sweep(
            trainer, grid, (jnp.asarray(x),), folds=3, steps=8, evals=4, key=jax.random.key(0),
            callbacks=[Broken(), TensorBoard(tmp_path)],
        )  # fmt: skip
    for k, name in enumerate(["lam=0.01", "lam=1.0"]):
        got = curves_of(read_events(tmp_path / name))
        for tag, values in [
            ("train/loss", result.train["loss"]),
            ("valid/loss", result.valid["loss"]),
            ("penalty", result.penalty_value),
        ]:
            assert list(got[tag]) == list(result.time)
            np.testing.assert_allclose(list(got[tag].values()), values[k].mean((0, 1)), rtol=1e-6)


# --- Weights & Biases and MLflow ------------------------------------------------------------------


class FakeRun:
    def __init__(self, **init):
        self.init, self.curves, self.finished = init, {}, False

    def log(self, data, step=None, commit=None):
        assert not self.finished
        for tag, value in data.items():
            assert type(value) is float
            self.curves.setdefault(tag, {})[step] = value

    def finish(self, exit_code=None):
        self.finished = True


@pytest.fixture
def wandb(monkeypatch):
    fake = types.ModuleType("wandb")
    fake.runs = []

    def init(
        entity=None, project=None, dir=None, id=None, name=None, notes=None, tags=None,
        config=None, group=None, job_type=None, mode=None, reinit=None, resume=None,
    ):  # fmt: skip
        fake.runs.append(FakeRun(project=project, name=name, config=config, reinit=reinit))
        return fake.runs[-1]

    fake.init = init
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


def test_wandb_gets_every_curve_in_runs_open_side_by_side(wandb):
    want = track(WandB(project="digits", config={"note": "mine", "lam": "not this"}))
    assert [run.init["name"] for run in wandb.runs] == NAMES
    for run, expected in zip(wandb.runs, want):
        same_curves(run.curves, expected)
        assert run.init["reinit"] == "create_new"
        assert run.init["project"] == "digits"
        assert run.finished
    config = wandb.runs[1].init["config"]
    assert (config["lam"], config["note"], config["steps"]) == (0.1, "mine", 20)


@pytest.mark.parametrize("name", ["name", "id", "reinit"])
def test_wandb_arguments_that_are_set_for_each_point(name):
    with pytest.raises(ValueError, match=f"WandB: `{name}` is set for each point; tell sweeps"):
        WandB(**{name: "x"})


class FakeClient:
    """The part of MlflowClient that is used, and its order of calls."""

    def __init__(self, tracking_uri=None, registry_uri=None):
        self.uri, self.made, self.runs = tracking_uri, [], {}

    def get_experiment_by_name(self, name):
        return types.SimpleNamespace(experiment_id="7") if name == "old" else None

    def create_experiment(self, name, artifact_location=None, tags=None):
        self.made.append(name)
        return "8"

    def create_run(self, experiment_id, start_time=None, tags=None, run_name=None):
        run = types.SimpleNamespace(
            experiment=experiment_id, tags=tags, name=run_name, params={}, curves={}, ended=False
        )
        self.runs[f"id{len(self.runs)}"] = run
        return types.SimpleNamespace(info=types.SimpleNamespace(run_id=f"id{len(self.runs) - 1}"))

    def log_batch(self, run_id, metrics=(), params=(), tags=(), synchronous=None):
        run = self.runs[run_id]
        assert not run.ended
        run.params |= {p.key: p.value for p in params}
        for m in metrics:
            assert 1e12 < m.timestamp < 1e14  # milliseconds
            run.curves.setdefault(m.key, {})[m.step] = m.value

    def set_terminated(self, run_id, status=None, end_time=None):
        self.runs[run_id].ended = True


@pytest.fixture
def mlflow(monkeypatch):
    fake, entities = types.ModuleType("mlflow"), types.ModuleType("mlflow.entities")
    fake.clients = []

    def client(*args, **kwargs):
        fake.clients.append(FakeClient(*args, **kwargs))
        return fake.clients[-1]

    record = lambda *names: (
        lambda *args: types.SimpleNamespace(**dict(zip(names, args, strict=True)))
    )
    entities.Metric = record("key", "value", "timestamp", "step")
    entities.Param = record("key", "value")
    fake.MlflowClient, fake.entities = client, entities
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    monkeypatch.setitem(sys.modules, "mlflow.entities", entities)
    return fake


@pytest.mark.parametrize(("experiment", "number"), [("old", "7"), ("new", "8")])
def test_mlflow_gets_every_curve_in_one_experiment(mlflow, experiment, number):
    want = track(MLflow(experiment, tracking_uri="file:here", tags={"who": "me"}))
    (client,) = mlflow.clients
    assert client.uri == "file:here"
    assert client.made == (["new"] if experiment == "new" else [])
    runs = list(client.runs.values())
    assert [run.name for run in runs] == NAMES
    for run, expected in zip(runs, want):
        assert (run.experiment, run.tags, run.ended) == (number, {"who": "me"}, True)
        same_curves(run.curves, expected)
    assert runs[0].params["lam"] == "0.001"
    assert runs[0].params["shuffle"] == "True"


@pytest.mark.parametrize(
    ("make", "module", "remedy"),
    [
        (lambda: TensorBoard("runs"), "tensorboardX", r"pip install 'jaxreg\[trackers\]'"),
        (WandB, "wandb", "pip install 'wandb>=0.19.10'"),
        (MLflow, "mlflow", "pip install mlflow"),
    ],
)
def test_a_missing_library_is_told_when_the_tracker_is_made(monkeypatch, make, module, remedy):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.split(".")[0] == module:
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ImportError, match=f"needs {module}, which is not installed: {remedy}"):
        make()
