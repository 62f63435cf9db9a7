# SPDX-License-Identifier: Apache-2.0
"""The public API: imports, translations, searches and one-line errors."""

import pickle
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dat_jax
from dat_jax import TranslationModel
from dat_jax.checkpoints.state import TrainState
from dat_jax.checkpoints.write import Checkpoints
from dat_jax.data.vocabulary import BOS, EOS, PAD, UNK
from dat_jax.decoding.trained import TrainedModel
from dat_jax.errors import UserError
from dat_jax.exits.parsing import Policy, parse_policy
from dat_jax.exits.rules import Confidence, Fixed, TokenMultinomial
from dat_jax.model.transformer import init_params
from dat_jax.runs.workdir import Run, make_model
from dat_jax.training.optimizer import make_optimizer
from dat_jax.tuning.fronts import save_front
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
    """A model without workdir and vocabularies."""
    model = tiny_model()
    config = tiny_config(decoding=DECODING)
    return TranslationModel(TrainedModel(config, model, init_params(model, jax.random.key(0))))


def test_importing_the_package_does_not_import_jax():
    program = (
        "import dat_jax, sys\n"
        "unwanted = {'jax', 'flax', 'numpy', 'sentencepiece'} & set(sys.modules)\n"
        "sys.exit(repr(unwanted) if unwanted or not callable(dat_jax.load) else 0)"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr


def test_the_package_exports_nothing_else():
    with pytest.raises(AttributeError, match="has no attribute 'Translator'"):
        _ = dat_jax.Translator


def test_translations_have_pieces_exits_and_scores(model: TranslationModel):
    translations = model.translate(LINES)
    assert [bool(translation.text) for translation in translations] == [True, False, True]
    for translation in (translations[0], translations[2]):
        assert translation.exits == (2,) * len(translation.pieces)
        assert translation.pieces[-1] == "</s>"
        assert translation.score < 0
    assert model.translate(tuple(LINES)) == translations


def test_settings_default_to_those_of_the_run(model: TranslationModel):
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


@pytest.mark.parametrize("rule", [Confidence(0.1), Confidence((0.1,))])
def test_one_threshold_of_a_rule_is_for_all_depths(of_ids: TranslationModel, rule: Confidence):
    sources = [[5, 7, EOS], [6, EOS]]
    expected = of_ids.search(sources, policy="confidence:0.1")
    for policy in (rule, Policy.of(rule)):
        assert of_ids.search(sources, policy=policy).hypotheses == expected.hypotheses


def test_searching_ids_needs_no_vocabularies_or_workdir(of_ids: TranslationModel):
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
    "translate('acht Uhr')": "lines is 'acht Uhr': must be a list of sentences, as ['zwei']",
    "translate(b'acht')": "lines is b'acht': must be a list of sentences",
    "translate(3)": "lines is 3: must be a list of sentences",
    "translate(None)": "lines is None: must be a list of sentences",
    "translate(['acht', 3])": "lines has 3 at 1: give each sentence as str",
    "translate([b'acht'])": "lines has b'acht' at 0: give each sentence as str",
    "translate(['acht', 'a\\udcff'])": "lines has a lone surrogate, '\\udcff', at 1: decode",
    "translate(['acht'], beam_size=True)": "beam_size is True: must be an integer, such as 20",
    "translate(['acht'], beam_size=np.float64(2))": "beam_size is np.float64(2.0): must be an",
    "translate(['acht'], policy=3)": "policy is 3: must be a text such as 'fixed', or a rule",
    "translate(['acht'], engine='fast')": "unknown config key engine",
    "translate(['acht'], policy=Fixed(0))": "policy is 'fixed:0': the depth must be one of",
    "translate(['acht'], average_checkpoints=2)": "average_checkpoints is no setting of a search:",
    "translate(['acht'], report_policies=())": "report_policies is no setting of a search:",
    "search('acht')": "ids is 'acht': must be a list of sources, as [[17, 3]]",
    "search(3)": "ids is 3: must be a list of sources",
    "search(['acht'])": "source 0 is 'acht': must be a list of token ids, as [17, 3]",
    "search([5, 7, 3])": "source 0 is 5: must be a list of token ids, as [17, 3]",
    "search(np.array([5, 3]))": "source 0 is 5: must be a list of token ids",
    "search(np.array(5))": "ids is 5: must be a list of sources",
    "search([[5.5, 3]])": "source 0 has 5.5 at 0: give whole numbers",
    "search(np.array([[5.0, 3.0]]))": "source 0 has 5.0 at 0: give whole numbers",
    "search([['5', 3]])": "source 0 has '5' at 0: give whole numbers",
    "search([[True, 3]])": "source 0 has True at 0: give whole numbers",
    "search([[5, 3]], limits=[2.5])": "limits has 2.5 at 0: give whole numbers, each 1 or more",
    "search([[5, 3]], limits=2)": "limits is 2: must be a list of whole numbers, as [20]",
}


