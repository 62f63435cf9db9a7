# SPDX-License-Identifier: Apache-2.0
"""Turns errors from bad flags, bad config files and the system into one line each."""

import difflib
import os
import re
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from dat_jax.errors import UserError
from dat_jax.storage.paths import destination, same_destination

_EXAMPLES = {"int": "20", "float": "0.5"}


def explain(
    error: Exception, options: flags.FlagValues, argv: Sequence[str], file: str
) -> Exception:
    """Returns a one-line `UserError` for an error of parsing, or the error itself if unknown.

    Args:
        error: raised by absl, ml_collections or the config file.
        options: the flags.
        argv: the command line.
        file: the config file that `argv` names, or the default; "" if there is none.
    """
    first = _first(error)
    file, _, argument = file.partition(":")
    if line := _line_in(file, first):
        return UserError(f"{file}, line {line}: {_kind(first)}: fix the config")
    if isinstance(first, OSError):
        return UserError(f"--config={file} cannot be read: give a Python file of configs/")
    if isinstance(first, AttributeError) and "'get_config'" in str(first):
        return UserError(f"{file} has no function get_config: define it, as configs/base.py does")
    if isinstance(error, flags.IllegalFlagValueError):
        return _bad_value(error, first, options, file)
    if isinstance(error, AttributeError | KeyError):
        return _bad_config(options, argv, file, argument) or error
    if isinstance(error, flags.Error | TypeError | ValueError):
        return UserError(_flag_message(error))
    return error


def no_config(value: object, file: str) -> UserError:
    """Returns the error for a `get_config` that returns something else than a config."""
    return UserError(
        f"{file}: get_config returns {value!r}: must be a ConfigDict, as in configs/base.py"
    )


def option_of(path: str, options: flags.FlagValues) -> str | None:
    """Returns the option that names a path, a folder above it, or else one below it, or None."""
    place = destination(path)
    named = [(name, destination(value)) for name, value in _paths(options)]
    above = [(len(known.parts), name) for name, known in named if place.is_relative_to(known)]
    below = [(-len(known.parts), name) for name, known in named if known.is_relative_to(place)]
    return max(above or below, default=(0, None))[1]


def _bad_value(
    error: Exception, first: BaseException, options: flags.FlagValues, file: str
) -> UserError:
    """Returns the error for a value that a flag's parser rejects."""
    reason = str(error.__context__ or "")
    match = re.match(r"flag --([\w.]+)=", str(error))
    if match is None or match[1] not in options or "must have a value" in str(error):
        return UserError(_flag_message(error))
    if match[1] == "config":
        return UserError(f"{file}: {_kind(first)}: fix the config")
    given = str(error).removeprefix("flag ").removesuffix(f": {reason}")
    parser = options[match[1]].parser
    if "as a ConfigDict" in reason:
        return UserError(f"{given}: is a section: set one of its keys, --{match[1]}.KEY=VALUE")
    if example := _EXAMPLES.get(parser.flag_type()):
        return UserError(f"{given}: must be {parser.syntactic_help}, such as {example}")
    if parser.flag_type() == "bool":
        return UserError(f"{given}: must be true or false")
    if isinstance(parser, flags.EnumParser):
        return UserError(f"{given}: must be one of {', '.join(parser.enum_values)}")
    return UserError(f"{given}: {' '.join(reason.split())}")


def _bad_config(
    options: flags.FlagValues, argv: Sequence[str], file: str, argument: str
) -> UserError | None:
    """Returns the error for an invalid config object, or for the first unknown key in `argv`."""
    config = options["config"].parser.parse(f"{file}:{argument}" if argument else file)
    if not hasattr(config, "to_dict"):
        return no_config(config, file)
    known = dict(_flat(config.to_dict()))
    for name in argv:
        match = re.match(r"--?(?:no)?config\.([^=]+)", name)
        if match is None or any(f"{key}.".startswith(f"{match[1]}.") for key in known):
            continue
        key, last = match[1], match[1].rpartition(".")[2]
        by_last = {key.rpartition(".")[2]: key for key in known}
        close = difflib.get_close_matches(key, known, n=1)
        close += [by_last[name] for name in difflib.get_close_matches(last, by_last, n=1)]
        hint = f"did you mean {close[0]}?" if close else f"see {file} for its keys"
        return UserError(f"unknown config key {key}: {hint}")
    return None


def _flag_message(error: Exception) -> str:
    """Returns the message of absl or ml_collections on one line, reworded for a missing value."""
    text = _one_line(error)
    if missing := re.search(r"Flag (--\w+) must have a value", text):
        return f"{missing[1]} is missing: add {missing[1]}=..."
    if missing := re.fullmatch(r"Missing value for flag (\S+)", text):
        return f"{missing[1]} has no value: write {missing[1]}=..."
    return text


def _first(error: BaseException) -> BaseException:
    """Returns the first error of a chain."""
    while (before := error.__cause__ or error.__context__) is not None:
        error = before
    return error


def _line_in(file: str, error: BaseException) -> int | None:
    """Returns the innermost line of `file` that an error comes from, or None."""
    if isinstance(error, SyntaxError) and same_destination(error.filename or "", file):
        return error.lineno
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if same_destination(frame.filename, file)]
    return lines[-1] if lines else None


def _kind(error: BaseException) -> str:
    return f"{type(error).__name__}: {_one_line(error)}"


def _one_line(error: BaseException) -> str:
    of_system = isinstance(error, OSError)
    return " ".join(str(error if of_system or not error.args else error.args[0]).split())


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the dotted keys of a config and their values."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _paths(options: flags.FlagValues) -> Iterator[tuple[str, str]]:
    """Yields the options that may name a path, with their values."""
    for name in options:
        value = options[name].value
        if isinstance(value, Path):
            yield f"--{name}", str(value)
    config = options["config"].value if "config" in options else None
    for key, value in _flat(config.to_dict()) if config else ():
        if isinstance(value, str) and os.sep in value and "://" not in value:
            yield f"--config.{key}", value.removeprefix("text:")
