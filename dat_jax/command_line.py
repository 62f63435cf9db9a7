# SPDX-License-Identifier: Apache-2.0
"""How every script starts: flags in, one clear line out when the user can mend what went wrong."""

import io
import logging
import os
import re
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
    holder = config_flags.DEFINE_config_file("config", default, "A Python file of configs/.")
    if default is None:
        flags.mark_flag_as_required("config")
    return holder


def define_workdir() -> flags.FlagHolder[str]:
    """Defines `--workdir=DIR`, required."""
    return flags.DEFINE_string("workdir", None, "Where a run keeps all its files.", required=True)


def read_config(holder: flags.FlagHolder[Any]) -> dict[str, Any]:
    """The values of `--config` after overrides, as nested dictionaries.

    Raises:
        UserError: there is no such file.
    """
    try:
        return holder.value.to_dict()
    except OSError:
        raise UserError(_no_config_file()) from None


def run(main: Callable[[], None]) -> NoReturn:
    """Parses the flags and calls `main`.

    A `UserError`, or a file that the system will not read or write, becomes one line and exit
    status 1. Output is UTF-8, as input is.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8")
    # What libraries say at INFO is for their developers, and so are the failures of reads that
    # orbax had under way when it reported the first.
    absl_logging.set_verbosity(absl_logging.WARNING)
    logging.getLogger("jax").setLevel(logging.ERROR)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

    def guarded(_: Sequence[str]) -> None:
        try:
            main()
        except UserError as error:
            _exit(str(error))
        except BrokenPipeError:  # whoever reads the output has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except OSError as error:
            if error.filename is None:
                raise
            _exit(f"{error.filename}: {error.strerror}: mend that or name another")
        except KeyboardInterrupt:
            _exit("interrupted")

    app.run(guarded, flags_parser=_parse)


def _parse(argv: Sequence[str]) -> list[str]:
    """Parses flags; ml_collections raises many kinds of exception for a bad override."""
    try:
        remaining = flags.FLAGS(argv)
    except (AttributeError, KeyError) as error:
        hint = re.search(r"Did you mean.*", str(error.args[0]))
        _exit(f"unknown config key {hint[0] if hint else _one_line(error)}")
    except OSError:
        _exit(_no_config_file())
    except flags.Error as error:
        missing = re.search(r"Flag (--\w+) must have a value", str(error))
        _exit(f"{missing[1]} is missing" if missing else _one_line(error))
    except (TypeError, ValueError) as error:
        _exit(_one_line(error))
    if len(remaining) > 1:
        _exit(f"unexpected argument {remaining[1]!r}: options start with --")
    return remaining


def _no_config_file() -> str:
    # Asked for the file's name, the flag fails as it did before.
    given = [argument for argument in sys.argv if re.match("--?config=", argument)]
    return f"{given[-1] if given else '--config'} cannot be read: name a Python file of configs/"


def _one_line(error: Exception) -> str:
    return " ".join(str(error.args[0] if error.args else error).split())


def _exit(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(1)
