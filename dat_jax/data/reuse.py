# SPDX-License-Identifier: Apache-2.0
"""Using the data that another run prepared, `data.prepared`, without copying it.

Token files and text stay where they are and are only read. The vocabularies are copied, so that the
model does not depend on the other workdir.
"""

from pathlib import Path

from dat_jax.config import DataConfig
from dat_jax.data.dataset import open_vocabularies, vocabulary_paths
from dat_jax.data.integrity import check_all
from dat_jax.data.preparation import check_same
from dat_jax.errors import UserError


def check_reusable(config: DataConfig, folder: Path) -> None:
    """Checks that a folder of prepared data is finished, undamaged and has the settings of
    `config`; writes nothing.

    Raises:
        UserError: it is not.
    """
    way_out = "set both alike, or leave data.prepared out"
    if check_same(config, folder, way_out) is None:
        raise UserError(
            f"data.prepared is {config.prepared}, which holds no finished data: prepare it first, "
            "with python -m dat_jax.data.prepare, or give the workdir of a run that has"
        )
    check_all(folder)


def copy_vocabularies(config: DataConfig, folder: Path, own_folder: Path) -> None:
    """Copies the vocabularies of `config` from a folder.

    Raises:
        UserError: one is missing or damaged.
    """
    open_vocabularies(folder, config)  # checks them
    own_folder.mkdir(parents=True, exist_ok=True)
    for path in dict.fromkeys(vocabulary_paths(folder, config)):
        (own_folder / path.name).write_bytes(path.read_bytes())
