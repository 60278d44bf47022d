"""Compares and pools the modalities of stores: what models are trained on, and may be shown.

A model normalises images by the mean and standard deviation of its training data, and equal
stored values must mean equal physical values. So stores that are used together, and a store that
is used with a checkpoint, must agree on bands, units, scale, offset and ground sample distance.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from jaxtyping import Float64

from salibi_data.store.errors import StoreError, UsageError
from salibi_data.store.schema import Modality, gsd_ratio
from salibi_model.data.store import SampleStore
from salibi_model.models.units import RAW_UNITS

_VALUE_FIELDS: Final = ("bands", "units", "scale", "offset", "gsd_ratio", "nodata")
"""Fields of a modality that say what its values mean."""


def shared_modalities(
    stores: Sequence[SampleStore], names: Sequence[str], weights: Sequence[float] = ()
) -> tuple[Modality, ...]:
    """Return the modalities ``names`` with statistics pooled over the stores' training splits.

    Base zooms may differ; the zooms returned are relative to the first store's. Some of several
    stores may lack a modality: its statistics are pooled over the others.

    Args:
        stores: one or more.
        names: names of the arrays.
        weights: share of each store in what is drawn; empty: in proportion to their training
            samples.

    Raises:
        UsageError: no store has one of them; a store has fewer than two of them (or fewer than
            one where one is asked for); or two stores disagree on bands, units, scale or ground
            sample distance, so that equal values would mean different things.
        StoreError: a store has no statistics.
    """
    for store in stores:
        _check_enough(store, names, is_only=len(stores) == 1)
    shares = _shares(stores, weights)
    return tuple(_pool(name, stores, shares) for name in names)


def check_agreement(
    store: SampleStore, modalities: Iterable[Modality], *, all_needed: bool = True
) -> None:
    """Refuse a store whose values mean something else than those a model was trained on.

    Of a converted model (:data:`RAW_UNITS`) only bands and ground sample distance are known; only
    these are compared, and whether the values fit is up to the caller.

    Args:
        store: the store to be used.
        modalities: the modalities of the checkpoint.
        all_needed: whether the store must have them all; otherwise those it has are compared.

    Raises:
        UsageError: the store lacks a modality, or store and checkpoint disagree on bands, units,
            scale, offset, ground sample distance or nodata.
    """
    available = store.attributes.modalities
    for expected in modalities:
        actual = available.get(expected.name)
        if actual is None and all_needed:
            raise UsageError(
                f"{store.location} has no {expected.name!r}, which the model was trained on; it "
                f"has {', '.join(available)}. Take a store of the kind it was trained on."
            )
        fields = ("bands", "gsd_ratio") if expected.units == RAW_UNITS else _VALUE_FIELDS
        if actual is not None and (differences := _differences(actual, expected, fields)):
            raise UsageError(
                f"store and checkpoint disagree on {expected.name!r}: {differences}. Take a store "
                f"of the kind that the model was trained on, not {store.location}."
            )


def gsd_scales(stores: Sequence[SampleStore]) -> tuple[float, ...]:
    """Return the ground size of each store's base pixels over that of the first store's."""
    reference = stores[0].attributes.base_zoom
    return tuple(gsd_ratio(store.attributes.base_zoom, reference) for store in stores)


def mean_gsd_m(stores: Sequence[SampleStore], weights: Sequence[float] = ()) -> float | None:
    """Return the metres per base pixel of the first store's zoom; ``None`` without any sample.

    The mean over the training samples of all stores, each store weighted by ``weights`` if given.
    """
    values = [store.read("gsd_m", store.split_indices("train")) for store in stores]
    shares = _shares(stores, weights) * [len(gsds_m) > 0 for gsds_m in values]
    if not shares.any():
        return None
    means = [
        gsds_m.astype(np.float64).mean() / scale if len(gsds_m) else 0.0
        for gsds_m, scale in zip(values, gsd_scales(stores), strict=True)
    ]
    return float(np.average(means, weights=shares))


def _shares(
    stores: Sequence[SampleStore], weights: Sequence[float]
) -> Float64[np.ndarray, " stores"]:
    """Return the weights of the stores; without any, their numbers of training samples."""
    if weights and len(weights) != len(stores):
        raise UsageError(
            f"there are {len(weights)} weights for {len(stores)} stores; give one for each."
        )
    counts = [len(store.split_indices("train")) for store in stores]
    return np.array(weights or counts, dtype=np.float64)


def _check_enough(store: SampleStore, names: Sequence[str], *, is_only: bool) -> None:
    """Refuse a store that lacks too many of the modalities ``names``.

    The only store must have them all; one of several must have two, so that there is a pair to
    learn from.
    """
    available = store.attributes.modalities
    missing = [name for name in names if name not in available]
    if missing and (is_only or len(names) - len(missing) < min(2, len(names))):
        advice = "Name those" if is_only else "Name two at least that it has, or those"
        raise UsageError(
            f"{store.location} has no modality {missing[0]!r}; it has {', '.join(available)}. "
            f"{advice} to use with --modalities."
        )


def _pool(name: str, stores: Sequence[SampleStore], shares: np.ndarray) -> Modality:
    """Pool the statistics of one modality over the stores that have it."""
    numbers = [i for i, store in enumerate(stores) if name in store.attributes.modalities]
    if not numbers:
        raise UsageError(f"none of the {len(stores)} stores has a modality {name!r}.")
    modalities = [stores[i].attributes.modalities[name] for i in numbers]
    for i, modality in zip(numbers, modalities, strict=True):
        where = stores[i].location
        if not (modality.mean and modality.std):
            raise StoreError(
                f"{where} has no statistics of {name!r}; finish it with `salibi-data build`."
            )
        if differences := _differences(modality, modalities[0], _VALUE_FIELDS):
            raise UsageError(
                f"{where} and {stores[numbers[0]].location} disagree on {name!r}: {differences}. "
                "Train on them apart."
            )
    # Zooms of the result are those of the first store, whichever store the modality comes from.
    first = _at_zoom(modalities[0], stores[numbers[0]], stores[0])
    if len(modalities) == 1:
        return first
    share = shares[numbers] / max(shares[numbers].sum(), np.finfo(np.float64).tiny)
    means = np.array([modality.mean for modality in modalities])
    # Variances add up only about a common mean: pool E[x^2], then take off the pooled mean.
    mean_squares = np.array([modality.std for modality in modalities]) ** 2 + means**2
    mean = share @ means
    std = np.sqrt(np.maximum(share @ mean_squares - mean**2, 0.0))
    return first.with_statistics(tuple(map(float, mean)), tuple(map(float, std)))


def _at_zoom(modality: Modality, store: SampleStore, reference: SampleStore) -> Modality:
    """Return a store's modality with the zoom it would have in a store of another base zoom."""
    zooms = reference.attributes.base_zoom - store.attributes.base_zoom
    return replace(modality, zoom=modality.zoom + zooms)


def _differences(actual: Modality, expected: Modality, fields: Sequence[str]) -> str:
    """Describe the fields in which two modalities differ; empty where they agree."""
    return "; ".join(
        f"{field} {_text(getattr(actual, field))} against {_text(getattr(expected, field))}"
        for field in fields
        if getattr(actual, field) != getattr(expected, field)
    )


def _text(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
