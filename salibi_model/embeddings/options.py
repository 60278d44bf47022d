"""Options of an embedding: each is one field, with its default, range and help text.

``embed`` and its command take defaults and help from here. The module needs no PyTorch.
"""

import math
from dataclasses import dataclass, fields
from typing import Any, Final

from salibi_data.store.errors import UsageError
from salibi_data.store.validation import check_options, option

RASTERS: Final = "rasters"
STORES: Final = "Salibi stores"
"""What an option of the inputs applies to."""


@dataclass(frozen=True, kw_only=True)
class Choices:
    """Parts of the inputs that are embedded, and what they are: all that decides the numbers.

    Raises:
        UsageError: a value has another type or is out of its range, or both ``gsd_m`` and
            ``gsd_ratio`` are given.
    """

    modalities: tuple[str, ...] = option(
        (),
        flag="--modality",
        absent="what fits",
        help="Modalities whose encoders see the inputs: lores, or sar,lores.",
    )
    """Empty: all that a store has, or the only one that a raster's bands fit."""
    split: str | None = option(
        None, absent="all", help="Samples of a store: train, validation, test.", applies_to=STORES
    )
    window_px: int | None = option(
        None,
        minimum=1,
        unit="pixels",
        absent="as in training",
        help="Edge of a raster's windows.",
        applies_to=RASTERS,
    )
    stride_px: int | None = option(
        None,
        minimum=1,
        unit="pixels",
        flag="--stride",
        absent="the edge",
        help="Pixels from window to window.",
        applies_to=RASTERS,
    )
    bands: tuple[str, ...] = option(
        (),
        absent="its names",
        help="A raster's bands, in its order: red,green,blue.",
        applies_to=RASTERS,
    )
    units: str | None = option(
        None,
        help="Units of its values: stored, uint8 (display), reflectance, dn (Sentinel-2 numbers), "
        "dB, power (linear).",
        applies_to=RASTERS,
    )
    """See :func:`salibi_model.models.units.choose_units`."""
    scale: float | None = option(
        None,
        above=0,
        absent="the file's",
        help="Physical = offset + scale * value.",
        applies_to=RASTERS,
    )
    offset: float | None = option(None, help="See --scale.", applies_to=RASTERS)
    nodata: float | None = option(
        None,
        finite=False,
        help="Value of what was not observed, besides the file's mask.",
        applies_to=RASTERS,
    )
    gsd_m: float | None = option(
        None,
        above=0,
        unit="m",
        absent="from the georeference",
        help="Metres per pixel.",
        applies_to=RASTERS,
    )
    gsd_ratio: float | None = option(
        None, above=0, help="In its place, for a model that knows no metres.", applies_to=RASTERS
    )
    any_gsd: bool = option(
        False, help="Take also a GSD far from those of the training.", applies_to=RASTERS
    )
    """See :mod:`salibi_model.models.compatibility`."""
    tokens: bool = option(False, help="Keep the tokens of every patch, too.")

    def __post_init__(self) -> None:
        check_options(self)
        for name in self.modalities:
            if self.modalities.count(name) > 1:
                raise UsageError(f"--modality names {name!r} twice; name each once.")
        if self.gsd_m is not None and self.gsd_ratio is not None:
            raise UsageError("give gsd_m or gsd_ratio, not both.")
        if self.any_gsd and self.gsd_ratio is not None:
            raise UsageError(
                "--any-gsd (any_gsd) allows any metres per pixel, and --gsd-ratio (gsd_ratio) gives "
                "none; leave one of them out."
            )

    def to_dict(self) -> dict[str, Any]:
        """JSON form of the choices, as an embedding's attributes keep it."""
        values = {field.name: getattr(self, field.name) for field in fields(Choices)}
        if self.nodata is not None and not math.isfinite(self.nodata):
            values["nodata"] = str(float(self.nodata))  # JSON has no NaN, which equals nothing
        return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}


@dataclass(frozen=True, kw_only=True)
class EmbedOptions(Choices):
    """Choices, and how the work is done."""

    batch_size: int = option(16, minimum=1, help="Images encoded at a time.")
    workers: int = option(2, minimum=1, help="Threads that read ahead.")
