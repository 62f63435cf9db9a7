# SPDX-License-Identifier: Apache-2.0
"""The library's door: what it imports, what it translates, what it refuses in one line."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import pytest

import dat_jax
from dat_jax import TranslationModel
from dat_jax.data.vocabulary import EOS
from dat_jax.errors import UserError
from dat_jax.exits.parsing import parse_policy
from dat_jax.exits.rules import Confidence, Fixed, TokenMultinomial
from dat_jax.model.transformer import init_params
from dat_jax.trained import TrainedModel
from dat_jax.training.optimizer import make_optimizer
from dat_jax.training.saving import Checkpoints
from dat_jax.training.step import TrainState
from dat_jax.workdir import Run, make_model
from tests.tiny import SOURCE_VOCABULARY, random_params, tiny_config, tiny_model

REPOSITORY = Path(__file__).resolve().parent.parent
DECODING = {"beam_size": 2, "max_length_ratio": 0.5, "max_length_extra": 3, "policy": "fixed:2"}
CONFIG = tiny_config(
    data={"source": "generated:100", "vocabulary_size": 100, "max_length": 40}, decoding=DECODING
)
LINES = ["acht Uhr", "", "sieben"]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workdir with a checkpoint of random parameters."""
    run = Run(tmp_path_factory.mktemp("run"))
    vocabularies = run.prepare(CONFIG).vocabularies
    state = TrainState.create(
        random_params(make_model(CONFIG, vocabularies)), make_optimizer(CONFIG)
    )
    CONFIG.save(run.config_file)
    with Checkpoints(run.checkpoints) as checkpoints:
        checkpoints.save(state, {"vocabularies": list(vocabularies.fingerprints)})
    return run.path


@pytest.fixture(scope="module")
def model(workdir: Path) -> TranslationModel:
    return dat_jax.load(str(workdir))


@pytest.fixture(scope="module")
def of_ids() -> TranslationModel:
    """A model that came from no workdir and has no vocabularies."""
    model = tiny_model()
    config = tiny_config(decoding=DECODING)
    return TranslationModel(TrainedModel(config, model, init_params(model, jax.random.key(0))))


