"""Reads the header of a raster file, and windows of its bands.

Axis order is (bands, rows, columns); windows are (row, column, rows, columns).
"""

import os
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

import numpy as np
import rasterio
from jaxtyping import Bool, Shaped
from rasterio.errors import RasterioError
from rasterio.windows import Window

from salibi_data.store.errors import StoreError, UsageError
from salibi_data.store.redaction import first_line, is_remote, redacted_line, shown_location
from salibi_data.store.s3.settings import S3Settings
from salibi_data.store.schema import Modality
from salibi_model.data.image_files import UNNAMED, Masks, inspect_image
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

    _location: str | Path = ""
    _dataset: Any = None

    def __call__(self, location: str | Path) -> Any:
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
    """A raster file, by its header; a photograph stands upright, as its EXIF data say.

    Raises:
        UsageError: the file cannot be read as a raster.
    """

    def __init__(self, location: str, choices: Choices, handle: OpenRaster) -> None:
        self.name, self.choices = shown_location(location), choices
        self.path = local_file(location)
        # An absolute path cannot be taken for the prefix of a driver, as that of "NETCDF:a.tif".
        self._location = location if self.path is None else self.path.absolute()
        self._handle = handle
        try:
            with _open_raster(handle, self._location) as dataset:
                self._orientation, reason = inspect_image(dataset, self.path)
                self.shape: tuple[int, int] = self._orientation.shape(*dataset.shape)
                self.transform, self.crs = dataset.transform, dataset.crs or None
                self.dtypes: tuple[str, ...] = dataset.dtypes
                self.scales, self.offsets = dataset.scales, dataset.offsets
                self.bands = _band_names(dataset, choices.bands)
                self._masks = Masks(dataset, self.bands, choices.nodata)
        except (RasterioError, OSError) as error:
            raise UsageError(
                f"{self.name} cannot be read as a raster ({self._reason(error)}). Give a Salibi "
                "store, a GeoTIFF, or an image that GDAL reads."
            ) from error
        except UnicodeEncodeError as error:
            raise UsageError(
                f"{self.name} has a name that is not UTF-8, which GDAL does not open; rename it."
            ) from error
        except UsageError as error:
            raise UsageError(f"{self.name}: {error}") from error
        if reason is not None:
            raise UsageError(f"{self.name} {reason}.")

    def facts(self) -> dict[str, Any]:
        """Return the identity of the file: its header, and size and time on disk."""
        facts: dict[str, Any] = {
            "name": self.name,
            "shape": [len(self.dtypes), *self.shape],
            "dtype": self.dtypes[0],
            "transform": list(self.transform)[:6],
            "crs": self.crs.to_string() if self.crs else None,
        }
        if self.path is not None:
            status = self.path.stat()
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
        row, col, rows, cols = self._orientation.window_in_file(window, self.shape)
        where = Window(col, row, cols, rows)
        try:
            with _open_raster(self._handle, self._location) as dataset:
                values = dataset.read(indexes, window=where)
                valid = self._masks.valid(dataset, values, indexes, window=where)
        except (RasterioError, OSError) as error:
            raise StoreError(
                f"{self.name} cannot be read at row {window[0]}, column {window[1]} "
                f"({self._reason(error)}). What was embedded before is kept; run the same command "
                "again, or leave this file out."
            ) from error
        return self._orientation.apply(values), self._orientation.apply(valid)

    def _reason(self, error: Exception) -> str:
        """Reason of an error of GDAL, on one line; names of local files are no secrets."""
        if self.path is not None and not self.path.stat().st_size:
            return "it is empty"
        cause = error.__cause__ or error
        return redacted_line(cause) if is_remote(str(self._location)) else first_line(cause)

    def _missing_message(self, reason: str) -> str:
        return (
            f"{self.name} has the bands {', '.join(self.bands)}, but {reason}. Say what its bands "
            "are, in its order, with --bands; join files of one band each with gdalbuildvrt "
            "-separate."
        )


def local_file(location: str) -> Path | None:
    """File on this machine that a path or ``file://`` URL names; ``None`` if there is none."""
    if is_remote(location):
        return None
    path = Path(location.removeprefix("file://"))
    if not path.is_file() and location.startswith("file://"):
        path = Path(unquote(path.as_posix()))
    return path if path.is_file() else None


@contextmanager
def _open_raster(handle: OpenRaster, location: str | Path) -> Iterator[Any]:
    """Yield the open raster, with retries for servers."""
    options = {name: value for name, value in _GDAL_OPTIONS.items() if name not in os.environ}
    if (in_bucket := re.match(r"(?:s3://|/vsis3/)([^/]+)/", str(location))) is not None:
        options |= S3Settings.from_environment().gdal_options(in_bucket[1])
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
        names.append(UNNAMED if named else name.strip().lower())
    return names
