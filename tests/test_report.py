# SPDX-License-Identifier: Apache-2.0
"""The table of decoding runs, as it reads."""

from dat_jax.report import format_table

SHALLOW = {
    "policy": "fixed:1",
    "bleu": 9.26,
    "chrf": 30.0,
    "average_exit": 1.0,
    "flops_per_token": 1_234_567.0,
    "layers_executed_per_token": 1.04,
    "tokens_per_second": 12_345.6,
    "device": "cpu",
}
DEEP = SHALLOW | {"policy": "fixed:12", "bleu": 34.77, "average_exit": 12.0}


def test_the_table_is_aligned_markdown():
    assert format_table([SHALLOW, DEEP]).splitlines() == [
        "| policy   | BLEU | chrF | average exit | MFLOPs/token | layers run/token | tokens/s |",
        "|----------|-----:|-----:|-------------:|-------------:|-----------------:|---------:|",
        "| fixed:1  |  9.3 | 30.0 |         1.00 |         1.23 |              1.0 |   12,346 |",
        "| fixed:12 | 34.8 | 30.0 |        12.00 |         1.23 |              1.0 |   12,346 |",
    ]


def test_without_runs_there_is_a_heading():
    assert len(format_table([]).splitlines()) == 2
