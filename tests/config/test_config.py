# SPDX-License-Identifier: Apache-2.0
"""Valid configs load unchanged, impossible ones give a one-line error, and every file builds."""

import copy
import dataclasses
import importlib
import json
import math
import typing
from pathlib import Path
from typing import Any

import jax
import pytest

from configs import base, decode
from dat_jax import __version__
from dat_jax.config import Config, DecodingConfig
from dat_jax.config.schema import from_dict
from dat_jax.errors import UserError
from dat_jax.model.transformer import Transformer, init_params
from dat_jax.storage.stamped import FORMAT
from decode import TextConfig

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
TRAINING_CONFIGS = sorted(
    path.stem for path in CONFIGS.glob("*.py") if path.stem not in ("__init__", "decode")
)


def changed(changes: dict[str, Any]) -> dict[str, Any]:
    """The defaults with some values replaced, such as `{"model.norm": "pre"}`."""
    values = copy.deepcopy(base.get_config().to_dict())
    for path, value in changes.items():
        *sections, key = path.split(".")
        section = values
        for name in sections:
            section = section[name]
        section[key] = value
    return values


def refusal(values: Any) -> str:
    """The one-line error for `values`."""
    with pytest.raises(UserError) as caught:
        Config.from_dict(values)
    message = str(caught.value)
    assert message.strip()
    assert "\n" not in message
    return message


def test_the_defaults_survive_a_round_trip(tmp_path):
    config = Config.from_dict(base.get_config().to_dict())
    config.save(tmp_path / "config.json")
    assert Config.load(tmp_path / "config.json") == config
    written = json.loads((tmp_path / "config.json").read_text())
    assert (written.pop("format"), written.pop("version")) == (FORMAT, __version__)
    assert written == changed(  # JSON has no tuples
        {"decoding.report_policies": [], "training.bleu_exits": []}
    )


@pytest.mark.parametrize("policies", [(), ("fixed:2",), ("uniform", "confidence:0.5,0.9")])
def test_tuples_survive_a_round_trip(tmp_path, policies):
    config = Config.from_dict(changed({"decoding.report_policies": policies}))
    config.save(tmp_path / "config.json")
    loaded = Config.load(tmp_path / "config.json")
    assert loaded == config
    assert loaded.decoding.report_policies == policies
    assert hash(loaded) == hash(config)


def test_profiled_steps_include_both_ends():
    for text, steps in [("", []), ("10-12", [10, 11, 12]), ("50000-50000", [50_000])]:
        config = Config.from_dict(changed({"training.profile": text}))
        assert list(config.training.profiled_steps) == steps


def test_changed_values_survive_a_round_trip(tmp_path):
    config = Config.from_dict(changed({"data.source": "text:Straße", "model.dropout": 0}))
    config.save(tmp_path / "config.json")
    loaded = Config.load(tmp_path / "config.json")
    assert loaded == config
    assert loaded.data.source == "text:Straße"
    assert type(loaded.model.dropout) is float  # an int is accepted for a float


def test_base_has_exactly_the_keys_of_the_dataclasses():
    values = base.get_config().to_dict()
    sections = typing.get_type_hints(Config)
    assert values.keys() == sections.keys()
    for name, section in sections.items():
        assert values[name].keys() == {field.name for field in dataclasses.fields(section)}


def test_decode_has_exactly_the_keys_of_decoding_and_text_with_their_types():
    config = decode.get_config()
    expected = typing.get_type_hints(DecodingConfig) | typing.get_type_hints(TextConfig)
    expected["checkpoint"] = str  # chosen before either is used
    del expected["report_policies"], expected["report_split"]  # only for train.py
    assert set(config.keys()) == set(expected)
    for key, kind in expected.items():
        literal = typing.get_origin(kind) is typing.Literal
        assert config.get_type(key) is (str if literal else kind)


def test_the_text_defaults_of_decode_are_valid():
    config = decode.get_config()
    names = [field.name for field in dataclasses.fields(TextConfig)]
    assert from_dict(TextConfig, {name: config[name] for name in names}).split == "test"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("model.dropuot", "unknown config key model.dropuot: did you mean model.dropout?"),
        ("modle", "unknown config key modle: did you mean model?"),
        ("training.stepz", "unknown config key training.stepz: did you mean training.steps?"),
        ("data.xyzzy", "unknown config key data.xyzzy"),
    ],
)
def test_the_error_for_an_unknown_key_suggests_a_known_one(path, message):
    assert refusal(changed({path: 1})) == message


