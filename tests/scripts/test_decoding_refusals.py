# SPDX-License-Identifier: Apache-2.0
"""decode.py refuses what it cannot do with one line, and leaves all files unchanged."""

from pathlib import Path

import decode
from tests.scripts.calls import call, files, refuse, succeed


def test_a_failed_decode_leaves_earlier_results(trained: Path, tmp_path: Path):
    arguments = [f"--workdir={trained}", "--config.input=-"]
    arguments.append(f"--config.output={tmp_path / 'results'}")
    succeed(decode.main, *arguments, text="acht\n")
    before = files(tmp_path)
    assert len(before) == 3
    broken = call(decode.main, *arguments, text="sieben\n\udcff\n")
    assert broken.status != 0
    assert "not UTF-8 at line 2" in broken.stderr
    assert files(tmp_path) == before


def test_decoding_refuses_impossible_requests(trained: Path, tmp_path: Path):
    workdir = f"--workdir={trained}"
    lines, short = tmp_path / "lines", tmp_path / "short"
    lines.write_text("eins\nzwei\n")
    short.write_text("one\n")
    (tmp_path / "empty").write_text("")
    (tmp_path / "binary").write_bytes(b"eins\n\xff\n")
    (tmp_path / "link").symlink_to(lines)
    before = files(trained)
    refuse("train a model into this workdir first", decode.main, f"--workdir={tmp_path / 'new'}")
    for message, arguments in {
        "the depth must be one of 1, 2": ["--config.policy=fixed:3"],
        "must be one of fixed[:DEPTH], uniform": ["--config.policy=oracle"],
        "use one of fixed[:DEPTH], uniform[:SEED], schedule:FIRST-LAST, token_geometric[:TAU], ": [
            "--config.policy=sequence_multinomial"
        ],
        "FIRST-LAST must be two depths from 1 to 2, and FIRST no less than LAST": [
            "--config.policy=schedule:1-2"
        ],
        "the number of exits must be an integer from 1 to 2": ["--config.policy=patience:0"],
        "needs 1 threshold": ["--config.policy=confidence:0.1,0.2,0.3"],
        "thresholds must be in [0, 1]": ["--config.policy=token_geometric:1.5"],
        "must have the form confidence:TAU": ["--config.policy=confidence:"],
        "the lowest tuned average exit is": ["--config.policy=tuned:confidence:AE<=0.5"],
        "must have the form tuned[:KIND]:AE<=DEPTH": ["--config.policy=tuned:best"],
        "decoding.beam_size is 0": ["--config.beam_size=0"],
        "decoding.batch_size is -1: must be 0 or more": ["--config.batch_size=-1"],
        "shortlist is 16, and fixed:2 needs no classifier after each block: set it to 0": [
            "--config.policy=fixed:2",
            "--config.shortlist=16",
        ],
        "trailing_gap is 1.0, and under fixed:2 no token exits deeper than an earlier one of its": [
            "--config.policy=fixed:2",
            "--config.trailing_gap=1.0",
        ],
        "decoding.trailing_gap is -1.0: must be 0 or more": ["--config.trailing_gap=-1.0"],
        "unknown config key": ["--config.engine=lockstep"],
        "2 sentences but 1 references": [
            f"--config.input={lines}",
            f"--config.reference={short}",
        ],
        "link, the same file as input: give the file of references": [
            f"--config.input={lines}",
            f"--config.reference={tmp_path / 'link'}",
        ],
        "reference is -, the same file as input": ["--config.input=-", "--config.reference=-"],
        "a split has its own references": [f"--config.reference={short}"],
        "No such file or directory": [f"--config.input={tmp_path / 'none'}"],
        "empty is empty": [f"--config.input={tmp_path / 'empty'}"],
        "not UTF-8 at line 2": [f"--config.input={tmp_path / 'binary'}"],
        "average_checkpoints is 9 and": ["--config.average_checkpoints=9"],
        "checkpoint is best and average_checkpoints is 2: leave one of them out": [
            "--config.checkpoint=best",
            "--config.average_checkpoints=2",
        ],
        "holds those of step 2, 4 (best): give one of these steps, or last": [
            "--config.checkpoint=3"
        ],
        "checkpoint is newest: must be best, last or a step": ["--config.checkpoint=newest"],
        "split is 'train'": ["--config.split=train"],
        "average_checkpoints is -1": ["--config.average_checkpoints=-1"],
        "missing config key split": ["--config=configs/demo.py"],
    }.items():
        refuse(message, decode.main, workdir, *arguments)
    assert files(trained) == before
    assert not (trained / "decode").exists()


def test_decoding_refuses_a_bad_key(trained: Path):
    workdir = f"--workdir={trained}"
    hint = "unknown config key beam_sze: did you mean beam_size?"
    refuse(hint, decode.main, workdir, "--config.beam_sze=2")
    for given, form in {
        "beam_size=two": "an integer, such as 20",
        "beam_size=2.0": "an integer, such as 20",
        "beam_size=None": "an integer, such as 20",
        "length_penalty=x": "a number, such as 0.5",
        "resume=yes": "true or false",
    }.items():
        refuse(f"--config.{given}: must be {form}", decode.main, workdir, f"--config.{given}")


def test_an_output_that_is_a_file_is_refused(trained: Path, tmp_path: Path):
    file = tmp_path / "file"
    file.write_text("here")
    for output in (file, file / "below"):
        given = [f"--workdir={trained}", f"--config.output={output}"]
        refuse(f"{output}: ", decode.main, *given)
        refuse("fix that, or give another --config.output", decode.main, *given)
    assert file.read_text() == "here"