WRONG_LOADS = {
    "2, checkpoint='best'": "checkpoint is best and average_checkpoints is 2: leave one of",
    "None, checkpoint=9": "checkpoint is 9, and ",
    "None, checkpoint=True": "checkpoint is True: must be best, last or a step, such as 1000",
    "'2'": "average_checkpoints is '2': must be an integer, such as 20",
    "True": "average_checkpoints is True: must be an integer",
    "2.0": "average_checkpoints is 2.0: must be an integer",
    "[2]": "average_checkpoints is [2]: must be an integer",
    "np.int64(0)": "average_checkpoints is 0: must be 1 or more",
    "np.int64(9)": "average_checkpoints is 9 and",
}


def test_arguments_of_a_wrong_type_are_refused(workdir: Path):
    """The calls run in a separate process; in this one beartype would refuse them first."""
    attempt = "try:\n    {}\nexcept dat_jax.UserError as error:\n    print(error)\n"
    loads = [f"dat_jax.load({str(workdir)!r}, average_checkpoints={x})" for x in WRONG_LOADS]
    calls = "".join(map(attempt.format, [*(f"model.{wrong}" for wrong in WRONG), *loads]))
    program = "import dat_jax\nimport numpy as np\nfrom dat_jax.exits.rules import Fixed\n"
    program += f"model = dat_jax.load({str(workdir)!r})\n{calls}"
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    messages = run.stdout.splitlines()
    for message, expected in zip(messages, [*WRONG.values(), *WRONG_LOADS.values()], strict=True):
        assert message.startswith(expected)


def test_a_loaded_model_can_be_pickled(model: TranslationModel):
    """Spawned workers get it this way; it is then on all devices, as after loading."""
    copy = pickle.loads(pickle.dumps(model))
    assert copy.trained.devices == model.trained.devices
    assert len(copy.trained.devices) == jax.local_device_count() > 1
    assert copy.trained.sha256 == model.trained.sha256
    assert copy.translate(LINES) == model.translate(LINES)


def test_settings_may_be_numpy_scalars(model: TranslationModel):
    settings = {"beam_size": np.int64(2), "length_penalty": np.float32(0.5)}
    plain = {"beam_size": 2, "length_penalty": 0.5}
    assert model.translate(LINES, **settings) == model.translate(LINES, **plain)
    assert model.translate(LINES, policy=np.str_("fixed:1")) == model.translate(
        LINES, policy="fixed:1"
    )


