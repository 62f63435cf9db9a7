# SPDX-License-Identifier: Apache-2.0
"""Communication between the processes of one distributed run.

Messages go through the coordinator's key-value store, which, unlike a collective on CPUs, does not
time out. The coordinator notices when a process ends, and the runtime then ends the others.
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
from jax.experimental import multihost_utils

from dat_jax.errors import UserError
from dat_jax.runtime.private_jax import runtime

_EVER = 10**9  # milliseconds

_numbers = itertools.count()


def count() -> int:
    """Returns the number of processes of this run; 1 if it is not distributed."""
    return jax.process_count() if jax.distributed.is_initialized() else 1


def index() -> int:
    """Returns the number of this process, from 0."""
    return jax.process_index() if jax.distributed.is_initialized() else 0


def is_first() -> bool:
    """Returns whether this is process 0, the one that writes files."""
    return index() == 0


def gather(value: Any) -> list[Any]:
    """Returns the values of all processes, in process order; waits for all of them.

    Args:
        value: JSON-serialisable.
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
    """Runs `action` in the first process while the others wait; returns its result in all.

    Args:
        action: returns a JSON-serialisable value.

    Raises:
        UserError: `action` raised it; raised in all processes.
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
    """Checks that `folder` is the same folder in all processes and that the first can write to it.

    Raises:
        UserError: it is another folder in some process.
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
            "0: give one on a disk that all share"
        )


@contextlib.contextmanager
def agreeing_to_stop() -> Generator[Callable[[int], bool], None, None]:
    """Makes all processes stop after the same step once one of them gets SIGTERM.

    Yields:
        A function that every process calls with the number of each finished step; it returns
        whether that step is the last. It costs nothing until a signal comes.
    """
    jax.config.update("jax_enable_preemption_service", True)
    runtime.initialize_preemption_sync_manager()
    try:
        yield multihost_utils.reached_preemption_sync_point
    finally:
        runtime.preemption_sync_manager.shutdown()
        runtime.preemption_sync_manager = None
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the runtime does not restore it
