"""Finds what GDAL reads from an image file without a word, but not as the image is meant.

Colour tables, inverted and sub-byte values, and truncated PNG files are refused; the orientation
that a camera wrote (EXIF tag 274) is applied; and all that marks pixels as not observed counts.
"""

import math
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
from jaxtyping import Bool, Shaped
from rasterio.enums import ColorInterp, MaskFlags

from salibi_data.store.errors import UsageError

_ORIENTATION: Final = 274
"""Tag of the orientation in EXIF and TIFF."""

UNNAMED: Final = "rest"
"""Name of the bands behind those that the user names."""

_PNG_HEADER: Final = 8
"""Bytes before the first chunk of a PNG file."""
_WHOLE_BYTE: Final = 8

_OTHER_COLOURS: Final = frozenset(
    {"cyan", "magenta", "yellow", "black", "hue", "saturation", "lightness", "Y", "Cb", "Cr"}
)
"""Colours of GDAL's bands that are not red, green, blue, gray or a measurement."""


@dataclass(frozen=True)
class Orientation:
    """How an image is turned to stand upright: transposed first, then flipped.

    The eight values are those of EXIF 2.32 (CIPA DC-008), tag ``Orientation``.
    """

    transposed: bool = False
    flips_rows: bool = False
    flips_columns: bool = False

    def shape(self, rows: int, columns: int) -> tuple[int, int]:
        """Shape of the upright image, of the file's; and the other way round."""
        return (columns, rows) if self.transposed else (rows, columns)

    def apply(self, pixels: Shaped[np.ndarray, "*bands _ _"]) -> Shaped[np.ndarray, "*bands _ _"]:
        """Turn an image upright."""
        if self.transposed:
            pixels = pixels.swapaxes(-1, -2)
        rows, columns = (-1 if flips else 1 for flips in (self.flips_rows, self.flips_columns))
        return np.ascontiguousarray(pixels[..., ::rows, ::columns])

    def window_in_file(
        self, window: tuple[int, int, int, int], upright: tuple[int, int]
    ) -> tuple[int, int, int, int]:
        """Window (row, column, rows, columns) in the file, of one in the upright image."""
        row, column, rows, columns = window
        if self.flips_rows:
            row = upright[0] - row - rows
        if self.flips_columns:
            column = upright[1] - column - columns
        return (column, row, columns, rows) if self.transposed else (row, column, rows, columns)


UPRIGHT: Final = Orientation()

_ORIENTATIONS: Final = {
    2: Orientation(flips_columns=True),
    3: Orientation(flips_rows=True, flips_columns=True),
    4: Orientation(flips_rows=True),
    5: Orientation(transposed=True),
    6: Orientation(transposed=True, flips_columns=True),
    7: Orientation(transposed=True, flips_rows=True, flips_columns=True),
    8: Orientation(transposed=True, flips_rows=True),
}


def inspect_image(dataset: Any, path: Path | None) -> tuple[Orientation, str | None]:
    """Return how an image is turned, and why GDAL's values are not those of the image, if so.

    A georeference says where each row of the file is: such a file is never turned.

    Args:
        dataset: the file, opened by rasterio.
        path: the file on this machine; ``None``: only what GDAL says is known.

    Returns:
        The orientation that a camera or an editor wrote, and a reason in words; ``None`` where the
        values are right.
    """
    png = _read_png(path) if path is not None and dataset.driver == "PNG" else None
    reason = _number_reason(dataset) or _colour_reason(dataset) or _depth_reason(dataset, png)
    points, _ = dataset.gcps
    if dataset.crs or not dataset.transform.is_identity or points or dataset.rpcs:
        return UPRIGHT, reason
    number = 1
    if png is not None:
        number = png.orientation
    elif dataset.driver == "JPEG":  # GDAL gives the EXIF data of JPEG alone
        number = _as_number(dataset.tags().get("EXIF_Orientation"))
    elif path is not None and dataset.driver == "GTiff":
        number = _tiff_orientation(path)
    return _ORIENTATIONS.get(number, UPRIGHT), reason


