# SPDX-License-Identifier: Apache-2.0
"""Vocabularies given as files replace trained ones; files that do not fit are refused."""

import dataclasses
import io
from pathlib import Path
from typing import Any

import pytest
import sentencepiece

from dat_jax.config import DataConfig
from dat_jax.data import preparation
from dat_jax.data.dataset import Dataset
from dat_jax.data.sources.generated import GeneratedCorpus
from dat_jax.data.splits import SPLITS
from dat_jax.errors import UserError
from tests.storage.test_checksums import touch
from tests.tiny import tiny_config

CONFIG = tiny_config(
    data={"source": "generated:300", "vocabulary_size": 200, "max_length": 128}
).data
TRAINED_ELSEWHERE = {"pad_id": 0, "unk_id": 1, "bos_id": 2, "eos_id": 3}


def prepare(folder: Path, **changes: Any) -> Dataset:
    config = dataclasses.replace(CONFIG, **changes)
    return preparation.prepare(config, folder / "data", folder / "vocabulary")


def complaint(folder: Path, **changes: Any) -> str:
    with pytest.raises(UserError) as caught:
        prepare(folder, **changes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def trained_elsewhere(path: Path, rules: str = "identity", size: int = 130, **ids: int) -> str:
    """Trains a model with SentencePiece itself; returns its path."""
    model = io.BytesIO()
    sentences = [side for pair in GeneratedCorpus(300, seed=3).pairs("train") for side in pair]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences),
        model_writer=model,
        vocab_size=size,
        model_type="unigram",
        normalization_rule_name=rules,
        minloglevel=2,
        **(TRAINED_ELSEWHERE | ids),
    )
    path.write_bytes(model.getvalue())
    return str(path)


@pytest.fixture(scope="module")
def joint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workdir that trained a joint vocabulary."""
    folder = tmp_path_factory.mktemp("joint")
    prepare(folder)
    return folder


@pytest.mark.parametrize("target", [False, True])
def test_a_given_vocabulary_gives_the_data_of_the_same_one_trained(
    joint: Path, tmp_path: Path, target: bool
):
    file = str(joint / "vocabulary" / "joint.model")
    given = {"source_vocabulary": file, "target_vocabulary": file if target else ""}
    data = prepare(tmp_path, **given, vocabulary_size=5)  # which only a trained one has
    assert data.vocabularies.source.size == data.vocabularies.target.size == 200
    for split in SPLITS:
        name = Path("data", split, "tokens.bin")
        assert (tmp_path / name).read_bytes() == (joint / name).read_bytes()
    assert [path.name for path in (tmp_path / "vocabulary").iterdir()] == ["joint.model"]


def test_one_of_two_vocabularies_may_be_given(joint: Path, tmp_path: Path):
    separate: dict[str, Any] = {"vocabulary": "separate", "vocabulary_size": 120}
    whole = prepare(tmp_path / "trained", **separate).vocabularies
    file = str(joint / "vocabulary" / "joint.model")
    shared = prepare(joint).vocabularies.source.fingerprint
    source = prepare(tmp_path / "source", **separate, source_vocabulary=file).vocabularies
    assert source.fingerprints == (shared, whole.target.fingerprint)
    target = prepare(tmp_path / "target", **separate, target_vocabulary=file).vocabularies
    assert target.fingerprints == (whole.source.fingerprint, shared)


def test_a_model_that_normalises_itself_is_used_as_it_is(tmp_path: Path):
    file = trained_elsewhere(tmp_path / "own.model", "nmt_nfkc_cf")
    keys = "set data.source_normalization and data.target_normalization to none"
    message = complaint(tmp_path / "run", source_vocabulary=file)
    assert message.endswith(f"normalises text itself (by nmt_nfkc_cf): {keys}")
    separate: dict[str, Any] = {"vocabulary": "separate", "vocabulary_size": 120}
    message = complaint(tmp_path / "run", target_vocabulary=file, **separate)
    assert message.endswith(": set data.target_normalization to none")
    forms = {"source_normalization": "none", "target_normalization": "none"}
    data = prepare(tmp_path / "run", source_vocabulary=file, **forms)
    processor = sentencepiece.SentencePieceProcessor(model_file=file)
    lines = [line for line in data.text("valid")[0] if "ß" not in line]  # which is no capital
    expected = [[*ids, 3] for ids in processor.encode(lines)]
    assert data.vocabularies.source.encode([line.upper() for line in lines]) == expected
    assert [list(data.tokens("valid")[0][0])] == data.vocabularies.source.encode(
        data.text("valid")[0][:1]
    )


def test_files_that_are_no_vocabularies_are_refused(tmp_path: Path):
    def refused(key: str, file: Path, **changes: Any) -> str:
        message = complaint(tmp_path / "run", **{key: str(file)}, **changes)
        assert message.startswith(f"data.{key} is {file}, ")
        assert not (tmp_path / "run").exists()
        return message

    file = tmp_path / "file.model"
    assert "which cannot be read (No such file" in refused("source_vocabulary", file)
    assert "(Is a directory): give a Sent" in refused("source_vocabulary", tmp_path)
    for content in (b"", b"<unk>\t0\n<s>\t0\n", b"\x00" * 99):
        file.write_bytes(content)
        separate = {"vocabulary": "separate"}
        message = refused("target_vocabulary", file, **separate)
        assert "is not a SentencePiece model: give the .model file" in message


def test_the_special_ids_that_differ_are_named(tmp_path: Path):
    usual = trained_elsewhere(tmp_path / "usual.model", pad_id=-1, unk_id=0, bos_id=1, eos_id=2)
    message = complaint(tmp_path / "run", source_vocabulary=usual)
    differ = "(pad is -1, not 0; unk is 0, not 1; bos is 1, not 2; eos is 2, not 3; -1 is none)"
    assert differ in message
    assert message.endswith("train it with spm_train --pad_id=0 --unk_id=1 --bos_id=2 --eos_id=3")
    swapped = trained_elsewhere(tmp_path / "swapped.model", bos_id=3, eos_id=2)
    message = complaint(tmp_path / "run", source_vocabulary=swapped)
    assert "(bos is 3, not 2; eos is 2, not 3; -1 is none)" in message


def test_a_file_that_has_changed_is_noticed_and_one_that_has_gone_is_not(tmp_path: Path):
    file = Path(trained_elsewhere(tmp_path / "own.model"))
    (tmp_path / "a").mkdir()
    changes = {"source_vocabulary": f"{tmp_path}/a/../own.model"}
    before = prepare(tmp_path / "run", **changes)
    assert before.config.source_vocabulary == str(file)
    touch(file)
    prepare(tmp_path / "run", source_vocabulary=str(file))
    good = file.read_bytes()
    trained_elsewhere(file, size=131)
    message = complaint(tmp_path / "run", **changes)
    assert f"data.source_vocabulary is {file.parent}/a/../own.model, which has changed" in message
    file.unlink()
    again = prepare(tmp_path / "run", **changes)
    assert again.vocabularies.fingerprints == before.vocabularies.fingerprints
    assert "was prepared with data.source_vocabulary = " in complaint(tmp_path / "run")
    file.write_bytes(good)
    prepare(tmp_path / "run", **changes)


def test_a_joint_vocabulary_has_one_file():
    with pytest.raises(UserError, match=r"is joint: give the one file as data.source_vocabulary"):
        dataclasses.replace(CONFIG, target_vocabulary="some.model")
    both = {"source_vocabulary": "some.model", "target_vocabulary": "some.model"}
    assert DataConfig(**(dataclasses.asdict(CONFIG) | both)).vocabulary_files == ("some.model",) * 2
