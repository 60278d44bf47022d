"""Which parts of the inputs are embedded, and what the user says of them."""

import math
from dataclasses import dataclass, fields
from typing import Any

from salibi_data.store.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Choices:
    """Which parts of the inputs are embedded, and what they are.

    Raises:
        UsageError: a number is out of range.
    """

    modalities: tuple[str, ...] = ()
    """Of the model; empty: all that a store has, or the only one that a raster's bands fit."""
    split: str | None = None
    """Samples of a store to take: ``train``, ``validation``, ``test``; ``None``: all."""
    window_px: int | None = None
    """Edge of a raster's windows; ``None``: the edge that the modality was trained at."""
    stride_px: int | None = None
    """From one window to the next; ``None``: their edge, so that they touch."""
    bands: tuple[str, ...] = ()
    """Names of a raster's bands, in its order; empty: as the file says."""
    units: str | None = None
    """Of a raster's values: see :func:`salibi_model.embeddings.quantise.choose_units`."""
    scale: float | None = None
    """Physical value = offset + scale * the file's; ``None``: the file's own, else 1."""
    offset: float | None = None
    nodata: float | None = None
    """A value that means "not observed", besides what the file masks."""
    gsd_m: float | None = None
    """Metres per pixel of a raster; ``None``: from its georeference."""
    gsd_ratio: float | None = None
    """In its place, for a model that does not know the metres it was trained at."""
    any_gsd: bool = False
    """Take also a GSD far from those of the training; see :mod:`salibi_model.models.compatibility`."""
    tokens: bool = False
    """Keep the tokens of each image besides its embedding."""

    def __post_init__(self) -> None:
        for name in ("window_px", "stride_px", "gsd_m", "gsd_ratio", "scale"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise UsageError(f"{name} is {value}; expected a finite number above 0.")
        if self.gsd_m is not None and self.gsd_ratio is not None:
            raise UsageError("give gsd_m or gsd_ratio, not both.")

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: list(v) if isinstance(v, tuple) else v for name, v in found.items()}
