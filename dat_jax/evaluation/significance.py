# SPDX-License-Identifier: Apache-2.0
"""Significance of quality differences between systems, by sacreBLEU's paired tests."""

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
        systems: the translations of each system, by its name.
        references: one per line.
        tokenizer: sacreBLEU's name of BLEU's tokenizer.
        test: the test for p. The interval always comes from bootstrap resampling.

    Returns:
        A row per system, with its name as `system`. For `bleu`, and likewise for `chrf`: the score
        `bleu`; `bleu_mean` over resampled texts, and `bleu_interval`, half the width of the
        interval around it that holds 95 % of them; `bleu_difference` to the baseline, and `bleu_p`,
        the probability of a difference as large between equally good systems, both None for the
        baseline; and `bleu_signature`, which includes the seed.

    Raises:
        UserError: there are fewer than two systems, no lines, or not as many as references.
    """
    if len(systems) < 2:
        raise UserError("nothing to compare: give a baseline and at least one other system")
    for lines in systems.values():
        check_lengths(len(lines), len(references))
    tokenised = tokenizer == "none"  # silences sacreBLEU's warning about tokenised text
    metrics = {"BLEU": BLEU(tokenize=tokenizer, force=tokenised), "chrF2": CHRF()}
    outcome: Any = PairedTest(
        [(name, list(lines)) for name, lines in systems.items()],
        metrics,
        [list(references)],
        test_type=test,
        n_ar_confidence=0,  # the same number of samples as bootstrap resampling
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
                # SacreBLEU counts strictly larger differences; equal systems have none.
                f"{key}_p": 1.0 if difference == 0 else result.p_value,
                f"{key}_signature": str(signatures[metric]),
            }
    return rows
