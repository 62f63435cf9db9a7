# SPDX-License-Identifier: Apache-2.0
"""Compares decodes of one text: differences of BLEU and chrF, and their significance.

    python -m benchmarks.compare BASELINE FOLDER [FOLDER ...] [--test=bs|ar] [--output=FILE.jsonl]

Each folder holds the output of `decode.py` for the same text and references. Prints BLEU and chrF
with 95 % intervals, and for each folder after the first the difference from the first, with the p
of sacreBLEU's paired bootstrap (bs) or approximate randomization (ar). `--output` appends a line of
JSON per folder.
"""

import re
import sys
from collections.abc import Mapping, Sequence
from typing import get_args

from absl import flags

from benchmarks.results import Lines
from dat_jax.cli.command_line import define_arguments, define_path, run
from dat_jax.errors import UserError
from dat_jax.evaluation.results import Results, read_results
from dat_jax.evaluation.significance import Test, paired
from dat_jax.evaluation.tables import format_comparison
from dat_jax.evaluation.texts import read_references
from dat_jax.storage.paths import as_path, destination

_SUITE = "compare"
_TEXTS = {"text_sha256": "text", "references_sha256": "references"}
_KEPT = ("policy", "beam_size", "checkpoint_step", "averaged_checkpoints", "sentences")
_KEPT += ("seed", "config_sha256", "commit", "device", *_TEXTS)


def main(argv: Sequence[str]) -> int:
    """Compares as the command line says; returns the exit status."""
    options = flags.FlagValues()
    define_arguments(options, "Folders of results, the baseline first; the flag may be left out.")
    flags.DEFINE_enum("test", "bs", get_args(Test), "The paired test.", options)
    define_path(options, "output", "A file of JSON lines to append to.", required=False)
    return run(argv, options, lambda: _main(options))


def _main(options: flags.FlagValues) -> None:
    """Reads and checks everything, compares, prints the table and appends the lines."""
    names = options.arguments
    if len({destination(name) for name in names}) < max(2, len(names)):
        raise UserError(
            f"given are {' '.join(names) or 'no folders'}: name two or more folders of results, "
            "the baseline first and none twice, as runs/W/decode/A runs/W/decode/B"
        )
    lines = Lines(options.output, _SUITE, ()) if options.output else None
    results = {name: read_results(as_path(name)) for name in names}
    _check_same(results)
    summary = results[names[0]].summary
    references = read_references(as_path(names[0]), summary)
    tokenizer = re.findall(r"\btok:([^|]+)", summary["bleu_signature"])[0]
    hypotheses = {name: result.hypotheses for name, result in results.items()}
    rows = paired(hypotheses, references, tokenizer, options.test)
    print(format_comparison(rows))
    for key in ("bleu_signature", "chrf_signature"):
        print(rows[0][key])
    labels = {"benchmark": _SUITE, "suite": _SUITE, "test": options.test, "baseline": names[0]}
    if lines is not None:
        for row in rows:
            kept = {key: results[row["system"]].summary[key] for key in _KEPT}
            lines.add(labels | row | kept)


def _check_same(results: Mapping[str, Results]) -> None:
    """Refuses results that are not of one text and one file of references."""
    first, baseline = next(iter(results.items()))
    for key, what in _TEXTS.items():
        for name, result in results.items():
            if not result.summary.get(key):
                raise UserError(
                    f"{name} does not name its {what}: decode a split again, or a file with "
                    "--config.reference"
                )
            if result.summary[key] != baseline.summary[key]:
                raise UserError(
                    f"{name} is of another {what} than {first}: compare decodes of one text"
                )


if __name__ == "__main__":
    sys.exit(main(sys.argv))
