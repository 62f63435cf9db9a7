# SPDX-License-Identifier: Apache-2.0
"""The scripts as a user runs them: from text to scores, and one clear line for each mistake."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent

TINY = [
    "--config=configs/demo.py",
    "--config.data.source=generated:200",
    "--config.data.vocabulary_size=150",
    "--config.model.num_layers=2",
    "--config.model.encoder_layers=1",
    "--config.model.encoder_dim=8",
    "--config.model.decoder_dim=8",
    "--config.model.encoder_ff_dim=8",
    "--config.model.decoder_ff_dim=8",
    "--config.training.num_shapes=1",
    "--config.training.checkpoint_every=2",
    "--config.training.log_every=2",
    "--config.decoding.max_length_ratio=0.5",
    "--config.decoding.max_length_extra=4",
]


WIDER = ["--config.model.decoder_ff_dim=16"]
POLICIES = [
    "fixed:1",
    "fixed:2",
    "token_geometric:0.5",
    "tuned:token_geometric:AE<=3",
    "tuned:confidence:AE<=3",
]
"""What the demo's report shows, here with two layers."""


def run(
    script: str, *arguments: str | Path, text: str | None = None
) -> subprocess.CompletedProcess:
    """Runs a script from the repository, with the tests' kept compilations."""
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(REPOSITORY / ".cache" / "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    return subprocess.run(
        [sys.executable, *script.split(), *map(str, arguments)],
        cwd=REPOSITORY,
        env=environment,
        input=text,
        capture_output=True,
        text=True,
        errors="surrogateescape",
        check=False,
    )


