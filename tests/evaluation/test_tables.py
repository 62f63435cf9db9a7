# SPDX-License-Identifier: Apache-2.0
"""The exact text of tables and of translations with exits."""

from dat_jax.evaluation.tables import format_comparison, format_exits, format_table, wants_colour

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


def test_default_bleu_has_a_column_next_to_another_bleu():
    rows = format_table([SHALLOW | {"bleu_default": 8.5}, DEEP | {"bleu_default": 33.96}])
    cells = [[cell.strip() for cell in row.split("|")[1:5]] for row in rows.splitlines()]
    assert cells[0] == ["policy", "BLEU", "default BLEU", "chrF"]
    assert cells[2:] == [["fixed:1", "9.3", "8.5", "30.0"], ["fixed:12", "34.8", "34.0", "30.0"]]


def test_a_comparison_shows_scores_intervals_and_differences():
    baseline = {"system": "a"}
    for key in ("bleu", "chrf"):
        baseline |= {key: 34.72, f"{key}_mean": 34.7, f"{key}_interval": 0.56}
        baseline |= {f"{key}_difference": None, f"{key}_p": None}
    other = {"system": "b", "bleu_difference": -0.304, "bleu_p": 0.00011}
    other |= {"chrf_difference": 0.0, "chrf_p": 1.0}
    rows = format_comparison([baseline, baseline | other]).splitlines()
    cells = [[cell.strip() for cell in row.split("|")[1:-1]] for row in rows]
    score = "34.7 (34.7 ± 0.6)"
    measures = ["BLEU (95 %)", "difference", "p", "chrF (95 %)", "difference", "p"]
    assert cells[0] == ["system", *measures]
    assert cells[2] == ["a", score, "", "", score, "", ""]
    assert cells[3] == ["b", score, "-0.30", "0.0001", score, "+0.00", "1.0000"]


def test_an_empty_table_has_a_header():
    assert len(format_table([]).splitlines()) == 2


def test_exits_are_subscripts_after_their_pieces():
    pieces, exits = ["\u2581twen", "ty", "\u2581one", "</s>"], [3, 1, 12, 1]
    assert format_exits(pieces, exits, 12, colour=False) == "twen₃ty₁ one₁₂</s>₁"


def test_colours_go_from_green_to_red():
    line = format_exits(["\u2581a", "\u2581b", "\u2581c"], [1, 2, 3], 3, colour=True)
    words = line.split(" ")
    assert words[0] == "\x1b[30;48;5;84ma₁\x1b[0m"
    assert words[1] == "\x1b[30;48;5;228mb₂\x1b[0m"
    assert words[2] == "\x1b[30;48;5;204mc₃\x1b[0m"


def test_colour_needs_a_terminal_and_no_no_color(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr("sys.stdout.isatty", lambda: False)
    assert not wants_colour()
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert wants_colour()
    monkeypatch.setenv("NO_COLOR", "1")
    assert not wants_colour()
