"""The contract between the two halves: arrays, files and attributes of a Salibi store.

One Zarr v3 group; N samples along the first dimension of every array; a modality is an array
``(N, bands, size_px, size_px)`` of ``uint8``. This module imports the standard library only, so
that it can be read, and used, without the rest. ``docs/format.md`` describes the same store for
readers who do not use this software.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final

SCHEMA_VERSION: Final = 1
"""Version of the layout. A reader refuses a store of a newer version."""

ATTRIBUTES_KEY: Final = "salibi"
"""Key of the group attributes under which :class:`StoreAttributes` are kept."""

TILE_PX: Final = 256
"""Edge of an XYZ tile in pixels."""

NODATA: Final = 0
"""Stored value for "no observation" in every modality; valid values are 1..255."""

MANIFEST_NAME: Final = "manifest.json"
"""File in the group's folder with size and SHA-256 of every other file; written last."""

SAMPLES_NAME: Final = "samples.parquet"
"""GeoParquet file in the group's folder with one row per sample, in the order of the arrays."""

LATEST_NAME: Final = "latest.json"
"""Object at the address of a published dataset that names its newest release; written last."""

UNKNOWN_TIME: Final = -(2**63)
"""Value of ``acquired`` where the time is not known: NumPy's not-a-time."""

SPLITS: Final[Mapping[str, int]] = MappingProxyType(
    {"train": 0, "validation": 1, "test": 2, "guard": 3}
)
"""Codes of the array ``split``. Guards lie next to samples of another split and belong to none, so
that no scene or ground is shared; a build leaves such tiles out."""

MODALITY_DIMS: Final = ("sample", "{name}_band", "{name}_y", "{name}_x")
"""Dimension names of a modality's array; ``{name}`` is the modality's name."""

INDEX_ARRAYS: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = MappingProxyType(
    {
        "tile": ("int32", ("sample", "zxy")),
        "gsd_m": ("float32", ("sample",)),
        "acquired": ("int64", ("sample", "sensor")),
        "valid_fraction": ("float32", ("sample", "sensor")),
        "cloud_fraction": ("float32", ("sample",)),
        "split": ("uint8", ("sample",)),
    }
)
"""Per-sample arrays beside the modalities: dtype and dimension names."""


class SchemaError(ValueError):
    """A store's attributes are missing, damaged, or of a newer schema.

    Its own type, as this module stands alone; what opens stores raises a ``StoreError`` from it.
    """


@dataclass(frozen=True, kw_only=True)
class Modality:
    """One image array of a store. Physical value = ``offset[b] + scale[b] * stored``, per band b."""

    name: str
    """Name of the array: ``sar``, ``lores``, ``hires``, ``hires_4x``, or any other."""
    sensor: str
    """``sentinel-1``, ``sentinel-2``, ``naip``: column of the per-sensor arrays."""
    zoom: int
    """XYZ zoom of the pixels."""
    gsd_ratio: float = field(metadata={"above": 0})
    """``2 ** -(zoom - base_zoom)``: ground size of a pixel over that of a base-zoom pixel."""
    size_px: int = field(metadata={"above": 0})
    """Edge of the image: ``256 / gsd_ratio``, so that every modality covers the same ground."""
    bands: tuple[str, ...]
    """Band names, in array order."""
    units: str
    """Units of the physical value: ``dB``, ``reflectance``, or ``display`` (8-bit rendering)."""
    scale: tuple[float, ...]
    offset: tuple[float, ...]
    nodata: int = NODATA
    collection: str = ""
    """STAC collection of the source."""
    licence: str = ""
    attribution: str = ""
    mean: tuple[float, ...] = ()
    """Mean of the valid stored values (0..255 scale) of the training split, per band."""
    std: tuple[float, ...] = field(default=(), metadata={"above": 0})
    """Standard deviation of the same values, per band.

    Ranges in the fields' metadata hold where :mod:`salibi_data.store.validation` reads a modality,
    as in a model's description; a store's attributes are read by this module without them."""

    def __post_init__(self) -> None:
        num_bands = len(self.bands)
        for name in ("scale", "offset", "mean", "std"):
            length = len(getattr(self, name))
            if length != num_bands and not (name in ("mean", "std") and length == 0):
                raise SchemaError(
                    f"modality {self.name!r} has {num_bands} bands but {length} values of "
                    f"{name!r}; give one per band."
                )
        if self.size_px != round(TILE_PX / self.gsd_ratio):
            raise SchemaError(
                f"modality {self.name!r} is {self.size_px} px wide with gsd_ratio "
                f"{self.gsd_ratio}; expected {round(TILE_PX / self.gsd_ratio)} px, so that all "
                "modalities of a sample cover the same ground."
            )

    @property
    def dims(self) -> tuple[str, ...]:
        """Dimension names of this modality's array."""
        return tuple(dim.format(name=self.name) for dim in MODALITY_DIMS)

    def with_statistics(self, mean: tuple[float, ...], std: tuple[float, ...]) -> Modality:
        """This modality with the statistics of its valid training pixels."""
        return replace(self, mean=mean, std=std)


