"""Processor seconds to build a sample at zoom 15 and at zoom 17, from files on this disk.

What `salibi-data variants` reckons with beside the network: decoding, warping, compressing. One
worker, the offline sample catalog, all four modalities; seconds of this process and its threads, so
that other work on the machine adds little.

Run: python -m benchmarks.data.building
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

from benchmarks._lib.machine import describe
from salibi_data.builds.build import build
from salibi_data.plans.planner import plan
from salibi_data.synthetic import write_sample_catalog

COLUMNS, ROWS = 6, 4


def main() -> None:
    """Print seconds per planned sample, and bytes of the store over those of its images."""
    print(describe("zarr", "rasterio", "numpy"))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_sample_catalog(folder / "catalog", columns=COLUMNS, rows=ROWS)
        toml = folder / "bench.toml"
        toml.write_text(
            'extends = "sample"\nname = "bench"\nkind = "static"\nurl = "catalog/catalog.json"\n'
        )
        for variant in ("full", "micro"):
            made = plan(variant, catalog=str(toml))
            store = folder / f"{variant}.zarr"
            begun_s = time.process_time()
            report = build(store, plan=made)
            seconds = time.process_time() - begun_s
            files = json.loads((store / "manifest.json").read_text())["files"].values()
            packed = sum(file["bytes"] for file in files) / report.num_samples
            print(
                f"zoom {made.variant.base_zoom}: {seconds / made.num_samples:.2f} s per sample of "
                f"{made.num_samples}, {packed / made.variant.bytes_per_sample:.2f} of its bytes "
                "after compression"
            )


if __name__ == "__main__":
    main()
