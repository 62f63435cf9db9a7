# SPDX-License-Identifier: Apache-2.0
"""How every script starts: flags in, one clear line out when the user can mend what went wrong."""

import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import config_flags

from dat_jax.errors import UserError


def define_config(default: str | None = None) -> flags.FlagHolder[Any]:
    """Defines `--config=FILE` and with it `--config.section.key=value`.

    It is required if it has no default.
    """
    holder = config_flags.DEFINE_config_file("config", default, "A file of configs/.")
    if default is None:
        flags.mark_flag_as_required("config")
    return holder


def read_config(holder: flags.FlagHolder[Any]) -> dict[str, Any]:
    """The values of `--config` after overrides, as nested dictionaries.

    Raises:
        UserError: the file is missing or makes no config.
    """
    try:
        return holder.value.to_dict()
    except OSError as error:
        raise UserError(f"--config: {_first_line(error)}") from None


def define_workdir() -> flags.FlagHolder[str]:
    """Defines `--workdir=DIR`, required."""
    return flags.DEFINE_string("workdir", None, "Where a run keeps all its files.", required=True)


def run(main: Callable[[], None]) -> NoReturn:
    """Parses the flags, calls `main`, and turns a `UserError` into one line and exit status 1."""
    # jax, orbax and tensorstore speak through these two; what they say at INFO is for developers.
    absl_logging.set_verbosity(absl_logging.WARNING)
    logging.getLogger("jax").setLevel(logging.ERROR)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

    def guarded(_: Sequence[str]) -> None:
        try:
            main()
        except UserError as error:
            _exit(str(error))
        except KeyboardInterrupt:
            _exit("interrupted")

    app.run(guarded, flags_parser=_parse)


def _parse(argv: Sequence[str]) -> list[str]:
    """Parses flags; `ml_collections` raises many kinds of exception for a bad override."""
    try:
        remaining = flags.FLAGS(argv)
    except (
        flags.Error,
        AttributeError,
        KeyError,
        TypeError,
        ValueError,
        FileNotFoundError,
    ) as error:
        _exit(_first_line(error))
    if len(remaining) > 1:
        _exit(f"unexpected argument {remaining[1]!r}: options start with --")
    return remaining


def _first_line(error: Exception) -> str:
    text = str(error.args[0]) if error.args else type(error).__name__
    return " ".join(text.split())


def _exit(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(1)
