"""Masks of a file: mask bands inside of it or beside it (``.msk``), and alpha bands.

A mask hides pixels whatever the missing value is. Where a file is masked in one band the pixel is
missing, since a sample has no pixel that only some bands have.

Source: GDAL RFC 15 (https://gdal.org/en/stable/development/rfc/rfc15_nodatabitmask.html).
"""

from __future__ import annotations

import threading
import warnings
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from salibi_data.store.errors import ReadError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

MIN_OPAQUE_SHARE: Final = 0.25
"""Least share of the largest value among the values above 0 of a real alpha band. Even in soft edges a
quarter of the visible pixels is opaque; of a near-infrared band not a tenth is saturated."""

MAX_OVERVIEW_PX: Final = 1024
"""Longest edge of an overview that is read to judge a whole band: about a megabyte."""

_PROBES: Final = 3
_PROBE_PX: Final = 128
"""A large band without overviews is judged by 3 x 3 windows of this edge."""

_PER_DATASET_FLAG: Final = 2

_absent: Final[set[str]] = set()
_MAX_ABSENT: Final = 100_000
_changing_filters: Final = threading.Lock()


def masked(
    dataset: Any,
    indexes: Sequence[int],
    *,
    named: Collection[int],
    stated: bool,
    window: Any = None,
    out_shape: tuple[int, int] | None = None,
) -> NDArray[np.bool_] | None:
    """Return which pixels the masks of a file hide; None where it has no mask.

    Args:
        dataset: open rasterio dataset.
        indexes: numbers of the bands that are read, from 1. An alpha band among them is data.
        named: numbers of all bands that the product names; see :func:`_is_opacity`.
        stated: whether the missing values are stated elsewhere, so that the file's tag
            ``NODATA_VALUES``, by which GDAL makes a mask, has no effect.
        window: rasterio window; None for the whole file.
        out_shape: (rows, columns) of the result, to read an overview; None: those of the window.
    """
    from rasterio.enums import ColorInterp, MaskFlags

    where: dict[str, Any] = {"window": window, "out_shape": out_shape}
    hidden: NDArray[np.bool_] | None = None
    for index, colour in enumerate(dataset.colorinterp, start=1):
        if colour != ColorInterp.alpha or index in indexes:
            continue
        if index not in named or _is_opacity(dataset, index):
            # Not `alpha == 0`: NaN is no opacity, either.
            hidden = _either(hidden, ~(dataset.read(index, **where) > 0))
    flags = {index: set(dataset.mask_flag_enums[index - 1]) for index in indexes}
    shared: set[MaskFlags] = set().union(*flags.values())
    own = [index for index in indexes if not flags[index]]  # GDAL's sign of a mask for each band
    if MaskFlags.per_dataset in shared and MaskFlags.alpha not in shared:
        by_tag = MaskFlags.nodata in shared
        if not (by_tag and stated):
            own.append(next(i for i in indexes if MaskFlags.per_dataset in flags[i]))
    for index in own:
        hidden = _either(hidden, dataset.read_masks(index, **where) == 0)
    return hidden


def _either(
    hidden: NDArray[np.bool_] | None, more: NDArray[np.bool_] | np.bool_
) -> NDArray[np.bool_]:
    return np.asarray(more) if hidden is None else hidden | more


def _is_opacity(dataset: Any, index: int) -> bool:
    """Return whether a band that is tagged alpha, and that the product names as data, is opacity.

    GDAL tags the fourth of four 8-bit bands as alpha unless its writer says otherwise, which happens
    to near infrared. Opacity has one value nearly everywhere: the largest of its type, or 255. Near
    infrared over water alone may have one value nearly everywhere as well, but 0 or a small one.
    """
    values = _sampled(dataset, index)
    visible = values[values > 0]
    if visible.size == 0:
        # A file that is transparent everywhere shows nothing in other bands, either.
        return bool(np.ptp(_sampled(dataset, 1 if index > 1 else dataset.count)) == 0)
    opaque = visible.max()
    if opaque not in _opaque_values(values.dtype):
        return False
    return bool((visible == opaque).mean() >= MIN_OPAQUE_SHARE)


def _opaque_values(dtype: np.dtype[Any]) -> tuple[float, ...]:
    return (1.0, 255.0) if dtype.kind == "f" else (255, int(np.iinfo(dtype).max))


