"""What is embedded: samples of stores and windows of rasters, by modality of the model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from salibi_data.store.errors import StoreError, UsageError
from salibi_data.store.redaction import name_only, redact
from salibi_data.store.schema import NODATA, Modality
from salibi_data.store.storage import is_remote
from salibi_model.data.modalities import RAW_UNITS, check_agreement
from salibi_model.data.store import SampleStore
from salibi_model.embeddings.inputs import Bounds, Source, View, observed_share
from salibi_model.embeddings.options import Choices
from salibi_model.embeddings.rasters import Handle, RasterFile
from salibi_model.embeddings.windows import RasterSource
from salibi_model.models.config import ModelConfig


class StoreSource(Source):
    """A store's samples of one modality, at the ground sample distance of the training.

    A store of another base zoom than that of the training is told apart by the ratio of the two.
    """

    def __init__(
        self, store: SampleStore, number: int, modality: Modality, split: str | None
    ) -> None:
        self.name = redact(store.location)
        self.number = number
        self._store, self._modality = store, modality
        everything = np.arange(len(store))
        self._items = everything if split is None else store.split_indices(split)
        self._tiles = store.read("tile", everything)
        own = store.attributes.modalities[modality.name]
        self._gsd_m = store.read("gsd_m", everything).astype(np.float64) * own.gsd_ratio
        apart = 0 if modality.units == RAW_UNITS else modality.zoom - own.zoom
        self._ratio = modality.gsd_ratio * 2.0**apart
        self._size_px = own.size_px

    def __len__(self) -> int:
        return len(self._items)

    def read(self, first: int, stop: int) -> list[View | None]:
        """Read samples; see :meth:`Source.read`."""
        items = self._items[first:stop].tolist()
        images = self._store.read(self._modality.name, items)
        outlines = self.outlines(items)
        return [
            self._view(item, image, outline.bounds)
            for item, image, outline in zip(items, images, outlines, strict=True)
        ]

    def shapes(self) -> set[tuple[int, int]]:
        """All samples have one shape."""
        return {(self._size_px, self._size_px)}

    def outlines(self, items: Sequence[int]) -> list[Any]:
        """Give the samples' tiles."""
        import mercantile
        import shapely

        # Not store.tiles.tile_outlines: its latitudes differ in the last bit for a tenth of the
        # tiles, and embeddings written earlier would no longer have the same bytes.
        tiles = self._tiles[list(items)].tolist()
        return [shapely.box(*mercantile.bounds(x, y, z)) for z, x, y in tiles]

    def label(self, item: int) -> str:
        """Give the tile as zoom/column/row."""
        return "/".join(map(str, self._tiles[item].tolist()))

    def _view(
        self, item: int, image: UInt8[np.ndarray, "bands rows cols"], bounds: Bounds
    ) -> View | None:
        observed = image != NODATA
        if not observed.any():
            return None
        return View(
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
        UsageError: an input does not exist, or is not what the model takes.
        StoreError: a store is damaged.
    """

    def __init__(
        self, locations: Sequence[str | Path], config: ModelConfig, choices: Choices
    ) -> None:
        if not locations:
            raise UsageError("nothing to embed: give a store, GeoTIFFs or images.")
        for name in choices.modalities:
            config[name]
        self.sources: dict[str, list[Source]] = {}
        self.facts: list[dict[str, Any]] = []
        """What identifies each input: name, size, time of change, plan digest."""
        handle = Handle()
        for number, location in enumerate(map(str, locations)):
            if _is_store(location):
                self._add_store(SampleStore(location), number, config, choices)
                continue
            file = RasterFile(location, choices, handle)
            self.facts.append(file.facts())
            for modality in file.modalities(config):
                source = RasterSource(file, number, modality, config)
                self.sources.setdefault(modality.name, []).append(source)
        self.sources = {name: self.sources[name] for name in config.names if name in self.sources}
        self.num_images = sum(len(source) for one in self.sources.values() for source in one)
        if choices.tokens:
            self._check_one_shape()

    def _add_store(
        self, store: SampleStore, number: int, config: ModelConfig, choices: Choices
    ) -> None:
        there = store.attributes.modalities
        wanted = choices.modalities or tuple(name for name in config.names if name in there)
        if not wanted:
            raise UsageError(
                f"{redact(store.location)} has {', '.join(there)}, none of the model's modalities "
                f"{', '.join(config.names)}. Take a store of the kind it was trained on."
            )
        check_agreement(store, [config[name] for name in wanted])
        digest = store.attributes.plan_digest
        self.facts.append({"name": redact(store.location), "plan_digest": digest})
        for name in wanted:
            source = StoreSource(store, number, config[name], choices.split)
            if not len(source):
                raise StoreError(f"{source.name} has no samples in the split {choices.split!r}.")
            self.sources.setdefault(name, []).append(source)

    def _check_one_shape(self) -> None:
        """Tokens are one array, so that all images have to have as many."""
        for name, sources in self.sources.items():
            shapes = sorted({shape for source in sources for shape in source.shapes()})
            if len(shapes) > 1:
                listed = ", ".join(f"{rows}x{cols}" for rows, cols in shapes)
                raise UsageError(
                    f"images of {name!r} are {listed} px; with --tokens they have to be of one "
                    "size: embed them apart, or without tokens."
                )


def _is_store(location: str) -> bool:
    if is_remote(location):
        return name_only(location).endswith(".zarr")
    return Path(location.removeprefix("file://")).is_dir()
