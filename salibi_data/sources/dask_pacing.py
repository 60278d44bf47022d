"""Dask plugins of :func:`share`: all workers together keep to one limit of requests per host.

Each process has its threads' share of ``HttpSettings.parallel``. A pause that a host asks for
(``Retry-After``) goes by the scheduler to every worker.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from distributed import SchedulerPlugin, WorkerPlugin

from salibi_data.sources import rate_limits as limits

if TYPE_CHECKING:
    from distributed import Client, Scheduler, Worker

_HANDLER: Final = "salibi_limits"
_PERIOD_S: Final = 1.0
_WORKERS_PER_S: Final = 100
"""A scheduler of thousands of workers is asked by so many a second."""


def share(client: Client) -> None:
    """Let the workers of a Dask cluster share one limit per host; those that join later, too.

    Calling it again changes nothing. The scheduler's environment must have this package.
    """
    client.register_plugin(PauseKeeper(), name=PauseKeeper.name)
    client.register_plugin(PaceClient(), name=PaceClient.name)


class PauseKeeper(SchedulerPlugin):
    """Lets the scheduler answer ``salibi_limits``."""

    name = "salibi-pause-keeper"
    idempotent = True

    async def start(self, scheduler: Scheduler) -> None:
        """Begin to answer."""
        self._scheduler = scheduler
        self._until: dict[str, float] = {}
        scheduler.handlers[_HANDLER] = self.answer

    async def answer(self, pauses: dict[str, float]) -> dict[str, Any]:
        """Take the seconds that hosts asked for; give all that are left, and the threads."""
        now = time.monotonic()
        for host, seconds in pauses.items():
            self._until[host] = max(self._until.get(host, now), now + seconds)
        self._until = {host: until for host, until in self._until.items() if until > now}
        workers = self._scheduler.workers.values()
        return {
            "num_threads": sum(worker.nthreads for worker in workers),
            "pauses": {host: until - now for host, until in self._until.items()},
            "again_s": max(_PERIOD_S, len(workers) / _WORKERS_PER_S),
        }


class PaceClient(WorkerPlugin):
    """Keeps a worker's process to its share, and carries pauses both ways."""

    name = "salibi-pace-client"
    idempotent = True

    async def setup(self, worker: Worker) -> None:
        """Ask the scheduler, before the first task, and go on asking."""
        self._worker = worker
        self._news: dict[str, float] = {}
        self._woken = asyncio.Event()
        self._again_s = _PERIOD_S
        await self._ask()
        limits.tell_pauses(worker.address, self._tell)
        self._asking = asyncio.create_task(self._keep_asking())

    async def teardown(self, worker: Worker) -> None:
        """Leave the process as it was."""
        self._asking.cancel()
        limits.tell_pauses(worker.address, None)
        limits.set_share(worker.address, None)

    def _tell(self, host: str, seconds: float) -> None:
        """From whichever thread was told to wait."""
        self._worker.loop.add_callback(self._note, host, seconds)

    def _note(self, host: str, seconds: float) -> None:
        self._news[host] = max(seconds, self._news.get(host, 0.0))
        self._woken.set()

    async def _keep_asking(self) -> None:
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), self._again_s)
            self._woken.clear()
            with suppress(OSError):  # a scheduler that is gone takes its workers along
                await self._ask()

    async def _ask(self) -> None:
        news, self._news = self._news, {}
        answer = await self._worker.scheduler.salibi_limits(pauses=news)
        own = self._worker.state.nthreads
        limits.set_share(self._worker.address, own / max(own, answer["num_threads"]))
        for host, seconds in answer["pauses"].items():
            limits.hold(host, seconds)
        self._again_s = answer["again_s"]
