# SPDX-License-Identifier: Apache-2.0
"""Subword vocabularies by SentencePiece: training, encoding and decoding."""

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
from dat_jax.data.normalization import embed_normalization, normalizer
from dat_jax.errors import UserError

PAD, UNK, BOS, EOS = range(4)  # a search never generates the first three

Ids = Sequence[int] | Integer[np.ndarray, " T"]

_MOST_SENTENCES = 2_000_000  # of more, the trainer samples with a generator that has no seed
_CHARACTER_COVERAGE = 0.99999  # other characters become UNK; with less, small text loses capitals
_THREADS = 4  # another number changes the last digits of scores
_SHOW_ERRORS_ONLY = 2
_RESERVED = "\u2585"  # the trainer's mark of an unknown character; it skips lines with it
_LONGEST = 1_000  # characters; always fit the 4,192 bytes above which the trainer skips a line


class SizeError(UserError):
    """A vocabulary size that the training text does not allow, with the bound that it does."""

    def __init__(self, size: int, *, at_most: int | None = None, at_least: int | None = None):
        if at_most is not None:
            problem, bound = "more than the training text allows", f"{at_most} or less"
        else:
            problem, bound = "less than the training text has characters", f"{at_least} or more"
        super().__init__(f"data.vocabulary_size is {size}, {problem}: set it to {bound}")
        self.at_most, self.at_least = at_most, at_least


def train_vocabulary(
    sentences: Iterable[str], size: int, pieces: Literal["unigram", "bpe"]
) -> bytes:
    """Trains a SentencePiece model of `size` pieces, including the 4 special ones.

    The sentences must already be normalised, as they are before encoding. Only the first two
    million are used; a long one counts as several.

    Returns:
        The serialised model; the same arguments give the same bytes.

    Raises:
        SizeError: the sentences have too little text for `size` pieces, or too many characters.
        UserError: they have no text.
    """
    model = io.BytesIO()
    failures: list[Exception] = []
    first = next(parts := _noting_failure(_parts(sentences), failures), None)
    if first is None:
        raise UserError("the training text of data.source has only blank lines: add text to it")
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
        raise (failures[0] if failures else _size_error(error, size)) from None
    return model.getvalue()


def _parts(sentences: Iterable[str]) -> Iterator[str]:
    """Yields all text in parts that the trainer does not skip, split at blanks where possible."""
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
    """Keeps exceptions of `sentences`, of which SentencePiece passes on only the message."""
    try:
        yield from sentences
    except Exception as failure:
        failures.append(failure)
        raise


def _size_error(error: RuntimeError, size: int) -> Exception:
    """Turns SentencePiece's error about the vocabulary size into a `SizeError`."""
    problem = str(error)
    if match := re.search(r"set it to a value <= (\d+)", problem):
        return SizeError(size, at_most=int(match[1]))
    if match := re.search(r"smaller than required_chars. \d+ vs (\d+)", problem):
        return SizeError(size, at_least=int(match[1]))
    return error


class Vocabulary:
    """A trained SentencePiece model with its normalisation.

    Ids below 4 are PAD, UNK, BOS and EOS. A blank line encodes to only EOS.
    """

    def __init__(self, model: bytes, normalization: Normalization = "none") -> None:
        """Loads a serialised model from `train_vocabulary`.

        Raises:
            ValueError: the bytes are not a model.
        """
        try:
            if not model:
                raise RuntimeError("no bytes")
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        except RuntimeError as error:
            raise ValueError("not a SentencePiece model") from error
        self._normalization: Normalization = normalization
        self._normalize = normalizer(normalization)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles the serialised model and the normalisation."""
        return Vocabulary, (self.serialized, self._normalization)

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
        """The number of pieces, including special ones."""
        return self._processor.get_piece_size()

    @property
    def special_ids(self) -> dict[str, int]:
        """The model's ids of PAD, UNK, BOS and EOS; -1 if it has none."""
        model = self._processor
        ids = model.pad_id(), model.unk_id(), model.bos_id(), model.eos_id()
        return dict(zip(("pad", "unk", "bos", "eos"), ids, strict=True))

    @property
    def own_normalization(self) -> str:
        """The name of the rules by which the model normalises text itself; empty for none."""
        normalizer = sentencepiece.SentencePieceNormalizer(model_proto=self.serialized)
        # A protocol buffer: name (tag 10, length, characters), then rules (tag 18, length, bytes).
        spec, name = normalizer.serialized_normalizer_spec(), b""
        if spec[:1] == b"\x0a":
            name, spec = spec[2 : 2 + spec[1]], spec[2 + spec[1] :]
        has_rules = spec[:1] == b"\x12" and spec[1] > 0
        return (name.decode() or "rules without a name") if has_rules else ""

    @property
    def serialized(self) -> bytes:
        """The SentencePiece model, which does not normalise unless it was given so."""
        return self._processor.serialized_model_proto()

    @property
    def self_normalizing(self) -> bytes:
        """The SentencePiece model with the normalisation inside; without `nfc`, which
        SentencePiece does not have."""
        return embed_normalization(self.serialized, self._normalization)

    @cached_property
    def fingerprint(self) -> str:
        """The sha256 of all pieces and their scores, to compare vocabularies."""
        digest = hashlib.sha256()
        for index in range(self.size):
            piece = self._processor.id_to_piece(index)
            digest.update(f"{piece}\t{self._processor.get_score(index)!r}\n".encode())
        return digest.hexdigest()

    def encode(self, sentences: Sequence[str]) -> list[list[int]]:
        """Returns the ids of each sentence, with EOS and without BOS."""
        return self._processor.encode(list(map(self._normalize, sentences)), add_eos=True)

    def decode(self, ids: Ids) -> str:
        """Returns the text of `ids` up to the first EOS; UNK becomes a question mark."""
        return self._processor.decode(_text_ids(ids))

    def pieces(self, ids: Ids) -> list[str]:
        """Returns the piece of each id as SentencePiece writes it, with "▁" for a space."""
        return [self._processor.id_to_piece(int(index)) for index in ids]


class Vocabularies(NamedTuple):
    """The vocabularies of source and target, with the same pieces if joint."""

    source: Vocabulary
    target: Vocabulary

    @property
    def fingerprints(self) -> tuple[str, str]:
        """The fingerprints of both, source first."""
        return self.source.fingerprint, self.target.fingerprint


def is_blank(ids: Ids) -> bool:
    """Returns whether the ids of a line, from `encode`, hold no text."""
    return len(ids) <= 1


def _text_ids(ids: Ids) -> list[int]:
    text: list[int] = []
    for index in map(int, ids):
        if index == EOS:
            break
        if index not in (PAD, BOS):
            text.append(index)
    return text
