# SPDX-License-Identifier: Apache-2.0
"""Runs: what the workdir of one holds, and how a trained model comes out of it.

config.json  vocabulary/  data/  checkpoints/  metrics.jsonl  tensorboard/  evaluation.jsonl
decode/  tuned/
"""

import dataclasses
from pathlib import Path

import jax

from dat_jax.config import Config
from dat_jax.data.dataset import Dataset, open_dataset, open_vocabularies, read_text
from dat_jax.data.preparation import prepare
from dat_jax.data.vocabulary import Vocabularies
from dat_jax.errors import UserError
from dat_jax.model.transformer import Transformer, init_params
from dat_jax.modes import our_modes
from dat_jax.trained import TrainedModel
from dat_jax.training.checkpoint import Checkpoints, placed
from dat_jax.training.loop import TrainingFiles
from dat_jax.types import Params, PRNGKeyArray

# What may change between a run and its continuation; all else would make it another run.
_CHANGEABLE = {
    ("training", name)
    for name in ("steps", "log_every", "validate_every", "checkpoint_every", "keep_checkpoints")
}

# What a model may differ in from the one that its training starts from.
_OF_HEAD_OR_TRAINING = {
    "exit_head",
    "halting_weights",
    "halting_bias",
    "dropout",
    "attention_dropout",
    "dtype",
}


