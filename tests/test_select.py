"""Selectors: which leaves of real models they take, their algebra, and refusals that help."""

import dataclasses
import warnings

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import jaxreg as jr
from jaxreg import _tree

PARAMS = {
    "embed": jnp.ones((5, 2)),
    "dense": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)},
    "LayerNorm_0": {"scale": jnp.ones(3), "bias": jnp.ones(3)},
}


def chosen(selector, params=PARAMS):
    return {p for p, hit in zip(_tree.flatten(params).paths, selector.mask(params)) if hit}


# --- the built-in rules -----------------------------------------------------------------------------

KERNELS = [
    "kernel", "dense/kernel", "layers/0/weight", "embedding", "w", "W_ih", "lora_a", "lora_b",
    "blocks/0/lora_B", "rnn/w_hh", "normal/kernel", "balance", "global_kernel", "obs/kernel", "0",
    "attention/query/kernel", "line/kernel", "blend", "label_embedding", "",
    "lora/q_lora_b", "dense/w_b", "U_b", "kernel_b", "mixer/B", "bnb/kernel", "normal/w", "norm_mlp/kernel",
    "embed_norm_proj/kernel", "conv/weight_norm/v", "spectral_norm/kernel", "scale_net/kernel/0",
    "bias_net/kernel", "beta_net/kernel", "layers/0/1",
]  # fmt: skip
BIASES = [
    "b", "b1", "b_1", "bias", "dense/bias", "layers/0/bias", "bias_hh", "b_ih", "bias_ih_l0", "out_b",
    "offset", "intercept", "rnn/bias_1", "Dense_0/bias", "biases",
    "biases/0", "rnn/bias/1", "relative_attention_bias/embedding", "dense_b", "w_bias",
]  # fmt: skip
NORMS = [
    "LayerNorm_0/scale", "LayerNorm_0/bias", "BatchNorm_3/scale", "bn1/weight", "bn/gamma",
    "layers/0/norm/weight", "ln_f/scale", "ln_1/offset", "norm1/weight", "RMSNorm_0/scale",
    "input_layernorm/weight", "group_norm/scale", "post_attention_layernorm/weight", "scale", "beta",
    "scale/0", "ln_post/weight", "ln_out/weight", "layernorm_before/weight", "conv_norm_out/weight",
    "norm3d/weight", "norm_final/weight", "postnorm/weight", "prenorm/weight", "bns/0/weight",
    "LayerNormalization/weight", "blocks/0/gamma_1", "layer_scale", "layer_scale_1/lambda1",
    "clip/logit_scale",
]  # fmt: skip


@pytest.mark.parametrize("path", KERNELS)
def test_weights_proper_are_kernels(path):
    assert jr.kernels.matches(path, None)
    assert not jr.biases.matches(path, None)
    assert not jr.norms.matches(path, None)


@pytest.mark.parametrize("path", BIASES)
def test_biases_and_offsets_are_not_kernels(path):
    assert jr.biases.matches(path, None)
    assert not jr.kernels.matches(path, None)


@pytest.mark.parametrize("path", NORMS)
def test_all_of_a_norm_is_no_kernel(path):
    assert jr.norms.matches(path, None)
    assert not jr.kernels.matches(path, None)


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Conv(4, (3,))(nn.Embed(7, 5)(x))
        x = nn.RMSNorm()(nn.GroupNorm(2)(nn.LayerNorm()(nn.BatchNorm(True)(x))))
        x = nn.MultiHeadAttention(2)(x)
        return nn.Dense(2)(nn.RNN(nn.GRUCell(4))(x))


def test_in_a_flax_linen_model_rank_and_name_agree():
    params = jax.eval_shape(Net().init, jax.random.key(0), jnp.ones((2, 6), int))["params"]
    names = _tree.flatten(params)
    for path, x, kernel in zip(names.paths, names.values, jr.kernels.mask(params)):
        assert kernel == path.endswith(("kernel", "embedding")), path
        assert kernel or x.ndim == 1 or path.startswith("MultiHead"), path


def test_in_a_flax_nnx_model_the_same_leaves_are_kernels():
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.linear = nnx.Linear(2, 3, rngs=rngs)
            self.norm = nnx.BatchNorm(3, rngs=rngs)
            self.lora = nnx.LoRA(3, 2, 3, rngs=rngs)

    params = nnx.state(Net(nnx.Rngs(0)), nnx.Param)
    assert chosen(jr.kernels, params) == {"linear/kernel", "lora/lora_a", "lora/lora_b"}


