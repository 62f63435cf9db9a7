# SPDX-License-Identifier: Apache-2.0
"""Array types and the names of axes, used in annotations, comments and, in lower case, einsum.

| axis | meaning |
|---|---|
| N | decoder blocks; depth n is index n - 1 |
| L | depths below the last, N - 1: those with a halting unit or a threshold |
| X | exits: the depths that have a classifier, all N or only the last |
| B | rows of a batch: sentences or sentence pairs |
| J | hypotheses of a sentence in beam search |
| S | source positions |
| T | target positions |
| P | positions, or slots of a cache, that attention or an oracle's smoothing reads |
| D | decoder width |
| E | encoder width |
| M | width of any one layer's input, D or E |
| H | attention heads |
| K | width of one head |
| V | pieces in the target vocabulary |
| U | logits of an exit head: N, L, or 1 that all depths share |
| Q | places in the queue of sentences that wait to be decoded |
| G | slots for sentences in work |
| A | slots that are looked up together, such as those of arriving sentences |
| R | rows: hypotheses in work, G J |
| C | rows that are gathered to run together |
| W | numbers that a rule remembers of a token |

`*B` stands for any number of leading axes; `#B` may also be 1. In attention, which the encoder uses
too, T are the query positions and D is their width, on either side.

Words name the axes of a few arrays, most of them in only one module.

| axis | meaning |
|---|---|
| top | next tokens, or continuations, kept for a hypothesis, best first |
| shortlist | tokens that an exit proposes to those above it |
| groups | groups of tokens of the target vocabulary |
| grouped | tokens of a group |
| history | entries of a hypothesis' history, three per position: 3T |
| devices | devices that decode together |
| tokens | tokens of a whole data set, padding left out |
| vectors | vectors of thresholds |
| ids | token ids of a file, one sentence after another |
| sentences | sentences of a file, sources and targets |
| boundaries | starts of the sentences of a file, and the end of the last |
| length | the width of a batch's shape |
| _ | any number |
"""

from typing import Any

from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Shaped

Params = dict[str, Any]
"""A parameter tree of Flax; the N decoder blocks are stacked on a leading axis."""

__all__ = ["Array", "Bool", "Float", "Int", "PRNGKeyArray", "Params", "Shaped"]