def test_sentences_may_be_any_iterable(model: TranslationModel):
    expected = model.translate(LINES)
    assert model.translate(line for line in LINES) == expected
    assert model.translate(np.array(LINES)) == expected
    assert model.translate(dict.fromkeys(LINES)) == expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beam_size": 0}, "decoding.beam_size is 0: must be 1 or more"),
        ({"beamsize": 2}, "unknown config key beamsize: did you mean beam_size?"),
        ({"policy": "fixed:9"}, "the depth must be one of 1, 2, 3"),
        ({"policy": "tuned:AE<=2"}, "nothing has been tuned: run python -m dat_jax.tuning"),
        (
            {"policy": TokenMultinomial()},
            "policy is 'token_multinomial': this model lacks the exit head",
        ),
        (
            {"policy": Policy.of(TokenMultinomial())},
            "policy is 'token_multinomial': this model lacks the exit head",
        ),
        ({"policy": Policy.of(Confidence((0.5, 0.5, 0.6)))}, "needs 1 threshold, or 2, one for"),
    ],
)
def test_impossible_settings_are_refused(model: TranslationModel, settings: Any, message: str):
    with pytest.raises(UserError) as caught:
        model.translate(LINES, **settings)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("ids", "more", "message"),
    [
        ([[5, EOS], []], {}, "source 1 does not end with EOS: append 3"),
        ([[5, 7]], {}, "source 0 does not end with EOS: append 3"),
        ([[PAD, PAD]], {}, "source 0 does not end with EOS: append 3"),
        ([[PAD, 5, EOS]], {}, "source 0 has PAD, 0, at 0: leave it out; EOS ends a source, and"),
        ([[5, PAD, 7, EOS]], {}, "source 0 has PAD, 0, at 1: leave it out"),
        ([[BOS, 5, EOS]], {}, "source 0 has BOS, 2, at 0: leave it out"),
        ([[5, EOS, EOS]], {}, "source 0 has EOS, 3, at 1: leave it out"),
        ([[EOS, 5, EOS]], {}, "source 0 has EOS, 3, at 0: leave it out"),
        ([[SOURCE_VOCABULARY, EOS]], {}, "source 0 has 13 at 0: give ids of this model's source"),
        (
            [[-1, EOS]],
            {},
            "source 0 has -1 at 0: give ids of this model's source vocabulary, 0 to 12",
        ),
        ([[5, EOS]], {"limits": [1, 2]}, "limits has 2 items for 1 sources: give one for each"),
        ([[5, EOS]], {"limits": [0]}, "limits has 0 at 0: give whole numbers, each 1 or more"),
        ([[5, EOS]], {"policy": "tuned:AE<=2"}, "policy is 'tuned:AE<=2': must be one of"),
    ],
)
def test_invalid_ids_are_refused(of_ids, ids: Any, more: Any, message: str):
    with pytest.raises(UserError) as caught:
        of_ids.search(ids, **more)
    assert message in str(caught.value)


def test_unknown_tokens_and_padding_after_eos_are_accepted(of_ids: TranslationModel):
    sources = [[5, UNK, 7, EOS], [EOS]]
    expected = of_ids.search(sources).hypotheses
    padded = np.array([[5, UNK, 7, EOS, PAD], [EOS, PAD, PAD, PAD, PAD]], np.int64)
    for same in (padded, list(padded), jnp.asarray(padded).tolist(), iter(sources)):
        assert of_ids.search(same).hypotheses == expected
    assert expected[1].tokens == (EOS,)
    (limited, _) = of_ids.search(padded, limits=np.array([1, 2])).hypotheses
    assert limited.tokens == (EOS,)


@pytest.mark.parametrize("most", [0, 4])
def test_ids_and_text_of_a_sentence_give_the_same_translation(model: TranslationModel, most: int):
    vocabularies = model.trained.vocabularies
    assert vocabularies is not None
    ids = vocabularies.source.encode(["am dritten Mai"])
    (by_text,) = model.translate(["am dritten Mai"], max_source_length=most)
    (by_ids,) = model.search(ids, max_source_length=most).hypotheses
    assert by_text.source_length == (most or len(ids[0])) < 30
    assert len(ids[0]) > 4
    assert vocabularies.target.pieces(by_ids.tokens) == list(by_text.pieces)
    assert (by_ids.exits, by_ids.score) == (by_text.exits, by_text.score)


def test_a_model_finds_its_tuned_policies_from_any_working_directory(
    workdir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """It uses its own run, not one of the same name in another folder."""
    point = {"kind": "confidence", "average_exit": 1.0, "bleu": 1.0}
    for name, threshold in {"mine": 0.1, "other": 0.9}.items():
        run = Run(Path(shutil.copytree(workdir, tmp_path / name / "run")))
        save_front(run, "confidence", [point | {"policy": f"confidence:{threshold}"}])
    monkeypatch.chdir(tmp_path / "mine")
    model = dat_jax.load("run")
    monkeypatch.chdir(tmp_path / "other")
    found = model._policy("tuned:confidence:AE<=2", model.trained.config.decoding)
    assert found.rule == Confidence((0.1, 0.1))


def test_loading_a_workdir_without_a_model_is_an_error(tmp_path: Path):
    with pytest.raises(UserError, match="train a model into this workdir first"):
        dat_jax.load(tmp_path)


@pytest.mark.slow
def test_an_installed_wheel_loads_and_translates(workdir: Path, tmp_path: Path):
    """The wheel is built and unpacked without a network; this environment has its dependencies."""
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
    parts = set((REPOSITORY / "dat_jax" / "explore" / "files").iterdir())
    with zipfile.ZipFile(wheel) as packed:
        assert {str(path.relative_to(REPOSITORY)) for path in parts} <= set(packed.namelist())
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
