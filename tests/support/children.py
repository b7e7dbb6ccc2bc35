"""Programs that tests run as processes of their own: `python -m support.children NAME ARGUMENTS`.

`mesh`: everything about several devices, on eight virtual ones; prints JSON.
`lives`: the same resumable sweep, started and killed until it ends.
`readme`: the numbers of the README's example.
`host`: one of several processes of a sweep under jax.distributed.
"""

import json
import os
import random
import re
import signal
import sys
import time
from pathlib import Path


def mesh() -> dict:
    os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
    import jax
    import numpy as np
    import optax
    from jax.sharding import AxisType, PartitionSpec

    import jaxreg as jr
    from jaxreg.sweeps.program import Program
    from support.toy import make, run

    texts, compiled = [], Program.compiled

    def recorded(self, *args):
        program = compiled(self, *args)
        texts.append(program.call.as_text())
        return program

    Program.compiled = recorded

    def grid_of(**axes):
        types = (AxisType.Auto,) * len(axes)
        n = int(np.prod(list(axes.values())))
        shape = tuple(axes.values())
        return jax.make_mesh(shape, tuple(axes), axis_types=types, devices=jax.devices()[:n])

    def groups():
        """Every group of devices that some collective of the programs since the last call spans."""
        found = set()
        for text in texts:
            for line in text.splitlines():
                if re.search(
                    r" (all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)", line
                ):
                    found.add(
                        re.search(r"(replica_groups|source_target_pairs)=(\S+?),? ", line + " ")[2]
                    )
        texts.clear()
        return sorted(found)

    def told(result):
        return {
            "valid": np.asarray(result.valid["loss"]).tolist(),
            "w1": np.asarray(result.params["w1"]).tolist(),
            "layout": json.loads(result.made_by)["layout"],
            "collectives": groups(),
        }

    def spec(path, x):
        return PartitionSpec(*[None] * (x.ndim - 1), "model")

    few = jr.grid(make, lam=[0.1])
    out = {
        "one device": told(run(machine=jr.Machine(mesh=grid_of(lanes=1)))),
        "by default": told(run()),
        "data": told(run(machine=jr.Machine(mesh=grid_of(lanes=4, data=2)))),
        "model": told(run(machine=jr.Machine(mesh=grid_of(lanes=4, model=2), shard_params=spec))),
        "halving": told(run(halving=jr.Halving(0.5, 2))),
        "few lanes": told(run(few, folds=2, seeds=1)),
    }
    out["few lanes on one"] = told(
        run(few, folds=2, seeds=1, machine=jr.Machine(mesh=grid_of(lanes=1)))
    )
    rows = [jax.device_put(np.ones((6, 2), np.float32), d) for d in jax.devices()[1:3]]
    of = lambda reg: jr.Trainer(
        lambda key: jax.numpy.zeros(2),
        lambda w, a, b: ((a @ w) ** 2 + b[:, 0]).mean(),
        optax.sgd(0.1),
    )
    apart = jr.fit(of, {}, tuple(rows), steps=1, key=jax.random.key(0)).params
    out["rows on two devices"] = np.asarray(apart).tolist()
    for name, call in {
        "fewer lanes": lambda: run(
            few, folds=2, seeds=1, machine=jr.Machine(mesh=grid_of(lanes=8))
        ),
        "data does not divide": lambda: run(machine=jr.Machine(mesh=grid_of(lanes=2, data=3))),
    }.items():
        try:
            call()
        except ValueError as error:
            out[name] = str(error)
    return out


