# SPDX-License-Identifier: Apache-2.0
"""A trained model with its blocks unstacked, for decoders that choose which to run next."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from dat_jax.model.blocks import DecoderBlock
from dat_jax.model.classifiers import classify, weights_of_exit
from dat_jax.model.heads import halting_logit, sequence_logits, token_logits
from dat_jax.model.transformer import Transformer
from dat_jax.types import Array, Bool, Float, Int, Params

KeysValues = tuple[Array, Array]


class UnstackedModel:
    """The parts of a model as functions of arrays; depths count from 1.

    The weights of blocks and classifiers are unstacked once, here: indexing the stack inside a loop
    would copy a block's weights every time.
    """

    def __init__(self, model: Transformer, params: Params) -> None:
        config = model.config
        self.config = config
        self.num_layers = config.decoder_layers
        self.vocabulary_size = model.target_vocabulary_size
        self._model, self._params = model, params
        self._block = DecoderBlock(config, parent=None)
        stacked = params["decoder"]["blocks"]
        self._blocks = [jax.tree.map(lambda p, n=n: p[n], stacked) for n in range(self.num_layers)]
        self._state_kernels = [
            self._run(n + 1, method="state_kernels") for n in range(self.num_layers)
        ]
        weights = self._apply("classifier_weights")
        self._classifiers = [weights_of_exit(weights, x) for x in range(len(config.exit_depths))]
        self._one_table = "table" in weights["shared"]
        self._own_norms = {k: v for k, v in weights["per_exit"].items() if k != "table"}

    def encode(
        self, source: Int[Array, "B S"], source_mask: Bool[Array, "B S"]
    ) -> Float[Array, "B S E"]:
        """The memory."""
        return self._apply("encode", source, source_mask)

    def embed(
        self, tokens: Int[Array, "B J"], positions: Int[Array, "#B J"]
    ) -> Float[Array, "B J D"]:
        """The states before block 1."""
        return self._apply("embed", tokens, positions)

    def memory_keys_values(
        self, memory: Float[Array, "B S E"], exits: Int[Array, " B"]
    ) -> tuple[KeysValues, ...]:
        """Keys and values that each block attends to in the memory; zeros, which take no time, of
        blocks that no sentence goes to.

        Args:
            memory: the encoder's output.
            exits: the depths above which no token of each sentence goes.
        """
        heads, width = self.config.decoder_heads, self.config.decoder_dim
        shape = (len(memory), heads, memory.shape[1], width // heads)

        # In rows, or XLA (jaxlib 0.12, CPU) leaves the result in another order than the array that
        # it will be written to, and turns that one round instead.
        def in_rows(depth: int, memory: Array) -> KeysValues:
            keys, values = self._run(depth, memory, method="memory_keys_values")
            return keys.reshape(len(memory), -1), values.reshape(len(memory), -1)

        projected = []
        for depth in range(1, self.num_layers + 1):
            rows = run_if(jnp.any(exits >= depth), partial(in_rows, depth), memory)
            projected.append(jax.tree.map(lambda x: x.reshape(shape), rows))
        return tuple(projected)

    def no_memory(self, sentences: int, length: int) -> tuple[KeysValues, ...]:
        """Room for what `memory_keys_values` makes of sources of `length` tokens."""
        heads = self.config.decoder_heads
        shape = (sentences, heads, length, self.config.decoder_dim // heads)
        zeros = jnp.zeros(shape, jnp.dtype(self.config.dtype))
        return ((zeros, zeros),) * self.num_layers

    def self_keys_values(self, depth: int, x: Float[Array, "B J D"]) -> KeysValues:
        """Keys and values that later tokens attend to in block `depth`: its projections of its
        inputs, or of the states that were copied there."""
        return self._run(depth, x, method="self_keys_values")

    def block(
        self,
        depth: int,
        x: Float[Array, "B J D"],
        self_slots: KeysValues,
        self_mask: Bool[Array, "B J P"],
        memory_slots: KeysValues,
        memory_mask: Bool[Array, "B 1 S"],
    ) -> Float[Array, "B J D"]:
        """The states after block `depth`."""
        return self._run(depth, x, self_slots, self_mask, memory_slots, memory_mask)

    def step(
        self,
        depth: int,
        x: Float[Array, "B D"],
        self_states: Float[Array, "B P D"],
        self_mask: Bool[Array, "B P"],
        memory_slots: KeysValues,
        memory_mask: Bool[Array, "B S"],
    ) -> Float[Array, "B D"]:
        """The states after block `depth`, of one token a row, from states that entered it."""
        kernels = self._state_kernels[depth - 1]
        arguments = (x, self_states, self_mask, kernels, memory_slots, memory_mask)
        return self._run(depth, *arguments, method="step")

    @property
    def num_tables(self) -> int:
        """The number of tables [V, D] of the classifiers: one that all share, or one for each."""
        return 1 if self._one_table else len(self.config.exit_depths)

    def table_of(self, depth: Int[Array, "*B"]) -> Int[Array, "*B"]:
        """The one of them that the exit at `depth` uses."""
        return jnp.zeros_like(depth) if self._one_table else depth - self.config.exit_depths[0]

    def classify_by_table(
        self, table: int, depth: Int[Array, "*B"], x: Float[Array, "*B D"]
    ) -> Float[Array, "*B V"]:
        """The logits of states that left at depths whose exits use the same table."""
        own = {
            name: leaf[depth - self.config.exit_depths[0]] for name, leaf in self._own_norms.items()
        }
        return classify(self._classifiers[table] | own, x)

    def classify(self, depth: int, x: Float[Array, "B J D"]) -> Float[Array, "B J V"]:
        """The logits of the exit at `depth`."""
        return classify(self._classifiers[self.config.exit_depths.index(depth)], x)

    def classify_each(
        self, exits: Int[Array, "B J"], x: Float[Array, "B J D"]
    ) -> Float[Array, "B J V"]:
        """The logits of each state by the classifier of its own exit.

        One product with the last table, and one with each other that some exit uses. Where `exits`
        is 0 the logits mean nothing.
        """
        depths, last = self.config.exit_depths, self.num_tables - 1
        depth = jnp.clip(exits, depths[0], depths[-1])
        logits = self.classify_by_table(last, depth, x)
        for table in range(last):
            here = self.table_of(exits) == table

            def replace(logits: Array, table: int = table, here: Array = here) -> Array:
                return jnp.where(here[..., None], self.classify_by_table(table, depth, x), logits)

            logits = jax.lax.cond(jnp.any(here), replace, lambda logits: logits, logits)
        return logits

    def tables_run(self, exits: Int[Array, "B J"]) -> Int[Array, ""]:
        """Counts the products with a table that `classify_each` makes for these exits."""
        others = jnp.arange(self.num_tables - 1)
        used = self.table_of(exits)[..., None] == others[None, None]
        return 1 + jnp.sum(jnp.any(used, axis=(0, 1)))

    def sequence_logits(
        self, memory: Float[Array, "B S E"], source_mask: Bool[Array, "B S"]
    ) -> Float[Array, "B N"]:
        """The exit head's logits of a sentence."""
        return sequence_logits(self._params["exit_head"], memory, source_mask)

    def token_logits(self, x: Float[Array, "*B D"]) -> Float[Array, "*B N"]:
        """The exit head's logits of states after block 1."""
        return token_logits(self.config, self._params["exit_head"], x)

    def halting_logit(self, depth: int, x: Float[Array, "*B D"]) -> Float[Array, "*B"]:
        """The halting unit's logits of states after block `depth`."""
        return halting_logit(self.config, self._params["exit_head"], depth, x)

    def _apply(self, method: str, *arguments: Array) -> Any:
        return self._model.apply({"params": self._params}, *arguments, method=method)

    def _run(self, depth: int, *arguments: Any, method: str = "__call__") -> Any:
        variables = {"params": self._blocks[depth - 1]}
        return self._block.apply(variables, *arguments, method=method)


def run_if(condition: Bool[Array, ""], function: Callable[[Array], Any], x: Array) -> Any:
    """`function(x)`, or zeros of its shape, which take no time."""
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(function, x))
    return jax.lax.cond(condition, function, lambda _: zeros, x)
