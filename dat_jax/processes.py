# SPDX-License-Identifier: Apache-2.0
"""Several processes that make one run together, by JAX's runtime: who they are, what they agree on.

One of them, the coordinator, knows all, and what they tell each other goes through it: it waits for
as long as it takes, where a collective of CPUs gives up. A process that ends is missed by it, and
the runtime then ends the others.
"""

import contextlib
import itertools
import json
import secrets
import signal
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import jax
from jax._src import distributed  # parts of it have no public name
from jax.experimental import multihost_utils

from dat_jax.errors import UserError

_EVER = 10**9  # milliseconds

runtime: Any = distributed.global_state

_numbers = itertools.count()


def count() -> int:
    """The number of processes that make this run; 1 unless they were started together."""
    return jax.process_count() if jax.distributed.is_initialized() else 1


def index() -> int:
    """The number of this process among them, from 0."""
    return jax.process_index() if jax.distributed.is_initialized() else 0


def is_first() -> bool:
    """True of the process that writes: the only one, or number 0."""
    return index() == 0


def gather(value: Any) -> list[Any]:
    """The values of all processes, in their order; each waits until all have come here.

    Args:
        value: what JSON can hold.
    """
    if count() == 1:
        return [value]
    name = f"dat_jax/{next(_numbers)}"
    client = runtime.client
    client.key_value_set_bytes(f"{name}/{index()}", json.dumps(value).encode())
    keys = [f"{name}/{number}" for number in range(count())]
    values = [json.loads(client.blocking_key_value_get_bytes(key, _EVER)) for key in keys]
    client.wait_at_barrier(name, _EVER)
    client.key_value_delete(keys[index()])
    return values


def by_first(action: Callable[[], Any]) -> Any:
    """Has the first process do something, for which the others wait; returns what came of it.

    Args:
        action: returns what JSON can hold.

    Raises:
        UserError: the first process did, in all of them.
    """
    result, message = None, ""
    if is_first():
        try:
            result = action()
        except UserError as error:
            message = str(error)
            if count() == 1:
                raise
    (result, message), *_ = gather((result, message))
    if message:
        raise UserError(message)
    return result


def check_shared(folder: Path) -> None:
    """Makes sure that all processes see one folder by this name, to which the first can write.

    Raises:
        UserError: they do not.
    """
    mark = folder / f".shared-{gather(secrets.token_hex(8))[0]}"
    if count() == 1:
        return
    if is_first():
        mark.touch()
    gather("made")
    others = [number for number, sees in enumerate(gather(mark.exists())) if not sees]
    if is_first():
        mark.unlink()
    if others:
        raise UserError(
            f"{folder} is another folder in process {', '.join(map(str, others))} than in process "
            "0: name one on a disk that all share"
        )


@contextlib.contextmanager
def agreeing_to_stop() -> Generator[Callable[[int], bool], None, None]:
    """Has all stop after the same step, once one of them is sent SIGTERM.

    Yields:
        Says of each step that has been made, asked by all, if it is the last. It costs nothing
        until a signal comes.
    """
    jax.config.update("jax_enable_preemption_service", True)
    runtime.initialize_preemption_sync_manager()
    try:
        yield multihost_utils.reached_preemption_sync_point
    finally:
        runtime.preemption_sync_manager.shutdown()
        runtime.preemption_sync_manager = None
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the runtime would keep it for itself
