# SPDX-License-Identifier: Apache-2.0
"""The Transformer compared with the numpy reference, and properties that always hold."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dat_jax.model.attention import attend_to
from dat_jax.model.blocks import DecoderBlock
from dat_jax.model.transformer import Transformer, init_params
from dat_jax.types import Params
from tests.model import reference
from tests.tiny import (
    SOURCE_VOCABULARY,
    TARGET_VOCABULARY,
    ragged_mask,
    random_array,
    random_params,
    random_tokens,
    tiny_config,
    tiny_model,
)

B, S, T, N, D = 3, 5, 4, 3, 8
SOURCE_LENGTHS = (5, 1, 3)
SOURCE_MASK = ragged_mask(SOURCE_LENGTHS, S)
SOURCE = random_tokens(0, B, S, TARGET_VOCABULARY) * SOURCE_MASK
INPUTS = random_tokens(1, B, T, TARGET_VOCABULARY)

norms = pytest.mark.parametrize("norm", ["post", "pre"])
classifier_kinds = pytest.mark.parametrize("classifiers", ["shared", "per_exit"])


@partial(jax.jit, static_argnums=0)
def logits_of(model: Transformer, params: Params) -> jax.Array:
    """The logits of all exits, [X, B, T, V]."""
    return model.apply({"params": params}, SOURCE, SOURCE_MASK, INPUTS)


@partial(jax.jit, static_argnums=0)
def states_of(
    model: Transformer,
    params: Params,
    source: jax.Array = SOURCE,
    source_mask: jax.Array = SOURCE_MASK,
    dropout_key: jax.Array | None = None,
) -> jax.Array:
    """The decoder's states [N, B, T, D]; with a key, under dropout."""
    deterministic = dropout_key is None

    def run(model: Transformer) -> jax.Array:
        memory = model.encode(source, source_mask, deterministic=deterministic)
        return model.states(INPUTS, memory, source_mask, deterministic=deterministic)

    rngs = None if deterministic else {"dropout": dropout_key}
    return model.apply({"params": params}, method=run, rngs=rngs)


@pytest.mark.parametrize(
    ("classifiers", "embeddings", "exits"),
    [
        ("shared", "untied", "all"),
        ("per_exit", "untied", "all"),
        ("shared", "target", "all"),
        ("shared", "tied", "all"),
        ("per_exit", "untied", "last"),
    ],
)
@norms
def test_logits_of_all_exits_equal_the_reference(norm, classifiers, embeddings, exits):
    model = tiny_model(norm=norm, classifiers=classifiers, embeddings=embeddings, exits=exits)
    params = random_params(model)
    logits = logits_of(model, params)
    assert logits.shape == (1 if exits == "last" else N, B, T, TARGET_VOCABULARY)
    for row, length in enumerate(SOURCE_LENGTHS):
        source, inputs = SOURCE[row, :length].tolist(), INPUTS[row].tolist()
        expected = reference.logits(model.config, params, source, inputs)
        np.testing.assert_allclose(logits[:, row], expected, rtol=1e-4, atol=1e-4)


@norms
def test_states_do_not_depend_on_later_inputs(norm):
    model = tiny_model(norm=norm)
    params = random_params(model)
    memory = random_array(1, 1, S, 12)

    def states(x: jax.Array) -> jax.Array:
        def run(model: Transformer) -> jax.Array:
            return model.decoder(x, memory, SOURCE_MASK[:1], deterministic=True)

        return model.apply({"params": params}, method=run)[:, 0]

    jacobian = jax.jit(jax.jacrev(states))(random_array(2, 1, T, D))
    depends = np.abs(jacobian[:, :, :, 0]).max(axis=(2, 4)) > 0  # [N, T, T]
    np.testing.assert_array_equal(depends, np.broadcast_to(np.tri(T, dtype=bool), (N, T, T)))


@norms
def test_source_padding_changes_nothing(norm):
    model = tiny_model(norm=norm)
    params = random_params(model)
    padding = ((0, 0), (0, 4))
    wider = states_of(model, params, jnp.pad(SOURCE, padding), jnp.pad(SOURCE_MASK, padding))
    np.testing.assert_allclose(wider, states_of(model, params), rtol=1e-5, atol=1e-5)


@norms
def test_masked_source_tokens_change_nothing(norm):
    model = tiny_model(norm=norm)
    params = random_params(model)
    garbage = jnp.where(SOURCE_MASK, SOURCE, 7)
    np.testing.assert_array_equal(states_of(model, params, garbage), states_of(model, params))


