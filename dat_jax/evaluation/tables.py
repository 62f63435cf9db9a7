# SPDX-License-Identifier: Apache-2.0
"""Formats results for reading: tables of scores, and translations with coloured exits."""

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

_COLUMNS = {
    "policy": ("policy", "{}"),
    "BLEU": ("bleu", "{:.1f}"),
    "default BLEU": ("bleu_default", "{:.1f}"),
    "chrF": ("chrf", "{:.1f}"),
    "average exit": ("average_exit", "{:.2f}"),
    "MFLOPs/token": ("flops_per_token", "{:.2f}"),
    "layers run/token": ("layers_executed_per_token", "{:.1f}"),
    "tokens/s": ("tokens_per_second", "{:,.0f}"),
}

_WORD_START = "\u2581"  # SentencePiece's mark of a piece that begins a word
_SUBSCRIPTS = str.maketrans("0123456789", "".join(chr(0x2080 + digit) for digit in range(10)))
_GREEN_TO_RED = (84, 120, 156, 192, 228, 222, 216, 210, 204)  # of the 256 colours of a terminal


def format_table(summaries: Sequence[Mapping[str, Any]]) -> str:
    """Returns a table with a row per summary of `dat_jax.evaluation.tally.Tally`.

    Leaves out columns that some summary lacks, such as scores without references.
    """
    columns = {
        name: column
        for name, column in _COLUMNS.items()
        if all(column[0] in summary for summary in summaries)
    }
    rows = [list(columns)]
    for summary in summaries:
        scaled = {**summary, "flops_per_token": summary["flops_per_token"] / 1e6}
        rows.append([form.format(scaled[key]) for key, form in columns.values()])
    return markdown_table(rows)


def format_scores(summary: Mapping[str, Any]) -> str:
    """Returns a table of given translations: a row per exit, and one for the policy's exits."""
    heading = ["exit", "log-probability", "perplexity"]
    rows = [(f"fixed:{depth}", summary["log_prob"][depth]) for depth in summary["log_prob"]]
    perplexities = [*summary["perplexity"].values(), summary["perplexity_at_exits"]]
    rows.append(
        (
            f"{summary['policy']} (average {summary['average_exit']:.2f})",
            summary["log_prob_at_exits"],
        )
    )
    cells = [
        [name, f"{log_prob:,.2f}", f"{perplexity:.4g}"]
        for (name, log_prob), perplexity in zip(rows, perplexities, strict=True)
    ]
    return markdown_table([heading, *cells])


def format_comparison(rows: Sequence[dict[str, Any]]) -> str:
    """Returns a table with a row per system of `dat_jax.evaluation.significance.paired`.

    Brackets hold the mean over resampled texts and the 95 % interval.
    """
    heading = ["system", "BLEU (95 %)", "difference", "p", "chrF (95 %)", "difference", "p"]
    cells = [[row["system"], *_compared(row, "bleu"), *_compared(row, "chrf")] for row in rows]
    return markdown_table([heading, *cells])


def _compared(row: dict[str, Any], key: str) -> list[str]:
    """Returns the cells of one measure; the baseline's difference and p are empty."""
    score, mean, interval = (row[name] for name in (key, f"{key}_mean", f"{key}_interval"))
    difference, p = row[f"{key}_difference"], row[f"{key}_p"]
    compared = ["", ""] if p is None else [f"{difference:+.2f}", f"{p:.4f}"]
    return [f"{score:.1f} ({mean:.1f} ± {interval:.1f})", *compared]


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table whose first row is the heading; all columns but the first align
    right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "| "
        + " | ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        + " |"
        for row in rows
    ]
    under_heading = "|" + "|".join(
        "-" * (width + 1) + (":" if column else "-") for column, width in enumerate(widths)
    )
    return "\n".join([lines[0], under_heading + "|", *lines[1:]])


def format_exits(
    pieces: Sequence[str], exits: Sequence[int], num_layers: int, *, colour: bool
) -> str:
    """Returns a translation, each piece followed by its exit depth as a subscript.

    With `colour`, for terminals, pieces are coloured from green at depth 1 to red at `num_layers`.
    """
    shown = []
    for piece, depth in zip(pieces, exits, strict=True):
        space, text = (" ", piece[1:]) if piece.startswith(_WORD_START) else ("", piece)
        number = str(depth).translate(_SUBSCRIPTS)
        if colour:
            scale = (depth - 1) / max(num_layers - 1, 1)
            code = _GREEN_TO_RED[round(scale * (len(_GREEN_TO_RED) - 1))]
            text = f"\x1b[30;48;5;{code}m{text}{number}\x1b[0m"
        else:
            text += number
        shown.append(space + text)
    return "".join(shown).strip()


def wants_colour() -> bool:
    """Returns whether standard output is a terminal and NO_COLOR is not set."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def describe_cut(sentences: int, max_length: int) -> str:
    """Returns the warning that sources were cut."""
    return f"{sentences} sentences are longer than {max_length} pieces and were cut there"
