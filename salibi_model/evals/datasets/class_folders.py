"""Reads labelled images from one folder per class, the layout of EuroSAT, UC Merced and AID.

Images are ``<root>/<class>/<image>``, or with a split
``<root>/{train,validation,test}/<class>/<image>``; the root may lie below folders that hold
nothing else (UC Merced's ``Images/``).
"""

import hashlib
import json
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import Float32, Int64
from rasterio.enums import ColorInterp, Resampling
from rasterio.env import Env
from rasterio.errors import NotGeoreferencedWarning, RasterioError, RasterioIOError
from rasterio.io import DatasetReader

from salibi_data.store.errors import StoreError, UsageError
from salibi_data.store.redaction import first_line
from salibi_model.data.pixel_size import dataset_pixel_m
from salibi_model.evals.datasets.labelled import SPLITS, Indices, LabelledImages, Split

SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff"})
"""Suffixes of image files, in lower case."""
SPLIT_SHARES: Final = (0.6, 0.2, 0.2)
"""Shares of each class for training, validation and test, if the images come without a split."""

_SPLIT_FOLDERS: Final[dict[str, Split]] = {
    "train": "train",
    **dict.fromkeys(("val", "valid", "validation"), "validation"),
    "test": "test",
}
_MIN_IMAGES: Final = 3
"""Smallest number of images of a class: one for each split."""
_PROBED_IMAGES: Final = 64
"""Number of images, spread over all, that common size, bands and GSD are taken from."""
_SIZE_TOLERANCE: Final = 0.1
"""Largest deviation of an image's edge, as a share of the common edge."""
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
class _Header:
    """Size and bands of an image file."""

    shape: tuple[int, int]
    """(rows, columns)."""
    bands: tuple[str, ...]
    """Names of the bands."""
    has_mask: bool
    """Whether the file's mask is used; not where its transparency band is one of the bands."""