@classifier_kinds
@norms
def test_the_last_of_all_exits_equals_a_model_with_one_exit(norm, classifiers):
    all_exits = tiny_model(norm=norm, classifiers=classifiers, exits="all")
    last_exit = tiny_model(norm=norm, classifiers=classifiers, exits="last")
    params = random_params(all_exits)
    own = {
        name: leaf if name == "table" and classifiers == "shared" else leaf[-1:]
        for name, leaf in params["classifiers"].items()
    }
    of_all = logits_of(all_exits, params)
    of_last = logits_of(last_exit, params | {"classifiers": own})
    assert of_last.shape[0] == 1
    np.testing.assert_allclose(of_last[0], of_all[-1], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("norm", "rate"), [("post", "dropout"), ("pre", "attention_dropout")])
def test_dropout_is_off_by_default_and_follows_its_key(norm, rate):
    plain, dropping = tiny_model(norm=norm), tiny_model(norm=norm, **{rate: 0.5})
    params = random_params(plain)
    first, second = jax.random.split(jax.random.key(0))
    np.testing.assert_array_equal(states_of(dropping, params), states_of(plain, params))
    dropped = states_of(dropping, params, dropout_key=first)
    np.testing.assert_array_equal(states_of(dropping, params, dropout_key=first), dropped)
    for other in (states_of(plain, params), states_of(dropping, params, dropout_key=second)):
        difference = np.abs(np.asarray(dropped) - other).max(axis=(1, 2, 3))
        assert difference.min() > 1e-3  # after every block


def params_that_add_hidden_units(model: Transformer) -> Params:
    """Zero parameters, except that feed-forward layers output their hidden units, which are all 1.

    A pre-norm block then adds 1. Dropout of one half drops or doubles each hidden unit, and then
    each output again.
    """
    params = jax.tree.map(jnp.zeros_like, random_params(model))
    for side in ("encoder", "decoder"):
        layers = params[side]["blocks"]["feed_forward"]
        kernel = layers["Dense_1"]["kernel"]
        layers["Dense_0"]["bias"] = jnp.ones_like(layers["Dense_0"]["bias"])
        layers["Dense_1"]["kernel"] = jnp.broadcast_to(jnp.eye(*kernel.shape[1:]), kernel.shape)
    return params


def test_decoder_blocks_have_different_dropout_masks():
    model = tiny_model(norm="pre", dropout=0.5, activation_dropout=0.5)
    params = params_that_add_hidden_units(model)

    @jax.jit
    def run(params: Params, key: jax.Array) -> jax.Array:
        x, memory = jnp.zeros((B, T, D)), jnp.zeros((B, S, 12))
        return model.apply(
            {"params": params},
            method=lambda model: model.decoder(x, memory, SOURCE_MASK, deterministic=False),
            rngs={"dropout": key},
        )

    states = run(params, jax.random.key(0))
    added = np.diff(np.asarray(states), axis=0, prepend=0)
    np.testing.assert_array_equal(np.unique(added), [0, 4])  # dropped, or kept and doubled twice
    for one in range(N):
        for other in range(one):
            assert (added[one] != added[other]).any()


@pytest.mark.parametrize(
    ("rate", "added"), [("dropout", [0, 2]), ("activation_dropout", [0, 2]), ("neither", [1])]
)
def test_hidden_units_and_updates_have_separate_dropout_rates(rate, added):
    rates = {"dropout": 0.0, "activation_dropout": 0.0, rate: 0.5}
    rates.pop("neither", None)
    model = tiny_model(norm="pre", **rates)
    params = params_that_add_hidden_units(model)

    def run(model: Transformer) -> jax.Array:
        x, memory = jnp.zeros((B, T, D)), jnp.zeros((B, S, 12))
        return model.decoder(x, memory, SOURCE_MASK, deterministic=False)

    rngs = {"dropout": jax.random.key(0)}
    states = jax.jit(lambda: model.apply({"params": params}, method=run, rngs=rngs))()
    np.testing.assert_array_equal(np.unique(np.diff(np.asarray(states), axis=0)), added)


def test_encoder_blocks_have_different_dropout_masks():
    model = tiny_model(norm="pre", dropout=0.5, activation_dropout=0.5)
    params = params_that_add_hidden_units(model)
    params["encoder"]["final_norm"]["scale"] = jnp.ones(12)
    # The last two channels have no hidden unit. They stay 0 and 1, which reveals the norm's scale.
    x = jnp.zeros((B, S, 12)).at[..., -1].set(1)

    @jax.jit
    def run(params: Params, key: jax.Array) -> jax.Array:
        return model.apply(
            {"params": params},
            method=lambda model: model.encoder(x, SOURCE_MASK, deterministic=False),
            rngs={"dropout": key},
        )

    memory = np.asarray(run(params, jax.random.key(0)))
    zero, one = memory[..., -2:-1], memory[..., -1:]
    added = ((memory - zero) / (one - zero))[..., :-2].round(3)
    # Each block adds 0 or 4; if both had the same mask, no sum would be 4.
    np.testing.assert_array_equal(np.unique(added), [0, 4, 8])


