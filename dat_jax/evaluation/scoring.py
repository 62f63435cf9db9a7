# SPDX-License-Identifier: Apache-2.0
"""Scores the given translations of a whole text; writes, prints and sums up as asked."""

import itertools
import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from tqdm import tqdm

from dat_jax.errors import UserError
from dat_jax.evaluation.provenance import origin
from dat_jax.evaluation.results import ResultsWriter
from dat_jax.evaluation.scorer import Pair, Scored, Scorer, Window
from dat_jax.evaluation.summary import ScoreSummary
from dat_jax.evaluation.texts import Text
from dat_jax.runtime.jax_flags import our_modes

_DIGITS = 6  # decimals of log-likelihoods in files


@our_modes()
def score(
    scorer: Scorer, text: Text, writer: ResultsWriter | None, echo: Callable[[str], None] | None
) -> ScoreSummary:
    """Scores the translations of a text window by window; returns all figures.

    Args:
        scorer: the model and its policy.
        text: the lines and their translations.
        writer: writes a line of JSON for each pair, and tells what is already done; None to write
            nothing.
        echo: prints these lines; None to print nothing.

    Raises:
        UserError: a line cannot be read, or there are not as many translations as lines.
    """
    kept = writer.progress.tally if writer and writer.progress else None
    tally = _Tally(scorer, kept)
    for window in scorer.stream(
        itertools.islice(_pairs(text), tally.sentences, None),
        total=text.total,
        arrives_within=text.arrives_within,
        done=tally.sentences,
    ):
        tally.add(window)
        for line in window.too_long:
            tqdm.write(f"warning: {line}", file=sys.stderr)
        lines = [_line(scored, tally.depths) for scored in window.lines]
        if writer:
            writer.add(lines)
            if None not in text.checksums.values() and tally.sentences != text.total:
                writer.keep(tally.state())
        if echo:
            echo("\n".join(lines))
    summary: ScoreSummary = {**tally.summary(), **text.checksums}
    if writer:
        writer.finish(summary)
    return summary


class _Tally:
    """Running sums over scored lines."""

    def __init__(self, scorer: Scorer, state: dict[str, Any] | None = None) -> None:
        """Starts empty, or from the sums of an earlier `state`."""
        config = scorer.trained.config.model
        self._scorer, self.depths = scorer, config.exit_depths
        state = state or {
            "log_prob": [0.0] * len(self.depths),
            "at_exits": 0.0,
            "histogram": [0] * (config.decoder_layers + 1),
            "sentences": 0,
            "cut": 0,
            "too_long": 0,
            "seconds": 0.0,
        }
        self._log_prob = np.array(state["log_prob"], np.float64)
        self._histogram = np.array(state["histogram"], np.int64)
        self._at_exits, self._seconds = state["at_exits"], state["seconds"]
        self.sentences, self._cut, self._too_long = (
            state[name] for name in ("sentences", "cut", "too_long")
        )

    def add(self, window: Window) -> None:
        """Adds the scores of a window."""
        for line in window.lines:
            self._log_prob += line.token_ll.sum(axis=1, dtype=np.float64)
            self._at_exits += line.at_exits(self.depths[0])
            self._histogram += np.bincount(
                np.asarray(line.exits, np.int64), minlength=len(self._histogram)
            )
        self._seconds += window.seconds
        self.sentences += len(window.lines)
        self._cut += window.cut
        self._too_long += len(window.too_long)

    def state(self) -> dict[str, Any]:
        """Returns all sums as JSON-serialisable values."""
        return {
            "log_prob": self._log_prob.tolist(),
            "at_exits": self._at_exits,
            "histogram": self._histogram.tolist(),
            "sentences": self.sentences,
            "cut": self._cut,
            "too_long": self._too_long,
            "seconds": self._seconds,
        }

    def summary(self) -> ScoreSummary:
        """Returns all figures but those of the request."""
        scorer, tokens = self._scorer, int(self._histogram.sum())
        depths = np.arange(len(self._histogram))
        log_prob = dict(zip(self.depths, self._log_prob.tolist(), strict=True))
        return {
            "log_prob": log_prob,
            "perplexity": {depth: _perplexity(sum, tokens) for depth, sum in log_prob.items()},
            "log_prob_at_exits": self._at_exits,
            "perplexity_at_exits": _perplexity(self._at_exits, tokens),
            "average_exit": float(self._histogram @ depths) / max(tokens, 1),
            "exit_histogram": {depth: int(self._histogram[depth]) for depth in self.depths},
            "tokens": tokens,
            "sentences": self.sentences,
            "sentences_cut": self._cut,
            "sentences_too_long": self._too_long,
            "seconds": self._seconds,
            **origin(scorer.trained, scorer.policy, scorer.decoding),
        }


def _pairs(text: Text) -> Iterator[Pair]:
    """Yields each line with its translation.

    Raises:
        UserError: there are more of one than of the other.
    """
    pairs = itertools.zip_longest(text.lines, text.translations or ())
    for number, (source, translation) in enumerate(pairs, 1):
        if source is None or translation is None:
            more = "translations" if source is None else "sentences"
            raise UserError(
                f"line {number}: there are more {more} than {_OTHER[more]}: give score one line "
                "for each sentence"
            )
        yield source, translation


_OTHER = {"translations": "sentences", "sentences": "translations"}


def _line(scored: Scored, depths: tuple[int, ...]) -> str:
    """Returns a line of `scores.jsonl`; values at each exit are by its depth."""
    each = [row.astype(np.float64) for row in scored.token_ll]
    by_depth = dict(zip(depths, each, strict=True))
    values = {
        "tokens": scored.pieces,
        "exits": scored.exits,
        "log_prob_at_exits": round(scored.at_exits(depths[0]), _DIGITS),
        "log_prob": {depth: round(float(row.sum()), _DIGITS) for depth, row in by_depth.items()},
        "token_ll": {depth: row.round(_DIGITS).tolist() for depth, row in by_depth.items()},
    }
    return json.dumps(values, ensure_ascii=False)


def _perplexity(log_prob: float, tokens: int) -> float:
    """Returns the perplexity of a token; infinite if it cannot be written as a number."""
    with np.errstate(over="ignore"):
        return float(np.exp(-log_prob / max(tokens, 1)))