def test_importing_the_package_imports_no_jax():
    program = (
        "import dat_jax, sys\n"
        "unwanted = {'jax', 'flax', 'numpy', 'sentencepiece'} & set(sys.modules)\n"
        "sys.exit(repr(unwanted) if unwanted or not callable(dat_jax.load) else 0)"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr


def test_nothing_else_is_behind_the_door():
    with pytest.raises(AttributeError, match="has no attribute 'Translator'"):
        _ = dat_jax.Translator


def test_sentences_come_back_with_their_pieces_exits_and_scores(model: TranslationModel):
    translations = model.translate(LINES)
    assert [bool(translation.text) for translation in translations] == [True, False, True]
    for translation in (translations[0], translations[2]):
        assert translation.exits == (2,) * len(translation.pieces)
        assert translation.pieces[-1] == "</s>"
        assert translation.score < 0
    assert model.translate(tuple(LINES)) == translations


def test_settings_are_the_run_s_unless_others_are_named(model: TranslationModel):
    longer = model.translate(LINES, max_length_extra=30)
    assert (
        max(len(t.pieces) for t in longer) > 20 > max(len(t.pieces) for t in model.translate(LINES))
    )
    policy = parse_policy("fixed:1", CONFIG.model)
    by_text, by_rule, by_policy = (
        model.translate(LINES, policy=named, beam_size=1) for named in ("fixed:1", Fixed(1), policy)
    )
    assert by_text == by_rule == by_policy
    assert {exit for translation in by_text for exit in translation.exits} == {1}


def test_ids_are_searched_without_vocabularies_or_a_workdir(of_ids: TranslationModel):
    sources = [[5, 7, EOS], [EOS], [4, 5, 6, 7, 8, EOS]]
    result = of_ids.search(sources, policy=Confidence((0.1, 0.2)), batch_size=2)
    assert len(result.hypotheses) == 3
    for hypothesis in result.hypotheses:
        assert hypothesis.tokens[-1] == EOS
        assert len(hypothesis.tokens) == len(hypothesis.exits)
    assert result.cost.in_work == 2
    limited = of_ids.search(sources, limits=[1, 2, 1])
    assert [len(hypothesis.tokens) <= 2 for hypothesis in limited.hypotheses] == [True] * 3
    assert limited.hypotheses[0].tokens == (EOS,)


WRONG = {
    "'acht Uhr'": "translate takes a list of sentences, not str: write [text]",
    "b'acht'": "translate takes a list of sentences, not bytes: write [text]",
    "3": "translate takes a list of sentences, not int: write [text]",
    "None": "translate takes a list of sentences, not NoneType: write [text]",
    "(line for line in ['acht'])": "translate takes a list of sentences, not generator: write",
    "['acht', 3]": "translate takes a list of sentences, and item 1 is no text but int",
    "['acht'], policy=3": "policy is 3: must be a text such as 'fixed', or a rule",
    "['acht'], engine='fast'": "unknown config key engine",
    "['acht'], policy=Fixed(0)": "policy is 'fixed:0': the model has exits at depth",
    "['acht'], average_checkpoints=2": "average_checkpoints is no setting of a search: give it to",
    "['acht'], report_policies=()": "report_policies is no setting of a search: train.py reports",
}


def test_what_is_no_list_of_text_is_refused(workdir: Path):
    """Types are checked by the library alone: the calls are in a process of their own."""
    attempt = (
        "try:\n    model.translate({})\nexcept dat_jax.UserError as error:\n    print(error)\n"
    )
    calls = "".join(attempt.format(wrong) for wrong in WRONG)
    program = "import dat_jax\nfrom dat_jax.exits.rules import Fixed\n"
    program += f"model = dat_jax.load({str(workdir)!r})\n{calls}"
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    messages = run.stdout.splitlines()
    assert len(messages) == len(WRONG)
    for message, expected in zip(messages, WRONG.values(), strict=True):
        assert message.startswith(expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beam_size": 0}, "decoding.beam_size is 0: must be 1 or more"),
        ({"beamsize": 2}, "unknown config key beamsize: did you mean beam_size?"),
        ({"policy": "fixed:9"}, "the model has exits at depth 1, 2, 3"),
        ({"policy": "tuned:AE<=2"}, "nothing has been tuned, run python -m dat_jax.tuning"),
        (
            {"policy": TokenMultinomial()},
            "policy is 'token_multinomial': this model has no exit head",
        ),
    ],
)
def test_what_cannot_be_set_is_refused(model: TranslationModel, settings: Any, message: str):
    with pytest.raises(UserError) as caught:
        model.translate(LINES, **settings)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("ids", "more", "message"),
    [
        ([[5, EOS], []], {}, "source 1 is empty: let it end with EOS at the least"),
        (
            [[SOURCE_VOCABULARY, EOS]],
            {},
            "source 0 has ids that are not in [0, 13)",
        ),
        ([[5, EOS]], {"limits": [1, 2]}, "limits must be as many as there are sources"),
        (
            [[5, EOS]],
            {"limits": [0]},
            "sources, each 1 or more",
        ),
        ([[5, EOS]], {"policy": "tuned:AE<=2"}, "policy is 'tuned:AE<=2': must be one of"),
    ],
)
def test_ids_that_cannot_be_searched_are_refused(of_ids, ids: Any, more: Any, message: str):
    with pytest.raises(UserError) as caught:
        of_ids.search(ids, **more)
    assert message in str(caught.value)


def test_a_workdir_without_a_model_is_told_in_one_line(tmp_path: Path):
    with pytest.raises(UserError, match="train a model into this workdir first"):
        dat_jax.load(tmp_path)


@pytest.mark.slow
def test_a_wheel_outside_the_checkout_loads_and_translates(workdir: Path, tmp_path: Path):
    """The wheel is built and unpacked without a network; what it needs, this environment has."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    source = tmp_path / "source"
    shutil.copytree(REPOSITORY / "dat_jax", source / "dat_jax")
    for name in ("pyproject.toml", "requirements.txt", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    wheels, site, elsewhere = (tmp_path / name for name in ("wheels", "site", "elsewhere"))
    elsewhere.mkdir()
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", f"--wheel-dir={wheels}"]
    subprocess.run([*build, str(source)], check=True)
    (wheel,) = wheels.glob("dat_jax-*.whl")
    subprocess.run([*pip, "install", "--no-deps", f"--target={site}", str(wheel)], check=True)
    program = (
        "import dat_jax, sys\n"
        f"assert dat_jax.__file__.startswith({str(site)!r}), dat_jax.__file__\n"
        f"translations = dat_jax.load({str(workdir)!r}).translate({LINES!r}, policy='fixed:1')\n"
        "print(len(translations), translations[0].exits[0])"
    )
    run = subprocess.run(
        [sys.executable, "-c", program],
        cwd=elsewhere,
        env={"PATH": "", "PYTHONPATH": str(site), "JAX_PLATFORMS": "cpu", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == ["3", "1"]
