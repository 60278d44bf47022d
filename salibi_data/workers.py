"""Tasks in this process or in several; the same results, whatever the number of workers."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any, TypeVar

from salibi_data.errors import SalibiError

Key = TypeVar("Key", bound=Hashable)


def run_tasks(
    tasks: Mapping[Key, tuple[Callable[..., Any], *tuple[Any, ...]]], workers: int
) -> Iterator[tuple[Key, Any]]:
    """Call every task ``(function, *arguments)``; yields (key, result) as they end.

    Raises:
        SalibiError: a worker process died.
        Exception: the first task that raised; those not begun are dropped.
    """
    if workers <= 1 or len(tasks) <= 1:
        for key, (function, *arguments) in tasks.items():
            yield key, function(*arguments)
        return
    from concurrent.futures import ProcessPoolExecutor, as_completed
    from concurrent.futures.process import BrokenProcessPool
    from multiprocessing import get_context

    # Spawned, not forked: GDAL and Arrow run threads that do not survive a fork.
    pool = ProcessPoolExecutor(
        min(workers, len(tasks)), mp_context=get_context("spawn"), initializer=end_with_parent
    )
    try:
        waiting = {pool.submit(function, *args): key for key, (function, *args) in tasks.items()}
        for future in as_completed(waiting):
            yield waiting[future], future.result()
    except BrokenProcessPool as error:
        raise SalibiError(
            "a worker process was killed, perhaps for want of memory; what it had finished is "
            "kept. Run the same command again, with fewer --workers if memory is short."
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def end_with_parent() -> None:
    """Leave when the main process is gone: idle workers would wait forever, busy ones go on writing.

    For the initializer of a pool; does nothing in the main process.
    """
    from multiprocessing import parent_process

    parent = parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
