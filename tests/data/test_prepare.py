# SPDX-License-Identifier: Apache-2.0
"""Preparing data: once, completely, never over other data, and without importing JAX."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dat_jax.config import DataConfig
from dat_jax.data import dataset, preparation
from dat_jax.data.dataset import Dataset
from dat_jax.data.sources import open_source
from dat_jax.data.splits import SPLITS
from dat_jax.errors import UserError
from tests.tiny import tiny_config

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIG = tiny_config(
    data={"source": "generated:300", "vocabulary_size": 200, "max_length": 128}
).data


def prepare(config: DataConfig, folder: Path) -> Dataset:
    return preparation.prepare(config, folder / "data", folder / "vocabulary")


def open_dataset(folder: Path) -> Dataset:
    return dataset.open_dataset(folder / "data", folder / "vocabulary")


def contents(workdir: Path) -> dict[Path, tuple[bytes, int]]:
    return {
        path: (path.read_bytes(), path.stat().st_mtime_ns)
        for path in workdir.rglob("*")
        if path.is_file()
    }


def test_preparing_writes_everything(tmp_path: Path) -> None:
    data = prepare(CONFIG, tmp_path)
    assert {split: len(file) for split in SPLITS if (file := data.tokens(split))} == {
        "train": 300,
        "valid": 30,
        "test": 30,
    }
    assert data.vocabularies.source.fingerprint == data.vocabularies.target.fingerprint
    sources, references = data.text("test")
    for index, pair in enumerate(zip(sources, references, strict=True)):
        source, target = data.tokens("test")[index]
        of_source, of_target = data.vocabularies
        assert (of_source.decode(source), of_target.decode(target)) == pair
    assert data.report().splitlines()[0].startswith("train: 300 pairs, ")
    assert [path.name for path in (tmp_path / "vocabulary").iterdir()] == ["joint.model"]


def test_separate_vocabularies(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, vocabulary="separate", vocabulary_size=120)
    data = prepare(config, tmp_path)
    names = {path.name for path in (tmp_path / "vocabulary").iterdir()}
    assert names == {"source.model", "target.model"}
    assert data.vocabularies.source.fingerprint != data.vocabularies.target.fingerprint
    source, target = data.tokens("train")[0]
    assert "ü" not in data.vocabularies.target.decode(target)
    assert data.vocabularies.source.decode(source) != data.vocabularies.target.decode(target)


def test_the_suggested_vocabulary_size_works_for_both_sides(tmp_path: Path) -> None:
    """Each side in turn is the limiting one."""
    for source, target in ((0, 1), (1, 0)):
        for split in ("train", "valid", "test"):
            lines = (["eins zwei"] * 9, ["one two three four five six seven"] * 9)
            for side, suffix in ((source, "src"), (target, "tgt")):
                (tmp_path / f"{split}.{suffix}").write_text("\n".join(lines[side]) + "\n")
        config = dataclasses.replace(CONFIG, source=f"text:{tmp_path}", vocabulary="separate")
        with pytest.raises(UserError, match=r"set it to \d+ or less") as caught:
            prepare(dataclasses.replace(config, vocabulary_size=500), tmp_path / f"work{source}")
        largest = int(str(caught.value).split()[-3])
        prepare(dataclasses.replace(config, vocabulary_size=largest), tmp_path / f"good{source}")
        with pytest.raises(UserError, match=r"set it to \d+ or more") as caught:
            prepare(dataclasses.replace(config, vocabulary_size=7), tmp_path / f"work{source}")
        smallest = int(str(caught.value).split()[-3])
        prepare(dataclasses.replace(config, vocabulary_size=smallest), tmp_path / f"less{source}")


@pytest.mark.parametrize("most", [1, 7, 99])
def test_vocabularies_are_trained_on_a_sample_of_large_text(
    monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """The sample has a fixed size, no duplicates, and is the same each time."""
    monkeypatch.setattr(preparation, "_MOST_PAIRS", most)
    pairs = [(str(number), str(-number)) for number in range(100)]
    taken = list(preparation._sample(pairs))
    assert len(set(taken)) == len(taken) == most
    assert set(taken) <= set(pairs)
    assert list(preparation._sample(pairs)) == taken
    assert list(preparation._sample(pairs[:most])) == pairs[:most]


def test_each_pair_is_equally_likely_to_be_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparation, "_MOST_PAIRS", 4_000)
    numbers = [
        int(source) for source, _ in preparation._sample((str(n), "") for n in range(10_000))
    ]
    shares = np.bincount(np.asarray(numbers) // 1_000) / 1_000
    np.testing.assert_allclose(shares, 0.4, atol=0.06)  # four standard deviations


def test_the_sample_determines_the_vocabularies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = prepare(CONFIG, tmp_path / "whole")
    monkeypatch.setattr(preparation, "_MOST_PAIRS", 150)
    part = prepare(CONFIG, tmp_path / "part")
    assert part.vocabularies.fingerprints != whole.vocabularies.fingerprints
    assert len(part.tokens("train")) == len(whole.tokens("train")) == 300


def test_preparing_again_changes_nothing(tmp_path: Path) -> None:
    prepare(CONFIG, tmp_path)
    before = contents(tmp_path)
    again = prepare(CONFIG, tmp_path)
    assert contents(tmp_path) == before
    assert open_dataset(tmp_path).report() == again.report()


def test_another_config_is_refused(tmp_path: Path) -> None:
    prepare(CONFIG, tmp_path)
    before = contents(tmp_path)
    with pytest.raises(UserError, match=r"data\.max_length = 128, not 64: give another --workdir"):
        prepare(dataclasses.replace(CONFIG, max_length=64, seed=1), tmp_path)
    assert contents(tmp_path) == before


def test_the_same_text_under_another_path_is_accepted(tmp_path: Path) -> None:
    text, run = tmp_path / "text", tmp_path / "run"
    text.mkdir()
    for name in ("train", "valid", "test"):
        for side in ("de", "en"):
            (text / f"{name}.{side}").write_text("eins zwei drei\n" * 20)
    (tmp_path / "link").symlink_to("text")
    config = dataclasses.replace(CONFIG, vocabulary_size=20)
    prepare(dataclasses.replace(config, source=f"text:{text}"), run)
    before = contents(run)
    for name in ("text/", "a/../text", "link"):
        prepare(dataclasses.replace(config, source=f"text:{tmp_path}/{name}"), run)
    with pytest.raises(UserError, match=r"was prepared from data\.source = "):
        prepare(dataclasses.replace(config, source=f"text:{text}s"), run)
    assert contents(run) == before


def test_interrupted_preparation_is_repeated(tmp_path: Path) -> None:
    expected = prepare(CONFIG, tmp_path).report()
    (tmp_path / "data" / "config.json").unlink()
    (tmp_path / "data" / "valid" / "tokens.bin").unlink()
    assert prepare(CONFIG, tmp_path).report() == expected


def test_text_of_validation_and_test_is_never_filtered(tmp_path: Path) -> None:
    lines = ["eins zwei drei", "", "eins " * 50, "drei zwei"]
    for name in ("train", "valid", "test"):
        for side in ("src", "tgt"):
            (tmp_path / f"{name}.{side}").write_bytes("".join(f"{x}\n" for x in lines).encode())
    config = dataclasses.replace(
        CONFIG, source=f"text:{tmp_path}", vocabulary_size=20, max_length=20
    )
    data = prepare(config, tmp_path / "work")
    assert data.text("test") == (lines, lines)
    header = data.tokens("test").header
    assert (header.pairs, header.blank, header.too_long) == (2, 1, 1)


def test_valid_every_holds_out_validation_pairs(tmp_path: Path) -> None:
    """Their text is unfiltered, and neither the vocabulary nor training sees them."""
    whole = prepare(CONFIG, tmp_path / "whole")
    config = dataclasses.replace(CONFIG, valid_every=7, max_length_ratio=1.3)
    data = prepare(config, tmp_path / "part")
    pairs = list(open_source(CONFIG).pairs("train"))
    assert list(zip(*data.text("valid"), strict=True)) == pairs[6::7]
    assert data.vocabularies.fingerprints != whole.vocabularies.fingerprints
    assert data.text("test") == whole.text("test")
    assert len(data.text("valid")[0]) == 300 // 7
    for split, size in (("train", 300 - 300 // 7), ("valid", 300 // 7), ("test", 30)):
        header = data.tokens(split).header
        assert 0 < header.lopsided == size - header.pairs
    for key, value in (("valid_every", 6), ("max_length_ratio", 1.5)):
        with pytest.raises(UserError, match=rf"was prepared with data\.{key} = "):
            prepare(dataclasses.replace(config, **{key: value}), tmp_path / "part")


def test_invisible_text_counts_as_blank(tmp_path: Path) -> None:
    for name in ("train", "valid", "test"):
        for side in ("src", "tgt"):
            (tmp_path / f"{name}.{side}").write_bytes("\u200b\n\ufeff\n\u200e\n".encode())
    config = dataclasses.replace(CONFIG, source=f"text:{tmp_path}", vocabulary_size=20)
    with pytest.raises(UserError, match=r"data\.source has only blank lines"):
        prepare(config, tmp_path / "work")


@pytest.mark.parametrize("vocabulary", ["joint", "separate"])
def test_targets_keep_their_characters(tmp_path: Path, vocabulary: str) -> None:
    """Sources are folded."""
    for name in ("train", "valid", "test"):
        for side in ("src", "tgt"):
            (tmp_path / f"{name}.{side}").write_bytes("20 m² … ｆｕｌｌ，e\u0301\n".encode() * 3)
    changes = {"source": f"text:{tmp_path}", "vocabulary_size": 27, "vocabulary": vocabulary}
    data = prepare(dataclasses.replace(CONFIG, **changes), tmp_path / "work")
    source, target = data.tokens("test")[0]
    assert data.vocabularies.source.decode(source) == "20 m2 ... full,é"
    assert data.vocabularies.target.decode(target) == "20 m² … ｆｕｌｌ，é"


def test_opening_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no prepared data"):
        open_dataset(tmp_path)


def test_another_vocabulary_is_noticed(tmp_path: Path) -> None:
    prepare(CONFIG, tmp_path / "one")
    prepare(dataclasses.replace(CONFIG, seed=1), tmp_path / "two")
    model = Path("vocabulary", "joint.model")
    (tmp_path / "one" / model).write_bytes((tmp_path / "two" / model).read_bytes())
    with pytest.raises(UserError, match="are not those of"):
        open_dataset(tmp_path / "one").tokens("valid")


def test_imports_neither_jax_nor_tensorflow_datasets() -> None:
    program = (
        "import dat_jax.data.preparation, dat_jax.data.batching, sys\n"
        "unwanted = {'jax', 'tensorflow_datasets', 'num2words'} & set(sys.modules)\n"
        "sys.exit(repr(unwanted) if unwanted else 0)"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
