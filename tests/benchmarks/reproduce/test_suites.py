# SPDX-License-Identifier: Apache-2.0
"""`benchmarks.reproduce`: its lines, what it skips when run again, and what it refuses."""

import json
import shutil
from pathlib import Path
from typing import Any

import jax
import pytest

from benchmarks.bleu_counts import unpack
from benchmarks.report import views
from benchmarks.reproduce import __main__ as reproduce
from benchmarks.reproduce import decodes, models, speed
from benchmarks.reproduce.budget import Spent
from benchmarks.reproduce.suites import SUITES, Point, RuleSettings, Setting
from benchmarks.reproduce.trainings import Trained, Trainer, Training, changed, differences
from benchmarks.results import Lines, read_lines
from configs import multi30k_de_en, multi30k_exits
from dat_jax.data.sources.generated import GeneratedCorpus
from dat_jax.exits.parsing import parse_policy
from dat_jax.runs.workdir import Run
from tests.scripts.calls import Finished, call, files, refuse, succeed

LAYERS = 3
SMALL = [f"--config.model.decoder_layers={LAYERS}", "--config.data.max_length=24"]
EXITS = differences(*(c.get_config().to_dict() for c in (multi30k_exits, multi30k_de_en)))
POINTS = ["exits", "baseline_2", "aligned"]


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Makes a folder of text."""
    folder, corpus = tmp_path_factory.mktemp("text"), GeneratedCorpus(200, seed=0)
    for split in ("train", "valid", "test"):
        pairs = [pair for pair in corpus.pairs(split) if len(pair[0]) < 40][:200]
        for side, language in enumerate(("de", "en")):
            lines = "".join(f"{pair[side]}\n" for pair in pairs)
            (folder / f"{split}.{language}").write_text(lines, encoding="utf-8")
    return folder


class Smoke:
    """Calls of the suite `smoke`, which share their trainings."""

    def __init__(self, text: Path, folder: Path) -> None:
        self.output = folder / "lines.jsonl"
        self.arguments = [f"--data={text}", f"--runs={folder / 'runs'}", *SMALL]
        self.runs, self.text = folder / "runs", text

    def call(self, *arguments: str | Path, output: Path | None = None) -> Finished:
        suite = ["--suite=smoke", f"--output={output or self.output}"]
        return succeed(reproduce.main, *suite, *self.arguments, *arguments)


@pytest.fixture(scope="module")
def smoke(text: Path, tmp_path_factory: pytest.TempPathFactory) -> Smoke:
    """Runs the suite `smoke` in two calls: one point, then the others."""
    made = Smoke(text, tmp_path_factory.mktemp("smoke"))
    first = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dat_jax.runs.workdir.on_local_devices", lambda: first)
        made.call("--points=baseline_2")
        before = made.output.read_text()
        result = made.call()
    assert made.output.read_text().startswith(before)
    assert "nothing is left to do" in result.stdout
    return made


@pytest.mark.slow
def test_every_point_has_its_lines(smoke: Smoke):
    lines = read_lines(smoke.output)
    policies = {
        name: [x["policy"].partition(":")[0] for x in lines if x["point"] == name]
        for name in POINTS
    }
    assert policies["baseline_2"] == ["fixed"]
    assert policies["aligned"] == ["fixed", "fixed", "uniform"]
    assert policies["exits"][:3] == ["fixed", "fixed", "token_geometric"]
    assert {line["split"] for line in lines if line["point"] == "aligned"} == {"valid"}


@pytest.mark.slow
def test_a_line_names_its_training_and_holds_quality_and_cost(smoke: Smoke):
    for line in read_lines(smoke.output):
        assert (line["benchmark"], line["suite"], line["seed"], line["steps"]) == (
            *("reproduce", "smoke", 0),
            6,
        )
        assert line.keys() >= {"bleu", "bleu_signature", "chrf", "average_exit", "jax", "device"}
        assert line.keys() >= {"flops_per_token", "tokens_per_second", "seconds", "commit"}
        ends = [
            x["bleu"]
            for policy in ("fixed:1", f"fixed:{LAYERS}")
            for x in read_lines(smoke.output)
            if (x["point"], x["policy"]) == (line["point"], policy)
        ]
        assert line["span"] == (ends[1] - ends[0] if line["point"] != "baseline_2" else None)
    one = next(x for x in read_lines(smoke.output) if x["policy"].startswith("token_geometric"))
    assert (one["lambda"], one["sigma"]) == (EXITS["exit.exit_penalty"], 0.0)
    assert sum(map(sum, one["exit_by_score"])) > 0


@pytest.mark.slow
def test_nothing_is_measured_twice(smoke: Smoke):
    before = files(smoke.runs) | files(smoke.output.parent)
    result = smoke.call()
    assert files(smoke.runs) | files(smoke.output.parent) == before
    assert result.stdout.splitlines()[-1].endswith("nothing is left to do")
    assert "training" not in result.stdout


@pytest.mark.slow
def test_existing_lines_need_no_training(smoke: Smoke, tmp_path: Path):
    arguments = [x for x in smoke.arguments if not x.startswith("--runs")]
    suite = ["--suite=smoke", f"--output={smoke.output}", f"--runs={tmp_path}"]
    result = succeed(reproduce.main, *suite, *arguments, "--points=baseline_2,aligned")
    assert result.stdout.splitlines()[-1].endswith("nothing is left to do")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_second_phase_starts_from_the_aligned_training(smoke: Smoke):
    (aligned,), (exits,) = (list(smoke.runs.glob(f"{name}-0-*")) for name in ("aligned", "exits"))
    config = json.loads((exits / "config.json").read_text())
    assert Path(config["training"]["initial_workdir"]) == aligned


@pytest.mark.slow
def test_a_kept_training_decodes_with_the_settings_of_the_call(smoke: Smoke):
    values = multi30k_de_en.get_config().to_dict()
    changes = {"data.source": f"text:{smoke.text}", "decoding.beam_size": 2}
    changes |= {"model.decoder_layers": LAYERS, "data.max_length": 24}
    (point,) = (x for x in SUITES["smoke"](Setting(LAYERS, dict)) if x.training.name == "aligned")
    own = {key: x for key, x in point.training.changes.items() if key != "decoding.beam_size"}
    trained = Trainer(changed(values, changes), smoke.runs).train(Training("aligned", own), 0)
    assert trained.run.config.decoding.beam_size == 1
    assert models.Model(trained, RuleSettings()).decoding.beam_size == 2


@pytest.mark.slow
def test_a_spent_budget_does_not_lose_decodes(smoke: Smoke, tmp_path: Path):
    class Spending:
        def __init__(self, checks: int) -> None:
            self.left = checks

        def check(self) -> None:
            self.left -= 1
            if self.left < 0:
                raise Spent

    training = Training("aligned", {})
    (folder,) = smoke.runs.glob("aligned-0-*")
    run = Run(folder)
    trained = Trained(training, run, "a", run.config.decoding)
    point = Point(training, Setting(LAYERS, dict).ends, ("valid",))
    lines = Lines(tmp_path / "lines.jsonl", "smoke", models.KEYS)
    budget: Any = Spending(2)  # one to load, one for the first decode
    found = list(decodes.decode(trained, point, lines, budget))
    assert [line["policy"] for line in found] == ["fixed:1", f"fixed:{LAYERS}"]


@pytest.mark.slow
def test_a_budget_too_small_for_anything_is_refused(smoke: Smoke, tmp_path: Path):
    output = tmp_path / "lines.jsonl"
    message = "--budget_minutes=0 is too small for any point"
    suite = ["--suite=smoke", f"--output={output}", *smoke.arguments]
    refuse(message, reproduce.main, *suite, "--budget_minutes=0")
    assert not output.exists()


@pytest.mark.slow
def test_a_spent_budget_leaves_the_file_alone(smoke: Smoke):
    before = smoke.output.read_text()
    result = smoke.call("--budget_minutes=0", "--seeds=1")
    assert "the budget is spent: run again" in result.stdout
    assert smoke.output.read_text() == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"--suite": "table9"},
            "--suite=table9: must be one of smoke, table1, table2, table3, exits,",
        ),
        ({"--data": "no"}, "no is not a folder: give the folder of the text"),
        ({"--points": "aligned,other"}, "--points has 'other': must be some of exits, baseline_2"),
        ({"--seeds": "0,x"}, "--seeds has 'x': must be whole numbers, each 0 or more, as --s"),
        ({"--seeds": ""}, "--seeds has '': must be whole numbers, each 0 or more"),
        (
            {"--exits_config": "no.py"},
            "no.py is not the config of a training (",
        ),
        (
            {"--exits_config": "README.md"},
            "README.md is not the config of a training (",
        ),
        ({"--exits_config": "train.py"}, "train.py is not the config of a training (it has no get"),
        (
            {"--exits_config": "configs/decode.py"},
            "configs/decode.py is not the config of a training (unknown",
        ),
        (
            {"--batch_sizes": "32"},
            "--batch_sizes=32: only the suite time measures time: leave it out",
        ),
        ({"--config.model.dropout": "2.0"}, "model.dropout is 2.0: must be in [0, 1)"),
        ({"--config.decoding.shortlist": "16"}, "decoding.shortlist is 16, but each point of"),
        ({"--config.decoding.trailing_gap": "1"}, "decoding.trailing_gap is 1.0, but each point"),
        (
            {"--suite": "time", "--config.decoding.beam_size": "9"},
            "shortlist is 16: with beam_size 9 and 2000 tokens it must be from 18 to 2000, or",
        ),
    ],
)
def test_wrong_input_is_refused_in_one_line(
    text: Path, tmp_path: Path, changes: dict[str, str], message: str
):
    usual = {"--suite": "smoke", "--data": str(text), "--output": str(tmp_path / "lines.jsonl")}
    usual |= {"--runs": str(tmp_path / "runs")}
    refuse(message, reproduce.main, *(f"{key}={value}" for key, value in (usual | changes).items()))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_missing_split_is_named(text: Path, tmp_path: Path):
    part = tmp_path / "part"
    shutil.copytree(text, part)
    (part / "test.en").unlink()
    suite = ["--suite=smoke", f"--data={part}", f"--output={tmp_path / 'lines.jsonl'}"]
    refuse("test.en is missing", reproduce.main, *suite)
    (part / "test.de").unlink()
    refuse("has no test split, which --suite=smoke decodes: add it", reproduce.main, *suite)


@pytest.mark.slow
def test_a_file_of_another_suite_is_left_alone(smoke: Smoke):
    before = smoke.output.read_text()
    suite = ["--suite=table1", f"--output={smoke.output}", *smoke.arguments]
    refuse("name another --output", reproduce.main, *suite)
    assert smoke.output.read_text() == before


@pytest.mark.slow
@pytest.mark.parametrize("layers", [2, 6])
@pytest.mark.parametrize("suite", SUITES)
def test_all_points_of_a_suite_are_valid(suite: str, layers: int, text: Path, tmp_path: Path):
    values = changed(
        multi30k_de_en.get_config().to_dict(),
        {"data.source": f"text:{text}", "model.decoder_layers": layers},
    )
    trainer = Trainer(values, tmp_path)
    points = SUITES[suite](Setting(layers, lambda: EXITS))
    checksums = {(trainer.sha256(point.training, 0), point.settings) for point in points}
    assert 0 < len(points) == len(checksums)
    for point in points:
        config = trainer.config(point.training, 0)
        for policy in point.policies:
            kind, _, of = policy.partition(":")
            example = {"patience": "2", "schedule": "2-1"}.get(of, "0.5")
            parse_policy(f"{of}:{example}" if kind == "tuned" else policy, config.model)


def test_table1_has_the_papers_trainings():
    names = [point.training.name for point in SUITES["table1"](Setting(6, lambda: EXITS))]
    assert set(names) == {"aligned", *(f"mixed_{m}" for m in (1, 3, 6))} | {
        f"baseline_{n}" for n in range(1, 7)
    }
    assert names[:2] == ["aligned", "baseline_6"]


def checksum(text: Path, runs: Path, changes: dict[str, Any], seed: int = 0) -> str:
    values = changed(multi30k_de_en.get_config().to_dict(), {"data.source": f"text:{text}"})
    start = Training("aligned", {})
    return Trainer(changed(values, changes), runs).sha256(Training("exits", EXITS, start), seed)


@pytest.mark.slow
def test_a_checksum_depends_on_settings_and_text_and_not_on_paths(text: Path, tmp_path: Path):
    usual = checksum(text, tmp_path / "a", {})
    copy = tmp_path / "copy"
    shutil.copytree(text, copy)
    for same in (
        checksum(copy, tmp_path / "b", {}),
        checksum(text, tmp_path, {"decoding.beam_size": 2, "training.log_every": 7}),
    ):
        assert same == usual
    others = [
        checksum(text, tmp_path, changes)
        for changes in ({"training.steps": 7_000}, {"model.dropout": 0.2}, {"data.max_length": 30})
    ]
    others.append(checksum(text, tmp_path, {}, seed=1))
    (copy / "train.en").write_text((copy / "train.en").read_text().replace("e", "a"))
    others.append(checksum(copy, tmp_path, {}))
    assert len({usual, *others}) == 6


def test_a_wrong_suite_leaves_nothing_behind(tmp_path: Path):
    result = call(reproduce.main, "--suite=smoke", f"--output={tmp_path / 'x.jsonl'}")
    assert "--data" in result.stderr and list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_speed_is_measured_in_batches_of_several_sizes(
    smoke: Smoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    first = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    monkeypatch.setattr("dat_jax.runs.workdir.on_local_devices", lambda: first)
    monkeypatch.setattr(reproduce, "BATCH_SIZES", (8, 2))
    monkeypatch.setattr(speed, "_SENTENCES", {8: 3, 2: 2})
    monkeypatch.setattr(speed, "_PROCESSES", 2)

    def of_smoke(setting: Setting) -> list[Point]:
        policies = (*setting.fixed, "tuned:token_geometric", "tuned:confidence")
        point = SUITES["smoke"](setting)[0]._replace(policies=policies)
        return [point._replace(settings=RuleSettings(4, 0.5))]

    monkeypatch.setitem(SUITES, "time", of_smoke)
    output = tmp_path / "time.jsonl"
    arguments = ["--suite=time", f"--output={output}", *smoke.arguments]
    result = succeed(reproduce.main, *arguments)
    assert "training" not in result.stdout
    lines = read_lines(output)
    whole, part = ([x for x in lines if x["batch_size"] == size] for size in (8, 2))
    assert [x["policy"] for x in whole] == [x["policy"] for x in part]
    kinds = [x["policy"].partition(":")[0] for x in whole]
    assert kinds[:LAYERS] == ["fixed"] * LAYERS
    assert set(kinds[LAYERS:]) == {"token_geometric", "confidence"}
    assert {(x["policy"].partition(":")[0], x["shortlist"], x["trailing_gap"]) for x in whole} == {
        ("fixed", 0, 0.0),
        ("token_geometric", 0, 0.5),
        ("confidence", 4, 0.5),
    }
    texts = len((smoke.text / "test.de").read_text().splitlines())
    assert {len(unpack(x["bleu_counts"])) for x in lines} == {texts}
    assert {x["timed_sentences"] for x in whole} == {3}
    assert {x["timed_sentences"] for x in part} == {2}
    for one, other in zip(whole, part, strict=True):
        assert one["tokens_per_second"] > 0
        assert one["repetitions"] == one["processes"] == 2
        for line in (one, other):
            assert line["in_work"] >= 1
            without_compiling = line["tokens"] / line["seconds"]
            assert line["rates"][0] == round(without_compiling, 1)
            assert line["device"] == "cpu: cpu"
            assert line["peak_bytes"] > 0
        assert one["average_exit"] == other["average_exit"]
        assert all(one[key] == other[key] for key in ("bleu", "bleu_counts", "span"))
    kept = output.read_text().splitlines(keepends=True)
    output.write_text("".join(kept[:-2]))
    monkeypatch.delattr(models, "tune")  # all is tuned
    again = succeed(reproduce.main, *arguments)
    assert "nothing is left to do" in again.stdout
    assert output.read_text().splitlines(keepends=True)[:-2] == kept[:-2]
    assert [x["policy"] for x in read_lines(output)] == [x["policy"] for x in lines]
    rows = views.against_time(lines, "8").splitlines()[2:]
    assert sum(int(row.split("|")[3]) for row in rows) == len(whole) - LAYERS
