# SPDX-License-Identifier: Apache-2.0
"""Models of random weights, sentences of forced lengths, and exits drawn around a given mean.

All systems then do the same work, and only their way of doing it differs.
"""

import dataclasses
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from configs.base import get_config
from dat_jax import flops
from dat_jax.config import Config
from dat_jax.data.vocabulary import EOS
from dat_jax.decoding.search import SearchResult, search
from dat_jax.decoding.sizing import Platform
from dat_jax.decoding.trained import TrainedModel
from dat_jax.decoding.work import describe
from dat_jax.exits.questions import Plan, Rule, Token
from dat_jax.exits.sampling import token_draws
from dat_jax.model.transformer import Transformer, init_params

LARGE = {
    "dim": 512,
    "ff_dim": 1024,
    "heads": 8,
    "num_layers": 6,
    "encoder_layers": 6,
    "vocabulary_size": 10_000,
}
"""The sizes of the paper's IWSLT'14 models, used for measurements of accelerators."""

_FIRST_WORD = 4
_WIDTHS = ("dim", "ff_dim", "heads")


@dataclasses.dataclass(frozen=True)
class Drawn(Rule):
    """Draws the exit of each token from a distribution."""

    cumulative: Any  # the probability of exiting at depth 1, 2, ... N - 1 or below

    kind = "drawn"

    def before_token(self, token: Token, plan: Plan) -> Plan:
        draws = token_draws(0, token.number, token.position, plan.exit_at.shape[1])
        above = draws[..., None] >= jnp.asarray(self.cumulative)[None, None]
        return plan._replace(exit_at=1 + jnp.sum(above, axis=-1))


def drawn_exits(average_exit: float, num_layers: int) -> Drawn:
    """Returns a rule with this mean exit, whose probabilities form a geometric sequence."""
    depths = np.arange(1, num_layers + 1)
    low, high = -30.0, 30.0
    for _ in range(100):
        slope = (low + high) / 2
        shares = np.exp(slope * (depths - (num_layers if slope > 0 else 1)))
        shares /= shares.sum()
        low, high = (slope, high) if shares @ depths < average_exit else (low, slope)
    return Drawn(tuple(map(float, np.cumsum(shares)[:-1])))


class Task(NamedTuple):
    """A model, and sentences for it."""

    trained: TrainedModel
    source: np.ndarray  # [B, S] without padding
    lengths: np.ndarray  # [B] target tokens, including EOS

    @property
    def num_layers(self) -> int:
        """The number of decoder blocks, N."""
        return self.trained.config.model.decoder_layers

    def first(self, count: int) -> "Task":
        """Returns the task with at most this many sentences."""
        return self._replace(source=self.source[:count], lengths=self.lengths[:count])

    def search(
        self, rule: Rule, beam: int, in_work: int, platform: Platform | None = None
    ) -> SearchResult:
        """Translates all sentences to their lengths, with the device's sizes or those given."""
        room = {"max_length_ratio": 0.0, "max_length_extra": int(self.lengths.max())}
        decoding = dataclasses.replace(
            self.trained.config.decoding, beam_size=beam, batch_size=in_work, **room
        )
        sources, limits = list(self.source), self.lengths.tolist()
        result = search(self.trained, rule, sources, decoding, limits=limits, platform=platform)
        lengths = [len(hypothesis.tokens) for hypothesis in result.hypotheses]
        assert lengths == limits, "a translation ended early"
        return result


def make_config(
    sizes: Mapping[str, int], dtype: Literal["float32", "bfloat16"] = "float32"
) -> Config:
    """Returns the config of a post-norm model with an exit at each depth.

    Args:
        sizes: `dim`, `ff_dim` and `heads` of encoder and decoder, `num_layers`, `encoder_layers`
            and `vocabulary_size`.
        dtype: the type of activations.
    """
    values = get_config().to_dict()
    values["data"]["vocabulary_size"] = sizes["vocabulary_size"]
    values["model"] |= {f"{s}_{x}": sizes[x] for s in ("encoder", "decoder") for x in _WIDTHS}
    layers = {"encoder_layers": sizes["encoder_layers"], "decoder_layers": sizes["num_layers"]}
    values["model"] |= layers | {"dropout": 0.0, "dtype": dtype}
    return Config.from_dict(values)


def config_of(module: ModuleType) -> Config:
    """Returns the config of a module of `configs/`."""
    return Config.from_dict(module.get_config().to_dict())


def make_task(config: Config, sentences: int, source_length: int, target_length: int) -> Task:
    """Returns random sources of one length, and random weights that make EOS improbable."""
    vocabulary_size = config.data.vocabulary_size
    model = Transformer(config.model, vocabulary_size, vocabulary_size)
    params = init_params(model, jax.random.key(0))
    table = params["classifiers"]["table"].at[..., EOS, :].set(0)
    params = params | {"classifiers": params["classifiers"] | {"table": table}}
    generator, shape = np.random.default_rng(0), (sentences, source_length)
    words = generator.integers(_FIRST_WORD, vocabulary_size, shape)
    words[:, -1] = EOS
    trained, lengths = TrainedModel(config, model, params), np.full(sentences, target_length)
    return Task(trained, words.astype(np.int32), lengths.astype(np.int32))


def vary_lengths(task: Task) -> Task:
    """Returns the task with target lengths drawn between half of theirs and all of it."""
    generator = np.random.default_rng(1)
    lengths = generator.integers(-(-task.lengths // 2), task.lengths + 1)
    return task._replace(lengths=lengths.astype(np.int32))


def encode(task: Task, batch_size: int) -> Callable[[], Any]:
    """Returns a call that runs the encoder alone on one batch."""
    trained = task.trained
    encoder = jax.jit(
        lambda params, source: trained.model.apply(
            {"params": params}, source, source != 0, method="encode"
        )
    )
    return lambda: jax.block_until_ready(encoder(trained.params, task.source[:batch_size]))


def figures(task: Task, rule: Rule, result: SearchResult) -> dict[str, Any]:
    """Returns the work of a search as executed, and its FLOPs by the paper's formula."""
    config, tokens = task.trained.config, int(task.lengths.sum())
    sizes = config.model, config.data.vocabulary_size, task.source.shape[1]
    exits = [np.asarray(hypothesis.exits) for hypothesis in result.hypotheses]
    return {
        "sentences": len(task.source),
        "tokens": tokens,
        "average_exit": round(int(sum(map(np.sum, exits))) / tokens, 3),
        "flops_per_token": sum(flops.translation(*sizes, one, rule) for one in exits) / tokens,
        "peak_bytes": result.cost.peak_bytes,
    } | describe(result.cost.work, tokens)
