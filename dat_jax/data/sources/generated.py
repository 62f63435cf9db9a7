# SPDX-License-Identifier: Apache-2.0
"""A generated German-to-English corpus: numbers, ordinals, years, dates, times, money, durations.

A line holds one to five phrases, spelled out. German may say one thing in several ways, but the
German line determines the English one, so a perfect translation exists. Words differ in difficulty:
months are looked up, "dreiundzwanzig" is reversed to "twenty-three", "siebzehn Uhr fünfunddreißig"
is computed to "twenty-five to six", and "statt A nun B" swaps whole phrases.
"""

import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

from dat_jax.data.sources.phrases import KINDS, Phrase
from dat_jax.data.splits import SPLITS

DEFAULT_PAIRS = 20_000

_JOINTS = (
    ("{0} und {1}", "{0} and {1}"),
    ("{0} oder {1}", "{0} or {1}"),
    ("{0}, dann {1}", "{0}, then {1}"),
    ("nicht {0}, sondern {1}", "not {0} but {1}"),
    ("entweder {0} oder {1}", "either {0} or {1}"),
    ("weder {0} noch {1}", "neither {0} nor {1}"),
    ("statt {0} nun {1}", "now {1} instead of {0}"),
)


class GeneratedCorpus:
    """`pairs` training pairs and up to 1,000 each for `valid` and `test`, determined by `seed`.

    A checksum of the English line decides its split, so with any seed the splits share no line on
    either side. Lines of `valid` and `test` are unique; short lines of `train` are not.
    """

    def __init__(self, pairs: int, seed: int) -> None:
        held_out = min(1000, max(pairs // 10, 20))
        self._sizes = {"train": pairs, "valid": held_out, "test": held_out}
        self._seed = seed

    @property
    def files(self) -> tuple[Path, ...]:
        """Empty: the text is generated."""
        return ()

    @property
    def splits(self) -> Sequence[str]:
        """All."""
        return SPLITS

    def pairs(self, split: str) -> Iterator[tuple[str, str]]:
        """Yields the (German, English) lines of `split`, the same lines each time."""
        random = Random(f"{self._seed} {split}")
        seen: set[str] = set()
        missing = self._sizes[split]
        while missing:
            german, english = _line(random)
            if _split_of(english) != split or german in seen:
                continue
            if split != "train":
                seen.add(german)
            missing -= 1
            yield german, english


def _split_of(english: str) -> str:
    return {0: "valid", 1: "test"}.get(zlib.crc32(english.encode()) % 10, "train")


def _line(random: Random) -> Phrase:
    """Draws a line of one to five phrases, some of them joined in pairs."""
    phrases = [random.choice(KINDS)(random) for _ in range(random.randint(1, 5))]
    clauses: list[Phrase] = []
    while phrases:
        clause = phrases.pop()
        if phrases and random.random() < 0.7:
            clause = _join(random, clause, phrases.pop())
        clauses.append(clause)
    german, english = zip(*clauses, strict=True)
    return ", ".join(german), ", ".join(english)


def _join(random: Random, first: Phrase, second: Phrase) -> Phrase:
    german, english = random.choice(_JOINTS)
    return german.format(first[0], second[0]), english.format(first[1], second[1])
