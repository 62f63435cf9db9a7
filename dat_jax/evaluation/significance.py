# SPDX-License-Identifier: Apache-2.0
"""Differences of quality between systems, and how far they may be chance, by sacreBLEU's tests."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.significance import PairedTest

from dat_jax.errors import UserError
from dat_jax.evaluation.scores import check_lengths

Test = Literal["bs", "ar"]
"""Paired bootstrap resampling, or approximate randomization."""


def paired(
    systems: Mapping[str, Sequence[str]],
    references: Sequence[str],
    tokenizer: str = "13a",
    test: Test = "bs",
) -> list[dict[str, Any]]:
    """Compares the translations of each system with those of the first, the baseline.

    Args:
        systems: the lines of each, by its name.
        references: one for each line.
        tokenizer: sacreBLEU's name of what cuts lines into words for BLEU.
        test: how p is found. The interval is found by bootstrap resampling in any case.

    Returns:
        A row for each system, with its name as `system`. For `bleu`, and likewise for `chrf`:
        `bleu`; `bleu_mean` of resampled texts, and `bleu_interval`, to either side of which 95 % of
        them lie; `bleu_difference` to the baseline, and `bleu_p`, the probability of one as large
        between systems that are equally good, both None for the baseline; and `bleu_signature`,
        which has the seed.

    Raises:
        UserError: there are fewer than two systems, no lines, or not as many as references.
    """
    if len(systems) < 2:
        raise UserError("nothing to compare: name a baseline and another system")
    for lines in systems.values():
        check_lengths(len(lines), len(references))
    known = tokenizer == "none"  # that the text is tokenised, of which sacreBLEU would warn
    metrics = {"BLEU": BLEU(tokenize=tokenizer, force=known), "chrF2": CHRF()}
    outcome: Any = PairedTest(
        [(name, list(lines)) for name, lines in systems.items()],
        metrics,
        [list(references)],
        test_type=test,
        n_ar_confidence=0,  # as many samples as of bootstrap resampling
    )()
    signatures, results = outcome
    rows: list[dict[str, Any]] = [{"system": name} for name in systems]
    for key, metric in (("bleu", "BLEU"), ("chrf", "chrF2")):
        baseline, *others = results[metric]
        differences = [None, *(other.score - baseline.score for other in others)]
        for row, result, difference in zip(rows, results[metric], differences, strict=True):
            row |= {
                key: result.score,
                f"{key}_mean": float(result.mean),
                f"{key}_interval": float(result.ci),
                f"{key}_difference": difference,
                # SacreBLEU counts larger differences alone, of which equal systems have none.
                f"{key}_p": 1.0 if difference == 0 else result.p_value,
                f"{key}_signature": str(signatures[metric]),
            }
    return rows
