# SPDX-License-Identifier: Apache-2.0
"""Settings of older versions, converted: renamed keys, and new keys with what the old version did.

Settings are a section of a run's `config.json` each; those of the data are a file next to it too,
and token files have a header.
"""

from pathlib import Path
from typing import Any

from dat_jax.config.data import PATHS
from dat_jax.storage.stamped import UNSTAMPED, Stamped, read_stamped

_RENAMED = {
    ("model", "num_layers"): "decoder_layers",
    ("training", "accumulation"): "microbatches",
}

# Keys that came after format 7, with what was done before.
_ADDED: dict[str, dict[str, Any]] = {
    "decoding": {"shortlist": 0, "trailing_gap": 0.0, "report_split": "test"},
    "model": {"halting_hidden": 0},
    "training": {
        "best_by": "loss",
        "patience": 0,
        "bleu_every": 0,
        "bleu_sentences": 200,
        "bleu_exits": [],
    },
}


def read_settings(path: Path) -> Stamped:
    """Reads settings as `read_stamped` does, converted to those of this version."""
    stamped = read_stamped(path)
    if stamped.format == UNSTAMPED:
        _from_unstamped(stamped.values)
    for name in ("engine", "cohort_size", "pool_size"):  # there is one engine now
        _section(stamped.values, "decoding").pop(name, None)
    for section, added in _ADDED.items():
        if values := _section(stamped.values, section):
            stamped.values[section] = added | values
    for data in (_section(stamped.values, "data"), stamped.values):
        if "source_language" in data:
            for key in PATHS:
                data.setdefault(key, "")
    return stamped


def _from_unstamped(values: dict[str, Any]) -> None:
    """Converts settings of version 0.1.0.

    Its vocabularies normalised text themselves, BLEU always used 13a, decoding cut sources at
    `data.max_length`, and checksums stood in the headers of token files.
    """
    for (name, old), new in _RENAMED.items():
        section = _section(values, name)
        if old in section:
            section[new] = section.pop(old)
    for data in (_section(values, "data"), values):
        if "source_language" in data:
            data |= {"source_normalization": "none", "target_normalization": "none"}
            data |= {"max_length_ratio": 0.0, "valid_every": 0}
    if model := _section(values, "model"):
        model["activation_dropout"] = model.get("dropout", 0.0)
        model |= {"layer_drop": 0.0, "layer_drop_rates": "constant", "rematerialisation": "none"}
    if optimizer := _section(values, "optimizer"):
        optimizer["schedule"] = "inverse_sqrt"
    if training := _section(values, "training"):
        training |= {"sharding": "replicated", "profile": "", "checkpoint_folder": ""}
        training |= {"gradient_from_above": 1.0, "skip_nonfinite": 0}
    if decoding := _section(values, "decoding"):
        decoding["bleu_tokenizer"] = "13a"
        decoding["max_source_length"] = _section(values, "data").get("max_length", 0)
    for name in ("tokens_sha256", "offsets_sha256"):
        values.pop(name, None)
    if "too_long" in values:  # the header of a token file
        values["lopsided"] = 0


def _section(values: dict[str, Any], name: str) -> dict[str, Any]:
    """Returns a section of settings, or an empty one if it is missing."""
    section = values.get(name)
    return section if isinstance(section, dict) else {}
