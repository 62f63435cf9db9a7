# SPDX-License-Identifier: Apache-2.0
"""From lines of text to translations in the same order.

Lines are read a window at a time, so that memory does not depend on how many there are.
"""

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from tqdm import tqdm

from dat_jax.config import DecodingConfig
from dat_jax.data.vocabulary import EOS, Vocabularies, is_blank
from dat_jax.decoding.capacity import Capacity
from dat_jax.decoding.cost import DecodeCost, total
from dat_jax.decoding.inputs import read_n_best
from dat_jax.decoding.rule_settings import check_rule_settings
from dat_jax.decoding.search import Hypothesis
from dat_jax.decoding.sizing import Platform, platform_of
from dat_jax.decoding.stripes import search
from dat_jax.decoding.trained import TrainedModel
from dat_jax.decoding.windows import progress_bar, read_window
from dat_jax.errors import UserError
from dat_jax.exits.parsing import Policy
from dat_jax.runtime.jax_flags import our_modes
from dat_jax.runtime.processes import gather


@dataclasses.dataclass(frozen=True)
class Translation:
    """A translation of one sentence: its best hypothesis, or another of `n_best`."""

    text: str
    pieces: tuple[str, ...]  # EOS included; none for an empty sentence, or one that is left out
    exits: tuple[int, ...]  # the depth that each piece exited at
    score: float  # log-probability / length ** length_penalty
    source_length: int  # pieces of the source, EOS included
    # If asked for, the best hypotheses of the sentence, best first: the first is this one.
    n_best: "tuple[Translation, ...]" = ()


@dataclasses.dataclass(frozen=True)
class TooLong:
    """A line that does not fit into the device's memory."""

    line: int  # its number in the text, from 1
    pieces: int  # EOS included
    longest: int  # the most that fit

    def __str__(self) -> str:
        return (
            f"line {self.line} has {self.pieces:,} pieces and is left blank, for {self.longest:,} "
            f"fit into memory: split it, or cut it with max_source_length={self.longest}"
        )


@dataclasses.dataclass(frozen=True)
class Translations:
    """The translations of a text, in its order, and what it took to make them."""

    sentences: tuple[Translation, ...]
    cost: DecodeCost
    cut: int  # sources that were cut to max_source_length
    too_long: tuple[TooLong, ...] = ()  # lines that are left blank


