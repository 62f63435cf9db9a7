# SPDX-License-Identifier: Apache-2.0
"""Subword vocabularies: training them, and going from text to ids and back, by SentencePiece."""

import hashlib
import io
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import sentencepiece
from jaxtyping import Integer

from dat_jax.config import Normalization
from dat_jax.data.integrity import damaged
from dat_jax.data.normalization import normalizer
from dat_jax.errors import UserError

PAD, UNK, BOS, EOS = range(4)  # the first three stand for no text: no search writes them

Ids = Sequence[int] | Integer[np.ndarray, " T"]

_MOST_SENTENCES = 2_000_000  # of more, the trainer takes some by a chance that cannot be seeded
_CHARACTER_COVERAGE = 0.99999  # the rest become UNK; with less, small text loses capitals
_THREADS = 4  # scores differ in the last digits with another number
_SHOW_ERRORS_ONLY = 2
_RESERVED = "\u2585"  # the trainer's own sign of an unknown character; it skips lines that hold it
_LONGEST = 1_000  # characters that surely fit into the 4,192 bytes above which it skips a line


class SizeError(UserError):
    """A size of vocabulary that the training text does not allow, and the bound on what it does."""

    def __init__(self, size: int, *, at_most: int | None = None, at_least: int | None = None):
        if at_most is not None:
            problem, mend = "more than the training text allows", f"{at_most} or less"
        else:
            problem, mend = "less than the training text has characters", f"{at_least} or more"
        super().__init__(f"data.vocabulary_size is {size}, {problem}: set it to {mend}")
        self.at_most, self.at_least = at_most, at_least


def train_vocabulary(
    sentences: Iterable[str], size: int, pieces: Literal["unigram", "bpe"]
) -> bytes:
    """Trains a SentencePiece model of `size` pieces, the 4 special ones included.

    It takes text as it is: what is to be normalised has been, as it will be before it is encoded.
    It learns from the first two million sentences; a long one counts as several.

    Returns:
        The serialised model, the same bytes for the same arguments.

    Raises:
        SizeError: the sentences hold too little for `size` pieces, or too many characters.
        UserError: they hold no text.
    """
    model = io.BytesIO()
    failures: list[Exception] = []
    first = next(parts := _noting_failure(_parts(sentences), failures), None)
    if first is None:
        raise UserError("the training text of data.source has no line with text: give it some")
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=itertools.islice(itertools.chain([first], parts), _MOST_SENTENCES),
            model_writer=model,
            normalization_rule_name="identity",
            vocab_size=size,
            model_type=pieces,
            character_coverage=_CHARACTER_COVERAGE,
            input_sentence_size=_MOST_SENTENCES,
            num_threads=_THREADS,
            pad_id=PAD,
            unk_id=UNK,
            bos_id=BOS,
            eos_id=EOS,
            minloglevel=_SHOW_ERRORS_ONLY,
        )
    except RuntimeError as error:
        raise (failures[0] if failures else _mendable(error, size)) from None
    return model.getvalue()


def _parts(sentences: Iterable[str]) -> Iterator[str]:
    """Yields all text in parts that the trainer does not skip, cut at blanks where possible."""
    for sentence in sentences:
        rest = sentence.replace(_RESERVED, " ").strip()
        while len(rest) > _LONGEST:
            blank = rest.rfind(" ", 1, _LONGEST)
            end = _LONGEST if blank < 0 else blank
            yield rest[:end]
            rest = rest[end:].lstrip()
        if rest:
            yield rest


def _noting_failure(sentences: Iterable[str], failures: list[Exception]) -> Iterator[str]:
    """Keeps what `sentences` raise, of which SentencePiece passes on the words only."""
    try:
        yield from sentences
    except Exception as failure:
        failures.append(failure)
        raise


def _mendable(error: RuntimeError, size: int) -> Exception:
    """Puts SentencePiece's complaint about the vocabulary's size into our terms."""
    problem = str(error)
    if match := re.search(r"set it to a value <= (\d+)", problem):
        return SizeError(size, at_most=int(match[1]))
    if match := re.search(r"smaller than required_chars. \d+ vs (\d+)", problem):
        return SizeError(size, at_least=int(match[1]))
    return error


class Vocabulary:
    """A trained SentencePiece model and the normalisation of what it encodes.

    Ids below 4 are PAD, UNK, BOS and EOS. A line whose ids are EOS alone is blank.
    """

    def __init__(self, model: bytes, normalization: Normalization = "none") -> None:
        """Takes the serialised model that `train_vocabulary` returns.

        Raises:
            ValueError: the bytes are no such model.
        """
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        except RuntimeError as error:
            raise ValueError("not a SentencePiece model") from error
        self._normalization: Normalization = normalization
        self._normalize = normalizer(normalization)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles what it was made of."""
        return Vocabulary, (self._processor.serialized_model_proto(), self._normalization)

    @classmethod
    def load(cls, path: Path, normalization: Normalization = "none") -> "Vocabulary":
        """Reads a model file.

        Raises:
            UserError: the file is missing or damaged.
        """
        try:
            return cls(path.read_bytes(), normalization)
        except FileNotFoundError:
            raise damaged(path, "missing") from None
        except ValueError:
            raise damaged(path) from None

    @property
    def size(self) -> int:
        """The number of pieces, special ones included."""
        return self._processor.get_piece_size()

    @cached_property
    def fingerprint(self) -> str:
        """The sha256 of all pieces and their scores: what makes two vocabularies the same."""
        digest = hashlib.sha256()
        for index in range(self.size):
            piece = self._processor.id_to_piece(index)
            digest.update(f"{piece}\t{self._processor.get_score(index)!r}\n".encode())
        return digest.hexdigest()

    def encode(self, sentences: Sequence[str]) -> list[list[int]]:
        """Returns the ids of each sentence, ending with EOS and without BOS."""
        return self._processor.encode(list(map(self._normalize, sentences)), add_eos=True)

    def decode(self, ids: Ids) -> str:
        """Returns the text of `ids` up to the first EOS; UNK shows as a question mark."""
        return self._processor.decode(_text_ids(ids))

    def pieces(self, ids: Ids) -> list[str]:
        """Returns the piece of each id as SentencePiece writes it, with "▁" for a space."""
        return [self._processor.id_to_piece(int(index)) for index in ids]


class Vocabularies(NamedTuple):
    """The vocabularies of the source and the target; one and the same if joint."""

    source: Vocabulary
    target: Vocabulary

    @property
    def fingerprints(self) -> tuple[str, str]:
        """The fingerprints of both, source first."""
        return self.source.fingerprint, self.target.fingerprint


def is_blank(ids: Ids) -> bool:
    """True if the ids of a line, as `encode` returns them, hold no text."""
    return len(ids) <= 1


def _text_ids(ids: Ids) -> list[int]:
    text: list[int] = []
    for index in map(int, ids):
        if index == EOS:
            break
        if index not in (PAD, BOS):
            text.append(index)
    return text
