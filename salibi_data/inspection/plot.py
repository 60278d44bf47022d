"""Figures of a store: some of its samples, all modalities side by side."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np

from salibi_data.store.errors import UsageError
from salibi_data.store.open import open_store

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from PIL import Image

    from salibi_data.store.schema import StoreAttributes

JPEG_QUALITY = 75


def plot(
    store: str | Path,
    output: str | Path | None = None,
    *,
    num_samples: int = 8,
    edge_px: int | None = None,
) -> Image.Image:
    """Draw samples spread evenly over a store: a row per sample, a column per modality.

    Optical bands are shown in their own colours, two radar bands as VV, VH, VV in dB
    (:func:`salibi_data.store.render_rgb.as_rgb`). Pixels are enlarged or averaged by whole
    factors, never smoothed.

    Args:
        store: path or URL of a store, or of a published dataset: its newest release.
        output: file to write as well: PNG, or what its suffix says.
        num_samples: samples, a row each; fewer where the store has fewer.
        edge_px: edge of a panel in pixels; by default that of the finest modality.

    Returns:
        The figure, RGB.

    Raises:
        StoreError: no store is there.
        FigureError: ``output`` names no picture.
        UsageError: ``edge_px`` and the sizes of the images do not divide.

    Example:
        >>> picture = salibi_data.plot(store_path, num_samples=2, edge_px=256)
        >>> picture.mode
        'RGB'
    """
    from salibi_data.inspection.panels import Panel, check_path, draw_panels, save_picture
    from salibi_data.store.render_rgb import as_rgb

    if output is not None:
        check_path(output)
    attributes, samples = spread_samples(store, num_samples=num_samples)
    modalities = attributes.modalities
    edge = edge_px or max(modality.size_px for modality in modalities.values())
    if any(edge % m.size_px and m.size_px % edge for m in modalities.values()):
        sizes = ", ".join(f"{m.size_px}" for m in modalities.values())
        raise UsageError(f"--edge {edge} and images of {sizes} px do not divide; try 256 or 512.")
    rows = [
        [
            Panel(
                title=f"{name} ({modalities[name].sensor})", image=as_rgb(image, modalities[name])
            )
            for name, image in images.items()
        ]
        for images in samples.values()
    ]
    picture = draw_panels(rows, row_labels=list(samples), edge_px=edge)
    if output is not None:
        save_picture(picture, output)
    return picture


def as_jpeg(picture: Image.Image) -> bytes:
    """Encode a figure as JPEG."""
    file = BytesIO()
    picture.save(file, "JPEG", quality=JPEG_QUALITY)
    return file.getvalue()


def spread_samples(
    store: str | Path, *, num_samples: int
) -> tuple[StoreAttributes, dict[str, dict[str, NDArray[np.uint8]]]]:
    """Read samples spread evenly over a store.

    Returns:
        The store's attributes; and by tile (``zoom/column/row``) each modality's image as
        stored, (bands, rows, columns).

    Raises:
        StoreError: no store is there, or its attributes are damaged or of a newer schema.
    """
    group, attributes = open_store(store)
    count = group["tile"].shape[0]
    shares = (np.arange(min(num_samples, count)) + 0.5) / min(num_samples, count)
    images = {}
    for position in (shares * count).astype(int).tolist():
        tile = "/".join(str(value) for value in group["tile"][position].tolist())
        images[tile] = {name: group[name][position] for name in attributes.modalities}
    return attributes, images