def test_stacking_layers_for_a_scan_changes_nothing():
    stacked = jax.tree.map(lambda x: jnp.stack([x, x]), PARAMS)
    assert chosen(jr.kernels, stacked) == chosen(jr.kernels)


def nested(**shapes):
    tree = {}
    for name, shape in shapes.items():
        *layers, leaf = name.split("__")
        here = tree
        for layer in layers:
            here = here.setdefault(layer, {})
        here[leaf] = jnp.zeros(shape)
    return tree


@pytest.mark.parametrize(
    ("params", "paths"),
    [
        (nested(w1=(4, 3), b1=(3,)), {"w1"}),
        (nested(w1=(5, 4, 3), b1=(5, 3)), {"w1"}),  # a stack, or an ensemble
        (nested(w=(4, 3), b=(1, 3)), {"w"}),
        (nested(w=(1, 3), b=(1, 3)), {"w"}),
        (nested(lora__a=(4, 2), lora__b=(2, 3)), {"lora/a", "lora/b"}),
        (nested(a=(5, 4, 2), b=(5, 2, 3)), {"a", "b"}),
        (nested(w=(4, 3), a=(4, 2), b=(2, 3)), {"w", "a", "b"}),
        (nested(w=(4, 3), A_1=(4, 2), B_1=(2, 3)), {"w", "A_1", "B_1"}),
        (nested(dense_b=(4, 3)), {"dense_b"}),
        (nested(dense_w=(4, 3), dense_b=(3,)), {"dense_w"}),
        (nested(gru__w_ih=(9, 4), gru__b_ih=(9,)), {"gru/w_ih"}),
        ({"w": [jnp.ones((2, 2))], "b": [jnp.ones((2, 2))]}, {"w/0"}),
    ],
)  # fmt: skip
def test_a_matrix_called_b_is_what_the_leaves_beside_it_say(params, paths):
    assert chosen(jr.kernels, params) == paths
    every = set(_tree.flatten(params).paths)
    assert chosen(~jr.biases, params) == paths
    if every - paths:
        assert chosen(jr.biases, params) == every - paths
    # A term that is asked for one leaf alone must not take it for something else.
    penalty = jr.l2(1.0).on(jr.kernels)
    assert {
        p for p, hit in zip(_tree.flatten(params).paths, penalty.support(params)) if hit
    } == paths


def test_a_norm_in_a_sequence_of_numbers_is_found_by_its_bias():
    params = {
        "downsample": [{"weight": jnp.ones((8, 4, 1, 1))}, {"weight": jnp.ones(8), "bias": jnp.ones(8)}],
        "net": [
            {"weight": jnp.ones((8, 4)), "bias": jnp.ones(8)},
            {"weight": jnp.ones(8), "bias": jnp.ones(8)},
            {"weight": jnp.ones((1, 8)), "bias": jnp.ones(1)},
        ],
    }  # fmt: skip
    assert chosen(jr.kernels, params) == {"downsample/0/weight", "net/0/weight", "net/2/weight"}
    assert chosen(jr.norms, params) == {"downsample/1/weight", "net/1/weight"}
    stacked = jax.tree.map(lambda x: jnp.stack([x, x]), params)
    assert chosen(jr.kernels, stacked) == chosen(jr.kernels, params)
    assert jr.norms.matches("layer1/0/downsample/1/weight", None)
    assert jr.kernels.matches("layer1/0/downsample/0/weight", None)


def test_statistics_are_no_kernels_whatever_the_layer_is_called():
    first = nested(
        first__mean=(4,), first__var=(4,), first__scale=(4,), first__bias=(4,), posterior__mean=(4, 3),
        posterior__var=(4, 3), second__running_mean=(4,), batch_stats__x__mean=(4,),
    )  # fmt: skip
    assert chosen(jr.kernels, first) == {"posterior/mean", "posterior/var"}
    assert "first/mean" in chosen(jr.norms, first)


EMBEDDINGS = [
    "embed/embedding", "tok_embeddings/weight", "wte/weight", "wpe/weight", "pos_embedding", "cls_token",
    "Embed_0/embedding", "embed/w", "model/embed_tokens_embedding", "encoder/word_embeddings/weight",
    "embedding", "label_embedding", "embed", "emb/0/weight", "pos_embed", "embedding_table",
]  # fmt: skip
NO_EMBEDDINGS = [
    "patch_embed/kernel", "patch_embed/proj/weight", "patch_embedding/weight", "embed_norm/weight",
    "embed_norm_proj/kernel", "embeddings/LayerNorm/scale", "enc/relative_attention_bias/embedding",
    "embed/bias", "lm_head/kernel", "remember/kernel", "embed/kernel", "blend",
]  # fmt: skip