@pytest.mark.parametrize(("norm", "embeddings"), [("post", "untied"), ("pre", "tied")])
def test_bfloat16_is_close_to_float32_with_float32_logits(norm, embeddings):
    model = tiny_model(norm=norm, embeddings=embeddings)
    narrow = tiny_model(norm=norm, embeddings=embeddings, dtype="bfloat16")
    dtypes = {leaf.dtype for leaf in jax.tree.leaves(shapes_of_params(narrow))}
    assert dtypes == {jnp.dtype("float32")}
    params = random_params(model)
    assert states_of(narrow, params).dtype == jnp.bfloat16

    exact = logits_of(model, params)
    logits = logits_of(narrow, params)
    assert logits.dtype == jnp.float32
    difference = np.abs(np.asarray(logits) - exact)
    assert 0 < difference.max() < 0.05 * np.abs(exact).max()


def test_bfloat16_models_multiply_in_bfloat16_and_take_softmax_in_float32():
    model = tiny_model(dtype="bfloat16")
    text = logits_of.lower(model, shapes_of_params(model)).as_text()
    product = r"dot_general .* : \(tensor<\S*x(\w+)>, tensor<\S*x(\w+)>\)"
    operands = re.findall(product, text)
    assert len(operands) > 10
    assert set(operands) == {("bf16", "bf16")}
    exponentials = re.findall(r"exponential .* : tensor<\S*x(\w+)>", text)
    assert exponentials == ["f32"] * 3  # encoder attention and two decoder attentions


def shapes_of_params(model: Transformer) -> Params:
    """The shapes of the tree that `init_params` returns."""
    return jax.eval_shape(partial(init_params, model), jax.random.key(0))


def test_tied_embeddings_share_one_matrix():
    params = shapes_of_params(tiny_model(embeddings="tied"))
    assert params.keys() == {"target_embedding", "encoder", "decoder"}
    assert params["target_embedding"]["table"].shape == (TARGET_VOCABULARY, D)


def test_untied_embeddings_and_classifiers_have_separate_matrices():
    params = shapes_of_params(tiny_model(classifiers="per_exit"))
    own = {"source_embedding", "target_embedding", "classifiers"}
    assert params.keys() == own | {"encoder", "decoder"}
    assert {name: params[name]["table"].shape for name in own} == {
        "source_embedding": (SOURCE_VOCABULARY, 12),
        "target_embedding": (TARGET_VOCABULARY, D),
        "classifiers": (N, TARGET_VOCABULARY, D),
    }


def test_block_parameters_are_stacked_and_drawn_independently():
    params = init_params(tiny_model(), jax.random.key(0))
    for side, layers in (("encoder", 2), ("decoder", N)):
        for path, leaf in jax.tree.leaves_with_path(params[side]["blocks"]):
            assert leaf.shape[0] == layers
            if "kernel" in jax.tree_util.keystr(path):
                assert (np.asarray(leaf)[0] != np.asarray(leaf)[1]).all()


@norms
def test_a_block_run_token_by_token_equals_the_whole_sequence(norm):
    config = tiny_config(model={"norm": norm}).model
    block = DecoderBlock(config)
    stacked = random_params(tiny_model(norm=norm))["decoder"]["blocks"]
    variables = {"params": jax.tree.map(lambda leaf: leaf[1], stacked)}
    x = random_array(3, B, T, D)
    memory = random_array(4, B, S, 12)

    @jax.jit
    def whole_sequence() -> jax.Array:
        causal = jnp.tri(T, dtype=bool)[None]
        return block.apply(
            variables,
            x,
            attend_to(block.apply(variables, x, "keys_values", method="self_attended"), causal),
            attend_to(
                block.apply(variables, memory, "keys_values", method="memory_attended"),
                SOURCE_MASK[:, None],
            ),
            deterministic=True,
        )

    @jax.jit
    def token_by_token() -> jax.Array:
        of_memory = block.apply(variables, memory, "keys_values", method="memory_attended")
        cache, states = None, []
        for t in range(T):
            token = x[:, t : t + 1]
            new = block.apply(variables, token, "keys_values", method="self_attended")
            cache = new if cache is None else jax.tree.map(append, cache, new)
            everything = jnp.ones((1, 1, t + 1), bool)
            states.append(
                block.apply(
                    variables,
                    token,
                    attend_to(cache, everything),
                    attend_to(of_memory, SOURCE_MASK[:, None]),
                    deterministic=True,
                )
            )
        return jnp.concatenate(states, axis=1)

    np.testing.assert_allclose(token_by_token(), whole_sequence(), rtol=1e-5, atol=1e-5)


def append(cache: jax.Array, new: jax.Array) -> jax.Array:
    """Adds positions to keys or values, [B, H, P, K]."""
    return jnp.concatenate([cache, new], axis=2)
