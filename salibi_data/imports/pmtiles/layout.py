"""Layout of the authors' released archives: the modalities, bands and channels of each archive.

Source: Kage & Andreadis 2024 (arXiv 2604.10347) and the archives that they publish.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from salibi_data.store.errors import ReadError
from salibi_data.store.schema import ATTRIBUTES_KEY, TILE_PX, Modality, StoreAttributes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from salibi_data.imports.pmtiles.directory import Archive

ZOOM_OFFSETS: Final[Mapping[str, int]] = MappingProxyType(
    {"sar": 0, "lores": 0, "hires": 0, "hires_4x": 1}
)
"""Zoom of each modality's tiles above the base zoom."""


@dataclass(frozen=True, kw_only=True)
class ArchiveLayout:
    """Layout of one of the three archives."""

    name: str
    """Name of the command's option for the archive."""
    file_name: str
    modalities: tuple[str, ...]
    """Names of the modalities, in order of their zooms."""
    bands: tuple[str, ...]
    channels: tuple[int, ...]
    """Channel of each band among red, green, blue; other channels are empty."""


LAYOUTS: Final = (
    ArchiveLayout(
        name="sar",
        file_name="sar_tiles.pmtile",
        modalities=("sar",),
        bands=("vv", "vh"),
        channels=(1, 2),
    ),
    ArchiveLayout(
        name="lores",
        file_name="visual_tiles.pmtile",
        modalities=("lores",),
        bands=("red", "green", "blue"),
        channels=(0, 1, 2),
    ),
    ArchiveLayout(
        name="hires",
        file_name="hires_visual_tiles.pmtile",
        modalities=("hires", "hires_4x"),
        bands=("red", "green", "blue"),
        channels=(0, 1, 2),
    ),
)


def fits(layout: ArchiveLayout, modality: Modality, base_zoom: int) -> bool:
    """Whether a store's modality can be written in this layout."""
    return (
        modality.name in layout.modalities
        and modality.bands == layout.bands
        and modality.zoom == base_zoom + ZOOM_OFFSETS[modality.name]
        and modality.size_px == TILE_PX << ZOOM_OFFSETS[modality.name]
    )


def child_tiles(
    zoom_offset: int, x: NDArray[np.int64], y: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Columns and rows of the tiles that a tile is cut into, in the order of its image.

    Args:
        zoom_offset: number of zooms between the tiles and their children.
        x: columns, (N,).
        y: rows, (N,).

    Returns:
        Both of shape (N, rows, columns), where rows and columns are ``2 ** zoom_offset``.
    """
    steps = np.arange(1 << zoom_offset)
    shape = (len(x), len(steps), len(steps))
    columns = (x[:, None, None] << zoom_offset) + steps[None, None, :]
    rows = (y[:, None, None] << zoom_offset) + steps[None, :, None]
    return np.broadcast_to(columns, shape), np.broadcast_to(rows, shape)


def metadata_of(layout: ArchiveLayout, attributes: StoreAttributes) -> dict[str, Any]:
    """Metadata of an archive written from a store, for map viewers and :func:`own_modalities`."""
    fitting = {
        n: m for n, m in attributes.modalities.items() if fits(layout, m, attributes.base_zoom)
    }
    return {
        "name": f"{attributes.variant} {layout.name}",
        "description": f"{', '.join(fitting)} of the Salibi dataset {attributes.variant}",
        "attribution": next(iter(fitting.values())).attribution,
        "type": "overlay",
        "format": "png",
        ATTRIBUTES_KEY: replace(attributes, modalities=fitting).to_dict(),
    }


def own_modalities(archive: Archive) -> Mapping[str, Modality] | None:
    """Modalities described in the metadata of an archive that was exported from a store, else None.

    Raises:
        ReadError: the description cannot be read.
    """
    if ATTRIBUTES_KEY not in archive.metadata:
        return None
    try:
        return StoreAttributes.from_dict(archive.metadata, where=str(archive.path)).modalities
    except (ValueError, ArithmeticError) as error:
        raise ReadError(
            f"{archive.path} says it was written from a Salibi store, and how cannot be read: its "
            "metadata are damaged, or of a newer software. Export it again, or upgrade salibi."
        ) from error
