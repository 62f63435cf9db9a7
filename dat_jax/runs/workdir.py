# SPDX-License-Identifier: Apache-2.0
"""Runs: the files of a workdir, and loading the model trained in it.

config.json  vocabulary/  data/  checkpoints/  checkpoints.json  metrics.jsonl  tensorboard/
profile/  evaluation.jsonl  decode/  tuned/
"""

import contextlib
import dataclasses
import os
from collections.abc import Generator, Sequence
from pathlib import Path

import jax
from etils import epath

from dat_jax.checkpoints.best import Best, Criterion, read_validations
from dat_jax.checkpoints.folders import check_stored, saved_steps, stored
from dat_jax.checkpoints.read import average, read_step
from dat_jax.checkpoints.state import placed
from dat_jax.config import Config, DecodingConfig
from dat_jax.config.schema import integer, require
from dat_jax.data.dataset import (
    Dataset,
    open_dataset,
    open_vocabularies,
    read_text,
)
from dat_jax.data.preparation import prepare, splits_of
from dat_jax.data.reuse import check_reusable, copy_vocabularies
from dat_jax.data.sources import settled
from dat_jax.data.vocabulary import Vocabularies
from dat_jax.decoding.trained import TrainedModel, on_local_devices
from dat_jax.errors import UserError
from dat_jax.model.transformer import Transformer, init_params
from dat_jax.runs.choice import LAST, check_choice, choose_step
from dat_jax.runtime.jax_flags import our_modes
from dat_jax.runtime.processes import by_first, check_shared
from dat_jax.storage.files import sole_writer
from dat_jax.storage.paths import as_path, destination
from dat_jax.training.files import TrainingFiles


