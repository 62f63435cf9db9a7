# SPDX-License-Identifier: Apache-2.0
"""`benchmarks.report`: tables on pages, the command line, and warnings about other engines."""

import json
import re
import shutil
from pathlib import Path

import pytest

from benchmarks.report import __main__ as report
from benchmarks.report import pages, trainings
from dat_jax import decoding
from dat_jax.evaluation.provenance import hash_engine
from tests.benchmarks.report.lines import TABLE1
from tests.scripts.calls import refuse, succeed


def test_a_table_that_was_edited_is_renewed(tmp_path: Path):
    file = tmp_path / "lines.jsonl"
    file.write_text("".join(json.dumps(x) + "\n" for x in TABLE1))
    mark = f"<!-- table: {file} by_exit test -->\n"
    page = pages.renewed(f"Before.\n\n{mark}<!-- end -->\n\nAfter.\n")
    assert trainings.by_exit(TABLE1, "test") in page
    assert pages.renewed(page.replace("mixed_1", "mixed_7")) == page


def test_the_command_prints_a_table_and_draws_a_figure(tmp_path: Path):
    file, figure = tmp_path / "lines.jsonl", tmp_path / "figure.svg"
    file.write_text("".join(json.dumps(x) + "\n" for x in TABLE1))
    printed = succeed(report.main, f"--table={file} by_exit test").stdout
    assert printed == trainings.by_exit(TABLE1, "test") + "\n"
    succeed(report.main, f"--figure=quality {file}", f"--output={figure}")
    assert "<svg" in figure.read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--table=no.jsonl by_exit test"],
            "'no.jsonl' is not a file of results: measure it, or name another",
        ),
        (
            ["--figure=quality no.jsonl"],
            "--figure is 'quality no.jsonl' and --output is None: give both",
        ),
        (
            ["--figure=other no.jsonl", "--output=x.svg"],
            "figure 'other no.jsonl': must be KIND FILE",
        ),
        (["--table=FILE other test"], "other test': must be FILE VIEW SPLIT, as 'results"),
        (["--table=FILE by_exit"], "by_exit': must be FILE VIEW SPLIT, as"),
        (["--table=FILE by_exit tset"], "no line has the split 'tset': must be one of test"),
        (["--table=FILE against_time all"], "no line has the batch_size 'all': must be one of 32"),
        (["--table=EMPTY by_exit test"], "has no lines: measure it, or name another"),
        (["--table="], "'' is not a file of results: measure it, or name another"),
        (["--figure=", "--output=x.svg"], "figure '': must be KIND FILE, as 'quality"),
        (["--figure=speed FILE", "--output=x.svg"], "speed needs files of benchmarks.decode"),
        (
            ["--figure=scores FILE", "--output=x.svg"],
            "files is of a tuned rule, with exits by position: name a file",
        ),
        (["--figure=ablation FILE", "--output=x.svg"], "no line has the split 'valid'"),
        (["--table=SCORES 3"], "SCORES 3': parts of the file are 1, 2: name some"),
        (["--table=SCORES x"], "SCORES x': parts of the file are 1, 2: name some"),
        (["--table=GPU"], "GPU': lines of benchmarks.gpu have no table"),
        (["--table=SPEED batch"], "SPEED batch': parts of the file are averages"),
    ],
)
def test_wrong_input_is_refused_in_one_line(arguments: list[str], message: str, tmp_path: Path):
    names = {
        "FILE": json.dumps(TABLE1[0]) + "\n",
        "EMPTY": "",
        "SCORES": '{"policy": "fixed:1"}\n{"policy": "fixed:2"}\n',
        "GPU": '{"benchmark": "gpu", "table": "correctness"}\n',
        "SPEED": '{"benchmark": "decode", "table": "averages"}\n',
    }
    for name, text in names.items():
        (tmp_path / name).write_text(text)
        arguments = [re.sub(rf"\b{name}\b", str(tmp_path / name), x) for x in arguments]
    refuse(message, report.main, *arguments)


def test_lines_of_another_engine_give_a_warning(tmp_path: Path):
    engines = {"same": [hash_engine()] * 2, "other": [hash_engine(), "0" * 12], "older": [None] * 2}
    for name, values in engines.items():
        lines = [x | {"engine_sha256": e} for x, e in zip(TABLE1, values, strict=False)]
        lines = [{key: value for key, value in x.items() if value is not None} for x in lines]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    told = list(pages.warnings([f"{tmp_path / name}.jsonl by_exit test" for name in engines]))
    assert [line.partition(" lines are of another engine than ")[0] for line in told] == [
        f"{tmp_path / 'other.jsonl'}: 1 of 2",
        f"{tmp_path / 'older.jsonl'}: 2 of 2",
    ]
    result = succeed(report.main, f"--table={tmp_path / 'older.jsonl'} by_exit test")
    assert result.stderr == f"warning: {told[1]}\n"
    assert not succeed(report.main, f"--table={tmp_path / 'same.jsonl'} by_exit test").stderr


def test_the_checksum_of_the_engine_covers_all_its_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    package = Path(decoding.__file__).parent
    copy = shutil.copytree(package, tmp_path / "decoding", ignore=lambda *_: ["__pycache__"])
    monkeypatch.setattr(decoding, "__file__", str(copy / "__init__.py"))
    uncached = hash_engine.__wrapped__
    assert uncached() == hash_engine()
    for name in ("engine.py", "beam.py"):
        before = uncached()
        (copy / name).write_text((copy / name).read_text() + "\n")
        assert uncached() != before
    assert re.fullmatch("[0-9a-f]{12}", hash_engine())
