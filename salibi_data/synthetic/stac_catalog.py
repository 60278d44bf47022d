"""Describes the sample catalog's root and collections in STAC 1.0.0 (https://stacspec.org)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from salibi_data.synthetic.stac_items import STAC_VERSION, Json

LICENCE: Final = "CC0-1.0"

_COLLECTIONS: Final = {
    "naip": (
        "NAIP (synthetic sample)",
        (
            "Synthetic aerial photographs of an invented landscape, in the form of NAIP: red, green, "
            "blue and near infrared at 0.6 m. No real place is shown."
        ),
    ),
    "sentinel-1-rtc": (
        "Sentinel-1 radiometrically terrain corrected (synthetic sample)",
        (
            "Synthetic radar images of an invented landscape, in the form of Sentinel-1 RTC: linear "
            "gamma naught, VV and VH, at 10 m. No real place is shown."
        ),
    ),
    "sentinel-2-l2a": (
        "Sentinel-2 Level-2A (synthetic sample)",
        (
            "Synthetic optical images of an invented landscape, in the form of Sentinel-2 L2A: surface "
            "reflectance at 10 m and 20 m with scene classification. No real place is shown."
        ),
    ),
}


def collection(collection_id: str, items: Sequence[Json]) -> Json:
    """Return a collection with links to its items; its extent is computed from them."""
    title, description = _COLLECTIONS[collection_id]
    boxes = np.asarray([item["bbox"] for item in items])
    moments = sorted(item["properties"]["datetime"] for item in items)
    bbox = [*boxes[:, :2].min(axis=0).tolist(), *boxes[:, 2:].max(axis=0).tolist()]
    links = [
        {"rel": "root", "href": "../catalog.json", "type": "application/json"},
        {"rel": "parent", "href": "../catalog.json", "type": "application/json"},
    ]
    links += [
        {
            "rel": "item",
            "href": f"./{item['id']}/{item['id']}.json",
            "type": "application/geo+json",
        }
        for item in items
    ]
    return {
        "type": "Collection",
        "stac_version": STAC_VERSION,
        "id": collection_id,
        "title": title,
        "description": description,
        "license": LICENCE,
        "keywords": ["synthetic", "sample", "salibi"],
        "providers": [{"name": "salibi", "roles": ["producer", "licensor"]}],
        "extent": {
            "spatial": {"bbox": [bbox]},
            "temporal": {"interval": [[moments[0], moments[-1]]]},
        },
        "links": links,
    }


def catalog(collection_ids: Sequence[str], sample: Json) -> Json:
    """Return the root catalog. ``sample`` holds the arguments, by which a later run recognises it."""
    return {
        "type": "Catalog",
        "stac_version": STAC_VERSION,
        "id": "salibi-sample",
        "title": "salibi offline sample",
        "description": "An invented landscape seen by Sentinel-1, Sentinel-2 and NAIP. Every "
        "image is synthetic and drawn from one ground, so that the sensors line up exactly.",
        "salibi:sample": sample,
        "links": [
            {"rel": "root", "href": "./catalog.json", "type": "application/json"},
            *(
                {"rel": "child", "href": f"./{name}/collection.json", "type": "application/json"}
                for name in collection_ids
            ),
        ],
    }