def test_embeddings_are_tables_of_tokens_and_positions():
    assert all(jr.embeddings.matches(p, None) and jr.kernels.matches(p, None) for p in EMBEDDINGS)
    assert not [p for p in NO_EMBEDDINGS if jr.embeddings.matches(p, None)]
    params = jax.eval_shape(Net().init, jax.random.key(0), jnp.ones((2, 6), int))["params"]
    assert chosen(jr.embeddings, params) == {"Embed_0/embedding"}
    assert chosen(jr.kernels & ~jr.embeddings, params) == chosen(jr.kernels, params) - {
        "Embed_0/embedding"
    }


@pytest.mark.filterwarnings("default")
def test_where_rank_stands_in_for_a_name_a_warning_says_so():
    params = [(jnp.ones((2, 2)), jnp.ones(2)), {"kernel": jnp.ones((2, 2))}]
    with pytest.warns(UserWarning, match=r"kernels: '0/0', '0/1' have no name, so a vector is"):
        assert jr.l2(1.0).on(jr.kernels)(params) == 4
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        jr.l2(1.0).on(jr.kernels)(
            {"scale": [jnp.ones(2)], "w": jnp.ones(2), "biases": [jnp.ones(2)]}
        )
        jr.l2(1.0).on(jr.kernels)(jnp.ones(2))
        jr.l2(1.0).on("0/0")(params)


@pytest.mark.parametrize(
    ("params", "paths"),
    [
        ([jnp.ones((2, 2)), jnp.ones(2)], {"0"}),
        ([(jnp.ones((2, 2)), jnp.ones(2)), (jnp.ones((2, 1)), jnp.ones(()))], {"0/0", "1/0"}),
        ({"w": [jnp.ones((2, 2))], "b": [jnp.ones((2, 2))]}, {"w/0"}),
        (jnp.ones(2), {""}),
        ({"w": jnp.ones(2)}, {"w"}),
    ],
)
@pytest.mark.filterwarnings("ignore:.* no name")
def test_a_vector_without_a_name_is_a_bias(params, paths):
    assert chosen(jr.kernels, params) == paths
    assert chosen(~jr.biases, params) == paths


def test_what_is_no_parameter_is_no_kernel():
    model = {
        "activation": jax.nn.relu,
        "kind": "mlp",
        "count": jnp.arange(3),
        "key": jax.random.key(0),
        "bias": jnp.arange(2),
        "scale": jnp.arange(2),
        "kernel": jnp.full((2, 2), 3.0, jnp.bfloat16),
    }
    assert chosen(jr.kernels, model) == {"kernel"}
    assert chosen(jr.kernels, jax.tree.map(lambda x: x, model) | {"kernel": 1.0}) == {"kernel"}
    assert jr.l1(1.0).on(jr.kernels)(model) == 12
    for rule in (jr.biases, jr.norms):
        with pytest.raises(ValueError, match="matches none of the 7 leaves"):
            rule.mask(model)
    with pytest.raises(TypeError, match="l1: the leaf 'kernel' is of dtype complex64"):
        jr.l1(1.0).on(jr.kernels)({"kernel": jnp.ones(2, complex)})


def test_an_equinox_model_is_taken_as_it_is_held():
    eqx = pytest.importorskip("equinox")
    model = eqx.nn.MLP(2, 1, 3, 1, key=jax.random.key(0))
    weights = [layer.weight for layer in model.layers]
    assert jr.l1(1.0).on(jr.kernels)(model) == pytest.approx(
        float(sum(jnp.sum(jnp.abs(w)) for w in weights)), rel=1e-6
    )
    moved = jr.l1(1.0).on(jr.kernels).prox(model, 1e9)
    assert not moved.layers[0].weight.any()
    assert moved.activation is model.activation


def test_everything_is_everything():
    assert all(jr.select.everything.mask(PARAMS))
    assert jr.select.everything.mask({}) == []


# --- algebra ----------------------------------------------------------------------------------------


def test_and_or_not_are_set_operations():
    a, b = jr.path("*bias"), jr.norms
    every = chosen(jr.select.everything)
    assert chosen(a & b) == chosen(a) & chosen(b) == {"LayerNorm_0/bias"}
    assert chosen(a | b) == chosen(a) | chosen(b)
    assert chosen(~a) == every - chosen(a)
    assert chosen(~(a | b)) == chosen(~a & ~b) == {"embed", "dense/kernel"}


