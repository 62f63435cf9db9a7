# SPDX-License-Identifier: Apache-2.0
"""Settings on disk: JSON files stamped with a format number and the version that wrote them.

Reading an older format renames its keys and fills in missing ones with what that version did. A
later format is refused.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dat_jax.errors import UserError
from dat_jax.files import write_text
from dat_jax.version import __version__

FORMAT = 8
_FIRST_VERSION = "0.1.0"  # wrote format 1, which has no stamp

_RENAMED_IN_2 = {
    ("model", "num_layers"): "decoder_layers",
    ("training", "accumulation"): "microbatches",
}


def write_stamped(path: Path, values: Mapping[str, Any]) -> None:
    """Writes indented JSON with format and version; if that fails, the old file stays."""
    stamp = {"format": FORMAT, "version": __version__}
    write_text(path, json.dumps(stamp | dict(values), indent=2) + "\n")


def read_stamped(path: Path) -> tuple[dict[str, Any], str]:
    """Reads a file that `write_stamped` of this or an older version wrote.

    Returns:
        The values, converted to this version's format, and the version that wrote them.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: it is not a JSON object.
        UserError: it is of a later format.
    """
    values = json.loads(path.read_text(encoding="utf-8-sig"))
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds no object")
    number, version = values.pop("format", 1), values.pop("version", _FIRST_VERSION)
    if not isinstance(number, int) or number > FORMAT:
        raise UserError(
            f"{path} was written by dat_jax {version} in format {number}, but dat_jax "
            f"{__version__} reads formats up to {FORMAT}: use that version or a later one"
        )
    for older, to_next in enumerate(
        (_from_1, _from_2, _from_3, _from_4, _from_5, _from_6, _from_7), start=1
    ):
        if number <= older:
            to_next(values)
    return values, version


def _from_1(values: dict[str, Any]) -> None:
    """Renames keys of format 1."""
    for (name, old), new in _RENAMED_IN_2.items():
        section = _section(values, name)
        if old in section:
            section[new] = section.pop(old)


def _from_2(values: dict[str, Any]) -> None:
    """Adds keys that format 2 lacked: vocabularies normalised text themselves, BLEU always used
    13a, decoding cut sources at `data.max_length`, and no step was skipped.

    Data settings are a section of `config.json` and also a file next to the data. Checksums moved
    from the headers of token files into one file.
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
    """Adds keys that format 3 lacked: parameters were replicated, nothing was recomputed, no step
    was traced, and checkpoints were in the workdir.
    """
    if training := _section(values, "training"):
        training |= {"sharding": "replicated", "profile": "", "checkpoint_folder": ""}
    if model := _section(values, "model"):
        model["rematerialisation"] = "none"


def _from_4(values: dict[str, Any]) -> None:
    """Adds keys that format 4 lacked: hidden units used `dropout`, no block was skipped, gradients
    from above were not scaled, the learning rate fell with 1/sqrt(step), no pair was dropped for
    its length ratio, and the source had its own validation pairs.
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
    """Drops a key of format 5: exits could learn from the last exit.

    A run that used it keeps the key and is therefore refused, because continuing it here would
    change its loss.
    """
    training = _section(values, "training")
    if training.get("distillation") == 0:
        del training["distillation"]


def _from_6(values: dict[str, Any]) -> None:
    """Drops the keys of the second engine of format 6."""
    for name in ("engine", "cohort_size", "pool_size"):
        _section(values, "decoding").pop(name, None)


def _from_7(values: dict[str, Any]) -> None:
    """Adds what format 7 lacked: each exit scored all tokens."""
    if decoding := _section(values, "decoding"):
        decoding["shortlist"] = 0


def _section(values: dict[str, Any], name: str) -> dict[str, Any]:
    """Returns a section of settings, or an empty one if it is missing."""
    section = values.get(name)
    return section if isinstance(section, dict) else {}
