"""Processor seconds to build a sample at zoom 15 and at zoom 17, from files on this disk.

`salibi-data variants` adds this time to that of the network: decoding, warping, compressing. One
worker, the offline sample catalog, all four modalities. Seconds are processor time of this process
and its threads, so that other work on the machine adds little.

Run: python -m benchmarks.data.building [--quick | --smallest] [--report FILE]
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

from benchmarks._lib.machine import describe
from benchmarks._lib.side_by_side import by_form, parser, report
from salibi_data.builds.build import build
from salibi_data.plans.planner import plan
from salibi_data.synthetic import write_sample_catalog

AREAS = {"full": (6, 4), "quick": (4, 3), "smallest": (3, 2)}
"""Columns and rows of the catalog, in tiles of zoom 15."""


def measured(folder: Path, variant: str, catalog: str) -> str:
    """Build a variant's store; give seconds per planned sample, and its compression."""
    new_plan = plan(variant, catalog=catalog)
    store = folder / f"{variant}.zarr"
    started_s = time.process_time()
    built = build(store, plan=new_plan)
    seconds = time.process_time() - started_s
    files = json.loads((store / "manifest.json").read_text())["files"].values()
    packed = sum(file["bytes"] for file in files) / built.num_samples
    return (
        f"zoom {new_plan.variant.base_zoom}: {seconds / new_plan.num_samples:.2f} s per sample of "
        f"{new_plan.num_samples}, {packed / new_plan.variant.bytes_per_sample:.2f} of its bytes after "
        "compression"
    )


def main() -> None:
    """Print seconds per planned sample, and bytes of the store over those of its images."""
    arguments = parser(__doc__).parse_args()
    columns, rows = by_form(arguments, **AREAS)
    lines = [describe("zarr", "rasterio", "numpy")]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_sample_catalog(folder / "catalog", columns=columns, rows=rows)
        toml = folder / "bench.toml"
        toml.write_text(
            'extends = "sample"\nname = "bench"\nkind = "static"\nurl = "catalog/catalog.json"\n'
        )
        lines += [measured(folder, variant, str(toml)) for variant in ("full", "micro")]
    report(arguments.report, "Building", lines)


if __name__ == "__main__":
    main()
