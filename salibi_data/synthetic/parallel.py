"""Renders the scenes of the sample catalog, in this process or in several worker processes."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from concurrent.futures import Future

    from salibi_data.store.progress import Progress
    from salibi_data.synthetic.frame import Frame
    from salibi_data.synthetic.ground.landscape import Landscape
    from salibi_data.synthetic.sensors.acquisitions import Quad

_POLL_S: Final = 0.25

Json = dict[str, Any]


def render_scenes(
    folder: Path,
    frame: Frame,
    *,
    seed: int,
    progress: Progress | None,
    processes: int,
) -> list[Json]:
    """Draw the landscape of a seed and write the images of all its scenes.

    Args:
        folder: root of the catalog.
        frame: position and size of the landscape.
        seed: the same seed always gives the same bytes.
        progress: called with (blocks done, blocks in total).
        processes: number of processes; 1 renders in this process.

    Returns:
        STAC items of the scenes.
    """
    from salibi_data.synthetic.ground.landscape import draw_landscape
    from salibi_data.synthetic.render import num_blocks
    from salibi_data.synthetic.sensors.acquisitions import quads

    landscape = draw_landscape(
        seed=seed,
        width_m=frame.width_m,
        height_m=frame.height_m,
        rotation_rad=frame.rotation_rad,
    )
    # The two western quads were flown in both years and take longest, so they start first.
    tasks: list[Quad | None] = [*quads(frame), None]
    num_steps = num_blocks(frame)
    report = progress or (lambda _done, _total: None)
    if processes <= 1:
        counter = _StepCounter(report, num_steps)
        results = [_render_task(landscape, frame, folder, task, counter.step) for task in tasks]
    else:
        results = _render_in_pool(
            landscape,
            frame,
            folder,
            tasks,
            processes=processes,
            report=lambda num_done: report(num_done, num_steps),
        )
    report(num_steps, num_steps)
    return [item for items in results for item in items]


class _StepCounter:
    """Counts steps and reports each."""

    def __init__(self, report: Progress, num_steps: int) -> None:
        self.num_done, self.num_steps, self.report = 0, num_steps, report

    def step(self) -> None:
        self.num_done += 1
        self.report(self.num_done, self.num_steps)


def _render_task(
    landscape: Landscape,
    frame: Frame,
    folder: Path,
    quad: Quad | None,
    on_block: Callable[[], None],
) -> list[Json]:
    """Render one NAIP quad or, for None, all Sentinel scenes. Return their STAC items."""
    from salibi_data.synthetic import products, render, stac_items
    from salibi_data.synthetic.sensors.acquisitions import GRANULES, PASSES

    if quad is not None:
        flights = render.render_quad(landscape, frame, folder, quad, on_block)
        return [stac_items.naip_item(frame, quad, flight) for flight in flights]
    coarse = render.render_coarse(landscape, frame, on_block)
    items = []
    for k, overflight in enumerate(PASSES):
        paths = products.write_pass(coarse, frame, folder, k, landscape.seed)
        items.append(stac_items.sentinel1_item(frame, overflight, paths))
    for granule in GRANULES:
        scl_shares = products.write_granule(coarse, frame, folder, granule, landscape.seed)
        items.append(stac_items.sentinel2_item(frame, granule, scl_shares))
    return items


_worker_state: dict[str, Any] = {}
"""State of a worker process: ``landscape``, ``frame``, and the shared counter ``blocks_done``."""


def _start_worker(landscape: Landscape, frame: Frame, blocks_done: Any) -> None:
    """Store what every task of this worker process needs."""
    exit_with_parent()
    _worker_state.update(landscape=landscape, frame=frame, blocks_done=blocks_done)


def _render_task_in_worker(folder: Path, quad: Quad | None) -> list[Json]:
    counter = _worker_state["blocks_done"]

    def count_block() -> None:
        with counter.get_lock():
            counter.value += 1

    return _render_task(
        _worker_state["landscape"], _worker_state["frame"], folder, quad, count_block
    )


def _render_in_pool(
    landscape: Landscape,
    frame: Frame,
    folder: Path,
    tasks: list[Quad | None],
    *,
    processes: int,
    report: Callable[[int], None],
) -> list[list[Json]]:
    """Run the tasks in worker processes. Return their results in the order of the tasks.

    Args:
        landscape: ground to render.
        frame: position of the landscape.
        folder: root of the catalog.
        tasks: quads to render; None stands for all Sentinel scenes.
        processes: largest number of worker processes.
        report: called with the number of blocks done.
    """
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor, wait

    context = multiprocessing.get_context("spawn")
    blocks_done = context.Value("i", 0)
    with ProcessPoolExecutor(
        max_workers=min(processes, len(tasks)),
        mp_context=context,
        initializer=_start_worker,
        initargs=(landscape, frame, blocks_done),
    ) as pool:
        futures: list[Future[list[Json]]] = [
            pool.submit(_render_task_in_worker, folder, task) for task in tasks
        ]
        pending: set[Future[list[Json]]] = set(futures)
        while pending:
            finished, pending = wait(pending, timeout=_POLL_S)
            report(blocks_done.value)
            if any(future.exception() for future in finished):
                pool.shutdown(cancel_futures=True)
        return [future.result() for future in futures]


def exit_with_parent() -> None:
    """Make a worker process exit as soon as its parent is gone.

    Otherwise an idle worker would wait forever for tasks, and a busy one would go on writing.
    """
    from multiprocessing import parent_process

    parent = parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
