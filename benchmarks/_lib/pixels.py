"""Pixels as stores hold them: from builds of real scenes and of the sample catalog."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def stored_pixels(folder: Path, *, most: int, real: bool = True) -> dict[str, list[np.ndarray]]:
    """Build small stores; give up to ``most`` images (C, H, W) of each modality, by a label.

    With ``real``, and where ``SALIBI_REAL`` exists, also real ones: NAIP of Virginia, Sentinel-1
    and Sentinel-2 of Punjab.
    """
    from salibi_data.synthetic import write_sample_catalog
    from tests.support.data import real_catalogs
    from tests.support.data.samples import catalog_toml

    images_by_kind = {}
    if real and real_catalogs.REAL.is_dir():
        for name, make in (("punjab", real_catalogs.punjab), ("virginia", real_catalogs.virginia)):
            local = make(folder / name)
            for array, images in _built(folder / name, local.variant, local.catalog, most).items():
                images_by_kind[f"real {array}"] = images
    write_sample_catalog(folder / "catalog", columns=1, rows=1)
    toml = catalog_toml(folder / "catalog", folder / "bench.toml")
    for array, images in _built(folder, "micro", toml, most).items():
        images_by_kind[f"sample catalog {array}"] = images
    return images_by_kind


def _built(folder: Path, variant: str, catalog: str, most: int) -> dict[str, list[np.ndarray]]:
    import zarr

    from salibi_data import build
    from salibi_model.data.store import SampleStore

    build(folder / "built.zarr", variant=variant, catalog=catalog, limit=most)
    names = SampleStore(folder / "built.zarr").attributes.modalities
    group = zarr.open_group(folder / "built.zarr", mode="r")
    return {name: list(np.asarray(group[name][:most])) for name in names}
