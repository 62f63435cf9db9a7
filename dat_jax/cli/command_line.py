# SPDX-License-Identifier: Apache-2.0
"""The command line of every script: flags, and one line for an error that the user can fix.

Each script's `main(argv)` defines its flags in its own `FlagValues` and ends with `run`, so scripts
can be imported together and called repeatedly.
"""

import contextlib
import itertools
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from absl import logging as absl_logging

from dat_jax.cli.refusals import explain, no_config, option_of
from dat_jax.cli.streams import discard, lasting
from dat_jax.errors import Stopped, UserError
from dat_jax.storage.paths import as_path, missing_target


class _PathParser(flags.ArgumentParser):
    """Parses the text of a flag into a path."""

    def parse(self, argument: str) -> Path:
        if not argument:
            raise ValueError("must be a path, such as runs/demo")
        return as_path(argument)

    def flag_type(self) -> str:
        return "path"


_HELP = {"-?", "-help", "--help", "-helpfull", "--helpfull"}


def define_config(
    options: flags.FlagValues, argv: Sequence[str], default: str | None = None
) -> None:
    """Defines `--config=FILE` and the `--config.SECTION.KEY=VALUE` flags that `argv` holds.

    Without a default, `--config` is required.
    """
    from ml_collections import config_flags  # benchmarks.gpu does not need it

    # A default that is not in `argv` is loaded at once, and a bad override would bypass `_parse`.
    config_flags.DEFINE_config_file(
        "config",
        default,
        "A Python file of configs/.",
        options,
        sys_argv=_arguments(argv, default),
    )
    if default is None:
        flags.mark_flag_as_required("config", options)


def define_workdir(options: flags.FlagValues) -> None:
    """Defines `--workdir=DIR`, required."""
    define_path(options, "workdir", "The folder for all files of a run.")


def define_checkpoints(options: flags.FlagValues) -> None:
    """Defines `--average_checkpoints` and `--checkpoint`, of which one may be given."""
    average = "Last checkpoints to average, by default as the run says."
    flags.DEFINE_integer("average_checkpoints", None, average, 1, flag_values=options)
    one = "One checkpoint instead: best, last or a step."
    flags.DEFINE_string("checkpoint", None, one, flag_values=options)


def define_processes(options: flags.FlagValues) -> None:
    """Defines the flags that place this process among several of one run."""
    flags.DEFINE_string(
        "coordinator",
        None,
        "HOST:PORT of process 0, for a run of several processes. Not needed on a TPU pod or under "
        "SLURM.",
        flag_values=options,
    )
    flags.DEFINE_integer("num_processes", None, "Number of processes.", flag_values=options)
    flags.DEFINE_integer("process_id", None, "Number of this process, from 0.", flag_values=options)


def define_path(
    options: flags.FlagValues, name: str, meaning: str, *, required: bool = True
) -> None:
    """Defines `--NAME=PATH` and expands `~`; None if an optional one is not given."""
    flags.DEFINE(_PathParser(), name, None, meaning, options, required=required)


def define_arguments(options: flags.FlagValues, meaning: str) -> None:
    """Allows arguments without a flag anywhere: `options.arguments` lists them in order."""
    flags.DEFINE_multi_string("arguments", [], meaning, options)


def given(options: flags.FlagValues, *names: str) -> dict[str, Any]:
    """Returns the values of those flags that are given or have a default, by name."""
    values = {name: options[name].value for name in names}
    return {name: value for name, value in values.items() if value is not None}


def read_config(options: flags.FlagValues) -> dict[str, Any]:
    """Returns the values of `--config` after overrides, as nested dictionaries."""
    return options.config.to_dict()


def run(argv: Sequence[str], options: flags.FlagValues, body: Callable[[], None]) -> int:
    """Parses `argv` into `options`, calls `body` and returns the exit status.

    Prints one line and returns 1 for a `UserError` or an error of the system, such as a missing
    file or a full disk. `body` goes on if output streams are closed or their readers leave, unless
    it calls `deliver`. `--help` prints the docstring of the script (the module of `body`) and its
    flags.
    """
    with lasting(), _quiet_libraries():
        return _run(argv, options, body)


