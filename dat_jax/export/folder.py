# SPDX-License-Identifier: Apache-2.0
"""The folder that an export writes: empty before, complete afterwards."""

import contextlib
import shutil
from collections.abc import Generator
from pathlib import Path

from dat_jax.config.schema import require
from dat_jax.storage.files import LOCK, UNFINISHED, sole_writer


@contextlib.contextmanager
def new_folder(folder: Path) -> Generator[Path]:
    """Yields a folder to write into; its contents move to `folder` when the block succeeds.

    If the block fails, `folder` is as it was. What a killed process left is removed.

    Raises:
        UserError: `folder` holds something else, or another process is writing there.
    """
    with sole_writer(folder):
        unfinished = folder / UNFINISHED
        others = sorted({path.name for path in folder.iterdir()} - {LOCK, UNFINISHED})
        require(
            not others, f"--output={folder} holds {''.join(others[:1])} already: name a new folder"
        )
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        try:
            yield unfinished
            for path in unfinished.iterdir():
                path.rename(folder / path.name)
        finally:
            shutil.rmtree(unfinished)