def files(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def refuse(message: str, script: str, *arguments: str | Path, printed: str = "") -> None:
    """Runs a script that must fail and say so in one line that holds `message`."""
    result = run(script, *arguments)
    assert result.stdout.startswith(printed)
    assert result.returncode not in (0, None)
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    assert message in lines[0]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workdir in which a tiny model has been trained for 4 steps."""
    workdir = tmp_path_factory.mktemp("run")
    result = run("train.py", *TINY, f"--workdir={workdir}", "--config.training.steps=4")
    assert result.returncode == 0, result.stderr
    rows = [line.split()[1] for line in result.stdout.splitlines() if line.startswith("| ")]
    assert rows == ["policy", *POLICIES]
    samples = [line for line in result.stdout.splitlines() if line.startswith("tuned:confidence")]
    assert len(samples) == 3
    assert all("</s>₁" in line or "</s>₂" in line for line in samples if "</s>" in line)
    return workdir


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """A folder of parallel text, small but whole."""
    for split in ("train", "valid", "test"):
        for language in ("de", "en"):
            lines = "".join(f"{word} {language} {n}\n" for n in range(9) for word in ("ja", "nun"))
            (tmp_path / f"{split}.{language}").write_text(lines, encoding="utf-8")
    return tmp_path


def text_source(folder: Path) -> list[str]:
    return [
        *TINY,
        f"--config.data.source=text:{folder}",
        "--config.data.vocabulary_size=24",
        f"--workdir={folder / 'run'}",
    ]


def test_training_leaves_what_the_contract_names(trained: Path):
    assert {path.name for path in trained.iterdir()} == {
        "config.json",
        "vocabulary",
        "data",
        "checkpoints",
        "metrics.jsonl",
        "tensorboard",
        "tuned",
        "evaluation.jsonl",
    }
    metrics = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in metrics] == [2, 4, 4]
    assert {"train/loss", "train/nll/exit_1", "train/nll/exit_2"} <= metrics[0].keys()
    assert "valid/nll/exit_2" in metrics[2]
    summaries = [
        json.loads(line) for line in (trained / "evaluation.jsonl").read_text().splitlines()
    ]
    assert [summary["policy"] for summary in summaries] == POLICIES
    assert [summary["average_exit"] for summary in summaries[:2]] == [1, 2]
    assert [len(summary["thresholds"] or []) for summary in summaries] == [0, 0, 1, 1, 1]


def test_training_goes_on_where_it_was_stopped_and_ends_the_same(trained: Path, tmp_path: Path):
    arguments = [*TINY, f"--workdir={tmp_path}"]
    assert run("train.py", *arguments, "--config.training.steps=2").returncode == 0
    resumed = run("train.py", *arguments, "--config.training.steps=4")
    assert resumed.returncode == 0
    assert "step 4 of 4" in resumed.stderr
    assert "step 2 of 4" not in resumed.stderr

    def losses(workdir: Path) -> list[float]:
        lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
        return [line["train/loss"] for line in lines if "train/loss" in line]

    assert losses(tmp_path) == losses(trained)


def test_decoding_a_split_writes_its_results(trained: Path, tmp_path: Path):
    result = run(
        "decode.py",
        f"--workdir={trained}",
        "--config.policy=fixed:1",
        "--config.beam_size=2",
        f"--config.output={tmp_path}",
    )
    assert result.returncode == 0, result.stderr
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["policy"] == "fixed:1"
    assert summary["beam_size"] == 2
    assert summary["average_exit"] == 1
    assert summary["sentences"] == 20
    assert {
        "bleu",
        "bleu_signature",
        "chrf",
        "exit_histogram",
        "flops_per_token",
        "layers_executed_per_token",
        "tokens_per_second",
        "engine",
        "device",
        "checkpoint_step",
    } <= summary.keys()
    assert summary["batch_size"] == 128
    assert summary["ticks"] == sum(summary["ticks_per_stage"]) > 0
    blocks_and_classifier = 3
    assert len(summary["ticks_per_stage"]) == blocks_and_classifier
    assert len(summary["rows_per_stage"]) == blocks_and_classifier
    assert summary["rows_per_stage"][0] == summary["rows_per_stage"][-1] >= summary["tokens"]
    assert summary["rows_per_stage"][1] == 0
    assert 0 < summary["occupancy"] <= 1
    assert sum(summary["engines"].values()) == 20
    hypotheses = (tmp_path / "hypotheses.txt").read_text().splitlines()
    exits = [json.loads(line) for line in (tmp_path / "exits.jsonl").read_text().splitlines()]
    assert len(hypotheses) == len(exits) == 20
    assert all(set(line["exits"]) == {1} for line in exits)
    assert all(len(line["exits"]) == len(line["tokens"]) for line in exits)
    assert summary["tokens"] == sum(len(line["exits"]) for line in exits)


def test_a_file_without_a_reference_is_translated_without_scores(trained: Path, tmp_path: Path):
    text = tmp_path / "text"
    text.write_text("acht Uhr\n\nsieben\n")
    result = run(
        "decode.py",
        f"--workdir={trained}",
        f"--config.input={text}",
        f"--config.output={tmp_path / 'found'}",
    )
    assert result.returncode == 0, result.stderr
    assert "average exit" in result.stdout
    assert "BLEU" not in result.stdout
    summary = json.loads((tmp_path / "found" / "summary.json").read_text())
    assert summary["sentences"] == 3
    assert "bleu" not in summary


def test_both_engines_write_the_same_translations(trained: Path, tmp_path: Path):
    settings = [f"--workdir={trained}", "--config.policy=token_geometric:0.5"]
    settings += ["--config.beam_size=2", "--config.cohort_size=32", "--config.pool_size=40"]
    text = tmp_path / "text"
    text.write_text("acht Uhr\nsieben\n\num halb zwei\n" * 50)  # so many that continuous pays
    settings += [f"--config.input={text}", f"--config.reference={text}"]
    found = {}
    for engine in ("continuous", "lockstep"):
        chosen = [] if engine == "continuous" else ["--config.engine=lockstep"]
        folder = tmp_path / engine
        result = run("decode.py", *settings, *chosen, f"--config.output={folder}")
        assert result.returncode == 0, result.stderr
        summary = json.loads((folder / "summary.json").read_text())
        assert summary["engine"] == engine
        assert summary["engines"] == {engine: 150}
        lines = map(json.loads, (folder / "exits.jsonl").read_text().splitlines())
        found[engine] = (
            (folder / "hypotheses.txt").read_bytes(),
            [(line["tokens"], line["exits"]) for line in lines],
            [summary[name] for name in ("bleu", "tokens", "average_exit", "flops_per_token")],
        )
    assert found["continuous"] == found["lockstep"]


@pytest.mark.parametrize(("threshold", "deep"), [(0, False), (1, True)])
def test_exits_too_deep_for_the_continuous_engine_are_noted(
    trained: Path, tmp_path: Path, threshold: int, deep: bool
):
    text = tmp_path / "text"
    text.write_text("acht Uhr\n" * 260)
    result = run(
        "decode.py",
        f"--workdir={trained}",
        f"--config.policy=confidence:{threshold}",
        "--config.beam_size=1",
        f"--config.input={text}",
        f"--config.output={tmp_path / 'found'}",
    )
    assert result.returncode == 0, result.stderr
    assert ("--config.engine=lockstep may be faster" in result.stderr) == deep


def test_a_decode_that_breaks_off_leaves_earlier_results(trained: Path, tmp_path: Path):
    arguments = ["decode.py", f"--workdir={trained}", "--config.input=-"]
    arguments.append(f"--config.output={tmp_path / 'results'}")
    assert run(*arguments, text="acht\n").returncode == 0
    before = files(tmp_path)
    assert len(before) == 3
    broken = run(*arguments, text="sieben\n\udcff\n")
    assert broken.returncode != 0
    assert "not UTF-8 at line 2" in broken.stderr
    assert "Traceback" not in broken.stderr
    assert files(tmp_path) == before


def test_decoding_standard_input_prints_a_line_for_each_line(trained: Path):
    result = run(
        "decode.py",
        f"--workdir={trained}",
        "--config.input=-",
        text="am dreiundzwanzigsten November\n\nsieben\n",
    )
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert len(lines) == 3
    assert lines[1] == ""
    assert not (trained / "decode").exists()


def test_long_lines_are_cut_with_a_warning(trained: Path):
    result = run("decode.py", f"--workdir={trained}", "--config.input=-", text="acht " * 200)
    assert result.returncode == 0
    assert "1 sentences are longer than 128 pieces and were cut there" in result.stderr


@pytest.mark.parametrize(
    "argument, message",
    [
        ("--config.training.stps=3", 'unknown config key Did you mean "steps" instead of "stps"'),
        ("--config.training.steps=many", "--config.training.steps=many: invalid literal"),
        ("--config.training.steps=0", "training.steps is 0: must be 1 or more"),
        ("--config.model.encoder_heads=3", "must be a multiple of model.encoder_heads, 3"),
        ("--config.model.norm=mid", "model.norm is 'mid': must be one of post, pre"),
        ("--config.decoding.policy=fixed:7", "the model has exits at depth 1, 2"),
        ("--config.decoding.policy=token_geometric:0.1,0.2", "needs 1 threshold"),
        ("--config.decoding.report_policies=('token_multinomial',)", "it can decode with fixed"),
        ("--config.training.exit_samples=0", "training.exit_samples is 0: must be 1 or more"),
        ("--config.exit.oracle_smoothing=-1", "exit.oracle_smoothing is -1.0: must be 0 or more"),
        ("--config.training.mode=mixed", "training.mode is mixed: model.exits must be all and"),
        ("--config.training.initial_workdir=no/run", "no model has been trained there"),
        ("--config.data.source=text:no/such/folder", "no/such/folder is no folder"),
        ("--config.data.vocabulary_size=90000", "data.vocabulary_size is 90000, more than"),
        ("surplus", "unexpected argument 'surplus'"),
        ("--surplus", "Unknown command line flag 'surplus'"),
    ],
)
def test_training_refuses_a_bad_config(argument: str, message: str, tmp_path: Path):
    refuse(message, "train.py", *TINY, f"--workdir={tmp_path / 'run'}", argument)
    assert not (tmp_path / "run" / "config.json").exists()


def test_training_needs_a_config_and_a_workdir():
    refuse("--workdir is missing", "train.py", *TINY)
    refuse("--config is missing", "train.py", "--workdir=somewhere")
    none = ["--config=configs/none.py", "--workdir=somewhere"]
    refuse("--config=configs/none.py cannot be read", "train.py", *none)
    refuse("none.py cannot be read", "train.py", *none, "--config.training.steps=3")


def test_training_refuses_bad_text(text: Path):
    good = (text / "valid.en").read_bytes()
    (text / "valid.en").write_bytes(good + b"one more\n")
    refuse("valid.de ends after line 18 while", "train.py", *text_source(text))
    (text / "valid.en").write_bytes(b"")
    refuse("valid.en is empty", "train.py", *text_source(text))
    (text / "valid.en").write_bytes(good.replace(b"nun en 4", b"\xff\xfe"))
    refuse("valid.en is not UTF-8 at line 10", "train.py", *text_source(text))
    (text / "valid.en").unlink()
    refuse("valid.en is missing", "train.py", *text_source(text))
    assert not (text / "run" / "config.json").exists()


def test_a_workdir_with_another_run_is_left_alone(trained: Path):
    before = files(trained)
    arguments = [*TINY, f"--workdir={trained}"]
    refuse("model.decoder_ff_dim = 8", "train.py", *arguments, "--config.model.decoder_ff_dim=16")
    refuse("data.seed = 0, not 1", "train.py", *arguments, "--config.data.seed=1")
    refuse("training.batch_tokens", "train.py", *arguments, "--config.training.batch_tokens=999")
    assert files(trained) == before


def test_a_run_that_has_no_checkpoint_yet_may_be_changed(tmp_path: Path):
    arguments = [*TINY, f"--workdir={tmp_path}", "--config.training.steps=2"]
    few = "--config.training.batch_tokens=40"
    refuse("training.batch_tokens is 40", "train.py", *arguments, few, printed="train: 200 pairs")
    assert run("train.py", *arguments).returncode == 0


def test_fewer_steps_than_have_been_made_are_refused(trained: Path):
    arguments = [*TINY, f"--workdir={trained}", "--config.training.steps=3"]
    refuse("has been trained to step 4 and training.steps is 3", "train.py", *arguments)


def test_a_folder_that_cannot_be_made_is_named(trained: Path, tmp_path: Path):
    file = tmp_path / "file"
    file.write_text("here")
    refuse("file: File exists", "decode.py", f"--workdir={trained}", f"--config.output={file}")
    refuse("is a file: name a folder", "train.py", *TINY, f"--workdir={file}")
    refuse("file", "-m dat_jax.data.prepare", *TINY, f"--workdir={file}")
    assert file.read_text() == "here"


def test_a_reader_may_leave_early(trained: Path):
    command = f"{sys.executable} decode.py --workdir={trained} --config.input=- | head -n 1"
    result = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"],
        cwd=REPOSITORY,
        input="acht\n\n" + "\n" * 200_000,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in result.stderr
    assert len(result.stdout.splitlines()) == 1


def test_decoding_refuses_what_it_cannot_do(trained: Path, tmp_path: Path):
    workdir = f"--workdir={trained}"
    lines, short = tmp_path / "lines", tmp_path / "short"
    lines.write_text("eins\nzwei\n")
    short.write_text("one\n")
    (tmp_path / "empty").write_text("")
    (tmp_path / "binary").write_bytes(b"eins\n\xff\n")
    before = files(trained)
    refuse("train a model into this workdir first", "decode.py", f"--workdir={tmp_path / 'new'}")
    for message, arguments in {
        "the model has exits at depth 1, 2": ["--config.policy=fixed:3"],
        "must be one of fixed[:DEPTH], uniform": ["--config.policy=oracle"],
        "it can decode with fixed[:DEPTH], uniform[:SEED], token_geometric[:TAU], confidence:TAU": [
            "--config.policy=sequence_multinomial"
        ],
        "needs 1 threshold": ["--config.policy=confidence:0.1,0.2,0.3"],
        "thresholds must be in [0, 1]": ["--config.policy=token_geometric:1.5"],
        "must read confidence:TAU": ["--config.policy=confidence:"],
        "the least average exit that was tuned is": ["--config.policy=tuned:confidence:AE<=0.5"],
        "must read tuned[:KIND]:AE<=DEPTH": ["--config.policy=tuned:best"],
        "decoding.beam_size is 0": ["--config.beam_size=0"],
        "decoding.cohort_size is -1: must be 0 or more": ["--config.cohort_size=-1"],
        "decoding.pool_size is -8: must be 0 or more": ["--config.pool_size=-8"],
        "must be one of continuous, lockstep": ["--config.engine=fast"],
        "2 sentences but 1 references": [
            f"--config.input={lines}",
            f"--config.reference={short}",
        ],
        "a split has its own references": [f"--config.reference={short}"],
        "No such file or directory": [f"--config.input={tmp_path / 'none'}"],
        "empty is empty": [f"--config.input={tmp_path / 'empty'}"],
        "not UTF-8 at line 2": [f"--config.input={tmp_path / 'binary'}"],
        "average_checkpoints is 9 and": ["--config.average_checkpoints=9"],
        "split is 'train'": ["--config.split=train"],
        "average_checkpoints is -1": ["--config.average_checkpoints=-1"],
        "missing config key split": ["--config=configs/demo.py"],
    }.items():
        refuse(message, "decode.py", workdir, *arguments)
    assert files(trained) == before


def test_a_tuned_policy_decodes_with_what_the_report_was_made_with(trained: Path, tmp_path: Path):
    policy = "--config.policy=tuned:AE<=2"
    result = run("decode.py", f"--workdir={trained}", policy, f"--config.output={tmp_path}")
    assert result.returncode == 0, result.stderr
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["policy"] == "tuned:AE<=2"
    assert len(summary["thresholds"]) == 1


def test_tuning_prints_its_front_and_the_policy_to_ask_for(trained: Path, tmp_path: Path):
    copy = tmp_path / "run"
    shutil.copytree(trained, copy)
    command = ["-m dat_jax.tuning", f"--workdir={copy}"]
    options = ["--policy=token_geometric", "--candidates=20", "--segment=0.25", "--beam_size=1"]
    result = run(*command, *options)
    assert result.returncode == 0, result.stderr
    assert "decode with --config.policy='tuned:token_geometric:AE<=" in result.stdout
    refuse("--policy is missing", *command)
    refuse("value should be one of <confidence|token_geometric>", *command, "--policy=fixed")
    refuse("train a model into this workdir first", "-m dat_jax.tuning", "--workdir=no", options[0])


def test_a_second_run_starts_from_the_parameters_of_the_first(trained: Path, tmp_path: Path):
    first = f"--config.training.initial_workdir={trained}"
    other = [*TINY, f"--workdir={tmp_path / 'other'}", first]
    refuse("its model.decoder_ff_dim is 8", "train.py", *other, *WIDER)
    refuse("its vocabulary is another", "train.py", *other, "--config.data.seed=1", printed="train")
    frozen = ["--config.exit.trains=head_alone", "--config.exit.start_step=0"]
    second = [f"--workdir={tmp_path / 'second'}", "--config.training.steps=2"]
    result = run("train.py", *TINY, *second, first, *frozen)
    assert result.returncode == 0, result.stderr

    def fixed_scores(workdir: Path) -> list[float]:
        lines = map(json.loads, (workdir / "evaluation.jsonl").read_text().splitlines())
        return [line["chrf"] for line in lines if line["policy"].startswith("fixed")]

    assert fixed_scores(tmp_path / "second") == fixed_scores(trained)


def test_preparing_by_itself_prints_what_there_is(tmp_path: Path):
    result = run("-m dat_jax.data.prepare", *TINY, f"--workdir={tmp_path}")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("train: 200 pairs")
    refuse("is missing", "-m dat_jax.data.prepare", *TINY)


def test_the_exits_benchmark_decodes_with_everything_that_was_tuned(trained: Path, tmp_path: Path):
    output = tmp_path / "exits.jsonl"
    arguments = [f"--workdir={trained}", f"--output={output}"]
    result = run("-m benchmarks.exits", *arguments)
    assert result.returncode == 0, result.stderr
    policies = [json.loads(line)["policy"] for line in output.read_text().splitlines()]
    kinds = [policy.partition(":")[0] for policy in policies]
    assert kinds[:4] == ["fixed", "fixed", "uniform", "token_geometric"]
    assert set(kinds[4:]) == {"token_geometric", "confidence"}
    nowhere = f"--output={tmp_path / 'none' / 'exits.jsonl'}"
    refuse("none is no folder", "-m benchmarks.exits", f"--workdir={trained}", nowhere)