def _sampled(dataset: Any, index: int) -> NDArray[Any]:
    values = whole_band(dataset, index)
    return _probed(dataset, index) if values is None else values


def whole_band(dataset: Any, index: int) -> NDArray[Any] | None:
    """Return a band's smallest overview; None where the file is large and has no small one."""
    shape = overview_shape(dataset, index)
    return None if shape is None else dataset.read(index, out_shape=shape)


def overview_shape(dataset: Any, index: int) -> tuple[int, int] | None:
    """Return (rows, columns) of a band's smallest overview; None where that is large."""
    factor = max(dataset.overviews(index), default=1)
    height, width = (-(-edge // factor) for edge in dataset.shape)
    return (height, width) if max(height, width) <= MAX_OVERVIEW_PX else None


def _probed(dataset: Any, index: int) -> NDArray[Any]:
    from rasterio.windows import Window

    height, width = dataset.shape
    corners = [
        (int((column + 0.5) / _PROBES * width), int((row + 0.5) / _PROBES * height))
        for row in range(_PROBES)
        for column in range(_PROBES)
    ]
    windows = [Window(left, top, _PROBE_PX, _PROBE_PX) for left, top in corners]
    return np.concatenate([dataset.read(index, window=window).ravel() for window in windows])


def may_have_sidecar(dataset: Any, *, is_remote: bool, stated: bool) -> bool:
    """Return whether a file is worth looking for a mask beside it.

    Args:
        dataset: open rasterio dataset.
        is_remote: whether looking costs a request. Then it is done only for files that have no
            missing value or mask and that were not written as COGs, which contain their masks.
        stated: whether the catalog's TOML states what is missing.
    """
    from rasterio.enums import MaskFlags

    if not is_remote:
        return True
    is_cog = dataset.tags(ns="IMAGE_STRUCTURE").get("LAYOUT") == "COG"
    is_bare = set(dataset.mask_flag_enums[0]) == {MaskFlags.all_valid}
    return is_bare and not is_cog and not stated


def sidecar_path(where: str) -> str:
    """Return the path or URL of the mask beside a file, which GDAL names by a further suffix."""
    head, mark, query = where.partition("?") if "://" in where else (where, "", "")
    return f"{head}.msk{mark}{query}"


def is_worth_opening(where: str) -> bool:
    """Return whether a mask beside a file exists on disk, or is not known to be absent elsewhere."""
    return where not in _absent if "://" in where else Path(where).is_file()


def remember_absence(where: str) -> None:
    """Do not look for this mask again in this process: a build reads a file in many blocks."""
    if len(_absent) >= _MAX_ABSENT:
        _absent.clear()
    _absent.add(where)


@contextmanager
def open_mask(opening: AbstractContextManager[Any]) -> Iterator[Any]:
    """Open the dataset of a mask, which has no position of its own, without rasterio's warning of it."""
    from rasterio.errors import NotGeoreferencedWarning

    with ExitStack() as stack:
        # The list of filters belongs to the process; assets are read in threads.
        with _changing_filters, warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            mask = stack.enter_context(opening)
        yield mask


def sidecar_hidden(
    mask: Any, indexes: Sequence[int], *, shape: tuple[int, int], window: Any, where: str
) -> NDArray[np.bool_]:
    """Return which pixels of a window a mask beside the file hides.

    Args:
        mask: open rasterio dataset of the mask.
        indexes: numbers of the file's bands that are read, from 1.
        shape: (rows, columns) of the file.
        window: rasterio window.
        where: name of the mask in messages.

    Raises:
        ReadError: the mask is not one of this file.
    """
    if mask.shape != shape:
        raise ReadError(
            f"{where} has {mask.shape[0]} x {mask.shape[1]} pixels and its image "
            f"{shape[0]} x {shape[1]}; remove the mask, or write it again.",
            kind="unusable",
        )
    flags = mask.tags()
    own = [
        index
        for index in indexes
        if index <= mask.count
        and not int(flags.get(f"INTERNAL_MASK_FLAGS_{index}", _PER_DATASET_FLAG))
        & _PER_DATASET_FLAG
    ]
    hidden: NDArray[np.bool_] = (mask.read(own or [1], window=window) == 0).any(axis=0)
    return hidden
