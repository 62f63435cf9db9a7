# SPDX-License-Identifier: Apache-2.0
"""What a bad flag, a bad config file or the system raises, in one line that names the option."""

import difflib
import os
import re
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from dat_jax.errors import UserError
from dat_jax.paths import destination, same_destination

_EXAMPLES = {"int": "20", "float": "0.5"}


def explain(
    error: Exception, options: flags.FlagValues, argv: Sequence[str], file: str
) -> Exception:
    """Returns the refusal of a command line that raised `error` when it was parsed, or the error.

    Args:
        error: of absl or ml_collections, which raise many kinds, or of the config file.
        options: the flags.
        argv: the command line.
        file: the config file that it names, or the default; "" if there is none.
    """
    first = _first(error)
    file, _, argument = file.partition(":")
    if line := _line_in(file, first):
        return UserError(f"{file}, line {line}: {_kind(first)}: fix the config")
    if isinstance(first, OSError):
        return UserError(f"--config={file} cannot be read: name a Python file of configs/")
    if isinstance(first, AttributeError) and "'get_config'" in str(first):
        return UserError(f"{file} has no function get_config: define it, as configs/base.py does")
    if isinstance(error, flags.IllegalFlagValueError):
        return _bad_value(error, first, options, file)
    if isinstance(error, AttributeError | KeyError):
        return _bad_config(options, argv, file, argument) or error
    if isinstance(error, flags.Error | TypeError | ValueError):
        return UserError(_in_plain_words(error))
    return error


def no_config(value: object, file: str) -> UserError:
    """Returns the refusal of what is no config."""
    return UserError(
        f"{file}: get_config returns {value!r}: let it return a ConfigDict, as configs/base.py does"
    )


def option_of(path: str, options: flags.FlagValues) -> str | None:
    """The option that names a path, a folder above it, or else one below it; None if none does."""
    place = destination(path)
    named = [(name, destination(value)) for name, value in _paths(options)]
    above = [(len(known.parts), name) for name, known in named if place.is_relative_to(known)]
    below = [(-len(known.parts), name) for name, known in named if known.is_relative_to(place)]
    return max(above or below, default=(0, None))[1]


def _bad_value(
    error: Exception, first: BaseException, options: flags.FlagValues, file: str
) -> UserError:
    """The refusal of a value that a flag's parser does not take."""
    reason = str(error.__context__ or "")
    match = re.match(r"flag --([\w.]+)=", str(error))
    if match is None or match[1] not in options or "must have a value" in str(error):
        return UserError(_in_plain_words(error))
    if match[1] == "config":
        return UserError(f"{file}: {_kind(first)}: fix the config")
    given = str(error).removeprefix("flag ").removesuffix(f": {reason}")
    parser = options[match[1]].parser
    if "as a ConfigDict" in reason:
        return UserError(f"{given}: is a section: set its keys, as --{match[1]}.KEY=VALUE")
    if example := _EXAMPLES.get(parser.flag_type()):
        return UserError(f"{given}: must be {parser.syntactic_help}, as {example}")
    if parser.flag_type() == "bool":
        return UserError(f"{given}: must be true or false")
    if isinstance(parser, flags.EnumParser):
        return UserError(f"{given}: must be one of {', '.join(parser.enum_values)}")
    return UserError(f"{given}: {' '.join(reason.split())}")


def _bad_config(
    options: flags.FlagValues, argv: Sequence[str], file: str, argument: str
) -> UserError | None:
    """The refusal of what is no config, or of the first key that a config does not have."""
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
        hint = f"did you mean {close[0]}?" if close else f"{file} names those that there are"
        return UserError(f"unknown config key {key}: {hint}")
    return None


def _in_plain_words(error: Exception) -> str:
    """What absl says of flags, or ml_collections of a config."""
    text = _one_line(error)
    if missing := re.search(r"Flag (--\w+) must have a value", text):
        return f"{missing[1]} is missing: add {missing[1]}=..."
    if missing := re.fullmatch(r"Missing value for flag (\S+)", text):
        return f"{missing[1]} has no value: write {missing[1]}=..."
    return text


def _first(error: BaseException) -> BaseException:
    """The error that others were raised upon."""
    while (before := error.__cause__ or error.__context__) is not None:
        error = before
    return error


def _line_in(file: str, error: BaseException) -> int | None:
    """The line of a config file that an error comes from, the innermost; none if it does not."""
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
    """Yields the keys of a config and its sections, with dots, and their values."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _paths(options: flags.FlagValues) -> Iterator[tuple[str, str]]:
    """Yields the options that may name a path, and what they name."""
    for name in options:
        value = options[name].value
        if isinstance(value, Path):
            yield f"--{name}", str(value)
    config = options["config"].value if "config" in options else None
    for key, value in _flat(config.to_dict()) if config else ():
        if isinstance(value, str) and os.sep in value and "://" not in value:
            yield f"--config.{key}", value.removeprefix("text:")
