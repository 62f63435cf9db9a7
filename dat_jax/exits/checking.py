# SPDX-License-Identifier: Apache-2.0
"""Checks a user's rule before any work: it is asked every question about shapes alone.

Without this, a mistake would end in an error from inside the compiled search, or a question that is
never asked would let all tokens exit at N.
"""

import dataclasses
import inspect
import numbers
import traceback
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dat_jax.config import ModelConfig
from dat_jax.errors import UserError
from dat_jax.exits.questions import (
    Block,
    Classified,
    Need,
    Plan,
    Rule,
    Scope,
    Sentence,
    Token,
    as_arrays,
)
from dat_jax.runtime.jax_flags import our_modes

QUESTIONS = ("before_sentence", "before_token", "after_block", "after_classifier")

# No two axes have the same size, so that a mistaken broadcast shows.
_SENTENCES, _BEAMS, _ROWS, _TOP, _WORDS = 3, 2, 5, 4, 97


def check_class(cls: type[Rule]) -> None:
    """Checks that a class is a rule with answers that somebody asks for.

    Raises:
        UserError: it is not.
    """
    if not dataclasses.is_dataclass(cls):
        raise UserError(f"{cls.__name__} needs the line @dataclasses.dataclass(frozen=True) above")
    answered = [name for name in QUESTIONS if getattr(cls, name) is not getattr(Rule, name)]
    if not answered:
        raise UserError(f"{cls.__name__} answers no question: define {' or '.join(QUESTIONS)}")
    if "after_classifier" in answered and Need.CLASSIFIER not in cls.needs:
        raise UserError(f"{cls.__name__} has after_classifier: put Need.CLASSIFIER into its needs")
    if cls.scope is not Scope.TOKEN and answered != ["before_sentence"]:
        raise UserError(
            f"{cls.__name__} has {answered[-1]}, which is asked about tokens: its scope must be "
            "Scope.TOKEN"
        )


@our_modes()
def check_rule(rule: Rule, config: ModelConfig) -> None:
    """Checks that a rule's numbers are numbers, and that its answers have the right shapes.

    Raises:
        UserError: one is not, has not, or the rule fails.
    """
    check_class(type(rule))
    try:
        arrays = as_arrays(rule)
    except (TypeError, ValueError):
        raise UserError(f"policy is {rule}: its fields must be numbers or tuples of them") from None
    layers = config.decoder_layers
    deepest = _attempt(rule, "deepest", lambda: rule.deepest(layers))
    if not isinstance(deepest, numbers.Integral) or deepest not in range(1, layers + 1):
        raise UserError(
            f"policy is {rule}: deepest answers {deepest}: must be an integer from 1 to {layers}"
        )
    _attempt(rule, "own_flops", lambda: int(rule.own_flops(config, np.array([1, layers]))))
    for question, seen, plan in _questions(rule, config):
        answer = _attempt(
            rule,
            question,
            lambda question=question, seen=seen, plan=plan: jax.eval_shape(
                lambda rule, seen, plan: getattr(rule, question)(seen, plan), arrays, seen, plan
            ),
        )
        _check_answer(rule, question, answer, plan)


def describe_fault(error: BaseException, file: str) -> str:
    """Returns an error on one line, with the innermost line of a file that it comes from."""
    lines = [x.lineno for x in traceback.extract_tb(error.__traceback__) if x.filename == file]
    if isinstance(error, SyntaxError) and error.filename == file:
        lines, error = [error.lineno], type(error)(error.msg)
    message = (str(error).splitlines() or [""])[0]
    place = f" at line {lines[-1]}" if lines else ""
    return f"{type(error).__name__}{place}: {message}"


def _attempt(rule: Rule, name: str, ask: Any) -> Any:
    """Asks; an error of the rule's code becomes one line."""
    try:
        return ask()
    except Exception as error:
        code = getattr(inspect.unwrap(getattr(type(rule), name)), "__code__", None)
        fault = describe_fault(error, code.co_filename if code else "")
        raise UserError(f"policy is {rule}: {name} fails with {fault}") from error


def _questions(rule: Rule, config: ModelConfig) -> Iterator[tuple[str, Any, Any]]:
    """Yields all questions that the rule is asked, with shapes for their inputs."""
    layers, logits = config.decoder_layers, _shape(jnp.float32, _SENTENCES, config.decoder_layers)
    sentence = Sentence(logits if Need.SENTENCE_LOGITS in rule.needs else None)
    yield "before_sentence", sentence, _shape(jnp.int32, _SENTENCES)
    if rule.scope is not Scope.TOKEN:
        return
    each = _shape(jnp.int32, _SENTENCES)
    yield "before_token", Token(each, each, each), _plan(rule, _SENTENCES, _BEAMS)
    depths, plan = _shape(jnp.int32, _ROWS), _plan(rule, _ROWS)
    states = _shape(jnp.dtype(config.dtype), _ROWS, config.decoder_dim)
    after_block: list[Any] = [None]
    if Need.FIRST_STATE_LOGITS in rule.needs:
        after_block = [_shape(jnp.float32, _ROWS, layers), None]  # after block 1, and above
    elif Need.HALTING_LOGIT in rule.needs:
        after_block = [_shape(jnp.float32, _ROWS)]
    for logits in after_block:
        yield "after_block", Block(depths, states, states, logits), plan
    if Need.CLASSIFIER in rule.needs:
        words, normaliser = _shape(jnp.float32, _ROWS, _WORDS), _shape(jnp.float32, _ROWS)
        top, tokens = _shape(jnp.float32, _ROWS, _TOP), _shape(jnp.int32, _ROWS, _TOP)
        yield "after_classifier", Classified(depths, words, normaliser, top, tokens), plan


def _shape(dtype: Any, *sizes: int) -> Any:
    return jax.ShapeDtypeStruct(sizes, dtype)


def _plan(rule: Rule, *sizes: int) -> Plan:
    return Plan(_shape(jnp.int32, *sizes), _shape(jnp.float32, *sizes, rule.carry_width))


def _check_answer(rule: Rule, question: str, answer: Any, plan: Any) -> None:
    """Checks an answer against the plan, or the depths, that the question came with."""
    start = f"policy is {rule}: {question} answers"
    exits = plan
    if isinstance(plan, Plan):
        if not isinstance(answer, Plan):
            raise UserError(f"{start} {_shown(answer)}: must be a Plan")
        if _shown(answer.carry) != _shown(plan.carry):
            raise UserError(
                f"{start} with a carry of {_shown(answer.carry)}: must be {_shown(plan.carry)}"
            )
        answer, exits = answer.exit_at, plan.exit_at
    fits = isinstance(answer, jax.ShapeDtypeStruct) and jnp.issubdtype(answer.dtype, jnp.integer)
    if not fits or not _broadcasts(answer.shape, exits.shape):
        raise UserError(f"{start} with exits of {_shown(answer)}: must be {_shown(exits)}")


def _broadcasts(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    try:
        return np.broadcast_shapes(shape, wanted) == wanted
    except ValueError:
        return False


def _shown(answer: Any) -> str:
    """Returns dtype and shape, as int32[5]."""
    if not isinstance(answer, jax.ShapeDtypeStruct):
        return type(answer).__name__
    return f"{answer.dtype}[{','.join(map(str, answer.shape))}]"
