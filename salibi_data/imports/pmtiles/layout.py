"""The layout of the authors' released archives: which archive holds which modality, and how.

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
"""Zoom of each modality's tiles over the base zoom: how often a sample's tile is halved."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One archive of the three."""

    name: str
    """What the command line calls it."""
    file_name: str
    modalities: tuple[str, ...]
    """In order of their zooms."""
    bands: tuple[str, ...]
    channels: tuple[int, ...]
    """Of red, green, blue: where each band is; the others are empty."""


LAYOUTS: Final = (
    Layout(
        name="sar",
        file_name="sar_tiles.pmtile",
        modalities=("sar",),
        bands=("vv", "vh"),
        channels=(1, 2),
    ),
    Layout(
        name="lores",
        file_name="visual_tiles.pmtile",
        modalities=("lores",),
        bands=("red", "green", "blue"),
        channels=(0, 1, 2),
    ),
    Layout(
        name="hires",
        file_name="hires_visual_tiles.pmtile",
        modalities=("hires", "hires_4x"),
        bands=("red", "green", "blue"),
        channels=(0, 1, 2),
    ),
)


def fits(layout: Layout, modality: Modality, base_zoom: int) -> bool:
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
    """Columns and rows of the tiles that a tile is cut into, as they lie in its image.

    Args:
        zoom_offset: zooms below the tiles.
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


def metadata_of(layout: Layout, attributes: StoreAttributes) -> dict[str, Any]:
    """What an archive written from a store says: to map viewers, and to :func:`own_modalities`."""
    held = {n: m for n, m in attributes.modalities.items() if fits(layout, m, attributes.base_zoom)}
    return {
        "name": f"{attributes.variant} {layout.name}",
        "description": f"{', '.join(held)} of the Salibi dataset {attributes.variant}",
        "attribution": next(iter(held.values())).attribution,
        "type": "overlay",
        "format": "png",
        ATTRIBUTES_KEY: replace(attributes, modalities=held).to_dict(),
    }


def own_modalities(archive: Archive) -> Mapping[str, Modality] | None:
    """What an archive written by :func:`metadata_of` says its values mean; None of others.

    Raises:
        ReadError: it says so in a way that cannot be read.
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