def test_globs_and_functions_are_taken_as_selectors():
    def matrix(path, leaf):
        return leaf.ndim == 2

    assert chosen(jr.select.where(matrix)) == chosen(jr.norms.__invert__() & matrix & "*") == {
        "embed", "dense/kernel",
    }  # fmt: skip
    assert chosen(jr.biases | "embed") == {"dense/bias", "LayerNorm_0/bias", "embed"}


def test_a_star_crosses_slashes_and_matching_is_by_case():
    assert jr.path("*/kernel").matches("a/b/kernel", None)
    assert not jr.path("*/kernel").matches("kernel", None)
    assert not jr.path("Dense*").matches("dense/kernel", None)
    assert jr.path("layers/[01]/*").matches("layers/1/kernel", None)


def test_brackets_appear_where_they_are_needed():
    a, b, c = jr.kernels, jr.biases, jr.path("x")
    assert repr(a & b | c) == "kernels & biases | path('x')"
    assert repr(a & (b | c)) == "kernels & (biases | path('x'))"
    assert repr(~(a & b)) == "~(kernels & biases)"
    assert repr(~a) == "~kernels"


# --- masks ------------------------------------------------------------------------------------------


def test_leaf_mask_reads_an_optax_mask():
    mask = jax.tree.map(lambda x: x.ndim == 2, PARAMS)
    assert chosen(jr.select.leaf_mask(mask)) == {"embed", "dense/kernel"}


def test_a_mask_may_be_a_prefix_as_in_optax():
    mask = {"embed": True, "dense": True, "LayerNorm_0": False}
    assert chosen(jr.select.leaf_mask(mask)) == {"embed", "dense/kernel", "dense/bias"}
    assert all(jr.select.leaf_mask(True).mask(PARAMS))
    assert not jr.select.leaf_mask({"dense": True}).matches("dense_1/kernel", None)


def test_masks_of_other_things_are_refused():
    with pytest.raises(
        TypeError, match="leaf_mask: `mask` must be True or False at every leaf, got 1 at 'b'"
    ):
        jr.select.leaf_mask({"a": True, "b": 1})


# --- identity: a selector is the static part of a penalty -------------------------------------------

SAME = [
    lambda: jr.kernels,
    lambda: jr.path("*/kernel"),
    lambda: jr.kernels & ~jr.path("head/*"),
    lambda: jr.biases | jr.norms,
    lambda: jr.select.leaf_mask({"a": True, "b": False}),
    lambda: jr.select.where(len),
]


@pytest.mark.parametrize("make", SAME)
def test_equal_selectors_are_equal_and_hash_alike(make):
    assert make() == make()
    assert hash(make()) == hash(make())


def test_different_selectors_differ():
    made = [make() for make in SAME]
    assert len(set(made)) == len(made)
    assert jr.path("a") != jr.path("b")
    assert jr.kernels & jr.biases != jr.kernels | jr.biases


def test_selectors_are_immutable():
    with pytest.raises(dataclasses.FrozenInstanceError):
        jr.path("a").pattern = "b"


# --- refusals ---------------------------------------------------------------------------------------


def test_a_selector_that_matches_nothing_names_itself_and_the_nearest_paths():
    with pytest.raises(
        ValueError,
        match=r"selector path\('dense/kernal'\) matches none of the 5 leaves.*\['dense/kernel'",
    ):
        jr.path("dense/kernal").mask(PARAMS)
    with pytest.raises(ValueError, match=r"selector kernels & biases matches none of the 5"):
        (jr.kernels & jr.biases).mask(PARAMS)


@pytest.mark.parametrize(("bad", "shown"), [(None, "None"), ({"a": True}, "{'a': True}"), (3, "3")])
def test_what_is_no_selector_is_refused_with_the_forms(bad, shown):
    with pytest.raises(
        TypeError, match=f"`where` must be a selector.*got {shown}.*jaxreg.select.leaf_mask"
    ):
        jr.l2(1.0).on(bad)


def test_path_and_where_check_their_argument():
    with pytest.raises(TypeError, match=r"path: `pattern` must be a string.*got 3"):
        jr.path(3)
    with pytest.raises(TypeError, match=r"where: `predicate` must be a function.*got 'a'"):
        jr.select.where("a")
