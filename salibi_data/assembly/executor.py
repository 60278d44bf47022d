"""Tasks in this process, or on the workers of a Dask cluster; the same results either way.

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

from salibi_data.sources import dask_plugins
from salibi_data.store.errors import SalibiError, UsageError

Task = tuple[Any, Callable[..., Any], tuple[Any, ...]]
"""(key, function, arguments)."""

TASKS_PER_THREAD: Final = 3
"""Tasks handed out beyond one per thread keep workers busy; more would only wait in memory."""

CONNECT_TIMEOUT_S: Final = 30
WORKERS_TIMEOUT_S: Final = 3600
"""A batch system may take long to start the first worker."""


_MAIN_MODULE: Final = (
    "they import the script that builds, so it must do so below "
    '`if __name__ == "__main__":` and be a file.'
)


@dataclass(frozen=True)
class Lost:
    """In place of a result: the task's workers died each time it was tried."""

    reason: str


@dataclass
class Crew:
    """Whoever does the tasks; a cluster is started or joined when there is the first one."""

    workers: int = 1
    scheduler: str | None = None
    closing: ExitStack = field(default_factory=ExitStack, repr=False)
    """Ends what was started."""
    _client: Any = None

    def run(self, tasks: Iterable[Task]) -> Iterator[tuple[Any, Any]]:
        """Do every task; gives (key, result or :class:`Lost`) as they end.

        Tasks are taken from the iterable as workers become free, so that it may be long.

        Raises:
            SalibiError: the scheduler is gone.
            Exception: the first task that raised; those not begun are dropped.
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

        handed_out: dict[str, Task] = {}
        suspects: list[Task] = []
        ended = as_completed(loop=self._client.loop)

        def submit(task: Task) -> Any:
            _, function, arguments = task
            name = f"salibi-{uuid4().hex}"
            handed_out[name] = task
            return self._client.submit(function, *arguments, key=name, pure=False)

        try:
            for task in (*first, *islice(waiting, self._capacity() - len(first))):
                ended.add(submit(task))
            for future in ended:
                task = handed_out.pop(future.key)
                try:
                    result = future.result()
                except KilledWorker:
                    # Dask suspects all tasks that wait at a worker when it dies.
                    suspects.append(task)
                else:
                    yield task[0], result
                for following in islice(waiting, max(1, self._capacity() - len(handed_out))):
                    ended.add(submit(following))
            for task in suspects:  # each alone, so that no other is blamed for it
                yield task[0], _result_or_lost(submit(task))
        except (CommClosedError, CancelledError, TimeoutError, OSError) as error:
            # A comm that is closed is an OSError as well, but never a task's own.
            may_be_a_task = isinstance(error, OSError) and not isinstance(error, CommClosedError)
            if may_be_a_task and self._scheduler_answers():
                raise
            raise SalibiError(
                f"the Dask scheduler at {self._client.scheduler.address} is gone; what was "
                "finished is kept. Start it and run the same command again."
            ) from error
        finally:
            self._take_back(list(handed_out))

    def _take_back(self, names: list[str]) -> None:
        if names and self._scheduler_answers():
            self._client.cancel(names, force=True)

    def _capacity(self) -> int:
        """Tasks to have handed out at a time: workers may come and go."""
        workers = self._client.scheduler_info(n_workers=-1)["workers"].values()
        threads: int = sum(worker["nthreads"] for worker in workers)
        return (1 + TASKS_PER_THREAD) * max(1, threads)

    def _scheduler_answers(self) -> bool:
        """Asked anew: the client may take a while to notice that its scheduler was killed."""
        if self._client.status != "running":
            return False
        try:
            _check_listening(self._client.scheduler.address)
        except OSError:
            return False
        return True

    def _connect(self) -> Any:

        self.closing.enter_context(_quiet_dask())
        if self.scheduler is None:
            client = self.closing.enter_context(_on_this_machine(self.workers))
        else:
            client = self.closing.enter_context(_at(self.scheduler))
        dask_plugins.share_tokens(client)
        dask_plugins.share_request_limits(client)
        return client


def _result_or_lost(future: Any) -> Any:
    from distributed import KilledWorker

    try:
        return future.result()
    except KilledWorker as error:
        return Lost(f"the workers that tried it died ({error.last_worker.address})")


@contextmanager
def _on_this_machine(num_workers: int) -> Iterator[Any]:
    """A client of a cluster of processes here; they end with it."""
    from distributed import Client, LocalCluster

    try:
        cluster = LocalCluster(
            n_workers=num_workers,
            threads_per_worker=1,  # GDAL handles are not shared; processes scale
            processes=True,
            dashboard_address="127.0.0.1:0",  # any free port: builds run side by side
            silence_logs=logging.CRITICAL,
            # Ctrl-C reaches all processes of a terminal; only this one acts on it.
            preload=["import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"],
        )
    except RuntimeError as error:
        raise UsageError(f"worker processes cannot be started: {_MAIN_MODULE}") from error
    with cluster, Client(cluster, set_as_default=False) as client:
        yield client


@contextmanager
def _at(address: str) -> Iterator[Any]:
    """A client of a scheduler that is there, once it has a worker."""
    from distributed import Client

    with ExitStack() as closing:
        try:
            _check_listening(address)
            client = Client(address, timeout=CONNECT_TIMEOUT_S, set_as_default=False)
            closing.enter_context(client)
            client.wait_for_workers(1, timeout=WORKERS_TIMEOUT_S)
        except (OSError, ValueError, TimeoutError) as error:
            raise UsageError(
                f"no Dask scheduler with workers answers at {address!r}; check the address, such "
                "as tcp://10.0.0.1:8786, and that workers have started."
            ) from error
        yield client


def _check_listening(address: str) -> None:
    """Whether anybody listens there; Dask's client would take minutes to say that nobody does."""
    from distributed.comm.addressing import parse_address, parse_host_port

    scheme, place = parse_address(address, strict=False)
    if scheme in ("tcp", "tls"):
        host, port = parse_host_port(place)
        if not (host and port):
            raise ValueError("no host and port")
        socket.create_connection((host, port), timeout=CONNECT_TIMEOUT_S).close()


def check_main_module() -> None:
    """Refuse to build in a process that is only being started to work for another build.

    Raises:
        UsageError: the script that is being imported builds without asking whether it is the main
            one.
    """
    # Python's own way to notice this: `multiprocessing.spawn` looks at the same attribute.
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise UsageError(f"a build cannot begin while its own workers start: {_MAIN_MODULE}")


@contextmanager
def _quiet_dask() -> Iterator[None]:
    """What a worker's end means is said by us, once, not by Dask at every step."""
    # Dask gives each of its loggers a level of its own when it is imported.
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
def crew(workers: int, scheduler: str | None) -> Iterator[Crew]:
    """Workers for as long as the block lasts.

    Args:
        workers: processes on this machine; 1 works in this one.
        scheduler: address of a Dask scheduler whose workers do the work instead.

    Raises:
        UsageError: both are given.
    """
    if scheduler is not None and workers > 1:
        raise UsageError("give either --workers or --scheduler: a cluster has its own workers.")
    team = Crew(workers=workers, scheduler=scheduler)
    with team.closing:
        yield team
