"""Run tasks in this process or on the workers of a Dask cluster, with the same results.

Source: Dask's documentation of ``distributed.Client``, ``as_completed`` and ``LocalCluster``.
"""

from __future__ import annotations

import logging
import multiprocessing
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final
from uuid import uuid4

from salibi_data.store.errors import SalibiError, UsageError

Task = tuple[Any, Callable[..., Any], tuple[Any, ...]]
"""(key, function, arguments)."""

TASKS_PER_THREAD: Final = 3
"""Tasks submitted per thread beyond the running one: enough to keep workers busy; more would only
occupy memory."""

CONNECT_TIMEOUT_S: Final = 30
"""Seconds to connect to a scheduler."""
WORKERS_TIMEOUT_S: Final = 3600
"""Seconds to wait for the first worker, which a batch system may start late."""


_MAIN_MODULE: Final = (
    "they import the script that builds, so it must do so below "
    '`if __name__ == "__main__":` and be a file.'
)


@dataclass(frozen=True)
class WorkerDied:
    """Result of a task whose workers died at every attempt."""

    reason: str
    """Sentence that says so, for messages."""


@dataclass
class Executor:
    """Runs tasks; starts or joins a Dask cluster when the first task comes."""

    workers: int = 1
    """Processes on this machine; 1 runs tasks in this process."""
    scheduler: str | None = None
    """Address of a Dask scheduler whose workers run the tasks instead."""
    exit_stack: ExitStack = field(default_factory=ExitStack, repr=False)
    """Closes the client and the cluster that were started."""
    _client: Any = None

    def run(self, tasks: Iterable[Task]) -> Iterator[tuple[Any, Any]]:
        """Run every task; yield (key, result or :class:`WorkerDied`) as they end.

        Tasks are taken from the iterable only as workers become free, so it may be long.

        Raises:
            SalibiError: the connection to the scheduler is lost.
            Exception: the first exception of a task; tasks that have not started are dropped.
        """
        if self.workers <= 1 and self.scheduler is None:
            for key, function, arguments in tasks:
                yield key, function(*arguments)
            return
        waiting = iter(tasks)
        first = list(islice(waiting, 1))
        if first:
            self._client = self._client or self._connect()
            yield from self._run_on_cluster([*first], waiting)

    def _run_on_cluster(
        self, first: list[Task], waiting: Iterator[Task]
    ) -> Iterator[tuple[Any, Any]]:
        from concurrent.futures import CancelledError

        from distributed import KilledWorker, as_completed
        from distributed.comm.core import CommClosedError

        submitted: dict[str, Task] = {}
        suspects: list[Task] = []
        completed = as_completed(loop=self._client.loop)

        def submit(task: Task) -> Any:
            _, function, arguments = task
            name = f"salibi-{uuid4().hex}"
            submitted[name] = task
            return self._client.submit(function, *arguments, key=name, pure=False)

        try:
            for task in (*first, *islice(waiting, self._capacity() - len(first))):
                completed.add(submit(task))
            for future in completed:
                task = submitted.pop(future.key)
                try:
                    result = future.result()
                except KilledWorker:
                    # Dask blames all tasks that wait at a worker when it dies.
                    suspects.append(task)
                else:
                    yield task[0], result
                for following in islice(waiting, max(1, self._capacity() - len(submitted))):
                    completed.add(submit(following))
            for task in suspects:  # one at a time, so that only the one at fault fails again
                yield task[0], _result_or_death(submit(task))
        except (CommClosedError, CancelledError, TimeoutError, OSError) as error:
            # CommClosedError is an OSError, too, but no task raises it.
            may_be_a_tasks = isinstance(error, OSError) and not isinstance(error, CommClosedError)
            if may_be_a_tasks and self._scheduler_answers():
                raise
            raise SalibiError(
                f"the Dask scheduler at {self._client.scheduler.address} is gone; what was "
                "finished is kept. Start it and run the same command again."
            ) from error
        finally:
            self._cancel(list(submitted))

    def _cancel(self, names: list[str]) -> None:
        if names and self._scheduler_answers():
            self._client.cancel(names, force=True)

    def _capacity(self) -> int:
        """Return the number of tasks to have submitted at present; workers may come and go."""
        workers = self._client.scheduler_info(n_workers=-1)["workers"].values()
        threads: int = sum(worker["nthreads"] for worker in workers)
        return (1 + TASKS_PER_THREAD) * max(1, threads)

    def _scheduler_answers(self) -> bool:
        """Connect to the scheduler: the client notices late that its scheduler was killed."""
        if self._client.status != "running":
            return False
        try:
            _check_listening(self._client.scheduler.address)
        except OSError:
            return False
        return True

    def _connect(self) -> Any:
        from salibi_data.sources import dask_plugins

        self.exit_stack.enter_context(_quiet_dask())
        if self.scheduler is None:
            client = self.exit_stack.enter_context(_local_client(self.workers))
        else:
            client = self.exit_stack.enter_context(_remote_client(self.scheduler))
        dask_plugins.share_tokens(client)
        dask_plugins.share_request_limits(client)
        return client


