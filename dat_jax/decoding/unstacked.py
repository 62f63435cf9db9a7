# SPDX-License-Identifier: Apache-2.0
"""A trained model with its blocks unstacked, so that a decoder can run them one by one."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from dat_jax.decoding.top_tokens import in_groups
from dat_jax.model.attention import Attend, Attended, AttendedForm, KeysValues, States
from dat_jax.model.blocks import BlockKernels, DecoderBlock
from dat_jax.model.classifiers import normalised, weights_of_exit
from dat_jax.model.heads import halting_logit, sequence_logits, token_logits
from dat_jax.model.transformer import Transformer
from dat_jax.types import Array, Bool, Float, Int, Params

Made = TypeVar("Made")


class Memory(NamedTuple):
    """The encoder's output in the forms that blocks attend to."""

    projected: tuple[KeysValues, ...]  # for each of the lower blocks
    states: States  # unprojected, for the blocks above


class Weights(NamedTuple):
    """A model's parameters, laid out for the engine."""

    blocks: tuple[Params, ...]  # of each decoder block, in the model's dtype
    tables: tuple[jax.Array, ...]  # [D, groups, grouped] shared by all exits, or one per exit
    norms: dict[str, jax.Array]  # [X, D] the exits' LayerNorms, if any
    others: Params  # everything else as trained, tables [V, D] included

    def up_to(self, depth: int) -> "Weights":
        """Returns the weights of the lowest blocks and their exits."""
        tables = self.tables if len(self.tables) == 1 else self.tables[:depth]
        return self._replace(blocks=self.blocks[:depth], tables=tables)


def unstack(model: Transformer, params: Params) -> Weights:
    """Lays out a model's parameters for decoding. It copies them, so call it once per model."""
    others = {name: part for name, part in params.items() if name != "decoder"}
    return Weights(*_unstack(model, params), others)


@partial(jax.jit, static_argnames="model")
def _unstack(
    model: Transformer, params: Params
) -> tuple[tuple[Params, ...], tuple[Array, ...], Params]:
    config = model.config
    stacked = _in_dtype(params["decoder"]["blocks"], config.dtype)
    blocks = [jax.tree.map(lambda p, n=n: p[n], stacked) for n in range(config.decoder_layers)]
    weights: Any = model.apply({"params": params}, method="classifier_weights")
    shared, per_exit = (_in_dtype(weights[part], config.dtype) for part in ("shared", "per_exit"))
    tables = [shared["table"]] if "table" in shared else list(per_exit["table"])
    norms = {name: leaf for name, leaf in per_exit.items() if name != "table"}
    return tuple(blocks), tuple(map(_by_groups, tables)), norms