@dataclasses.dataclass(frozen=True)
class Run:
    """A workdir: the only place that knows which file lies where."""

    path: Path

    @property
    def config_file(self) -> Path:
        """The file of the config that the run was made with."""
        return self.path / "config.json"

    @property
    def data(self) -> Path:
        """The folder of prepared data."""
        return self.path / "data"

    @property
    def vocabulary(self) -> Path:
        """The folder of vocabularies."""
        return self.path / "vocabulary"

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints, one for each step that was kept."""
        return self.path / "checkpoints"

    @property
    def training_files(self) -> TrainingFiles:
        """The files that the training loop writes."""
        return TrainingFiles(
            self.checkpoints, self.path / "metrics.jsonl", self.path / "tensorboard"
        )

    @property
    def evaluation(self) -> Path:
        """The scores of the test split, a line for each policy."""
        return self.path / "evaluation.jsonl"

    @property
    def tuned(self) -> Path:
        """The folder of thresholds that were tuned."""
        return self.path / "tuned"

    def decoded(self, text: str, policy: str, beam_size: int) -> Path:
        """The folder of what `decode.py` made of a text, unless another was asked for."""
        return self.path / "decode" / f"{text}-{policy.replace(':', '-')}-beam{beam_size}"

    @property
    def config(self) -> Config:
        """The config that the run was made with.

        Raises:
            UserError: there is none, or it cannot be read.
        """
        return Config.load(self.config_file)

    def prepare(self, config: Config) -> Dataset:
        """Prepares the data of `config`, or opens it if that has been done.

        Raises:
            UserError: the text cannot be read, or other data has been prepared here.
        """
        return prepare(config.data, self.data, self.vocabulary)

    def dataset(self) -> Dataset:
        """Opens the prepared data.

        Raises:
            UserError: it is missing or damaged.
        """
        return open_dataset(self.data, self.vocabulary)

    def text(self, split: str) -> tuple[list[str], list[str]]:
        """Returns all source sentences and all references of `valid` or `test`.

        Raises:
            UserError: they are missing or damaged.
        """
        return read_text(self.data, split)

    @our_modes()
    def load(self, average_checkpoints: int | None = None) -> TrainedModel:
        """Loads the model that was trained here.

        Args:
            average_checkpoints: how many of the last checkpoints to average; by default what
                `decoding.average_checkpoints` says, or as many as there are.

        Raises:
            UserError: nothing has been trained here, a part is missing or damaged, or there are
                fewer checkpoints than asked for.
        """
        config = self.config
        vocabularies = open_vocabularies(self.vocabulary, config.data)
        model = make_model(config, vocabularies)
        shapes = jax.eval_shape(lambda key: init_params(model, key), jax.random.key(0))
        like = placed(shapes, jax.sharding.SingleDeviceSharding(jax.devices()[0]))
        if not self.checkpoints.is_dir():
            raise UserError(f"{self.path} holds no checkpoint: train a model into it first")
        with Checkpoints(self.checkpoints) as checkpoints:
            at_most = average_checkpoints or config.decoding.average_checkpoints
            steps, params = checkpoints.average(like, at_most)
            trained_with = checkpoints.position(steps[0])["vocabularies"]
        if list(vocabularies.fingerprints) != trained_with:
            raise UserError(
                f"{self.vocabulary} is not what the model was trained with: restore it, or use "
                "another --workdir"
            )
        if average_checkpoints and len(steps) < average_checkpoints:
            raise UserError(
                f"average_checkpoints is {average_checkpoints} and {self.checkpoints} holds "
                f"{len(steps)}: average fewer or train longer"
            )
        return TrainedModel(config, model, params, vocabularies, tuple(steps))

    def check_same(self, config: Config) -> None:
        """Makes sure that the workdir is new or holds a run that `config` may go on with.

        Once there is a checkpoint, how long to train, what to keep and how to decode may change,
        and all else may not.

        Raises:
            UserError: it holds another run or one that went on for longer, or is a file.
        """
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"--workdir={self.path} is a file: name a folder")
        steps = self._saved_steps()
        if not steps:
            return
        if max(steps) > config.training.steps:
            raise UserError(
                f"{self.path} has been trained to step {max(steps)} and training.steps is "
                f"{config.training.steps}: raise it, or give another --workdir"
            )
        kept = dataclasses.asdict(self.config)
        for section, values in dataclasses.asdict(config).items():
            for key, value in values.items():
                before = kept[section][key]
                changeable = section == "decoding" or (section, key) in _CHANGEABLE
                if value != before and not changeable:
                    raise UserError(
                        f"{self.path} holds a run with {section}.{key} = {before!r}, not "
                        f"{value!r}: give another --workdir"
                    )

    def check_initial(self, config: Config) -> None:
        """Makes sure that a run that is yet to begin here can start where its config says.

        Raises:
            UserError: there is no trained model in `training.initial_workdir`, or a different one.
        """
        initial = config.training.initial_workdir
        if not initial or self._saved_steps():
            return
        name, run = f"training.initial_workdir is {initial}", Run(Path(initial))
        if not run._saved_steps():
            raise UserError(f"{name}: no model has been trained there, train one first")
        trained = dataclasses.asdict(run.config.model)
        for key, value in dataclasses.asdict(config.model).items():
            if key not in _OF_HEAD_OR_TRAINING and value != trained[key]:
                raise UserError(f"{name}: its model.{key} is {trained[key]!r}, not {value!r}")

    def _saved_steps(self) -> list[int]:
        return [int(p.name) for p in self.checkpoints.glob("*") if p.name.isdecimal()]


def make_model(config: Config, vocabularies: Vocabularies) -> Transformer:
    """The model of `config` for these vocabularies."""
    return Transformer(config.model, vocabularies.source.size, vocabularies.target.size)


def initial_params(
    config: Config, model: Transformer, vocabularies: Vocabularies, key: PRNGKeyArray
) -> Params:
    """The parameters that training begins with: drawn, or those of `training.initial_workdir`.

    An exit head that the other run lacks, or that is of another kind there, is drawn.

    Raises:
        UserError: the vocabularies are others there, or no checkpoint can be read.
    """
    params = init_params(model, key)
    if not config.training.initial_workdir:
        return params
    trained = Run(Path(config.training.initial_workdir)).load()
    assert trained.vocabularies is not None
    if trained.vocabularies.fingerprints != vocabularies.fingerprints:
        raise UserError(
            f"training.initial_workdir is {config.training.initial_workdir}: its vocabulary is "
            "another one, so the data or its settings must be; use the same"
        )
    kept = dict(trained.params)
    if _head(trained.config) != _head(config):
        kept.pop("exit_head", None)
    return params | kept


def _head(config: Config) -> tuple[str, str]:
    """The settings that two runs must share for one to go on with the other's exit head."""
    return config.model.exit_head, config.model.halting_weights