def _result_or_death(future: Any) -> Any:
    from distributed import KilledWorker

    try:
        return future.result()
    except KilledWorker as error:
        return WorkerDied(f"the workers that tried it died ({error.last_worker.address})")


@contextmanager
def _local_client(num_workers: int) -> Iterator[Any]:
    """Start worker processes on this machine, and a client; they end with the block."""
    from distributed import Client, LocalCluster

    try:
        cluster = LocalCluster(
            n_workers=num_workers,
            threads_per_worker=1,  # GDAL handles are not shared; processes scale
            processes=True,
            dashboard_address="127.0.0.1:0",  # any free port, since builds may run in parallel
            silence_logs=logging.CRITICAL,
            # Ctrl-C reaches all processes of a terminal; only this one may act on it.
            preload=["import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"],
        )
    except RuntimeError as error:
        raise UsageError(f"worker processes cannot be started: {_MAIN_MODULE}") from error
    with cluster, Client(cluster, set_as_default=False) as client:
        yield client


@contextmanager
def _remote_client(address: str) -> Iterator[Any]:
    """Connect to a running scheduler, and wait until it has a worker."""
    from distributed import Client

    with ExitStack() as exit_stack:
        try:
            _check_listening(address)
            client = Client(address, timeout=CONNECT_TIMEOUT_S, set_as_default=False)
            exit_stack.enter_context(client)
            client.wait_for_workers(1, timeout=WORKERS_TIMEOUT_S)
        except (OSError, ValueError, TimeoutError) as error:
            raise UsageError(
                f"no Dask scheduler with workers answers at {address!r}; check the address, such "
                "as tcp://10.0.0.1:8786, and that workers have started."
            ) from error
        yield client


def _check_listening(address: str) -> None:
    """Check that a server listens at an address; Dask's client would take minutes to fail.

    Raises:
        OSError: no server listens there.
        ValueError: the address has no host and port.
    """
    from distributed.comm.addressing import parse_address, parse_host_port

    scheme, location = parse_address(address, strict=False)
    if scheme in ("tcp", "tls"):
        host, port = parse_host_port(location)
        if not (host and port):
            raise ValueError("no host and port")
        socket.create_connection((host, port), timeout=CONNECT_TIMEOUT_S).close()


def check_main_module() -> None:
    """Refuse to build in a worker process that is still importing the main script.

    Raises:
        UsageError: the script builds on import, without checking ``__name__``.
    """
    # Python itself detects this by the same attribute, in `multiprocessing.spawn`.
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise UsageError(f"a build cannot begin while its own workers start: {_MAIN_MODULE}")


@contextmanager
def _quiet_dask() -> Iterator[None]:
    """Silence Dask's loggers in the block: this module reports a worker's death itself, once."""
    # Dask sets a level on each of its loggers when imported, so the parent's has no effect.
    loggers = [
        logging.getLogger(name)
        for name in list(logging.root.manager.loggerDict)
        if name.split(".")[0] == "distributed"
    ]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def open_executor(workers: int, scheduler: str | None) -> Iterator[Executor]:
    """Provide an executor for the length of the block.

    Args:
        workers: processes on this machine; 1 runs tasks in this process.
        scheduler: address of a Dask scheduler whose workers run the tasks instead.

    Raises:
        UsageError: both are given.
    """
    if scheduler is not None and workers > 1:
        raise UsageError("give either --workers or --scheduler: a cluster has its own workers.")
    executor = Executor(workers=workers, scheduler=scheduler)
    with executor.exit_stack:
        yield executor