class Masks:
    """Tells observed pixels from others: by masks, transparency, and values that mean nodata."""

    def __init__(self, dataset: Any, bands: Sequence[str], nodata: float | None = None) -> None:
        """Read what the header says of masks.

        Args:
            dataset: the file, opened by rasterio.
            bands: names of all its bands; a transparency band is one if it has no other name.
            nodata: a value that means nodata besides those that the file names.

        Raises:
            UsageError: ``nodata`` is no value of a band's data type.
        """
        if nodata is not None:
            for dtype in dict.fromkeys(dataset.dtypes):
                _check_nodata(nodata, dtype)
        self._nodata = nodata
        self._tagged: tuple[float | None, ...] = dataset.nodatavals
        every_flag = dataset.mask_flag_enums
        flags = set(every_flag[0])
        colours = dataset.colorinterp
        self._alpha = next(
            (index for index, colour in enumerate(colours, 1) if colour == ColorInterp.alpha), 0
        )
        # GDAL takes the fourth of four 8-bit bands for transparency, which in aerial images is often
        # near-infrared: as a band of its own its zeros must not mask the others.
        alpha_is_a_band = self._alpha and bands[self._alpha - 1] not in {"alpha", UNNAMED}
        if alpha_is_a_band:
            self._alpha = 0
        is_whole = all(MaskFlags.all_valid in each for each in every_flag)
        self._reads_masks = not is_whole and not (alpha_is_a_band and MaskFlags.alpha in flags)
        # Where a file has a mask of its own, GDAL passes over the value that it has for nodata, and
        # where it has such a value over its transparency.
        self._reads_tagged = MaskFlags.per_dataset in flags and not flags & {
            MaskFlags.nodata,
            MaskFlags.alpha,
        }
        self._reads_alpha = bool(self._alpha) and MaskFlags.alpha not in flags

    def valid(
        self,
        dataset: Any,
        values: Shaped[np.ndarray, "bands rows cols"],
        indexes: Sequence[int],
        **where: Any,
    ) -> Bool[np.ndarray, "bands rows cols"]:
        """Return ``True`` where values are observed.

        Args:
            dataset: the file, opened by rasterio.
            values: values of the bands ``indexes`` as the file has them.
            indexes: numbers of bands, from 1.
            where: part or size of the image, as ``values`` were read: arguments of rasterio's ``read``.
        """
        valid = np.ones(values.shape, np.bool_)
        if self._reads_masks:
            valid = dataset.read_masks(indexes, **where) > 0
        if self._reads_alpha:
            valid &= dataset.read(self._alpha, **where) > 0
        if self._reads_tagged:
            for band, index in enumerate(indexes):
                tagged = self._tagged[index - 1]
                if tagged is not None and not np.isnan(tagged):
                    valid[band] &= values[band] != tagged
        if self._nodata is not None and not np.isnan(self._nodata):
            valid &= values != self._nodata
        if values.dtype.kind == "f":
            valid &= ~np.isnan(values)  # no measurement, tagged as nodata or not
        return valid


def _check_nodata(nodata: float, dtype: str) -> None:
    """Refuse a value that no pixel of a data type can have."""
    kind = np.dtype(dtype)
    if kind.kind == "f":
        largest = float(np.finfo(kind).max)
        with np.errstate(over="ignore"):  # values are written with a few digits, rounded up or down
            rounded = kind.type(nodata)
        if np.isfinite(nodata) and not np.isfinite(rounded):
            raise UsageError(f"--nodata {nodata:g} is beyond {dtype}, -{largest:g} to {largest:g}.")
    elif kind.kind in "ui":
        least, largest_integer = np.iinfo(kind).min, np.iinfo(kind).max
        if not (least <= nodata <= largest_integer and float(nodata).is_integer()):
            raise UsageError(
                f"--nodata {nodata:g} is no value of {dtype}, whole numbers {least} to "
                f"{largest_integer}: no pixel has it. Leave it out, or embed this file apart."
            )


