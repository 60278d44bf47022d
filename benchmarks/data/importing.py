"""Import released archives: samples per second, peak memory at two sizes, a large directory.

Writes archives of noisy images in the layout of the authors' release and imports them: a quarter of
the samples and all of them, each in a process of its own; then exports the imported store. The last
line is the directory of an archive of many small tiles, read by Salibi and by the pmtiles package.

Run: python -m benchmarks.data.importing [--quick | --smallest] [--report FILE] [--workers 1]
"""

from __future__ import annotations

import argparse
import io
import json
import resource
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pmtiles.reader import MmapSource, all_tiles
from pmtiles.tile import Compression, TileType, tileid_to_zxy, zxy_to_tileid
from pmtiles.writer import Writer

from benchmarks._lib.machine import describe
from benchmarks._lib.side_by_side import by_form, in_own_process, parser, report

FIRST = zxy_to_tileid(15, 8192, 12288)
"""First tile of a block at every level; the samples follow it on the Hilbert curve."""
TEXTURE = 6
"""Standard deviation of the noise in pixel values: tiles take about 100 kB, like photographs."""
SIZES = {
    "full": {"samples": 1024, "tiles": 1_000_000},
    "quick": {"samples": 128, "tiles": 100_000},
    "smallest": {"samples": 8, "tiles": 1000},
}


def write_archive(path: Path, tiles: Iterable[tuple[int, bytes]]) -> None:
    """Write an archive of tiles, given as (id, content)."""
    with path.open("wb") as file:
        writer = Writer(file)
        for tile_id, content in tiles:
            writer.write_tile(tile_id, content)
        writer.finalize({"tile_type": TileType.PNG, "tile_compression": Compression.NONE}, {})


def write_release(folder: Path, num_samples: int) -> dict[str, str]:
    """Write the three archives from 16 images; give their paths as arguments of ``import_pmtiles``.

    Each tile has its id appended. PNG decoders ignore bytes after the end of the image, and without
    them the PMTiles writer would store equal tiles only once.
    """
    rng = np.random.default_rng(0)
    images = {name: [picture(rng, name) for _ in range(16)] for name in ("sar", "lores", "hires")}
    ids = list(range(FIRST, FIRST + num_samples))
    children = sorted(child for tile_id in ids for child in children_of(tile_id))
    wanted = {"sar": ids, "lores": ids, "hires": [*ids, *children]}
    paths = {name: folder / f"{name}-{num_samples}.pmtile" for name in images}
    for name, tile_ids in wanted.items():
        choice = images[name]
        tiles = ((t, choice[t % len(choice)] + t.to_bytes(8, "big")) for t in tile_ids)
        write_archive(paths[name], tiles)
    return {name: str(path) for name, path in paths.items()}


def picture(rng: np.random.Generator, name: str) -> bytes:
    """Draw a tile of noise around one colour; give its PNG."""
    noise = rng.normal(120, TEXTURE, (256, 256, 4)).clip(1, 255).astype(np.uint8)
    noise[..., 3] = 255
    if name == "sar":
        noise[..., 0] = 0
    content = io.BytesIO()
    Image.fromarray(noise).save(content, "PNG")
    return content.getvalue()


def children_of(tile_id: int) -> list[int]:
    """Give the ids of a tile's four children."""
    zoom, x, y = tileid_to_zxy(tile_id)
    return [zxy_to_tileid(zoom + 1, 2 * x + i, 2 * y + j) for i in (0, 1) for j in (0, 1)]


def step(folder: Path, do: str, arguments: dict[str, Any]) -> None:
    """Import, export or read a directory in this process; print seconds and peak memory."""
    import salibi_data
    from salibi_data.imports.pmtiles.directory import open_archive

    todo = {
        "import": lambda: salibi_data.import_pmtiles(folder / "x.zarr", **arguments),
        "export": lambda: salibi_data.export_pmtiles(
            folder / "x.zarr", folder / "out", **arguments
        ),
        "ours": lambda: len(open_archive(folder / "tiles").ids(15)),
        "package": lambda: read_by_package(folder / "tiles"),
    }
    started_s = time.perf_counter()
    todo[do]()
    seconds = time.perf_counter() - started_s
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": seconds, "peak_bytes": peak}))


def read_by_package(path: Path) -> int:
    """Count the tiles with the pmtiles package."""
    with path.open("rb") as file:
        return sum(1 for _ in all_tiles(MmapSource(file)))


def measured(folder: Path, do: str, **arguments: Any) -> dict[str, float]:
    """Run :func:`step` in a process of its own; give what it prints."""
    return in_own_process(
        "benchmarks.data.importing", "--step", str(folder), do, json.dumps(arguments)
    )


def measure(sizes: dict[str, int], workers: int) -> dict[str, Any]:
    """Import a quarter and all of the samples, export them, read a large directory."""
    figures: dict[str, Any] = {**sizes, "workers": workers}
    for name, num_samples in [("quarter", sizes["samples"] // 4), ("all", sizes["samples"])]:
        with tempfile.TemporaryDirectory() as folder:
            paths = write_release(Path(folder), num_samples)
            size = sum(Path(path).stat().st_size for path in paths.values())
            outcome = measured(Path(folder), "import", **paths, workers=workers)
            figures[name] = {"samples": num_samples, "archive_bytes": size, **outcome}
            if name == "all":
                figures["export"] = measured(Path(folder), "export", workers=workers)
    with tempfile.TemporaryDirectory() as folder:
        last = FIRST + 2 * sizes["tiles"]  # every second tile: no run shortens the directory
        write_archive(
            Path(folder) / "tiles", ((t, t.to_bytes(8, "big")) for t in range(FIRST, last, 2))
        )
        figures["directory"] = {who: measured(Path(folder), who) for who in ("ours", "package")}
    return figures


def sentences(figures: dict[str, Any]) -> list[str]:
    """Format the figures as sentences."""
    lines = [describe("pmtiles", "pillow", "zarr")]
    for name in ("quarter", "all"):
        outcome = figures[name]
        lines.append(
            f"import of {outcome['samples']:,} samples ({outcome['archive_bytes'] / 1e6:.0f} MB of "
            f"archives), {figures['workers']} workers: {outcome['samples'] / outcome['seconds']:.1f} "
            f"samples/s, peak {outcome['peak_bytes'] / 1e6:.0f} MB"
        )
    outcome = figures["export"]
    lines.append(
        f"export of {figures['samples']:,} samples: {figures['samples'] / outcome['seconds']:.1f} "
        f"samples/s, peak {outcome['peak_bytes'] / 1e6:.0f} MB"
    )
    lines += [
        f"directory of {figures['tiles']:,} tiles, {who}: {outcome['seconds']:.2f} s, "
        f"peak {outcome['peak_bytes'] / 1e6:.0f} MB"
        for who, outcome in figures["directory"].items()
    ]
    return lines


def main() -> None:
    """Write archives, import a quarter and all of them, export, read a large directory."""
    argument_parser = parser(__doc__)
    argument_parser.add_argument("--workers", type=int, default=1)
    argument_parser.add_argument("--step", nargs=3, help=argparse.SUPPRESS)
    arguments = argument_parser.parse_args()
    if arguments.step:
        folder, do, options = arguments.step
        step(Path(folder), do, json.loads(options))
        return
    figures = measure(by_form(arguments, **SIZES), arguments.workers)
    report(arguments.report, "Importing released archives", sentences(figures))


if __name__ == "__main__":
    main()
