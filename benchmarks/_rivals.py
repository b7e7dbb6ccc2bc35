"""The sweep in other libraries, each as its own users write it, on the parameters and rows of a task.

As in _loops.py each makes a function () -> losses [K, 2]; scikit-learn's gives accuracies [K].
"""

from __future__ import annotations

import importlib.util
import itertools
import warnings
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
from _common import cores
from _loops import losses
from _models import N_TRAIN, RATE, WIDTH, Task, cross_entropy, layers

BETAS, EPS = (0.9, 0.999), 1e-8  # Adam's, in every library


def rivals(task: Task) -> tuple[dict[str, Callable[[], Any]], list[str]]:
    """The candidates by name, and the names of the libraries that are not installed."""
    makers: dict[str, Callable[[Task], dict[str, Callable[[], Any]]]] = {
        "PyTorch": _torch,
        "scikit-learn": _sklearn,
        "Optuna": lambda task: {"Optuna trials, jit inside": optuna_trials(task)},
    }
    modules = {"PyTorch": "torch", "scikit-learn": "sklearn", "Optuna": "optuna"}
    missing = [name for name in makers if importlib.util.find_spec(modules[name]) is None]
    found: dict[str, Callable[[], Any]] = {}
    for name, make in makers.items():
        found |= {} if name in missing else make(task)
    return found, missing


# --- PyTorch --------------------------------------------------------------------------------------


def _torch(task: Task) -> dict[str, Callable[[], Any]]:
    """On the CPU once with one thread and once with all, since small nets prefer one."""
    import torch

    if jax.default_backend() == "gpu" and torch.cuda.is_available():
        return {
            "PyTorch loop, cuda": torch_loop(task, device="cuda"),
            "torch.func.vmap, cuda": torch_vmap(task, device="cuda"),
        }
    found: dict[str, Callable[[], Any]] = {}
    for n in sorted({1, cores()}):
        threads = f"{n} thread{'s' * (n > 1)}"
        found[f"PyTorch loop, {threads}"] = torch_loop(task, threads=n)
        found[f"torch.func.vmap, {threads}"] = torch_vmap(task, threads=n)
    return found