def lives(checkpoint: str, out: str, seed: str) -> dict:
    """Fork, sweep, kill at a random moment; again until a life reaches the end."""
    # jax is imported once and its backend started in each child: a fork must not inherit one.
    import jax

    import jaxreg as jr
    from support import toy

    jax.config.update("jax_compilation_cache_dir", os.path.join(checkpoint, "..", "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)

    class Slow(jr.Callback):
        def evaluated(self, evaluation):
            time.sleep(0.02)

    rng, killed, steps = random.Random(int(seed)), 0, []
    while True:
        child = os.fork()
        if child == 0:
            done = toy.run(
                steps=200, evals=50, halving=jr.Halving(0.5, 2), patience=12,
                checkpoint=checkpoint, checkpoint_every=0, callbacks=[Slow()],
            )  # fmt: skip
            # A life that was killed between this and its exit has left a whole one.
            done.save(out, overwrite=True)
            os._exit(0)
        # The first three are given less time than a start takes, so that there are three; later ones reach
        # further.
        given = rng.uniform(0.5, 2.0) + 0.5 * killed if killed >= 3 else rng.uniform(0.2, 0.6)
        deadline = time.monotonic() + given
        while time.monotonic() < deadline:
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                if status:
                    raise SystemExit(f"a life ended by itself with {status}")
                return {"killed": killed, "steps": steps}
            time.sleep(0.01)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        killed += 1
        steps.append(sorted(p.name for p in Path(checkpoint).glob("*")))


def host(index: str, count: str, port: str, checkpoint: str, out: str, slow: str) -> dict:
    import jax

    jax.distributed.initialize(f"127.0.0.1:{port}", int(count), int(index))
    import jaxreg as jr
    from jaxreg.sweeps.machine.hosts import ProcessLeft
    from support import toy

    class Slow(jr.Callback):
        def evaluated(self, evaluation):
            Path(out).with_suffix(".alive").write_text(str(evaluation.step))
            time.sleep(float(slow))

    try:
        done = toy.run(
            steps=40, evals=20, halving=jr.Halving(0.5, 2), checkpoint=checkpoint,
            checkpoint_every=0, callbacks=[Slow()],
        )  # fmt: skip
    except ProcessLeft as error:
        # At its exit jax would wait for the heartbeat of the one that has left.
        print(error, file=sys.stderr, flush=True)
        os._exit(1)
    done.save(f"{out}.{index}")
    return {"layout": json.loads(done.made_by)["layout"], "devices": jax.device_count()}


def stream_host(index: str, count: str, port: str, checkpoint: str, out: str, slow: str) -> dict:
    """As `host`, over a stream of which every process reads its part."""
    import jax

    jax.distributed.initialize(f"127.0.0.1:{port}", int(count), int(index))
    from support import toy

    done = toy.streamed(int(index), int(count), checkpoint=checkpoint)
    done.save(f"{out}.{index}")
    return {"devices": jax.device_count()}


def readme(out: str) -> dict:
    """The README's example for 20 steps."""
    import flax.linen as nn
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax
    from sklearn.datasets import load_digits

    import jaxreg as jr

    x, y = load_digits(return_X_y=True)
    order = jax.random.permutation(jax.random.key(0), len(x))[:100]
    x, y = jnp.asarray(x[order] / 16), jnp.asarray(y[order])
    net = nn.Sequential([nn.Dense(128), nn.relu, nn.Dense(128), nn.relu, nn.Dense(10)])

    def entropy(params, x, y):
        return optax.softmax_cross_entropy_with_integer_labels(net.apply(params, x), y).mean()

    def mlp(reg):
        tx = optax.chain(jr.add_penalty_gradient(reg), optax.adam(1e-3))
        return jr.Trainer(lambda key: net.init(key, x[:1]), entropy, tx)

    g = jr.grid(lambda lam: jr.l2(lam).on(jr.kernels), lam=jnp.logspace(-5, -1, 9))
    got = jr.sweep(
        mlp, g, (x, y), folds=5, seeds=3, steps=20, batch_size=64, key=jax.random.key(1),
        machine=jr.Machine(chunk=1), progress=False,
    )  # fmt: skip
    some = [0, 10, 20]
    leaves = [np.asarray(p, np.float64).reshape(9, 5, 3, -1) for p in jax.tree.leaves(got.params)]
    np.savez(
        out, train=got.train["loss"][..., some], valid=got.valid["loss"][..., some],
        pen=got.penalty_value[..., some], squares=[(p**2).sum(-1) for p in leaves],
        sums=[p.sum(-1) for p in leaves],
    )  # fmt: skip
    return {}


def shards() -> dict:
    """Terms, their derivatives and SAM's gradient of a batch on four devices, beside those on one."""
    os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.sharding import AxisType, NamedSharding, PartitionSpec

    import jaxreg as jr

    mesh = jax.make_mesh((4,), ("rows",), axis_types=(AxisType.Auto,))
    by_rows, same = PartitionSpec("rows"), PartitionSpec()
    x, h = (jax.random.normal(jax.random.key(i), s) for i, s in enumerate([(16, 4), (16, 5, 4)]))
    w = jax.random.normal(jax.random.key(2), (4, 3))
    critic = lambda w: lambda x: jnp.tanh(x @ w) @ jnp.ones(3)
    t = jr.terms
    means = {
        "activity_l1": lambda w, x, h: t.activity_l1(0.5)(h @ w),
        "activity_l2": lambda w, x, h: t.activity_l2(0.5)(h @ w),
        "tar": lambda w, x, h: t.tar(0.5, axis=1)(h @ w),
        "kl": lambda w, x, h: t.kl(0.5)(x @ w, jnp.sin(x @ w)),
        "confidence": lambda w, x, h: t.confidence(0.5)(x @ w),
        "gradient_penalty": lambda w, x, h: t.gradient_penalty(0.5)(critic(w), x),
        "r1": lambda w, x, h: t.r1(0.5)(critic(w), x),
    }
    whole = {  # what is no mean over rows is that of all rows where jit knows how they lie
        "variance": lambda w, x, h: t.variance(0.5)(0.3 * x @ w),
        "covariance": lambda w, x, h: t.covariance(0.5)(x @ w),
        "kl_sparsity": lambda w, x, h: t.kl_sparsity(0.5)(jax.nn.sigmoid(x @ w)),
        "free_bits": lambda w, x, h: t.free_bits(0.5, 0.4)(x @ w, jnp.sin(x @ w)),
        "total_correlation": lambda w, x, h: t.total_correlation(0.5, 99)(x @ w, x @ w, x @ w),
    }

    def shard(fun):
        shares = lambda w, x, h: jax.lax.pmean(fun(w, x, h), "rows")
        return jax.shard_map(shares, mesh=mesh, in_specs=(same, by_rows, by_rows), out_specs=same)

    put = lambda a: jax.device_put(a, NamedSharding(mesh, by_rows))
    spread, rho = (put(x), put(h)), 0.5
    out = {}
    for name, fun in (means | whole).items():
        apart = shard(fun) if name in means else fun
        for kind, of in {
            "value": lambda f: f,
            "gradient": jax.grad,
            "sam": lambda f: jr.sam(f, rho),
        }.items():
            alone, together = jax.jit(of(fun))(w, x, h), jax.jit(of(apart))(w, *spread)
            last = lambda tree: np.asarray(jax.tree.leaves(tree)[-1]).ravel().tolist()
            out[f"{name} {kind}"] = last(alone), last(together)
    return out


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](*sys.argv[2:])))
