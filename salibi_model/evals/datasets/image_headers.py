"""Opens image files of a labelled data set, and reads what their headers say."""

import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from rasterio.enums import ColorInterp
from rasterio.env import Env
from rasterio.errors import NotGeoreferencedWarning, RasterioError, RasterioIOError
from rasterio.io import DatasetReader

from salibi_data.store.errors import StoreError
from salibi_data.store.redaction import first_line, shown_location
from salibi_model.data.image_files import Masks, Orientation, inspect_image
from salibi_model.data.input_names import listed

_DEFAULT_BANDS: Final[dict[int, tuple[str, ...]]] = {
    1: ("gray",),
    3: ("red", "green", "blue"),
    4: ("red", "green", "blue", "nir"),
}
"""Names by number of bands, for files that do not name them."""
_DRIVERS: Final = ("JPEG", "PNG", "GTiff")
"""GDAL drivers that may open an image. GDAL chooses a driver by a file's content, and some of the
others read further files, or the network."""


@dataclass(frozen=True, kw_only=True)
class ImageHeader:
    """Size, bands and kind of an image file."""

    shape: tuple[int, int]
    """(rows, columns) of the upright image."""
    bands: tuple[str, ...]
    """Names of the bands."""
    names_bands: bool
    """Whether the names are the file's own, or the user's."""
    dtype: str
    driver: str
    """Name of the format, as GDAL has it."""
    orientation: Orientation
    masks: Masks

    @property
    def described_bands(self) -> str:
        """Number and names of the bands, for messages."""
        number = len(self.bands)
        return f"{number} {'band' if number == 1 else 'bands'} ({', '.join(self.bands)})"

    @property
    def described_values(self) -> str:
        """Data type, for messages."""
        return f"{8 * np.dtype(self.dtype).itemsize}-bit values ({self.dtype})"


@contextmanager
def open_image(path: Path) -> Iterator[Any]:
    """Open an image with rasterio; its errors within the block become a StoreError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with Env(), DatasetReader(path, driver=list(_DRIVERS)) as dataset:
                yield dataset
    except (RasterioIOError, RasterioError) as error:
        is_empty = path.is_file() and not path.stat().st_size
        reason = "it is empty" if is_empty else first_line(error.__cause__ or error)
        raise StoreError(
            f"{path} cannot be read as an image: {reason}. Replace it, or leave it out."
        ) from error
    except UnicodeEncodeError as error:
        raise StoreError(
            f"{shown_location(str(path))} has a name that is not UTF-8, which GDAL does not open; "
            "rename it."
        ) from error


def read_header(dataset: Any, path: Path, named_bands: tuple[str, ...] | None) -> ImageHeader:
    """Read size, bands and kind of an open image.

    Raises:
        StoreError: its values are not those of the image, such as numbers of a colour table.
    """
    turn, reason = inspect_image(dataset, path)
    if reason is not None:
        raise StoreError(f"{path} {reason}.")
    # GDAL calls the fourth of four 8-bit bands transparency unless the file says otherwise; it
    # counts as a band only if the user has named it.
    is_alpha = dataset.colorinterp[-1] == ColorInterp.alpha
    num_bands = dataset.count - is_alpha
    names = dataset.descriptions[:num_bands]
    names_bands = True
    if named_bands and len(named_bands) == dataset.count:
        bands = named_bands
    elif all(names) and len(set(names)) == num_bands:
        bands = tuple(str(name).lower() for name in names)
    else:
        bands = _DEFAULT_BANDS.get(num_bands, tuple(f"band{k + 1}" for k in range(num_bands)))
        names_bands = False
    return ImageHeader(
        shape=turn.shape(*dataset.shape),
        bands=bands,
        names_bands=names_bands,
        dtype=dataset.dtypes[0],
        driver=dataset.driver,
        orientation=turn,
        masks=Masks(dataset, (*bands, *["alpha"] * (dataset.count - len(bands)))),
    )


def grouped(
    headers: Mapping[Path, ImageHeader], describe: Callable[[ImageHeader], str]
) -> dict[str, list[str]]:
    """Sort the names of images by what their headers say."""
    groups: dict[str, list[str]] = defaultdict(list)
    for path, header in headers.items():
        groups[describe(header)].append(str(path))
    return groups


def kinds_by_class(
    headers: Mapping[Path, ImageHeader],
    classes: Mapping[Path, str],
    describe: Callable[[ImageHeader], str],
) -> str:
    """Say which classes have which kind of images; empty unless each has one, and they differ.

    Args:
        headers: headers of some images.
        classes: names of their classes.
        describe: the kind of an image, in words.
    """
    kinds: dict[str, set[str]] = defaultdict(set)
    for path, header in headers.items():
        kinds[classes[path]].add(describe(header))
    names: dict[str, list[str]] = defaultdict(list)
    for name, kinds_of_class in sorted(kinds.items()):
        for kind in kinds_of_class:
            names[kind].append(repr(name))
    if len(names) == 1 or any(len(each) > 1 for each in kinds.values()):
        return ""
    return ", ".join(
        f"images of {listed(each)} have {kind}" for kind, each in sorted(names.items())
    )