def torch_net(
    task: Task, device: str = "cpu", fused: bool = True
) -> tuple[Any, list[tuple[str, str]]]:
    """The module with the task's parameters, and of each layer the names of its weight and bias.

    `fused` is whether a GRU runs as nn.GRU, which has no batching rule for vmap, or cell by cell.
    """
    import torch
    from torch import nn
    from torch.nn import functional

    class Conv(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = (
                nn.Conv2d(1, 16, 3, padding=1),
                nn.Conv2d(16, 32, 3, padding=1),
            )
            self.head = nn.Linear(2 * 2 * 32, 10)

        def forward(self, x):
            x = x.reshape(-1, 1, 8, 8)
            for conv in (self.first, self.second):
                x = functional.avg_pool2d(functional.relu(conv(x)), 2)
            return self.head(x.permute(0, 2, 3, 1).flatten(1))

    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.gru, self.head = nn.GRU(8, WIDTH, batch_first=True), nn.Linear(WIDTH, 10)

        def forward(self, x):
            x = x.reshape(-1, 8, 8)
            return self.head(self.gru(x)[1][0] if fused else self.cells(x))

        def cells(self, x):
            g, h = self.gru, x.new_zeros(len(x), WIDTH)
            for row in functional.linear(x, g.weight_ih_l0, g.bias_ih_l0).unbind(1):
                mine = functional.linear(h, g.weight_hh_l0, g.bias_hh_l0).chunk(3, -1)
                reset, update, new = row.chunk(3, -1)
                reset, update = (reset + mine[0]).sigmoid(), (update + mine[1]).sigmoid()
                h = (1 - update) * (new + reset * mine[2]).tanh() + update * h
            return h

    sizes = task.model.sizes
    if sizes:
        dense = [nn.Linear(n, m) for n, m in itertools.pairwise(sizes)]
        net = nn.Sequential(*[part for layer in dense for part in (layer, nn.ReLU())][:-1])
    else:
        net = Recurrent() if "head" in task.params else Conv()
    net = net.to(device)
    # PyTorch registers weights before biases, but those of a GRU pairwise.
    names = [name for name, _ in net.named_parameters()]
    weights, biases = ([n for n in names if kind in n] for kind in ("weight", "bias"))
    with torch.no_grad():
        for weight, bias, layer in zip(weights, biases, layers(task.params), strict=True):
            # [in, out] -> [out, in], and [h, w, in, out] -> [out, in, h, w].
            kernel = np.moveaxis(np.asarray(layer["kernel"]), (-1, -2), (0, 1))
            net.get_parameter(weight).copy_(torch.from_numpy(kernel.copy()))
            net.get_parameter(bias).copy_(torch.from_numpy(np.array(layer["bias"])))
    return net, list(zip(weights, biases))


def _tensors(task: Task, device: str) -> tuple:
    """(x, y) of train and validation, and the rows of the minibatches."""
    import torch

    put = lambda a: torch.from_numpy(np.array(a)).to(device)
    rows = [(put(x), put(y).long()) for x, y in (task.train, task.valid)]
    return *rows, put(task.order).long()


def torch_loop(task: Task, threads: int = 1, device: str = "cpu") -> Callable[[], np.ndarray]:
    """Eager PyTorch, default foreach Adam. Its weight_decay is lam * w in the gradient, as here, and
    cheaper than a term in the loss."""
    import torch
    from torch.nn.functional import cross_entropy

    (net, names), (train, valid, order) = torch_net(task, device), _tensors(task, device)
    (x, y), begun = train, {k: v.clone() for k, v in net.state_dict().items()}
    weights, biases = ([net.get_parameter(n) for n in column] for column in zip(*names))

    def run():
        torch.set_num_threads(threads)
        found = []
        for lam in task.lams:
            net.load_state_dict(begun)
            groups = [{"params": weights, "weight_decay": float(lam)}, {"params": biases}]
            optimizer = torch.optim.Adam(groups, lr=RATE)
            for rows in order:
                optimizer.zero_grad()
                cross_entropy(net(x[rows]), y[rows]).backward()
                optimizer.step()
            with torch.no_grad():
                found.append([cross_entropy(net(x), y).item() for x, y in (train, valid)])
        return np.array(found)

    return run


def torch_vmap(task: Task, threads: int = 1, device: str = "cpu") -> Callable[[], np.ndarray]:
    """All lams at once by torch.func, in the way of its ensembling tutorial; Adam by hand inside."""
    import torch
    from torch.func import functional_call, grad, vmap
    from torch.nn.functional import cross_entropy

    (net, names), (train, valid, order) = torch_net(task, device, False), _tensors(task, device)
    (x, y), lams = train, torch.from_numpy(task.lams.copy()).to(device)
    decayed = {weight for weight, _ in names}
    begun = {k: v.detach() for k, v in net.named_parameters()}

    def loss(params, x, y):
        return cross_entropy(functional_call(net, params, (x,)), y)

    def step(params, first, second, lam, scales, x, y):
        grads = grad(loss)(params, x, y)
        for k, g in grads.items():
            g = g + lam * params[k] if k in decayed else g
            first[k] = BETAS[0] * first[k] + (1 - BETAS[0]) * g
            second[k] = BETAS[1] * second[k] + (1 - BETAS[1]) * g * g
            move = first[k] / scales[0] / ((second[k] / scales[1]).sqrt() + EPS)
            params[k] = params[k] - RATE * move
        return params, first, second

    every = vmap(step, in_dims=(0, 0, 0, 0, None, None, None))
    look = vmap(loss, in_dims=(0, None, None))

    def run():
        torch.set_num_threads(threads)
        lanes = {k: v.expand(len(lams), *v.shape).clone() for k, v in begun.items()}
        state = (lanes, *({k: torch.zeros_like(v) for k, v in lanes.items()} for _ in range(2)))
        with torch.no_grad():
            for t, rows in enumerate(order, 1):
                scales = tuple(1 - beta**t for beta in BETAS)
                state = every(*state, lams, scales, x[rows], y[rows])
            return torch.stack([look(state[0], *rows) for rows in (train, valid)], -1).cpu().numpy()

    return run


# --- scikit-learn ---------------------------------------------------------------------------------


def _sklearn(task: Task) -> dict[str, Callable[[], Any]]:
    """Dense nets only; it counts in epochs."""
    whole = len(task.order) * task.model.batch % N_TRAIN == 0
    return {"scikit-learn MLPClassifier": sklearn_loop(task)} if task.model.sizes and whole else {}


def sklearn_loop(task: Task) -> Callable[[], np.ndarray]:
    """Accuracies on the validation rows. It draws its own parameters and batches, as many of them.

    Its penalty is alpha/2 |kernels|^2 over the rows of the batch, so alpha = lam * batch.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    (x, y), valid = ([np.asarray(a) for a in rows] for rows in (task.train, task.valid))
    _, *hidden, _ = task.model.sizes or ()
    batch, epochs = task.model.batch, len(task.order) * task.model.batch // N_TRAIN

    def fit(lam):
        net = MLPClassifier(
            tuple(hidden), solver="adam", alpha=float(lam) * batch, batch_size=batch,
            learning_rate_init=RATE, max_iter=epochs, n_iter_no_change=epochs + 1, random_state=0,
        )  # fmt: skip
        return net.fit(x, y).score(*valid)

    def run():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            return np.array([fit(lam) for lam in task.lams])

    return run


# --- Optuna ---------------------------------------------------------------------------------------


def optuna_trials(task: Task) -> Callable[[], np.ndarray]:
    """One trial a lam; each builds its training step and jits it, as the objective of a study does."""
    import optuna

    (x, y), lams = task.train, [float(lam) for lam in task.lams]
    look = jax.jit(lambda params: losses(task.model.logits, params, task.train, task.valid))

    def objective(trial):
        lam, optimizer = trial.suggest_float("lam", lams[0], lams[-1]), optax.adam(RATE)

        @jax.jit
        def step(params, state, x, y):
            def penalized(params):
                decay = sum((layer["kernel"] ** 2).sum() for layer in layers(params))
                return cross_entropy(task.model.logits, params, x, y) + lam / 2 * decay

            updates, state = optimizer.update(jax.grad(penalized)(params), state, params)
            return optax.apply_updates(params, updates), state

        params, state = task.params, optimizer.init(task.params)
        for rows in task.order:
            params, state = step(params, state, x[rows], y[rows])
        trial.set_user_attr("losses", np.asarray(look(params)).tolist())
        return trial.user_attrs["losses"][1]

    def run():
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(sampler=optuna.samplers.GridSampler({"lam": lams}, seed=0))
        study.optimize(objective, n_trials=len(lams))
        found = {trial.params["lam"]: trial.user_attrs["losses"] for trial in study.trials}
        return np.array([found[lam] for lam in lams])

    return run
