# SPDX-License-Identifier: Apache-2.0
"""The likeliest next tokens of hypotheses, from their states.

A whole classifier scores all V tokens. With a shortlist, only the first exit does so: it proposes
its K likeliest words, and the exits above score only these and the special tokens, normalised over
them.
"""

import dataclasses

import jax
import jax.numpy as jnp

from dat_jax.data.vocabulary import EOS
from dat_jax.decoding.compaction import Rows, on_rows
from dat_jax.decoding.settings import SearchSettings
from dat_jax.decoding.top_tokens import (
    Shortlisted,
    TopTokens,
    all_of_shortlist,
    score_shortlist,
    shortlist,
    top_of_shortlist,
    top_tokens,
)
from dat_jax.decoding.unstacked import UnstackedModel, no_values
from dat_jax.decoding.work import Work, add_run
from dat_jax.types import Array, Float, Int

Found = TopTokens | Shortlisted
"""The best next tokens so far, or those that deeper exits choose among."""


@dataclasses.dataclass(frozen=True)
class NextTokens:
    """A model's classifiers."""

    model: UnstackedModel
    settings: SearchSettings

    def nothing(self) -> Found:
        """Returns room for what is found for all rows, [R]."""
        x = jax.ShapeDtypeStruct((self.settings.rows, self.model.config.decoder_dim), jnp.float32)
        return no_values(lambda x: self._find(self.model.classify(self.model.num_layers, x)), x)

    def scores_all(self, depth: int) -> bool:
        """True if `after_block` takes a product with a whole table at this depth."""
        return depth == self.model.config.exit_depths[0] or not self.settings.shortlist

    def after_block(
        self, depth: int, x: Float[Array, "C D"], found: Found
    ) -> tuple[Float[Array, "C V"], Found]:
        """Scores all tokens, or the shortlist found by the first exit.

        Returns:
            The logits of these, and what is found by this exit.
        """
        if self.scores_all(depth):
            logits = self.model.classify(depth, x)
            by_token = logits.reshape(len(x), -1)[:, : self.model.vocabulary_size]
            return by_token, self._find(logits)
        assert isinstance(found, Shortlisted)
        logits = self.model.classify_tokens(depth, found.tokens, x)
        return logits, score_shortlist(logits, found.tokens)

    def best(self, found: Found) -> TopTokens:
        """Returns the best next tokens of what is found."""
        if isinstance(found, TopTokens):
            return found
        return top_of_shortlist(found, self._count, EOS)

    def candidates(self, found: Found) -> TopTokens:
        """Returns the tokens that a search chooses its continuations among: the best, or a whole
        shortlist, which is short enough not to be ranked for each hypothesis first."""
        return found if isinstance(found, TopTokens) else all_of_shortlist(found, EOS)

    @jax.named_scope("classifier")
    def at_exits(
        self, x: Float[Array, "R D"], exits: Int[Array, " R"], work: Work
    ) -> tuple[Found, Work]:
        """Classifies each row by the classifier of its exit; rows with exit 0 need nothing."""
        model, found = self.model, self.nothing()
        for table in range(model.num_tables):

            def classify(rows: Rows, table: int = table) -> Found:
                return self._find(model.classify_by_table(table, rows.take(exits), rows.take(x)))

            needing = (exits > 0) & (model.table_of(exits) == table)
            found, computed = on_rows(needing, self.settings.sizes, classify, found)
            work = add_run(work, model.config.decoder_layers, jnp.sum(needing), computed)
        return found, work

    def _find(self, logits: Float[Array, "C groups grouped"]) -> Found:
        if not self.settings.shortlist:
            return top_tokens(logits, self._count, EOS)
        words = self.model.vocabulary_size - EOS - 1
        return shortlist(logits, min(self.settings.shortlist, words), EOS)

    @property
    def _count(self) -> int:
        """The number of tokens to keep of each hypothesis."""
        return min(2 * self.settings.beam_size, self.model.vocabulary_size)
