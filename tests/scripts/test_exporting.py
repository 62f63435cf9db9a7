# SPDX-License-Identifier: Apache-2.0
"""Exporting by the command line, and the program that compares."""

import contextlib
import io
import re
import sys
from pathlib import Path

import ctranslate2
import pytest

import dat_jax
from dat_jax.export import __main__ as export
from dat_jax.runs.workdir import Run
from tests.scripts.calls import REPOSITORY, refuse, succeed

pytestmark = pytest.mark.usefixtures("one_device")


def arguments(workdir: Path, folder: Path, kind: str = "safetensors") -> list[str]:
    return [f"--workdir={workdir}", f"--output={folder}", f"--format={kind}"]


def test_a_model_leaves_as_safetensors_and_goes_on_to_ctranslate2(trained: Path, tmp_path: Path):
    kept, ours, direct = (tmp_path / name for name in ("kept", "ours", "direct"))
    result = succeed(export.main, *arguments(trained, kept))
    assert result.stdout == f'wrote {kept}: load it with dat_jax.load("{kept}")\n'
    assert sorted(path.name for path in kept.iterdir()) == [
        "config.json",
        "model.safetensors",
        "vocabulary",
    ]
    lines = Run(trained).text("test")[0][:4]
    for policy in ("token_geometric:0.5", "fixed:1"):
        expected = dat_jax.load(trained).translate(lines, policy=policy)
        assert dat_jax.load(kept).translate(lines, policy=policy) == expected

    for workdir, folder in ((kept, ours), (trained, direct)):
        result = succeed(export.main, *arguments(workdir, folder, "ctranslate2"), "--depth=1")
        assert result.stdout == f"wrote {folder}: its README.md says how to use it\n"
    names = sorted(path.name for path in ours.iterdir())
    assert names == [
        "README.md",
        "config.json",
        "model.bin",
        "shared_vocabulary.json",
        "source.model",
        "target.model",
    ]
    for name in names:
        assert (ours / name).read_bytes() == (direct / name).read_bytes()


def test_int8_is_asked_for_by_name(trained: Path, tmp_path: Path):
    asked = arguments(trained, tmp_path / "int8", "ctranslate2")
    succeed(export.main, *asked, "--quantization=int8")
    assert ctranslate2.Translator(str(tmp_path / "int8")).compute_type.startswith("int8")


def test_the_program_of_the_page_compares(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    lines = sorted(Run(trained).text("test")[0], key=len)[:6]  # of one room, so one program
    monkeypatch.setattr(Run, "text", lambda *_: (lines, None))
    page = (REPOSITORY / "docs" / "export.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"^```python\n(import ctranslate2.*?)^```$", page, re.DOTALL | re.M)
    succeed(export.main, *arguments(trained, tmp_path / "demo_ct2", "ctranslate2"))
    program = program.replace("runs/demo_ct2", str(tmp_path / "demo_ct2"))
    program = program.replace("runs/demo", str(trained)).replace("256", "8")
    program = program.replace('"fixed"', '"fixed", max_source_length=0')  # this model's is 16
    assert str(trained) in program
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(program, {})
    greedy, beam, scores = printed.getvalue().splitlines()
    count = len(lines)
    assert greedy == f"beam 1: {count} of {count} translations are the same"
    assert re.fullmatch(rf"beam 5: \d+ of {count} translations are the same", beam)
    assert float(scores.removeprefix("scores of the last differ by at most ")) < 1e-3


def test_bad_requests_are_refused_and_leave_nothing(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = tmp_path / "exported"
    asked = arguments(trained, folder)
    of_ctranslate2 = arguments(trained, folder, "ctranslate2")
    main = export.main
    refuse("--depth=3: the model has no exit there: give one of 1, 2", main, *asked, "--depth=3")
    wrong = "--format=onnx: must be one of ctranslate2, safetensors"
    refuse(wrong, main, *arguments(trained, folder, "onnx"))
    refuse("--format is missing: add --format=...", main, *asked[:2])
    refuse("--quantization=int3: must be one of", main, *of_ctranslate2, "--quantization=int3")
    only = "--quantization=int8: only --format=ctranslate2 has it"
    refuse(only, main, *asked, "--quantization=int8")
    nowhere = arguments(tmp_path / "nowhere", folder)
    refuse("train a model into this workdir first", main, *nowhere)
    assert not folder.exists()

    missing = "is missing: pip install -e '.[export]'"
    for name in ("ctranslate2", "safetensors"):
        with monkeypatch.context() as patch:
            for module in [x for x in sys.modules if x.startswith(f"{name}.")]:
                patch.delitem(sys.modules, module)
            patch.setitem(sys.modules, name, None)
            refuse(f"{name} {missing}", main, *arguments(trained, folder, name))
    assert not folder.exists()

    folder.mkdir()
    (folder / "mine").write_text("here")
    refuse(f"--output={folder} holds mine already: name a new folder", main, *asked)
    refuse("another --output", main, *arguments(trained, folder / "mine"))
    assert (folder / "mine").read_text() == "here"
