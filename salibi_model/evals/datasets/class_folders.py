"""Reads labelled images from one folder per class, the layout of EuroSAT, UC Merced and AID.

:mod:`salibi_model.evals.datasets.image_folders` finds the files.
"""

import hashlib
import json
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import Float32, Int64
from rasterio.enums import Resampling

from salibi_data.store.errors import StoreError, UsageError
from salibi_data.store.redaction import first_line
from salibi_model.data.image_files import UPRIGHT
from salibi_model.data.input_names import describe_odd, listed
from salibi_model.data.pixel_size import dataset_pixel_m
from salibi_model.evals.datasets.image_folders import find_images, find_root
from salibi_model.evals.datasets.image_headers import (
    ImageHeader,
    grouped,
    kinds_by_class,
    open_image,
    read_header,
)
from salibi_model.evals.datasets.image_units import convert_named, named_units
from salibi_model.evals.datasets.labelled import SPLITS, Indices, LabelledImages, Split

_PROBED_IMAGES: Final = 64
"""Number of images, spread over all, that common size, bands and GSD are taken from."""
_PROBED_CLASSES: Final = 256
"""Largest number of further images, one per class, whose kinds are compared."""
_SIZE_TOLERANCE: Final = 0.1
"""Largest deviation of an image's edge, as a share of the common edge."""


class MixedImagesWarning(UserWarning):
    """Images of a data set are of several kinds, which a model may take for their content."""


