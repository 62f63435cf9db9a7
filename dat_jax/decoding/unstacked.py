# SPDX-License-Identifier: Apache-2.0
"""A trained model with its blocks unstacked, for decoders that choose which to run next."""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from dat_jax.decoding.top_tokens import in_groups
from dat_jax.model.attention import Attended, AttendedForm, KeysValues, States
from dat_jax.model.blocks import DecoderBlock
from dat_jax.model.classifiers import normalised, weights_of_exit
from dat_jax.model.heads import halting_logit, sequence_logits, token_logits
from dat_jax.model.transformer import Transformer
from dat_jax.types import Array, Bool, Float, Int, Params

Made = TypeVar("Made")

MemoryAttended = tuple[KeysValues, ...] | States
"""The memory as blocks attend to it: projected by each of them, or as it is for all."""


class UnstackedModel:
    """The parts of a model as functions of arrays; depths count from 1.

    The weights of blocks and classifiers are unstacked once, here, and put into the dtype that the
    model computes in: in a loop, either would copy them every time.

    `form` is how what tokens attend to is stored: projected, or as states.
    """

    def __init__(self, model: Transformer, params: Params, form: AttendedForm) -> None:
        config, self.form = model.config, form
        self.config = config
        self.num_layers = config.decoder_layers
        self.vocabulary_size = model.target_vocabulary_size
        self._model, self._params = model, params
        self._block = DecoderBlock(config, parent=None)
        stacked = _in_dtype(params["decoder"]["blocks"], config.dtype)
        self._blocks = [jax.tree.map(lambda p, n=n: p[n], stacked) for n in range(self.num_layers)]
        self._state_kernels = [
            self._run(n + 1, method="state_kernels") for n in range(self.num_layers)
        ]
        weights = _in_dtype(self._apply("classifier_weights"), config.dtype)
        self._classifiers = [
            (own := weights_of_exit(weights, x)) | {"table": _by_groups(own["table"])}
            for x in range(len(config.exit_depths))
        ]
        self._is_token = in_groups(jnp.ones(self.vocabulary_size, bool), False)
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

    def memory_attended(
        self, memory: Float[Array, "B S E"], exits: Int[Array, " B"]
    ) -> MemoryAttended:
        """The memory as blocks attend to it; zeros, which take no time, where it would be projected
        for a block that no sentence goes to.

        Args:
            memory: the encoder's output.
            exits: the depths above which no token of each sentence goes.
        """
        if self.form == "states":
            return States(memory)
        heads, width = self.config.decoder_heads, self.config.decoder_dim
        shape = (len(memory), heads, memory.shape[1], width // heads)

        # In rows, or XLA (jaxlib 0.12, CPU) leaves the result in another order than the array that
        # it will be written to, and turns that one round instead.
        def in_rows(depth: int, memory: Array) -> KeysValues:
            projected = self._run(depth, memory, self.form, method="memory_attended")
            return jax.tree.map(lambda x: x.reshape(len(memory), -1), projected)

        projected = []
        for depth in range(1, self.num_layers + 1):
            rows = run_if(jnp.any(exits >= depth), partial(in_rows, depth), memory)
            projected.append(jax.tree.map(lambda x: x.reshape(shape), rows))
        return tuple(projected)

    def no_memory(self, sentences: int, length: int) -> MemoryAttended:
        """Room for what `memory_attended` makes of sources of `length` tokens."""
        dtype = jnp.dtype(self.config.dtype)
        memory = jax.ShapeDtypeStruct((sentences, length, self.config.encoder_dim), dtype)
        exits = jax.ShapeDtypeStruct((sentences,), jnp.int32)
        return no_values(self.memory_attended, memory, exits)

    def memory_of(self, depth: int, memory: MemoryAttended) -> Attended:
        """The part of it that block `depth` attends to."""
        return memory if isinstance(memory, States) else memory[depth - 1]

    def self_attended(self, depth: int, x: Float[Array, "B P D"]) -> Attended:
        """Inputs of block `depth`, or the states that were copied there, as later tokens are to
        attend to them."""
        return self._run(depth, x, self.form, method="self_attended")

    def self_states(self, depth: int, x: Float[Array, "B P D"]) -> States:
        """The same as states, whatever the form of what else is stored."""
        return self._run(depth, x, "states", method="self_attended")

    def block(
        self,
        depth: int,
        x: Float[Array, "B J D"],
        self_attended: Attended,
        self_mask: Bool[Array, "B J P"],
        memory_attended: Attended,
        memory_mask: Bool[Array, "B S"],
    ) -> Float[Array, "B J D"]:
        """The states after block `depth`."""
        seen = (self_attended, self_mask, memory_attended, memory_mask[:, None])
        return self._run(depth, x, *seen, self._state_kernels[depth - 1])

    @property
    def num_tables(self) -> int:
        """The number of tables [V, D] of the classifiers: one that all share, or one for each."""
        return 1 if self._one_table else len(self.config.exit_depths)

    def table_of(self, depth: Int[Array, "*B"]) -> Int[Array, "*B"]:
        """The one of them that the exit at `depth` uses."""
        return jnp.zeros_like(depth) if self._one_table else depth - self.config.exit_depths[0]

    def classify_by_table(
        self, table: int, depth: Int[Array, "*B"], x: Float[Array, "*B D"]
    ) -> Float[Array, "*B groups grouped"]:
        """The logits of states that left at depths whose exits use the same table, in groups of
        tokens as `top_tokens` takes them; -inf of what fills the last group."""
        own = {
            name: leaf[depth - self.config.exit_depths[0]] for name, leaf in self._own_norms.items()
        }
        return self._logits(self._classifiers[table] | own, x)

    def classify(self, depth: int, x: Float[Array, "B J D"]) -> Float[Array, "B J groups grouped"]:
        """The logits of the exit at `depth`, likewise."""
        return self._logits(self._classifiers[self.config.exit_depths.index(depth)], x)

    def _logits(self, weights: dict[str, Array], x: Float[Array, "*B D"]) -> Array:
        """The logits of an exit, in float32, by groups of tokens."""
        state = normalised(weights, x)
        product = partial(jnp.tensordot, preferred_element_type=jnp.float32)
        logits = product(state, weights["table"], axes=(-1, 0))
        if self._is_token.size == self.vocabulary_size:
            return logits
        return jnp.where(jnp.broadcast_to(self._is_token, logits.shape), logits, -jnp.inf)

    def classify_each(
        self, exits: Int[Array, "B J"], x: Float[Array, "B J D"]
    ) -> Float[Array, "B J groups grouped"]:
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
                return jnp.where(
                    here[..., None, None], self.classify_by_table(table, depth, x), logits
                )

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


def no_values(function: Callable[..., Made], *shapes: Any) -> Made:
    """Zeros in the shapes of what `function` makes of arrays of these shapes."""
    made = jax.eval_shape(function, *shapes)
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), made)


def run_if(condition: Bool[Array, ""], function: Callable[[Array], Any], x: Array) -> Any:
    """`function(x)`, or zeros of its shape, which take no time."""
    zeros = no_values(function, x)
    return jax.lax.cond(condition, function, lambda _: zeros, x)


def _in_dtype(params: Params, dtype: str) -> Params:
    """The parameters with all matrices in `dtype`, as layers would put them at each use."""

    def cast(path: tuple, leaf: Array) -> Array:
        return leaf.astype(dtype) if path[-1].key in ("kernel", "table") else leaf

    return jax.tree.map_with_path(cast, params)


def _by_groups(table: Float[Array, "V D"]) -> Float[Array, "D groups grouped"]:
    """A table with its tokens in groups, and these last, or a product on CPU would turn it round
    each time."""
    return jnp.moveaxis(in_groups(table, 0.0), -1, 0)
