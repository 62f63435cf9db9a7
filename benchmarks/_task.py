# SPDX-License-Identifier: Apache-2.0
"""Random weights, sentences for them, and exits drawn from a distribution of a given mean.

Lengths are forced, so that engines and other systems do the same work, and what differs is how they
go about it.
"""

import dataclasses
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from configs.base import get_config
from dat_jax import TranslationModel, flops
from dat_jax.config import Config
from dat_jax.data.vocabulary import EOS
from dat_jax.decoding.search import SearchResult
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
"""The sizes at which accelerators are looked at: those of IWSLT'14's models."""

_FIRST_WORD = 4
_WIDTHS = ("dim", "ff_dim", "heads")


@dataclasses.dataclass(frozen=True)
class Drawn(Rule):
    """Each token exits at a depth drawn from a distribution."""

    cumulative: Any  # the probability of exiting at depth 1, 2, ... N - 1 or below

    kind = "drawn"

    def before_token(self, token: Token, plan: Plan) -> Plan:
        draws = token_draws(0, token.number, token.position, plan.exit_at.shape[1])
        above = draws[..., None] >= jnp.asarray(self.cumulative)[None, None]
        return plan._replace(exit_at=1 + jnp.sum(above, axis=-1))


def drawn_exits(average_exit: float, num_layers: int) -> Drawn:
    """Exits with this mean, each depth being as much rarer than the one below as all others are."""
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

    model: TranslationModel
    source: np.ndarray  # [B, S] without padding
    lengths: np.ndarray  # [B] of the translations, EOS counted

    @property
    def num_layers(self) -> int:
        """The model's decoder blocks, N."""
        return self.model.trained.config.model.decoder_layers

    def first(self, count: int) -> "Task":
        """The same task with no more sentences than this."""
        return self._replace(source=self.source[:count], lengths=self.lengths[:count])

    def search(self, rule: Rule, **settings: Any) -> SearchResult:
        """Translates all sentences to their lengths."""
        room: dict[str, Any] = {
            "max_length_ratio": 0.0,
            "max_length_extra": int(self.lengths.max()),
        }
        result = self.model.search(
            list(self.source), policy=rule, limits=self.lengths.tolist(), **room, **settings
        )
        lengths = [len(hypothesis.tokens) for hypothesis in result.hypotheses]
        assert lengths == self.lengths.tolist(), "a translation ended early"
        return result


def make_config(
    sizes: Mapping[str, int], dtype: Literal["float32", "bfloat16"] = "float32"
) -> Config:
    """A post-norm model with an exit at each depth, encoder and decoder equally wide.

    Args:
        sizes: `dim`, `ff_dim`, `heads`, `num_layers`, `encoder_layers` and `vocabulary_size`.
        dtype: that it computes in.
    """
    values = get_config().to_dict()
    values["data"]["vocabulary_size"] = sizes["vocabulary_size"]
    values["model"] |= {f"{s}_{x}": sizes[x] for s in ("encoder", "decoder") for x in _WIDTHS}
    values["model"] |= {
        "encoder_layers": sizes["encoder_layers"],
        "decoder_layers": sizes["num_layers"],
        "dropout": 0.0,
        "dtype": dtype,
    }
    return Config.from_dict(values)


def config_of(module: ModuleType) -> Config:
    """The config of a module of `configs/`."""
    return Config.from_dict(module.get_config().to_dict())


def make_task(config: Config, sentences: int, source_length: int, target_length: int) -> Task:
    """Random weights by which EOS is never likely, and random sources, all of equal lengths."""
    vocabulary_size = config.data.vocabulary_size
    model = Transformer(config.model, vocabulary_size, vocabulary_size)
    params = init_params(model, jax.random.key(0))
    table = params["classifiers"]["table"].at[..., EOS, :].set(0)
    params = params | {"classifiers": params["classifiers"] | {"table": table}}
    words = np.random.default_rng(0).integers(
        _FIRST_WORD, vocabulary_size, (sentences, source_length)
    )
    words[:, -1] = EOS
    trained = TranslationModel(TrainedModel(config, model, params))
    return Task(trained, words.astype(np.int32), np.full(sentences, target_length, np.int32))


def vary_lengths(task: Task) -> Task:
    """The same task with translations of all lengths from half of theirs to theirs."""
    generator = np.random.default_rng(1)
    lengths = generator.integers(-(-task.lengths // 2), task.lengths + 1)
    return task._replace(lengths=lengths.astype(np.int32))


def encode(task: Task, batch_size: int) -> Callable[[], Any]:
    """The encoder alone, on one batch."""
    trained = task.model.trained
    encoder = jax.jit(
        lambda params, source: trained.model.apply(
            {"params": params}, source, source != 0, method="encode"
        )
    )
    return lambda: jax.block_until_ready(encoder(trained.params, task.source[:batch_size]))


def figures(task: Task, rule: Rule, result: SearchResult) -> dict[str, Any]:
    """Figures of a search, by its own counts and by the paper's formula."""
    config, tokens = task.model.trained.config, int(task.lengths.sum())
    counted = sum(
        flops.translation(
            config.model,
            config.data.vocabulary_size,
            task.source.shape[1],
            np.asarray(hypothesis.exits),
            rule,
        )
        for hypothesis in result.hypotheses
    )
    exits = sum(sum(hypothesis.exits) for hypothesis in result.hypotheses)
    return {
        "sentences": len(task.source),
        "tokens": tokens,
        "average_exit": round(exits / tokens, 3),
        "flops_per_token": counted / tokens,
        "peak_bytes": result.cost.peak_bytes,
    } | describe(result.cost.work, tokens)
