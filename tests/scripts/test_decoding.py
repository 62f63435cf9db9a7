# SPDX-License-Identifier: Apache-2.0
"""decode.py translates a split, a file or standard input."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

import dat_jax
import decode
from benchmarks import compare
from dat_jax.checkpoints.read import read_step
from dat_jax.evaluation.summary import Summary
from dat_jax.evaluation.texts import read_references
from dat_jax.runs.workdir import Run
from tests.scripts.calls import refuse, succeed


def test_decoding_a_split_writes_its_results(trained: Path, tmp_path: Path):
    succeed(
        decode.main,
        f"--workdir={trained}",
        "--config.policy=fixed:1",
        "--config.beam_size=2",
        f"--config.output={tmp_path}",
    )
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["policy"] == "fixed:1"
    assert summary["beam_size"] == 2
    assert summary["average_exit"] == 1
    assert summary["sentences"] == 20
    fields = Summary.__annotations__.keys()
    left_out = {"bleu_default", "bleu_default_signature", "translations_sha256"}
    assert fields - summary.keys() == left_out
    assert summary.keys() <= fields
    assert summary["batch_size"] == 0
    assert summary["in_work"] == 8 * 16
    assert summary["peak_bytes"] > 0
    assert summary["ticks"] == sum(summary["ticks_per_stage"]) > 0
    blocks_and_classifier = 3
    assert len(summary["ticks_per_stage"]) == blocks_and_classifier
    assert len(summary["rows_per_stage"]) == blocks_and_classifier
    assert summary["rows_per_stage"][0] == summary["rows_per_stage"][-1] >= summary["tokens"]
    assert summary["rows_per_stage"][1] == 0
    assert 0 < summary["occupancy"] <= 1
    assert summary["device"].startswith("8 x ")
    assert 1 <= summary["busiest_device"] < 8
    assert read_references(tmp_path, summary) == Run(trained).text("test")[1]
    hypotheses = (tmp_path / "hypotheses.txt").read_text().splitlines()
    exits = [json.loads(line) for line in (tmp_path / "exits.jsonl").read_text().splitlines()]
    assert len(hypotheses) == len(exits) == 20
    assert all(set(line["exits"]) == {1} for line in exits)
    assert all(len(line["exits"]) == len(line["tokens"]) for line in exits)
    assert summary["tokens"] == sum(len(line["exits"]) for line in exits)


def test_the_requested_number_of_checkpoints_is_averaged(trained: Path, tmp_path: Path):
    text = tmp_path / "text"
    text.write_text("acht Uhr\n")
    scores = list[float]()
    for number in (1, 2):
        folder = tmp_path / str(number)
        given = [f"--workdir={trained}", f"--config.input={text}", f"--config.output={folder}"]
        succeed(decode.main, *given, f"--config.average_checkpoints={number}")
        summary = json.loads((folder / "summary.json").read_text())
        assert (summary["averaged_checkpoints"], summary["checkpoint_step"]) == (number, 4)
        scores.append(json.loads((folder / "exits.jsonl").read_text())["score"])
    assert scores[0] != scores[1]


def test_a_chosen_checkpoint_is_the_one_that_is_loaded_by_hand(trained: Path, tmp_path: Path):
    """Validations were at step 4 alone, so that is the best, whatever is averaged."""
    run = Run(trained)
    like = run.load(1).params
    sha256 = {
        name: dataclasses.replace(run.load(1), params=read_step(run.checkpoints, like, step).params)
        for name, step in {"2": 2, "4": 4, "best": 4, "last": 4}.items()
    }
    text = tmp_path / "text"
    text.write_text("acht Uhr\n")
    given = [f"--workdir={trained}", f"--config.input={text}", "--config.beam_size=1"]
    for name, by_hand in sha256.items():
        folder = tmp_path / name
        chosen = [f"--config.checkpoint={name}", f"--config.output={folder}"]
        succeed(decode.main, *given, *chosen)
        summary = json.loads((folder / "summary.json").read_text())
        assert summary["contents"]["model"] == by_hand.sha256
        step = 2 if name == "2" else 4
        assert (summary["checkpoint_step"], summary["averaged_checkpoints"]) == (step, 1)
        assert summary["request"]["checkpoint"] == name
        assert "average_checkpoints" not in summary["request"]
        loaded = dat_jax.load(trained, checkpoint=int(name) if name.isdecimal() else name)
        assert loaded.trained.sha256 == by_hand.sha256
    assert sha256["2"].sha256 != sha256["4"].sha256
    refuse(
        "holds results with checkpoint = 'last', not 'best'",
        decode.main,
        *given,
        *chosen[1:],
        "--config.checkpoint=best",
    )


def test_a_file_without_a_reference_is_translated_without_scores(trained: Path, tmp_path: Path):
    text = tmp_path / "text"
    text.write_text("acht Uhr\n\nsieben\n")
    result = succeed(
        decode.main,
        f"--workdir={trained}",
        f"--config.input={text}",
        f"--config.output={tmp_path / 'found'}",
    )
    assert "average exit" in result.stdout
    assert "BLEU" not in result.stdout
    summary = json.loads((tmp_path / "found" / "summary.json").read_text())
    assert summary["sentences"] == 3
    assert "bleu" not in summary


def test_the_number_of_sentences_in_work_changes_no_translation(trained: Path, tmp_path: Path):
    settings = [f"--workdir={trained}", "--config.policy=token_geometric:0.5"]
    settings += ["--config.beam_size=2"]
    text = tmp_path / "text"
    text.write_text("acht Uhr\nsieben\n\num halb zwei\n" * 12)
    reference = shutil.copy(text, tmp_path / "reference")
    settings += [f"--config.input={text}", f"--config.reference={reference}"]
    results = {}
    for in_work in (1, 3):
        folder = tmp_path / str(in_work)
        chosen = [f"--config.batch_size={in_work}", f"--config.output={folder}"]
        succeed(decode.main, *settings, *chosen)
        summary = json.loads((folder / "summary.json").read_text())
        assert summary["batch_size"] == in_work
        lines = map(json.loads, (folder / "exits.jsonl").read_text().splitlines())
        results[in_work] = (
            (folder / "hypotheses.txt").read_bytes(),
            [(line["tokens"], line["exits"]) for line in lines],
            [summary[name] for name in ("bleu", "tokens", "average_exit", "flops_per_token")],
        )
    assert results[1] == results[3]
    compared = succeed(compare.main, *(tmp_path / str(in_work) for in_work in results)).stdout
    assert compared.splitlines()[3].count("| 1.0000 |") == 2


def test_decoding_standard_input_prints_one_line_per_line(trained: Path):
    result = succeed(
        decode.main,
        f"--workdir={trained}",
        "--config.input=-",
        text="am dreiundzwanzigsten November\n\nsieben\n",
    )
    lines = result.stdout.splitlines()
    assert len(lines) == 3
    assert lines[1] == ""
    assert not (trained / "decode").exists()


def test_long_lines_are_cut_with_a_warning(trained: Path):
    result = succeed(decode.main, f"--workdir={trained}", "--config.input=-", text="acht " * 200)
    assert "1 sentences are longer than 16 pieces and were cut there" in result.stderr


def test_a_line_that_does_not_fit_is_left_blank_with_a_warning(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("dat_jax.decoding.capacity.memory_of", lambda _: 1 << 20)
    whole = [f"--workdir={trained}", "--config.max_source_length=0"]
    lines = ["sieben", "acht " * 12_000, "neun"]
    text = tmp_path / "text"
    text.write_text("\n".join([*lines, ""]))
    piped = succeed(decode.main, *whole, "--config.input=-", text=text.read_text())
    kept = succeed(
        decode.main, *whole, f"--config.input={text}", f"--config.output={tmp_path / 'found'}"
    )
    for result in (piped, kept):
        assert result.stderr.count("warning: ") == 1
        assert "warning: line 2 has 24,001 pieces and is left blank, for " in result.stderr
    hypotheses = (tmp_path / "found" / "hypotheses.txt").read_text()
    assert hypotheses == piped.stdout
    assert [bool(line) for line in hypotheses.splitlines()] == [True, False, True]
    summary = json.loads((tmp_path / "found" / "summary.json").read_text())
    assert (summary["sentences"], summary["sentences_too_long"]) == (3, 1)


def test_a_tuned_policy_warns_if_decoding_settings_differ_from_its_own(
    trained: Path, tmp_path: Path
):
    policy = "--config.policy=tuned:AE<=2"
    succeed(decode.main, f"--workdir={trained}", policy, f"--config.output={tmp_path}")
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["policy"] == "tuned:AE<=2"
    assert len(summary["thresholds"]) == 1
    piped = [f"--workdir={trained}", policy, "--config.input=-"]
    assert "was tuned at" not in succeed(decode.main, *piped, text="\u200b\n").stderr
    changed = succeed(decode.main, *piped, "--config.length_penalty=0.5", text="\u200b\n")
    assert changed.stdout == "\n"
    assert "warning: tuned:AE<=2 was tuned at length_penalty 1.0 (now 0.5)" in changed.stderr
