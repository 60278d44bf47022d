"""Dask plugins through which the workers of a cluster share access tokens and request limits.

:func:`share_tokens`: the scheduler alone asks the token service, and the workers ask the scheduler.

:func:`share_request_limits`: each process gets a part of ``HttpSettings.parallel`` in proportion to
its threads, and a pause that a host asks for (``Retry-After``) reaches every worker by way of the
scheduler.

Source: "Plugins" in the documentation of ``dask.distributed``.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from distributed import SchedulerPlugin, WorkerPlugin
from distributed.utils import in_async_call, sync

from salibi_data.sources import rate_limits, sas_tokens
from salibi_data.sources.sas_tokens import Token
from salibi_data.store.errors import ReadError

if TYPE_CHECKING:
    from distributed import Client, Scheduler, Worker

# The worker side calls the handlers by these names, as methods of its scheduler proxy.
_BROKER_HANDLER: Final = "salibi_token"
_LIMITS_HANDLER: Final = "salibi_limits"

_TOKEN_TIMEOUT_S: Final = 300.0
"""Longest wait for the scheduler's answer; a broker whose service fails gives up earlier."""

_REPORT_INTERVAL_S: Final = 1.0
_MAX_REPORTS_PER_S: Final = 100
"""Reports per second to the scheduler by all workers; with thousands of them each reports less often."""


def share_tokens(client: Client) -> None:
    """Make the scheduler's process ask for the tokens of all workers of a Dask cluster.

    Workers that join later are included. Calling it again changes nothing. The scheduler's
    environment must have this package, and ``PC_SDK_SUBSCRIPTION_KEY`` where one is used.
    """
    client.register_plugin(TokenSchedulerPlugin(), name=TokenSchedulerPlugin.name)
    client.register_plugin(TokenWorkerPlugin(), name=TokenWorkerPlugin.name)


def share_request_limits(client: Client) -> None:
    """Make the workers of a Dask cluster share one limit of requests per host.

    Workers that join later are included. Calling it again changes nothing. The scheduler's
    environment must have this package.
    """
    client.register_plugin(LimitsSchedulerPlugin(), name=LimitsSchedulerPlugin.name)
    client.register_plugin(LimitsWorkerPlugin(), name=LimitsWorkerPlugin.name)


class TokenSchedulerPlugin(SchedulerPlugin):
    """Answers ``salibi_token`` on the scheduler, from its process's broker."""

    name = "salibi-token-broker"
    idempotent = True

    async def start(self, scheduler: Scheduler) -> None:
        """Register the handler."""
        self._broker = sas_tokens.process_broker()
        self._threads = ThreadPoolExecutor(16, thread_name_prefix="salibi-token")
        self._pending: dict[tuple[str, str, str | None], asyncio.Future[dict[str, Any]]] = {}
        scheduler.handlers[_BROKER_HANDLER] = self.answer

    async def close(self) -> None:
        """Stop the threads that wait for the token service."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def answer(
        self, account: str, container: str, rejected: str | None = None
    ) -> dict[str, Any]:
        """Return a token with its remaining lifetime, or an error, for :class:`_SchedulerTokens`."""
        key = (account, container, rejected)
        # Workers that want the same token wait for one thread, however many they are.
        if key not in self._pending:
            loop = asyncio.get_running_loop()
            self._pending[key] = loop.run_in_executor(self._threads, self._ask_broker, *key)
            self._pending[key].add_done_callback(lambda _: self._pending.pop(key, None))
        return await asyncio.shield(self._pending[key])

    def _ask_broker(self, account: str, container: str, rejected: str | None) -> dict[str, Any]:
        try:
            token = self._broker.token(account, container, rejected)
        except ReadError as error:
            return {"error": str(error)}
        except Exception as error:  # noqa: BLE001 - Dask would log it, and send its traceback
            return {"error": f"the scheduler's broker failed: {type(error).__name__}"}
        # Moments on a monotonic clock mean nothing in another process, so durations are sent.
        now = time.monotonic()
        return {
            "secret": token.secret,
            "fresh_s": token.fresh_until - now,
            "left_s": token.expires_at - now,
        }


class TokenWorkerPlugin(WorkerPlugin):
    """Makes the tasks of a worker process get their tokens from the scheduler."""

    name = "salibi-token-client"
    idempotent = True

    def setup(self, worker: Worker) -> None:
        """Replace the process's token source by the scheduler."""
        self._own_source = _SchedulerTokens(worker)
        self._previous_source = sas_tokens.set_token_source(self._own_source)

    def teardown(self, worker: Worker) -> None:
        """Restore the previous source, unless another worker in this process has replaced ours."""
        del worker
        current = sas_tokens.set_token_source(self._previous_source)
        if current is not self._own_source:
            sas_tokens.set_token_source(current)