@dataclasses.dataclass(frozen=True)
class Run:
    """A workdir; no other module knows its file names."""

    path: Path

    def __post_init__(self) -> None:
        """Makes the path absolute, in case the process changes its folder."""
        object.__setattr__(self, "path", self.path.absolute())

    @property
    def config_file(self) -> Path:
        """The file with the run's config."""
        return self.path / "config.json"

    @property
    def data(self) -> Path:
        """The folder of prepared data, in this workdir or in the one of `data.prepared`."""
        known = self.config_file.exists()
        return self._data(self.config.data.prepared if known else "")

    def _data(self, prepared: str) -> Path:
        """Returns the folder of prepared data for this value of `data.prepared`."""
        return (as_path(prepared) if prepared else self.path) / "data"

    @property
    def vocabulary(self) -> Path:
        """The folder of vocabularies."""
        return self.path / "vocabulary"

    @property
    def checkpoints(self) -> epath.Path:
        """The folder of checkpoints, one per kept step."""
        known = self.config_file.exists()
        return self.checkpoints_in(self.config.training.checkpoint_folder if known else "")

    def checkpoints_in(self, folder: str) -> epath.Path:
        """Returns the folder of checkpoints for this value of `training.checkpoint_folder`."""
        return stored(os.path.expanduser(folder) if folder else self.path / "checkpoints")

    @property
    def training_files(self) -> TrainingFiles:
        """The files that the training loop writes."""
        return TrainingFiles(
            self.checkpoints,
            self.path / "checkpoints.json",
            self.path / "metrics.jsonl",
            self.path / "tensorboard",
            self.path / "profile",
        )

    @property
    def evaluation(self) -> Path:
        """The file of scores on `decoding.report_split`, one line per policy."""
        return self.path / "evaluation.jsonl"

    @property
    def tuned(self) -> Path:
        """The folder of tuned thresholds."""
        return self.path / "tuned"

    def decoded(self, text: str, decoding: DecodingConfig) -> Path:
        """Returns the default folder for results of `decode.py`.

        Its name holds the text, policy and beam, and other settings that differ from the run's.
        """
        name = f"{text}-{decoding.policy.replace(':', '-')}-beam{decoding.beam_size}"
        usual = dataclasses.asdict(self.config.decoding)
        for key, value in dataclasses.asdict(decoding).items():
            if key not in ("policy", "beam_size") and value != usual[key]:
                name += f"-{key}={value}"
        return self.path / "decode" / name.replace("/", "-")

    @contextlib.contextmanager
    def writing(self) -> Generator[None, None, None]:
        """Makes this process (or the first of several in one training) the only writer here.

        Decoding writes to folders with locks of their own.

        Raises:
            UserError: another process is writing here, the path is a file, checkpoints under this
                path could not be read back, or the processes of this training see different
                folders.
        """
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"--workdir={self.path} is a file: give a folder")
        check_stored(str(destination(str(self.path))), "--workdir")
        with contextlib.ExitStack() as stack:
            by_first(lambda: stack.enter_context(sole_writer(self.path)))
            check_shared(self.path)
            yield

    @property
    def config(self) -> Config:
        """The run's config.

        Raises:
            UserError: it is missing or cannot be read.
        """
        return Config.load(self.config_file)

    def prepare(self, config: Config) -> Dataset:
        """Prepares the data of `config`, or opens it if it is already prepared, here or in the
        workdir of `data.prepared`.

        Raises:
            UserError: the text cannot be read, other data has been prepared here, or the other
                workdir has none that this run can use.
        """
        data, folder = config.data, self._data(config.data.prepared)
        if not data.prepared:
            return prepare(data, folder, self.vocabulary)
        other = Run(as_path(data.prepared))
        third = other.config.data.prepared if other.config_file.exists() else ""
        check_reusable(data, folder, third, self._data(""))
        if not self.saved_steps:  # a trained model keeps its own
            copy_vocabularies(data, other.vocabulary, self.vocabulary)
        return open_dataset(folder, self.vocabulary)

    def splits(self, config: Config) -> Sequence[str]:
        """Returns the splits that the data of `config` has, prepared or not.

        Raises:
            UserError: it is not prepared, and its source cannot be opened.
        """
        return splits_of(config.data, self._data(config.data.prepared))

    def dataset(self) -> Dataset:
        """Opens the prepared data.

        Raises:
            UserError: it is missing or damaged.
        """
        return open_dataset(self.data, self.vocabulary)

    def text(self, split: str) -> tuple[list[str], list[str]]:
        """Returns the source sentences and the references of `valid` or `test`.

        Raises:
            UserError: they are missing or damaged.
        """
        return read_text(self.data, split)

    @our_modes()
    def load(
        self, average_checkpoints: int | None = None, checkpoint: str | int | None = None
    ) -> TrainedModel:
        """Loads the trained model.

        Args:
            average_checkpoints: number of last checkpoints to average; by default
                `decoding.average_checkpoints`, or all if there are fewer.
            checkpoint: one checkpoint instead: `best`, `last` or a step.

        Raises:
            UserError: nothing has been trained here, a part is missing or damaged, both arguments
                are given, the checkpoint is not there, or there are fewer checkpoints than
                `average_checkpoints`.
        """
        check_stored(str(destination(str(self.path))), "--workdir")
        if average_checkpoints is not None:
            average_checkpoints = integer("average_checkpoints", average_checkpoints)
            too_few = f"average_checkpoints is {average_checkpoints}: must be 1 or more"
            require(average_checkpoints >= 1, too_few)
        config = self.config
        vocabularies = open_vocabularies(self.vocabulary, config.data)
        model = make_model(config, vocabularies)
        shapes = jax.eval_shape(lambda key: init_params(model, key), jax.random.key(0))
        like = placed(shapes, on_local_devices())
        if not self.checkpoints.is_dir():
            raise UserError(f"{self.path} holds no checkpoint: train a model into it first")
        step = None if checkpoint is None else self.step_of(checkpoint, average_checkpoints)
        at_most = average_checkpoints or config.decoding.average_checkpoints
        if step is None or checkpoint == LAST:  # the last one that can be read
            at_most = at_most if step is None else 1
            steps, params, position = average(self.checkpoints, like, at_most)
        else:
            steps, params, position = read_step(self.checkpoints, like, step)
        if list(vocabularies.fingerprints) != position["vocabularies"]:
            raise UserError(
                f"{self.vocabulary} is not the vocabulary that the model was trained with: restore "
                "it, or use another --workdir"
            )
        if average_checkpoints and len(steps) < average_checkpoints:
            raise UserError(
                f"average_checkpoints is {average_checkpoints} and {self.checkpoints} holds only "
                f"{len(steps)}: average fewer or train longer"
            )
        return TrainedModel(config, model, params, vocabularies, tuple(steps))

    def step_of(self, checkpoint: str | int, average_checkpoints: int | None = None) -> int:
        """Returns the step of the checkpoint that is asked for: `best`, `last` or a step.

        All processes of a run call this together.

        Raises:
            UserError: it is not there, or `average_checkpoints` is given too.
        """
        check_choice(checkpoint, average_checkpoints)
        return by_first(
            lambda: choose_step(checkpoint, self.saved_steps, self.best, self.checkpoints)
        )

    @property
    def best(self) -> Best:
        """The validations that decide which checkpoint is the best."""
        recorded = read_validations(self.training_files.metrics)
        return Best(Criterion.of(self.config), recorded)

    def keep(self, config: Config) -> None:
        """Writes `config` as the run's config, with links in its paths resolved."""
        initial = config.training.initial_workdir
        training = dataclasses.replace(
            config.training, initial_workdir=initial and str(destination(initial))
        )
        kept = dataclasses.replace(config, data=settled(config.data), training=training)
        kept.save(self.config_file)

    @property
    def saved_steps(self) -> list[int]:
        """The steps that have a checkpoint, damaged or not, oldest first."""
        return saved_steps(self.checkpoints)


def make_model(config: Config, vocabularies: Vocabularies) -> Transformer:
    """Returns the model of `config` for these vocabularies."""
    return Transformer(config.model, vocabularies.source.size, vocabularies.target.size)