@pytest.mark.parametrize("path", ["optimizer", "data.seed", "decoding.policy"])
def test_the_error_for_a_missing_key_names_it(path):
    values = changed({})
    section, _, key = path.partition(".")
    del (values[section] if key else values)[key or section]
    assert refusal(values) == f"missing config key {path}: add it"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (
            "model.decoder_layers",
            "6",
            "model.decoder_layers is '6': must be an integer, such as 20",
        ),
        (
            "model.decoder_layers",
            6.0,
            "model.decoder_layers is 6.0: must be an integer, such as 20",
        ),
        (
            "model.decoder_layers",
            True,
            "model.decoder_layers is True: must be an integer, such as 20",
        ),
        ("model.dropout", "0.1", "model.dropout is '0.1': must be a number, such as 0.5"),
        ("model.dropout", False, "model.dropout is False: must be a number, such as 0.5"),
        ("data.source", None, "data.source is None: must be text"),
        ("model.norm", "mid", "model.norm is 'mid': must be one of post, pre"),
        ("model.norm", "post\npre", r"model.norm is 'post\npre': must be one of post, pre"),
        (
            "training.loss_weights",
            1,
            "training.loss_weights is 1: must be one of 1, n, sqrt_n, 1/sqrt_n, 1/n",
        ),
        ("data", 3, "config.data is 3: must be a section"),
        ("exit", None, "config.exit is None: must be a section"),
        (
            "model.exit_head",
            "geometric",
            "model.exit_head is 'geometric': must be one of none, sequence_multinomial, "
            "token_multinomial, token_geometric",
        ),
        (
            "exit.oracle",
            "bleu",
            "exit.oracle is 'bleu': must be one of likelihood, correctness, agreement",
        ),
        (
            "optimizer.schedule",
            "step",
            "optimizer.schedule is 'step': must be one of inverse_sqrt, constant, linear, cosine",
        ),
        ("training.mode", "both", "training.mode is 'both': must be one of aligned, mixed"),
        (
            "training.exit_samples",
            1.0,
            "training.exit_samples is 1.0: must be an integer, such as 20",
        ),
        *(
            (path, value, f"{path} is {value!r}: must be a tuple of str, such as ('a', 'b'), or ()")
            for path in ["decoding.report_policies"]
            for value in ("fixed", None, 3, (1,), ["fixed", 1], [["fixed"]], {"fixed": 1})
        ),
        (
            "training.bleu_exits",
            6,
            "training.bleu_exits is 6: must be a tuple of int, such as (1, 2), or ()",
        ),
    ],
)
def test_a_value_of_the_wrong_type_is_refused(path, value, message):
    assert refusal(changed({path: value})) == message


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        ("data.source", "file.txt", "must be generated:[PAIRS], text:DIR or tfds:NAME"),
        ("data.source", "text", "must be generated:[PAIRS], text:DIR or tfds:NAME"),
        ("data.vocabulary_size", 4, "must be 5 or more"),
        ("data.max_length", 1, "must be 2 or more"),
        *(
            ("data.max_length_ratio", ratio, "must be 1 or more, or 0")
            for ratio in (-1.5, 0.5, math.inf, math.nan)
        ),
        ("data.valid_every", 1, "must be 2 or more, or 0"),
        ("data.valid_every", -23, "must be 2 or more, or 0"),
        ("data.seed", -1, "must be 0 or more"),
        ("training.seed", 1 << 32, "must be below 2**32"),
        ("model.decoder_layers", 0, "must be 1 or more"),
        ("model.encoder_dim", 0, "must be 1 or more"),
        ("model.encoder_dim", 7, "must be even"),
        ("model.decoder_heads", 0, "must be 1 or more"),
        ("model.decoder_heads", 3, "must be a multiple of model.decoder_heads, 3"),
        ("model.dropout", 1.0, "must be in [0, 1)"),
        ("model.attention_dropout", -0.1, "must be in [0, 1)"),
        ("optimizer.learning_rate", -1.0, "must be 0 or more"),
        ("optimizer.learning_rate", math.nan, "must be 0 or more, and finite"),
        ("decoding.max_length_ratio", math.inf, "must be 0 or more, and finite"),
        ("optimizer.warmup_steps", 0, "must be 1 or more"),
        ("optimizer.beta2", 1.0, "must be in [0, 1)"),
        ("optimizer.epsilon", 0.0, "must be above 0, and finite"),
        ("optimizer.clip_norm", -1.0, "must be 0 or more"),
        ("training.steps", 0, "must be 1 or more"),
        ("training.microbatches", 0, "must be 1 or more"),
        ("training.label_smoothing", 1.0, "must be in [0, 1)"),
        ("training.exit_samples", 0, "must be 1 or more"),
        ("training.gradient_scaling", -0.1, "must be 0 or more"),
        ("training.gradient_from_above", 1.5, "must be in [0, 1]"),
        ("model.layer_drop", 1.0, "must be in [0, 1)"),
        ("model.halting_hidden", -1, "must be 0 or more"),
        *(
            ("training.checkpoint_folder", folder, "with / or ~, gs://BUCKET/FOLDER, or empty")
            for folder in ("checkpoints", "./checkpoints", "s3://bucket/run")
        ),
        *(
            (
                "training.profile",
                steps,
                "must be START-STOP, two steps from 1 to training.steps, 50000, or empty",
            )
            for steps in ("5", "0-3", "9-8", "49999-50001", "1-2-3", " 1-2", "1-2\n", "a-b")
        ),
        ("exit.exit_penalty", -0.1, "must be 0 or more"),
        ("exit.exit_penalty", math.inf, "must be 0 or more, and finite"),
        ("exit.oracle_smoothing", -1.0, "must be 0 or more"),
        ("exit.loss_weight", -0.5, "must be 0 or more"),
        ("exit.start_step", -1, "must be 0 or more"),
        ("decoding.beam_size", 0, "must be 1 or more"),
        ("decoding.length_penalty", -0.5, "must be 0 or more"),
        ("decoding.batch_size", -1, "must be 0 or more"),
        ("decoding.shortlist", -1, "must be 0 or more"),
        ("decoding.trailing_gap", -0.5, "must be 0 or more"),
        ("decoding.trailing_gap", math.inf, "must be 0 or more, and finite"),
        ("decoding.max_length_extra", 0, "must be 1 or more"),
        ("decoding.max_source_length", -1, "must be 0 or more"),
        ("decoding.max_source_length", 1, "must be 2 or more, as it counts </s>, or 0"),
        ("decoding.average_checkpoints", 6, "must be at most training.keep_checkpoints, 5"),
    ],
)
def test_an_impossible_value_is_refused(path, value, complaint):
    message = refusal(changed({path: value}))
    assert message.endswith(complaint)
    section, _, key = path.partition(".")
    assert f"{section}." in message
    assert key in message or "decoder_dim" in message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {},
            "model.encoder_dim and model.decoder_dim must be equal, not 512 and 256",
        ),
        (
            {"model.decoder_dim": 512, "model.classifiers": "per_exit"},
            "model.classifiers must be shared",
        ),
        (
            {"model.decoder_dim": 512, "data.vocabulary": "separate"},
            "data.vocabulary must be joint",
        ),
    ],
)
def test_tied_embeddings_require_equal_sizes_and_one_vocabulary(changes, message):
    tied = {"model.embeddings": "tied"} | changes
    assert refusal(changed(tied)) == f"model.embeddings is tied: {message}"