def _run(argv: Sequence[str], options: flags.FlagValues, body: Callable[[], None]) -> int:
    try:
        if _HELP.intersection(argv):
            print(sys.modules[body.__module__].__doc__)
            print(options.get_help(include_special_flags=False))
        else:
            _parse(argv, options)
            body()
        sys.stdout.flush()
    except UserError as error:
        return _fail(error, str(error))
    except BrokenPipeError:  # the reader of the output has left
        return 128 + signal.SIGPIPE
    except OSError as error:
        if error.errno is None:
            raise
        return _fail(error, _describe(error, options))
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        return stopped.status
    except KeyboardInterrupt as error:
        return _fail(error, "interrupted", status=128 + signal.SIGINT)
    return 0


def _describe(error: OSError, options: flags.FlagValues) -> str:
    """Returns the message for a system error, with the option that names the path, if any."""
    if error.filename is None:
        return f"{error.strerror}: fix that and run again"
    place, reason = os.fsdecode(error.filename), error.strerror
    if target := missing_target(place):
        reason = f"it is a link to {target}, which is missing"
    option = option_of(place, options)
    fix = f"fix that, or give another {option}" if option else "fix that and run again"
    return f"{place}: {reason}: {fix}"


@contextlib.contextmanager
def _quiet_libraries() -> Generator[None, None, None]:
    """Silences INFO logs of libraries; warnings go to the current standard error."""
    absl_logging.set_verbosity(absl_logging.WARNING)
    logging.getLogger("jax").setLevel(logging.ERROR)
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # it also raises what it logs
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # absl warns about logging before its own flags are parsed; they keep their defaults.
    flags.FLAGS.mark_as_parsed()
    absl_logging.use_absl_handler()
    handler = absl_logging.get_absl_handler().python_handler
    before, handler.stream = handler.stream, sys.stderr
    try:
        yield
    finally:
        handler.stream = before


def _parse(argv: Sequence[str], options: flags.FlagValues) -> None:
    """Parses flags; turns the many exceptions of absl and ml_collections into a `UserError`."""
    default = options["config"].default if "config" in options else None
    absl_logging.set_verbosity(absl_logging.ERROR)  # ml_collections also warns about bad values
    try:
        remaining = options(_arguments(argv, default))
        if "config" in options:  # without overrides, a bad file fails only when it is used
            options.config.to_dict()
    except Exception as error:
        file = _config_file(argv, default)
        if file and "config" in options and "Flag --config must have" in str(error):
            raise no_config(None, file) from None
        raise explain(error, options, argv, file) from None
    finally:
        absl_logging.set_verbosity(absl_logging.WARNING)
    if "arguments" in options:
        options.arguments = [*options.arguments, *remaining[1:]]
    elif len(remaining) > 1:
        raise UserError(f"unexpected argument {remaining[1]!r}: start options with --")


def _arguments(argv: Sequence[str], default: str | None) -> list[str]:
    """Returns `argv` with the default config added if none is named, and `~` expanded."""
    named = [] if default is None or _named_configs(argv) else [f"--config={default}"]
    given = [re.sub("^(--?config=)(~.*)", _expand, argument) for argument in argv[1:]]
    return [*argv[:1], *named, *given]


def _expand(match: re.Match[str]) -> str:
    return f"{match[1]}{as_path(match[2])}"


def _named_configs(argv: Sequence[str]) -> list[str]:
    """Returns the files that `--config=FILE` and `--config FILE` name."""
    files = []
    for argument, following in itertools.zip_longest(argv, argv[1:], fillvalue=""):
        if named := re.fullmatch("--?config(?:=(.*))?", argument):
            files.append(following if named[1] is None else named[1])
    return files


def _config_file(argv: Sequence[str], default: str | None) -> str:
    """Returns the config file that counts: the last one named, or the default."""
    return [default or "", *_named_configs(argv)][-1]


def _fail(error: BaseException, message: str, status: int = 1) -> int:
    """Prints an error's message and notes; returns the exit status."""
    lines = "\n".join([f"error: {message}", *getattr(error, "__notes__", ())])
    for stream, text in ((sys.stdout, ""), (sys.stderr, lines + "\n")):
        try:
            print(text, end="", file=stream, flush=True)
        except OSError:
            discard(stream.fileno())
    return status
