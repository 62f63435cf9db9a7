# SPDX-License-Identifier: Apache-2.0
"""Rules in a user's own file: `--config.policy=my_rules.py:Entropy:0.5`.

Loading a file runs its code, so only what the user names is loaded: see `parse_policy`.
"""

import functools
import hashlib
import sys
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from dat_jax.config import ModelConfig
from dat_jax.errors import UserError
from dat_jax.exits.checking import check_class, check_rule, describe_fault
from dat_jax.exits.parsing import FILE_FORM, FilePlace, Policy
from dat_jax.exits.questions import Rule
from dat_jax.storage.paths import destination


class _File(NamedTuple):
    """A file that has been run."""

    module: ModuleType
    sha256: str


def load_policy(text: str, config: ModelConfig) -> Policy:
    """Loads the rule that a policy of the form `FILE.py:CLASS[:ARGUMENT]` names.

    Raises:
        UserError: the file or the class is missing, the file fails, the class is no rule or refuses
            the argument, the model of `config` lacks what the rule needs, or its answers have wrong
            shapes.
    """
    place = FilePlace.of(text)
    try:
        if not place or not place.name:
            raise UserError(f"must have the form {FILE_FORM}")
        path = destination(place.file)
        file = _run(path)
        cls = _class_of(file.module, place)
        if not cls.fits(config):
            raise UserError("this model has no exit head or exits for it")
        rule = _parse(cls, place.argument, path, config)
    except UserError as error:
        raise UserError(f"policy is {text!r}: {error}") from error.__cause__
    check_rule(rule, config)
    return Policy(text, rule, file.sha256)


@functools.cache
def _run(path: Path) -> _File:
    """Runs a file as a module, once a path: two loads would make two classes of each rule."""
    try:
        source = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    sha256 = hashlib.sha256(source).hexdigest()
    module = ModuleType(f"{path.stem}_{sha256[:8]}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses look their module up
    try:
        exec(compile(source, str(path), "exec"), vars(module))
    except Exception as error:
        raise UserError(f"{path} fails with {describe_fault(error, str(path))}") from error
    return _File(module, sha256)


def _class_of(module: ModuleType, place: FilePlace) -> type[Rule]:
    """Returns the class that a policy names."""
    cls = getattr(module, place.name, None)
    if isinstance(cls, type) and issubclass(cls, Rule):
        check_class(cls)
        return cls
    own = [
        name
        for name, value in vars(module).items()
        if isinstance(value, type)
        and issubclass(value, Rule)
        and value.__module__ == module.__name__
    ]
    has = f"it has {', '.join(own)}" if own else "subclass dat_jax.exits.questions.Rule in it"
    raise UserError(f"{place.file} has no rule {place.name!r}: {has}")


def _parse(cls: type[Rule], argument: str, path: Path, config: ModelConfig) -> Rule:
    """Builds the rule from its argument."""
    if argument and cls.parse.__func__ is Rule.parse.__func__:
        raise UserError(f"{cls.__name__} takes no argument: define its method parse, or drop it")
    try:
        rule = cls.parse(argument, config.decoder_layers)
    except UserError:
        raise
    except Exception as error:
        fault = describe_fault(error, str(path))
        raise UserError(f"{cls.__name__}.parse fails with {fault}") from error
    if not isinstance(rule, cls):
        raise UserError(f"{cls.__name__}.parse returns {type(rule).__name__}: must be the rule")
    return rule