class ClassFolders(LabelledImages):
    """A data set of one folder per class; classes in alphabetical order.

    Images have the most common size. An image whose edges differ from it by up to a tenth is
    resampled (bilinear); a larger difference is an error. Pixels that are nodata or transparent in
    the file are NaN.
    """

    task = "classification"

    def __init__(
        self,
        folder: str | Path,
        *,
        gsd_m: float | None = None,
        seed: int = 0,
        bands: tuple[str, ...] | None = None,
    ) -> None:
        """Find the images, split them, and read the headers of some.

        Args:
            folder: the root.
            gsd_m: metres per pixel; by default the median of the files' georeferences.
            seed: random seed of the split, if the folders give none: 60 % of each class for
                training, 20 % each for validation and test, by a hash of the file's name.
            bands: names of the bands, in the files' order; by default those in the files, or red,
                green, blue, and near infrared as the fourth. A transparency band counts as a band
                only if it is named here.

        Raises:
            UsageError: there are not images of two classes or more, or the GSD is not known.
            StoreError: the images cannot be read, or differ in their bands.
        """
        if gsd_m is not None and not 0 < gsd_m < float("inf"):
            raise UsageError(f"gsd_m is metres per pixel, above zero; got {gsd_m}.")
        self.path = _root(Path(folder))
        self.name = Path(folder).resolve().name
        by_split = _find_images(self.path, seed)
        self.classes = tuple(sorted({label for paths in by_split.values() for label in paths}))
        self._paths: list[Path] = []
        self._labels: list[int] = []
        self._ends = [0]
        for split in SPLITS:
            for label, paths in sorted(by_split[split].items()):
                self._paths += paths
                self._labels += [self.classes.index(label)] * len(paths)
            self._ends.append(len(self._paths))
        self._named_bands = bands
        probed = self._probe()
        self._shape = Counter(header.shape for header in probed.values()).most_common(1)[0][0]
        self.bands = bands or next(iter(probed.values())).bands
        for path, header in probed.items():
            self._check_bands_of(path, header)
        self.gsd_m = gsd_m or _georeferenced_gsd_m(list(probed))
        self.digest = self._digest()

    def split_indices(self, split: Split) -> Int64[np.ndarray, " images"]:
        """Return the numbers of the images of a split."""
        k = SPLITS.index(split)
        return np.arange(self._ends[k], self._ends[k + 1], dtype=np.int64)

    def read(
        self, indices: Indices, bands: Sequence[str]
    ) -> Float32[np.ndarray, "images bands rows cols"]:
        """Read images; see :meth:`LabelledImages.read`."""
        self.check_bands(bands)
        numbers = [self.bands.index(band) + 1 for band in bands]
        return np.stack([self._image(self._paths[int(k)], numbers) for k in indices])

    def labels(self, indices: Indices) -> Int64[np.ndarray, " images *shape"]:
        """Return class numbers (images,)."""
        return np.array([self._labels[int(k)] for k in indices], dtype=np.int64)

    def _probe(self) -> dict[Path, _Header]:
        """Read the headers of some images, evenly spread over splits and classes."""
        positions = np.linspace(0, len(self._paths) - 1, min(len(self._paths), _PROBED_IMAGES))
        headers = {}
        for path in (self._paths[int(position)] for position in positions.round()):
            with _open_image(path) as dataset:
                headers[path] = _header(dataset, path, self._named_bands)
        return headers

    def _check_bands_of(self, path: Path, header: _Header) -> None:
        if len(header.bands) != len(self.bands):
            raise StoreError(
                f"{path} has {len(header.bands)} bands where {len(self.bands)} are expected "
                f"({', '.join(self.bands)}); all images must have the same."
            )

    def _image(self, path: Path, numbers: Sequence[int]) -> Float32[np.ndarray, "bands rows cols"]:
        """Read one image at the common size; ``numbers`` of bands count from 1."""
        with _open_image(path) as dataset:
            header = _header(dataset, path, self._named_bands)
            self._check_bands_of(path, header)
            for edge, common in zip(header.shape, self._shape, strict=True):
                if abs(edge - common) > _SIZE_TOLERANCE * common:
                    raise StoreError(
                        f"{path} has {header.shape} pixels; most images have {self._shape}, and "
                        "one may differ by a tenth. Cut it to that size, or leave it out."
                    )
            window = {"indexes": list(numbers), "out_shape": (len(numbers), *self._shape)}
            values = dataset.read(**window, resampling=Resampling.bilinear).astype(np.float32)
            valid = dataset.read_masks(**window) > 0 if header.has_mask else np.True_
        image = np.where(valid & np.isfinite(values), values, np.float32(np.nan))
        if np.isnan(image).all():
            raise StoreError(f"{path} holds no measurement: every pixel is nodata. Leave it out.")
        return image

    def _digest(self) -> str:
        """Hash names, sizes and times of the files, and all that decides what is read from them."""
        names = [path.relative_to(self.path).as_posix() for path in self._paths]
        files = [path.stat() for path in self._paths]
        stamps = [(file.st_size, file.st_mtime_ns) for file in files]
        identity = [names, stamps, self._ends, self.bands, self.gsd_m]
        return hashlib.sha256(json.dumps(identity).encode()).hexdigest()


def _root(folder: Path) -> Path:
    """Descend through folders that hold nothing but one folder of folders."""
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder; give one with a folder of images per class.")
    subfolders = _folders(folder)
    while len(subfolders) == 1 and not _images(folder) and _folders(subfolders[0]):
        folder = subfolders[0]
        subfolders = _folders(folder)
    return folder


def _folders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _images(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in SUFFIXES and path.is_file() and not path.name.startswith(".")
    )


def _find_images(root: Path, seed: int) -> dict[Split, dict[str, list[Path]]]:
    """Return the images by split and class.

    Raises:
        UsageError: there are no images, too few, only one class, or a split is missing.
    """
    split_folders = {
        _SPLIT_FOLDERS[folder.name.lower()]: folder
        for folder in _folders(root)
        if folder.name.lower() in _SPLIT_FOLDERS
    }
    if "train" not in split_folders:
        return _random_split(_classes(root), seed, root)
    missing = [split for split in SPLITS if split not in split_folders]
    if missing:
        raise UsageError(
            f"{root} has a folder of training images, but none for {' and '.join(missing)}; give "
            f"it {', '.join(SPLITS)}, or none of them and a split is drawn."
        )
    by_split = {split: _classes(split_folders[split]) for split in SPLITS}
    for split in SPLITS:
        untrained = sorted(set(by_split[split]) - set(by_split["train"]))
        if untrained:
            raise UsageError(
                f"{split_folders[split]} has classes that {split_folders['train']} lacks: "
                f"{', '.join(untrained)}."
            )
    return by_split


