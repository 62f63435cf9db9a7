# SPDX-License-Identifier: Apache-2.0
"""Settings on disk: JSON that says which version wrote it, read as this version means them.

Every such file names its format. What an older one lacks is filled in with what that version did,
and its old names and values are turned into ours; a later one is refused.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dat_jax.errors import UserError
from dat_jax.files import write_text
from dat_jax.version import __version__

FORMAT = 8
_FIRST_VERSION = "0.1.0"  # of format 1, which named neither

_RENAMED_IN_2 = {
    ("model", "num_layers"): "decoder_layers",
    ("training", "accumulation"): "microbatches",
}


def write_stamped(path: Path, values: Mapping[str, Any]) -> None:
    """Writes a whole file of indented JSON, with its format and our version, or leaves the old."""
    stamp = {"format": FORMAT, "version": __version__}
    write_text(path, json.dumps(stamp | dict(values), indent=2) + "\n")


def read_stamped(path: Path) -> tuple[dict[str, Any], str]:
    """Reads what `write_stamped` of this version or an older one wrote.

    Returns:
        The values, as this version would have written them, and the version that did.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a JSON object.
        UserError: it is of a later format.
    """
    values = json.loads(path.read_text(encoding="utf-8-sig"))
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds no object")
    number, version = values.pop("format", 1), values.pop("version", _FIRST_VERSION)
    if not isinstance(number, int) or number > FORMAT:
        raise UserError(
            f"{path} was written by dat_jax {version} in format {number}, and this is dat_jax "
            f"{__version__}, which reads formats up to {FORMAT}: use that version or a later one"
        )
    for older, to_next in enumerate(
        (_from_1, _from_2, _from_3, _from_4, _from_5, _from_6, _from_7), start=1
    ):
        if number <= older:
            to_next(values)
    return values, version


def _from_1(values: dict[str, Any]) -> None:
    """Puts what format 1 wrote into the words of format 2."""
    for (name, old), new in _RENAMED_IN_2.items():
        section = _section(values, name)
        if old in section:
            section[new] = section.pop(old)


def _from_2(values: dict[str, Any]) -> None:
    """Adds what format 2 lacked: vocabularies normalised what they read, BLEU knew no language,
    sources were cut as training left them out, no step was skipped.

    The settings of data are a section of a run's and, beside the data, a file of their own.
    Checksums have moved from the headers of token files to a file for all of them.
    """
    if training := _section(values, "training"):
        training["skip_nonfinite"] = 0
    for data in (_section(values, "data"), values):
        if "source_language" in data:
            data |= {"source_normalization": "none", "target_normalization": "none"}
    if decoding := _section(values, "decoding"):
        decoding["bleu_tokenizer"] = "13a"
        decoding["max_source_length"] = _section(values, "data").get("max_length", 0)
    for name in ("tokens_sha256", "offsets_sha256"):
        values.pop(name, None)


def _from_3(values: dict[str, Any]) -> None:
    """Adds what format 3 lacked: devices held all parameters, nothing was computed twice, no step
    was traced, checkpoints lay in the workdir.
    """
    if training := _section(values, "training"):
        training |= {"sharding": "replicated", "profile": "", "checkpoint_folder": ""}
    if model := _section(values, "model"):
        model["rematerialisation"] = "none"


def _from_4(values: dict[str, Any]) -> None:
    """Adds what format 4 lacked: hidden units were dropped like all else, no block was passed over,
    gradients flowed down whole, the learning rate fell with 1/sqrt(step), no pair was lopsided,
    validation pairs were the source's own.
    """
    for data in (_section(values, "data"), values):
        if "source_language" in data:
            data |= {"max_length_ratio": 0.0, "valid_every": 0}
    if "too_long" in values:  # the header of a token file
        values["lopsided"] = 0
    if training := _section(values, "training"):
        training["gradient_from_above"] = 1.0
    if model := _section(values, "model"):
        model["activation_dropout"] = model.get("dropout", 0.0)
        model |= {"layer_drop": 0.0, "layer_drop_rates": "constant"}
    if optimizer := _section(values, "optimizer"):
        optimizer["schedule"] = "inverse_sqrt"


def _from_5(values: dict[str, Any]) -> None:
    """Takes away what format 5 had more: exits could learn from the last one. A run whose exits
    did keeps the key, by which it is refused: to go on with it here would change what it learns.
    """
    training = _section(values, "training")
    if training.get("distillation") == 0:
        del training["distillation"]


def _from_6(values: dict[str, Any]) -> None:
    """Drops the keys of a second engine, which format 6 had."""
    for name in ("engine", "cohort_size", "pool_size"):
        _section(values, "decoding").pop(name, None)


def _from_7(values: dict[str, Any]) -> None:
    """Adds what format 7 lacked: each exit scored all tokens."""
    if decoding := _section(values, "decoding"):
        decoding["shortlist"] = 0


def _section(values: dict[str, Any], name: str) -> dict[str, Any]:
    """A section of settings, or an empty one if these have none of that name."""
    section = values.get(name)
    return section if isinstance(section, dict) else {}
