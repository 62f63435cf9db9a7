# SPDX-License-Identifier: Apache-2.0
"""Starting and ending the processes of one distributed run."""

import atexit
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Generator
from typing import Any

import jax

from dat_jax.errors import Stopped, UserError
from dat_jax.runtime.private_jax import cluster, runtime
from dat_jax.runtime.processes import gather, index, is_first

_CONNECTING = 300  # seconds within which all processes must have started
_HEARTBEAT = 30  # seconds of silence after which a process counts as dead
_FAREWELL = 5_000  # milliseconds
_CLUSTERS = {"slurm", "gcetpu", "gketpu"}  # JAX's names of clusters that number the processes


@contextlib.contextmanager
def together(
    coordinator: str | None, num_processes: int | None, process_id: int | None
) -> Generator[None, None, None]:
    """Connects this process to the others of its run, if there are any; enter it before using JAX.

    Without arguments, a TPU pod or SLURM tells which processes there are. Only process 0 prints to
    standard output. A process that fails does not wait for the others; the runtime then ends them.

    Args:
        coordinator: HOST:PORT of process 0.
        num_processes: number of processes.
        process_id: number of this process, from 0.

    Raises:
        UserError: some arguments are missing or impossible, or another process was lost.
    """
    _check(coordinator, num_processes, process_id)
    if coordinator is None and (name := cluster(_CLUSTERS)):
        _connect(cluster_detection_method=name)
    elif num_processes is not None and num_processes > 1:
        _connect(coordinator, num_processes, process_id, cluster_detection_method="deactivate")
    else:
        yield
        return
    try:
        with _quiet_unless_first():
            yield
    except Stopped:  # in all processes
        _part()
        raise
    except jax.errors.JaxRuntimeError as error:
        _leave(1)
        reason = " ".join(str(error).split())[:300]
        lost = UserError(
            f"process {index()} cannot continue, {reason}: if another process has ended, see its "
            "error; then run the same command again in all"
        )
        lost.__notes__ = getattr(error, "__notes__", [])
        raise lost from error
    except BaseException as error:
        _leave(128 + signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1)
        raise
    _part()


def _check(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    given = [value is not None for value in (coordinator, num_processes, process_id)]
    if any(given) and not all(given):
        raise UserError(
            "--coordinator, --num_processes and --process_id go together: give all three, or none "
            "on a TPU pod or under SLURM"
        )
    if coordinator is None or num_processes is None or process_id is None:
        return
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise UserError(
            f"--coordinator={coordinator} is not HOST:PORT: give the host of process 0 and a free "
            "port there"
        )
    if not 0 <= process_id < num_processes:
        raise UserError(
            f"--process_id is {process_id} and --num_processes {num_processes}: number the "
            "processes from 0"
        )


def _connect(*arguments: Any, cluster_detection_method: str) -> None:
    """Connects to the other processes, or ends this one with a single line.

    A timeout of the runtime itself would print a trace, so our timer ends the process before.
    """
    # Training turns it on while it runs.
    jax.config.update("jax_enable_preemption_service", False)
    patience = threading.Timer(_CONNECTING, _give_up)
    patience.daemon = True
    patience.start()
    try:
        jax.distributed.initialize(
            *arguments,
            cluster_detection_method=cluster_detection_method,
            initialization_timeout=2 * _CONNECTING,
            heartbeat_timeout_seconds=_HEARTBEAT,
        )
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"the processes cannot connect, {reason}: fix that and start all again"
        ) from error
    finally:
        patience.cancel()


def _give_up() -> None:
    print(
        f"error: not all processes were there within {_CONNECTING} s: start all of them, each with "
        "its own --process_id and a --coordinator that all can reach",
        file=sys.stderr,
        flush=True,
    )
    os._exit(1)


@contextlib.contextmanager
def _quiet_unless_first() -> Generator[None, None, None]:
    with contextlib.ExitStack() as stack:
        if not is_first():
            nowhere = stack.enter_context(open(os.devnull, "w"))
            stack.enter_context(contextlib.redirect_stdout(nowhere))
        yield


def _part() -> None:
    """Waits for all other processes and disconnects."""
    gather("done")
    jax.distributed.shutdown()


def _leave(status: int) -> None:
    """Ends this process with `status` at exit, where JAX would wait for the others.

    If all processes fail, a short barrier lets each print its error before the coordinator ends.
    """

    def end() -> None:
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            runtime.client.wait_at_barrier("dat_jax/failed", _FAREWELL)
            time.sleep(runtime.process_id == 0)  # it is the coordinator
        os._exit(status)

    atexit.register(end)
