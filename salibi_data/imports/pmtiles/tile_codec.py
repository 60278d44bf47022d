"""Decodes and encodes tiles of archives, and converts their values from and to those of a store.

A store keeps 0 for "no observation" and 1..255 for observed values. A tile marks missing pixels by its
alpha, and uses 0 as a value as well. :func:`stored_values` is the rule between them
(``docs/decisions/0015-released-archives.md``).
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from typing import TYPE_CHECKING, Final

import numpy as np

from salibi_data.store.errors import ReadError
from salibi_data.store.redaction import redacted_line
from salibi_data.store.schema import NODATA, TILE_PX

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

FORMATS: Final = ("PNG", "JPEG", "WEBP")
MODES: Final = ("RGB", "RGBA", "P")
PNG_LEVEL: Final = 6

_DAMAGE: Final = (
    *(OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, EOFError, OverflowError),
    *(struct.error, zlib.error),
)
"""Exceptions of Pillow's readers on damaged files."""


def decode(content: bytes) -> NDArray[np.uint8]:
    """Decode a tile to (256, 256, 4): red, green, blue, alpha; alpha is 255 where it has none.

    Raises:
        ReadError: no PNG, JPEG or WebP image, damaged, another size than a tile's, or in a mode
            other than colours.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                size, mode = image.size, image.mode
                if size == (TILE_PX, TILE_PX):
                    # Decoding a PNG ignores its checksums, so a changed bit would pass.
                    image.verify()
        if size == (TILE_PX, TILE_PX) and mode in MODES:
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                return np.asarray(image.convert("RGBA"))
    except UnidentifiedImageError as error:
        raise ReadError(f"it is no image of {', '.join(FORMATS)}") from error
    except (*_DAMAGE, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ReadError(f"it cannot be decoded ({redacted_line(error)})") from error
    expected = f"{TILE_PX} x {TILE_PX} px in {' or '.join(MODES)}"
    raise ReadError(f"it is {size[0]} x {size[1]} px in mode {mode}, not {expected}")


def stored_values(
    rgba: NDArray[np.uint8], channels: Sequence[int], *, zero_is_nodata: bool
) -> NDArray[np.uint8]:
    """Convert a tile's pixels to the values of a store.

    Alpha 0 becomes nodata. An observed 0 becomes 1, as a store keeps 0 for nodata. A tile of nothing
    but 0 is a failed download, and becomes nodata.

    Args:
        rgba: (256, 256, 4), as :func:`decode` gives it.
        channels: channels of the bands, in the store's order.
        zero_is_nodata: whether the tile was written from a store, where 0 means nodata.

    Returns:
        uint8 (bands, 256, 256), 0 where not observed.
    """
    values = np.ascontiguousarray(rgba[..., list(channels)].transpose(2, 0, 1))
    observed = rgba[..., 3] > 0
    if zero_is_nodata:
        return np.where(observed, values, NODATA).astype(np.uint8)
    if not values[:, observed].any():
        return np.full_like(values, NODATA)
    return np.where(observed, np.maximum(values, 1), NODATA).astype(np.uint8)


def encode(values: NDArray[np.uint8], channels: Sequence[int]) -> bytes:
    """Encode values of a store as an RGBA PNG; alpha is 0 where no band was observed.

    Args:
        values: (bands, 256, 256), 0 where not observed.
        channels: channels of the bands; other channels are empty.
    """
    from PIL import Image

    rgba = np.zeros((*values.shape[1:], 4), np.uint8)
    rgba[..., list(channels)] = values.transpose(1, 2, 0)
    rgba[..., 3] = np.where((values != NODATA).any(axis=0), 255, 0)
    packed = io.BytesIO()
    Image.fromarray(rgba).save(packed, "PNG", compress_level=PNG_LEVEL)
    return packed.getvalue()
