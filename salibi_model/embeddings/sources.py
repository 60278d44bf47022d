"""Opens the inputs of an embedding: samples of stores and windows of rasters, by modality."""

import warnings
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import UInt8

from salibi_data.store.errors import StoreError, UsageError
from salibi_data.store.redaction import is_remote, name_only, shown_location
from salibi_data.store.schema import NODATA, Modality
from salibi_data.store.storage import local_path
from salibi_data.store.validation import check_applicable, given_options
from salibi_model.data.input_names import describe_odd, distinct_names, listed
from salibi_model.data.modalities import check_agreement
from salibi_model.data.store import SampleStore
from salibi_model.embeddings.inputs import Bounds, EmbeddingInput, InputImage, observed_share
from salibi_model.embeddings.options import RASTERS, STORES, Choices
from salibi_model.embeddings.rasters import OpenRaster, RasterFile
from salibi_model.embeddings.windows import RasterInput
from salibi_model.models.config import ModelConfig
from salibi_model.models.units import RAW_UNITS

_IMAGE_SUFFIXES: Final = frozenset({".tif", ".tiff", ".png", ".jpg", ".jpeg", ".jp2", ".vrt"})
"""Suffixes by which a folder of images is told from a damaged store."""


class MixedRastersWarning(UserWarning):
    """Rasters that one scale is given for are of several data types."""


class StoreInput(EmbeddingInput):
    """A store's samples of one modality.

    For a store of another base zoom than the training's, the GSD ratio is changed accordingly.
    """

    def __init__(
        self, store: SampleStore, number: int, modality: Modality, split: str | None
    ) -> None:
        self.name = shown_location(store.location)
        self.number = number
        self._store, self._modality = store, modality
        all_samples = np.arange(len(store))
        self._items = all_samples if split is None else store.split_indices(split)
        self._tiles = store.read("tile", all_samples)
        own = store.attributes.modalities[modality.name]
        self._gsd_m = store.read("gsd_m", all_samples).astype(np.float64) * own.gsd_ratio
        zooms = 0 if modality.units == RAW_UNITS else modality.zoom - own.zoom
        self._ratio = modality.gsd_ratio * 2.0**zooms
        self._size_px = own.size_px

    def __len__(self) -> int:
        return len(self._items)

    def read(self, first: int, stop: int) -> list[InputImage | None]:
        """Read samples; see :meth:`EmbeddingInput.read`."""
        items = self._items[first:stop].tolist()
        images = self._store.read(self._modality.name, items)
        outlines = self.outlines(items)
        return [
            self._input_image(item, image, outline.bounds)
            for item, image, outline in zip(items, images, outlines, strict=True)
        ]

    def shapes(self) -> set[tuple[int, int]]:
        """Return the one size of all samples."""
        return {(self._size_px, self._size_px)}

    def outlines(self, items: Sequence[int]) -> list[Any]:
        """Return the samples' tiles as polygons."""
        import mercantile
        import shapely

        # Not store.tiles.tile_outlines: its latitudes differ in the last bit for a tenth of the
        # tiles, and embeddings written earlier would no longer have the same bytes.
        tiles = self._tiles[list(items)].tolist()
        return [shapely.box(*mercantile.bounds(x, y, z)) for z, x, y in tiles]

    def label(self, item: int) -> str:
        """Return the tile as zoom/column/row."""
        return "/".join(map(str, self._tiles[item].tolist()))

    def _input_image(
        self, item: int, image: UInt8[np.ndarray, "bands rows cols"], bounds: Bounds
    ) -> InputImage | None:
        observed = image != NODATA
        if not observed.any():
            return None
        return InputImage(
            image=image,
            source=self.number,
            item=item,
            window=(0, 0, *image.shape[1:]),
            valid_fraction=observed_share(observed),
            gsd_m=float(self._gsd_m[item]),
            gsd_ratio=self._ratio,
            bounds=bounds,
        )