class UnstackedModel:
    """The parts of a model as functions of arrays; depths count from 1.

    It has the blocks that `weights` has. Blocks 1 to `projected` attend to projected keys and
    values, those above to states.
    """

    def __init__(self, model: Transformer, weights: Weights, projected: int) -> None:
        config = model.config
        self.config, self.projected = config, projected
        self.num_layers = len(weights.blocks)
        self.vocabulary_size = model.target_vocabulary_size
        self._model, self._weights = model, weights
        self._block = DecoderBlock(config, parent=None)
        self._kernels = [self._run(n + 1, method="state_kernels") for n in range(self.num_layers)]
        self._is_token = in_groups(jnp.ones(self.vocabulary_size, bool), False)

    def encode(
        self, source: Int[Array, "B S"], source_mask: Bool[Array, "B S"]
    ) -> Float[Array, "B S E"]:
        """Returns the memory."""
        return self._apply("encode", source, source_mask)

    def embed(
        self, tokens: Int[Array, "B J"], positions: Int[Array, "#B J"]
    ) -> Float[Array, "B J D"]:
        """Returns the states before block 1."""
        return self._apply("embed", tokens, positions)

    def form(self, depth: int) -> AttendedForm:
        """Returns what block `depth` caches: projected keys and values, or raw states."""
        return "keys_values" if depth <= self.projected else "states"

    def project_memory(self, memory: Float[Array, "B S E"], exits: Int[Array, " B"]) -> Memory:
        """Returns the memory as blocks attend to it. Skips the projection, leaving zeros, for
        blocks that no sentence can reach.

        Args:
            memory: the encoder's output.
            exits: the maximum depth of each sentence's tokens.
        """
        heads, width = self.config.decoder_heads, self.config.decoder_dim
        shape = (len(memory), heads, memory.shape[1], width // heads)

        # Flat rows: otherwise XLA (jaxlib 0.12, CPU) gives the result another layout than the array
        # that it is written to, and transposes the whole array instead.
        def in_rows(depth: int, memory: Array) -> KeysValues:
            projected = self._run(depth, memory, "keys_values", method="memory_attended")
            return jax.tree.map(lambda x: x.reshape(len(memory), -1), projected)

        projected = []
        for depth in range(1, self.projected + 1):
            rows = run_if(jnp.any(exits >= depth), partial(in_rows, depth), memory)
            projected.append(jax.tree.map(lambda x: x.reshape(shape), rows))
        return Memory(tuple(projected), States(memory))

    def no_memory(self, sentences: int, length: int) -> Memory:
        """Returns zeros of the shape that `project_memory` gives for sources of `length` tokens."""
        dtype = jnp.dtype(self.config.dtype)
        memory = jax.ShapeDtypeStruct((sentences, length, self.config.encoder_dim), dtype)
        exits = jax.ShapeDtypeStruct((sentences,), jnp.int32)
        return no_values(self.project_memory, memory, exits)

    def memory_of(self, depth: int, memory: Memory) -> Attended:
        """Returns the part that block `depth` attends to."""
        return memory.projected[depth - 1] if depth <= self.projected else memory.states

    def self_attended(self, depth: int, x: Float[Array, "B P D"]) -> Attended:
        """Returns inputs of block `depth`, copied states among them, as later tokens attend to
        them."""
        return self._run(depth, x, self.form(depth), method="self_attended")

    def kernels(self, depth: int) -> BlockKernels:
        """Returns the kernels with which block `depth` attends to raw states."""
        return self._kernels[depth - 1]

    def block(
        self, depth: int, x: Float[Array, "B J D"], attend_self: Attend, attend_memory: Attend
    ) -> Float[Array, "B J D"]:
        """Returns the states after block `depth`."""
        return self._run(depth, x, attend_self, attend_memory)

    @property
    def num_tables(self) -> int:
        """The number of classifier tables: one shared by all exits, or one per exit."""
        return len(self._weights.tables)

    def table_of(self, depth: Int[Array, "*B"]) -> Int[Array, "*B"]:
        """Returns the index of the table that the exit at `depth` uses."""
        return jnp.zeros_like(depth) if self.num_tables == 1 else self._exit_of(depth)

    def classify_by_table(
        self, table: int, depth: Int[Array, "*B"], x: Float[Array, "*B D"]
    ) -> Float[Array, "*B groups grouped"]:
        """Returns the logits of states that exited at depths with the same table, in groups of
        tokens as `top_tokens` takes them; the last group is padded with -inf."""
        return self._logits(table, self._exit_of(depth), x)

    def classify(self, depth: int, x: Float[Array, "*B D"]) -> Float[Array, "*B groups grouped"]:
        """Returns the logits of the exit at `depth`, in the same form."""
        index = self.config.exit_depths.index(depth)
        return self._logits(index if self.num_tables > 1 else 0, index, x)

    def classify_tokens(
        self, depth: int, tokens: Int[Array, "*B shortlist"], x: Float[Array, "*B D"]
    ) -> Float[Array, "*B shortlist"]:
        """Returns the logits of only these tokens at the exit at `depth`, in float32."""
        own = weights_of_exit(
            self._apply("classifier_weights"), self.config.exit_depths.index(depth)
        )
        rows = own["table"].at[tokens].get(mode="clip").astype(x.dtype)
        state = normalised(own, x)
        return jnp.matmul(rows, state[..., None], preferred_element_type=jnp.float32)[..., 0]

    def _exit_of(self, depth: Int[Array, "*B"]) -> Int[Array, "*B"]:
        """Returns the index of the exit at `depth`; all depths have an exit, or only the last."""
        return depth - self.config.exit_depths[0]

    def _logits(
        self, table: int, index: int | Int[Array, "*B"], x: Float[Array, "*B D"]
    ) -> Float[Array, "*B groups grouped"]:
        """Returns the logits of exits, given by index, in float32."""
        norms = {name: leaf[index] for name, leaf in self._weights.norms.items()}
        product = partial(jnp.tensordot, preferred_element_type=jnp.float32)
        logits = product(normalised(norms, x), self._weights.tables[table], axes=(-1, 0))
        if self._is_token.size == self.vocabulary_size:
            return logits
        return jnp.where(jnp.broadcast_to(self._is_token, logits.shape), logits, -jnp.inf)

    def sequence_logits(
        self, memory: Float[Array, "B S E"], source_mask: Bool[Array, "B S"]
    ) -> Float[Array, "B N"]:
        """Returns the exit head's logits of a sentence."""
        return sequence_logits(self._weights.others["exit_head"], memory, source_mask)

    def token_logits(self, x: Float[Array, "*B D"]) -> Float[Array, "*B N"]:
        """Returns the exit head's logits of states after block 1."""
        return token_logits(self.config, self._weights.others["exit_head"], x)

    def halting_logit(self, depth: int, x: Float[Array, "*B D"]) -> Float[Array, "*B"]:
        """Returns the halting unit's logits of states after block `depth`."""
        return halting_logit(self.config, self._weights.others["exit_head"], depth, x)

    def _apply(self, method: str, *arguments: Array) -> Any:
        return self._model.apply({"params": self._weights.others}, *arguments, method=method)

    def _run(self, depth: int, *arguments: Any, method: str = "__call__") -> Any:
        variables = {"params": self._weights.blocks[depth - 1]}
        return self._block.apply(variables, *arguments, method=method)


def no_values(function: Callable[..., Made], *shapes: Any) -> Made:
    """Returns zeros with the shapes of `function`'s result for arguments of these shapes."""
    made = jax.eval_shape(function, *shapes)
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), made)


def run_if(condition: Bool[Array, ""], function: Callable[[Array], Any], x: Array) -> Any:
    """Returns `function(x)`, or zeros of its shape if the condition is false."""
    zeros = no_values(function, x)
    return jax.lax.cond(condition, function, lambda _: zeros, x)


def _in_dtype(params: Params, dtype: str) -> Params:
    """Casts all matrices to `dtype`, which layers would otherwise do at every use."""

    def cast(path: tuple, leaf: Array) -> Array:
        return leaf.astype(dtype) if path[-1].key in ("kernel", "table") else leaf

    return jax.tree.map_with_path(cast, params)


def _by_groups(table: Float[Array, "V D"]) -> Float[Array, "D groups grouped"]:
    """Lays out a table as [D, groups, group_size], to avoid a transpose per product on CPU."""
    return jnp.moveaxis(in_groups(table, 0.0), -1, 0)
