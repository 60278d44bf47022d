"""Server processes that never outlive the tests, whatever ends them."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

STOP_TIMEOUT_S = 15


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def server(
    command: Sequence[str | Path],
    *,
    log: Path,
    ready: Callable[[], bool],
    env: Mapping[str, str] | None = None,
    user: str | None = None,
    stop: signal.Signals = signal.SIGTERM,
    timeout_s: float = 60,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server from when ``ready()`` says so until the block ends.

    Args:
        command: with its arguments.
        log: where both its outputs go; shown if it does not start.
        ready: whether it answers; asked every tenth of a second.
        env: added to this process's environment.
        user: who it runs as, where this process may choose.
        stop: the signal that ends it; SIGKILL follows for all it has started.
        timeout_s: how long it may take to answer.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*_leash(user), *map(str, command)],
            env={**os.environ, **(env or {})},
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    try:
        _wait(process, ready, log, timeout_s)
        yield process
    finally:
        _end(process, stop)


def _leash(user: str | None) -> list[str]:
    """A prefix under which the kernel ends the server with us, even if we are killed outright."""
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        return []
    prefix = [setpriv, "--pdeathsig", "KILL"]
    if user is not None and os.geteuid() == 0:
        prefix += ["--reuid", user, "--regid", user, "--init-groups"]
    return [*prefix, "--"]


def _wait(
    process: subprocess.Popen[bytes], ready: Callable[[], bool], log: Path, timeout_s: float
) -> None:
    deadline = time.monotonic() + timeout_s
    while not ready():
        ended = process.poll() is not None
        if ended or time.monotonic() > deadline:
            why = f"ended with {process.returncode}" if ended else f"silent for {timeout_s} s"
            raise RuntimeError(
                f"{process.args[0]} {why}:\n{log.read_text(errors='replace')[-3000:]}"
            )
        time.sleep(0.1)


def _end(process: subprocess.Popen[bytes], stop: signal.Signals) -> None:
    process.send_signal(stop)
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_TIMEOUT_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