def test_target_embeddings_require_a_shared_classifier():
    changes = {"model.embeddings": "target", "model.classifiers": "per_exit"}
    assert refusal(changed(changes)) == (
        "model.embeddings is target: model.classifiers must be shared"
    )


@pytest.mark.parametrize("changes", [{"model.exits": "last"}, {"model.decoder_layers": 1}])
@pytest.mark.parametrize("head", ["sequence_multinomial", "token_multinomial", "token_geometric"])
def test_an_exit_head_requires_several_exits(head, changes):
    assert refusal(changed({"model.exit_head": head} | changes)) == (
        f"model.exit_head is {head}: model.exits must be all and model.decoder_layers 2 or more, "
        "or there is no exit to choose"
    )


@pytest.mark.parametrize("trains", ["head", "head_alone"])
def test_training_a_head_requires_a_head(trains):
    assert refusal(changed({"exit.trains": trains})) == (
        f"exit.trains is {trains} and model.exit_head is none: choose a head, or set exit.trains "
        "to model_and_head"
    )


@pytest.mark.parametrize(
    "changes", [{"model.exits": "last"}, {"model.exit_head": "token_geometric"}]
)
def test_mixed_training_requires_all_exits_and_no_head(changes):
    assert refusal(changed({"training.mode": "mixed"} | changes)) == (
        "training.mode is mixed: model.exits must be all and model.exit_head none; train an exit "
        "head in a second, aligned run, with training.initial_workdir"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bleu_exits": (2, 7)}, "bleu_exits has 7: must be depths with an exit, of 1, 2, 3, 4"),
        ({"best_by": "exit_loss"}, "best_by is exit_loss and model.exit_head is none: choose"),
        ({"best_by": "bleu"}, "best_by is bleu and training.bleu_every is 0: set it to"),
        (
            {"best_by": "bleu", "bleu_every": 1_500},
            "best_by is bleu: training.bleu_every, 1500, must be a multiple of "
            "training.checkpoint_every, 1000",
        ),
        (
            {"patience": 3, "validate_every": 500},
            "patience is 3: training.validate_every, 500, must be a multiple of "
            "training.checkpoint_every, 1000",
        ),
    ],
)
def test_what_decides_on_the_best_checkpoint_is_measured_and_saved(changes, message):
    refused = refusal(changed({f"training.{key}": value for key, value in changes.items()}))
    assert refused.startswith(f"training.{message}")


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_a_falling_schedule_requires_steps_after_the_warmup(schedule):
    steps = {"optimizer.warmup_steps": 100, "training.steps": 100}
    assert refusal(changed({"optimizer.schedule": schedule} | steps)) == (
        f"optimizer.schedule is {schedule}: optimizer.warmup_steps, 100, must be below "
        "training.steps, 100"
    )


