"""Missing values: stated by the catalog's TOML, the file or the item, and never-measured numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from salibi_data.catalog.items.declared import band_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from salibi_data.catalog.items.declared import DeclaredBand
    from salibi_data.catalog.providers import Product
    from salibi_data.catalog.scenes import Scene

MAX_MAGNITUDE: Final = 1e20
"""Magnitude of fill values that no sensor measures: 1e20 (CF), 9.97e36 (netCDF), 3.4e38 (ESRI)."""


def missing_values(
    dataset: Any, indexes: Sequence[int], product: Product, declared: Sequence[DeclaredBand]
) -> tuple[tuple[float, ...], ...]:
    """Return the missing values of each band; those of the TOML, else of the file, else of the item.

    Args:
        dataset: open rasterio dataset.
        indexes: numbers of the bands, from 1.
        product: product of the file.
        declared: what the item declares of the file's bands.
    """
    if product.nodata_values is not None:
        return (product.nodata_values,) * len(indexes)
    values = []
    for index in indexes:
        tag = dataset.nodatavals[index - 1]
        value = band_of(declared, index).get("nodata") if tag is None else tag
        values.append(() if value is None else (value,))
    return tuple(values)


def is_missing(band: NDArray[Any], values: Iterable[float]) -> NDArray[np.bool_] | np.bool_:
    """Return where a band has one of the missing values, compared in the band's own type.

    Args:
        band: digital numbers, any shape.
        values: missing values; one that the type cannot hold is nowhere.
    """
    missing: NDArray[np.bool_] | np.bool_ = np.False_
    for value in values:
        number = in_type(value, band.dtype)
        if number is not None:
            missing = missing | (band == number)
    return missing


def is_no_number(band: NDArray[Any]) -> NDArray[np.bool_] | np.bool_:
    """Return where a band of floats has NaN, infinity or a fill value beyond any measurement."""
    if band.dtype.kind != "f":
        return np.False_
    # Not `abs(band) >= ...`, which is False for NaN.
    absent: NDArray[np.bool_] = ~(np.abs(band) < MAX_MAGNITUDE)
    return absent


def missing_by_value(
    raw: NDArray[Any], nodata: Sequence[tuple[float, ...]], nodata_bands: Literal["any", "all"]
) -> NDArray[np.bool_]:
    """Return which pixels hold no observation by their numbers, shape (rows, columns).

    Args:
        raw: digital numbers, shape (bands, rows, columns).
        nodata: missing values of each band.
        nodata_bands: whether a pixel is missing where any band is, or only where all are. What is no
            number is missing in any case.
    """
    # A band without a missing value is never missing, so that all of them never are.
    needs_all = nodata_bands == "all" and all(nodata)
    missing = np.full(raw.shape[1:], needs_all)
    for band, values in zip(raw, nodata, strict=True):  # band by band: small temporary masks
        if needs_all:
            missing &= is_missing(band, values)
        elif values and nodata_bands == "any":
            missing |= is_missing(band, values)
    if raw.dtype.kind == "f":
        for band in raw:
            missing |= is_no_number(band)
    return missing


def in_type(value: float, dtype: np.dtype[Any]) -> np.generic | None:
    """Return a number in another type, rounded as a file of that type has it; None where it has none."""
    if dtype.kind in "ui":
        limits = np.iinfo(dtype)
        fits = float(value).is_integer() and limits.min <= value <= limits.max
        return dtype.type(int(value)) if fits else None
    with np.errstate(over="ignore"):
        number = dtype.type(value)
    return number if np.isfinite(number) else None


def unreachable_warnings(
    scene: Scene, asset: str, product: Product, dtype: np.dtype[Any]
) -> tuple[str, ...]:
    """Return a sentence if no missing value of the catalog's TOML can occur in a file of this type."""
    stated = product.nodata_values
    if not stated or any(in_type(value, dtype) is not None for value in stated):
        return ()
    values = " and ".join(f"{value:g}" for value in stated)
    warning = (
        f"{scene.id}, asset {asset!r}: nodata {values} of the catalog's TOML cannot occur among its "
        f"{dtype} numbers and marks no pixel"
    )
    return (warning,)