@dataclasses.dataclass(frozen=True)
class Translator:
    """A trained model with a policy and settings, ready for text."""

    trained: TrainedModel
    policy: Policy
    decoding: DecodingConfig
    n_best: int = 0  # hypotheses in each sentence's list; 0 or 1 for no list
    sizes: Platform | None = None  # by default those of the model's device

    def __post_init__(self) -> None:
        """Checks that the policy takes the settings, that a beam has as many hypotheses as are
        asked for, and that short lines fit into memory.

        Raises:
            UserError: one of these is not so.
        """
        object.__setattr__(self, "n_best", read_n_best(self.n_best, self.decoding.beam_size))
        size = self.trained.model.target_vocabulary_size
        check_rule_settings(self.decoding, self.policy.rule, size)
        self._capacity.check()

    @our_modes()
    def translate(self, lines: Sequence[str], description: str = "translating") -> Translations:
        """Translates all lines; see `stream`."""
        parts = list(self.stream(lines, description, len(lines)))
        return Translations(
            sentences=tuple(sentence for part in parts for sentence in part.sentences),
            cost=total(self.trained.model.config.decoder_layers, (part.cost for part in parts)),
            cut=sum(part.cut for part in parts),
            too_long=tuple(line for part in parts for line in part.too_long),
        )

    def stream(
        self,
        lines: Iterable[str],
        description: str = "translating",
        total: int | None = None,
        arrives_within: Callable[[float], bool] = lambda _: True,
        done: int = 0,
    ) -> Iterator[Translations]:
        """Translates lines as they are read, and yields them in order, a window at a time.

        A line without text stays empty. Longer ones than `max_source_length` pieces are cut there,
        and counted. One that does not fit into memory is left blank, and the others are translated:
        nobody could tell a translation of half of it from a whole one. A progress bar shows on a
        terminal, with the time left if `total` lines are known to come.

        Args:
            lines: one sentence each.
            description: of the progress bar.
            total: how many lines there are, if that is known.
            arrives_within: says of some seconds if the next line can be read by then; where it
                cannot, those that have come are not kept waiting.
            done: how many lines of the same text, whole windows, were translated before.
        """
        lines = iter(lines)
        own = {"devices": len(self.trained.devices), "longest": self._capacity.longest_source}
        processes = gather(own)  # all must cut the text into the same windows
        window_size = self._platform.window * sum(each["devices"] for each in processes)
        longest = min(each["longest"] for each in processes)
        with progress_bar(description, total, done) as bar:
            while window := read_window(lines, window_size, arrives_within):
                part = self._translate_window(window, done, longest, bar)
                yield part
                done += len(window)

    def _translate_window(
        self, lines: list[str], done: int, longest: int, bar: tqdm
    ) -> Translations:
        """Translates lines of up to `longest` pieces, before which `done` were translated."""
        started = time.monotonic()
        whole = self._vocabularies.source.encode(lines)
        sources = [cut_source(ids, self.decoding) for ids in whole]
        too_long = [
            TooLong(done + number, len(source), longest)
            for number, source in enumerate(sources, 1)
            if len(source) > longest
        ]
        spoken = [
            index
            for index, source in enumerate(sources)
            if len(source) <= longest and not is_blank(source)
        ]
        bar.update(len(lines) - len(spoken))
        result = search(
            self.trained,
            self.policy.rule,
            [sources[index] for index in spoken],
            self.decoding,
            numbers=[done + index for index in spoken],
            platform=self._platform,
            n_best=self.n_best,
            on_progress=bar.update,
        )
        translations = [self._blank(len(source)) for source in sources]
        for index, hypothesis in zip(spoken, result.hypotheses, strict=True):
            translations[index] = self._translation(hypothesis, len(sources[index]))
        seconds = time.monotonic() - started - result.cost.seconds_compiling
        cost = dataclasses.replace(result.cost, seconds=seconds)
        cut = sum(len(ids) < len(all_ids) for ids, all_ids in zip(sources, whole, strict=True))
        return Translations(tuple(translations), cost, cut, tuple(too_long))

    def _blank(self, source_length: int) -> Translation:
        blank = Translation("", (), (), 0.0, source_length)
        return dataclasses.replace(blank, n_best=(blank,)) if self.n_best else blank

    def _translation(self, hypothesis: Hypothesis, source_length: int) -> Translation:
        vocabulary = self._vocabularies.target
        return Translation(
            text=vocabulary.decode(hypothesis.tokens),
            pieces=tuple(vocabulary.pieces(hypothesis.tokens)),
            exits=hypothesis.exits,
            score=hypothesis.score,
            source_length=source_length,
            n_best=tuple(self._translation(other, source_length) for other in hypothesis.n_best),
        )

    @property
    def _capacity(self) -> Capacity:
        trained = self.trained
        own = Capacity.of(trained.device, trained.model.config, self.decoding, self.n_best)
        return dataclasses.replace(own, platform=self._platform)

    @property
    def _platform(self) -> Platform:
        return self.sizes or platform_of(self.trained.device)

    @property
    def _vocabularies(self) -> Vocabularies:
        if self.trained.vocabularies is None:
            raise UserError("the model has no vocabularies: give it token ids, by `search`")
        return self.trained.vocabularies


def cut_source(ids: list[int], decoding: DecodingConfig) -> list[int]:
    """Returns the ids of a source up to `max_source_length`, EOS counted."""
    most = decoding.max_source_length
    return [*ids[: most - 1], EOS] if 0 < most < len(ids) else ids