def _classes(folder: Path) -> dict[str, list[Path]]:
    """Return the images of each class folder."""
    classes = {each.name: _images(each) for each in _folders(folder)}
    empty = [name for name, paths in classes.items() if not paths]
    if not classes or len(empty) == len(classes):
        raise UsageError(
            f"{folder} holds no images in folders named for their classes; give a folder such as "
            f"{folder.name}/<class>/<image> with {', '.join(sorted(SUFFIXES))}, or that of a "
            "GEO-Bench task."
        )
    if empty:
        raise UsageError(
            f"{folder / empty[0]} holds no images ({', '.join(sorted(SUFFIXES))}); fill it or "
            "remove it."
        )
    if len(classes) == 1:
        raise UsageError(
            f"{folder} has images of one class alone, {next(iter(classes))!r}; a classification "
            "needs two."
        )
    return classes


def _random_split(
    classes: dict[str, list[Path]], seed: int, root: Path
) -> dict[Split, dict[str, list[Path]]]:
    """Split each class at random, by the hash of names: adding an image moves few others."""
    by_split: dict[Split, dict[str, list[Path]]] = {split: {} for split in SPLITS}
    for name, paths in classes.items():
        if len(paths) < _MIN_IMAGES:
            raise UsageError(
                f"{root / name} holds {len(paths)} of the {_MIN_IMAGES} images that training, "
                "validation and test need at least; add some, or remove the class."
            )
        # By class and name, not by the path: a copy in another folder has the same split.
        order = sorted(paths, key=lambda path: _sha256(f"{seed}/{path.parent.name}/{path.name}"))
        _, validation, test = (max(1, round(share * len(paths))) for share in SPLIT_SHARES)
        by_split["test"][name] = sorted(order[:test])
        by_split["validation"][name] = sorted(order[test : test + validation])
        by_split["train"][name] = sorted(order[test + validation :])
    return by_split


def _sha256(text: str) -> bytes:
    # Names of files need not be UTF-8; Python keeps their bytes as surrogates.
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


@contextmanager
def _open_image(path: Path) -> Iterator[Any]:
    """Open an image with rasterio; its errors within the block become a StoreError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with Env(), DatasetReader(path, driver=list(_DRIVERS)) as dataset:
                yield dataset
    except (RasterioIOError, RasterioError) as error:
        raise StoreError(
            f"{path} cannot be read as an image: {first_line(error)}. Replace it, or leave it out."
        ) from error


def _header(dataset: Any, path: Path, named_bands: tuple[str, ...] | None) -> _Header:
    """Read size and bands of an open image.

    Raises:
        StoreError: the image has a colour table, or complex numbers.
    """
    colours = dataset.colorinterp
    if ColorInterp.palette in colours:
        raise StoreError(
            f"{path} holds numbers of a colour table, not colours; convert it (gdal_translate "
            "-expand rgb)."
        )
    if any(name.startswith("complex") for name in dataset.dtypes):
        raise StoreError(f"{path} holds complex numbers; convert it to power or amplitude.")
    # GDAL calls the fourth of four 8-bit bands transparency unless the file says otherwise; it
    # counts as a band only if the user has named it.
    is_alpha = colours[-1] == ColorInterp.alpha
    if named_bands and len(named_bands) == dataset.count:
        return _Header(shape=dataset.shape, bands=named_bands, has_mask=not is_alpha)
    num_bands = dataset.count - is_alpha
    names = dataset.descriptions[:num_bands]
    if all(names) and len(set(names)) == num_bands:
        bands = tuple(str(name).lower() for name in names)
    else:
        bands = _DEFAULT_BANDS.get(num_bands, tuple(f"band{k + 1}" for k in range(num_bands)))
    return _Header(shape=dataset.shape, bands=bands, has_mask=True)


def _georeferenced_gsd_m(paths: Sequence[Path]) -> float:
    """Return the median pixel size by the files' georeferences, in metres."""
    try:
        return float(np.median([dataset_pixel_m(path) for path in paths]))
    except UsageError as error:
        raise UsageError(
            f"the images have no georeference that tells their pixels' size ({first_line(error)}); "
            "give it with --gsd-m, such as 10 for EuroSAT and 0.3048 for UC Merced."
        ) from error
