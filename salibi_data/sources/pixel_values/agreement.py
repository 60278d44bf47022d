"""Agreement of a file with its item and with the catalog's TOML, before a pixel of it is read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from salibi_data.sources.pixel_values.value_range import LIMITS
from salibi_data.store.errors import ReadError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from salibi_data.catalog.providers import Units


def check_file(
    dataset: Any,
    bands: Sequence[tuple[str, int]],
    *,
    shape: tuple[int, int] | None,
    units: Units,
    categorical: bool,
    where: str,
) -> None:
    """Refuse a file that is not what its item or the catalog's TOML says.

    Args:
        dataset: open rasterio dataset.
        bands: names of the bands that are read, and their numbers in the file, from 1.
        shape: (rows, columns) that the item declares; None where it declares none. Either order is
            accepted: providers have published shapes transposed.
        units: units of the product.
        categorical: whether values are classes, which may have a colour table.
        where: name of the file in messages.

    Raises:
        ReadError: the file has another shape, lacks a band, or has complex numbers or a colour table
            in place of measurements; of kind ``unusable``.
    """
    if shape is not None and sorted(shape) != sorted(dataset.shape):
        rows, columns = dataset.shape
        raise ReadError(
            f"{where} has {rows} x {columns} pixels, and its item declares {shape[0]} x {shape[1]} "
            "(proj:shape), so it is another file. Leave the item out, or have it corrected.",
            kind="unusable",
        )
    lacking = [f"{name!r} as band {index}" for name, index in bands if index > dataset.count]
    if lacking:
        table = " with a colour table" if _has_colour_table(dataset, 1) else ""
        raise ReadError(
            f"{where} has {dataset.count} band{'s' * (dataset.count > 1)}{table}, and the catalog's "
            f"TOML names {' and '.join(lacking)}. Leave the item out, or name bands that it has.",
            kind="unusable",
        )
    for name, index in bands:
        dtype = dataset.dtypes[index - 1]
        if dtype.startswith("complex"):
            raise ReadError(
                f"{where} has complex values ({dtype}) in band {name!r}, and units {units!r} hold "
                f"{LIMITS[units].text}. Choose a detected product, or convert the file.",
                kind="unusable",
            )
        if units == "display" and not categorical and _has_colour_table(dataset, index):
            raise ReadError(
                f"{where} has a colour table, so that band {name!r} holds row numbers of it, no "
                "brightness. Convert the file with `gdal_translate -expand rgb`.",
                kind="unusable",
            )


def _has_colour_table(dataset: Any, index: int) -> bool:
    """Return whether numbers of a band stand for colours other than that gray."""
    from rasterio.enums import ColorInterp

    if dataset.colorinterp[index - 1] != ColorInterp.palette:
        return False
    try:
        colours = dataset.colormap(index)
    except ValueError:
        return False
    return any(colour[:3] != (number,) * 3 for number, colour in colours.items())
