"""Dask plugins of :func:`salibi_data.sources.sas_tokens.share`: the scheduler asks, the workers ask it."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

from distributed import SchedulerPlugin, WorkerPlugin
from distributed.utils import in_async_call, sync

from salibi_data.sources import rate_limits as limits
from salibi_data.sources import sas_tokens as tokens
from salibi_data.sources.sas_tokens import Token
from salibi_data.store.errors import ReadError

if TYPE_CHECKING:
    from distributed import Scheduler, Worker

_HANDLER: Final = "salibi_token"
_PATIENCE_S: Final = 300.0
"""A broker whose service fails gives up within this."""


class TokenBroker(SchedulerPlugin):
    """Lets the scheduler answer ``salibi_token``."""

    name = "salibi-token-broker"
    idempotent = True

    async def start(self, scheduler: Scheduler) -> None:
        """Begin to answer."""
        self._broker = tokens.own_broker()
        self._threads = ThreadPoolExecutor(16, thread_name_prefix="salibi-token")
        self._asked: dict[tuple[str, str, str | None], asyncio.Future[dict[str, Any]]] = {}
        scheduler.handlers[_HANDLER] = self.answer

    async def close(self) -> None:
        """Stop answering."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def answer(
        self, account: str, container: str, rejected: str | None = None
    ) -> dict[str, Any]:
        """What :class:`_FromScheduler` reads: a token with its times left, or an error."""
        key = (account, container, rejected)
        # Workers that want the same wait for the same thread, however many they are.
        if key not in self._asked:
            loop = asyncio.get_running_loop()
            self._asked[key] = loop.run_in_executor(self._threads, self._ask, *key)
            self._asked[key].add_done_callback(lambda _: self._asked.pop(key, None))
        return await asyncio.shield(self._asked[key])

    def _ask(self, account: str, container: str, rejected: str | None) -> dict[str, Any]:
        try:
            token = self._broker.token(account, container, rejected)
        except ReadError as error:
            return {"error": str(error)}
        except Exception as error:  # noqa: BLE001 - Dask would log it, and send its traceback
            return {"error": f"the scheduler's broker failed: {type(error).__name__}"}
        now = time.monotonic()
        return {
            "secret": token.secret,
            "fresh_s": token.fresh_until - now,
            "left_s": token.expires_at - now,
        }


class TokenClient(WorkerPlugin):
    """Lets the tasks of a worker process have their tokens from the scheduler."""

    name = "salibi-token-client"
    idempotent = True

    def setup(self, worker: Worker) -> None:
        """Begin to ask the scheduler."""
        self._own = _FromScheduler(worker)
        self._before = tokens.use(self._own)

    def teardown(self, worker: Worker) -> None:
        """Leave the process as it was, unless another worker in it took over."""
        del worker
        current = tokens.use(self._before)
        if current is not self._own:
            tokens.use(current)


class _FromScheduler:
    """Tokens from the scheduler, kept while they are fresh."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._kept: dict[tuple[str, str], Token] = {}

    def __repr__(self) -> str:
        return f"tokens from the scheduler for {self._worker.address}"

    def token(self, account: str, container: str, rejected: str | None = None) -> Token:
        """See :func:`salibi_data.sources.sas_tokens.token`."""
        kept = self._kept.get((account, container))
        if kept and kept.digest != rejected and time.monotonic() < kept.fresh_until:
            return kept
        limits.check()
        if in_async_call(self._worker.loop):
            # What `Client.run` calls blocks the loop that would bring the answer.
            raise RuntimeError("tokens can be had in a task only, not on the worker's event loop")
        answer = self._ask(account, container, rejected)
        now = time.monotonic()
        token = Token(
            secret=answer["secret"],
            # One that is past its best is asked about again, but not for every request.
            fresh_until=now + max(1.0, answer["fresh_s"]),
            expires_at=now + answer["left_s"],
        )
        self._kept[(account, container)] = token
        return token

    def _ask(self, account: str, container: str, rejected: str | None) -> dict[str, Any]:
        patience_s = min(_PATIENCE_S, limits.remaining_s())
        answer: dict[str, Any]
        try:
            answer = sync(
                self._worker.loop,
                self._worker.scheduler.salibi_token,
                callback_timeout=patience_s,
                account=account,
                container=container,
                rejected=rejected,
            )
        except TimeoutError:
            limits.check()
            answer = {"error": f"the scheduler gave no token within {patience_s:.0f} s"}
        except OSError as error:  # of which Dask's CommClosedError is one
            answer = {"error": f"the scheduler cannot be asked: {type(error).__name__}"}
        if "error" in answer:
            raise ReadError(answer["error"], kind="token")
        return answer