@dataclass(frozen=True, kw_only=True)
class StoreAttributes:
    """Description of a store, as its group attribute ``salibi`` keeps it."""

    variant: str
    catalog: str
    base_zoom: int
    sensors: tuple[str, ...]
    """Columns of ``acquired`` and ``valid_fraction``, in order."""
    modalities: Mapping[str, Modality]
    plan_digest: str
    """SHA-256 of the plan's content; equal digests mean equal samples."""
    software_version: str
    notes: tuple[str, ...] = ()
    """Remarks for readers: what is not known about these data, or known to be wrong."""
    schema_version: int = SCHEMA_VERSION

    def to_dict(self) -> dict[str, Any]:
        """JSON content, as the group's attributes keep it."""
        content = {**self.__dict__, "sensors": list(self.sensors), "notes": list(self.notes)}
        content["modalities"] = {
            name: {
                key: list(value) if isinstance(value, tuple) else value
                for key, value in asdict(modality).items()
                if key != "name"
            }
            for name, modality in self.modalities.items()
        }
        return content

    @classmethod
    def from_dict(cls, attributes: Mapping[str, Any], *, where: str) -> StoreAttributes:
        """Read the group attributes of the store at ``where``.

        Raises:
            SchemaError: there is no ``salibi`` attribute, its schema is newer than this
                software's, or a field is missing.
        """
        content = attributes.get(ATTRIBUTES_KEY)
        if not isinstance(content, Mapping):
            raise SchemaError(
                f"{where} is a Zarr group but not a Salibi store: it has no attribute "
                f"{ATTRIBUTES_KEY!r}. Build one with `salibi-data build`."
            )
        version = content.get("schema_version")
        if not isinstance(version, int) or version > SCHEMA_VERSION:
            raise SchemaError(
                f"{where} has schema version {version}; this software reads up to "
                f"{SCHEMA_VERSION}. Upgrade salibi to read it."
            )
        try:
            modalities = {
                name: Modality(**{"name": name, **_with_tuples(fields)})
                for name, fields in content["modalities"].items()
            }
            fields = {key: value for key, value in content.items() if key != "modalities"}
            fields["sensors"] = tuple(fields["sensors"])
            fields["notes"] = tuple(fields.get("notes", ()))
            return cls(modalities=modalities, **fields)
        except (KeyError, TypeError, AttributeError) as error:
            raise SchemaError(
                f"{where} has damaged attributes ({error}); expected the fields that "
                "docs/format.md lists. Build or pull the store again."
            ) from error


@dataclass(frozen=True, kw_only=True)
class Release:
    """One release of a published dataset: content of ``latest.json`` at the dataset's address.

    The addresses of its objects follow from the checksum of its manifest, so that releases never
    share an object and none is overwritten.
    """

    dataset: str
    """Name of the dataset; the same for all releases at an address."""
    catalog: str
    """Name of the catalog of its images; the same for all releases at an address."""
    manifest_sha256: str
    """SHA-256 of the store's ``manifest.json``, which lists the checksum of every file."""
    samples: int
    num_bytes: int
    """Size of the store's files together."""
    cards: Mapping[str, str]
    """SHA-256 of each file beside the store: the card, its figure, STAC, Croissant."""
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        if not re.fullmatch("[0-9a-f]{64}", self.manifest_sha256):
            raise SchemaError(f"{self.manifest_sha256!r} is no SHA-256 of a manifest.")

    @property
    def folder(self) -> str:
        """Folder of the release, relative to the dataset's address."""
        return f"releases/{self.manifest_sha256[:16]}"

    @property
    def store(self) -> str:
        """Folder of its Zarr group, relative to the dataset's address."""
        return f"{self.folder}/store.zarr"

    def to_dict(self) -> dict[str, Any]:
        """JSON content; ``store`` is for readers that do not use this software."""
        return {**self.__dict__, "cards": dict(self.cards), "store": self.store}

    @classmethod
    def from_json(cls, content: str | bytes, *, where: str) -> Release:
        """Read the ``latest.json`` of the dataset at ``where``.

        Raises:
            SchemaError: it is damaged, or of a newer schema.
        """
        try:
            fields = json.loads(content)
            version = int(fields["schema_version"])
        except (ValueError, KeyError, TypeError) as error:
            raise SchemaError(_damaged_pointer(where)) from error
        if version > SCHEMA_VERSION:
            raise SchemaError(
                f"{where} was published with schema version {version}; this software reads up to "
                f"{SCHEMA_VERSION}. Upgrade salibi to read it."
            )
        try:
            return cls(**{key: fields[key] for key in cls.__dataclass_fields__})
        except (KeyError, TypeError, SchemaError) as error:
            raise SchemaError(_damaged_pointer(where)) from error


def _damaged_pointer(where: str) -> str:
    return f"{where} has a damaged {LATEST_NAME}; publish the dataset there again."


def _with_tuples(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(v) if isinstance(v, list) else v for key, v in fields.items()}


def gsd_ratio(zoom: int, base_zoom: int) -> float:
    """Ground size of a pixel at ``zoom`` over that at ``base_zoom``: ``2 ** -(zoom - base_zoom)``.

    Source: the XYZ scheme halves the pixel with each zoom; Kage & Andreadis 2024 take the GSD
    scale of Scale-ALiBi from the same difference.
    """
    return math.ldexp(1.0, base_zoom - zoom)