def _number_reason(dataset: Any) -> str | None:
    if any(np.dtype(dtype).kind not in "uif" for dtype in dataset.dtypes):
        return f"holds {dataset.dtypes[0]}; expected real numbers: convert it to power or amplitude"
    return None


def _colour_reason(dataset: Any) -> str | None:
    colours = {colour.name for colour in dataset.colorinterp}
    structure = dataset.tags(ns="IMAGE_STRUCTURE")
    if "palette" in colours:
        return (
            "holds numbers of a colour table, not colours; convert it (gdal_translate -expand rgb)"
        )
    space, others = structure.get("SOURCE_COLOR_SPACE"), colours & _OTHER_COLOURS
    if others or space == "CIELAB":
        named = space or ", ".join(sorted(others))
        return f"holds colours as {named}; convert it to red, green and blue, or to gray"
    if structure.get("MINISWHITE") == "YES":
        return "holds 0 for white (photometric MINISWHITE); convert it so that 0 is black"
    return None


@dataclass(frozen=True)
class _PngFacts:
    """What the chunks of a PNG file say."""

    bits: int
    """Bits of a sample."""
    orientation: int
    is_whole: bool
    """Whether the file goes on to its last chunk. GDAL's reader of whole PNG images gives zeros for
    what is missing, and no error."""


def _depth_reason(dataset: Any, png: _PngFacts | None) -> str | None:
    if png is not None and not png.is_whole:
        return "ends before its last chunk; it was cut off: copy or download it again"
    tagged = dataset.tags(1, ns="IMAGE_STRUCTURE").get("NBITS", _WHOLE_BYTE)
    bits = int(tagged) if png is None else png.bits
    if bits < _WHOLE_BYTE:
        return f"holds values of {bits} bit, 0 to {2**bits - 1}; convert it to 8 bits, 0 to 255"
    return None


def _read_png(path: Path) -> _PngFacts:
    bits, number, is_whole = _WHOLE_BYTE, 1, False
    with path.open("rb") as file:
        for name, size in _png_chunks(file):
            if name == b"IHDR":
                bits = struct.unpack(">IIB", file.read(9))[2]
            elif name == b"eXIf":
                number = _exif_orientation(file.read(size))
            is_whole = name == b"IEND"
    return _PngFacts(bits, number, is_whole)


def _png_chunks(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Yield name and size of each chunk whose data are whole; the file stands at the data."""
    end = file.seek(0, 2)
    position = _PNG_HEADER
    while position + 12 <= end:  # 4 bytes of size, 4 of name, 4 of checksum
        file.seek(position)
        size, name = struct.unpack(">I4s", file.read(8))
        position += 12 + size
        if position > end:
            return
        yield name, size
        if name == b"IEND":
            return


def _tiff_orientation(path: Path) -> int:
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    # The directory alone: Pillow opens no files of many bands.
    with (
        suppress(OSError, SyntaxError, ValueError, KeyError, struct.error),
        path.open("rb") as file,
    ):
        header = file.read(8)
        big_tiff = 43
        if big_tiff in header[2:4]:
            header += file.read(8)
        directory: Any = ImageFileDirectory_v2(header)
        file.seek(directory.next)
        directory.load(file)
        return _as_number(directory.get(_ORIENTATION))
    return 1


def _exif_orientation(content: bytes) -> int:
    from PIL.Image import Exif

    exif = Exif()
    with suppress(OSError, SyntaxError, ValueError, KeyError, struct.error):
        exif.load(content)
        return _as_number(exif.get(_ORIENTATION))
    return 1


def _as_number(value: Any) -> int:
    """Orientation as a whole number; 1, upright, where it is none."""
    with suppress(TypeError, ValueError):
        number = float(value)
        return int(number) if math.isfinite(number) else 1
    return 1
