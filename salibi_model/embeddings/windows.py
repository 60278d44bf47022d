"""Cuts a raster into windows, and converts their values for one modality of the model.

Axis order is (bands, rows, columns); windows are (row, column, rows, columns).
"""

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from jaxtyping import Bool, Float32, Shaped
from rasterio.windows import Window
from rasterio.windows import transform as window_transform

from salibi_data.store.errors import UsageError
from salibi_data.store.schema import Modality
from salibi_model.data.pixel_size import pixel_m
from salibi_model.embeddings.footprints import outlines
from salibi_model.embeddings.inputs import NOWHERE, EmbeddingInput, InputImage, observed_share
from salibi_model.embeddings.rasters import RasterFile
from salibi_model.models.compatibility import STORED, check_gsd
from salibi_model.models.config import ModelConfig
from salibi_model.models.units import DN, DN_SCALE, check_plausible, choose_units, to_stored

_PLAUSIBLE_WINDOWS: Final = 9
"""Number of windows, spread over the raster, whose values are checked before the first is encoded."""


class RasterInput(EmbeddingInput):
    """The windows of a raster for one modality.

    Windows start at multiples of the stride; the last of a row or column is moved inwards, so that
    it ends with the raster. If the raster is smaller than a window, the window is the raster,
    padded with nodata to a multiple of the model's patch.

    Raises:
        UsageError: bands, units, values or GSD do not fit the model.
        StoreError: a window cannot be read.
    """

    def __init__(
        self, file: RasterFile, number: int, modality: Modality, config: ModelConfig
    ) -> None:
        self.name, self.number = file.name, number
        self._file, self._modality, self._config = file, modality, config
        self._indexes = file.indexes(modality)
        try:
            dtype = file.dtypes[self._indexes[0] - 1]
            self._units = choose_units(modality, file.choices.units, dtype)
            self._check_scaling()
            self._centre_m = self._measure_centre()
            self._set_windows()
            self._check()
        except UsageError as error:
            raise UsageError(f"{self.name}: {error}") from error

    def _check_scaling(self) -> None:
        """Refuse a scale for values that are taken as they are."""
        given = [
            name for name in ("scale", "offset") if getattr(self._file.choices, name) is not None
        ]
        if self._units == STORED and given:
            flags = " and ".join(f"--{name}" for name in given)
            raise UsageError(
                f"{flags} would change nothing: values in units {STORED!r} are taken as they are. "
                "Leave it out, or give other --units."
            )

    def _set_windows(self) -> None:
        """Compute the positions and sizes of the windows."""
        file, choices, patch_px = self._file, self._file.choices, self._config.patch_px
        modality = self._modality
        edge = choices.window_px or modality.size_px
        if edge % patch_px:
            raise UsageError(
                f"windows of {edge} px do not divide into the model's patches of {patch_px} px; "
                f"give a multiple as --window-px, such as {math.ceil(edge / patch_px) * patch_px}."
            )
        self._padded_shape = tuple(
            min(edge, -(-size // patch_px) * patch_px) for size in file.shape
        )
        window_shape = [min(size, edge) for size in file.shape]
        stride = choices.stride_px or edge
        self._rows, self._cols = (
            _starts(size, window_px, stride)
            for size, window_px in zip(file.shape, window_shape, strict=True)
        )
        self._window_shape = (window_shape[0], window_shape[1])

    def __len__(self) -> int:
        return len(self._rows) * len(self._cols)

    def _check(self) -> None:
        """Check the GSD, and the values of some windows, before the first is encoded."""
        file = self._file
        if not self._has_place and file.choices.gsd_m is None and file.choices.gsd_ratio is None:
            raise UsageError(
                "it has no coordinate reference system, so the metres per pixel are not known: "
                "give --gsd-m (the outlines are left empty then), or georeference it (gdalwarp, "
                "gdal_translate -a_srs)."
            )
        gsd_m = self._ground_m((0, 0, *file.shape))
        self._ratio(gsd_m)
        if file.choices.gsd_ratio is None:
            any_gsd = file.choices.any_gsd
            check_gsd(self._config, self._modality.name, gsd_m, any_gsd=any_gsd)
        observed = []
        items = np.linspace(0, len(self) - 1, min(len(self), _PLAUSIBLE_WINDOWS))
        for item in np.unique(items.astype(int)).tolist():
            physical, valid = self._read(self._window(item))
            to_stored(physical, self._modality, self._units, valid=valid)
            observed.append(physical[valid].astype(np.float32))
        check_plausible(np.concatenate(observed), self._modality, self._units)

    def read(self, first: int, stop: int) -> list[InputImage | None]:
        """Read windows; see :meth:`EmbeddingInput.read`."""
        return [self._input_image(item) for item in range(first, stop)]

    def shapes(self) -> set[tuple[int, int]]:
        """Return the one size of all windows."""
        return {(self._padded_shape[0], self._padded_shape[1])}

    def outlines(self, items: Sequence[int]) -> list[Any]:
        """Return the outlines of windows, without padding, in longitude and latitude."""
        if not self._has_place:
            return [None] * len(items)
        windows = [self._window(item) for item in items]
        try:
            return outlines(windows, self._file.transform, self._file.crs, pixel_m=self._centre_m)
        except UsageError as error:
            raise UsageError(f"{self.name}: {error}") from error

    def label(self, item: int) -> str:
        """Return a window's first row and column."""
        return "{},{}".format(*self._window(item))

    def _window(self, item: int) -> tuple[int, int, int, int]:
        row, col = divmod(item, len(self._cols))
        return (self._rows[row], self._cols[col], *self._window_shape)

    def _measure_centre(self) -> float:
        """Return metres per pixel at the centre; NaN without a georeference if none is needed."""
        choices = self._file.choices
        is_needed = choices.gsd_m is None and choices.gsd_ratio is None
        if self._file.crs is None:
            return math.nan
        try:
            return pixel_m(self._file.transform, self._file.crs, self._file.shape)
        except UsageError:
            if is_needed:
                raise
            return math.nan

    @property
    def _has_place(self) -> bool:
        return not math.isnan(self._centre_m)

    def _ground_m(self, window: tuple[int, int, int, int]) -> float:
        """Return metres per pixel of a window, NaN if unknown."""
        if self._file.choices.gsd_m is not None:
            return self._file.choices.gsd_m
        if not self._has_place:
            return math.nan
        row, col, rows, cols = window
        # At the window's own centre: in degrees or Mercator, the ground size changes with latitude.
        corner = window_transform(Window(col, row, cols, rows), self._file.transform)
        return pixel_m(corner, self._file.crs, (rows, cols))

    def _ratio(self, gsd_m: float) -> float:
        """Return the GSD ratio that the model is given."""
        config, given = self._config, self._file.choices.gsd_ratio
        if given is not None:
            return given
        if config.base_gsd_m:
            return gsd_m / config.base_gsd_m
        if not config.gsd_scaling:
            return self._modality.gsd_ratio  # the model ignores it, and counts in patches
        raise UsageError(
            "this model does not know the metres per pixel that it was trained on (a converted one "
            "does not say): give --gsd-ratio, the size of a pixel over that of a pixel of the "
            "training's first modality."
        )

    def _read(
        self, window: tuple[int, int, int, int]
    ) -> tuple[Shaped[np.ndarray, "bands rows cols"], Bool[np.ndarray, "bands rows cols"]]:
        """Read a window: values in the units, and ``True`` where they are observed."""
        values, valid = self._file.read(window, self._indexes)
        if self._units == DN:
            # Before an offset is applied, which moves the products' nodata value.
            valid = valid & (values != 0)
        return self._physical(values), valid

    def _physical(
        self, values: Shaped[np.ndarray, "bands rows cols"]
    ) -> Shaped[np.ndarray, "bands rows cols"]:
        """Apply scale and offset: those of the options, or else of the file."""
        if self._units == STORED:
            return values
        choices, file = self._file.choices, self._file
        scales = [choices.scale or file.scales[i - 1] for i in self._indexes]
        offsets = [
            file.offsets[i - 1] if choices.offset is None else choices.offset for i in self._indexes
        ]
        if self._units == DN:
            # Scale and offset give reflectance; the units are numbers without an offset.
            scales = [1.0 if scale == 1 else scale / DN_SCALE for scale in scales]
            offsets = [offset / DN_SCALE for offset in offsets]
        if all(scale == 1 for scale in scales) and not any(offsets):
            return values
        scaled: Float32[np.ndarray, "bands rows cols"] = (
            np.reshape(offsets, (-1, 1, 1)) + np.reshape(scales, (-1, 1, 1)) * values
        ).astype(np.float32)
        return scaled

    def _input_image(self, item: int) -> InputImage | None:
        """Read a window, and pad it to whole patches; ``None`` if nothing is observed."""
        window = self._window(item)
        physical, valid = self._read(window)
        if not valid.any():
            return None
        nodata = self._modality.nodata
        try:
            stored = to_stored(physical, self._modality, self._units, valid=valid)
        except UsageError as error:
            raise UsageError(f"{self.name}, row {window[0]}, column {window[1]}: {error}") from None
        padding = [
            (0, padded - unpadded)
            for padded, unpadded in zip(self._padded_shape, self._window_shape, strict=True)
        ]
        image = np.pad(stored, [(0, 0), *padding], constant_values=nodata)
        observed = image != nodata
        if not observed.any():
            return None
        (outline,) = self.outlines([item])
        gsd_m = self._ground_m(window)
        return InputImage(
            image=image,
            source=self.number,
            item=item,
            window=(window[0], window[1], *image.shape[1:]),
            valid_fraction=observed_share(observed),
            gsd_m=gsd_m,
            gsd_ratio=self._ratio(gsd_m),
            bounds=NOWHERE if outline is None else outline.bounds,
        )


def _starts(size: int, edge: int, stride: int) -> list[int]:
    """Return the starts of windows along an edge.

    The last window ends with the edge, unless the stride leaves gaps between windows.
    """
    starts = list(range(0, size - edge + 1, stride))
    if starts[-1] + edge < size and stride <= edge:
        starts.append(size - edge)
    return starts