class ClassFolders(LabelledImages):
    """A data set of one folder per class; classes in alphabetical order.

    Images have the most common size. An image whose edges differ from it by up to a tenth is
    resampled (bilinear); a larger difference is an error. Pixels that are nodata or transparent in
    the file are NaN.
    """

    task = "classification"
    states_units = False

    def __init__(
        self,
        folder: str | Path,
        *,
        gsd_m: float | None = None,
        seed: int = 0,
        bands: tuple[str, ...] | None = None,
        units: str | None = None,
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
            units: units of the values; see :func:`salibi_model.evals.datasets.open.open_labelled`.

        Raises:
            UsageError: there are not images of two classes or more, the GSD is not known, or there
                are no such units.
            StoreError: the images cannot be read, or differ in their bands.
        """
        if gsd_m is not None and not 0 < gsd_m < float("inf"):
            raise UsageError(f"gsd_m is metres per pixel, above zero; got {gsd_m}.")
        self.units = None if units is None else named_units(units)
        self.path = find_root(Path(folder))
        self.name = Path(folder).resolve().name
        by_split = find_images(self.path, seed)
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
        usual = Counter((header.bands, header.names_bands) for header in probed.values())
        (common_bands, self._are_named), _ = usual.most_common(1)[0]
        self.bands = bands or common_bands
        for path, header in probed.items():
            self._check_bands_of(path, header)
        self.gsd_m = gsd_m or _georeferenced_gsd_m(list(probed))
        self._is_turned = any(header.orientation != UPRIGHT for header in probed.values())
        self._check_kinds(probed)
        self.digest = self._digest()

    def split_indices(self, split: Split) -> Int64[np.ndarray, " images"]:
        """Return the numbers of the images of a split."""
        k = SPLITS.index(split)
        return np.arange(self._ends[k], self._ends[k + 1], dtype=np.int64)

    def read(
        self, indices: Indices, bands: Sequence[str]
    ) -> Float32[np.ndarray, "images bands rows cols"]:
        """Read images; see :meth:`LabelledImages.read`."""
        images = convert_named(self.unconverted(indices, bands), self.units)
        for k, image in zip(indices, images, strict=True):
            if np.isnan(image).all():
                raise StoreError(
                    f"{self._paths[int(k)]} holds no measurement: every pixel is nodata in units "
                    f"{self.units}. Leave it out."
                )
        return images

    def unconverted(
        self, indices: Indices, bands: Sequence[str]
    ) -> Float32[np.ndarray, "images bands rows cols"]:
        """Read images in the units of their files."""
        self.check_bands(bands)
        return np.stack([self._image(self._paths[int(k)], bands) for k in indices])

    def labels(self, indices: Indices) -> Int64[np.ndarray, " images *shape"]:
        """Return class numbers (images,)."""
        return np.array([self._labels[int(k)] for k in indices], dtype=np.int64)

    def _probe(self) -> dict[Path, ImageHeader]:
        """Read the headers of some images, evenly spread over splits and classes."""
        positions = np.linspace(0, len(self._paths) - 1, min(len(self._paths), _PROBED_IMAGES))
        return self._headers([self._paths[int(position)] for position in positions.round()])

    def _headers(self, paths: Sequence[Path]) -> dict[Path, ImageHeader]:
        """Read headers; one error names all the images that cannot be read."""
        headers: dict[Path, ImageHeader] = {}
        failures: list[tuple[Path, StoreError]] = []
        for path in paths:
            try:
                with open_image(path) as dataset:
                    headers[path] = read_header(dataset, path, self._named_bands)
            except StoreError as error:
                failures.append((path, error))
        if len(failures) == 1:
            raise failures[0][1]
        if failures:
            raise StoreError(
                f"{len(failures)} of the {len(paths)} images looked at cannot be used: "
                f"{listed([str(path) for path, _ in failures])}. {failures[0][1]}"
            )
        return headers

    def _check_bands_of(self, path: Path, header: ImageHeader) -> None:
        names_differ = self._are_named and header.names_bands
        if len(header.bands) == len(self.bands) and (
            not names_differ or set(header.bands) == set(self.bands)
        ):
            return
        named = self._named_bands
        groups = self._survey(lambda each: each.described_bands)
        most = max(groups, key=lambda what: len(groups[what]))
        if len(groups) == 1 or (named and not most.startswith(f"{len(named)} ")):
            raise StoreError(
                f"{path} has {len(header.bands)} bands where {len(self.bands)} are expected "
                f"({', '.join(self.bands)}); all images must have the same."
            )
        raise StoreError(
            f"{describe_odd(groups)}; all images must have the same. Convert them, or leave them out."
        )

    def _survey(self, describe: Callable[[ImageHeader], str]) -> dict[str, list[str]]:
        """Sort all images by what their headers say; for errors, as it takes its time."""
        groups: dict[str, list[str]] = defaultdict(list)
        for path in self._paths:
            with suppress(StoreError), open_image(path) as dataset:
                groups[describe(read_header(dataset, path, self._named_bands))].append(str(path))
        return groups

    def _check_kinds(self, probed: Mapping[Path, ImageHeader]) -> None:
        """Warn of data types and formats that differ, above all by class."""
        labels = dict(zip(self._paths, self._labels, strict=True))
        first = {label: path for path, label in reversed(labels.items())}
        seen = {labels[path] for path in probed}
        others = [path for label, path in sorted(first.items()) if label not in seen]
        headers = {**probed, **self._headers(others[:_PROBED_CLASSES])}
        self._dtypes = {header.dtype for header in headers.values()}
        names = {path: self.classes[labels[path]] for path in headers}
        by_class = kinds_by_class(headers, names, lambda header: header.described_values)
        if by_class:
            self._warn(
                f"{by_class}: the range of the values gives the class away. Convert them to one type."
            )
        elif len(self._dtypes) > 1:
            odd = describe_odd(grouped(headers, lambda header: header.described_values))
            self._warn(f"{odd}: one scale is measured for all. Convert them to one type.")
        formats = kinds_by_class(headers, names, lambda header: f"the format {header.driver}")
        if "JPEG" in formats:
            self._warn(f"{formats}: traces of its compression may give the class away.")

    def _warn(self, note: str) -> None:
        warnings.warn(f"{self.path}: {note}", MixedImagesWarning, stacklevel=2)

    def _image(self, path: Path, bands: Sequence[str]) -> Float32[np.ndarray, "bands rows cols"]:
        """Read one image upright and at the common size."""
        with open_image(path) as dataset:
            header = read_header(dataset, path, self._named_bands)
            self._check_bands_of(path, header)
            self._check_size(path, header)
            if header.dtype not in self._dtypes:
                self._dtypes.add(header.dtype)
                self._warn(f"{path.name} has {header.described_values}; most images have others.")
            names = header.bands if header.names_bands and self._are_named else self.bands
            numbers = [names.index(band) + 1 for band in bands]
            where = {"out_shape": (len(numbers), *header.orientation.shape(*self._shape))}
            values = dataset.read(numbers, resampling=Resampling.bilinear, **where)
            valid = header.masks.valid(dataset, values, numbers, **where)
        values = values.astype(np.float32)
        image = np.where(valid & np.isfinite(values), values, np.float32(np.nan))
        if np.isnan(image).all():
            raise StoreError(f"{path} holds no measurement: every pixel is nodata. Leave it out.")
        return header.orientation.apply(image)

    def _check_size(self, path: Path, header: ImageHeader) -> None:
        if self._fits(header):
            return
        odd = sorted(self._survey(lambda each: str(self._fits(each)))[str(False)])
        others = [name for name in odd if name != str(path)]
        more = f" (so are the sizes of {listed(others)})" if others else ""
        raise StoreError(
            f"{path} has {header.shape} pixels; most images have {self._shape}, and one may differ by "
            f"a tenth{more}. Cut it to that size, or leave it out."
        )

    def _fits(self, header: ImageHeader) -> bool:
        """Whether an image has about the common size."""
        edges = zip(header.shape, self._shape, strict=True)
        return all(abs(edge - common) <= _SIZE_TOLERANCE * common for edge, common in edges)

    def _digest(self) -> str:
        """Hash names, sizes and times of the files, and all that decides what is read from them."""
        names = [path.relative_to(self.path).as_posix() for path in self._paths]
        files = [path.stat() for path in self._paths]
        stamps = [(file.st_size, file.st_mtime_ns) for file in files]
        identity: list[Any] = [names, stamps, self._ends, self.bands, self.gsd_m]
        if self._is_turned:
            identity.append("upright")  # earlier versions read the same files as they lie
        if self.units is not None:
            identity.append(self.units)
        return hashlib.sha256(json.dumps(identity).encode()).hexdigest()


def _georeferenced_gsd_m(paths: Sequence[Path]) -> float:
    """Return the median pixel size by the files' georeferences, in metres."""
    try:
        return float(np.median([dataset_pixel_m(path) for path in paths]))
    except UsageError as error:
        raise UsageError(
            f"the images have no georeference that tells their pixels' size ({first_line(error)}); "
            "give it with --gsd-m, such as 10 for EuroSAT and 0.3048 for UC Merced."
        ) from error
