"""Reads the header of a raster file, and windows of its bands.

Axis order is (bands, rows, columns); windows are (row, column, rows, columns).
"""

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import rasterio
from jaxtyping import Bool, Shaped
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import RasterioError
from rasterio.windows import Window

from salibi_data.store.errors import StoreError, UsageError
from salibi_data.store.redaction import redact, redacted_line
from salibi_data.store.schema import Modality
from salibi_data.store.storage import is_remote
from salibi_model.embeddings.options import Choices
from salibi_model.models.config import ModelConfig

_GDAL_OPTIONS: Final = {
    "GDAL_HTTP_MAX_RETRY": "4",
    "GDAL_HTTP_RETRY_DELAY": "1",
    "GDAL_HTTP_TIMEOUT": "60",
}
"""GDAL options for rasters behind a URL; those of the environment override them."""

_TAGS: Final = ("name", "band_name", "bandname", "long_name")
"""Tags that hold the name of a band."""


class OpenRaster(threading.local):
    """The raster that a thread has open.

    It is kept open, as opening costs as much as reading a window; one per thread, as GDAL's data
    sets are not safe for threads.
    """

    _location = ""
    _dataset: Any = None

    def __call__(self, location: str) -> Any:
        """Open ``location``, unless it is open in this thread."""
        if self._location != location:
            if self._dataset is not None:
                self._dataset.close()
            # Forgotten first: if opening fails, the closed data set must not be used again.
            self._location = ""
            self._dataset = rasterio.open(location)
            self._location = location
        return self._dataset


class RasterFile:
    """A raster file, by its header.

    Raises:
        UsageError: the file cannot be read as a raster.
    """

    def __init__(self, location: str, choices: Choices, handle: OpenRaster) -> None:
        self.location, self.name, self.choices = location, redact(location), choices
        self._handle = handle
        try:
            with _open_raster(handle, location) as dataset:
                self.shape: tuple[int, int] = dataset.shape
                self.transform, self.crs = dataset.transform, dataset.crs or None
                self.dtypes: tuple[str, ...] = dataset.dtypes
                self.scales, self.offsets = dataset.scales, dataset.offsets
                self.bands = _band_names(dataset, choices.bands)
                self._alpha_is_a_band = _has_named_alpha(dataset, len(choices.bands))
        except (RasterioError, OSError) as error:
            raise UsageError(
                f"{self.name} cannot be read as a raster ({redacted_line(error.__cause__ or error)}). Give a Salibi store, a "
                "GeoTIFF, or an image that GDAL reads."
            ) from error
        except UsageError as error:
            raise UsageError(f"{self.name}: {error}") from error
        # Complex numbers, as in single-look SAR, have no order and no mean that a model could use.
        if any(np.dtype(dtype).kind not in "uif" for dtype in self.dtypes):
            raise UsageError(f"{self.name} holds {self.dtypes[0]}; expected real numbers.")

    def facts(self) -> dict[str, Any]:
        """Return the identity of the file: its header, and size and time on disk."""
        facts: dict[str, Any] = {
            "name": self.name,
            "shape": [len(self.dtypes), *self.shape],
            "dtype": self.dtypes[0],
            "transform": list(self.transform)[:6],
            "crs": self.crs.to_string() if self.crs else None,
        }
        path = Path(self.location.removeprefix("file://"))
        if not is_remote(self.location) and path.is_file():
            status = path.stat()
            facts |= {"bytes": status.st_size, "modified_ns": status.st_mtime_ns}
        return facts

    def modalities(self, config: ModelConfig) -> tuple[Modality, ...]:
        """Return the modalities of the model that are to encode the raster.

        Raises:
            UsageError: the bands fit no modality, or several and none is named.
        """
        if self.choices.modalities:
            return tuple(config[name] for name in self.choices.modalities)
        fitting = [m for m in config.modalities if {b.lower() for b in m.bands} <= set(self.bands)]
        if len(fitting) == 1:
            return tuple(fitting)
        offered = "; ".join(f"{m.name}: {', '.join(m.bands)}" for m in config.modalities)
        if not fitting:
            raise UsageError(self._missing_message(f"the model takes ({offered})"))
        raise UsageError(
            f"{self.name} could be any of {', '.join(m.name for m in fitting)}, which have the same "
            "bands: say with --modality whose encoder is to see it."
        )

    def indexes(self, modality: Modality) -> list[int]:
        """Return the numbers of a modality's bands, from 1, in the modality's order.

        Raises:
            UsageError: the raster lacks a band.
        """
        missing = [band for band in modality.bands if band.lower() not in self.bands]
        if missing:
            needed = f"{modality.name!r} takes {', '.join(modality.bands)}"
            raise UsageError(self._missing_message(f"{needed}; it lacks {', '.join(missing)}"))
        return [self.bands.index(band.lower()) + 1 for band in modality.bands]

    def read(
        self, window: tuple[int, int, int, int], indexes: Sequence[int]
    ) -> tuple[Shaped[np.ndarray, "bands rows cols"], Bool[np.ndarray, "bands rows cols"]]:
        """Read a window that lies within the raster.

        Returns:
            Values of the file, and ``True`` where they are observed.

        Raises:
            StoreError: the window cannot be read.
        """
        row, col, rows, cols = window
        where = Window(col, row, cols, rows)
        try:
            with _open_raster(self._handle, self.location) as dataset:
                values = dataset.read(indexes, window=where)
                masks = None
                if not self._alpha_is_a_band:
                    masks = dataset.read_masks(indexes, window=where)
        except (RasterioError, OSError) as error:
            raise StoreError(
                f"{self.name} cannot be read at row {row}, column {col} ({redacted_line(error.__cause__ or error)}). What was "
                "embedded before is kept; run the same command again, or leave this file out."
            ) from error
        valid = np.ones(values.shape, np.bool_) if masks is None else masks > 0
        if self.choices.nodata is not None:
            valid &= values != self.choices.nodata
        return values, valid

    def _missing_message(self, reason: str) -> str:
        return (
            f"{self.name} has the bands {', '.join(self.bands)}, but {reason}. Say what its bands "
            "are, in its order, with --bands; join files of one band each with gdalbuildvrt "
            "-separate."
        )


