"""Shares the rendering of the sample catalog among processes."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from concurrent.futures import Future

    from salibi_data.synthetic.frame import Frame
    from salibi_data.synthetic.ground.landscape import Landscape
    from salibi_data.synthetic.sensors.acquisitions import Quad

_POLL_S: Final = 0.25

Json = dict[str, Any]
ReportProgress = Callable[[int, int], None]


def render(
    folder: Path,
    frame: Frame,
    *,
    seed: int,
    progress: ReportProgress | None,
    processes: int,
) -> list[Json]:
    """Draw the landscape, render every scene of it, and return the items."""
    from salibi_data.synthetic.ground.landscape import draw_landscape
    from salibi_data.synthetic.render import num_blocks
    from salibi_data.synthetic.sensors.acquisitions import quads

    landscape = draw_landscape(
        seed=seed,
        width_m=frame.width_m,
        height_m=frame.height_m,
        rotation_rad=frame.rotation_rad,
    )
    # The two western quads take longest: they were flown in both years.
    tasks: list[Quad | None] = [*quads(frame), None]
    num_steps = num_blocks(frame)
    report = progress or (lambda _done, _total: None)
    if processes <= 1:
        done = _Counter(report, num_steps)
        parts = [_render_task(landscape, frame, folder, task, done.step) for task in tasks]
    else:
        parts = _render_in_pool(landscape, frame, folder, tasks, (report, num_steps, processes))
    report(num_steps, num_steps)
    return [item for part in parts for item in part]


class _Counter:
    """Counts steps and reports each."""

    def __init__(self, report: ReportProgress, num_steps: int) -> None:
        self.done, self.num_steps, self.report = 0, num_steps, report

    def step(self) -> None:
        self.done += 1
        self.report(self.done, self.num_steps)


def _render_task(
    landscape: Landscape,
    frame: Frame,
    folder: Path,
    quad: Quad | None,
    on_block: Callable[[], None],
) -> list[Json]:
    """Render one NAIP quad or, for None, all Sentinel scenes. Returns their items."""
    from salibi_data.synthetic import render, stac_items
    from salibi_data.synthetic.sensors import acquisitions as scenes
    from salibi_data.synthetic.sensors import products

    if quad is not None:
        flights = render.render_quad(landscape, frame, folder, quad, on_block)
        return [stac_items.naip_item(frame, quad, flight) for flight in flights]
    coarse = render.render_coarse(landscape, frame, on_block)
    items = []
    for k, overflight in enumerate(scenes.PASSES):
        paths = products.write_pass(coarse, frame, folder, k, landscape.seed)
        items.append(stac_items.sentinel1_item(frame, overflight, paths))
    for granule in scenes.GRANULES:
        shares = products.write_granule(coarse, frame, folder, granule, landscape.seed)
        items.append(stac_items.sentinel2_item(frame, granule, shares))
    return items


_shared: dict[str, Any] = {}
"""In a helper process: the landscape, the frame, and the counter of blocks done."""


def _start_helper(landscape: Landscape, frame: Frame, blocks_done: Any) -> None:
    """Set up a helper process: keep what all its tasks need, and end when the parent ends."""
    _end_with_parent()
    _shared.update(landscape=landscape, frame=frame, blocks_done=blocks_done)


def _run_in_helper(folder: Path, quad: Quad | None) -> list[Json]:
    counter = _shared["blocks_done"]

    def count() -> None:
        with counter.get_lock():
            counter.value += 1

    return _render_task(_shared["landscape"], _shared["frame"], folder, quad, count)


def _render_in_pool(
    landscape: Landscape,
    frame: Frame,
    folder: Path,
    tasks: list[Quad | None],
    how: tuple[ReportProgress, int, int],
) -> list[list[Json]]:
    """Share the tasks among helper processes; results in the order of the tasks."""
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor, wait

    report, num_steps, processes = how
    context = multiprocessing.get_context("spawn")
    blocks_done = context.Value("i", 0)
    with ProcessPoolExecutor(
        max_workers=min(processes, len(tasks)),
        mp_context=context,
        initializer=_start_helper,
        initargs=(landscape, frame, blocks_done),
    ) as pool:
        futures: list[Future[list[Json]]] = [
            pool.submit(_run_in_helper, folder, task) for task in tasks
        ]
        waiting: set[Future[list[Json]]] = set(futures)
        while waiting:
            finished, waiting = wait(waiting, timeout=_POLL_S)
            report(blocks_done.value, num_steps)
            if any(future.exception() for future in finished):
                pool.shutdown(cancel_futures=True)
        return [future.result() for future in futures]


def _end_with_parent() -> None:
    """Leave when the main process is gone: idle workers would wait forever, busy ones go on."""
    from multiprocessing import parent_process

    parent = parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