@pytest.mark.parametrize(("key", "off"), [("gradient_scaling", 0.0), ("gradient_from_above", 1.0)])
def test_gradient_weights_of_exits_require_aligned_training(key, off):
    changes = {"training.mode": "mixed", f"training.{key}": 0.3}
    assert refusal(changed(changes)) == (
        f"training.{key} is 0.3: must be {off} unless training.mode is aligned"
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"training.mode": "mixed", "training.exit_samples": 3},
        {"training.gradient_scaling": 0.3},
        {"training.validate_every": 300},
        {"training.patience": 3, "training.best_by": "bleu", "training.bleu_every": 2_000},
        {"training.gradient_from_above": 0.0, "training.loss_weights": "n"},
        {"model.embeddings": "target", "data.vocabulary": "separate"},
        {"model.exit_head": "token_geometric", "exit.trains": "head_alone"},
        {"model.exit_head": "sequence_multinomial", "model.decoder_layers": 2},
        {"model.exit_head": "token_multinomial", "training.gradient_scaling": 0.3},
        {"model.exit_head": "token_multinomial", "model.halting_hidden": 64},
        {"model.exits": "last", "model.decoder_layers": 1},
        {"data.max_length_ratio": 1, "data.valid_every": 2},
        {"optimizer.schedule": "constant", "training.steps": 1, "optimizer.warmup_steps": 1},
        {"optimizer.schedule": "cosine", "training.steps": 2, "optimizer.warmup_steps": 1},
        {"exit.exit_penalty": 0, "exit.oracle_smoothing": 0, "exit.loss_weight": 0},
    ],
)
def test_allowed_combinations_are_accepted(changes):
    config = Config.from_dict(changed(changes))
    for path, value in changes.items():
        section, key = path.split(".")
        assert getattr(getattr(config, section), key) == value


def test_a_reference_requires_an_input():
    values = {"split": "test", "input": "", "reference": "test.en", "output": "", "resume": False}
    values |= {"n_best": 0, "format": "text", "score": ""}
    with pytest.raises(UserError, match=r"^reference is set but input is not"):
        from_dict(TextConfig, values)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (None, "does not exist: train a model into this workdir first"),
        ("{", "is not valid JSON: restore it or use another workdir"),
        ("{}", "written by dat_jax 0.1.0: missing config key data: add it"),
        ("3", "is not valid JSON: restore it or use another workdir"),
    ],
)
def test_a_workdir_without_a_valid_config_is_one_error(tmp_path, text, complaint):
    path = tmp_path / "config.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError) as caught:
        Config.load(path)
    assert str(caught.value).endswith(complaint)
    assert "\n" not in str(caught.value)


def test_exit_depths_are_all_blocks_or_the_last():
    all_exits = Config.from_dict(changed({"model.decoder_layers": 3}))
    last = Config.from_dict(changed({"model.decoder_layers": 3, "model.exits": "last"}))
    assert all_exits.model.exit_depths == (1, 2, 3)
    assert last.model.exit_depths == (3,)


@pytest.mark.parametrize("name", TRAINING_CONFIGS)
def test_every_training_config_builds_a_model(name):
    values = importlib.import_module(f"configs.{name}").get_config().to_dict()
    config = Config.from_dict(values)
    size = config.data.vocabulary_size
    params = jax.eval_shape(
        lambda key: init_params(Transformer(config.model, size, size), key), jax.random.key(0)
    )
    query = params["decoder"]["blocks"]["self_attention"]["query"]["kernel"]
    assert query.shape[:2] == (config.model.decoder_layers, config.model.decoder_dim)
