# SPDX-License-Identifier: Apache-2.0
"""Using the data that another run prepared, `data.prepared`, without copying it.

Token files and text stay where they are and are only read. The vocabularies are copied, so that the
model does not depend on the other workdir.
"""

from pathlib import Path

from dat_jax.config import DataConfig
from dat_jax.config.schema import require
from dat_jax.data.dataset import open_vocabularies, prepared_config, vocabulary_paths
from dat_jax.data.integrity import check_all
from dat_jax.data.preparation import check_same
from dat_jax.errors import UserError


def check_reusable(config: DataConfig, folder: Path, third: str, own: Path) -> None:
    """Checks that the data of `config.prepared` is finished, undamaged and has the settings of
    `config`; writes nothing.

    Args:
        config: the settings.
        folder: the data folder of the other workdir.
        third: the workdir whose data the other one uses itself; empty for none.
        own: the data folder of this workdir, where nothing may be prepared.

    Raises:
        UserError: the data cannot be used.
    """
    name = f"data.prepared is {config.prepared}"
    require(
        prepared_config(own) is None,
        f"{name}, and {own} has prepared data already: leave data.prepared out, or give another "
        "--workdir",
    )
    require(not third, f"{name}, which uses the data of {third} itself: give that workdir")
    way_out = "set both alike, or leave data.prepared out"
    if check_same(config, folder, way_out) is None:
        raise UserError(
            f"{name}, which holds no finished data: prepare it first, "
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
