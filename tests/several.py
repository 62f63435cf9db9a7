# SPDX-License-Identifier: Apache-2.0
"""Runs a program in two connected processes on this machine."""

import contextlib
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.scripts.calls import REPOSITORY, Finished, environment

PROCESSES = 2
PATIENCE = 180  # seconds to wait for other processes

# Gloo, the CPU collectives, prints to descriptor 1, in pieces that its threads mix with ours.
_SETTINGS = """
import dataclasses, os, sys
sys.stdout = open(os.dup(1), "w", encoding=sys.stdout.encoding)
os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
from dat_jax.runtime import startup
from dat_jax.decoding import sizing
startup._CONNECTING, startup._HEARTBEAT, startup._FAREWELL = {connecting}, 5, 2_000
sizing.PLATFORMS["cpu"] = dataclasses.replace(sizing.PLATFORMS["cpu"], window={window})
"""
_BODY = """
import signal
from pathlib import Path
from absl import flags
from dat_jax.cli.command_line import define_processes, run
from dat_jax.errors import UserError
from dat_jax.runtime.processes import agreeing_to_stop, by_first, check_shared, gather, index

def body():
    with startup.together(options.coordinator, options.num_processes, options.process_id):
        {body}

options = flags.FlagValues()
define_processes(options)
sys.exit(run(sys.argv, options, body))
"""


def script(name: str, *, connecting: int = PATIENCE, window: int = 8_192) -> str:
    """A program that runs a script with this connection timeout [s] and window [lines]."""
    settings = _SETTINGS.format(connecting=connecting, window=window)
    return f"{settings}\nimport {name}\nsys.exit({name}.main(sys.argv))"


def statement(body: str) -> str:
    """A program that connects to the other process and runs a statement."""
    return _SETTINGS.format(connecting=PATIENCE, window=8_192) + _BODY.format(body=body)


def flags(number: int, port: int) -> list[str]:
    """The command-line arguments of process `number`."""
    return [
        f"--coordinator=localhost:{port}",
        f"--num_processes={PROCESSES}",
        f"--process_id={number}",
    ]


def start(
    program: str,
    *arguments: str | Path,
    devices: int = 2,
    variables: Mapping[str, str] | None = None,
) -> subprocess.Popen[str]:
    """Starts a process with this many devices."""
    own = {"JAX_NUM_CPU_DEVICES": str(devices), "PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        cwd=REPOSITORY,
        env=environment() | own | dict(variables or {}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextlib.contextmanager
def started(
    program: str, *arguments: str | Path, second: str = ""
) -> Iterator[list[subprocess.Popen[str]]]:
    """Starts two processes and kills them afterwards; the second may run another program."""
    port = free_port()
    processes = [
        start(own, *arguments, *flags(number, port))
        for number, own in enumerate((program, second or program))
    ]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()


def finish(processes: Sequence[subprocess.Popen[str]]) -> list[Finished]:
    """Waits until all have ended."""
    ends = [process.communicate(timeout=PATIENCE) for process in processes]
    return [
        Finished(process.returncode, output, errors)
        for process, (output, errors) in zip(processes, ends, strict=True)
    ]


def run_together(program: str, *arguments: str | Path) -> list[Finished]:
    """Runs a program in two processes that end by themselves."""
    with started(program, *arguments) as processes:
        return finish(processes)


def free_port(among: Sequence[int] = (0,)) -> int:
    """A free port, among those given or any."""
    for port in among:
        with contextlib.suppress(OSError), socket.socket() as listening:
            listening.bind(("", port))
            return listening.getsockname()[1]
    raise OSError("no port is free")
