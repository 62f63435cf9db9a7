# SPDX-License-Identifier: Apache-2.0
"""Array types and the letters that name their axes, in annotations and in einsum strings alike.

| axis | meaning |
|---|---|
| N | decoder blocks; depth n is index n - 1 |
| L | depths below the last, N - 1: those with a halting unit or a threshold |
| X | exits: the depths that have a classifier, N of them or only the last |
| B | rows of a batch, sentences |
| J | hypotheses of a sentence in beam search |
| S | source positions |
| T | target positions |
| P | positions that self-attention can look at |
| D | decoder width |
| E | encoder width |
| M | width of any one sub-layer's input |
| H | attention heads |
| K | width of one head |
| V | pieces in the target vocabulary |
| U | what an exit head puts out: N logits, or L |
"""

from typing import Any

from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

Params = dict[str, Any]
"""A tree of parameters as Flax makes it; the N decoder blocks are stacked on a leading axis."""

__all__ = ["Array", "Bool", "Float", "Int", "PRNGKeyArray", "Params"]
