# SPDX-License-Identifier: Apache-2.0
"""decode.py scores given translations at every exit."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

import decode
from dat_jax.decoding import sizing
from dat_jax.decoding.sizing import Platform
from dat_jax.errors import UserError
from dat_jax.evaluation.results import ResultsWriter
from dat_jax.evaluation.scoring import _pairs
from dat_jax.evaluation.summary import ScoreSummary
from dat_jax.evaluation.texts import Text
from tests.scripts.calls import call, files, refuse, succeed

LINES = ["sieben", "", "acht Uhr", "neun Uhr", "um halb zwei", "elf"]
GIVEN = ["seven", "", "eight o'clock", "", "half past one", "eleven and a half"]
DEPTHS = ("1", "2")


def objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def texts(tmp_path: Path) -> list[str]:
    """The keys that name both texts."""
    for name, lines in {"source": LINES, "given": GIVEN}.items():
        (tmp_path / name).write_text("".join(line + "\n" for line in lines))
    return [f"--config.input={tmp_path / 'source'}", f"--config.score={tmp_path / 'given'}"]


def test_scores_are_written_and_summed_up(trained: Path, tmp_path: Path, texts: list[str]):
    folder = tmp_path / "found"
    asked = [f"--workdir={trained}", *texts, "--config.policy=uniform:3"]
    told = succeed(decode.main, *asked, f"--config.output={folder}")
    assert {path.name for path in folder.iterdir()} == {"scores.jsonl", "summary.json"}
    assert told.stderr == f"wrote {folder}/scores.jsonl and summary.json\n"
    lines = objects((folder / "scores.jsonl").read_text())
    assert [len(line["tokens"]) > 0 for line in lines] == [True, False, True, True, True, True]
    assert lines[3]["tokens"] == ["</s>"]
    for line in lines:
        assert len(line["exits"]) == len(line["tokens"])
        for depth in DEPTHS:
            assert len(line["token_ll"][depth]) == len(line["tokens"])
            assert line["log_prob"][depth] == pytest.approx(sum(line["token_ll"][depth]), abs=1e-4)
        chosen = [line["token_ll"][str(exit)][t] for t, exit in enumerate(line["exits"])]
        assert line["log_prob_at_exits"] == pytest.approx(sum(chosen), abs=1e-4)
    summary = json.loads((folder / "summary.json").read_text())
    assert ScoreSummary.__annotations__.keys() - summary.keys() == {"references_sha256"}
    assert summary.keys() <= ScoreSummary.__annotations__.keys()
    assert (summary["sentences"], summary["tokens"]) == (6, sum(len(x["tokens"]) for x in lines))
    exits = [exit for line in lines for exit in line["exits"]]
    assert set(exits) == {1, 2}
    assert summary["exit_histogram"] == {depth: exits.count(int(depth)) for depth in DEPTHS}
    for depth in DEPTHS:
        total = sum(line["log_prob"][depth] for line in lines)
        assert summary["log_prob"][depth] == pytest.approx(total, abs=1e-4)
        expected = math.exp(-total / summary["tokens"])
        assert summary["perplexity"][depth] == pytest.approx(expected, rel=1e-4)
    rows = [line.split(" | ")[0].strip("| ") for line in told.stdout.splitlines()]
    average = f"uniform:3 (average {summary['average_exit']:.2f})"
    assert [row.strip() for row in rows if not row.startswith("---")] == [
        "exit",
        "fixed:1",
        "fixed:2",
        average,
    ]
    piped = [*asked[:1], texts[1], asked[-1], "--config.input=-"]
    source = (tmp_path / "source").read_text()
    printed = succeed(decode.main, *piped, text=source)
    assert objects(printed.stdout) == lines
    assert "fixed:2" in printed.stderr
    other = [*asked[:1], texts[0], asked[-1], "--config.score=-"]
    assert (
        succeed(decode.main, *other, text=(tmp_path / "given").read_text()).stdout == printed.stdout
    )


@pytest.mark.parametrize("policy", ["fixed:1", "fixed:2"])
def test_own_translations_have_the_scores_of_the_search(
    trained: Path, tmp_path: Path, policy: str, texts: list[str]
):
    """Where text is encoded as the pieces that the search wrote."""
    own, found = tmp_path / "own", tmp_path / "found"
    asked = [f"--workdir={trained}", f"--config.policy={policy}", "--config.beam_size=2"]
    searched = [*asked, texts[0], "--config.n_best=2", "--config.length_penalty=0"]
    succeed(decode.main, *searched, f"--config.output={own}")
    ranked = [
        (line, one)
        for line, exits in zip(LINES, objects((own / "exits.jsonl").read_text()), strict=True)
        for one in exits["nbest"]
    ]
    texts_of = [line.split(" ||| ")[1] for line in (own / "nbest.txt").read_text().splitlines()]
    (tmp_path / "sources").write_text("".join(f"{line}\n" for line, _ in ranked))
    (tmp_path / "ranked").write_text("".join(f"{text}\n" for text in texts_of))
    given = [f"--config.input={tmp_path / 'sources'}", f"--config.score={tmp_path / 'ranked'}"]
    succeed(decode.main, *asked, *given, f"--config.output={found}")
    same = 0
    for (_, one), line in zip(ranked, objects((found / "scores.jsonl").read_text()), strict=True):
        if one["tokens"] == line["tokens"]:
            same += 1
            assert line["exits"] == one["exits"]
            assert line["log_prob"][policy[-1]] == pytest.approx(one["score"], rel=1e-4, abs=1e-4)
            assert line["log_prob_at_exits"] == line["log_prob"][policy[-1]]
    assert same


@pytest.mark.usefixtures("one_device")
def test_windows_are_kept_and_resumed(
    trained: Path, tmp_path: Path, texts: list[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sizing.PLATFORMS, "cpu", Platform(window=2, fewest_slots=8))
    asked = [f"--workdir={trained}", *texts, "--config.policy=uniform:1"]
    succeed(decode.main, *asked, f"--config.output={tmp_path / 'whole'}")
    resume = [*asked, f"--config.output={tmp_path / 'parts'}", "--config.resume=true"]
    add, count = ResultsWriter.add, iter(range(100))

    def adds(self: ResultsWriter, *lines: Any) -> None:
        add(self, *lines)
        if next(count) == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ResultsWriter, "add", adds)
        assert call(decode.main, *resume).status == 130
    succeed(decode.main, *resume)
    results = []
    for name in ("whole", "parts"):
        summary = json.loads((tmp_path / name / "summary.json").read_text())
        kept = {key: summary[key] for key in summary if key not in ("seconds", "request")}
        results.append(((tmp_path / name / "scores.jsonl").read_text(), kept))
    assert results[0] == results[1]
    assert "nothing is left to do" in succeed(decode.main, *resume).stderr


def test_a_split_is_scored_and_long_lines_are_left_out(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("dat_jax.evaluation.forced.memory_of", lambda _: 1 << 24)
    run = shutil.copytree(trained, tmp_path / "run")
    given = (run / "data" / "test.tgt").read_text().splitlines()
    given[3] = "eight " * 9_000
    (tmp_path / "given").write_text("".join(f"{line}\n" for line in given))
    score = f"--config.score={tmp_path / 'given'}"
    told = succeed(decode.main, f"--workdir={run}", score, "--config.policy=fixed:1")
    assert told.stderr.count("warning: line ") == 1
    assert "warning: line 4 has " in told.stderr
    assert "pieces and is not scored, for " in told.stderr
    (folder,) = (run / "decode").glob("test-fixed-1-*score=given-*")
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["sentences"], summary["sentences_too_long"]) == (20, 1)


def test_what_cannot_be_scored_is_refused_before_any_work(
    trained: Path, tmp_path: Path, texts: list[str]
):
    before, asked = files(trained), [f"--workdir={trained}", *texts]
    (tmp_path / "short").write_text("one\n")
    for message, given in {
        "short with 1 lines for 6 sentences: give one translation for each": [
            f"--config.score={tmp_path / 'short'}"
        ],
        "reference and score are set": [f"--config.reference={tmp_path / 'given'}"],
        "n_best and score are set": ["--config.n_best=2"],
        "source, the same file as input: give the file of translations": [
            f"--config.score={tmp_path / 'source'}"
        ],
        "No such file or directory": [f"--config.score={tmp_path / 'none'}"],
    }.items():
        refuse(message, decode.main, *asked, *given)
    assert files(trained) == before
    piped = call(decode.main, *asked, "--config.input=-", text="acht\n" * 7)
    assert "given with 6 lines for 7 sentences: give one translation for each" in piped.stderr


@pytest.mark.parametrize(
    ("lines", "given", "message"),
    [
        (["a", "b"], ["c"], "line 2: there are more sentences than translations"),
        (["a"], ["c", "d"], "line 2: there are more translations than sentences"),
    ],
)
def test_lines_that_do_not_come_in_pairs_are_noticed_as_they_come(
    lines: list[str], given: list[str], message: str
):
    pairs = _pairs(Text(iter(lines), None, None, None, translations=iter(given)))
    assert next(pairs) == ("a", "c")
    with pytest.raises(UserError, match=message):
        next(pairs)