class Inputs:
    """All inputs, by modality of the model.

    Raises:
        UsageError: an input does not exist, or the model cannot encode it.
        StoreError: a store is damaged.
    """

    def __init__(
        self, locations: Sequence[str | Path], config: ModelConfig, choices: Choices
    ) -> None:
        if isinstance(locations, str | Path):
            raise UsageError(
                f"inputs is a list of paths; got {str(locations)!r} alone. Put it in []."
            )
        if not locations:
            raise UsageError("nothing to embed: give a store, GeoTIFFs or images.")
        for name in choices.modalities:
            config[name]
        texts = [str(location) for location in locations]
        stores = {location for location in texts if _is_store(location)}
        _check_choices(choices, len(stores), len(texts))
        self._short_names = distinct_names(texts)
        self.by_modality: dict[str, list[EmbeddingInput]] = {}
        self.facts: list[dict[str, Any]] = []
        """Identity of each input: name, size, time of change, plan digest."""
        handle = OpenRaster()
        failures: list[tuple[str, UsageError]] = []
        for number, location in enumerate(texts):
            if location in stores:
                self._add_store(SampleStore(location), number, config, choices)
                continue
            try:
                self._add_raster(RasterFile(location, choices, handle), number, config)
            except UsageError as error:
                # Files on disk are all looked at, so that one message names those that are odd.
                if is_remote(location):
                    raise
                failures.append((shown_location(location), error))
        if failures:
            raise _failure(failures, len(texts))
        self._warn_of_types(choices)
        self.by_modality = {
            name: self.by_modality[name] for name in config.names if name in self.by_modality
        }
        self.num_images = sum(
            len(source) for sources in self.by_modality.values() for source in sources
        )
        if choices.tokens:
            self._check_one_shape()

    def _add_raster(self, file: RasterFile, number: int, config: ModelConfig) -> None:
        sources = [RasterInput(file, number, each, config) for each in file.modalities(config)]
        self.facts.append(file.facts())
        for modality, source in zip(file.modalities(config), sources, strict=True):
            self._add(modality.name, source)

    def _add(self, modality: str, source: EmbeddingInput) -> None:
        source.short_name = self._short_names[source.number]
        self.by_modality.setdefault(modality, []).append(source)

    def _add_store(
        self, store: SampleStore, number: int, config: ModelConfig, choices: Choices
    ) -> None:
        available = store.attributes.modalities
        names = choices.modalities or tuple(name for name in config.names if name in available)
        if not names:
            raise UsageError(
                f"{shown_location(store.location)} has {', '.join(available)}, none of the model's modalities "
                f"{', '.join(config.names)}. Take a store of the kind it was trained on."
            )
        check_agreement(store, [config[name] for name in names])
        digest = store.attributes.plan_digest
        self.facts.append({"name": shown_location(store.location), "plan_digest": digest})
        for name in names:
            source = StoreInput(store, number, config[name], choices.split)
            if not len(source):
                raise StoreError(f"{source.name} has no samples in the split {choices.split!r}.")
            self._add(name, source)

    def _warn_of_types(self, choices: Choices) -> None:
        """Warn where one scale is for whole numbers and for fractions, which are mostly scaled."""
        if choices.scale is None and choices.offset is None:
            return
        names: dict[str, list[str]] = defaultdict(list)
        for facts in self.facts:
            if "dtype" in facts:
                names[f"values of {facts['dtype']}"].append(facts["name"])
        if len({np.dtype(what.split()[-1]).kind == "f" for what in names}) > 1:
            warnings.warn(
                f"--scale and --offset are for all rasters, but {describe_odd(names)}. Embed them "
                "apart where they mean different units.",
                MixedRastersWarning,
                stacklevel=3,
            )

    def _check_one_shape(self) -> None:
        """Refuse images of several sizes: tokens are one array, with as many for every image."""
        for name, sources in self.by_modality.items():
            names_by_size: dict[str, list[str]] = defaultdict(list)
            for source in sources:
                for rows, cols in source.shapes():
                    names_by_size[f"{rows}x{cols} px"].append(source.name)
            if len(names_by_size) > 1:
                raise UsageError(
                    f"images of {name!r} have to be of one size with --tokens, and "
                    f"{describe_odd(names_by_size)}: embed them apart, or without tokens."
                )


def _check_choices(choices: Choices, num_stores: int, num_inputs: int) -> None:
    """Refuse options that no input uses."""
    absent = {}
    if not num_stores:
        absent[STORES] = "no input is one"
    if num_stores == num_inputs:
        absent[RASTERS] = (
            "the input is a Salibi store" if num_inputs == 1 else "all inputs are stores"
        )
    check_applicable(Choices, given_options(choices), absent)


def _failure(failures: Sequence[tuple[str, UsageError]], num_inputs: int) -> UsageError:
    """One error for all inputs that cannot be embedded."""
    first = failures[0][1]
    if len(failures) == 1:
        return first
    names = [name for name, _ in failures]
    return UsageError(
        f"{len(failures)} of {num_inputs} inputs cannot be embedded: {listed(names)}. {first}"
    )


def _is_store(location: str) -> bool:
    """Whether a location is a store: a URL that ends in ``.zarr``, or a folder.

    Raises:
        UsageError: it is a folder of images.
    """
    if is_remote(location):
        return name_only(location).endswith(".zarr")
    folder = local_path(location)
    if not folder.is_dir():
        return False
    if not (folder / "zarr.json").exists():
        images = [
            path
            for path in folder.iterdir()
            if path.suffix.lower() in _IMAGE_SUFFIXES and not path.name.startswith(".")
        ]
        if images:
            raise UsageError(
                f"{shown_location(location)} is a folder of {len(images)} images, not a store; give "
                f"the images themselves, such as {shown_location(location).rstrip('/')}/*"
                f"{images[0].suffix}."
            )
    return True
