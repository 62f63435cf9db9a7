# SPDX-License-Identifier: Apache-2.0
"""decode.py writes and prints n-best lists, and translations as JSON."""

import json
from pathlib import Path
from typing import Any

import pytest

import decode
from dat_jax.decoding import sizing
from dat_jax.decoding.sizing import Platform
from dat_jax.evaluation.results import ResultsWriter
from tests.scripts.calls import call, files, refuse, succeed

LINES = ["sieben", "", "acht Uhr", "acht " * 12_000, "neun", "um halb zwei"]


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text"
    path.write_text("".join(line + "\n" for line in LINES))
    return path


@pytest.fixture
def whole(trained: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Settings of a decode that cuts no source, on a machine with little memory."""
    monkeypatch.setattr("dat_jax.decoding.capacity.memory_of", lambda _: 1 << 20)
    monkeypatch.setitem(sizing.PLATFORMS, "cpu", Platform(window=2, fewest_slots=8))
    return [
        f"--workdir={trained}",
        "--config.policy=token_geometric:0.5",
        "--config.beam_size=3",
        "--config.max_source_length=0",
    ]


def objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def break_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the next decode be interrupted in its first window that does not fill up."""
    add, count = ResultsWriter.add, iter(range(100))

    def adds(self: ResultsWriter, *lines: Any) -> None:
        add(self, *lines)
        if next(count) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(ResultsWriter, "add", adds)


@pytest.mark.usefixtures("one_device")
def test_lists_hold_the_translations_and_are_resumed(
    whole: list[str], text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    usual, listed = tmp_path / "usual", tmp_path / "listed"
    given = [*whole, f"--config.input={text}"]
    succeed(decode.main, *given, f"--config.output={usual}")
    asked = [*given, f"--config.output={listed}", "--config.n_best=3", "--config.resume=true"]
    with monkeypatch.context() as patch:
        break_off(patch)
        assert call(decode.main, *asked).status == 130
    told = succeed(decode.main, *asked)
    assert f"wrote {listed}/hypotheses.txt, exits.jsonl, nbest.txt and summary.json" in told.stderr
    assert (listed / "hypotheses.txt").read_bytes() == (usual / "hypotheses.txt").read_bytes()
    exits = objects((listed / "exits.jsonl").read_text())
    lists = [line.pop("nbest") for line in exits]
    for one, other in zip(exits, objects((usual / "exits.jsonl").read_text()), strict=True):
        assert (one["tokens"], one["exits"]) == (other["tokens"], other["exits"])
        assert one["score"] == pytest.approx(other["score"], rel=1e-6)  # of another program
    assert exits == [ranked[0] for ranked in lists]
    assert [len(ranked) for ranked in lists] == [3, 1, 3, 1, 3, 3]
    written = [line.split(" ||| ") for line in (listed / "nbest.txt").read_text().splitlines()]
    assert [int(number) for number, *_ in written] == [0, 0, 0, 1, 2, 2, 2, 3, 4, 4, 4, 5, 5, 5]
    assert [float(score) for *_, score in written] == [
        one["score"] for ranked in lists for one in ranked
    ]
    firsts = {int(number): text for number, text, _ in reversed(written)}
    hypotheses = (usual / "hypotheses.txt").read_text().splitlines()
    assert [firsts[number] for number in range(len(LINES))] == hypotheses
    assert succeed(decode.main, *asked).stderr == f"{listed} is finished: nothing is left to do\n"
    refuse(
        "holds results with n_best = 3, not None", decode.main, *given, f"--config.output={listed}"
    )


def test_a_stream_is_answered_by_lists_or_objects(whole: list[str], text: Path):
    asked, lines = [*whole, "--config.input=-"], "sieben\n\nacht Uhr\n"
    plain = succeed(decode.main, *asked, text=lines).stdout.splitlines()
    listed = succeed(decode.main, *asked, "--config.n_best=2", text=lines).stdout
    read = [line.split(" ||| ") for line in listed.splitlines()]
    assert [number for number, *_ in read] == ["0", "0", "1", "2", "2"]
    assert [read[place][1] for place in (0, 2, 3)] == plain
    as_json = [*asked, "--config.format=jsonl"]
    alone = objects(succeed(decode.main, *as_json, text=lines).stdout)
    assert [line["text"] for line in alone] == plain
    assert alone[1] == {"text": "", "pieces": [], "exits": [], "score": 0.0}
    assert all(len(line["pieces"]) == len(line["exits"]) for line in alone)
    both = objects(succeed(decode.main, *as_json, "--config.n_best=2", text=lines).stdout)
    lists = [line.pop("nbest") for line in both]
    assert both == [ranked[0] for ranked in lists]
    for one, other in zip(both, alone, strict=True):
        assert one | {"score": None} == other | {"score": None}
        assert one["score"] == pytest.approx(other["score"], rel=1e-6)
    assert [one["text"] for ranked in lists for one in ranked] == [text for _, text, _ in read]
    assert [one["score"] for ranked in lists for one in ranked] == [float(s) for *_, s in read]


def test_what_cannot_be_given_is_refused_before_any_work(trained: Path, text: Path):
    before = files(trained)
    for message, given in {
        "n_best is 4 and beam_size is 3": ["--config.n_best=4", "--config.beam_size=3"],
        "n_best is -1: must be 0 or more": ["--config.n_best=-1"],
        "format is jsonl, the form of what is printed for standard input or a pipe: leave it out": [
            "--config.format=jsonl",
            f"--config.input={text}",
        ],
        "format is 'xml': must be one of text, jsonl": ["--config.format=xml"],
    }.items():
        refuse(message, decode.main, f"--workdir={trained}", *given)
    assert files(trained) == before