class _SchedulerTokens:
    """Token source that asks the scheduler and caches each token while it is fresh."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._cache: dict[tuple[str, str], Token] = {}

    def __repr__(self) -> str:
        return f"tokens from the scheduler for {self._worker.address}"

    def token(self, account: str, container: str, rejected: str | None = None) -> Token:
        """See :func:`salibi_data.sources.sas_tokens.get_token`."""
        cached = self._cache.get((account, container))
        if cached and cached.digest != rejected and time.monotonic() < cached.fresh_until:
            return cached
        rate_limits.check_deadline()
        if in_async_call(self._worker.loop):
            # A function of `Client.run` blocks the event loop that would receive the answer.
            raise RuntimeError("tokens can be had in a task only, not on the worker's event loop")
        answer = self._ask_scheduler(account, container, rejected)
        now = time.monotonic()
        token = Token(
            secret=answer["secret"],
            # A token that is no longer fresh is renewed, but not asked for with every request.
            fresh_until=now + max(1.0, answer["fresh_s"]),
            expires_at=now + answer["left_s"],
        )
        self._cache[(account, container)] = token
        return token

    def _ask_scheduler(self, account: str, container: str, rejected: str | None) -> dict[str, Any]:
        timeout_s = min(_TOKEN_TIMEOUT_S, rate_limits.remaining_s())
        answer: dict[str, Any]
        try:
            answer = sync(
                self._worker.loop,
                self._worker.scheduler.salibi_token,
                callback_timeout=timeout_s,
                account=account,
                container=container,
                rejected=rejected,
            )
        except TimeoutError:
            rate_limits.check_deadline()
            answer = {"error": f"the scheduler gave no token within {timeout_s:.0f} s"}
        except OSError as error:  # Dask's CommClosedError is an OSError
            answer = {"error": f"the scheduler cannot be asked: {type(error).__name__}"}
        if "error" in answer:
            raise ReadError(answer["error"], kind="token")
        return answer


class LimitsSchedulerPlugin(SchedulerPlugin):
    """Answers ``salibi_limits`` on the scheduler: the cluster's threads and all current pauses."""

    name = "salibi-pause-keeper"
    idempotent = True

    async def start(self, scheduler: Scheduler) -> None:
        """Register the handler."""
        self._scheduler = scheduler
        self._paused_until: dict[str, float] = {}
        scheduler.handlers[_LIMITS_HANDLER] = self.answer

    async def answer(self, pauses: dict[str, float]) -> dict[str, Any]:
        """Record the pauses that hosts asked of one worker; return those of all, and the threads.

        Args:
            pauses: seconds by host.
        """
        now = time.monotonic()
        for host, seconds in pauses.items():
            self._paused_until[host] = max(self._paused_until.get(host, now), now + seconds)
        self._paused_until = {
            host: until for host, until in self._paused_until.items() if until > now
        }
        workers = self._scheduler.workers.values()
        return {
            "num_threads": sum(worker.nthreads for worker in workers),
            "pauses": {host: until - now for host, until in self._paused_until.items()},
            "again_s": max(_REPORT_INTERVAL_S, len(workers) / _MAX_REPORTS_PER_S),
        }


class LimitsWorkerPlugin(WorkerPlugin):
    """Keeps a worker's process to its part of the limit, and exchanges pauses with the scheduler."""

    name = "salibi-pace-client"
    idempotent = True

    async def setup(self, worker: Worker) -> None:
        """Report to the scheduler before the first task, and periodically from then on."""
        self._worker = worker
        self._new_pauses: dict[str, float] = {}
        self._wake_up = asyncio.Event()
        self._interval_s = _REPORT_INTERVAL_S
        await self._report()
        rate_limits.set_pause_listener(worker.address, self._on_pause)
        self._reporting = asyncio.create_task(self._report_periodically())

    async def teardown(self, worker: Worker) -> None:
        """Give the process its full limit back."""
        self._reporting.cancel()
        rate_limits.set_pause_listener(worker.address, None)
        rate_limits.set_share(worker.address, None)

    def _on_pause(self, host: str, seconds: float) -> None:
        # Called by a reading thread; asyncio objects may only be touched on the loop's own.
        self._worker.loop.add_callback(self._add_pause, host, seconds)

    def _add_pause(self, host: str, seconds: float) -> None:
        self._new_pauses[host] = max(seconds, self._new_pauses.get(host, 0.0))
        self._wake_up.set()

    async def _report_periodically(self) -> None:
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake_up.wait(), self._interval_s)
            self._wake_up.clear()
            with suppress(OSError):  # when the scheduler is gone, Dask ends this worker anyway
                await self._report()

    async def _report(self) -> None:
        new_pauses, self._new_pauses = self._new_pauses, {}
        answer = await self._worker.scheduler.salibi_limits(pauses=new_pauses)
        own = self._worker.state.nthreads
        rate_limits.set_share(self._worker.address, own / max(own, answer["num_threads"]))
        for host, seconds in answer["pauses"].items():
            rate_limits.pause_here(host, seconds)
        self._interval_s = answer["again_s"]
