"""Scale and offset from digital numbers to physical units: of the catalog, the item, or the file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from salibi_data.catalog.items.declared import band_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from salibi_data.catalog.items.declared import DeclaredBand
    from salibi_data.catalog.providers import Product
    from salibi_data.catalog.scenes import Scene


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """Physical value = ``scale * digital number + offset``, for each band."""

    scale: tuple[float, ...]
    offset: tuple[float, ...]

    @property
    def changes_nothing(self) -> bool:
        """Whether physical values are the digital numbers."""
        return set(self.scale) <= {1} and set(self.offset) <= {0}

    def apply(self, raw: NDArray[Any]) -> NDArray[np.float32]:
        """Return physical values of digital numbers, shape (bands, rows, columns)."""
        with np.errstate(over="ignore"):  # of fill values near the limit of double precision
            values = raw.astype(np.float32)
        # Each step passes over a whole block; skip those that would change nothing.
        if set(self.scale) != {1}:
            values *= np.array(self.scale, np.float32)[:, None, None]
        if set(self.offset) != {0}:
            values += np.array(self.offset, np.float32)[:, None, None]
        return values

    def integer_bound(self, dtype: np.dtype[Any]) -> float | None:
        """Return the upper bound of values made of an integer type; None where they may be fractions."""
        whole = set(self.scale) == {1} and all(offset % 1 == 0 for offset in self.offset)
        if dtype.kind not in "ui" or not whole:
            return None
        return float(np.iinfo(dtype).max) + max(abs(offset) for offset in self.offset)


def scaling_of(
    dataset: Any,
    indexes: Sequence[int],
    scene: Scene,
    declared: Sequence[DeclaredBand],
    product: Product,
    *,
    categorical: bool,
) -> Scaling:
    """Return the scaling of bands: the TOML's where it states one, else the item's, else the file's.

    Classes and 8-bit renderings are never scaled by what items and files declare: providers copy the
    declaration of their reflectance to them.

    Args:
        dataset: open rasterio dataset.
        indexes: numbers of the bands, from 1.
        scene: scene of the file.
        declared: what the item declares of the file's bands.
        product: product of the file.
        categorical: whether values are classes.
    """
    if not product.takes_declared_scale:
        offset = product.offset_for(scene.properties)
        return Scaling(scale=(product.scale,) * len(indexes), offset=(offset,) * len(indexes))
    is_rendering = product.units == "display" and is_eight_bit(dataset, indexes)
    if categorical or is_rendering:
        return Scaling(scale=(1.0,) * len(indexes), offset=(0.0,) * len(indexes))
    bands = [band_of(declared, index) for index in indexes]
    if any("scale" in band or "offset" in band for band in bands):
        scale = tuple(float(band.get("scale", 1)) for band in bands)
        return Scaling(scale=scale, offset=tuple(float(band.get("offset", 0)) for band in bands))
    return Scaling(
        scale=tuple(float(dataset.scales[index - 1]) or 1.0 for index in indexes),
        offset=tuple(float(dataset.offsets[index - 1]) for index in indexes),
    )


def is_eight_bit(dataset: Any, indexes: Sequence[int]) -> bool:
    """Return whether all these bands are of unsigned 8-bit numbers."""
    return all(dataset.dtypes[index - 1] == "uint8" for index in indexes)
