# SPDX-License-Identifier: Apache-2.0
"""`benchmarks.compare` compares decodes of one text, and refuses others."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks import compare
from benchmarks.report import pages as report
from dat_jax.evaluation.texts import Text
from tests.scripts.calls import refuse, succeed

COUNTS = ("one", "two", "three", "four", "five", "six", "seven", "eight")
REFERENCES = [f"{count} green bottles hang on the wall at {count} Elm Road" for count in COUNTS] * 3
WORSE = [line.replace("green bottles", "bottles green").replace("at", "by") for line in REFERENCES]
SUMMARY = dict.fromkeys(compare._KEPT, 1) | {"bleu_signature": "nrefs:1|tok:13a|version:2"}


def results(
    folder: Path,
    hypotheses: Sequence[str],
    references: Sequence[str] = REFERENCES,
    text: str = "abc",
    **request: str,
) -> Path:
    """Makes a folder like those of `decode.py`, for a file whose SHA-256 is `text`."""
    folder.mkdir()
    if not request:
        reference = folder.parent / f"{folder.name}.references"
        reference.write_text("".join(f"{line}\n" for line in references))
        request = {"split": "", "reference": str(reference)}
    of = Text(hypotheses, len(hypotheses), text, list(references)).checksums
    summary: dict[str, Any] = SUMMARY | of | {"sentences": len(hypotheses), "request": request}
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "hypotheses.txt").write_text("".join(f"{line}\n" for line in hypotheses))
    return folder


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Makes the baseline, an equal system and a better one."""
    named = {"base": WORSE, "equal": WORSE, "better": REFERENCES}
    return [results(tmp_path / name, lines) for name, lines in named.items()]


@pytest.mark.parametrize("test", ["bs", "ar"])
def test_the_table_and_the_lines_hold_differences(folders: list[Path], tmp_path: Path, test: str):
    output = tmp_path / "lines.jsonl"
    for repetition in (1, 2):
        printed = succeed(compare.main, *folders, f"--test={test}", f"--output={output}").stdout
        lines = [json.loads(line) for line in output.read_text().splitlines()]
        assert len(lines) == 3 * repetition
    *table, bleu, chrf = printed.splitlines()
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in table]
    assert [row[0] for row in rows[2:]] == list(map(str, folders))
    assert rows[2][2:4] == ["", ""]
    assert rows[3][2:4] == ["+0.00", "1.0000"]
    assert float(rows[4][3]) < 0.01
    assert rows[4][1] == "100.0 (100.0 ± 0.0)"
    baseline, equal, better = lines[:3]
    assert (baseline["bleu_p"], equal["bleu_p"]) == (None, 1)
    assert better["bleu_difference"] == pytest.approx(100 - baseline["bleu"])
    assert (baseline["bleu_signature"], baseline["chrf_signature"]) == (bleu, chrf)
    assert f"{test}:" in bleu
    assert report.table(f"{output}") == "\n".join([*table, *table[2:]])
    for line, folder in zip(lines, folders * 2, strict=True):
        assert (line["suite"], line["test"], line["system"]) == ("compare", test, str(folder))
        assert line["benchmark"] == "compare"
        assert line["baseline"] == str(folders[0])
        assert line["references_sha256"] and "config_sha256" in line and "commit" in line


def test_options_may_come_anywhere(folders: list[Path]):
    plain = succeed(compare.main, *folders).stdout
    assert succeed(compare.main, folders[0], "--test", "bs", *folders[1:]).stdout == plain
    assert succeed(compare.main, "--test=ar", *folders).stdout != plain


def test_incomparable_decodes_are_refused_in_one_line(folders: list[Path], tmp_path: Path):
    base, equal, better = folders

    def refused(message: str, *given: str | Path) -> None:
        refuse(message, compare.main, *given, f"--output={tmp_path / 'lines.jsonl'}")
        assert not (tmp_path / "lines.jsonl").exists()

    refused(f"given are {base}: name two or more folders of results", base)
    refused("given are no folders: name two or more folders of results, the baseline first")
    refused("name two or more folders of results, the baseline first and", base, equal, f"{base}/")
    refused("nowhere holds no finished results: run decode.py", base, tmp_path / "nowhere")
    other_text = results(tmp_path / "text", REFERENCES, text="abd")
    refused("text is of another text than", base, other_text)
    other_references = results(tmp_path / "references", WORSE, WORSE)
    refused("references is of another references than", base, other_references)
    refused("--test=t: must be one of bs, ar", base, better, "--test=t")

    (tmp_path / "equal.references").write_text("others\n")
    refused("equal.references no longer holds the references of", equal, base)
    (tmp_path / "equal.references").unlink()
    refused(f"equal.references, the references of {equal}, is missing", equal, base)
    (better / "hypotheses.txt").write_text("\n".join(REFERENCES[1:]) + "\n")
    refused("hypotheses.txt has 23 lines, but summary.json says 24: decode again", base, better)
    (better / "hypotheses.txt").unlink()
    refused("better holds damaged results: decode again", base, better)
    summary = json.loads((base / "summary.json").read_text())
    del summary["references_sha256"]
    (base / "summary.json").write_text(json.dumps(summary))
    refused(
        "base does not name its references: decode",
        base,
        results(tmp_path / "last", WORSE),
    )


def test_files_of_other_lines_are_not_extended(folders: list[Path], tmp_path: Path):
    output = tmp_path / "lines.jsonl"
    output.write_text('{"suite": "table1"}\n')
    refuse("name another --output", compare.main, *folders, f"--output={output}")
    assert output.read_text() == '{"suite": "table1"}\n'