@contextmanager
def _open_raster(handle: OpenRaster, location: str) -> Iterator[Any]:
    """Yield the open raster, with retries for servers."""
    options = {name: value for name, value in _GDAL_OPTIONS.items() if name not in os.environ}
    with rasterio.Env(**options):
        yield handle(location)


def _band_names(dataset: Any, named: Sequence[str]) -> list[str]:
    """Return the names of a raster's bands: those given, else from description, tag or colour."""
    if len(named) > dataset.count:
        raise UsageError(
            f"--bands names {len(named)} bands, {', '.join(named)}; the file has {dataset.count}."
        )
    names = [band.lower() for band in named]
    if any(first == second for first, second in pairwise(sorted(names))):
        raise UsageError(f"--bands names a band twice: {', '.join(named)}.")
    for index in range(len(names) + 1, dataset.count + 1):
        tags = {key.lower(): text for key, text in dataset.tags(index).items()}
        tag = next((tags[key] for key in _TAGS if key in tags), "")
        colour = dataset.colorinterp[index - 1].name
        name = dataset.descriptions[index - 1] or tag or colour
        names.append("rest" if named else name.strip().lower())
    return names


def _has_named_alpha(dataset: Any, num_named: int) -> bool:
    """Whether the band that masks the file as transparency is one that the user has named.

    GDAL takes the fourth of four 8-bit bands for transparency, which in aerial images is often
    near-infrared: its zeros must not mask the other bands.
    """
    if MaskFlags.alpha not in dataset.mask_flag_enums[0] or dataset.nodata is not None:
        return False
    return ColorInterp.alpha in dataset.colorinterp[:num_named]
